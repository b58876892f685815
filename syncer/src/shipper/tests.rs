use super::*;
use bytes::Bytes;

fn id(index: u64) -> LogId {
    LogId { term: u64::from(index > 0), index }
}

fn at(index: u64) -> Position {
    Position { id: id(index), ..Position::default() }
}

fn entry(index: u64, bytes: usize, news: bool) -> Arc<Learned> {
    let effect = RemoteEffect { index, slot: None, body: Bytes::from(vec![0; bytes]) };
    let effects: Vec<_> = (bytes > 0).then_some(effect).into_iter().collect();
    Arc::new(Learned {
        prev: id(index - 1),
        at: at(index),
        effects,
        bytes,
        born_ms: index,
        news: news || bytes > 0,
    })
}

struct Rig {
    shipper: Shipper,
    now: Instant,
}

impl Rig {
    fn new() -> Rig {
        let now = Instant::now();
        Rig { shipper: Shipper::new(Position::default(), now), now }
    }

    fn after(&mut self, wait: Duration, event: Event) -> Vec<Action> {
        self.now += wait;
        let mut actions = Vec::new();
        self.shipper.step(self.now, event, &mut actions);
        actions
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.after(Duration::ZERO, event)
    }

    fn learn(&mut self, entries: impl IntoIterator<Item = (u64, usize, bool)>) -> Vec<Action> {
        let entries = entries.into_iter().map(|(i, bytes, news)| entry(i, bytes, news)).collect();
        self.step(Event::Committed(entries))
    }
}

fn sent(actions: &[Action]) -> Vec<(u64, u64)> {
    let span = |action: &Action| match action {
        Action::Send(parcel) => Some((parcel.from.index, parcel.to.id.index)),
        _ => None,
    };
    actions.iter().filter_map(span).collect()
}

#[test]
fn a_lone_commit_leaves_at_once_also_after_a_long_rest() {
    let mut rig = Rig::new();
    rig.step(Event::LinkUp(id(0)));
    assert_eq!(sent(&rig.learn([(1, 10, true)])), [(0, 1)]);
    let acked = rig.step(Event::Acked(id(1)));
    assert_eq!(acked, [Action::Floor(at(1)), Action::Delivered(vec![1])]);
    rig.now += STALL_AFTER * 3;
    assert_eq!(sent(&rig.learn([(2, 10, true)])), [(1, 2)]);
    assert!(rig.step(Event::Tick).is_empty(), "a rest is no stall");
    let stalled = rig.after(STALL_AFTER, Event::Tick);
    assert!(matches!(stalled[..], [Action::Reset(_)]), "{stalled:?}");
    assert_eq!(rig.shipper.state().0, LinkState::Stalled);
}

#[test]
fn small_batches_that_follow_each_other_are_put_together() {
    let mut rig = Rig::new();
    rig.step(Event::LinkUp(id(0)));
    assert_eq!(sent(&rig.learn([(1, 10, true)])), [(0, 1)]);
    assert_eq!(sent(&rig.learn([(2, 10, true)])), []);
    assert_eq!(sent(&rig.learn([(3, 10, true)])), []);
    assert_eq!(rig.shipper.deadline(), Some(rig.now + PACE));
    assert_eq!(sent(&rig.after(PACE, Event::Tick)), [(1, 3)]);
    let full = rig.learn([(4, BATCH_BYTES_MAX, true)]);
    assert_eq!(sent(&full), [(3, 4)], "a full batch does not wait");
}

#[test]
fn what_nobody_waits_for_travels_along_or_when_it_is_much() {
    let mut rig = Rig::new();
    rig.step(Event::LinkUp(id(0)));
    assert_eq!(sent(&rig.learn((1..=9).map(|i| (i, 0, false)))), []);
    assert_eq!(rig.shipper.deadline(), None);
    assert_eq!(sent(&rig.learn([(10, 0, true)])), [(0, 10)], "a tick takes it along");
    let many = 11..11 + SILENT_ENTRIES_MAX;
    let end = many.end - 1;
    rig.now += PACE;
    assert_eq!(sent(&rig.learn(many.map(|i| (i, 0, false)))), [(10, end)]);
}

#[test]
fn the_window_holds_and_a_gap_rewinds_it() {
    let mut rig = Rig::new();
    rig.step(Event::LinkUp(id(0)));
    let actions = rig.learn((1..=100).map(|i| (i, BATCH_BYTES_MAX, true)));
    let in_window = WINDOW_BYTES / BATCH_BYTES_MAX;
    assert_eq!(sent(&actions).len(), in_window);
    assert_eq!(rig.shipper.state().0, LinkState::CatchingUp);
    assert_eq!(sent(&rig.step(Event::Acked(id(3)))).len(), 3);
    assert_eq!(sent(&rig.step(Event::Gap(id(3)))), [], "after a pause");
    assert_eq!(sent(&rig.after(REWIND_PAUSE, Event::Tick))[0], (3, 4));
    assert_eq!(rig.shipper.backlog().entries, 97);
}

#[test]
fn a_cursor_that_the_log_does_not_reach_needs_a_merge() {
    let mut rig = Rig::new();
    rig.shipper = Shipper::new(at(50), rig.now);
    rig.step(Event::LinkUp(id(49)));
    assert_eq!(rig.shipper.state().0, LinkState::NeedsMerge);
    rig.step(Event::LinkDown("gone".into()));
    assert_eq!(rig.shipper.state().0, LinkState::NeedsMerge, "it stays so until it is not");
    rig.step(Event::LinkUp(id(70)));
    assert_eq!(rig.shipper.state().0, LinkState::Live);
    let seeded = (51..=72).map(|i| (i, 10, true));
    assert_eq!(sent(&rig.learn(seeded)), [(70, 72)], "a learner catches up with a cursor ahead");
    let beyond = rig.step(Event::Acked(id(73)));
    assert!(matches!(beyond[..], [Action::Reset(_)]), "{beyond:?}");
}

#[test]
fn another_term_at_the_cursor_is_another_log() {
    let mut rig = Rig::new();
    rig.learn([(1, 10, true), (2, 10, true)]);
    let actions = rig.step(Event::LinkUp(LogId { term: 9, index: 2 }));
    assert_eq!(actions, [], "the group must not take that for progress");
    assert_eq!(rig.shipper.state().0, LinkState::NeedsMerge);
}

#[test]
fn a_peer_that_was_shed_makes_the_learner_begin_anew() {
    let mut rig = Rig::new();
    rig.learn([(1, 10, true), (2, 10, true)]);
    rig.step(Event::Shed);
    assert_eq!(rig.shipper.backlog(), Backlog::default());
    rig.learn([(3, 10, true)]);
    assert_eq!(rig.shipper.backlog(), Backlog::default(), "nothing is kept any more");
    assert_eq!(rig.step(Event::LinkUp(id(1))), [Action::Rewind]);
}
