//! The EXPIRE and TTL families, and PERSIST.

use super::args::{Outcome, Stop, integer, is};
use super::txn::Txn;
use crate::resp::Reply;
use bytes::Bytes;

/// How a command of these families gives or shows times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    seconds: bool,
    absolute: bool,
}

/// Seconds from now.
pub(super) const EXPIRE: Form = Form { seconds: true, absolute: false };
/// Milliseconds from now.
pub(super) const PEXPIRE: Form = Form { seconds: false, absolute: false };
/// Seconds since 1970.
pub(super) const EXPIREAT: Form = Form { seconds: true, absolute: true };
/// Milliseconds since 1970.
pub(super) const PEXPIREAT: Form = Form { seconds: false, absolute: true };

#[derive(Debug, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

fn conditions(options: &[Bytes]) -> Result<Conditions, Stop> {
    let mut found = Conditions::default();
    for option in options {
        if is(option, "NX") {
            found.nx = true;
        } else if is(option, "XX") {
            found.xx = true;
        } else if is(option, "GT") {
            found.gt = true;
        } else if is(option, "LT") {
            found.lt = true;
        } else {
            // Redis quotes the option as a C string.
            let option = option.split(|&byte| byte == 0).next().unwrap_or_default();
            let line = [&b"ERR Unsupported option "[..], option].concat();
            return Err(Stop::Reply(Reply::error(line)));
        }
    }
    if found.nx && (found.xx || found.gt || found.lt) {
        let line = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return Err(Stop::error(line.to_owned()));
    }
    if found.gt && found.lt {
        let line = "ERR GT and LT options at the same time are not compatible";
        return Err(Stop::error(line.to_owned()));
    }
    Ok(found)
}

impl Conditions {
    /// Whether the expiry may go from `now` to `then`; none is later than every other.
    fn allow(&self, now: Option<u64>, then: i64) -> bool {
        let now = now.map(|end| i64::try_from(end).unwrap_or(i64::MAX));
        !(self.nx && now.is_some()
            || self.xx && now.is_none()
            || self.gt && now.is_none_or(|now| then <= now)
            || self.lt && now.is_some_and(|now| then >= now))
    }
}

/// The end that an argument means, in milliseconds since 1970; it may lie in the past.
fn end_of(arg: &[u8], form: Form, now_ms: u64, name: &str) -> Result<i64, Stop> {
    let given = integer(arg)?;
    let scale = if form.seconds { 1000 } else { 1 };
    let base = if form.absolute { 0 } else { now_ms };
    let end = given.checked_mul(scale).and_then(|ms| ms.checked_add_unsigned(base));
    end.ok_or_else(|| Stop::invalid_expire(name))
}

pub(super) fn expire(txn: &mut Txn<'_>, args: &[Bytes], form: Form, name: &str) -> Outcome {
    let conditions = conditions(&args[3..])?;
    let now = txn.context.now_ms;
    let end = end_of(&args[2], form, now, name)?;
    let mut key = txn.load(&args[1])?;
    if key.ty.is_none() || !conditions.allow(key.head.deadline(now), end) {
        return Ok(Reply::Int(0));
    }
    match u64::try_from(end) {
        Ok(end) if end > now => {
            txn.set_expiry(&mut key, end);
            txn.save(key);
        }
        _ => txn.delete(key),
    }
    Ok(Reply::Int(1))
}

/// TTL, PTTL, EXPIRETIME and PEXPIRETIME: -2 without the key, -1 without an expiry.
pub(super) fn ttl(txn: &mut Txn<'_>, args: &[Bytes], form: Form) -> Outcome {
    let key = txn.load(&args[1])?;
    if key.ty.is_none() {
        return Ok(Reply::Int(-2));
    }
    let now = txn.context.now_ms;
    let Some(end) = key.head.deadline(now) else { return Ok(Reply::Int(-1)) };
    let ms = if form.absolute { end } else { end.saturating_sub(now) };
    let shown = if form.seconds { ms.saturating_add(500) / 1000 } else { ms };
    Ok(Reply::Int(i64::try_from(shown).unwrap_or(i64::MAX)))
}

pub(super) fn persist(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut key = txn.load(&args[1])?;
    if key.ty.is_none() || key.head.deadline(txn.context.now_ms).is_none() {
        return Ok(Reply::Int(0));
    }
    txn.set_expiry(&mut key, 0);
    txn.save(key);
    Ok(Reply::Int(1))
}
