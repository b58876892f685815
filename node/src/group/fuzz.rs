//! What groups tell each other and keep, as targets of [`crate::fuzz`].

use super::census::{self, Census};
use super::compare::{Different, KeyState, States, StretchKeys, StretchState, Wanted};
use super::cursor::Cursor;
use super::digest::{
    DigestAnswer, DigestCall, DigestRequest, KeyPage, KeysRequest, LookRequest, ReplicaState,
};
use super::entry::{Entry, Evaluation, Header, RowOp};
use super::exec::{self, Barrier, ExecRequest};
use super::handover::{decode_applied, encode_applied};
use super::levelled::{Levelled, Levels};
use super::life::Life;
use super::live::LiveSet;
use super::remote::{
    Answer, CursorsRequest, LeaderIs, LinkFloor, Outcome, RemoteBatch, RemoteEffect, Seed,
    SeedRequest, Verdict,
};
use super::rows::{StretchRows, encode_effect};
use super::source::{SourceAnswer, SourceRequest};
use super::state::{OpenMerge, StateRequest, StateStep, StateVerdict};
use super::synced;
use super::transaction::{Ask, AskRequest, Since, Transaction, Watch};
use super::wait::{Told, WAIT_MAX, Wait, WaitRequest};
use crate::command::Place;
use crate::eval::{Comparison, Condition, KeyDigest, SlotDigest};
use crate::fuzz::sample::{AT, FENCE, GROUP, ORIGIN, SLOT};
use crate::fuzz::{Target, sample, sample_commands, sample_replies};
use crate::model::Type;
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation};
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::Hlc;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let mut all = kept();
    all.extend(remote());
    all.extend(state());
    all.extend(digests());
    all.extend(commands());
    all.extend(waits());
    all
}

fn kept() -> Vec<Target> {
    let set = |ids: &[u8]| ids.iter().map(|id| ClusterId(*id)).collect::<BTreeSet<_>>();
    let live = LiveSet {
        version: 300,
        live: set(&[2, 9]),
        fenced: set(&[4]),
        barred: BTreeMap::from([(ClusterId(4), Incarnation(2))]),
    };
    let cursor = Cursor {
        position: AT,
        closed: sample::stamp(8, 2),
        slots: SlotRange::ALL,
        vector: sample::vector(),
    };
    let slots = vec![SlotRange::partition(0, 3), SlotRange::partition(2, 3)];
    let life = Life { life: Incarnation(2), owed: BTreeMap::from([(ClusterId(3), slots.clone())]) };
    let told = (SlotRange::partition(0, 3), sample::stamp(7, 4));
    let levelled = Levelled(BTreeMap::from([((ORIGIN, GROUP), told)]));
    let pair = (ClusterId(4), ClusterId(3));
    let levels = Levels(BTreeMap::from([(pair, (Incarnation(2), slots))]));
    let merge = OpenMerge { id: 99, cut: sample::cut() };
    vec![
        Target::new("entry", entries(), Entry::decode, Entry::encode).sealed(),
        Target::new("live set", vec![live], |b| LiveSet::decode(b), LiveSet::encode).sealed(),
        Target::new("cursor", vec![cursor], |b| Cursor::decode(b), Cursor::encode).sealed(),
        Target::new("synced", vec![sample::stamp(8, 2)], |b| synced::decode(b), synced::encode)
            .sealed(),
        Target::new("life", vec![life], |b| Life::decode(b), Life::encode).sealed(),
        Target::new("levelled", vec![levelled], |b| Levelled::decode(b), Levelled::encode).sealed(),
        Target::new("levels", vec![levels], |b| Levels::decode(b), Levels::encode).sealed(),
        Target::new("open merge", vec![merge], |b| OpenMerge::decode(b), OpenMerge::encode)
            .sealed(),
    ]
}

