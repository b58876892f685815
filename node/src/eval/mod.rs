//! Evaluation: what a command does, decided once by a group's leader.
//!
//! A [`Txn`] evaluates one command against a [`View`](crate::engine::view::View) and leaves final
//! rows in its overlay, from which the group builds a log entry. What must always hold:
//! * No clock, no randomness, no IO but the view's rows: time and stamp come with [`EvalContext`],
//!   and what is left to chance is hashed from these.
//! * A command that answers with an error has written nothing.
//! * In a synced namespace every write is a join with the row's state, and names the parts that
//!   other clusters need. In one that is not synced, rows carry no stamps and deletes are physical.
//!
//! Effects of other clusters take the same road ([`remote`]): their join with this cluster's state
//! is evaluated here, and counts and index rows are made anew, since they are each cluster's own.
//!
//! Replies and errors are those of Redis 7.0, and a test compares them with it.

mod args;
mod bitfield;
mod bits;
mod blocking;
mod chance;
mod clean;
mod collection;
mod compare;
mod conflicts;
mod contents;
mod cover;
mod deadlines;
mod digest;
mod doubles;
mod due;
mod dump;
mod element_scan;
mod elements;
mod floats;
mod geo;
mod hashes;
mod hyperloglog;
mod keyspace;
mod lcs;
mod lists;
mod long_double;
mod marks;
mod mix;
mod order;
mod page;
mod randfield;
mod ranges;
mod ranks;
mod remote;
mod rename;
mod sample;
mod scan;
mod set;
mod sets;
mod sort;
mod streams;
mod strings;
#[cfg(test)]
mod tests;
mod txn;
mod zsets;

pub use blocking::Awaited;
pub use clean::{CleanFrom, CleanRules, Cleaned, clean, garbage_waits};
pub use compare::{Comparison, Condition, end_of_key, is_met, type_of_key};
pub use conflicts::{CONFLICTS_MAX, ConflictOptions, LoserRow, newest_conflicts};
pub use cover::{CoverFrom, Coverage, cover};
pub use digest::{KeyDigest, SlotDigest, digest, key_digests, visible_keys};
pub use due::{DueOutcome, expire_due};
pub(crate) use dump::fuzz::target as fuzz_target;
pub(crate) use keyspace::too_many_keys;
pub use marks::ScanMarks;
pub(crate) use mix::Mix;
pub use remote::{CONFLICT_WINDOW_MS, Loser, LoserKind, Losers, remote, remote_state};
pub use scan::{ScanCursor, ScanOptions, ScanPage, scan};
pub use txn::{EvalContext, Txn};

use crate::command::{Command, Family, Id};
use crate::model::Type;
use crate::resp::Reply;
use args::{Outcome, Stop};
use lists::Side;
use std::io;
use streams::Algebra;
use zsets::{By, End, Source};

/// Largest value that a command may make, in bytes: an entry of the log takes it with its key.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Largest write that one command may be, counted as the rows that it would make.
pub const WRITE_BYTES_MAX: usize = 20 << 20;

/// Strings of Redis may have so many bytes, and so a bit's place is in range; writing one there still
/// has to fit [`VALUE_BYTES_MAX`].
const BIT_OFFSET_BYTES_MAX: u64 = 512 << 20;

/// What a row takes besides its key and value, about.
const ROW_OVERHEAD_BYTES: usize = 48;

/// Evaluates one command whose keys all belong to this group. Errors of the client are replies;
/// an `Err` means that stored rows could not be read.
pub fn command(txn: &mut Txn<'_>, command: &Command) -> io::Result<Reply> {
    let outcome = check_size(command).and_then(|()| dispatch(txn, command));
    match outcome {
        Ok(reply) | Err(Stop::Reply(reply)) => Ok(reply),
        Err(Stop::Io(error)) => Err(error),
    }
}

/// An entry holds a command whole, and a key stands in every row of its elements.
fn check_size(command: &Command) -> Result<(), Stop> {
    if !command.spec.is_write() {
        return Ok(());
    }
    let args: usize = command.args.iter().map(|arg| arg.len()).sum();
    let key = match command.spec.family {
        Family::Geo | Family::Hash | Family::List | Family::Set | Family::SortedSet => {
            command.first_key().map_or(0, |key| key.len())
        }
        _ => 0,
    };
    let rows = command.args.len().saturating_mul(key + ROW_OVERHEAD_BYTES);
    let value = command.args.iter().map(|arg| arg.len()).max().unwrap_or(0);
    if value > VALUE_BYTES_MAX || args.saturating_add(rows) > WRITE_BYTES_MAX {
        return Err(write_too_large());
    }
    Ok(())
}

