//! All that a key holds, read at once and written over another key: what COPY, RENAME, DUMP and RESTORE
//! have in common. It fits one command's write, since rows carry the name of their key.

use super::args::Stop;
use super::lists;
use super::txn::{Key, Txn};
use super::{ROW_OVERHEAD_BYTES, WRITE_BYTES_MAX};
use crate::model::Type;
use bytes::Bytes;

/// All that a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Contents {
    /// The value of a string.
    String(Bytes),
    /// Elements in order, with their values. Names of a list's elements are positions, which count for
    /// nothing elsewhere.
    Elements(Type, Vec<(Bytes, Bytes)>),
}

/// What a visible key holds, if it can be written under another name of that length.
pub(super) fn read(
    txn: &Txn<'_>,
    key: &Key,
    target: &[u8],
    command: &str,
) -> Result<Contents, Stop> {
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

/// Writes contents over whatever a key holds, until `end` if there is one.
pub(super) fn write_over(
    txn: &mut Txn<'_>,
    mut target: Key,
    contents: Contents,
    end: Option<u64>,
) -> Result<(), Stop> {
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
