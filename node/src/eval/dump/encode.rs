//! Contents as the body of a payload: strings as they are, in a type's plainest form.

use super::super::contents::Contents;
use super::super::order::score_of;
use super::decode::form;
use crate::model::Type;

/// A length in one byte, in two, or behind a byte that says four.
const SHORT: usize = 1 << 6;
const MIDDLE: usize = 1 << 14;
const MIDDLE_MARK: u16 = 0x4000;
pub(super) const LONG_MARK: u8 = 0x80;

fn put_len(out: &mut Vec<u8>, len: usize) {
    match len {
        0..SHORT => out.push(len as u8),
        SHORT..MIDDLE => out.extend_from_slice(&(MIDDLE_MARK | len as u16).to_be_bytes()),
        _ => {
            out.push(LONG_MARK);
            // Contents are far below 4 GiB.
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_len(out, text.len());
    out.extend_from_slice(text);
}

pub(super) fn body(contents: &Contents) -> Vec<u8> {
    let mut out = Vec::new();
    let (ty, all) = match contents {
        Contents::String(value) => {
            out.push(form::STRING);
            put_text(&mut out, value);
            return out;
        }
        Contents::Elements(ty, all) => (*ty, all),
    };
    out.push(match ty {
        Type::String => form::STRING,
        Type::List => form::LIST,
        Type::Set => form::SET,
        Type::SortedSet => form::SORTED_SET,
        Type::Hash => form::HASH,
    });
    put_len(&mut out, all.len());
    for (name, value) in all {
        if ty != Type::List {
            put_text(&mut out, name);
        }
        match ty {
            Type::SortedSet => {
                let score = score_of(value).unwrap_or_default();
                out.extend_from_slice(&score.to_le_bytes());
            }
            Type::Hash | Type::List => put_text(&mut out, value),
            Type::Set | Type::String => {}
        }
    }
    out
}
