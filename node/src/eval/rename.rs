//! COPY, RENAME and RENAMENX.
//!
//! Rows carry the name of their key, so all of a value is read and written again, in one command:
//! it must fit [`WRITE_BYTES_MAX`]. The target is overwritten as by SET, and of a rename the source
//! is deleted as by DEL; the expiry goes along. Between clusters it is just these: what another
//! cluster writes to the source at the same time stays there if it is later, and does not follow.
//! Counters arrive as the number that they were here.

use super::args::{Outcome, Stop, is};
use super::lists;
use super::txn::{Key, Txn};
use super::{ROW_OVERHEAD_BYTES, WRITE_BYTES_MAX};
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

/// All that a key holds.
enum Contents {
    String(Bytes),
    Elements(Type, Vec<(Bytes, Bytes)>),
}

/// What a visible key holds, if it can be written under another name of that length.
fn contents(txn: &Txn<'_>, key: &Key, target: &[u8], command: &str) -> Result<Contents, Stop> {
    let Some(ty) = key.ty.filter(|ty| *ty != Type::String) else {
        return Ok(Contents::String(key.string().unwrap_or_default()));
    };
    let mut all = Vec::new();
    let mut bytes = 0;
    for element in txn.fields(key) {
        let (name, value) = element?;
        bytes += target.len() + name.len() + value.len() + ROW_OVERHEAD_BYTES;
        if bytes > WRITE_BYTES_MAX {
            return Err(Stop::error(format!(
                "ERR '{command}' of this key would write more than {WRITE_BYTES_MAX} bytes: copy \
                 its elements in parts"
            )));
        }
        all.push((name, value));
    }
    Ok(Contents::Elements(ty, all))
}

/// Writes a visible key again under the name of `target`, whatever that holds.
fn copy_over(txn: &mut Txn<'_>, source: &Key, mut target: Key, command: &str) -> Result<(), Stop> {
    let contents = contents(txn, source, &target.name, command)?;
    let end = source.head.deadline(txn.context.now_ms);
    txn.overwrite(&mut target);
    match contents {
        Contents::String(value) => {
            txn.claim(&mut target, Type::String);
            txn.write_string(&mut target, value);
        }
        Contents::Elements(ty, all) => {
            txn.claim(&mut target, ty);
            for (index, (name, value)) in (0..).zip(all) {
                // Positions are never used again, also not under another key's name: what came of
                // an earlier copy may have been removed there.
                let name = match ty {
                    Type::List => lists::position_of_index(index, txn.stamp()),
                    _ => name,
                };
                txn.set_field(&mut target, &name, value)?;
            }
        }
    }
    if let Some(end) = end {
        txn.set_expiry(&mut target, end);
    }
    txn.save(target);
    Ok(())
}

pub(super) fn copy(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut replace = false;
    for option in &args[3..] {
        if is(option, "DB") {
            let line = "ERR COPY has no option DB here: a key is copied within its namespace";
            return Err(Stop::error(line.to_owned()));
        }
        if !is(option, "REPLACE") {
            return Err(Stop::syntax());
        }
        replace = true;
    }
    if args[1] == args[2] {
        let line = "ERR source and destination objects are the same";
        return Err(Stop::error(line.to_owned()));
    }
    let (source, target) = (txn.load(&args[1])?, txn.load(&args[2])?);
    if source.ty.is_none() || (target.ty.is_some() && !replace) {
        return Ok(Reply::Int(0));
    }
    copy_over(txn, &source, target, "copy")?;
    Ok(Reply::Int(1))
}

/// RENAME, or whether it was done: false if `unless_exists` and the target does.
fn renamed(
    txn: &mut Txn<'_>,
    args: &[Bytes],
    unless_exists: bool,
    name: &str,
) -> Result<bool, Stop> {
    let source = txn.load(&args[1])?;
    if source.ty.is_none() {
        return Err(Stop::error("ERR no such key".to_owned()));
    }
    if args[1] == args[2] {
        return Ok(false);
    }
    let target = txn.load(&args[2])?;
    if unless_exists && target.ty.is_some() {
        return Ok(false);
    }
    copy_over(txn, &source, target, name)?;
    txn.delete(source);
    Ok(true)
}

pub(super) fn rename(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    renamed(txn, args, false, "rename")?;
    Ok(Reply::Ok)
}

pub(super) fn renamenx(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    Ok(Reply::Int(i64::from(renamed(txn, args, true, "renamenx")?)))
}