fn write_too_large() -> Stop {
    Stop::error(format!(
        "ERR a command may write {WRITE_BYTES_MAX} bytes, values {VALUE_BYTES_MAX}: split it"
    ))
}

fn dispatch(txn: &mut Txn<'_>, command: &Command) -> Outcome {
    let (args, name) = (&command.args[..], command.spec.name);
    match command.spec.id {
        Id::Get => strings::get(txn, args),
        Id::Set => set::set(txn, args),
        Id::Mget => strings::mget(txn, args),
        Id::Mset => strings::mset(txn, args),
        Id::GetSet => strings::getset(txn, args),
        Id::GetDel => strings::getdel(txn, args),
        Id::GetEx => set::getex(txn, args),
        Id::SetNx => strings::setnx(txn, args),
        Id::SetEx => set::setex(txn, args, set::Unit::Seconds, name),
        Id::PsetEx => set::setex(txn, args, set::Unit::Milliseconds, name),
        Id::Append => strings::append(txn, args),
        Id::StrLen => strings::strlen(txn, args),
        Id::Incr => strings::incr(txn, args, 1),
        Id::Decr => strings::incr(txn, args, -1),
        Id::IncrBy => strings::incrby(txn, args),
        Id::DecrBy => strings::decrby(txn, args),
        Id::Cas => compare::cas(txn, args),
        Id::Cad => compare::cad(txn, args),
        Id::DelIfEq => compare::delifeq(txn, args),
        Id::DelEx => compare::delex(txn, args),
        Id::Del | Id::Unlink => keyspace::del(txn, args),
        Id::Exists | Id::Touch => keyspace::exists(txn, args),
        Id::Type => keyspace::type_of(txn, args),
        Id::Expire => deadlines::expire(txn, args, deadlines::EXPIRE, name),
        Id::Pexpire => deadlines::expire(txn, args, deadlines::PEXPIRE, name),
        Id::ExpireAt => deadlines::expire(txn, args, deadlines::EXPIREAT, name),
        Id::PexpireAt => deadlines::expire(txn, args, deadlines::PEXPIREAT, name),
        Id::Ttl => deadlines::ttl(txn, args, deadlines::EXPIRE),
        Id::Pttl => deadlines::ttl(txn, args, deadlines::PEXPIRE),
        Id::ExpireTime => deadlines::ttl(txn, args, deadlines::EXPIREAT),
        Id::PexpireTime => deadlines::ttl(txn, args, deadlines::PEXPIREAT),
        Id::Persist => deadlines::persist(txn, args),
        Id::Hset => hashes::hset(txn, args, name),
        Id::HmSet => hashes::hset(txn, args, name),
        Id::HsetNx => hashes::hsetnx(txn, args),
        Id::Hget => hashes::hget(txn, args),
        Id::HmGet => hashes::hmget(txn, args),
        Id::HgetAll => hashes::hgetall(txn, args),
        Id::Hdel => collection::remove_named(txn, args, Type::Hash),
        Id::Hlen => collection::tell_size(txn, args, Type::Hash),
        Id::Hexists => collection::tell_whether_in(txn, args, Type::Hash),
        Id::HincrBy => hashes::hincrby(txn, args),
        Id::Hkeys => hashes::hkeys(txn, args),
        Id::Hvals => hashes::hvals(txn, args),
        // These are asked of every group; each answers for its own slots.
        Id::Flotilla => conflicts::conflicts(txn, args),
        Id::Scan => scan::scan_command(txn, args),
        Id::DbSize => Ok(Reply::Int(scan::db_size(txn)? as i64)),
        _ => match command.spec.family {
            Family::Bitmap => on_bits(txn, command),
            Family::HyperLogLog => on_sketches(txn, command),
            Family::Geo => on_places(txn, command),
            Family::List => on_lists(txn, command),
            Family::Set => on_sets(txn, command),
            Family::SortedSet => on_sorted_sets(txn, command),
            _ => on_parts(txn, command),
        },
    }
}

fn on_bits(txn: &mut Txn<'_>, command: &Command) -> Outcome {
    let args = &command.args[..];
    match command.spec.id {
        Id::SetBit => bits::setbit(txn, args),
        Id::GetBit => bits::getbit(txn, args),
        Id::BitCount => bits::bitcount(txn, args),
        Id::BitPos => bits::bitpos(txn, args),
        Id::BitOp => bits::bitop(txn, args),
        Id::BitField => bitfield::bitfield(txn, args, false),
        Id::BitFieldRo => bitfield::bitfield(txn, args, true),
        _ => Err(not_ours(command)),
    }
}

