//! The waiting room by itself, and a leader that wakes.

use super::*;
use crate::command::Command;
use crate::engine::waited::Waited;
use crate::group::transact::tests::Solo;
use crate::resp::Reply;
use std::collections::BTreeMap;

const MS: Duration = Duration::from_millis(1);
const LIST: Option<Type> = Some(Type::List);

fn key(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

/// A poll for keys, separated by spaces, by a client that has waited for so many milliseconds.
fn poll(keys: &str, ty: Type, waited_ms: u32) -> Wait {
    let keys = keys.split(' ').map(key).collect();
    Wait { keys, ty, waited: MS * waited_ms, max: WAIT_MAX }
}

fn ready(name: &str) -> Result<Told, oneshot::error::TryRecvError> {
    Ok(Told::Ready(key(name)))
}

/// A room whose clock is set by hand.
struct Rig {
    room: Room,
    waited: Waited,
    now: Instant,
}

impl Rig {
    fn new() -> Rig {
        Rig { room: Room::default(), waited: Waited::default(), now: Instant::now() }
    }

    fn enter(&mut self, wait: Wait) -> oneshot::Receiver<Told> {
        let (answer, told) = oneshot::channel();
        self.room.enter(wait, answer, self.now, &mut self.waited);
        told
    }

    fn lists(&mut self, keys: &str, waited_ms: u32) -> oneshot::Receiver<Told> {
        self.enter(poll(keys, Type::List, waited_ms))
    }

    fn seen(&mut self, name: &str, there: Option<Type>, popped: bool) {
        let name = Waited::name(name.as_bytes());
        self.room.seen(&name, there, popped, self.now, &mut self.waited);
    }

    /// Lets time pass; the names that must be looked at.
    fn pass(&mut self, time: Duration) -> Vec<Bytes> {
        self.now += time;
        self.room.pass(self.now, &mut self.waited)
    }
}

fn count_ready(told: &mut [oneshot::Receiver<Told>]) -> Vec<bool> {
    told.iter_mut().map(|told| matches!(told.try_recv(), Ok(Told::Ready(_)))).collect()
}

#[test]
fn who_has_waited_longest_is_first_whenever_it_asked() {
    let mut rig = Rig::new();
    let mut told: Vec<_> = [10, 500, 70_000, 0].map(|ms| rig.lists("k", ms)).into();
    rig.now += 300 * MS; // who comes now has waited longer than two of them
    told.push(rig.lists("k", 450));
    let mut order = Vec::new();
    for _ in 0..5 {
        rig.seen("k", LIST, true);
        let woken = count_ready(&mut told);
        assert_eq!(woken.iter().filter(|woken| **woken).count(), 1, "one at a time");
        order.push(woken.iter().position(|woken| *woken).unwrap());
    }
    assert_eq!(order, [2, 1, 4, 0, 3]);
    assert_eq!(rig.room.sizes()[0], 0);
}

#[test]
fn the_next_one_is_woken_by_a_pop_or_when_the_first_did_not_come() {
    let mut rig = Rig::new();
    let mut told: Vec<_> = [3, 2, 1].map(|ms| rig.lists("k", ms)).into();
    rig.seen("k", LIST, false);
    assert_eq!(count_ready(&mut told), [true, false, false]);
    // More is pushed while the first one is on its way.
    rig.seen("k", LIST, false);
    assert_eq!(count_ready(&mut told), [false, false, false]);
    rig.seen("k", LIST, true);
    assert_eq!(count_ready(&mut told), [false, true, false]);
    assert_eq!(rig.room.due(), Some(rig.now + NEXT_AFTER));
    assert!(rig.pass(NEXT_AFTER - MS).is_empty());
    let again = rig.pass(MS);
    assert_eq!(again, [Waited::name(b"k")]);
    rig.seen("k", LIST, false);
    assert_eq!(count_ready(&mut told), [false, false, true]);
    assert_eq!(rig.pass(NEXT_AFTER), [Waited::name(b"k")]);
    assert_eq!(rig.room.sizes(), [0; 5]);
    assert_eq!(rig.room.due(), None);
}

#[test]
fn what_was_taken_by_others_wakes_nobody_and_holds_nobody_up() {
    let mut rig = Rig::new();
    let mut told: Vec<_> = [2, 1].map(|ms| rig.lists("k", ms)).into();
    rig.seen("k", LIST, false);
    assert_eq!(count_ready(&mut told), [true, false]);
    rig.seen("k", None, false); // by LPOP
    assert_eq!(count_ready(&mut told), [false, false]);
    rig.seen("k", LIST, false);
    assert_eq!(count_ready(&mut told), [false, true]);
    // Who comes while another one is on its way waits for what that leaves.
    let mut late = rig.lists("k", 0);
    rig.seen("k", LIST, false);
    assert!(late.try_recv().is_err());
    rig.seen("k", LIST, true);
    assert_eq!(late.try_recv(), ready("k"));
}

#[test]
fn types_and_keys_have_lines_of_their_own() {
    let mut rig = Rig::new();
    let mut zset = rig.enter(poll("k", Type::SortedSet, 900));
    let mut both = rig.lists("j k", 5);
    let mut one = rig.lists("k", 1);
    rig.seen("k", Some(Type::String), false);
    rig.seen("k", Some(Type::Hash), false);
    assert!(zset.try_recv().is_err() && both.try_recv().is_err());
    rig.seen("k", LIST, false);
    assert_eq!(both.try_recv(), ready("k"), "the key that came, not the first one");
    rig.seen("j", LIST, false);
    assert!(one.try_recv().is_err() && zset.try_recv().is_err());
    rig.seen("k", Some(Type::SortedSet), true);
    assert_eq!(zset.try_recv(), ready("k"));
    rig.seen("other", LIST, false);
    assert!(one.try_recv().is_err());
}

#[test]
fn a_poll_ends_in_time_and_who_is_gone_is_passed_over() {
    let mut rig = Rig::new();
    let mut short = rig.enter(Wait { max: 5 * MS, ..poll("k", Type::List, 9) });
    let gone = rig.lists("k", 8);
    let mut there = rig.lists("k j", 7);
    assert_eq!(rig.room.due(), Some(rig.now + 5 * MS));
    assert!(rig.pass(5 * MS).is_empty());
    assert_eq!(short.try_recv(), Ok(Told::Nothing));
    drop(gone);
    rig.seen("k", LIST, false);
    assert_eq!(there.try_recv(), ready("k"), "no time is lost with who cannot be told");
    let mut last = rig.lists("k", 0);
    rig.pass(WAIT_MAX - MS);
    assert!(last.try_recv().is_err());
    rig.pass(MS);
    assert_eq!(last.try_recv(), Ok(Told::Nothing));
    assert_eq!(rig.room.sizes(), [0; 5]);
}

#[test]
fn the_room_is_bounded_by_clients_and_by_bytes() {
    let mut rig = Rig::new();
    let mut told: Vec<_> = (0..WAITERS_MAX).map(|_| rig.lists("k", 0)).collect();
    assert_eq!(rig.lists("k", 9).try_recv(), Ok(Told::Full));
    told.truncate(WAITERS_MAX / 2);
    assert!(rig.lists("k", 9).try_recv().is_err(), "those who are gone have left");
    assert_eq!(rig.room.sizes()[0], WAITERS_MAX / 2 + 1);
    drop(told);

    let mut rig = Rig::new();
    let name = |number: usize| format!("{number:0>60000}");
    let mut told = Vec::new();
    for number in 0.. {
        let keys: Vec<Bytes> = (0..4).map(|part| key(&name(4 * number + part))).collect();
        let mut one = rig.enter(Wait { keys, ..poll("k", Type::List, 0) });
        if one.try_recv() == Ok(Told::Full) {
            break;
        }
        told.push(one);
    }
    let held: usize = told.len() * 4 * 60_000;
    assert!((ROOM_BYTES_MAX / 4..=ROOM_BYTES_MAX).contains(&held), "{held}");
    rig.pass(WAIT_MAX);
    assert!(told.iter_mut().all(|told| told.try_recv() == Ok(Told::Nothing)));
    assert_eq!(rig.room.sizes(), [0; 5]);
}

/// Whatever happens in whatever order: everybody is told once at most, by a key and type that it waits
/// for; nobody is left behind; and the overlay knows the same keys as the room.
#[test]
fn nobody_is_told_twice_and_nothing_is_left() {
    let mut state = 7u64;
    let mut roll = |sides: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) % sides
    };
    let names = ["a", "b", "c", "d"];
    for _ in 0..200 {
        let mut rig = Rig::new();
        let mut told: BTreeMap<usize, (Wait, oneshot::Receiver<Told>)> = BTreeMap::new();
        for step in 0..100 {
            match roll(6) {
                0 | 1 => {
                    let keys: Vec<&str> = names.into_iter().filter(|_| roll(2) == 0).collect();
                    let keys = if keys.is_empty() { "a".to_owned() } else { keys.join(" ") };
                    let ty = [Type::List, Type::SortedSet][roll(2) as usize];
                    let max = MS * (1 + roll(60) as u32);
                    let wait = Wait { max, ..poll(&keys, ty, roll(100) as u32) };
                    told.insert(step, (wait.clone(), rig.enter(wait)));
                }
                2 | 3 => {
                    let there = [None, LIST, Some(Type::SortedSet)][roll(3) as usize];
                    rig.seen(names[roll(4) as usize], there, roll(2) == 0);
                }
                4 => drop(rig.pass(MS * roll(30) as u32)),
                _ => {
                    let first = told.first_key_value().map(|(first, _)| *first);
                    first.filter(|_| roll(4) == 0).and_then(|first| told.remove(&first));
                }
            }
            told.retain(|_, (wait, told)| match told.try_recv() {
                Ok(Told::Ready(key)) => {
                    assert!(wait.keys.contains(&key));
                    false
                }
                Ok(told) => {
                    assert_eq!(told, Told::Nothing);
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                Err(error) => panic!("dropped without a word: {error}"),
            });
            let [waiters, lines, ends, ..] = rig.room.sizes();
            assert_eq!(waiters, ends);
            assert!(lines <= names.len() && waiters >= told.len());
        }
        rig.pass(WAIT_MAX);
        for (_, (_, mut told)) in told {
            assert_eq!(told.try_recv(), Ok(Told::Nothing));
        }
        assert_eq!(rig.room.sizes(), [0; 5]);
        assert!(rig.waited.is_empty());
    }
}

