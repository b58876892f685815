//! Who waits for which key, and who is woken next. Pure state: time comes with each call.
//!
//! Rules, for each key:
//! * Who has waited longest, of those who want the key's type, is woken first.
//! * One is woken at a time. The next one is when a waiting command has popped and something is left;
//!   or when [`NEXT_AFTER`] has passed, since who was woken may be gone.
//!
//! What cannot be kept: who asks for the first time is not kept from an element by those who wait.

use super::{Told, Wait};
use crate::engine::waited::Waited;
use crate::model::Type;
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Clients that wait in a group at a time.
pub const WAITERS_MAX: usize = 8192;
/// Bytes that all of them together take, about.
pub const ROOM_BYTES_MAX: usize = 64 << 20;
/// After so long without a pop the next client is woken.
pub const NEXT_AFTER: Duration = Duration::from_millis(20);

/// What a client takes besides its keys, about.
const WAITER_BYTES: usize = 384;
/// What each of its keys takes besides its name, about: there may be one client for each.
const KEY_BYTES: usize = 384;

/// Numbers a client within its room.
pub type WaiterId = u64;

/// When a client began to wait, in microseconds since the room was opened. It may be before that.
type Began = i64;

struct Waiter {
    names: Vec<Bytes>,
    ty: Type,
    began: Began,
    until: Instant,
    bytes: usize,
    answer: oneshot::Sender<Told>,
}

/// All who wait for one key.
struct Line {
    key: Bytes,
    /// By type, and then the most senior first.
    waiting: BTreeSet<(u8, Began, WaiterId)>,
    /// Somebody was woken, and has until then.
    woken_until: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub struct Room {
    opened: Option<Instant>,
    next: WaiterId,
    bytes: usize,
    waiters: HashMap<WaiterId, Waiter>,
    /// By the key's name; the overlay knows the same names.
    lines: HashMap<Bytes, Line>,
    /// When polls end.
    ends: BTreeSet<(Instant, WaiterId)>,
    /// When the next one is woken.
    lapses: BTreeSet<(Instant, Bytes)>,
}

impl Room {
    /// Lets a client in: its number, and the names of its keys, which must be looked at now. None if
    /// there is no room, which it is told.
    pub fn enter(
        &mut self,
        wait: Wait,
        answer: oneshot::Sender<Told>,
        now: Instant,
        waited: &mut Waited,
    ) -> Option<(WaiterId, Vec<Bytes>)> {
        let key_bytes = |key: &Bytes| 3 * key.len() + KEY_BYTES;
        let bytes = WAITER_BYTES + wait.keys.iter().map(key_bytes).sum::<usize>();
        let fits =
            |room: &Room| room.waiters.len() < WAITERS_MAX && room.bytes + bytes <= ROOM_BYTES_MAX;
        if !fits(self) {
            self.sweep(waited);
        }
        if !fits(self) {
            let _ = answer.send(Told::Full); // or it is gone
            return None;
        }
        let opened = *self.opened.get_or_insert(now);
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let began = micros(now.saturating_duration_since(opened)) - micros(wait.waited);
        let (id, until) = (self.next, now + wait.max);
        self.next += 1;
        let names: Vec<Bytes> = wait.keys.iter().map(|key| Waited::name(key)).collect();
        for (name, key) in names.iter().zip(wait.keys) {
            let line = self.lines.entry(name.clone()).or_insert_with(|| {
                waited.add(name.clone());
                Line { key, waiting: BTreeSet::new(), woken_until: None }
            });
            line.waiting.insert((wait.ty.number(), began, id));
        }
        self.bytes += bytes;
        self.ends.insert((until, id));
        let waiter = Waiter { names: names.clone(), ty: wait.ty, began, until, bytes, answer };
        self.waiters.insert(id, waiter);
        Some((id, names))
    }

    /// Whether a client still waits.
    pub fn has(&self, id: WaiterId) -> bool {
        self.waiters.contains_key(&id)
    }

    /// The key of that name, if somebody waits for it or was woken by it.
    pub fn key(&self, name: &Bytes) -> Option<Bytes> {
        self.lines.get(name).map(|line| line.key.clone())
    }

