//! Which of the keys that somebody waits for were written.
//!
//! Cheap: while nobody waits, a write pays one comparison. Every write of a group goes through one
//! overlay, so none is missed. Deletes of whole ranges are not looked at: nothing appears by them.

use super::watch::name_of;
use crate::engine::keys;
use bytes::Bytes;
use flotilla_topology::slot::Slot;
use std::collections::HashMap;

/// The waited for keys of one overlay, by their names; how many there are is its owner's affair.
#[derive(Debug, Default)]
pub struct Waited {
    /// With whether they were touched since that was last asked.
    keys: HashMap<Bytes, bool>,
    /// Those, in the order in which they first were.
    touched: Vec<Bytes>,
}

impl Waited {
    /// By what a key is named here: its slot and its escaped name.
    pub fn name(key: &[u8]) -> Bytes {
        name_of(Slot::of(key), key)
    }

    /// Somebody waits for a key.
    pub fn add(&mut self, name: Bytes) {
        self.keys.entry(name).or_default();
    }

    /// Nobody waits for a key any more.
    pub fn remove(&mut self, name: &[u8]) {
        self.keys.remove(name);
    }

    /// Whether nobody waits for any key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether any was touched.
    pub fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Those that were touched since this was last asked, in that order. Some may not be waited for
    /// any more.
    pub fn take_touched(&mut self) -> Vec<Bytes> {
        let touched = std::mem::take(&mut self.touched);
        for name in &touched {
            if let Some(known) = self.keys.get_mut(name) {
                *known = false;
            }
        }
        touched
    }

    /// A row is written.
    pub(super) fn touch(&mut self, row: &[u8]) {
        if self.keys.is_empty() {
            return;
        }
        if let Some(name) = keys::owner(row) {
            self.mark(name);
        }
    }

    /// Keys are to be written by and by, in this order, which is not that of their rows. It does no
    /// harm if they are not.
    pub fn foretell<'k>(&mut self, keys: impl Iterator<Item = &'k Bytes>) {
        if self.keys.is_empty() {
            return;
        }
        for key in keys {
            self.mark(&Waited::name(key));
        }
    }

    fn mark(&mut self, name: &[u8]) {
        let Some((name, false)) = self.keys.get_key_value(name) else { return };
        let name = name.clone();
        self.touched.push(name.clone());
        self.keys.insert(name, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Type;

    #[test]
    fn only_keys_that_are_waited_for_are_told_each_once_in_order() {
        let mut waited = Waited::default();
        let head = |key: &[u8]| keys::head(Slot::of(key), key);
        waited.touch(&head(b"a"));
        assert!(!waited.is_touched(), "nobody waits");
        let names = [&b"a"[..], b"b", b"a\0b"].map(Waited::name);
        names.iter().for_each(|name| waited.add(name.clone()));
        for other in [&b"c"[..], b"", b"a\0", b"a\0bc"] {
            waited.touch(&head(other));
        }
        waited.touch(&keys::expiry(1, Slot::of(b"a"), b"a"));
        waited.touch(&keys::single(keys::LIVE));
        assert!(!waited.is_touched());
        waited.touch(&keys::element(Slot::of(b"a\0b"), b"a\0b", Type::List, b"x\0"));
        for _ in 0..3 {
            waited.touch(&head(b"a"));
            waited.touch(&head(b"a\0b"));
        }
        assert!(waited.is_touched());
        assert_eq!(waited.take_touched(), [names[2].clone(), names[0].clone()]);
        assert!(!waited.is_touched());
        waited.remove(&names[2]);
        waited.touch(&head(b"a\0b"));
        waited.touch(&head(b"a"));
        assert_eq!(waited.take_touched(), [names[0].clone()]);

        let keys = [&b"b"[..], b"c", b"a"].map(Bytes::from_static);
        waited.foretell(keys.iter());
        waited.touch(&head(b"a"));
        assert_eq!(waited.take_touched(), [names[1].clone(), names[0].clone()]);
    }
}