fn show(replies: &[Reply]) -> String {
    format!("{replies:?}")
}

impl Solo {
    fn run(&mut self, line: &str) -> String {
        let words = line.split(' ').map(key);
        show(&self.exec(vec![Command::parse(words.collect()).unwrap()]))
    }

    fn lists(&mut self, keys: &str, waited_ms: u32) -> oneshot::Receiver<Told> {
        self.wait(poll(keys, Type::List, waited_ms))
    }
}

#[test]
fn what_is_there_is_told_at_once_and_what_comes_when_it_comes() {
    for synced in [true, false] {
        let mut solo = Solo::new(synced);
        solo.run("RPUSH l x");
        solo.run("SET s x");
        assert_eq!(solo.lists("s l", 0).try_recv(), ready("l"));
        solo.run("LPOP l");
        let mut told = solo.lists("s l", 0);
        for line in ["SADD l x", "DEL l", "SET l x", "DEL l", "EXPIRE s 100", "RPUSH other x"] {
            solo.run(line);
            assert!(told.try_recv().is_err(), "{line}");
        }
        solo.run("RPUSH l x");
        assert_eq!(told.try_recv(), ready("l"));
    }
}

#[test]
fn every_way_in_which_a_list_can_appear_wakes() {
    for (before, line) in [
        ("DEL l", "LPUSH l x"),
        ("RPUSH m x", "LMOVE m l LEFT LEFT"),
        ("RPUSH m x", "RENAME m l"),
        ("RPUSH m x", "COPY m l"),
        ("SADD m x", "SORT m ALPHA STORE l"),
        ("RPUSH m x", "BRPOPLPUSH m l 0"),
        ("SET l x", "RESTORE l 0 DUMPED REPLACE"),
    ] {
        for synced in [true, false] {
            let mut solo = Solo::new(synced);
            solo.run("RPUSH source x");
            let dumped = solo.exec(vec![Command::parse(vec![key("DUMP"), key("source")]).unwrap()]);
            let Reply::Bulk(dumped) = dumped[0].clone() else { panic!("{dumped:?}") };
            solo.run(before);
            let mut told = solo.lists("l", 0);
            assert!(told.try_recv().is_err(), "{before}");
            let word = |word| if word == "DUMPED" { dumped.clone() } else { key(word) };
            let words = line.split(' ').map(word).collect();
            let reply = show(&solo.exec(vec![Command::parse(words).unwrap()]));
            assert_eq!(told.try_recv(), ready("l"), "{line}: {reply}");
        }
    }
}

