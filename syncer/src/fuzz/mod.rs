//! Fuzzing of everything that arrives: the formats of links here, and those of
//! [`flotilla_node::fuzz`], whose text says what is checked.

use crate::audit::pass::Part as AuditPart;
use crate::audit::wire::AuditMessage;
use crate::batch::{Batch, Hello, Message};
use crate::merge::wire::MergeMessage;
use bytes::Bytes;
use flotilla_node::fuzz::sample::{self, AT, FENCE, GROUP, ORIGIN, SLOT};
use flotilla_node::fuzz::{self, Target};
use flotilla_node::group::compare::{Different, KeyState, StretchKeys, StretchState, Wanted};
use flotilla_node::group::remote::RemoteEffect;
use flotilla_node::group::rows::{Stretch, StretchRows, encode_effect};
use flotilla_topology::api::View;
use flotilla_topology::ids::ClusterId;
use flotilla_topology::slot::SlotRange;

pub use fuzz::{Finding, Fuzzer, Report, Tally};

/// Over all formats. The error is a valid encoding that is not read as what it is.
pub fn fuzzer() -> Result<Fuzzer, Finding> {
    let mut all = vec![messages(), batches(), merges(), audits()];
    all.extend(fuzz::targets());
    Fuzzer::new(all)
}

/// Runs so many iterations from a seed, over all formats.
pub fn run(seed: u64, iterations: u64) -> Result<Report, Finding> {
    fuzzer()?.run(seed, 0..iterations)
}

/// Behind the length of a frame, which the stream takes off.
fn encode(message: &Message) -> Bytes {
    message.encode().slice(4..)
}

fn target(name: &'static str, messages: Vec<Message>) -> Target {
    Target::new(name, messages, Message::decode, encode).sealed()
}

fn messages() -> Target {
    let (group, cursor) = (GROUP, AT);
    let hello = Hello {
        oldest: 1,
        newest: 2,
        cluster: ORIGIN.cluster,
        incarnation: ORIGIN.incarnation,
        layout: 300,
    };
    let slots = SlotRange::partition(1, 3);
    let all = vec![
        Message::Hello(hello),
        Message::Ping { sent_ms: 300 },
        Message::Pong {
            sent_ms: 300,
            wall_ms: 301,
            knows: vec![(ClusterId(2), View::Counts), (ClusterId(3), View::Fenced)],
        },
        Message::Open { namespace: "default".into(), group, slots },
        Message::Cursor { group, cursor },
        Message::Ack { group, cursor, received_ms: 1, committed_ms: 2 },
        Message::Gap { group, cursor },
        Message::Parked { group, ahead_ms: 700 },
        Message::Refused { reason: "no".into() },
    ];
    target("link message", all)
}

fn effects() -> Vec<Bytes> {
    sample::effects().iter().map(encode_effect).collect()
}

/// With a body as it is, with one that is compressed, and with none.
fn batches() -> Target {
    let effect = |(index, body): (u64, Bytes)| RemoteEffect {
        index,
        slot: (index % 2 == 0).then_some(SLOT),
        body,
    };
    let batch = |bodies: Vec<Bytes>| {
        Message::Batch(Batch {
            origin: ORIGIN,
            group: GROUP,
            slots: SlotRange::partition(1, 3),
            from: AT,
            to: flotilla_topology::ids::LogId { index: AT.index + 500, ..AT },
            closed: sample::stamp(8, 2),
            fence: FENCE,
            vector: sample::vector(),
            sent_ms: 9,
            born_ms: 5,
            effects: (AT.index + 1..).zip(bodies).map(effect).collect(),
        })
    };
    let few = effects().into_iter().take(3).collect();
    target("batch", vec![batch(few), batch(effects()), batch(Vec::new())])
}

fn merges() -> Target {
    let few = || effects().into_iter().take(3).collect::<Vec<Bytes>>();
    let [whole, part] = sample::stretches();
    let state = |stretch: &Stretch| StretchState { stretch: stretch.clone(), sum: 1, rows: 300 };
    let rows = |stretch: &Stretch, effects| StretchRows { stretch: stretch.clone(), effects };
    let keys = vec![KeyState { key: 1, sum: 2 }; 2];
    let all = vec![
        MergeMessage::Open { namespace: "default".into(), id: 9, cut: sample::cut() },
        MergeMessage::Opened { covers: true },
        MergeMessage::Older { cursor: AT },
        MergeMessage::States(vec![state(&whole), state(&part)]),
        MergeMessage::Different(vec![Different { at: 1, empty: false }; 2]),
        MergeMessage::Keys(vec![StretchKeys { stretch: part.clone(), keys }; 2]),
        MergeMessage::Wanted(vec![
            Wanted::all(whole.clone()),
            Wanted { stretch: part.clone(), keys: Some(vec![1, 2]) },
        ]),
        MergeMessage::Rows(vec![
            rows(&whole, few()),
            rows(&part, Vec::new()),
            rows(&part, effects()),
        ]),
        MergeMessage::Merged,
        MergeMessage::Parked { ahead_ms: 700 },
        MergeMessage::Close,
        MergeMessage::Closed,
    ];
    target("merge message", all.into_iter().map(Message::Merge).collect())
}

fn audits() -> Target {
    let part = |of| AuditPart { slots: SlotRange::partition(of, 3), look: sample::look() };
    let all = vec![
        AuditMessage::Open { namespace: "default".into() },
        AuditMessage::Look { number: 300, at_ms: 301, cells: sample::cells() },
        AuditMessage::Holds { number: 300, parts: vec![part(0), part(1)] },
        AuditMessage::NotNow { number: 300, reason: "no leader".into() },
    ];
    target("audit message", all.into_iter().map(Message::Audit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_formats_stand_damage() {
        let iterations = 300_000;
        let report = run(2, iterations).unwrap_or_else(|finding| panic!("{finding}"));
        assert_eq!(report.inputs(), iterations);
        for name in ["link message", "batch", "merge message", "audit message"] {
            let tally = report.tallies.iter().find(|tally| tally.target == name).unwrap();
            assert!(tally.read > 0 && tally.read < tally.inputs, "{tally:?}");
        }
    }
}
