//! Stories of what Redis as the oracle cannot show: limits, what is left to chance, pages of a hash,
//! and keys under other names between clusters.

use super::world::{World, elements, show};
use crate::eval::VALUE_BYTES_MAX;
use crate::resp::Reply;
use std::collections::BTreeSet;

fn both() -> [World; 2] {
    [World::new(1, true), World::new(1, false)]
}

#[test]
fn nothing_is_made_beyond_the_limit_of_a_value() {
    let bytes = VALUE_BYTES_MAX;
    let too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    for mut world in both() {
        for line in [
            format!("SETRANGE k {bytes} x"),
            format!("SETBIT k {} 1", bytes * 8),
            format!("BITFIELD k SET u8 {} 1", bytes * 8 - 7),
            format!("BITFIELD k INCRBY u8 #{bytes} 1"),
        ] {
            assert_eq!(world.cmd(&line), too_long, "{line}");
        }
        assert_eq!(world.cmd("EXISTS k"), "0");
        assert_eq!(world.cmd(&format!("GETBIT k {}", bytes * 8)), "0");
        assert_eq!(world.cmd(&format!("SETBIT k {} 1", bytes * 8 - 1)), "0");
        assert_eq!(world.cmd("STRLEN k"), bytes.to_string());
        assert_eq!(world.cmd("BITCOUNT k"), "1");
        assert_eq!(world.cmd("BITPOS k 1"), (bytes * 8 - 1).to_string());
    }
}

#[test]
fn a_table_of_lcs_is_bounded() {
    let mut world = World::new(1, false);
    world.cmd("SETRANGE a 4095 x");
    world.cmd("SETRANGE b 4095 y");
    assert_eq!(world.cmd("LCS a b LEN"), "4095");
    world.cmd("APPEND a x");
    assert_eq!(world.cmd("LCS a b LEN"), {
        "ERR LCS of these values would need a table of 16789506 cells, more than 16785409: compare \
         shorter values"
    });
}

#[test]
fn a_rename_takes_all_along_and_leaves_nothing() {
    for mut world in both() {
        world.cmd("HSET h f 1 g 2");
        world.cmd("HINCRBY h n 5");
        world.cmd("PEXPIREAT h 5000");
        world.cmd("HSET t old 1");
        assert_eq!(world.cmd("RENAME h t"), "OK");
        assert_eq!(world.cmd("HGETALL t"), "{\"f\"=\"1\" \"g\"=\"2\" \"n\"=\"5\"}");
        assert_eq!(world.cmd("HLEN t"), "3");
        assert_eq!(world.cmd("PEXPIRETIME t"), "5000");
        assert_eq!(world.cmd("EXISTS h"), "0");
        assert_eq!(world.cmd("HINCRBY t n 1"), "6", "a counter goes on");
        assert_eq!(world.cmd("SET s v"), "OK");
        assert_eq!(world.cmd("COPY s t"), "0");
        assert_eq!(world.cmd("COPY s t REPLACE"), "1");
        assert_eq!(world.cmd("GET t"), "\"v\"");
        assert_eq!(world.cmd("TTL t"), "-1", "the source had none");
        let no_db = "ERR COPY has no option DB here: a key is copied within its namespace";
        assert_eq!(world.cmd("COPY s t DB 0"), no_db);
        assert_eq!(world.cmd("COPY s t DB 1"), "ERR DB index is out of range");
    }
}

#[test]
fn a_key_that_is_too_large_is_not_renamed() {
    let mut world = World::new(1, false);
    let value = "x".repeat(11 << 20);
    world.cmd(&format!("HSET h f {value}"));
    assert_eq!(world.cmd("RENAME h t"), "OK");
    world.cmd(&format!("HSET t g {value}"));
    let refused = world.cmd("RENAME t h");
    assert!(refused.starts_with("ERR 'rename' of this key would write more than"), "{refused}");
    assert_eq!((world.cmd("HLEN t"), world.cmd("EXISTS h")), ("2".into(), "0".into()));
}

/// Both sides have the same in the end, whatever came first, and a later write stays at its place.
#[test]
fn a_rename_merges_as_a_delete_and_an_overwrite() {
    for later in [false, true] {
        let (mut a, mut b) = (World::new(1, true), World::new(2, true));
        let (_, first) = a.ship("HSET h f 1 g 2");
        b.take(&first);
        let ours = a.at(if later { 100 } else { 200 }).ship("RENAME h t").1;
        let theirs = b.at(if later { 200 } else { 100 }).ship("HSET h g 3").1;
        a.take(&theirs);
        b.take(&ours);
        for world in [&mut a, &mut b] {
            assert_eq!(world.cmd("HGETALL t"), "{\"f\"=\"1\" \"g\"=\"2\"}");
            assert_eq!(world.cmd("HGETALL h"), if later { "{\"g\"=\"3\"}" } else { "{}" });
        }
        assert_eq!(a.digest(1000), b.digest(1000));
    }
}