#[test]
fn a_transaction_wakes_by_what_it_leaves() {
    let mut solo = Solo::new(true);
    let mut told = solo.lists("l j", 0);
    solo.transact(vec![], &["RPUSH l x", "LPOP l"]);
    assert!(told.try_recv().is_err());
    solo.transact(vec![], &["RPUSH l x", "RPUSH j x", "LPOP nokey"]);
    assert_eq!(told.try_recv(), ready("l"), "what was touched first");
}

#[test]
fn what_another_cluster_pushes_wakes() {
    let mut west = Solo::new(true);
    west.run("RPUSH l x");
    let effects = west.shipped(west.log.last().unwrap());
    let mut east = Solo::new(true);
    let mut told = east.lists("l", 0);
    east.merge(0, &effects);
    assert_eq!(told.try_recv(), ready("l"));
    assert!(east.run("BLPOP l 0").contains("b\"x\""));
}

#[test]
fn each_element_wakes_one_and_each_pop_the_next() {
    let mut solo = Solo::new(true);
    let mut told: Vec<_> = [5, 3, 4].map(|ms| solo.lists("l", ms)).into();
    solo.run("RPUSH l a b");
    assert_eq!(count_ready(&mut told), [true, false, false]);
    solo.run("RPUSH l c");
    assert_eq!(count_ready(&mut told), [false; 3], "the first one is on its way");
    assert!(solo.run("BLPOP l 0").contains("b\"a\""));
    assert_eq!(count_ready(&mut told), [false, false, true]);
    solo.pass(NEXT_AFTER);
    assert_eq!(count_ready(&mut told), [false, true, false], "it did not come");
    assert!(solo.run("BLPOP l 0").contains("b\"b\""));
    assert!(solo.run("BLPOP l 0").contains("b\"c\""));
    let mut last = solo.lists("l", 0);
    solo.pass(WAIT_MAX);
    assert_eq!(last.try_recv(), Ok(Told::Nothing));
}

