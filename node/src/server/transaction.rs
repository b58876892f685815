//! What a connection has queued since MULTI, and which keys it watches.
//!
//! Pure state, as the session that holds it; texts and order of checks are those of Redis. Invariant:
//! once a command could not be queued, or a key not be watched, EXEC carries out nothing.

use crate::command::{Command, Id};
use crate::group::transaction::{Transaction, WATCHES_MAX, Watch, refusal, too_large};
use crate::resp::Reply;
use bytes::Bytes;
use flotilla_topology::ids::NamespaceId;

/// A queued command.
enum Queued {
    /// The group carries it out.
    Group(Command),
    /// The connection answers it by itself (PING, ECHO, TIME, UNWATCH).
    Local(Command),
}

/// Since MULTI.
#[derive(Default)]
struct Queue {
    commands: Vec<Queued>,
    bytes: usize,
    /// A command could not be queued.
    broken: bool,
}

/// One connection's transaction.
#[derive(Default)]
pub(super) struct Pending {
    queue: Option<Queue>,
    watches: Vec<(NamespaceId, Watch)>,
    /// A key could not be watched: what relied on it must not be carried out.
    unwatched: bool,
}

/// What EXEC has to do.
pub(super) struct Closed {
    commands: Vec<Queued>,
    watches: Vec<Watch>,
}

impl Pending {
    /// Whether commands are queued at the moment.
    pub(super) fn is_open(&self) -> bool {
        self.queue.is_some()
    }

    /// Bytes that it holds, about.
    pub(super) fn bytes(&self) -> usize {
        let watched = |(_, watch): &(_, Watch)| size_of::<Watch>() + watch.key.len();
        let queued = self.queue.as_ref().map_or(0, |queue| queue.bytes);
        queued + self.watches.iter().map(watched).sum::<usize>()
    }

    /// MULTI.
    pub(super) fn open(&mut self) -> Reply {
        if self.is_open() {
            return Reply::error("ERR MULTI calls can not be nested");
        }
        self.queue = Some(Queue::default());
        Reply::Ok
    }

    /// DISCARD.
    pub(super) fn discard(&mut self) -> Reply {
        if !self.is_open() {
            return Reply::error("ERR DISCARD without MULTI");
        }
        *self = Pending::default();
        Reply::Ok
    }

    /// UNWATCH.
    pub(super) fn unwatch(&mut self) -> Reply {
        self.watches.clear();
        self.unwatched = false;
        Reply::Ok
    }

    /// A request was refused before it was looked at: with what it is answered. `exec`: it was EXEC.
    pub(super) fn refused(&mut self, exec: bool, reply: Reply) -> Reply {
        if let Some(queue) = &mut self.queue {
            queue.broken = true;
        }
        let Reply::Error(line) = &reply else { return reply };
        if !exec {
            return reply;
        }
        *self = Pending::default();
        let why = line.strip_prefix(b"ERR ").unwrap_or(line);
        let head = &b"EXECABORT Transaction discarded because of: "[..];
        Reply::Error(Bytes::from([head, why].concat()))
    }

    /// Queues a command; `may` says whether a group's command can be. The answer.
    pub(super) fn queue(
        &mut self,
        command: Command,
        may: impl FnOnce(&Command) -> Result<(), Reply>,
    ) -> Reply {
        let Some(queue) = &mut self.queue else { return Reply::error("ERR there is no MULTI") };
        let local = matches!(command.spec.id, Id::Ping | Id::Echo | Id::Time | Id::Unwatch);
        let refused = match (local, refusal(&command)) {
            (true, _) => None,
            (false, Some(reply)) => Some(reply),
            (false, None) => may(&command).err(),
        };
        let bytes = queue.bytes + command.size();
        if let Some(reply) = refused.or_else(|| too_large(queue.commands.len() + 1, bytes)) {
            queue.broken = true;
            return reply;
        }
        // Copies: slices would keep the whole buffers alive that they were read into.
        let args = command.args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
        let command = Command { spec: command.spec, args };
        queue.bytes = bytes;
        queue.commands.push(if local { Queued::Local(command) } else { Queued::Group(command) });
        Reply::status("QUEUED")
    }