fn on_sketches(txn: &mut Txn<'_>, command: &Command) -> Outcome {
    let args = &command.args[..];
    match command.spec.id {
        Id::PfAdd => hyperloglog::pfadd(txn, args),
        Id::PfCount => hyperloglog::pfcount(txn, args),
        Id::PfMerge => hyperloglog::pfmerge(txn, args),
        _ => Err(not_ours(command)),
    }
}

fn on_places(txn: &mut Txn<'_>, command: &Command) -> Outcome {
    let args = &command.args[..];
    match command.spec.id {
        Id::GeoAdd => geo::geoadd(txn, args),
        Id::GeoPos => geo::geopos(txn, args),
        Id::GeoHash => geo::geohash(txn, args),
        Id::GeoDist => geo::geodist(txn, args),
        Id::GeoSearch => geo::search(txn, args, geo::Form::SEARCH),
        Id::GeoSearchStore => geo::search(txn, args, geo::Form::SEARCH_STORE),
        Id::GeoRadius => geo::search(txn, args, geo::Form::AROUND),
        Id::GeoRadiusRo => geo::search(txn, args, geo::Form::AROUND_RO),
        Id::GeoRadiusByMember => geo::search(txn, args, geo::Form::AROUND_MEMBER),
        Id::GeoRadiusByMemberRo => geo::search(txn, args, geo::Form::AROUND_MEMBER_RO),
        _ => Err(not_ours(command)),
    }
}

fn on_lists(txn: &mut Txn<'_>, command: &Command) -> Outcome {
    let (args, name) = (&command.args[..], command.spec.name);
    match command.spec.id {
        Id::Lpush => lists::push(txn, args, Side::Left, false),
        Id::Rpush => lists::push(txn, args, Side::Right, false),
        Id::LpushX => lists::push(txn, args, Side::Left, true),
        Id::RpushX => lists::push(txn, args, Side::Right, true),
        Id::Lpop => lists::pop(txn, args, Side::Left, name),
        Id::Rpop => lists::pop(txn, args, Side::Right, name),
        Id::Lmpop => lists::lmpop(txn, &args[1..], None),
        Id::Lmove | Id::BlMove => lists::lmove(txn, args),
        Id::RpopLpush | Id::BrpopLpush => lists::rpoplpush(txn, args),
        Id::BlPop => lists::blpop(txn, args, Side::Left),
        Id::BrPop => lists::blpop(txn, args, Side::Right),
        Id::BlmPop => lists::lmpop(txn, &args[2..], Some(&args[1])),
        Id::Llen => collection::tell_size(txn, args, Type::List),
        Id::Lindex => lists::lindex(txn, args),
        Id::Lrange => lists::lrange(txn, args),
        Id::Lpos => lists::lpos(txn, args),
        Id::Lset => lists::lset(txn, args),
        Id::Linsert => lists::linsert(txn, args),
        Id::Lrem => lists::lrem(txn, args),
        Id::Ltrim => lists::ltrim(txn, args),
        _ => Err(not_ours(command)),
    }
}

fn on_sets(txn: &mut Txn<'_>, command: &Command) -> Outcome {
    let args = &command.args[..];
    match command.spec.id {
        Id::Sadd => sets::sadd(txn, args),
        Id::Srem => collection::remove_named(txn, args, Type::Set),
        Id::Smembers | Id::Sinter => sets::algebra(txn, &args[1..], Algebra::Inter),
        Id::SisMember => collection::tell_whether_in(txn, args, Type::Set),
        Id::SmisMember => sets::smismember(txn, args),
        Id::Scard => collection::tell_size(txn, args, Type::Set),
        Id::Smove => sets::smove(txn, args),
        Id::Spop => sets::spop(txn, args),
        Id::SrandMember => sets::srandmember(txn, args),
        Id::Sscan => element_scan::element_scan(txn, args, Type::Set),
        Id::SinterCard => sets::sintercard(txn, args),
        Id::SinterStore => sets::store(txn, args, Algebra::Inter),
        Id::Sunion => sets::algebra(txn, &args[1..], Algebra::Union),
        Id::SunionStore => sets::store(txn, args, Algebra::Union),
        Id::Sdiff => sets::algebra(txn, &args[1..], Algebra::Diff),
        Id::SdiffStore => sets::store(txn, args, Algebra::Diff),
        _ => Err(not_ours(command)),
    }
}

