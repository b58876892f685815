//! Elements of a key: reading them, counting them, and writing them with what derives from them.

use super::txn::{Key, Txn};
use crate::engine::keys;
use crate::engine::order::Span;
use crate::model::{Count, Element, Parts, Type, encode_element};
use bytes::Bytes;
use std::io;
use std::ops::Range;

/// Most element rows that a command counts to repair a count; beyond it the count stays open.
const RECOUNT_ROWS_MAX: usize = 1024;

impl Txn<'_> {
    /// The state of an element, empty if there is none.
    fn element(&self, key: &Key, ty: Type, name: &[u8]) -> io::Result<Element> {
        let row = self.view.get(&keys::element(key.slot, &key.name, ty, name))?;
        Ok(row.as_ref().map(|row| self.read_element(row)).transpose()?.unwrap_or_default())
    }

    /// The value of a field or a member, if it and its key are visible.
    pub(super) fn field(&self, key: &Key, name: &[u8]) -> io::Result<Option<Bytes>> {
        match key.ty.filter(|ty| ty.has_elements()) {
            Some(ty) => Ok(self.element(key, ty, name)?.value(key.floor)),
            None => Ok(None),
        }
    }

    /// All visible elements with their values, in order; none if the key is not visible.
    pub(super) fn fields(&self, key: &Key) -> impl Iterator<Item = io::Result<(Bytes, Bytes)>> {
        let ty = key.ty.filter(|ty| ty.has_elements());
        ty.into_iter().flat_map(|ty| self.elements_of(key, ty))
    }

    /// All elements of a type that the floor does not hide, with their values, in order.
    pub(super) fn elements_of(
        &self,
        key: &Key,
        ty: Type,
    ) -> impl Iterator<Item = io::Result<(Bytes, Bytes)>> {
        self.visible(key, ty, keys::elements_of_type(key.slot, &key.name, ty), false)
    }

    /// Those of them in a range of rows of the type.
    fn visible(
        &self,
        key: &Key,
        ty: Type,
        range: Range<Bytes>,
        reverse: bool,
    ) -> impl Iterator<Item = io::Result<(Bytes, Bytes)>> {
        self.rows_of(key, ty, range, reverse).filter_map(|row| match row {
            Ok((name, value)) => Some(Ok((name, value?))),
            Err(error) => Some(Err(error)),
        })
    }

    /// All elements in a range of rows of the type, also those that are not visible: these without a
    /// value.
    fn rows_of(
        &self,
        key: &Key,
        ty: Type,
        range: Range<Bytes>,
        reverse: bool,
    ) -> impl Iterator<Item = io::Result<(Bytes, Option<Bytes>)>> {
        let (prefix, floor) = (keys::element(key.slot, &key.name, ty, b"").len(), key.floor);
        self.view.scan(range, reverse).map(move |row| {
            let (row, value) = row?;
            Ok((row.slice(prefix..), self.read_element(&value)?.value(floor)))
        })
    }

    /// The rows of elements of a visible key whose names are in a span, in order of the names; no value
    /// for what is not visible.
    pub(super) fn element_rows(
        &self,
        key: &Key,
        span: Span,
    ) -> impl Iterator<Item = io::Result<(Bytes, Option<Bytes>)>> {
        let (ty, range) = Self::range_of(key, span);
        self.rows_of(key, ty, range, false)
    }

    fn range_of(key: &Key, span: Span) -> (Type, Range<Bytes>) {
        let ty = Self::type_of(key);
        let mut range = keys::elements_of_type(key.slot, &key.name, ty);
        range.start = keys::element(key.slot, &key.name, ty, &span.start);
        if let Some(end) = &span.end {
            range.end = keys::element(key.slot, &key.name, ty, end);
        }
        (ty, range)
    }

    /// Visible elements of a visible key whose names are in a span, in order of the names.
    pub(super) fn fields_in(
        &self,
        key: &Key,
        span: Span,
        reverse: bool,
    ) -> impl Iterator<Item = io::Result<(Bytes, Bytes)>> {
        let (ty, range) = Self::range_of(key, span);
        self.visible(key, ty, range, reverse)
    }

    /// The first visible element whose name is not below this one.
    pub(super) fn first_from(&self, key: &Key, name: &[u8]) -> io::Result<Option<(Bytes, Bytes)>> {
        let start = Bytes::copy_from_slice(name);
        self.fields_in(key, Span { start, end: None }, false).next().transpose()
    }

    /// The first or the last visible element whose name begins so.
    pub(super) fn edge_under(
        &self,
        key: &Key,
        prefix: &[u8],
        last: bool,
    ) -> io::Result<Option<(Bytes, Bytes)>> {
        let ty = Self::type_of(key);
        let range = keys::elements_under(key.slot, &key.name, ty, prefix);
        self.visible(key, ty, range, last).next().transpose()
    }

    /// How many elements are visible.
    pub(super) fn count(&self, key: &Key) -> io::Result<u64> {
        match key.head.known_count(self.context.now_ms) {
            Some(count) => Ok(count),
            None => self.fields(key).try_fold(0, |count, field| field.map(|_| count + 1)),
        }
    }

    /// Counts a key whose count is open, if it is small: then the next look is quick again.
    pub(super) fn settle_count(&mut self, key: &mut Key) -> io::Result<()> {
        let open = key.head.known_count(self.context.now_ms).is_none();
        let Some(ty) = key.ty.filter(|ty| ty.has_elements() && open) else { return Ok(()) };
        let range = keys::elements_of_type(key.slot, &key.name, ty);
        if self.view.scan(range, false).nth(RECOUNT_ROWS_MAX).is_none() {
            let live = self.count(key)?;
            key.head.count = Some(Count { live, under: key.floor });
        }
        Ok(())
    }

    fn put_element(
        &mut self,
        key: &Key,
        (ty, name): (Type, &[u8]),
        before: &Element,
        mut element: Element,
        parts: Parts,
    ) -> io::Result<()> {
        element.trim(key.head.floor);
        self.store(key, (ty, name), before, &element, parts)?;
        self.queue_element(key, ty, name, before, &element);
        Ok(())
    }

    /// The only writer of element rows, with what derives from them: an element without anything has no
    /// row, and where elements have an order the index of it has them as they stand in theirs.
    pub(super) fn store(
        &mut self,
        key: &Key,
        (ty, name): (Type, &[u8]),
        before: &Element,
        after: &Element,
        parts: Parts,
    ) -> io::Result<()> {
        let row = keys::element(key.slot, &key.name, ty, name);
        match after.is_empty() {
            true => self.drop_row(row),
            false => self.put_row(row, encode_element(after), parts),
        }
        match ty.has_order() {
            true => self.reorder(key, (ty, name), before, after),
            false => Ok(()),
        }
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

    /// The type of a key that was claimed, or found visible, before.
    fn type_of(key: &Key) -> Type {
        key.ty.filter(|ty| ty.has_elements()).expect("it was claimed for elements, or holds some")
    }

    /// Sets a field, or adds a member; whether it is new. Claim the key before.
    pub(super) fn set_field(
        &mut self,
        key: &mut Key,
        name: &Bytes,
        value: Bytes,
    ) -> io::Result<bool> {
        let ty = Self::type_of(key);
        let before = self.element(key, ty, name)?;
        let mut element = before.clone();
        element.write(self.stamp(), Some(value));
        Self::recount(key, &before, &element);
        self.put_element(key, (ty, name), &before, element, Parts::REGISTER)?;
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
        let ty = Self::type_of(key);
        let before = self.element(key, ty, name)?;
        let mut element = before.clone();
        element.add(self.context.origin, self.stamp(), amount, key.floor);
        Self::recount(key, &before, &element);
        self.put_element(key, (ty, name), &before, element, Parts::SUM)
    }

    /// Removes a field or a member of a visible key; whether it was there.
    pub(super) fn remove_field(&mut self, key: &mut Key, name: &Bytes) -> io::Result<bool> {
        let ty = Self::type_of(key);
        let before = self.element(key, ty, name)?;
        if !before.exists(key.floor) {
            return Ok(false);
        }
        let mut element = before.clone();
        match ty {
            Type::List => element.remove_for_good(self.stamp()),
            _ => element.write(self.stamp(), None),
        }
        Self::recount(key, &before, &element);
        if self.is_synced() {
            self.put_element(key, (ty, name), &before, element, Parts::REGISTER)?;
        } else {
            self.store(key, (ty, name), &before, &Element::default(), Parts::NONE)?;
        }
        Ok(true)
    }

    /// Saves a key after elements were removed; where nothing is synced an empty one goes.
    pub(super) fn save_or_drop(&mut self, key: Key) -> io::Result<()> {
        if !self.is_synced() && self.count(&key)? == 0 {
            self.delete(key);
        } else {
            self.save(key);
        }
        Ok(())
    }

    /// Joins a state of an element that came from another cluster; its state before and after.
    pub(super) fn join_element(
        &mut self,
        key: &mut Key,
        (ty, name): (Type, &Bytes),
        theirs: Element,
    ) -> io::Result<(Element, Element)> {
        let ours = self.element(key, ty, name)?;
        let mut joined = ours.clone().join(theirs);
        joined.trim(key.head.floor);
        if joined == ours {
            return Ok((ours, joined));
        }
        if key.head.ty() == Some(ty) {
            Self::recount(key, &ours, &joined);
        }
        key.shows_since(ty, joined.earliest_visible(key.floor));
        self.store(key, (ty, name), &ours, &joined, Parts::NONE)?;
        self.queue_element(key, ty, name, &ours, &joined);
        Ok((ours, joined))
    }
}