fn entries() -> Vec<Entry> {
    let header = |slots| Header {
        evaluation: Evaluation { term: 3, seq: 400 },
        origin: ORIGIN,
        first: sample::stamp(4, 2),
        last: sample::stamp(5, 2),
        clock: Hlc(101),
        slots,
    };
    let bytes = Bytes::from_static;
    let ops = vec![
        RowOp::DeleteRange { from: bytes(b"a"), to: bytes(b"b") },
        RowOp::Put { key: bytes(b"k"), value: bytes(b"value"), parts: 300 },
        RowOp::Delete { key: bytes(b"z") },
    ];
    vec![
        Entry { header: header(Some(SlotRange::partition(1, 3))), ops },
        Entry { header: header(None), ops: Vec::new() },
    ]
}

/// All answers of one kind.
fn answers<T: Outcome + PartialEq + 'static>(name: &'static str, done: Vec<T>) -> Target {
    let leader = |node: Option<&str>| LeaderIs { node: node.map(str::to_owned), term: 300 };
    let mut all: Vec<Answer<T>> = done.into_iter().map(Answer::Done).collect();
    all.push(Answer::NotLeader(leader(Some("east-n1"))));
    all.push(Answer::NotLeader(leader(None)));
    all.push(Answer::Refused { reason: "it is full".to_owned() });
    Target::new(name, all, |bytes| Answer::decode(bytes), Answer::encode)
}

fn effects() -> Vec<Bytes> {
    sample::effects().iter().map(encode_effect).collect()
}

fn remote() -> Vec<Target> {
    let effect = |(index, body): (u64, Bytes)| RemoteEffect {
        index,
        slot: (index % 2 == 0).then_some(SLOT),
        body,
    };
    let batch = RemoteBatch {
        target: GroupId(7),
        origin: ORIGIN,
        source_group: GROUP,
        source_slots: SlotRange::partition(1, 3),
        from: AT,
        to: AT,
        closed: sample::stamp(8, 2),
        fence: FENCE,
        vector: sample::vector(),
        effects: (126..).zip(effects()).map(effect).collect(),
    };
    let empty = RemoteBatch { effects: Vec::new(), vector: Vec::new(), ..batch.clone() };
    let cursors = CursorsRequest {
        group: GroupId(7),
        origin: ORIGIN,
        source_groups: vec![GroupId(1), GROUP, GroupId(u32::MAX)],
    };
    let floor = LinkFloor {
        group: GROUP,
        peer: ClusterId(3),
        position: AT,
        fence: FENCE,
        closed: sample::stamp(8, 2),
        vector: sample::vector(),
        merged: Some(300),
    };
    let seeds = vec![Seed { floors: vec![floor.clone(), floor.clone()], start: AT }];
    let verdicts = vec![
        Verdict::Accepted { cursor: AT },
        Verdict::Gap { cursor: AT },
        Verdict::Parked { ahead_ms: 700 },
    ];
    let seed = SeedRequest { group: GROUP };
    vec![
        Target::new("remote batch", vec![batch, empty], RemoteBatch::decode, RemoteBatch::encode),
        Target::new(
            "cursors request",
            vec![cursors],
            |b| CursorsRequest::decode(b),
            |r| r.encode(),
        ),
        Target::new("link floor", vec![floor], |b| LinkFloor::decode(b), LinkFloor::encode),
        Target::new("seed request", vec![seed], |b| SeedRequest::decode(b), SeedRequest::encode),
        answers("remote answer", verdicts),
        answers("cursors answer", vec![vec![AT, AT], Vec::new()]),
        answers("floor answer", vec![()]),
        answers("seed answer", seeds),
    ]
}

