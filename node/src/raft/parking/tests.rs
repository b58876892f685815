//! One replica that parks, with time and messages given.

use super::*;
use std::sync::Arc;

const MS: Duration = Duration::from_millis(1);
const REST: Rest = Rest { term: 3, index: 40 };
const ME: ReplicaId = ReplicaId(1);
const OTHERS: [ReplicaId; 2] = [ReplicaId(2), ReplicaId(3)];

/// One replica; the second part tells whether its clock runs.
fn replica() -> (Parking, Arc<AtomicBool>) {
    let runs = Arc::new(AtomicBool::new(true));
    let told = runs.clone();
    (Parking::new(move |on| told.store(on, Ordering::SeqCst)), runs)
}

struct Leader {
    parking: Parking,
    runs: Arc<AtomicBool>,
    settings: Settings,
    start: Instant,
}

impl Leader {
    fn new() -> Leader {
        let (parking, runs) = replica();
        Leader { parking, runs, settings: Settings::default(), start: Instant::now() }
    }

    fn at(&self, ms: u32) -> Instant {
        self.start + ms * MS
    }

    fn round(&self, ms: u32, rest: Option<Rest>) -> bool {
        self.late_round(ms, Duration::ZERO, rest)
    }

    fn late_round(&self, ms: u32, late: Duration, rest: Option<Rest>) -> bool {
        self.parking.lead(rest, OTHERS.into_iter(), late, &self.settings, self.at(ms))
    }

    fn answer(&self, ms: u32, voter: usize, agreed: bool) -> bool {
        let at = self.at(ms);
        self.parking.answered(OTHERS[voter], (REST, agreed), &self.settings, at)
    }

    fn runs(&self) -> bool {
        self.runs.load(Ordering::SeqCst)
    }

    fn parked() -> Leader {
        let leader = Leader::new();
        assert!(!leader.round(0, Some(REST)));
        assert!(leader.round(3_000, Some(REST)) && !leader.runs());
        leader
    }
}

#[test]
fn a_leader_parks_when_it_rests_and_nobody_asks() {
    let leader = Leader::new();
    assert!(!leader.round(0, Some(REST)) && !leader.round(2_900, Some(REST)));
    assert!(!leader.parking.note_use(), "a read");
    assert!(!leader.round(3_100, Some(REST)), "it is used");
    assert!(!leader.round(3_300, Some(REST)) && !leader.round(6_200, Some(REST)));
    let newer = Rest { index: 41, ..REST };
    assert!(!leader.round(6_250, Some(newer)), "an entry came");
    assert!(!leader.round(6_260, None) && !leader.round(6_270, Some(newer)), "it has work");
    assert!(!leader.round(9_200, Some(newer)) && leader.runs());
    assert!(leader.round(9_270, Some(newer)) && !leader.runs());
    assert_eq!(leader.parking.parked(), Some(Parked::Leads));
}

#[test]
fn a_use_wakes_a_leader_until_a_majority_answers() {
    let leader = Leader::parked();
    assert!(leader.parking.note_use(), "who asks must wait for a majority");
    assert!(leader.parking.wake_leader() && leader.runs());
    assert!(!leader.parking.wake_leader(), "once");
    assert!(leader.parking.note_use(), "nobody has answered yet");
    leader.parking.woken();
    assert!(!leader.parking.note_use());
    assert!(!leader.round(3_200, Some(REST)) && !leader.round(3_300, Some(REST)));
    assert!(leader.round(6_300, Some(REST)), "idle again");
}

#[test]
fn a_leader_wakes_when_a_majority_is_silent_or_one_knows_better() {
    let leader = Leader::parked();
    assert!(!leader.answer(3_300, 0, true) && !leader.answer(3_300, 1, true));
    assert!(leader.round(3_900, Some(REST)));
    assert!(!leader.answer(3_900, 0, true));
    assert!(leader.round(4_500, Some(REST)), "the second one is silent, two of three are there");
    assert!(!leader.round(4_501, Some(REST)) && leader.runs(), "nobody is there");
    for ms in [4_700, 4_900, 13_000, 13_500] {
        assert!(!leader.round(ms, Some(REST)), "not again so soon");
    }
    assert!(leader.round(13_501, Some(REST)));
    assert!(leader.answer(13_550, 1, false) && leader.runs(), "it knows better");
    assert!(!leader.answer(13_551, 1, false), "told already");

    let leader = Leader::parked();
    let older = Rest { term: 2, ..REST };
    let told = leader.parking.answered(OTHERS[0], (older, false), &leader.settings, leader.start);
    assert!(!told, "an answer to a former listing");
    assert!(!leader.round(3_100, None) && leader.runs(), "something is under way");
}

