//! What is said on the stream of an audit: one question at a time, each with its answer.

use super::pass::Part;
use flotilla_node::codec::{DecodeError, Decoder, Encoder};
use flotilla_node::group::digest::Look;
use flotilla_node::group::digest::look::Cells;
use flotilla_node::group::remote::{Outcome, TEXT_BYTES_MAX, clip};

type Decoded<T> = Result<T, DecodeError>;

/// What this code writes and reads.
const AUDIT_VERSION: u8 = 1;
/// Groups of one answer: a namespace has at most 1024.
const PARTS_MAX: usize = 1024;
/// Bytes of a part, at least.
const PART_BYTES_MIN: usize = 16;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditMessage {
    /// First: what follows asks about this namespace.
    Open {
        /// Its name, the same in both clusters.
        namespace: String,
    },
    /// What do you hold? Answered by `Holds` or `NotNow`.
    Look {
        /// Of the question.
        number: u64,
        /// The group time.
        at_ms: u64,
        /// Which cells.
        cells: Cells,
    },
    /// What the groups hold that own the slots.
    Holds {
        /// Of the question.
        number: u64,
        /// Each of them.
        parts: Vec<Part>,
    },
    /// It cannot be told now.
    NotNow {
        /// Of the question.
        number: u64,
        /// One line that says why.
        reason: String,
    },
}

impl AuditMessage {
    /// Appends it.
    pub fn put(&self, out: &mut Encoder) {
        out.put_u8(AUDIT_VERSION);
        match self {
            AuditMessage::Open { namespace } => {
                out.put_u8(1);
                out.put_text(namespace);
            }
            AuditMessage::Look { number, at_ms, cells } => {
                out.put_u8(2);
                out.put_varint(*number);
                out.put_varint(*at_ms);
                cells.put(out);
            }
            AuditMessage::Holds { number, parts } => {
                out.put_u8(3);
                out.put_varint(*number);
                out.put_varint(parts.len() as u64);
                for part in parts {
                    out.put_slots(part.slots);
                    part.look.put(out);
                }
            }
            AuditMessage::NotNow { number, reason } => {
                out.put_u8(4);
                out.put_varint(*number);
                out.put_text(clip(reason));
            }
        }
    }

    /// Reads it.
    pub fn take(from: &mut Decoder<'_>) -> Decoded<AuditMessage> {
        from.version(AUDIT_VERSION)?;
        let unknown = from.error("a message of an audit (1 to 4)");
        Ok(match from.u8()? {
            1 => AuditMessage::Open { namespace: from.text(TEXT_BYTES_MAX)?.to_owned() },
            2 => AuditMessage::Look {
                number: from.varint()?,
                at_ms: from.varint()?,
                cells: Cells::take(from)?,
            },
            3 => {
                let number = from.varint()?;
                let count = from.count(PARTS_MAX, PART_BYTES_MIN)?;
                let part = |from: &mut Decoder<'_>| -> Decoded<_> {
                    Ok(Part { slots: from.slots()?, look: Look::take(from)? })
                };
                let parts = (0..count).map(|_| part(from)).collect::<Decoded<_>>()?;
                AuditMessage::Holds { number, parts }
            }
            4 => AuditMessage::NotNow {
                number: from.varint()?,
                reason: from.text(TEXT_BYTES_MAX)?.to_owned(),
            },
            _ => return Err(unknown),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Message;
    use flotilla_node::fuzz::sample;
    use flotilla_topology::slot::SlotRange;

    #[test]
    fn messages_survive_the_wire_and_garbage_is_refused() {
        let part = Part { slots: SlotRange::ALL, look: sample::look() };
        for message in [
            AuditMessage::Open { namespace: "default".into() },
            AuditMessage::Look { number: 300, at_ms: 301, cells: sample::cells() },
            AuditMessage::Holds { number: 300, parts: vec![part.clone(), part] },
            AuditMessage::NotNow { number: 300, reason: "no leader".into() },
        ] {
            let frame = Message::Audit(message.clone()).encode().slice(4..);
            assert_eq!(Message::decode(&frame), Ok(Message::Audit(message)));
            for end in 0..frame.len() {
                assert!(Message::decode(&frame.slice(..end)).is_err());
            }
        }
    }
}