fn state() -> Vec<Target> {
    let (origin, group) = (ORIGIN, GROUP);
    let steps = [
        StateStep::Open(sample::cut()),
        StateStep::Chunk { origin, group, effects: effects() },
        StateStep::Cover { origin, group, rows: rows() },
        StateStep::Close { origin, group },
    ];
    let step = |step| StateRequest { target: GroupId(7), id: 99, step };
    let verdicts = vec![
        StateVerdict::Done,
        StateVerdict::Covers,
        StateVerdict::More { done: 300, from: sample::resume() },
        StateVerdict::Older { cursor: AT },
        StateVerdict::NotOpen,
        StateVerdict::Parked { ahead_ms: 700 },
    ];
    let steps = steps.map(step).to_vec();
    vec![
        Target::new("state request", steps, StateRequest::decode, StateRequest::encode),
        answers("state answer", verdicts),
        Target::new(
            "source request",
            source_requests(),
            SourceRequest::decode,
            SourceRequest::encode,
        ),
        answers("source answer", source_answers()),
    ]
}

fn states() -> Vec<StretchState> {
    sample::stretches().map(|stretch| StretchState { stretch, sum: u64::MAX, rows: 300 }).into()
}

fn keys() -> Vec<StretchKeys> {
    let keys = vec![KeyState { key: 1, sum: 2 }, KeyState { key: 3, sum: 4 }];
    sample::stretches().map(|stretch| StretchKeys { stretch, keys: keys.clone() }).into()
}

fn wanted() -> Vec<Wanted> {
    let [whole, part] = sample::stretches();
    vec![Wanted::all(whole), Wanted { stretch: part, keys: Some(vec![1, 2]) }]
}

fn rows() -> Vec<StretchRows> {
    sample::stretches().map(|stretch| StretchRows { stretch, effects: effects() }).into()
}

fn source_requests() -> Vec<SourceRequest> {
    let (slots, stretches) = (SlotRange::partition(1, 3), sample::stretches().into());
    vec![
        SourceRequest::Cut { group: GROUP, after: AT, keep: true, peer: ClusterId(2), mesh: 300 },
        SourceRequest::States { cut: 5, slots, from: Some(sample::resume()), all: true },
        SourceRequest::States { cut: 5, slots, from: None, all: false },
        SourceRequest::Keys { cut: 5, stretches },
        SourceRequest::Rows { cut: 5, wanted: wanted() },
        SourceRequest::Drop { cut: 5 },
        SourceRequest::CompareStates { group: GROUP, states: states() },
        SourceRequest::CompareKeys { group: GROUP, keys: keys() },
    ]
}

fn source_answers() -> Vec<SourceAnswer> {
    let [_, next] = sample::stretches();
    vec![
        SourceAnswer::Cut { cut: 5, state: sample::cut() },
        SourceAnswer::States(States { states: states(), next: Some(next) }),
        SourceAnswer::Keys(keys()),
        SourceAnswer::Rows(rows()),
        SourceAnswer::Different(vec![Different { at: 300, empty: true }; 2]),
        SourceAnswer::Wanted(wanted()),
        SourceAnswer::Dropped,
    ]
}

fn digests() -> Vec<Target> {
    let keys = |after| KeysRequest { group: GROUP, at_ms: 99, slot: SLOT, after, max: 300 };
    let calls = vec![
        DigestCall::Slots(DigestRequest { group: GROUP, at_ms: 99, slots: SlotRange::ALL }),
        DigestCall::Keys(keys(None)),
        DigestCall::Keys(keys(Some(Bytes::from_static(b"k")))),
        DigestCall::Replica(GROUP),
        DigestCall::Look(LookRequest { group: GROUP, at_ms: 99, cells: sample::cells() }),
    ];
    let digest = DigestAnswer {
        at: AT,
        own: sample::stamp(8, 1),
        vector: sample::vector(),
        slots: vec![SlotDigest { slot: SLOT, sum: u128::MAX - 1, keys: 300 }; 2],
    };
    let key = KeyDigest { key: Bytes::from_static(b"k"), sum: u128::MAX - 1 };
    let replica = ReplicaState { at: AT, sum: 1 << 100, rows: 300 };
    let census = Census { keys: 300, queued: u64::MAX, ..Census::default() };
    vec![
        Target::new("digest request", calls, DigestCall::decode, DigestCall::encode),
        answers("digest answer", vec![digest]),
        answers("keys answer", vec![KeyPage { keys: vec![key; 2], more: true }]),
        answers("replica answer", vec![replica]),
        answers("look answer", vec![sample::look()]),
        Target::new(
            "census request",
            vec![GROUP],
            |bytes| census::decode_request(bytes),
            |group| census::encode_request(*group),
        ),
        answers("census answer", vec![census]),
        Target::new("applied answer", vec![vec![0, 300, u64::MAX]], decode_applied, |indexes| {
            encode_applied(indexes)
        }),
    ]
}

