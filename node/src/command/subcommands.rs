//! The subcommands of CLIENT, COMMAND, CONFIG, CLUSTER, FLOTILLA and OBJECT that there are.

use super::parse::CommandError;
use super::spec::arity_fits;
use super::table::Id;
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
}

impl Subcommand {
    /// Its own name, in lower case.
    pub fn name(&self) -> &'static str {
        self.full_name.split_once('|').map_or(self.full_name, |(_, name)| name)
    }
}

const fn sub(container: Id, full_name: &'static str, arity: i16) -> Subcommand {
    Subcommand { container, full_name, arity }
}

/// All of them.
pub const SUBCOMMANDS: &[Subcommand] = &[
    sub(Id::Client, "client|getname", 2),
    sub(Id::Client, "client|help", 2),
    sub(Id::Client, "client|id", 2),
    sub(Id::Client, "client|info", 2),
    sub(Id::Client, "client|list", -2),
    sub(Id::Client, "client|no-evict", 3),
    sub(Id::Client, "client|reply", 3),
    sub(Id::Client, "client|setinfo", 4),
    sub(Id::Client, "client|setname", 3),
    sub(Id::Command, "command|count", 2),
    sub(Id::Command, "command|docs", -2),
    sub(Id::Command, "command|getkeys", -4),
    sub(Id::Command, "command|help", 2),
    sub(Id::Command, "command|info", -2),
    sub(Id::Command, "command|list", -2),
    sub(Id::Config, "config|get", -3),
    sub(Id::Config, "config|help", 2),
    sub(Id::Config, "config|resetstat", 2),
    sub(Id::Config, "config|set", -4),
    sub(Id::Cluster, "cluster|help", 2),
    sub(Id::Cluster, "cluster|info", 2),
    sub(Id::Cluster, "cluster|keyslot", 3),
    sub(Id::Cluster, "cluster|links", 2),
    sub(Id::Cluster, "cluster|myid", 2),
    sub(Id::Cluster, "cluster|nodes", 2),
    sub(Id::Cluster, "cluster|shards", 2),
    sub(Id::Cluster, "cluster|slots", 2),
    sub(Id::Flotilla, "flotilla|conflicts", -2),
    sub(Id::Flotilla, "flotilla|help", 2),
    sub(Id::Object, "object|encoding", 3),
    sub(Id::Object, "object|freq", 3),
    sub(Id::Object, "object|help", 2),
    sub(Id::Object, "object|idletime", 3),
    sub(Id::Object, "object|refcount", 3),
];

/// Finds the subcommand that `args` names behind its container, and checks their number.
pub fn subcommand(container: Id, args: &[Bytes]) -> Result<&'static Subcommand, CommandError> {
    let given = args.get(1).map_or(&[][..], |name| name);
    let all = SUBCOMMANDS.iter().filter(|sub| sub.container == container);
    let mut named = all.filter(|sub| given.eq_ignore_ascii_case(sub.name().as_bytes()));
    match named.next() {
        None => {
            let name = args.first().map_or("", |name| std::str::from_utf8(name).unwrap_or(""));
            Err(CommandError::subcommand(name, given))
        }
        Some(sub) if !arity_fits(sub.arity, args.len()) => Err(CommandError::arity(sub.full_name)),
        Some(sub) => Ok(sub),
    }
}
