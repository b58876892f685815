//! Commands on keys of any type.

use super::args::Outcome;
use super::txn::Txn;
use crate::resp::Reply;
use bytes::Bytes;

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