fn commands() -> Vec<Target> {
    let exec = ExecRequest { group: GROUP, commands: sample_commands() };
    let key = || Bytes::from_static(b"k");
    let since = Since { term: 3, run: 300, change: 4, end_ms: 1 << 40 };
    let mut then = sample_commands();
    then.retain(|command| command.spec.place == Place::Group);
    let comparison = Comparison::Le;
    let transaction = Transaction {
        watches: vec![Watch { group: GROUP, key: key(), since }],
        conditions: vec![Condition { key: key(), comparison, value: Bytes::from_static(b"v") }],
        otherwise: then[..1].to_vec(),
        then,
    };
    let asks = [Ask::Watch(vec![key(); 2]), Ask::Transact(transaction)];
    let asks = asks.map(|ask| AskRequest { group: GROUP, ask }).to_vec();
    let mut outcomes: Vec<exec::Outcome> =
        sample_replies().into_iter().map(exec::Outcome::Done).collect();
    outcomes.push(exec::Outcome::NotApplied { leader: Some("east-n1".into()) });
    outcomes.push(exec::Outcome::NotApplied { leader: None });
    outcomes.push(exec::Outcome::Unknown);
    let barrier = Barrier { log_id: AT, clock_ms: 300 };
    let barriers = vec![Ok(barrier), Err(None), Err(Some("n2".to_owned()))];
    let several = barriers.iter().cloned().map(Some).chain([None]).collect::<Vec<_>>();
    vec![
        Target::new("exec request", vec![exec], ExecRequest::decode, ExecRequest::encode),
        Target::new("ask request", asks, AskRequest::decode, AskRequest::encode),
        // Not a number is not equal to itself: bytes are compared.
        Target::of_bytes("exec answer", vec![exec::encode_outcomes(&outcomes)], |bytes| {
            exec::decode_outcomes(bytes).map(|outcomes| exec::encode_outcomes(&outcomes))
        }),
        Target::new(
            "barrier request",
            vec![(GROUP, 300)],
            exec::decode_barrier_request,
            |(group, tick_ms)| exec::encode_barrier_request(*group, *tick_ms),
        ),
        Target::new("barrier answer", barriers, exec::decode_barrier, exec::encode_barrier),
        Target::new(
            "barriers request",
            vec![vec![GROUP], vec![GROUP; 3]],
            exec::decode_barriers_request,
            |groups| exec::encode_barriers_request(groups),
        ),
        Target::new("barriers answer", vec![several], exec::decode_barriers, |answers| {
            exec::encode_barriers(answers)
        }),
    ]
}

fn waits() -> Vec<Target> {
    let key = || Bytes::from_static(b"k");
    let wait = |count, ty, waited| Wait { keys: vec![key(); count], ty, waited, max: WAIT_MAX };
    let waits = [
        wait(1, Type::List, Duration::ZERO),
        wait(3, Type::SortedSet, Duration::from_micros(u64::MAX)),
    ];
    let requests = waits.map(|wait| WaitRequest { group: GROUP, wait }).to_vec();
    let told = vec![
        Told::Ready(key()),
        Told::Nothing,
        Told::NotLeader { leader: Some("east-n1".into()) },
        Told::NotLeader { leader: None },
        Told::Full,
    ];
    vec![
        Target::new("wait request", requests, WaitRequest::decode, WaitRequest::encode),
        Target::new("wait answer", told, Told::decode, Told::encode),
    ]
}
