//! What is known of a command before it runs.

use super::table::Id;
use std::ops::BitOr;

/// One command of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// What code matches on.
    pub id: Id,
    /// In lower case.
    pub name: &'static str,
    /// Number of arguments, the name included; negative: at least so many.
    pub arity: i16,
    /// As COMMAND shows them.
    pub flags: Flags,
    /// Where the keys stand.
    pub keys: KeySpec,
    /// What kind of data it works on.
    pub family: Family,
    /// Who carries it out.
    pub place: Place,
    /// What becomes of it when its keys lie in several groups.
    pub split: Split,
    /// Cost, as Redis documents it.
    pub complexity: &'static str,
    /// One line that says what it does.
    pub summary: &'static str,
    /// One line: what it means when two clusters do it at once, or one sees it of the other.
    pub between_clusters: &'static str,
}

impl Spec {
    /// Whether a request of `args` arguments, the name included, has the right number.
    pub fn takes(&self, args: usize) -> bool {
        arity_fits(self.arity, args)
    }

    /// Whether it may change data.
    pub fn is_write(&self) -> bool {
        self.flags.has(Flags::WRITE)
    }

    /// Whether it waits, outside of a transaction, while it finds nothing to do.
    pub fn is_blocking(&self) -> bool {
        self.flags.has(Flags::BLOCKING)
    }

    /// Access control categories, as COMMAND shows them.
    pub fn categories(&self) -> Vec<&'static str> {
        if self.id == Id::Object {
            return vec!["@slow"]; // Redis gives the others to its subcommands
        }
        let mut categories = Vec::new();
        let mut add = |wanted, category| {
            if wanted {
                categories.push(category);
            }
        };
        let sorts = matches!(self.id, Id::Sort | Id::SortRo);
        add(self.family == Family::Keyspace && !sorts, "@keyspace");
        add(self.is_write(), "@write");
        add(self.flags.has(Flags::READONLY), "@read");
        add(self.family == Family::String, "@string");
        add(self.family == Family::Set || sorts, "@set");
        add(self.family == Family::SortedSet || sorts, "@sortedset");
        add(self.family == Family::List || sorts, "@list");
        add(self.family == Family::Hash, "@hash");
        add(self.family == Family::Bitmap, "@bitmap");
        add(self.family == Family::HyperLogLog, "@hyperloglog");
        add(self.family == Family::Geo, "@geo");
        add(self.flags.has(Flags::FAST), "@fast");
        add(!self.flags.has(Flags::FAST), "@slow");
        add(self.flags.has(Flags::BLOCKING), "@blocking");
        // Redis puts the subcommands of CLIENT there, not CLIENT itself; and COMMAND.
        let connection = self.family == Family::Connection && self.id != Id::Client;
        add(connection || self.id == Id::Command, "@connection");
        add(self.family == Family::Transaction, "@transaction");
        add(sorts || matches!(self.id, Id::Info | Id::Keys | Id::Restore), "@dangerous");
        categories
    }
}

pub(super) fn arity_fits(arity: i16, args: usize) -> bool {
    let wanted = usize::from(arity.unsigned_abs());
    if arity < 0 { args >= wanted } else { args == wanted }
}

/// A set of COMMAND's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// None of them.
    pub const NONE: Flags = Flags(0);
    /// May change data.
    pub const WRITE: Flags = Flags(1);
    /// Reads data and never changes it.
    pub const READONLY: Flags = Flags(1 << 1);
    /// May make data grow.
    pub const DENYOOM: Flags = Flags(1 << 2);
    /// Not allowed in scripts.
    pub const NOSCRIPT: Flags = Flags(1 << 3);
    /// Allowed while data is loaded.
    pub const LOADING: Flags = Flags(1 << 4);
    /// Allowed on a replica that is behind.
    pub const STALE: Flags = Flags(1 << 5);
    /// Constant or logarithmic cost.
    pub const FAST: Flags = Flags(1 << 6);
    /// Allowed before AUTH.
    pub const NO_AUTH: Flags = Flags(1 << 7);
    /// Allowed while a script runs for too long.
    pub const ALLOW_BUSY: Flags = Flags(1 << 8);
    /// Which arguments are keys is told by other arguments.
    pub const MOVABLE_KEYS: Flags = Flags(1 << 9);
    /// Not logged as slow: what it carries out is.
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 10);
    /// For who runs the server.
    pub const ADMIN: Flags = Flags(1 << 11);
    /// Waits, if there is nothing to do, until there is or its time is up.
    pub const BLOCKING: Flags = Flags(1 << 12);

    const NAMES: [(Flags, &'static str); 13] = [
        (Flags::WRITE, "write"),
        (Flags::READONLY, "readonly"),
        (Flags::DENYOOM, "denyoom"),
        (Flags::ADMIN, "admin"),
        (Flags::NOSCRIPT, "noscript"),
        (Flags::BLOCKING, "blocking"),
        (Flags::LOADING, "loading"),
        (Flags::STALE, "stale"),
        (Flags::FAST, "fast"),
        (Flags::NO_AUTH, "no_auth"),
        (Flags::ALLOW_BUSY, "allow_busy"),
        (Flags::MOVABLE_KEYS, "movablekeys"),
        (Flags::SKIP_SLOWLOG, "skip_slowlog"),
    ];

    /// Whether all flags of `other` are in this set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Their names, in the order of Redis.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Flags::NAMES.into_iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        self.and(other)
    }
}