#[test]
fn a_leader_that_did_not_run_does_not_hold_its_voters_for_silent() {
    let leader = Leader::parked();
    assert!(!leader.answer(3_200, 0, true) && !leader.answer(3_200, 1, true));
    assert!(leader.late_round(8_200, 4_600 * MS, Some(REST)), "no answer could come for 4.6 s");
    assert!(leader.round(8_400, Some(REST)) && !leader.runs());
    assert!(!leader.round(8_401, Some(REST)) && leader.runs(), "600 ms since it runs again");
    // Nothing that was heard can lie ahead.
    let leader = Leader::parked();
    assert!(leader.late_round(3_100, 60_000 * MS, Some(REST)));
    assert!(!leader.round(3_701, Some(REST)));
}

#[test]
fn a_leader_told_never_to_park_does_not() {
    let mut leader = Leader::new();
    leader.settings.park_after_ms = 0;
    for ms in [0, 1, 3_000, 10_000_000] {
        assert!(!leader.round(ms, Some(REST)) && leader.runs());
    }
}

#[test]
fn a_follower_stands_for_election_when_its_leader_is_silent() {
    let ((parking, runs), settings) = (replica(), Settings::default());
    let (start, patience) = (Instant::now(), 350 * MS);
    let runs = || runs.load(Ordering::SeqCst);
    let round = |ms, late| parking.follow(late * MS, &settings, start + ms * MS);
    assert!(!parking.listed(ME, false, patience, start) && runs(), "it does not agree");
    assert!(parking.listed(ME, true, patience, start) && !runs());
    assert!(parking.listed(ME, true, patience, start + 200 * MS) && !runs());
    assert!(!round(1_150, 0) && !runs(), "a lease of 600 ms and its patience");
    assert!(!round(1_400, 250), "this process did not run: no silence of the leader's");
    assert!(round(1_401, 0) && runs());
    assert!(!round(1_500, 0), "once");
    assert_eq!(parking.parked(), None);
}

#[test]
fn a_follower_votes_against_its_leader_only_when_that_is_silent() {
    let ((parking, runs), settings) = (replica(), Settings::default());
    let start = Instant::now();
    let vote = |from, ms| parking.vote(from, &settings, start + ms * MS);
    assert_eq!(vote(OTHERS[0], 0), Ballot::Pass, "awake");
    assert!(parking.listed(ME, true, 600 * MS, start));
    assert_eq!(vote(OTHERS[0], 600), Ballot::Refuse);
    assert!(parking.is_parked());
    assert_eq!(vote(OTHERS[0], 601), Ballot::Pass, "the lease is over");
    assert!(!parking.is_parked());
    assert!(parking.listed(ME, true, 600 * MS, start + 700 * MS));
    assert_eq!(vote(ME, 701), Ballot::Pass, "its leader itself");
    // What woke it is handled before its clock runs.
    assert!(!runs.load(Ordering::SeqCst));
    assert!(!parking.follow(Duration::ZERO, &settings, start + 702 * MS));
    assert!(runs.load(Ordering::SeqCst));
    let leader = Leader::parked();
    assert_eq!(leader.parking.vote(ME, &settings, start), Ballot::Lead);
    assert!(leader.runs());
}

#[test]
fn a_message_wakes_either() {
    let (parking, runs) = replica();
    let settings = Settings::default();
    let start = Instant::now();
    parking.hear();
    assert!(parking.listed(ME, true, MS, start));
    assert!(!parking.wake_leader(), "it does not lead");
    parking.hear();
    assert!(!parking.is_parked() && !runs.load(Ordering::SeqCst));
    assert!(!parking.follow(Duration::ZERO, &settings, start) && runs.load(Ordering::SeqCst));
    let leader = Leader::parked();
    leader.parking.hear();
    assert!(leader.runs() && !leader.parking.is_parked());
    // Another one leads now.
    let leader = Leader::parked();
    assert!(!leader.parking.follow(Duration::ZERO, &settings, start) && leader.runs());
}
