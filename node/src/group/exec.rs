//! Commands on their way to a group's leader and their outcomes on the way back: inside a node and
//! as RPC kinds 20 (exec), 21 (read index), 22 (tick) and 25 (read indexes of several groups).

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::command::Command;
use crate::resp::{COMMAND_REPLY_BYTES_MAX, Reply};
use crate::transport::PAYLOAD_BYTES_MAX;
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, LogId};

const EXEC_VERSION: u8 = 1;
/// Commands of one request: a connection's batch.
pub const COMMANDS_MAX: usize = 1024;
/// Replies of one request hold about so many bytes at most, or one reply: what stands behind is
/// not executed and asked for again. So a pipeline of reads of large values neither takes the
/// memory of a node nor passes the largest frame between nodes.
pub const REPLY_BYTES_MAX: usize = 12 << 20;
const _: () = assert!(REPLY_BYTES_MAX + COMMAND_REPLY_BYTES_MAX < PAYLOAD_BYTES_MAX);
/// Longest node name on the wire.
const NAME_BYTES_MAX: usize = 256;

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was evaluated, what it did is applied, and this is its answer.
    Done(Reply),
    /// Certainly not applied; try again, there if a leader is known.
    NotApplied {
        /// The node that leads, as far as the answering node knows.
        leader: Option<String>,
    },
    /// It may have been applied, or may yet be.
    Unknown,
}

/// Commands for one group, to be evaluated in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// The group that owns the slots of all their keys.
    pub group: GroupId,
    /// They.
    pub commands: Vec<Command>,
}

impl ExecRequest {
    /// The payload of an RPC of kind 20.
    pub fn encode(&self) -> Bytes {
        let size: usize = self.commands.iter().map(Command::size).sum();
        let mut out = Encoder::with_capacity(size + 16);
        out.put_u8(EXEC_VERSION);
        out.put_group(self.group);
        out.put_varint(self.commands.len() as u64);
        for command in &self.commands {
            command.to_wire(&mut out);
        }
        out.into_bytes()
    }

    /// Reads it.
    pub fn decode(payload: &Bytes) -> Result<ExecRequest, DecodeError> {
        let mut input = Decoder::shared(payload);
        input.version(EXEC_VERSION)?;
        let group = input.group()?;
        let count = input.count(COMMANDS_MAX, 2)?;
        let commands =
            (0..count).map(|_| Command::from_wire(&mut input)).collect::<Result<_, _>>()?;
        input.finish()?;
        Ok(ExecRequest { group, commands })
    }
}

const DONE: u8 = 0;
const NOT_APPLIED: u8 = 1;
const UNKNOWN: u8 = 2;
const ASK_ALONE: u8 = 3;

/// The payload of the answer to an exec.
pub fn encode_outcomes(outcomes: &[Outcome]) -> Bytes {
    let mut out = Encoder::new();
    out.put_u8(EXEC_VERSION);
    out.put_varint(outcomes.len() as u64);
    for outcome in outcomes {
        match outcome {
            Outcome::Done(reply) => {
                out.put_u8(DONE);
                reply.to_wire(&mut out);
            }
            Outcome::NotApplied { leader } => {
                out.put_u8(NOT_APPLIED);
                out.put_option(leader.as_deref(), |out, name| out.put_text(name));
            }
            Outcome::Unknown => out.put_u8(UNKNOWN),
        }
    }
    out.into_bytes()
}

/// Reads it.
pub fn decode_outcomes(payload: &Bytes) -> Result<Vec<Outcome>, DecodeError> {
    let mut input = Decoder::shared(payload);
    input.version(EXEC_VERSION)?;
    let count = input.count(COMMANDS_MAX, 1)?;
    let mut outcomes = Vec::with_capacity(count);
    for _ in 0..count {
        let error = input.error("an outcome (0 done, 1 not applied, 2 unknown)");
        outcomes.push(match input.u8()? {
            DONE => Outcome::Done(Reply::from_wire(&mut input)?),
            NOT_APPLIED => Outcome::NotApplied { leader: decode_name(&mut input)? },
            UNKNOWN => Outcome::Unknown,
            _ => return Err(error),
        });
    }
    input.finish()?;
    Ok(outcomes)
}

pub(super) fn decode_name(input: &mut Decoder<'_>) -> Result<Option<String>, DecodeError> {
    input.option(|input| Ok(input.text(NAME_BYTES_MAX)?.to_owned()))
}

/// The payload of RPC kinds 21 and 22: the group, and the time that a tick must reach (0: none).
pub fn encode_barrier_request(group: GroupId, tick_ms: u64) -> Bytes {
    let mut out = Encoder::with_capacity(16);
    out.put_u8(EXEC_VERSION);
    out.put_group(group);
    out.put_varint(tick_ms);
    out.into_bytes()
}

/// Reads it.
pub fn decode_barrier_request(payload: &Bytes) -> Result<(GroupId, u64), DecodeError> {
    let mut input = Decoder::shared(payload);
    input.version(EXEC_VERSION)?;
    let request = (input.group()?, input.varint()?);
    input.finish()?;
    Ok(request)
}

/// What a leader answers to a read barrier: a replica that has applied `log_id` and reads with
/// `clock_ms` sees everything that was acknowledged before the barrier was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    /// Position to wait for.
    pub log_id: LogId,
    /// The group's clock in milliseconds, which decides what has expired.
    pub clock_ms: u64,
}

