//! COPY, RENAME and RENAMENX.
//!
//! Rows carry the name of their key, so all of a value is read and written again, in one command:
//! it must fit [`WRITE_BYTES_MAX`](super::WRITE_BYTES_MAX). The target is overwritten as by SET, and of a rename the source
//! is deleted as by DEL; the expiry goes along. Between clusters it is just these: what another
//! cluster writes to the source at the same time stays there if it is later, and does not follow.
//! Counters arrive as the number that they were here.

use super::args::{Outcome, Stop, integer, is};
use super::contents;
use super::txn::{Key, Txn};
use crate::resp::Reply;
use bytes::Bytes;

/// Writes a visible key again under the name of `target`, whatever that holds.
fn copy_over(txn: &mut Txn<'_>, source: &Key, target: Key, command: &str) -> Result<(), Stop> {
    let contents = contents::read(txn, source, &target.name, command)?;
    let end = source.head.deadline(txn.context.now_ms);
    contents::write_over(txn, target, contents, end)
}

/// The error of COPY's option DB: there are namespaces in place of databases, and a key stays in its own.
fn database(number: &[u8]) -> Stop {
    Stop::error(match integer(number) {
        Err(stop) => return stop,
        Ok(0) => "ERR COPY has no option DB here: a key is copied within its namespace".to_owned(),
        Ok(_) => "ERR DB index is out of range".to_owned(),
    })
}

pub(super) fn copy(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut replace = false;
    let mut options = &args[3..];
    while let [option, rest @ ..] = options {
        match rest {
            _ if is(option, "REPLACE") => replace = true,
            [number, ..] if is(option, "DB") => return Err(database(number)),
            _ => return Err(Stop::syntax()),
        }
        options = rest;
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
