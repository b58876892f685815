//! Stories of single rules that a comparison with Redis cannot show.

use super::world::{World, show};
use crate::engine::keys;
use crate::eval;
use crate::model::Effect;
use flotilla_topology::slot::Slot;

fn both() -> [World; 2] {
    [World::new(1, true), World::new(1, false)]
}

/// Index rows that a group has, as (end, key).
fn index(world: &World) -> Vec<(u64, String)> {
    let rows = world.rows.keys().filter_map(|row| match keys::decode(row).unwrap() {
        keys::RowKey::Expiry { at, key, .. } => Some((at, String::from_utf8_lossy(&key).into())),
        _ => None,
    });
    rows.collect()
}

#[test]
fn a_key_ends_at_its_time_and_is_created_anew() {
    for mut world in both() {
        world.at(1000);
        world.cmd("HSET h f 1 g 2");
        assert_eq!(world.cmd("PEXPIREAT h 2000"), "1");
        assert_eq!(world.at(1999).cmd("HLEN h"), "2");
        assert_eq!(world.at(2000).cmd("HLEN h"), "0");
        assert_eq!(world.cmd("EXISTS h"), "0");
        assert_eq!(world.cmd("PEXPIREAT h 9000"), "0", "what has ended cannot be revived");
        assert_eq!(world.cmd("HSET h g 3"), "1");
        assert_eq!(world.cmd("HGETALL h"), "{\"g\"=\"3\"}");
        assert_eq!(world.cmd("TTL h"), "-1", "and has no expiry of its own");
        assert_eq!(world.cmd("HLEN h"), "1");
    }
}

#[test]
fn a_string_that_has_ended_counts_from_zero() {
    for mut world in both() {
        world.cmd("SET n 41 PXAT 100");
        assert_eq!(world.cmd("INCR n"), "42");
        assert_eq!(world.cmd("PEXPIRETIME n"), "100", "INCR keeps the expiry");
        assert_eq!(world.at(100).cmd("INCR n"), "1");
        assert_eq!(world.cmd("TTL n"), "-1");
        assert_eq!(world.cmd("APPEND n x"), "2");
        assert_eq!(world.cmd("GET n"), "\"1x\"");
    }
}

#[test]
fn the_expiry_index_follows_the_heads() {
    for mut world in both() {
        world.cmd("SET a 1 PXAT 5000");
        world.cmd("SET b 1 PXAT 6000");
        world.cmd("HSET h f v");
        world.cmd("PEXPIREAT h 4000");
        world.cmd("PEXPIREAT h 7000");
        let want = [(5000, "a".to_owned()), (6000, "b".to_owned()), (7000, "h".to_owned())];
        assert_eq!(index(&world), want);
        world.cmd("SET a 2");
        world.cmd("DEL b");
        world.cmd("PERSIST h");
        assert_eq!(index(&world), []);
    }
}

#[test]
fn what_has_ended_is_deleted_where_nothing_is_synced() {
    let mut world = World::new(1, false);
    for key in 0..10 {
        world.cmd(&format!("SET s{key} v PXAT {}", 100 + key));
        world.cmd(&format!("HSET h{key} f v"));
        world.cmd(&format!("PEXPIREAT h{key} {}", 200 + key));
    }
    world.cmd("SET stays v");
    let mut due = |ms, limit| world.at(ms).entry(|txn| eval::expire_due(txn, limit).unwrap()).0;
    assert_eq!((due(99, 5).deleted, due(104, 3).deleted), (0, 3));
    let rest = due(1000, 100);
    assert_eq!((rest.deleted, rest.more), (17, false));
    assert_eq!(world.cmd("GET stays"), "\"v\"");
    assert_eq!(world.rows.len(), 1, "neither heads, fields nor index rows are left");
}

#[test]
fn without_sync_nothing_is_left_of_what_is_deleted() {
    let mut world = World::new(1, false);
    for line in ["HSET h f 1 g 2", "DEL h", "HSET h f 1", "HDEL h f", "SET s 1", "GETDEL s"] {
        world.cmd(line);
    }
    world.cmd("HSET h f 1");
    world.cmd("SET h string");
    world.cmd("DEL h");
    assert!(world.rows.is_empty(), "{:?}", world.rows);
}

/// A reader that finds a key ended asks for a tick, unless the log already knows.
#[test]
fn a_key_that_is_due_asks_for_a_tick_once() {
    for mut world in both() {
        world.cmd("SET k v PXAT 50");
        assert!(!world.needs_tick);
        assert_eq!(world.at(60).cmd("GET k"), "nil");
        assert!(world.needs_tick);
        assert_eq!(world.cmd("GET k"), "nil");
        assert!(!world.needs_tick, "the clock of the first answer is applied");
        assert_eq!(world.cmd("DEL k"), "0");
    }
}

