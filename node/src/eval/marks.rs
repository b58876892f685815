//! Where scans through the elements of a key stand: a cursor is a hash of the last name that was told.
//!
//! Names stand in their own order, so a step reads on behind that name and costs what it tells, however
//! large the key. The name itself is found by its hash:
//! * at once if this replica gave the cursor not long ago ([`ScanMarks`]);
//! * else by reading names from the first on: the scan goes on at another node, or many others run;
//! * a name that has been removed meanwhile, and is not remembered, is nowhere found: the scan begins
//!   anew. So an element that is there throughout is told at least once, and some perhaps twice, which is
//!   what Redis promises.

use super::mix::Mix;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Names that are remembered in each of two generations, at most.
const MARKS_MAX: usize = 512;
/// A name of more bytes is not remembered.
const MARK_BYTES_MAX: usize = 1024;
/// Seed of the hash: it never changes, cursors live in clients.
const SEED: u64 = 0x4355_5253_4F52;
/// A cursor has 48 bits: some clients keep it in a floating-point number.
const CURSOR_SHIFT: u32 = 16;

/// The cursor of a scan through `key` that has come to `name`; never 0, which begins and ends one.
pub(super) fn cursor_at(key: &[u8], name: &[u8]) -> u64 {
    let mut mix = Mix::new(SEED);
    mix.bytes(key);
    mix.bytes(name);
    (mix.finish() >> CURSOR_SHIFT).max(1)
}

/// The names behind the cursors that a replica has given, the latest of them.
#[derive(Debug, Default)]
pub struct ScanMarks(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, Bytes>,
    old: HashMap<u64, Bytes>,
}

impl ScanMarks {
    /// The name that `key`'s scan has come to with this cursor, if it is remembered.
    pub(super) fn name(&self, key: &[u8], cursor: u64) -> Option<Bytes> {
        let marks = self.0.lock();
        let name = marks.young.get(&cursor).or_else(|| marks.old.get(&cursor))?;
        (cursor_at(key, name) == cursor).then(|| name.clone())
    }

    /// Remembers a cursor that is given to a client.
    pub(super) fn put(&self, cursor: u64, name: &[u8]) {
        if name.len() > MARK_BYTES_MAX {
            return;
        }
        let mut marks = self.0.lock();
        if marks.young.len() >= MARKS_MAX {
            marks.old = std::mem::take(&mut marks.young);
        }
        // A copy: what it was cut from may be a whole block of rows.
        marks.young.insert(cursor, Bytes::copy_from_slice(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_cursors_are_remembered_for_their_key() {
        let marks = ScanMarks::default();
        let name = |number: usize| format!("name{number}").into_bytes();
        for number in 0..3 * MARKS_MAX {
            marks.put(cursor_at(b"k", &name(number)), &name(number));
        }
        let latest = name(3 * MARKS_MAX - 1);
        let cursor = cursor_at(b"k", &latest);
        assert_eq!(marks.name(b"k", cursor).as_deref(), Some(&latest[..]));
        assert_eq!(marks.name(b"another", cursor), None);
        assert_eq!(marks.name(b"k", cursor_at(b"k", &name(0))), None, "long ago");
        let long = vec![b'x'; MARK_BYTES_MAX + 1];
        marks.put(cursor_at(b"k", &long), &long);
        assert_eq!(marks.name(b"k", cursor_at(b"k", &long)), None);
        assert!(cursor != 0 && cursor < 1 << 48);
    }
}