    /// A key was looked at: it is `there` with that type, or not. `popped`: a waiting command has
    /// just popped from it.
    pub fn seen(
        &mut self,
        name: &Bytes,
        there: Option<Type>,
        popped: bool,
        now: Instant,
        waited: &mut Waited,
    ) {
        if popped || there.is_none() {
            self.lapse(name);
        }
        while let Some(ty) = there {
            let next = match self.lines.get(name) {
                Some(line) if line.woken_until.is_none() => {
                    let of_type =
                        (ty.number(), Began::MIN, 0)..=(ty.number(), Began::MAX, u64::MAX);
                    line.waiting.range(of_type).next().copied()
                }
                _ => None,
            };
            let Some((_, _, id)) = next else { break };
            if self.wake(id, name, waited) {
                let until = now + NEXT_AFTER;
                if let Some(line) = self.lines.get_mut(name) {
                    line.woken_until = Some(until);
                    self.lapses.insert((until, name.clone()));
                }
            }
        }
        self.close(name, waited);
    }

    /// When [`Room::pass`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        let end = self.ends.first().map(|(at, _)| *at);
        let lapse = self.lapses.first().map(|(at, _)| *at);
        end.into_iter().chain(lapse).min()
    }

    /// Tells those whose time is up. Gives the names of the keys that must be looked at again, since
    /// nobody came who was woken.
    pub fn pass(&mut self, now: Instant, waited: &mut Waited) -> Vec<Bytes> {
        while let Some((_, id)) = self.ends.first().filter(|(at, _)| *at <= now).copied() {
            if let Some(waiter) = self.leave(id, waited) {
                let _ = waiter.answer.send(Told::Nothing); // or it is gone
            }
        }
        let mut again = Vec::new();
        while let Some((_, name)) = self.lapses.first().filter(|(at, _)| *at <= now).cloned() {
            self.lapse(&name);
            self.close(&name, waited);
            again.push(name);
        }
        again
    }

    /// Whether it could be told.
    fn wake(&mut self, id: WaiterId, name: &Bytes, waited: &mut Waited) -> bool {
        let Some(key) = self.key(name) else { return false };
        // The line stays open: it is the caller's.
        let Some(waiter) = self.take(id) else { return false };
        for other in waiter.names.iter().filter(|other| *other != name) {
            self.close(other, waited);
        }
        waiter.answer.send(Told::Ready(key)).is_ok()
    }

    fn leave(&mut self, id: WaiterId, waited: &mut Waited) -> Option<Waiter> {
        let waiter = self.take(id)?;
        waiter.names.iter().for_each(|name| self.close(name, waited));
        Some(waiter)
    }

    /// Takes a client out of all its lines, which may be empty now.
    fn take(&mut self, id: WaiterId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        self.bytes -= waiter.bytes;
        self.ends.remove(&(waiter.until, id));
        for name in &waiter.names {
            if let Some(line) = self.lines.get_mut(name) {
                line.waiting.remove(&(waiter.ty.number(), waiter.began, id));
            }
        }
        Some(waiter)
    }

    /// Nobody is on the way any more who was woken by a key.
    fn lapse(&mut self, name: &Bytes) {
        if let Some(line) = self.lines.get_mut(name)
            && let Some(until) = line.woken_until.take()
        {
            self.lapses.remove(&(until, name.clone()));
        }
    }

    /// Forgets a line that nobody stands in.
    fn close(&mut self, name: &Bytes, waited: &mut Waited) {
        let empty = |line: &Line| line.waiting.is_empty() && line.woken_until.is_none();
        if self.lines.get(name).is_some_and(empty) {
            self.lines.remove(name);
            waited.remove(name);
        }
    }

    /// Lets those out who are gone.
    fn sweep(&mut self, waited: &mut Waited) {
        let gone = |(id, waiter): (&WaiterId, &Waiter)| waiter.answer.is_closed().then_some(*id);
        let gone: Vec<WaiterId> = self.waiters.iter().filter_map(gone).collect();
        for id in gone {
            self.leave(id, waited);
        }
    }
}

#[cfg(test)]
impl Room {
    /// Clients, lines, deadlines of both kinds and bytes: all zero when everybody has left.
    pub fn sizes(&self) -> [usize; 5] {
        let lapses = self.lapses.len();
        [self.waiters.len(), self.lines.len(), self.ends.len(), lapses, self.bytes]
    }
}