#[test]
fn an_increment_ships_a_sum_and_a_value_absorbs_it() {
    let mut world = World::new(1, true);
    world.cmd("SET n 10");
    let (_, effects) = world.ship("INCRBY n 5");
    let [Effect::Head { head, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert!(head.string.register.is_none() && head.string.sums.len() == 1);
    assert!(head.claim.is_some() && head.floor.is_none(), "no floor: others' sums stay");
    let (reply, effects) = world.ship("APPEND n 0");
    assert_eq!(show(&reply), "3");
    let [Effect::Head { head, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert!(head.string.sums.is_empty() && head.string.resets.len() == 1);
    assert_eq!(world.cmd("INCR n"), "151");
}

#[test]
fn reads_and_refusals_ship_nothing() {
    let mut world = World::new(1, true);
    world.cmd("HSET h f 1");
    for line in [
        "GET x",
        "GET h",
        "INCR h",
        "SETNX h v",
        "HDEL h none",
        "DEL none",
        "TTL h",
        "EXPIRE none 10",
        "PERSIST h",
        "HINCRBY h f x",
        "SET k v XX",
        "EXPIRE h 10 XX",
    ] {
        let (reply, effects) = world.ship(line);
        assert!(effects.is_empty(), "{line}: {reply:?}");
    }
}

#[test]
fn a_hash_that_is_emptied_keeps_no_expiry_for_the_next() {
    for mut world in both() {
        world.cmd("HSET h f 1");
        world.cmd("PEXPIREAT h 90000");
        world.cmd("HDEL h f");
        assert_eq!(world.cmd("TYPE h"), "none");
        world.cmd("HSET h f 2");
        assert_eq!(world.cmd("TTL h"), "-1");
    }
}

#[test]
fn a_value_that_is_too_long_is_refused() {
    let mut world = World::new(1, true);
    let big = vec![b'x'; eval::VALUE_BYTES_MAX];
    assert_eq!(show(&world.run(&[b"SET", b"k", &big]).0), "OK");
    let appended = show(&world.run(&[b"APPEND", b"k", b"y"]).0);
    assert_eq!(appended, "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    let bigger = vec![b'x'; eval::VALUE_BYTES_MAX + 1];
    assert!(show(&world.run(&[b"SET", b"k", &bigger]).0).starts_with("ERR a command may write"));
    assert_eq!(world.cmd("STRLEN k"), eval::VALUE_BYTES_MAX.to_string());
    assert_eq!(Slot::of(b"k"), Slot::of(b"{k}2"));
}

#[test]
fn compare_and_set_writes_only_over_what_the_client_expects() {
    for mut world in both() {
        for (line, answer) in [
            ("CAS k a b", "-1"),
            ("SET k a EX 100", "OK"),
            ("CAS k x b", "0"),
            ("CAS k a b", "1"),
            ("GET k", "\"b\""),
            ("TTL k", "-1"),
            ("CAS k b c EX 100", "1"),
            ("TTL k", "100"),
            ("CAS k c d KEEPTTL", "ERR syntax error"),
            ("CAS k c d EX 1 EX 2", "ERR syntax error"),
            ("CAS k c d EX 0", "ERR invalid expire time in 'cas' command"),
            ("CAD k x", "0"),
            ("CAD k c", "1"),
            ("CAD k c", "-1"),
            ("DELIFEQ k c", "0"),
            ("SET k c", "OK"),
            ("DELIFEQ k x", "0"),
            ("DELIFEQ k c", "1"),
            ("EXISTS k", "0"),
            ("DELEX k IFNE x", "0"),
            ("SET k c", "OK"),
            ("DELEX k IFEQ x", "0"),
            ("DELEX k ifne c", "0"),
            ("DELEX k IFNE x", "1"),
            ("SET k c", "OK"),
            ("DELEX k IFEQ c", "1"),
            ("DELEX k FOO c", "ERR syntax error"),
            ("HSET h f v", "1"),
            ("DELEX h", "1"),
            ("EXISTS h k", "0"),
        ] {
            assert_eq!(world.cmd(line), answer, "{line}");
        }
        world.cmd("HSET h f v");
        for line in ["CAS h a b", "CAD h a", "DELIFEQ h a", "DELEX h IFEQ a", "SET h a IFEQ b"] {
            assert!(world.cmd(line).starts_with("WRONGTYPE "), "{line}");
        }
    }
}

#[test]
fn set_compares_as_redis_8_4_does() {
    for mut world in both() {
        for (line, answer) in [
            ("SET k v IFEQ a", "nil"),
            ("EXISTS k", "0"),
            ("SET k v IFNE a", "OK"),
            ("SET k w IFEQ a", "nil"),
            ("SET k w IFEQ a GET", "\"v\""),
            ("GET k", "\"v\""),
            ("SET k w GET IFEQ v EX 100", "\"v\""),
            ("TTL k", "100"),
            ("SET k w ifne w", "nil"),
            ("SET k x IFNE v KEEPTTL", "OK"),
            ("TTL k", "100"),
            ("SET k x IFEQ", "ERR syntax error"),
            ("SET k x IFEQ x NX", "ERR syntax error"),
            ("SET k x XX IFEQ x", "ERR syntax error"),
            ("SET k x IFEQ x IFNE y", "ERR syntax error"),
        ] {
            assert_eq!(world.cmd(line), answer, "{line}");
        }
    }
}