    /// Of these keys those that must still be watched. The error is the answer.
    pub(super) fn not_watched(
        &mut self,
        namespace: NamespaceId,
        keys: &[Bytes],
    ) -> Result<Vec<Bytes>, Reply> {
        let known = |key: &Bytes| {
            let mut watches = self.watches.iter();
            watches.any(|(of, watch)| *of == namespace && watch.key == key)
        };
        let mut new: Vec<Bytes> = Vec::new();
        for key in keys {
            if !known(key) && !new.contains(key) {
                new.push(Bytes::copy_from_slice(key));
            }
            if self.watches.len() + new.len() > WATCHES_MAX {
                self.unwatched = true;
                let line = format!("ERR a connection may watch {WATCHES_MAX} keys: UNWATCH some");
                return Err(Reply::error(line));
            }
        }
        Ok(new)
    }

    /// What came of watching keys. The answer.
    pub(super) fn watched(
        &mut self,
        namespace: NamespaceId,
        watched: Result<Vec<Watch>, Reply>,
    ) -> Reply {
        match watched {
            Ok(watches) => {
                self.watches.extend(watches.into_iter().map(|watch| (namespace, watch)));
                Reply::Ok
            }
            Err(reply) => {
                // Who is sent elsewhere does the rest there too.
                let moved = matches!(&reply, Reply::Error(line) if line.starts_with(b"MOVED "));
                self.unwatched |= !moved;
                reply
            }
        }
    }

    /// EXEC: what is to be done. The error is the answer; either way the transaction is over.
    pub(super) fn close(&mut self) -> Result<Closed, Reply> {
        if !self.is_open() {
            return Err(Reply::error("ERR EXEC without MULTI"));
        }
        let Pending { queue, watches, unwatched } = std::mem::take(self);
        let queue = queue.unwrap_or_default();
        if queue.broken {
            let line = "EXECABORT Transaction discarded because of previous errors.";
            return Err(Reply::error(line));
        }
        if unwatched {
            let line = "EXECABORT Transaction discarded because WATCH failed before it: see there.";
            return Err(Reply::error(line));
        }
        let watches = watches.into_iter().map(|(_, watch)| watch).collect();
        Ok(Closed { commands: queue.commands, watches })
    }
}

impl Closed {
    /// The group's part; none if the connection can answer by itself.
    pub(super) fn transaction(&mut self) -> Option<Transaction> {
        let watches = std::mem::take(&mut self.watches);
        let of_group = |queued: &Queued| match queued {
            Queued::Group(command) => Some(command.clone()),
            Queued::Local(_) => None,
        };
        let then: Vec<Command> = self.commands.iter().filter_map(of_group).collect();
        let nothing = watches.is_empty() && then.is_empty();
        (!nothing).then(|| Transaction { watches, then, ..Transaction::default() })
    }

    /// The answer, from the group's and the connection's own. `each` hears of every command.
    pub(super) fn answer(
        self,
        reply: Reply,
        mut local: impl FnMut(&Command) -> Reply,
        mut each: impl FnMut(&Command, &Reply),
    ) -> Reply {
        let Reply::Array(replies) = reply else { return reply };
        let mut replies = replies.into_iter();
        let mut all = Vec::with_capacity(self.commands.len());
        for queued in &self.commands {
            let (command, reply) = match queued {
                Queued::Local(command) => (command, Some(local(command))),
                Queued::Group(command) => (command, replies.next()),
            };
            let reply =
                reply.unwrap_or_else(|| Reply::error("ERR the group gave no answer to this"));
            each(command, &reply);
            all.push(reply);
        }
        Reply::Array(all)
    }
}