#[test]
fn the_later_sketch_and_the_later_bits_win_as_a_whole() {
    let (mut a, mut b) = (World::new(1, true), World::new(2, true));
    let ours = a.at(100).ship("PFADD p x y").1;
    let theirs = b.at(200).ship("PFADD p z").1;
    let bits = a.at(300).ship("SETBIT k 1 1").1;
    let others = b.at(400).ship("SETBIT k 2 1").1;
    a.take(&theirs);
    a.take(&others);
    b.take(&ours);
    b.take(&bits);
    for world in [&mut a, &mut b] {
        assert_eq!(world.cmd("PFCOUNT p"), "1");
        assert_eq!(world.cmd("BITCOUNT k"), "1");
    }
    assert_eq!(a.digest(1000), b.digest(1000));
}

#[test]
fn fields_by_chance_are_fields_of_the_hash() {
    for mut world in both() {
        let all: BTreeSet<String> = (0..50).map(|field| format!("f{field}")).collect();
        for field in &all {
            world.cmd(&format!("HSET h {field} v{field}"));
        }
        let mut ask = |line: &str| {
            world.chance += 1;
            world.ship(line).0
        };
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            let some = elements(&ask("HRANDFIELD h 7"));
            let distinct: BTreeSet<String> = some.iter().cloned().collect();
            assert_eq!((some.len(), distinct.len()), (7, 7), "each once");
            assert!(distinct.is_subset(&all));
            let repeated = elements(&ask("HRANDFIELD h -70"));
            assert!(repeated.len() == 70 && repeated.iter().all(|field| all.contains(field)));
            seen.extend(some);
            seen.extend(repeated);
        }
        assert_eq!(seen, all, "each has its chance");
        let Reply::Pairs(pairs) = ask("HRANDFIELD h -3 WITHVALUES") else { panic!("pairs") };
        for (name, value) in pairs {
            assert_eq!(show(&value), show(&name).replacen('f', "vf", 1));
        }
        assert_eq!(show(&ask("HRANDFIELD h -9000000")), {
            "ERR the reply is larger than 48 MiB: ask for fewer keys or fields at once"
        });
    }
}

#[test]
fn random_keys_are_keys_that_exist() {
    for mut world in both() {
        assert_eq!(world.cmd("RANDOMKEY"), "nil");
        for key in 0..20 {
            world.cmd(&format!("SET k{key} v"));
            world.cmd(&format!("SET gone{key} v"));
            world.cmd(&format!("DEL gone{key}"));
        }
        let seen: BTreeSet<String> = (0..600)
            .map(|_| {
                world.chance += 1;
                world.cmd("RANDOMKEY")
            })
            .collect();
        let all: BTreeSet<String> = (0..20).map(|key| format!("\"k{key}\"")).collect();
        assert_eq!(seen, all);
    }
}

#[test]
fn what_object_tells() {
    let mut world = World::new(1, true);
    world.cmd("SET n 12");
    world.cmd("SET s x");
    world.cmd("SETRANGE l 44 x");
    world.cmd("HSET h f v");
    let encoding = |world: &mut World, key: &str| world.cmd(&format!("OBJECT ENCODING {key}"));
    let all = ["n", "s", "l", "h"].map(|key| encoding(&mut world, key));
    assert_eq!(all, ["\"int\"", "\"embstr\"", "\"raw\"", "\"listpack\""]);
    world.cmd(&format!("HSET h g {}", "v".repeat(65)));
    assert_eq!(encoding(&mut world, "h"), "\"hashtable\"");
    world.cmd("RPUSH list x");
    world.cmd("SADD set 1 2");
    world.cmd("ZADD z 1 m");
    let all = ["list", "set", "z"].map(|key| encoding(&mut world, key));
    assert_eq!(all, ["\"quicklist\"", "\"intset\"", "\"listpack\""]);
    world.cmd("SADD set x");
    world.cmd(&format!("ZADD z 1 {}", "m".repeat(65)));
    let all = ["set", "z"].map(|key| encoding(&mut world, key));
    assert_eq!(all, ["\"hashtable\"", "\"skiplist\""]);
    assert_eq!(world.cmd("OBJECT REFCOUNT n"), "1");
    let line = "ERR unknown subcommand 'IDLETIME': no access times are kept";
    assert_eq!(world.cmd("OBJECT IDLETIME n"), line);
    assert!(world.cmd("OBJECT FREQ n").starts_with("ERR An LFU maxmemory policy is not selected"));
}

#[test]
fn keys_of_a_group_are_those_of_its_slots() {
    use flotilla_topology::slot::SlotRange;
    let mut world = World::new(1, true);
    world.cmd("SET k v"); // slot 7629
    world.cmd("SET a v"); // slot 15495
    world.slots = SlotRange::partition(0, 2);
    assert_eq!(world.cmd("KEYS *"), "[\"k\"]");
    assert_eq!(world.cmd("RANDOMKEY"), "\"k\"");
    world.slots = SlotRange::partition(1, 2);
    assert_eq!(world.cmd("KEYS ?"), "[\"a\"]");
    assert_eq!(world.cmd("KEYS k"), "[]");
    assert_eq!(world.cmd("RANDOMKEY"), "\"a\"");
}
