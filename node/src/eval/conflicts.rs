//! FLOTILLA CONFLICTS over one group: the log of losers, newest first.
//!
//! The rows are written where batches of other clusters are merged (`group::losers`); their format
//! is here. Row value: version, clock of the merge, kind, the stamp that lost, the one that won,
//! key, element, first bytes of the losing value; sealed.

use super::args::{Outcome, Stop, integer, is};
use super::remote::{Loser, LoserKind, NAME_TOLD_BYTES, told_bytes};
use super::txn::{Txn, corrupt};
use crate::codec::{DecodeError, Decoder, Encoder, unseal_bytes};
use crate::engine::keys;
use crate::resp::Reply;
use bytes::Bytes;
use flotilla_topology::stamp::Hlc;
use std::cmp::Reverse;

const LOSER_VERSION: u8 = 1;
/// Conflicts that are shown if nothing else is asked for.
const COUNT_DEFAULT: usize = 10;
/// Conflicts that one call shows at most.
pub const CONFLICTS_MAX: usize = 1_000;

/// A row of the log of losers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoserRow {
    /// The group's clock when it lost.
    pub at: Hlc,
    /// What lost.
    pub loser: Loser,
}

impl LoserRow {
    /// Its row value.
    pub fn encode(&self) -> Bytes {
        let Loser { kind, key, element, lost, won, value } = &self.loser;
        let mut out = Encoder::with_capacity(64 + key.len() + element.len());
        out.put_u8(LOSER_VERSION);
        out.put_hlc(self.at);
        out.put_u8(kind.number());
        out.put_stamp(*lost);
        out.put_stamp(*won);
        [key, element, value].into_iter().for_each(|bytes| out.put_bytes(bytes));
        out.seal(0);
        out.into_bytes()
    }

    /// Reads a row value.
    pub fn decode(value: &Bytes) -> Result<LoserRow, DecodeError> {
        let body = unseal_bytes(value)?;
        let mut input = Decoder::shared(&body);
        input.version(LOSER_VERSION)?;
        let at = input.hlc()?;
        let unknown = input.error("a kind of loser that this release knows");
        let kind = *LoserKind::ALL.get(usize::from(input.u8()?)).ok_or(unknown)?;
        let (lost, won) = (input.stamp()?, input.stamp()?);
        let key = input.bytes(NAME_TOLD_BYTES)?;
        let element = input.bytes(NAME_TOLD_BYTES)?;
        let value = input.bytes(NAME_TOLD_BYTES)?;
        input.finish()?;
        Ok(LoserRow { at, loser: Loser { kind, key, element, lost, won, value } })
    }

    fn reply(self) -> Reply {
        let LoserRow { at, loser } = self;
        let cluster = |id: u8| Reply::Int(i64::from(id));
        let fields = [
            ("at", Reply::Int(i64::try_from(at.ms()).unwrap_or(i64::MAX))),
            ("key", Reply::Bulk(loser.key)),
            ("element", Reply::Bulk(loser.element)),
            ("kind", Reply::bulk(loser.kind.name())),
            ("lost-stamp", Reply::bulk(loser.lost.hlc.to_string())),
            ("lost-cluster", cluster(loser.lost.cluster.0)),
            ("won-stamp", Reply::bulk(loser.won.hlc.to_string())),
            ("won-cluster", cluster(loser.won.cluster.0)),
            ("lost-value", Reply::Bulk(loser.value)),
        ];
        Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
    }
}

/// The arguments of FLOTILLA CONFLICTS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictOptions {
    /// Only of this key.
    pub key: Option<Bytes>,
    /// How many at most.
    pub count: usize,
}

impl ConflictOptions {
    /// Reads the arguments, both names included; an error is the reply to give.
    pub fn parse(args: &[Bytes]) -> Result<ConflictOptions, Reply> {
        Self::read(args).map_err(|stop| match stop {
            Stop::Reply(reply) => reply,
            Stop::Io(error) => Reply::error(format!("ERR {error}")),
        })
    }

    fn read(args: &[Bytes]) -> Result<ConflictOptions, Stop> {
        let mut options = ConflictOptions { key: None, count: COUNT_DEFAULT };
        for option in args.get(2..).unwrap_or_default().chunks(2) {
            let [word, value] = option else { return Err(Stop::syntax()) };
            if is(word, "COUNT") {
                let count = usize::try_from(integer(value)?).ok();
                options.count =
                    count.filter(|count| (1..=CONFLICTS_MAX).contains(count)).ok_or_else(|| {
                        Stop::error(format!("ERR COUNT must be between 1 and {CONFLICTS_MAX}"))
                    })?;
            } else if is(word, "KEY") {
                options.key = Some(value.clone());
            } else {
                return Err(Stop::syntax());
            }
        }
        Ok(options)
    }

