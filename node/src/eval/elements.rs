//! Elements of a key: reading them, counting them, and writing them with what derives from them.

use super::txn::{Key, Txn};
use crate::engine::keys;
use crate::model::{Count, Element, Parts, Type, encode_element};
use bytes::Bytes;
use std::io;

/// Most element rows that a command counts to repair a count; beyond it the count stays open.
const RECOUNT_ROWS_MAX: usize = 1024;

impl Txn<'_> {
    /// The state of a field, empty if there is none.
    fn element(&self, key: &Key, name: &[u8]) -> io::Result<Element> {
        let row = self.view.get(&keys::element(key.slot, &key.name, Type::Hash, name))?;
        Ok(row.as_ref().map(|row| self.read_element(row)).transpose()?.unwrap_or_default())
    }

    /// The value of a field, if key and field are visible.
    pub(super) fn field(&self, key: &Key, name: &[u8]) -> io::Result<Option<Bytes>> {
        match key.ty {
            Some(Type::Hash) => Ok(self.element(key, name)?.value(key.floor)),
            _ => Ok(None),
        }
    }

    /// All visible fields with their values, in order.
    pub(super) fn fields(&self, key: &Key) -> impl Iterator<Item = io::Result<(Bytes, Bytes)>> {
        let range = keys::elements_of_type(key.slot, &key.name, Type::Hash);
        let (prefix, floor) = (range.start.len(), key.floor);
        self.view.scan(range, false).filter_map(move |row| {
            let (row, value) = match row {
                Ok(row) => row,
                Err(error) => return Some(Err(error)),
            };
            match self.read_element(&value) {
                Ok(element) => Some(Ok((row.slice(prefix..), element.value(floor)?))),
                Err(error) => Some(Err(error)),
            }
        })
    }

    /// How many fields are visible.
    pub(super) fn count(&self, key: &Key) -> io::Result<u64> {
        match key.head.known_count(self.context.now_ms) {
            Some(count) => Ok(count),
            None => self.fields(key).try_fold(0, |count, field| field.map(|_| count + 1)),
        }
    }

    /// Counts a hash whose count is open, if it is small: then the next look is quick again.
    pub(super) fn settle_count(&mut self, key: &mut Key) -> io::Result<()> {
        let open = key.head.known_count(self.context.now_ms).is_none();
        if key.ty != Some(Type::Hash) || !open {
            return Ok(());
        }
        let range = keys::elements_of_type(key.slot, &key.name, Type::Hash);
        if self.view.scan(range, false).nth(RECOUNT_ROWS_MAX).is_none() {
            let live = self.count(key)?;
            key.head.count = Some(Count { live, under: key.floor });
        }
        Ok(())
    }

    fn put_element(
        &mut self,
        key: &Key,
        name: &[u8],
        before: &Element,
        mut element: Element,
        parts: Parts,
    ) {
        element.trim(key.head.floor);
        let row = keys::element(key.slot, &key.name, Type::Hash, name);
        self.put_row(row, encode_element(&element), parts);
        self.queue_element(key, Type::Hash, name, before, &element);
    }

    /// Keeps the invariant: what can be collected of an element some day is in the garbage index.
    pub(super) fn queue_element(
        &mut self,
        key: &Key,
        ty: Type,
        name: &[u8],
        before: &Element,
        after: &Element,
    ) {
        let waits = after.garbage().filter(|_| self.is_synced());
        if let Some(stamp) = waits.filter(|_| waits != before.garbage()) {
            let row = keys::garbage(stamp.hlc, key.slot, &key.name, Some((ty, name)));
            self.put_row(row, Bytes::new(), Parts::NONE);
        }
    }

    /// Keeps the count right for the floor that it was made under, which may come back: a passed
    /// expiry can yet be replaced by a longer one that is still on its way.
    pub(super) fn recount(key: &mut Key, before: &Element, after: &Element) {
        if let Some(count) = &mut key.head.count {
            let (before, after) = (before.exists(count.under), after.exists(count.under));
            count.live = count.live.saturating_add_signed(i64::from(after) - i64::from(before));
        }
    }

    /// Sets a field; whether it is new. Claim the key before.
    pub(super) fn set_field(
        &mut self,
        key: &mut Key,
        name: &Bytes,
        value: Bytes,
    ) -> io::Result<bool> {
        let before = self.element(key, name)?;
        let mut element = before.clone();
        element.write(self.stamp(), Some(value));
        Self::recount(key, &before, &element);
        self.put_element(key, name, &before, element, Parts::REGISTER);
        Ok(!before.exists(key.floor))
    }

    /// Adds to a field's counter, which then shows `shown`. Claim the key before.
    pub(super) fn add_to_field(
        &mut self,
        key: &mut Key,
        name: &Bytes,
        amount: i64,
        shown: Bytes,
    ) -> io::Result<()> {
        if !self.is_synced() {
            return self.set_field(key, name, shown).map(|_| ());
        }
        let before = self.element(key, name)?;
        let mut element = before.clone();
        element.add(self.context.origin, self.stamp(), amount, key.floor);
        Self::recount(key, &before, &element);
        self.put_element(key, name, &before, element, Parts::SUM);
        Ok(())
    }

    /// Removes a field; whether it was there.
    pub(super) fn remove_field(&mut self, key: &mut Key, name: &Bytes) -> io::Result<bool> {
        let before = self.element(key, name)?;
        if !before.exists(key.floor) {
            return Ok(false);
        }
        let mut element = before.clone();
        element.write(self.stamp(), None);
        Self::recount(key, &before, &element);
        if self.is_synced() {
            self.put_element(key, name, &before, element, Parts::REGISTER);
        } else {
            self.drop_row(keys::element(key.slot, &key.name, Type::Hash, name));
        }
        Ok(true)
    }

    /// Saves a hash after fields were removed; where nothing is synced an empty one goes.
    pub(super) fn save_or_drop(&mut self, key: Key) -> io::Result<()> {
        if !self.is_synced() && self.count(&key)? == 0 {
            self.delete(key);
        } else {
            self.save(key);
        }
        Ok(())
    }

    /// Joins a state of a field that came from another cluster; the field's state before and after.
    pub(super) fn join_field(
        &mut self,
        key: &mut Key,
        name: &Bytes,
        theirs: Element,
    ) -> io::Result<(Element, Element)> {
        let ours = self.element(key, name)?;
        let mut joined = ours.clone().join(theirs);
        joined.trim(key.head.floor);
        if joined == ours {
            return Ok((ours, joined));
        }
        if key.head.ty() == Some(Type::Hash) {
            Self::recount(key, &ours, &joined);
        }
        key.shows_since(Type::Hash, joined.earliest_visible(key.floor));
        if joined.is_empty() {
            self.drop_row(keys::element(key.slot, &key.name, Type::Hash, name));
        } else {
            self.put_element(key, name, &ours, joined.clone(), Parts::NONE);
        }
        Ok((ours, joined))
    }
}
