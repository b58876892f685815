//! Effects: what a write did to one row, in the form that merges anywhere.
//!
//! An effect is a row cut down to the parts that an entry wrote. It carries states, not
//! differences, so applying it is joining it, and a repeat changes nothing.

use super::{Element, Head, Parts, Type, decode_element, decode_head};
use super::{encode_element, encode_head};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::keys::{self, RowKey};
use bytes::Bytes;
use flotilla_topology::ids::Origin;
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::Stamp;

/// The portable part of a row that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// On a key's head.
    Head {
        /// The key's slot.
        slot: Slot,
        /// The key.
        key: Bytes,
        /// The parts that were written, the rest empty.
        head: Head,
    },
    /// On an element.
    Element {
        /// The key's slot.
        slot: Slot,
        /// The key.
        key: Bytes,
        /// The type that the element belongs to.
        ty: Type,
        /// The element's name within the key.
        name: Bytes,
        /// The parts that were written, the rest empty.
        element: Element,
    },
}

const KIND_HEAD: u8 = 1;
const KIND_ELEMENT: u8 = 2;

/// The effect of a row write in an entry of `origin`, or none if it was local upkeep.
pub fn effect_of(
    origin: Origin,
    row_key: &[u8],
    row_value: &Bytes,
    parts: Parts,
) -> Result<Option<Effect>, DecodeError> {
    if parts.is_none() {
        return Ok(None);
    }
    Ok(match keys::decode(row_key)? {
        RowKey::Head { slot, key } => {
            let head = cut_head(decode_head(row_value)?, origin, parts);
            (!head.is_empty()).then_some(Effect::Head { slot, key, head })
        }
        RowKey::Element { slot, key, ty, name } => {
            let element = cut_element(decode_element(row_value)?, origin, parts);
            (!element.is_empty()).then_some(Effect::Element { slot, key, ty, name, element })
        }
        _ => None,
    })
}

fn cut_head(head: Head, origin: Origin, parts: Parts) -> Head {
    let Head { claim, floor, expiry, string, count: _, forgotten: _ } = head;
    Head {
        claim: claim.filter(|_| parts.contains(Parts::CLAIM)),
        floor: if parts.contains(Parts::FLOOR) { floor } else { Default::default() },
        expiry: expiry.filter(|_| parts.contains(Parts::EXPIRY)),
        string: cut_element(string, origin, parts),
        count: None,
        forgotten: 0,
    }
}

/// Resets made by other commands than the register's travel with their own effects.
fn cut_element(element: Element, origin: Origin, parts: Parts) -> Element {
    let Element { register, mut resets, mut sums } = element;
    let register = register.filter(|_| parts.contains(Parts::REGISTER));
    resets.retain(|reset| register.as_ref().is_some_and(|register| register.stamp == reset.by));
    sums.retain(|sum| parts.contains(Parts::SUM) && sum.slot == origin);
    Element { register, resets, sums }
}

impl Effect {
    /// The slot that decides which group it belongs to.
    pub fn slot(&self) -> Slot {
        match self {
            Effect::Head { slot, .. } | Effect::Element { slot, .. } => *slot,
        }
    }

    /// The key it is about.
    pub fn key(&self) -> &Bytes {
        match self {
            Effect::Head { key, .. } | Effect::Element { key, .. } => key,
        }
    }

    /// The highest stamp in it: a clock that has seen it must not go back behind it.
    pub fn max_stamp(&self) -> Stamp {
        match self {
            Effect::Head { head, .. } => head.max_stamp(),
            Effect::Element { element, .. } => element.max_stamp(),
        }
    }

    /// Appends the form between clusters: kind, slot, key, [type, name,] row value.
    pub fn to_wire(&self, out: &mut Encoder) {
        match self {
            Effect::Head { slot, key, head } => {
                out.put_u8(KIND_HEAD);
                out.put_slot(*slot);
                out.put_bytes(key);
                out.put_bytes(&encode_head(head));
            }
            Effect::Element { slot, key, ty, name, element } => {
                out.put_u8(KIND_ELEMENT);
                out.put_slot(*slot);
                out.put_bytes(key);
                out.put_u8(ty.number());
                out.put_bytes(name);
                out.put_bytes(&encode_element(element));
            }
        }
    }

    /// Reads what [`Effect::to_wire`] wrote.
    pub fn from_wire(input: &mut Decoder<'_>) -> Result<Effect, DecodeError> {
        let unknown = input.error("a kind of effect that this release knows");
        let kind = input.u8()?;
        let slot = input.slot()?;
        let key = input.bytes(usize::MAX)?;
        match kind {
            KIND_HEAD => {
                let mut head = decode_head(&input.bytes(usize::MAX)?)?;
                head.count = None; // a count means nothing in another cluster
                Ok(Effect::Head { slot, key, head })
            }
            KIND_ELEMENT => {
                let number = input.u8()?;
                let ty = Type::from_number(number).ok_or(unknown)?;
                let name = input.bytes(usize::MAX)?;
                let element = decode_element(&input.bytes(usize::MAX)?)?;
                Ok(Effect::Element { slot, key, ty, name, element })
            }
            _ => Err(unknown),
        }
    }
}