/// Where the keys stand among the arguments, as COMMAND shows it: positions from 0 (the name).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// The first key; 0: there are none.
    pub first: u8,
    /// The last key; -1: the last argument, -2: the one before it.
    pub last: i8,
    /// From one key to the next.
    pub step: u8,
    /// Where the number of further keys stands, which follow it; 0: there are none.
    pub counted: u8,
    /// Options of which one names a further key.
    pub options: Option<Options>,
}

/// Options, of which one is a key that the command stores to. A word that is none of these has no
/// arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Where they begin.
    pub from: u8,
    /// Words that a key follows; the last of them counts.
    pub key_words: &'static [&'static str],
    /// Words that other arguments follow, and how many.
    pub other_words: &'static [(&'static str, u8)],
}

impl KeySpec {
    /// No key.
    pub const NONE: KeySpec = KeySpec::of(0, 0, 0);
    /// The first argument.
    pub const ONE: KeySpec = KeySpec::of(1, 1, 1);
    /// The first two.
    pub const TWO: KeySpec = KeySpec::of(1, 2, 1);
    /// All arguments.
    pub const ALL: KeySpec = KeySpec::of(1, -1, 1);
    /// Every other argument: keys with values.
    pub const PAIRS: KeySpec = KeySpec::of(1, -1, 2);
    /// The second argument; of TXN also what else it names.
    pub const SECOND: KeySpec = KeySpec::of(2, 2, 1);
    /// All arguments but the first.
    pub const FROM_SECOND: KeySpec = KeySpec::of(2, -1, 1);
    /// The first argument, and as many as the second one says.
    pub const ONE_AND_COUNTED: KeySpec = KeySpec { counted: 2, ..KeySpec::ONE };
    /// As many as the first argument says.
    pub const COUNTED: KeySpec = KeySpec { counted: 1, ..KeySpec::NONE };
    /// As many as the second argument says.
    pub const COUNTED_SECOND: KeySpec = KeySpec { counted: 2, ..KeySpec::NONE };
    /// All arguments but the last.
    pub const BUT_LAST: KeySpec = KeySpec::of(1, -2, 1);
    /// The first argument, and the target of GEORADIUS.
    pub const AROUND: KeySpec = KeySpec::around(6);
    /// The same of GEORADIUSBYMEMBER.
    pub const AROUND_MEMBER: KeySpec = KeySpec::around(5);
    /// The first argument, and the target of SORT.
    pub const SORTED: KeySpec = KeySpec {
        options: Some(Options {
            from: 2,
            key_words: &["STORE"],
            other_words: &[("LIMIT", 2), ("BY", 1), ("GET", 1)],
        }),
        ..KeySpec::ONE
    };

    const fn of(first: u8, last: i8, step: u8) -> KeySpec {
        KeySpec { first, last, step, counted: 0, options: None }
    }

    const fn around(from: u8) -> KeySpec {
        let key_words = &["STORE", "STOREDIST"];
        let options = Options { from, key_words, other_words: &[("COUNT", 1)] };
        KeySpec { options: Some(options), ..KeySpec::ONE }
    }

    /// Whether there are any.
    pub fn has_keys(self) -> bool {
        self.first > 0 || self.counted > 0
    }
}

/// What kind of data a command works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Strings.
    String,
    /// Keys of any type.
    Keyspace,
    /// Hashes.
    Hash,
    /// Sets.
    Set,
    /// Lists.
    List,
    /// Sorted sets.
    SortedSet,
    /// Strings as rows of bits.
    Bitmap,
    /// Places, in sorted sets.
    Geo,
    /// Strings that count different elements.
    HyperLogLog,
    /// Several commands as one.
    Transaction,
    /// The connection itself.
    Connection,
    /// The server and its cluster.
    Server,
}

impl Family {
    /// The group that COMMAND DOCS shows.
    pub fn group(self) -> &'static str {
        match self {
            Family::String => "string",
            Family::Keyspace => "generic",
            Family::Hash => "hash",
            Family::Set => "set",
            Family::List => "list",
            Family::SortedSet => "sorted-set",
            Family::Bitmap => "bitmap",
            Family::HyperLogLog => "hyperloglog",
            Family::Geo => "geo",
            Family::Transaction => "transactions",
            Family::Connection => "connection",
            Family::Server => "server",
        }
    }
}

/// Who carries a command out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The connection that it came by.
    Connection,
    /// The group that owns its keys.
    Group,
    /// All groups of the namespace, one after the other or at once.
    EveryGroup,
    /// The connection keeps what belongs together, and the group of its keys carries it out.
    Transaction,
}

/// What becomes of a command whose keys lie in several slots, on the plain port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// It is refused with CROSSSLOT, as it is where a transaction of its keys would be.
    No,
    /// One array; each group answers for its keys, in place (MGET).
    Values,
    /// Each group takes its pairs; all answer OK (MSET).
    Pairs,
    /// Each group counts its keys, and the counts are added (DEL, UNLINK, EXISTS, TOUCH).
    Count,
}
