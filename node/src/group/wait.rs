//! Clients that wait for keys, at the leader: what is asked, as RPC kind 24, and how a leader wakes them.
//!
//! A poll asks for one of some keys to be there with a type. The leader answers when one is, or when the
//! poll's time is up, which is soon: then it is asked again, of whoever leads. Nothing is popped for a
//! poll. Who is told that a key is there executes its command, as if it had come then, so a client that
//! is gone loses nothing and a poll that is lost does no harm.
//!
//! No wake-up is lost: entering and looking are one step of the evaluator, and every write comes by the
//! run's overlay, which tells which keys were touched (`engine::waited`). Who is woken is evaluated
//! behind the write that woke it. Which one that is its `Room` decides.

mod room;
#[cfg(test)]
mod tests;

pub(super) use room::Room;
pub use room::{NEXT_AFTER, ROOM_BYTES_MAX, WAITERS_MAX};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::view::{Rows, View};
use crate::eval::{self, Txn};
use crate::group::exec::decode_name;
use crate::group::leader::{Leader, LeaderClock};
use crate::model::Type;
use bytes::Bytes;
use flotilla_topology::ids::GroupId;
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const VERSION: u8 = 1;
/// How long one poll waits at most. So long may a client wait for nothing when its leader is replaced.
pub const WAIT_MAX: Duration = Duration::from_secs(1);
/// Keys of one poll.
pub const WAIT_KEYS_MAX: usize = 1024;

/// One poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// One of these must be there, each named once; the first one counts.
    pub keys: Vec<Bytes>,
    /// And be of this type.
    pub ty: Type,
    /// For how long the client has waited so far; to a microsecond. Who has waited longest is first.
    pub waited: Duration,
    /// For how long it may wait now, [`WAIT_MAX`] at most; to a millisecond.
    pub max: Duration,
}

/// A poll of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitRequest {
    /// The group that owns the slots of all keys.
    pub group: GroupId,
    /// What is waited for.
    pub wait: Wait,
}

/// What came of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// This key is there: try it now.
    Ready(Bytes),
    /// The time is up.
    Nothing,
    /// Ask there, if a leader is known.
    NotLeader {
        /// The node that leads, as far as the answering node knows.
        leader: Option<String>,
    },
    /// As many wait in the group as may.
    Full,
}

impl WaitRequest {
    /// The payload of an RPC of kind 24.
    pub fn encode(&self) -> Bytes {
        let Wait { keys, ty, waited, max } = &self.wait;
        let mut out = Encoder::new();
        out.put_u8(VERSION);
        out.put_group(self.group);
        out.put_varint(keys.len() as u64);
        keys.iter().for_each(|key| out.put_bytes(key));
        out.put_u8(ty.number());
        out.put_varint(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
        out.put_varint(u64::try_from(max.as_millis()).unwrap_or(u64::MAX));
        out.into_bytes()
    }

    /// Reads it.
    pub fn decode(payload: &Bytes) -> Result<WaitRequest, DecodeError> {
        let mut input = Decoder::shared(payload);
        input.version(VERSION)?;
        let group = input.group()?;
        let none = input.error("keys to wait for");
        let count = input.count(WAIT_KEYS_MAX, 1)?;
        if count == 0 {
            return Err(none);
        }
        let keys = (0..count).map(|_| input.bytes(usize::MAX)).collect::<Result<_, _>>()?;
        let unknown = input.error("the number of a type");
        let ty = Type::from_number(input.u8()?).ok_or(unknown)?;
        let waited = Duration::from_micros(input.varint()?);
        let long = input.error("at most as many milliseconds as a poll may wait");
        let max = Duration::from_millis(input.varint()?);
        if max > WAIT_MAX {
            return Err(long);
        }
        input.finish()?;
        Ok(WaitRequest { group, wait: Wait { keys, ty, waited, max } })
    }
}

const READY: u8 = 0;
const NOTHING: u8 = 1;
const NOT_LEADER: u8 = 2;
const FULL: u8 = 3;

impl Told {
    /// The payload of the answer.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(VERSION);
        match self {
            Told::Ready(key) => {
                out.put_u8(READY);
                out.put_bytes(key);
            }
            Told::Nothing => out.put_u8(NOTHING),
            Told::NotLeader { leader } => {
                out.put_u8(NOT_LEADER);
                out.put_option(leader.as_deref(), |out, name| out.put_text(name));
            }
            Told::Full => out.put_u8(FULL),
        }
        out.into_bytes()
    }

    /// Reads it.
    pub fn decode(payload: &Bytes) -> Result<Told, DecodeError> {
        let mut input = Decoder::shared(payload);
        input.version(VERSION)?;
        let unknown = input.error("ready (0), nothing (1), not the leader (2) or full (3)");
        let told = match input.u8()? {
            READY => Told::Ready(input.bytes(usize::MAX)?),
            NOTHING => Told::Nothing,
            NOT_LEADER => Told::NotLeader { leader: decode_name(&mut input)? },
            FULL => Told::Full,
            _ => return Err(unknown),
        };
        input.finish()?;
        Ok(told)
    }
}

impl Leader {
    /// Lets a client wait, unless one of its keys is there.
    pub(super) fn wait(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        wait: Wait,
        answer: oneshot::Sender<Told>,
    ) -> io::Result<()> {
        let waited = &mut self.run.overlay.waited;
        let Some((id, names)) = self.room.enter(wait, answer, clock.now, waited) else {
            return Ok(());
        };
        for name in names {
            self.look(rows, clock, &name, false)?;
            if !self.room.has(id) {
                break;
            }
        }
        Ok(())
    }

    /// Looks at the keys that were touched since this was last called, and wakes who waits for them.
    /// `popped`: by who waits or waited itself.
    pub(super) fn rouse(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        popped: bool,
    ) -> io::Result<()> {
        if !self.run.overlay.waited.is_touched() {
            return Ok(());
        }
        for name in self.run.overlay.waited.take_touched() {
            self.look(rows, clock, &name, popped)?;
        }
        Ok(())
    }

    /// When [`Leader::rouse_due`] has something to do; none while nobody waits.
    pub fn wait_due(&self) -> Option<Instant> {
        self.room.due()
    }

    /// Answers polls whose time is up, and wakes the next one where who was woken did not come.
    pub fn rouse_due(&mut self, rows: &dyn Rows, clock: LeaderClock) -> io::Result<()> {
        for name in self.room.pass(clock.now, &mut self.run.overlay.waited) {
            self.look(rows, clock, &name, false)?;
        }
        Ok(())
    }

    /// Nobody is told anything more by this leader: the answers of all polls are dropped.
    pub fn end_waits(&mut self) {
        self.room = Room::default();
    }

    /// Looks at a key that is waited for, as it is behind all that was evaluated.
    fn look(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        name: &Bytes,
        popped: bool,
    ) -> io::Result<()> {
        let Some(key) = self.room.key(name) else { return Ok(()) };
        let at = self.next_context(rows, clock, false)?;
        let txn = Txn::new(View::new(rows, &mut self.run.overlay), at);
        // It is looked at by who executes a command: what has ended by now needs no tick.
        let there = eval::type_of_key(&txn, &key)?;
        self.room.seen(name, there, popped, clock.now, &mut self.run.overlay.waited);
        Ok(())
    }
}
