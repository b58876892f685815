//! The subcommands that there are. One that is not listed here is refused by name, so a row is all
//! that the documentation, COMMAND and HELP have to know of it. Arity and flags are those of Redis.

use super::parse::CommandError;
use super::spec::{Flags, KeySpec, Spec, arity_fits};
use super::table::{Id, TABLE};
use bytes::Bytes;

/// One subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subcommand {
    /// The command that it belongs to.
    pub container: Id,
    /// `container|name`, in lower case.
    pub full_name: &'static str,
    /// Number of arguments, both names included; negative: at least so many.
    pub arity: i16,
    /// As COMMAND shows them.
    pub flags: Flags,
    /// One line that says what it does.
    pub summary: &'static str,
}

impl Subcommand {
    /// Its own name, in lower case.
    pub fn name(&self) -> &'static str {
        self.full_name.split_once('|').map_or(self.full_name, |(_, name)| name)
    }

    /// The row of the command that it belongs to.
    pub fn container(&self) -> &'static Spec {
        &TABLE[self.container as usize]
    }

    /// Whether a request of `args` arguments, both names included, has the right number.
    pub fn takes(&self, args: usize) -> bool {
        arity_fits(self.arity, args)
    }

    /// Where its keys stand.
    pub fn keys(&self) -> KeySpec {
        let data = self.flags.has(Flags::READONLY) || self.flags.has(Flags::WRITE);
        if data { self.container().keys } else { KeySpec::NONE }
    }

    /// Access control categories, as COMMAND shows them.
    pub fn categories(&self) -> Vec<&'static str> {
        let all = [
            ("@keyspace", self.container == Id::Object),
            ("@read", self.flags.has(Flags::READONLY)),
            ("@admin", self.flags.has(Flags::ADMIN)),
            ("@slow", true),
            ("@dangerous", self.flags.has(Flags::ADMIN)),
            ("@connection", matches!(self.container, Id::Client | Id::Command)),
        ];
        all.into_iter().filter(|(_, has)| *has).map(|(category, _)| category).collect()
    }
}

const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE);
const SESSION: Flags = ANY_TIME.and(Flags::NOSCRIPT);
const ADMIN: Flags = SESSION.and(Flags::ADMIN);
const LIST_NAMES: &str = "The subcommands that there are.";

macro_rules! subcommands {
    ($($container:ident $full_name:literal $arity:literal $flags:expr, $summary:expr;)*) => {
        /// All of them.
        pub const SUBCOMMANDS: &[Subcommand] = &[$(Subcommand {
            container: Id::$container,
            full_name: $full_name,
            arity: $arity,
            flags: $flags,
            summary: $summary,
        },)*];
    };
}

subcommands! {
    Object "object|encoding" 3 Flags::READONLY, "The encoding that Redis would choose for a value; it says nothing of how it is stored here. Looks at 512 elements at most.";
    Object "object|freq" 3 Flags::READONLY, "The error of Redis without an LFU policy, since no accesses are counted.";
    Object "object|help" 2 ANY_TIME, LIST_NAMES;
    Object "object|refcount" 3 Flags::READONLY, "1 for a key that exists: values are not shared.";

    Client "client|getname" 2 SESSION, "The connection's name.";
    Client "client|getredir" 2 SESSION, "-1: there is no tracking whose messages could be redirected.";
    Client "client|help" 2 ANY_TIME, LIST_NAMES;
    Client "client|id" 2 SESSION, "The connection's number, which no other one of this process has had.";
    Client "client|info" 2 SESSION, "The connection's line of CLIENT LIST.";
    Client "client|list" -2 ADMIN, "A line for each connection of this node, by TYPE or by ID.";
    Client "client|no-evict" 3 ADMIN, "ON or OFF: no connection is ever evicted, so there is nothing to change.";
    Client "client|reply" 3 SESSION, "ON, OFF or SKIP: which replies are sent.";
    Client "client|setinfo" 4 SESSION, "LIB-NAME or LIB-VER: what CLIENT LIST says of the client's library.";
    Client "client|setname" 3 SESSION, "Names the connection, for CLIENT LIST.";
    Client "client|trackinginfo" 2 SESSION, "That tracking is off: there is none.";
    Client "client|unblock" -3 ADMIN, "Ends the wait of another connection of this node in a command such as BLPOP, as if its time were up (TIMEOUT) or with an error (ERROR): 1 if it waited, else 0.";

    Command "command|count" 2 ANY_TIME, "How many commands there are, without subcommands.";
    Command "command|docs" -2 ANY_TIME, "What commands do, by name or all.";
    Command "command|getkeys" -4 ANY_TIME, "Which arguments of a command are keys.";
    Command "command|help" 2 ANY_TIME, LIST_NAMES;
    Command "command|info" -2 ANY_TIME, "Arity, flags and keys of commands, by name or all.";
    Command "command|list" -2 ANY_TIME, "Names of commands and subcommands, with FILTERBY MODULE, ACLCAT or PATTERN.";

    Config "config|get" -3 ADMIN, "Settings of this node that match a pattern, in Redis' words where it has one.";
    Config "config|help" 2 ANY_TIME, LIST_NAMES;
    Config "config|resetstat" 2 ADMIN, "Sets the counters of INFO to zero.";
    Config "config|set" -4 ADMIN, "Refused, unless a setting has the value already: settings live in the node's file.";

    Flotilla "flotilla|conflicts" -2 Flags::READONLY, "[KEY key] [COUNT n]: writes that lost against another cluster's, the newest first.";
    Flotilla "flotilla|help" 2 ANY_TIME, LIST_NAMES;

    Cluster "cluster|help" 2 ANY_TIME, LIST_NAMES;
    Cluster "cluster|info" 2 Flags::STALE, "Whether all slots are served, and by how many nodes.";
    Cluster "cluster|keyslot" 3 Flags::STALE, "The slot of a key.";
    Cluster "cluster|links" 2 Flags::STALE, "None: nodes have no connections of Redis Cluster's kind.";
    Cluster "cluster|myid" 2 Flags::STALE, "This node's id in the other answers.";
    Cluster "cluster|nodes" 2 Flags::STALE, "The nodes and their slots, as lines.";
    Cluster "cluster|shards" 2 Flags::STALE, "The groups of the namespace with their slots and nodes.";
    Cluster "cluster|slots" 2 Flags::STALE, "Ranges of slots with their nodes, the leader first.";
}

/// Those of a command; most have none.
pub fn subcommands_of(container: Id) -> impl Iterator<Item = &'static Subcommand> {
    SUBCOMMANDS.iter().filter(move |sub| sub.container == container)
}

/// That of this name, in upper or lower case.
pub fn named_subcommand(container: Id, name: &[u8]) -> Option<&'static Subcommand> {
    subcommands_of(container).find(|sub| name.eq_ignore_ascii_case(sub.name().as_bytes()))
}

/// Finds the subcommand that `args` names behind its container, and checks their number.
pub fn subcommand(container: Id, args: &[Bytes]) -> Result<&'static Subcommand, CommandError> {
    let given = args.get(1).map_or(&[][..], |name| name);
    match named_subcommand(container, given) {
        None => {
            let name = args.first().map_or("", |name| std::str::from_utf8(name).unwrap_or(""));
            Err(CommandError::subcommand(name, given))
        }
        Some(sub) if !sub.takes(args.len()) => Err(CommandError::arity(sub.full_name)),
        Some(sub) => Ok(sub),
    }
}
