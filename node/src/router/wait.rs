//! Waiting for what a blocking command has not found: asking the leader of its keys to tell when one is
//! there, and then trying the command again.
//!
//! Rules:
//! * Only the command itself pops, and it is begun only for a client that is still there.
//! * A poll changes nothing, so one that is lost, or sent to who leads no more, is sent again. Who waits
//!   does not notice when a leader dies.
//! * The command is tried again on the key that has come, as if it named no other.

use crate::command::Command;
use crate::eval::Awaited;
use crate::group::wait::{ROOM_BYTES_MAX, Told, WAIT_KEYS_MAX, WAIT_MAX, WAITERS_MAX};
use crate::group::wait::{Wait, WaitRequest};
use crate::model::Type;
use crate::resp::Reply;
use crate::router::exec::moved_to;
use crate::router::split::group_of;
use crate::router::{RETRY_PAUSE_MIN, Router, Target};
use crate::server::{Door, Patience, SessionView};
use crate::transport::{Class, IN_FLIGHT_CALLS_MAX, kinds};
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, Role};
use flotilla_topology::slot::Slot;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A leader that has not answered a poll so long after its end is asked again, or another one is.
const POLL_GRACE: Duration = Duration::from_secs(1);
/// Longest pause between two polls while nobody leads; it doubles from [`RETRY_PAUSE_MIN`] on. There
/// may be thousands who wait.
const POLL_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Polls of this node that other nodes have in hand at a time: so many calls are in flight to one.
pub const POLLS_FORWARDED_MAX: usize = IN_FLIGHT_CALLS_MAX;

/// What a poll came to.
enum Polled {
    /// Try this key.
    Ready(Bytes),
    /// The poll's time was up.
    Nothing,
    /// Nobody took it; the leader, if one is known.
    Elsewhere(Option<String>),
    /// Why there is no room.
    Full(Reply),
    /// This is the answer to the command.
    Answer(Reply),
}

/// A command while it waits.
struct Waiting {
    command: Command,
    awaited: Awaited,
    began: Instant,
    /// It was let in once, and is not turned away any more.
    admitted: bool,
    hint: Option<String>,
    pause: Duration,
}

impl Waiting {
    /// How long it may still wait; none if its time is up.
    fn left(&self) -> Option<Duration> {
        let timeout = self.awaited.timeout.unwrap_or(Duration::MAX);
        timeout.checked_sub(self.began.elapsed()).filter(|left| !left.is_zero())
    }

    /// The next poll. Its milliseconds are rounded up, or the last one would be many.
    fn poll(&self, left: Duration) -> Wait {
        let max = left.saturating_add(Duration::from_micros(999)).min(WAIT_MAX);
        let Awaited { keys, ty, .. } = &self.awaited;
        Wait { keys: keys.clone(), ty: *ty, waited: self.began.elapsed(), max }
    }

    /// How long to pause after a poll that nobody took.
    fn pause(&mut self, leader: Option<String>) -> Duration {
        self.hint = leader;
        if self.hint.is_some() {
            return RETRY_PAUSE_MIN; // a wrong hint must not let two nodes be asked at full speed
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(POLL_PAUSE_MAX);
        pause
    }
}

impl Router {
    /// Waits for what `command` has not found, and carries it out; none if the client is gone.
    pub(super) async fn wait_for(
        self: Arc<Self>,
        session: SessionView,
        command: Command,
        mut patience: Patience,
    ) -> Option<Reply> {
        let awaited = match Awaited::of(&command) {
            Ok(awaited) if awaited.keys.len() > WAIT_KEYS_MAX => return Some(too_many_keys()),
            Ok(awaited) => awaited,
            Err(reply) => return Some(reply),
        };
        let (began, pause) = (Instant::now(), RETRY_PAUSE_MIN);
        let mut waiting = Waiting { command, awaited, began, admitted: false, hint: None, pause };
        while let Some(left) = waiting.left() {
            let hint = waiting.hint.take();
            let wait = waiting.poll(left);
            let patient = left.min(wait.max + POLL_GRACE);
            let polled = tokio::select! {
                biased;
                ended = patience.ended() => return ended.reply(),
                polled = tokio::time::timeout(patient, self.poll(session, wait, hint)) => polled,
            };
            let pause = match polled.unwrap_or(Polled::Elsewhere(None)) {
                Polled::Answer(reply) => return Some(reply),
                Polled::Full(reply) if !waiting.admitted => return Some(reply),
                Polled::Full(_) => POLL_PAUSE_MAX,
                Polled::Elsewhere(leader) => waiting.pause(leader),
                Polled::Nothing => {
                    (waiting.admitted, waiting.pause) = (true, RETRY_PAUSE_MIN);
                    continue;
                }
                Polled::Ready(key) => {
                    (waiting.admitted, waiting.pause) = (true, RETRY_PAUSE_MIN);
                    match self.try_key(session, &waiting.command, &key).await {
                        None => continue,
                        reply => return reply,
                    }
                }
            };
            let pause = pause.min(waiting.left().unwrap_or(Duration::ZERO));
            tokio::select! {
                biased;
                ended = patience.ended() => return ended.reply(),
                () = tokio::time::sleep(pause) => {}
            }
        }
        Some(Reply::NullArray)
    }