#[test]
fn a_key_that_has_ended_is_not_there() {
    let mut solo = Solo::new(true);
    solo.run("RPUSH l x");
    solo.run("PEXPIRE l 50");
    solo.wall_ms += 100;
    let mut told = solo.lists("l", 0);
    assert!(told.try_recv().is_err());
    solo.run("RPUSH l y");
    assert_eq!(told.try_recv(), ready("l"));
    assert!(solo.run("BLPOP l 0").contains("b\"y\""));
}

#[test]
fn a_leader_that_leads_no_more_lets_go_of_all() {
    let mut solo = Solo::new(true);
    let mut told = solo.lists("l", 0);
    solo.restart();
    assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    let (answer, mut told) = oneshot::channel();
    let wait = poll("l", Type::List, 0);
    crate::group::Work::Wait { wait, answer }.refuse(Some("n2".into()), 3);
    assert_eq!(told.try_recv(), Ok(Told::NotLeader { leader: Some("n2".into()) }));
}

#[test]
fn polls_survive_the_wire_and_long_ones_do_not() {
    let request = WaitRequest { group: GroupId(4), wait: poll("a b", Type::SortedSet, 1234) };
    let bytes = request.encode();
    assert_eq!(WaitRequest::decode(&bytes).unwrap(), request);
    for end in 0..bytes.len() {
        assert!(WaitRequest::decode(&bytes.slice(..end)).is_err());
    }
    for wrong in [
        Wait { keys: vec![], ..request.wait.clone() },
        Wait { keys: vec![key("a"); WAIT_KEYS_MAX + 1], ..request.wait.clone() },
        Wait { max: WAIT_MAX + MS, ..request.wait.clone() },
    ] {
        let request = WaitRequest { wait: wrong, ..request.clone() };
        assert!(WaitRequest::decode(&request.encode()).is_err());
    }
}