/// What a leader answers to a barrier: it, or the leader as far as it knows.
pub type BarrierAnswer = Result<Barrier, Option<String>>;

/// Groups of one request for barriers, at most.
pub const BARRIERS_MAX: usize = 1024;

/// The payload of the answer to RPC kinds 21 and 22.
pub fn encode_barrier(answer: &BarrierAnswer) -> Bytes {
    let mut out = Encoder::with_capacity(32);
    out.put_u8(EXEC_VERSION);
    put_barrier(&mut out, answer);
    out.into_bytes()
}

/// Reads it; the error is the leader, as far as the answering node knows.
pub fn decode_barrier(payload: &Bytes) -> Result<BarrierAnswer, DecodeError> {
    let mut input = Decoder::shared(payload);
    input.version(EXEC_VERSION)?;
    let error = input.error("a barrier (0) or a leader (1)");
    let answer = barrier(&mut input)?.ok_or(error)?;
    input.finish()?;
    Ok(answer)
}

/// The payload of RPC kind 25: groups, [`BARRIERS_MAX`] at most.
pub fn encode_barriers_request(groups: &[GroupId]) -> Bytes {
    let mut out = Encoder::with_capacity(4 + 2 * groups.len());
    out.put_u8(EXEC_VERSION);
    out.put_varint(groups.len() as u64);
    groups.iter().for_each(|group| out.put_group(*group));
    out.into_bytes()
}

/// Reads it.
pub fn decode_barriers_request(payload: &Bytes) -> Result<Vec<GroupId>, DecodeError> {
    let mut input = Decoder::shared(payload);
    input.version(EXEC_VERSION)?;
    let count = input.count(BARRIERS_MAX, 1)?;
    let groups = (0..count).map(|_| input.group()).collect::<Result<_, _>>()?;
    input.finish()?;
    Ok(groups)
}

/// The payload of the answer to RPC kind 25: of each group, in the order of the request, what could be
/// said at once, or none: ask for that group alone.
pub fn encode_barriers(answers: &[Option<BarrierAnswer>]) -> Bytes {
    let mut out = Encoder::with_capacity(4 + 24 * answers.len());
    out.put_u8(EXEC_VERSION);
    out.put_varint(answers.len() as u64);
    for answer in answers {
        match answer {
            Some(answer) => put_barrier(&mut out, answer),
            None => out.put_u8(ASK_ALONE),
        }
    }
    out.into_bytes()
}

/// Reads it.
pub fn decode_barriers(payload: &Bytes) -> Result<Vec<Option<BarrierAnswer>>, DecodeError> {
    let mut input = Decoder::shared(payload);
    input.version(EXEC_VERSION)?;
    let count = input.count(BARRIERS_MAX, 1)?;
    let answers = (0..count).map(|_| barrier(&mut input)).collect::<Result<_, _>>()?;
    input.finish()?;
    Ok(answers)
}

fn put_barrier(out: &mut Encoder, answer: &BarrierAnswer) {
    match answer {
        Ok(barrier) => {
            out.put_u8(DONE);
            out.put_log_id(barrier.log_id);
            out.put_varint(barrier.clock_ms);
        }
        Err(leader) => {
            out.put_u8(NOT_APPLIED);
            out.put_option(leader.as_deref(), |out, name| out.put_text(name));
        }
    }
}

fn barrier(input: &mut Decoder<'_>) -> Result<Option<BarrierAnswer>, DecodeError> {
    let error = input.error("a barrier (0), a leader (1), or neither (3)");
    Ok(match input.u8()? {
        DONE => Some(Ok(Barrier { log_id: input.log_id()?, clock_ms: input.varint()? })),
        NOT_APPLIED => Some(Err(decode_name(input)?)),
        ASK_ALONE => None,
        _ => return Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_and_barriers_survive_the_wire() {
        let outcomes = vec![
            Outcome::Done(Reply::Int(7)),
            Outcome::NotApplied { leader: Some("east-n1".into()) },
            Outcome::NotApplied { leader: None },
            Outcome::Unknown,
        ];
        let bytes = encode_outcomes(&outcomes);
        assert_eq!(decode_outcomes(&bytes).unwrap(), outcomes);
        for end in 0..bytes.len() {
            assert!(decode_outcomes(&bytes.slice(..end)).is_err());
        }
        let barrier = Barrier { log_id: LogId { term: 3, index: 90 }, clock_ms: 12 };
        for answer in [Ok(barrier), Err(None), Err(Some("n2".to_owned()))] {
            assert_eq!(decode_barrier(&encode_barrier(&answer)).unwrap(), answer);
        }
        let several = vec![Some(Ok(barrier)), None, Some(Err(None)), Some(Err(Some("n2".into())))];
        assert_eq!(decode_barriers(&encode_barriers(&several)).unwrap(), several);
        let alone = encode_barriers(&[None]);
        assert!(
            decode_barrier(&alone.slice(1..)).is_err(),
            "one that was asked for alone is there"
        );
        let groups = [GroupId(4), GroupId(5)];
        assert_eq!(decode_barriers_request(&encode_barriers_request(&groups)).unwrap(), groups);
        let too_many = vec![GroupId(1); BARRIERS_MAX + 1];
        assert!(decode_barriers_request(&encode_barriers_request(&too_many)).is_err());
        let request = encode_barrier_request(GroupId(4), 77);
        assert_eq!(decode_barrier_request(&request).unwrap(), (GroupId(4), 77));
    }
}