    /// Asks who leads the group of the keys.
    async fn poll(&self, session: SessionView, wait: Wait, hint: Option<String>) -> Polled {
        let Some(map) = self.places.map() else { return Polled::Elsewhere(None) };
        let slot = wait.keys.first().map_or(Slot(0), |key| Slot::of(key));
        let group = match group_of(&map, session.namespace, slot) {
            Ok(group) => group,
            Err(reply) => return Polled::Answer(reply),
        };
        let told = match self.places.leader(&map, group, hint.as_deref()) {
            Target::Unknown => return Polled::Elsewhere(None),
            Target::Local(leader) => leader.wait(wait).await,
            Target::Node(node) if session.door == Door::Cluster => {
                return match moved_to(&map, &node, &self.places.datacenter) {
                    Some(to) => Polled::Answer(Reply::error(format!("MOVED {slot} {to}"))),
                    None => Polled::Elsewhere(None),
                };
            }
            Target::Node(node) => match self.forward_poll(group, &node, wait).await {
                Ok(told) => told,
                Err(polled) => return polled,
            },
        };
        match told {
            Told::Ready(key) => Polled::Ready(key),
            Told::Nothing => Polled::Nothing,
            Told::NotLeader { leader } => Polled::Elsewhere(leader),
            Told::Full => Polled::Full(Reply::error(format!(
                "ERR {WAITERS_MAX} clients wait in this group already, or for keys of \
                 {ROOM_BYTES_MAX} bytes: try again later, or ask without waiting"
            ))),
        }
    }

    async fn forward_poll(&self, group: GroupId, node: &str, wait: Wait) -> Result<Told, Polled> {
        let elsewhere = || Polled::Elsewhere(None);
        let client = self.places.client(Role::Node, node).ok_or_else(elsewhere)?;
        let _place = Place::take(&self.polls_forwarded).ok_or_else(|| {
            Polled::Full(Reply::error(format!(
                "ERR {POLLS_FORWARDED_MAX} clients of this node wait for keys that other nodes \
                 lead already: connect to another node, or ask without waiting"
            )))
        })?;
        let deadline = wait.max + POLL_GRACE;
        let payload = WaitRequest { group, wait }.encode();
        let called = client.call(Class::Wait, kinds::WAIT, payload, deadline).await;
        let answer = called.map_err(|_| elsewhere())?;
        Told::decode(&answer).map_err(|_| elsewhere())
    }

    /// Tries a command again on the key that has come; none if it must go on waiting.
    async fn try_key(
        self: &Arc<Self>,
        session: SessionView,
        command: &Command,
        key: &Bytes,
    ) -> Option<Reply> {
        let reply = self.once(session, Awaited::narrowed(command, key)).await;
        match &reply {
            Reply::Null | Reply::NullArray => None, // somebody was quicker
            // Certainly not applied, and whoever leads next is asked.
            Reply::Error(line) if line.starts_with(b"TRYAGAIN ") => None,
            // If the key is still what is waited for, it is the target of a move that is not.
            Reply::Error(line) if line.starts_with(b"WRONGTYPE ") => {
                let args = vec![Bytes::from_static(b"TYPE"), key.clone()];
                let ask = Command::parse(args).ok().filter(|_| Awaited::has_target(command))?;
                let ty = self.once(session, ask).await;
                let is_list = ty == Reply::Simple(Bytes::from_static(Type::List.name().as_bytes()));
                is_list.then_some(reply)
            }
            _ => Some(reply),
        }
    }

    /// Carries out one command whose keys are in one slot.
    async fn once(self: &Arc<Self>, session: SessionView, command: Command) -> Reply {
        let mut replies = self.clone().run(session, vec![command]).await;
        replies.pop().unwrap_or_else(|| Reply::error("ERR the group gave no answer to this"))
    }
}

/// A poll's place among those that other nodes have in hand.
struct Place<'c>(&'c AtomicUsize);

impl Place<'_> {
    fn take(count: &AtomicUsize) -> Option<Place<'_>> {
        let place = Place(count);
        (count.fetch_add(1, Ordering::Relaxed) < POLLS_FORWARDED_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn too_many_keys() -> Reply {
    let line = format!("ERR a command may wait for {WAIT_KEYS_MAX} keys: name fewer");
    Reply::error(line)
}
