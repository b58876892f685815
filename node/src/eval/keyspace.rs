//! Commands on keys of any type.

use super::args::{Outcome, Stop};
use super::chance::Chance;
use super::txn::{Key, Txn};
use crate::command::{Id, glob_matches, subcommand};
use crate::model::{Type, parse_integer};
use crate::resp::{COMMAND_REPLY_BYTES_MAX, Reply};
use bytes::Bytes;
use flotilla_topology::slot::{Slot, SlotRange};

/// Keys that RANDOMKEY chooses from: a group with no more of them gives each the same chance.
const RANDOM_KEYS_SEEN: u64 = 64;

/// Longer strings are `raw` to OBJECT ENCODING.
const EMBEDDED_BYTES_MAX: usize = 44;
/// Collections with more elements, or with longer ones, are not `listpack`s or `intset`s to it: what Redis 7.0
/// has where nothing else is configured.
const HASH_LISTED_MAX: usize = 512;
const SORTED_SET_LISTED_MAX: usize = 128;
const SET_LISTED_MAX: usize = 512;
const LISTED_BYTES_MAX: usize = 64;

/// As in Redis, without the policy that counts accesses.
const NO_FREQ: &str = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
                       Please note that when switching between policies at runtime LRU and LFU data \
                       will take some time to adjust.";

/// DEL and UNLINK.
pub(super) fn del(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut deleted = 0;
    for name in &args[1..] {
        let key = txn.load(name)?;
        if key.ty.is_some() {
            txn.delete(key);
            deleted += 1;
        }
    }
    Ok(Reply::Int(deleted))
}

/// EXISTS and TOUCH: a key that is named twice counts twice.
pub(super) fn exists(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut found = 0;
    for name in &args[1..] {
        found += i64::from(txn.load(name)?.ty.is_some());
    }
    Ok(Reply::Int(found))
}

pub(super) fn type_of(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = txn.load(&args[1])?;
    Ok(Reply::status(key.ty.map_or("none", |ty| ty.name())))
}

/// The answer to KEYS if they take more than [`COMMAND_REPLY_BYTES_MAX`], here or in all groups.
pub(crate) fn too_many_keys() -> Reply {
    Reply::error("ERR these keys take more than 48 MiB: use SCAN, or a narrower pattern")
}

/// KEYS in this group.
pub(super) fn keys(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut found = Vec::new();
    let mut bytes = 0;
    for key in txn.keys(txn.context.slots) {
        let key = key?;
        if key.ty.is_none() || !glob_matches(&args[1], &key.name, false) {
            continue;
        }
        let name = Reply::Bulk(key.name);
        bytes += name.size();
        if bytes > COMMAND_REPLY_BYTES_MAX {
            return Err(Stop::Reply(too_many_keys()));
        }
        found.push(name);
    }
    Ok(Reply::Array(found))
}

/// RANDOMKEY in this group: one of the first keys behind a slot that [chance](Chance) chooses. Not
/// each key is as likely as the others: those behind a gap, and in slots with few keys, are more so.
pub(super) fn random_key(txn: &mut Txn<'_>) -> Outcome {
    let SlotRange { first, last } = txn.context.slots;
    let chance = Chance::new(txn, b"");
    let slots = u64::from(last.0 - first.0) + 1;
    let start = Slot(first.0 + chance.below(0, slots) as u16);
    let behind = txn.keys(SlotRange { first: start, last });
    // A range without slots has no keys.
    let before = start.0.checked_sub(1).map(Slot).filter(|slot| *slot >= first);
    let before = before.into_iter().flat_map(|last| txn.keys(SlotRange { first, last }));
    let mut chosen = None;
    let mut seen = 0;
    for key in behind.chain(before) {
        let key = key?;
        if key.ty.is_none() {
            continue;
        }
        seen += 1;
        // Each of those seen stays with the same chance.
        if chance.below(seen, seen) == 0 {
            chosen = Some(key.name);
        }
        if seen == RANDOM_KEYS_SEEN {
            break;
        }
    }
    Ok(Reply::bulk_or_null(chosen))
}

/// OBJECT: what there is of it. Encodings are what Redis would choose for the value; they say nothing
/// of how it is stored here.
pub(super) fn object(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let sub = subcommand(Id::Object, args).map_err(|error| Stop::Reply(error.reply()))?;
    let Some(name) = args.get(2) else {
        return Err(Stop::error(format!("ERR '{}' is not carried out by a group", sub.full_name)));
    };
    let key = txn.load(name)?;
    let Some(ty) = key.ty else { return Ok(Reply::Null) };
    match sub.name() {
        "encoding" => Ok(Reply::bulk(encoding(txn, &key, ty)?)),
        "refcount" => Ok(Reply::Int(1)),
        _ => Err(Stop::error(NO_FREQ.to_owned())),
    }
}

fn encoding(txn: &Txn<'_>, key: &Key, ty: Type) -> Result<&'static str, Stop> {
    let (small, large, most) = match ty {
        Type::String => {
            let value = key.string().unwrap_or_default();
            return Ok(match parse_integer(&value) {
                Some(_) => "int",
                None if value.len() <= EMBEDDED_BYTES_MAX => "embstr",
                None => "raw",
            });
        }
        Type::List => return Ok("quicklist"),
        Type::Hash => ("listpack", "hashtable", HASH_LISTED_MAX),
        Type::Set => ("intset", "hashtable", SET_LISTED_MAX),
        Type::SortedSet => ("listpack", "skiplist", SORTED_SET_LISTED_MAX),
    };
    for (place, field) in (1..).zip(txn.fields(key)) {
        let (name, value) = field?;
        let fits = match ty {
            Type::Set => parse_integer(&name).is_some(),
            _ => name.len().max(value.len()) <= LISTED_BYTES_MAX,
        };
        if place > most || !fits {
            return Ok(large);
        }
    }
    Ok(small)
}
