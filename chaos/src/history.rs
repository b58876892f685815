//! What the clients of a cluster saw: one record per operation, with the times at which it was
//! invoked and returned.
//!
//! Invariants:
//! * An operation whose outcome is not known stays open: it may take effect at any time after its
//!   invocation, or never. It is never dropped and never taken for failed.
//! * An operation that was certainly not carried out is not in the history.
//! * All times of one history come from one clock.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

/// An operation on one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// GET.
    Get,
    /// SET.
    Set(String),
    /// SET NX: only where nothing is.
    SetNx(String),
    /// SET XX: only where something is.
    SetXx(String),
    /// GETSET: writes and returns what was there.
    GetSet(String),
    /// GETDEL: deletes and returns what was there.
    GetDel,
    /// DEL.
    Del,
    /// INCR.
    Incr,
    /// HSET of one field.
    HSet(String, String),
    /// HGET of one field.
    HGet(String),
}

/// What an operation returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// A write took effect.
    Done,
    /// A conditional write found its condition unmet.
    Unmet,
    /// A number: INCR the new value, DEL and HSET how many were removed or added.
    Int(i64),
    /// A value, or none.
    Value(Option<String>),
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who asked.
    pub client: u32,
    /// The key.
    pub key: String,
    /// What was asked.
    pub op: Op,
    /// When it was asked, in nanoseconds since the history began.
    pub invoked: u64,
    /// When it returned, and what; `None` while or for ever open.
    pub returned: Option<(u64, Answer)>,
}

impl Record {
    /// When it returned; an open operation never did.
    pub fn returned_at(&self) -> u64 {
        self.returned.as_ref().map_or(u64::MAX, |(at, _)| *at)
    }

    /// Whether it is known to have taken effect, or known to have taken none; `None` when open.
    /// Reads take none.
    pub fn took_effect(&self) -> Option<bool> {
        let (_, answer) = self.returned.as_ref()?;
        Some(match (&self.op, answer) {
            (Op::Get | Op::HGet(_), _) | (_, Answer::Unmet) => false,
            (Op::Del, Answer::Int(removed)) => *removed > 0,
            (Op::GetDel, Answer::Value(found)) => found.is_some(),
            _ => true,
        })
    }
}

/// All that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In no particular order.
    pub records: Vec<Record>,
}

impl History {
    /// All keys that were touched.
    pub fn keys(&self) -> BTreeSet<&str> {
        self.records.iter().map(|record| record.key.as_str()).collect()
    }

    /// Writes one JSON object per line, so that a failure can be looked at later.
    pub fn save(&self, mut to: impl Write) -> io::Result<()> {
        for record in &self.records {
            serde_json::to_writer(&mut to, record)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads what `save` wrote.
    pub fn load(from: impl BufRead) -> io::Result<History> {
        let records = from.lines().map(|line| Ok(serde_json::from_str(&line?)?));
        Ok(History { records: records.collect::<io::Result<_>>()? })
    }
}

/// Records what several clients see. Clones write to the same history.
#[derive(Clone)]
pub struct Recorder {
    began: Instant,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder { began: Instant::now(), records: Arc::default() }
    }
}

impl Recorder {
    /// The time of an event that happens now.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Adds an operation.
    pub fn add(&self, record: Record) {
        self.records.lock().push(record);
    }

    /// All that was recorded so far.
    pub fn history(&self) -> History {
        History { records: self.records.lock().clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_survives_its_file() {
        let recorder = Recorder::default();
        let record = |op, returned| Record {
            client: 1,
            key: "k".into(),
            op,
            invoked: recorder.now(),
            returned,
        };
        recorder.add(record(Op::Set("a".into()), Some((5, Answer::Done))));
        recorder.add(record(Op::HSet("f".into(), "v".into()), None));
        recorder.add(record(Op::GetDel, Some((7, Answer::Value(None)))));
        let history = recorder.history();
        let mut file = Vec::new();
        history.save(&mut file).unwrap();
        assert_eq!(History::load(&file[..]).unwrap(), history);
        assert_eq!(history.keys().len(), 1);
        let effects: Vec<_> = history.records.iter().map(Record::took_effect).collect();
        assert_eq!(effects, [Some(true), None, Some(false)]);
    }
}
