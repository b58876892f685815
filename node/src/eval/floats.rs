//! INCRBYFLOAT and HINCRBYFLOAT: as in Redis the sum is computed once and written as a value, since
//! sums of floats depend on their order. So between clusters the later sum wins as a whole.

use super::args::{Outcome, Stop};
use super::hashes;
use super::long_double::LongDouble;
use super::strings::value_of;
use super::txn::Txn;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

fn sum(old: LongDouble, amount: LongDouble) -> Result<Bytes, Stop> {
    let line = || Stop::error("ERR increment would produce NaN or Infinity".to_owned());
    Ok(Bytes::from(old.add(amount).ok_or_else(line)?.format()))
}

fn float(text: &[u8]) -> Result<LongDouble, Stop> {
    let line = || Stop::error("ERR value is not a valid float".to_owned());
    LongDouble::parse(text).ok_or_else(line)
}

pub(super) fn incrbyfloat(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut key = txn.load(&args[1])?;
    let old = value_of(&key)?.map_or(Ok(LongDouble::ZERO), |value| float(&value))?;
    let new = sum(old, float(&args[2])?)?;
    txn.claim(&mut key, Type::String);
    txn.write_string(&mut key, new.clone());
    txn.save(key);
    Ok(Reply::Bulk(new))
}

pub(super) fn hincrbyfloat(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let amount = float(&args[3])?;
    if !amount.is_finite() {
        return Err(Stop::error("ERR value is NaN or Infinity".to_owned()));
    }
    let mut key = hashes::load_to_write(txn, &args[1])?;
    let line = || Stop::error("ERR hash value is not a float".to_owned());
    let old = match txn.field(&key, &args[2])? {
        Some(value) => LongDouble::parse(&value).ok_or_else(line)?,
        None => LongDouble::ZERO,
    };
    let new = sum(old, amount)?;
    txn.claim(&mut key, Type::Hash);
    txn.set_field(&mut key, &args[2], new.clone())?;
    txn.save(key);
    Ok(Reply::Bulk(new))
}
