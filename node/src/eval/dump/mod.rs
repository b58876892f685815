//! DUMP and RESTORE: a key's contents as one string of bytes, in the format of Redis' RDB files.
//!
//! A payload is a type, what belongs to it, and a footer: two bytes of version and a CRC64 over all
//! before. What is written has the plainest form of each type ([`encode`]), which Redis reads since 4.0;
//! what is read are all forms that Redis has written up to 7.2 ([`decode`]), but for streams, modules'
//! values and zipmaps.
//!
//! A payload is not trusted, right checksum or not:
//! * Every length is held against the bytes that are there before anything is reserved for it.
//! * What it unpacks to is limited ([`decode::UNPACKED_BYTES_MAX`]), and so is what it would write, as of
//!   every command.
//! * Reading ends before the first write, so a bad payload changes nothing.
//!
//! Between clusters RESTORE is an overwrite, as SET and COPY are: a floor at the command's stamp, and
//! the elements under it.

mod decode;
mod encode;
pub(super) mod fuzz;
mod input;
mod lzf;
mod packed;

use super::args::{Outcome, Stop, integer, is};
use super::collection::Budget;
use super::contents;
use super::txn::Txn;
use super::{VALUE_BYTES_MAX, WRITE_BYTES_MAX};
use crate::resp::Reply;
use bytes::Bytes;
use crc::{CRC_64_REDIS, Crc, Table};

/// Largest payload that is made: RESTORE takes it as one argument.
pub const PAYLOAD_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// The oldest version that has all forms which are written, so that the oldest Redis reads them: 4.0.
const VERSION_WRITTEN: u16 = 8;
/// The newest version that is read: Redis 7.2.
const VERSION_READ_MAX: u16 = 11;

const VERSION_BYTES: usize = size_of::<u16>();
const CHECKSUM_BYTES: usize = size_of::<u64>();

static CHECKSUM: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// Adds the footer.
fn sealed(mut body: Vec<u8>) -> Bytes {
    body.extend_from_slice(&VERSION_WRITTEN.to_le_bytes());
    let checksum = CHECKSUM.checksum(&body);
    body.extend_from_slice(&checksum.to_le_bytes());
    body.into()
}

/// What stands before the footer, if that is right.
fn unsealed(payload: &Bytes) -> Option<Bytes> {
    let (checked, checksum) = payload.split_last_chunk::<CHECKSUM_BYTES>()?;
    let (body, version) = checked.split_last_chunk::<VERSION_BYTES>()?;
    let known = u16::from_le_bytes(*version) <= VERSION_READ_MAX;
    let right = known && CHECKSUM.checksum(checked) == u64::from_le_bytes(*checksum);
    right.then(|| payload.slice(..body.len()))
}

pub(super) fn dump(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = txn.load(&args[1])?;
    if key.ty.is_none() {
        return Ok(Reply::Null);
    }
    let contents = contents::read(txn, &key, &key.name, "dump")?;
    let payload = sealed(encode::body(&contents));
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Stop::error(format!(
            "ERR 'dump' of this key would take more than {PAYLOAD_BYTES_MAX} bytes: copy it in parts"
        )));
    }
    Ok(Reply::Bulk(payload))
}

#[derive(Debug, Default)]
struct Options {
    replace: bool,
    /// Whether the time is Unix time.
    absolute: bool,
}

/// IDLETIME and FREQ are for eviction, of which there is none: they are checked, and no more.
fn options(args: &[Bytes]) -> Result<Options, Stop> {
    let error = |line: &str| Err(Stop::error(line.to_owned()));
    let (mut found, mut idle, mut frequency) = (Options::default(), false, false);
    let mut rest = args.iter();
    while let Some(option) = rest.next() {
        if is(option, "REPLACE") {
            found.replace = true;
        } else if is(option, "ABSTTL") {
            found.absolute = true;
        } else if is(option, "IDLETIME") && !frequency {
            if integer(rest.next().ok_or_else(Stop::syntax)?)? < 0 {
                return error("ERR Invalid IDLETIME value, must be >= 0");
            }
            idle = true;
        } else if is(option, "FREQ") && !idle {
            if !(0..=255).contains(&integer(rest.next().ok_or_else(Stop::syntax)?)?) {
                return error("ERR Invalid FREQ value, must be >= 0 and <= 255");
            }
            frequency = true;
        } else {
            return Err(Stop::syntax());
        }
    }
    Ok(found)
}

pub(super) fn restore(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let error = |line: &str| Stop::error(line.to_owned());
    let options = options(&args[4..])?;
    let target = txn.load(&args[1])?;
    if target.ty.is_some() && !options.replace {
        return Err(error("BUSYKEY Target key name already exists."));
    }
    let ttl = u64::try_from(integer(&args[2])?);
    let ttl = ttl.map_err(|_| error("ERR Invalid TTL value, must be >= 0"))?;
    let body = unsealed(&args[3]);
    let body = body.ok_or_else(|| error("ERR DUMP payload version or checksum are wrong"))?;
    let contents = decode::contents(body, Budget::write(&target))?;
    let now = txn.context.now_ms;
    let base = if options.absolute { 0 } else { now };
    let end = (ttl > 0).then(|| ttl.checked_add(base).filter(|end| i64::try_from(*end).is_ok()));
    match end {
        Some(None) => return Err(Stop::invalid_expire("restore")),
        Some(Some(end)) if end <= now => {
            if target.ty.is_some() {
                txn.delete(target);
            }
        }
        end => contents::write_over(txn, target, contents, end.flatten())?,
    }
    Ok(Reply::Ok)
}

/// A payload that would write too much.
fn too_large() -> Stop {
    Stop::error(format!(
        "ERR this payload would write more than {WRITE_BYTES_MAX} bytes, or a value of more than \
         {VALUE_BYTES_MAX}: make a smaller key of it before it is dumped"
    ))
}