    fn wants(&self, loser: &Loser) -> bool {
        self.key.as_ref().is_none_or(|key| loser.key == told_bytes(key, NAME_TOLD_BYTES))
    }
}

/// The losers of this group, newest first.
pub(super) fn conflicts(txn: &Txn<'_>, args: &[Bytes]) -> Outcome {
    let options = ConflictOptions::read(args)?;
    let mut found = Vec::new();
    for row in txn.view.scan(keys::of_kind(keys::LOSER), true) {
        let row = LoserRow::decode(&row?.1).map_err(corrupt)?;
        if options.wants(&row.loser) {
            found.push(row.reply());
        }
        if found.len() == options.count {
            break;
        }
    }
    Ok(Reply::Array(found))
}

/// The newest of what several groups answered.
pub fn newest_conflicts(mut all: Vec<Reply>, count: usize) -> Reply {
    let at = |reply: &Reply| match reply {
        Reply::Map(fields) => match fields.first() {
            Some((_, Reply::Int(at))) => *at,
            _ => 0,
        },
        _ => 0,
    };
    all.sort_by_key(|reply| Reverse(at(reply))); // stable: each group's own order stays
    all.truncate(count);
    Reply::Array(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::ids::ClusterId;
    use flotilla_topology::stamp::Stamp;

    fn row(ms: u64, key: &'static str) -> LoserRow {
        let stamp = |ms, cluster| Stamp { hlc: Hlc::from_ms(ms), cluster: ClusterId(cluster) };
        let loser = Loser {
            kind: LoserKind::Replaced,
            key: Bytes::from_static(key.as_bytes()),
            element: Bytes::from_static(b"f"),
            lost: stamp(ms - 1, 1),
            won: stamp(ms, 2),
            value: Bytes::from_static(b"v"),
        };
        LoserRow { at: Hlc::from_ms(ms), loser }
    }

    #[test]
    fn a_loser_survives_its_row() {
        for kind in LoserKind::ALL {
            let mut row = row(9, "k");
            row.loser.kind = kind;
            let bytes = row.encode();
            assert_eq!(LoserRow::decode(&bytes).unwrap(), row);
            for end in 0..bytes.len() {
                assert!(LoserRow::decode(&bytes.slice(..end)).is_err());
            }
        }
    }

    #[test]
    fn golden_row() {
        let bytes = row(2, "k").encode();
        let body = b"\x01\0\0\0\0\0\x02\0\0\x04\0\0\0\0\0\x01\0\0\x01\0\0\0\0\0\x02\0\0\x02\
                     \x01k\x01f\x01v";
        assert_eq!(&bytes[..bytes.len() - crate::codec::SEAL_BYTES], body);
    }

    #[test]
    fn options_are_checked() {
        let parse = |line: &str| {
            let args: Vec<Bytes> =
                line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
            ConflictOptions::parse(&args)
        };
        let plain = ConflictOptions { key: None, count: COUNT_DEFAULT };
        assert_eq!(parse("FLOTILLA CONFLICTS"), Ok(plain));
        let both = ConflictOptions { key: Some("k".into()), count: 1000 };
        assert_eq!(parse("flotilla conflicts count 1000 key k"), Ok(both));
        let error = |line: &str| match parse(line).unwrap_err() {
            Reply::Error(line) => String::from_utf8_lossy(&line).into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(error("FLOTILLA CONFLICTS KEY"), "ERR syntax error");
        assert_eq!(error("FLOTILLA CONFLICTS MATCH k"), "ERR syntax error");
        for bad in ["0", "-1", "1001"] {
            let line = format!("FLOTILLA CONFLICTS COUNT {bad}");
            assert_eq!(error(&line), "ERR COUNT must be between 1 and 1000");
        }
        let line = "FLOTILLA CONFLICTS COUNT x";
        assert_eq!(error(line), "ERR value is not an integer or out of range");
    }

    #[test]
    fn the_newest_of_all_groups_come_first() {
        let one = [7, 3].map(|ms| row(ms, "a").reply());
        let other = [9, 7, 2].map(|ms| row(ms, "b").reply());
        let all: Vec<Reply> = one.into_iter().chain(other).collect();
        let Reply::Array(newest) = newest_conflicts(all, 4) else { panic!("an array") };
        let at = |reply: &Reply| match reply {
            Reply::Map(fields) => (fields[0].1.clone(), fields[1].1.clone()),
            _ => panic!("maps"),
        };
        let wanted = [(9, "b"), (7, "a"), (7, "b"), (3, "a")];
        let wanted = wanted.map(|(at, key)| (Reply::Int(at), Reply::bulk(key)));
        assert_eq!(newest.iter().map(at).collect::<Vec<_>>(), wanted);
    }
}