fn on_sorted_sets(txn: &mut Txn<'_>, command: &Command) -> Outcome {
    let (args, name) = (&command.args[..], command.spec.name);
    match command.spec.id {
        Id::Zadd => zsets::zadd(txn, args),
        Id::ZincrBy => zsets::zincrby(txn, args),
        Id::Zrem => collection::remove_named(txn, args, Type::SortedSet),
        Id::Zcard => collection::tell_size(txn, args, Type::SortedSet),
        Id::Zscore => zsets::zscore(txn, args),
        Id::Zmscore => zsets::zmscore(txn, args),
        Id::Zrank => zsets::zrank(txn, args, End::Min),
        Id::ZrevRank => zsets::zrank(txn, args, End::Max),
        Id::Zcount => zsets::zcount(txn, args),
        Id::ZlexCount => zsets::zlexcount(txn, args),
        Id::Zrange => zsets::range(txn, args, Source::Any),
        Id::ZrevRange => zsets::range(txn, args, Source::REV_RANGE),
        Id::ZrangeByScore => zsets::range(txn, args, Source::BY_SCORE),
        Id::ZrevRangeByScore => zsets::range(txn, args, Source::REV_BY_SCORE),
        Id::ZrangeByLex => zsets::range(txn, args, Source::BY_NAME),
        Id::ZrevRangeByLex => zsets::range(txn, args, Source::REV_BY_NAME),
        Id::ZrangeStore => zsets::zrange_store(txn, args),
        Id::ZremRangeByRank => zsets::rem_range(txn, args, By::Rank),
        Id::ZremRangeByScore => zsets::rem_range(txn, args, By::Score),
        Id::ZremRangeByLex => zsets::rem_range(txn, args, By::Name),
        Id::ZpopMin => zsets::zpop(txn, args, End::Min),
        Id::ZpopMax => zsets::zpop(txn, args, End::Max),
        Id::Zmpop => zsets::zmpop(txn, &args[1..], None),
        Id::BzPopMin => zsets::bzpop(txn, args, End::Min),
        Id::BzPopMax => zsets::bzpop(txn, args, End::Max),
        Id::BzmPop => zsets::zmpop(txn, &args[2..], Some(&args[1])),
        Id::ZrandMember => randfield::rand_elements(txn, args, Type::SortedSet),
        Id::Zscan => element_scan::element_scan(txn, args, Type::SortedSet),
        Id::Zunion => zsets::combine(txn, args, Algebra::Union, name),
        Id::Zinter => zsets::combine(txn, args, Algebra::Inter, name),
        Id::Zdiff => zsets::combine(txn, args, Algebra::Diff, name),
        Id::ZunionStore => zsets::combine_store(txn, args, Algebra::Union, name),
        Id::ZinterStore => zsets::combine_store(txn, args, Algebra::Inter, name),
        Id::ZdiffStore => zsets::combine_store(txn, args, Algebra::Diff, name),
        Id::ZinterCard => zsets::zintercard(txn, args, name),
        _ => Err(not_ours(command)),
    }
}

/// Parts of strings, floats, what goes over many fields or keys, and keys under other names.
fn on_parts(txn: &mut Txn<'_>, command: &Command) -> Outcome {
    let args = &command.args[..];
    match command.spec.id {
        Id::IncrByFloat => floats::incrbyfloat(txn, args),
        Id::GetRange | Id::Substr => ranges::getrange(txn, args),
        Id::SetRange => ranges::setrange(txn, args),
        Id::Lcs => lcs::lcs(txn, args),
        Id::MsetNx => strings::msetnx(txn, args),
        Id::HstrLen => hashes::hstrlen(txn, args),
        Id::HrandField => randfield::rand_elements(txn, args, Type::Hash),
        Id::Hscan => element_scan::element_scan(txn, args, Type::Hash),
        Id::HincrByFloat => floats::hincrbyfloat(txn, args),
        Id::Keys => keyspace::keys(txn, args),
        Id::RandomKey => keyspace::random_key(txn),
        Id::Sort => sort::sort(txn, args, true),
        Id::SortRo => sort::sort(txn, args, false),
        Id::Dump => dump::dump(txn, args),
        Id::Restore => dump::restore(txn, args),
        Id::Copy => rename::copy(txn, args),
        Id::Rename => rename::rename(txn, args),
        Id::RenameNx => rename::renamenx(txn, args),
        Id::Object => keyspace::object(txn, args),
        _ => Err(not_ours(command)),
    }
}

fn not_ours(command: &Command) -> Stop {
    Stop::error(format!("ERR '{}' is not carried out by a group", command.spec.name))
}
