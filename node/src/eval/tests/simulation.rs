//! Clusters with one to three groups run random commands and exchange what they ship, in random
//! order between streams and with repeats. In the end all must show the same; and at every step a
//! command must do what it does in a namespace that is not synced, which Redis itself has judged.
//! Some groups begin unsynced and are switched on under way: the full state is then the first thing that
//! they ship.

use super::redis::Dice;
use super::world::World;
use crate::model::Effect;
use flotilla_topology::slot::{Slot, SlotRange};

/// Histories of an ordinary run; `FLOTILLA_MERGE_SEEDS=100000` hunts.
const SEEDS: u64 = 1500;
const STEPS: usize = 90;
const KEYS: [&str; 3] = ["a", "b", "c"];
const FIELDS: [&str; 2] = ["f", "g"];

struct Group {
    world: World,
    slots: SlotRange,
    /// Effects of each entry that was born here.
    log: Vec<Vec<Effect>>,
    /// Entries taken, per cluster and source group.
    cursors: Vec<Vec<usize>>,
}

struct Simulation {
    dice: Dice,
    clusters: Vec<Vec<Group>>,
    skew: Vec<u64>,
    now: u64,
    history: Vec<String>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut dice = Dice::new(seed);
        let count = 2 + dice.roll(2);
        let groups: Vec<u32> = (0..count).map(|_| 1 + dice.roll(3) as u32).collect();
        let born_synced: Vec<bool> = (0..count).map(|_| dice.roll(3) > 0).collect();
        let group = |cluster: usize, index: u32, flight_max: usize| {
            let mut world = World::new(cluster as u8 + 1, born_synced[cluster]);
            world.flight_max = flight_max;
            let slots = SlotRange::partition(index, groups[cluster]);
            let cursors = groups.iter().map(|count| vec![0; *count as usize]).collect();
            Group { world, slots, log: Vec::new(), cursors }
        };
        let mut clusters = Vec::new();
        for (cluster, count) in groups.iter().enumerate() {
            let indices = 0..*count;
            clusters.push(indices.map(|index| group(cluster, index, dice.roll(3))).collect());
        }
        let skew = (0..count).map(|_| dice.roll(6) as u64).collect();
        Simulation { dice, clusters, skew, now: 10, history: Vec::new() }
    }

    fn command(&mut self) -> (&'static str, String) {
        let key = KEYS[self.dice.roll(KEYS.len())];
        let field = FIELDS[self.dice.roll(FIELDS.len())];
        let value = self.dice.roll(40);
        let end = self.now + 1 + self.dice.roll(12) as u64;
        let line = match self.dice.roll(22) {
            0 => format!("SET {key} {value}"),
            1 => format!("SET {key} {value} PXAT {end}"),
            2 => format!("SET {key} {value} KEEPTTL"),
            3 => format!("SET {key} {value} NX"),
            4 | 5 => format!("INCRBY {key} {}", value as i64 - 20),
            6 => format!("APPEND {key} {value}"),
            7 | 8 => format!("DEL {key}"),
            9 => format!("GETEX {key} PXAT {end}"),
            10..=11 => format!("HSET {key} {field} {value}"),
            12 => format!("HSET {key} {field} {value} x{value} {value}"),
            13 | 14 => format!("HDEL {key} {field}"),
            15 | 16 => format!("HINCRBY {key} {field} {}", value as i64 - 20),
            17..=19 => format!("PEXPIREAT {key} {end}"),
            20 => format!("PERSIST {key}"),
            _ => format!("GETDEL {key}"),
        };
        (key, line)
    }

    /// One entry of one to three commands in one group.
    fn write(&mut self) {
        let cluster = self.dice.roll(self.clusters.len());
        let index = self.dice.roll(self.clusters[cluster].len());
        let ms = self.now + self.skew[cluster];
        self.clusters[cluster][index].world.at(ms).begin();
        for _ in 0..1 + self.dice.roll(3) {
            let (key, line) = self.command();
            let group = &mut self.clusters[cluster][index];
            if !group.slots.contains(Slot::of(key.as_bytes())) {
                continue;
            }
            let before = look(&mut group.world, key);
            let reply = group.world.act_line(&line);
            let at = group.world.clock.ms();
            let after = look(&mut group.world, key);
            self.history.push(format!("{cluster}.{index} @{at} {line} -> {reply} {after:?}"));
            let want = unsynced(&before, at, key, &line);
            assert_eq!((reply, after), want, "{}", self.history.join("\n"));
        }
        let group = &mut self.clusters[cluster][index];
        let effects = group.world.commit();
        group.log.push(effects);
    }

    fn is_synced(&self, (cluster, index): (usize, usize)) -> bool {
        self.clusters[cluster][index].world.synced.is_on()
    }

    /// Switches sync on in a group: what it holds is the first thing that it ships.
    fn switch_on(&mut self, (cluster, index): (usize, usize)) {
        let ms = self.now + self.skew[cluster];
        let group = &mut self.clusters[cluster][index];
        let before: Vec<_> = KEYS.map(|key| look(group.world.at(ms), key)).to_vec();
        let stamp = group.world.switch_on();
        group.log = vec![group.world.state()];
        let after: Vec<_> = KEYS.map(|key| look(&mut group.world, key)).to_vec();
        self.history.push(format!("{cluster}.{index} @{stamp} switched on: {after:?}"));
        assert_eq!(after, before, "{}", self.history.join("\n"));
        check_counts(&mut self.clusters[cluster][index].world);
    }

    fn switch_some_on(&mut self) {
        let cluster = self.dice.roll(self.clusters.len());
        let index = self.dice.roll(self.clusters[cluster].len());
        if !self.is_synced((cluster, index)) {
            self.switch_on((cluster, index));
        }
    }

    /// Delivers some of one source group's entries to one target group.
    fn deliver(&mut self, to: (usize, usize), from: (usize, usize), all: bool) {
        if !self.is_synced(to) || !self.is_synced(from) {
            return;
        }
        let log = &self.clusters[from.0][from.1].log;
        let cursor = self.clusters[to.0][to.1].cursors[from.0][from.1];
        let start = cursor - self.dice.roll(cursor.min(3) + 1);
        let left = log.len() - cursor;
        let end = if all { log.len() } else { cursor + self.dice.roll(left.min(4) + 1) };
        let slots = self.clusters[to.0][to.1].slots;
        // What lies at or below the cursor is skipped, entry by entry.
        let fresh = log[start..end].iter().skip(cursor - start);
        let effects: Vec<Effect> =
            fresh.flatten().filter(|effect| slots.contains(effect.slot())).cloned().collect();
        let group = &mut self.clusters[to.0][to.1];
        group.cursors[from.0][from.1] = end;
        if !effects.is_empty() {
            group.world.take(&effects);
            check_counts(group.world.at(self.now));
            self.history.push(format!("{to:?} <- {from:?} up to {end}"));
        }
        if self.dice.roll(8) == 0 {
            // A repeat that the cursor would have stopped changes nothing that can be seen.
            let ms = self.now;
            let before = group.world.digest(ms);
            group.world.take(&effects);
            assert_eq!(group.world.digest(ms), before, "{}", self.history.join("\n"));
        }
    }

    fn deliver_some(&mut self) {
        let to = self.dice.roll(self.clusters.len());
        let from = self.dice.roll(self.clusters.len());
        if from != to {
            let source = self.dice.roll(self.clusters[from].len());
            let target = self.dice.roll(self.clusters[to].len());
            self.deliver((to, target), (from, source), false);
        }
    }

    fn settle(&mut self) {
        let groups = |clusters: &[Vec<Group>]| -> Vec<(usize, usize)> {
            let each = clusters.iter().enumerate();
            each.flat_map(|(c, groups)| (0..groups.len()).map(move |g| (c, g))).collect()
        };
        let mut pairs = Vec::new();
        for group in groups(&self.clusters) {
            if !self.is_synced(group) {
                self.switch_on(group);
            }
        }
        for to in groups(&self.clusters) {
            pairs.extend(groups(&self.clusters).into_iter().map(|from| (to, from)));
        }
        while !pairs.is_empty() {
            let (to, from) = pairs.swap_remove(self.dice.roll(pairs.len()));
            if to.0 != from.0 {
                self.deliver(to, from, true);
            }
        }
    }

    /// Digests of all slots of a cluster at `ms`.
    fn digest(&mut self, cluster: usize, ms: u64) -> Vec<crate::eval::SlotDigest> {
        self.clusters[cluster].iter_mut().flat_map(|group| group.world.digest(ms)).collect()
    }

    fn run(mut self, seed: u64) {
        for _ in 0..STEPS {
            self.now += self.dice.roll(3) as u64 / 2;
            match self.dice.roll(16) {
                0..10 => self.write(),
                10 => self.switch_some_on(),
                _ => self.deliver_some(),
            }
        }
        self.settle();
        let clocks = self.clusters.iter().flatten().map(|group| group.world.clock.ms());
        let now = clocks.max().unwrap_or(0);
        for ms in [now, now + 1, now + 5, now + 100] {
            let first = self.digest(0, ms);
            for cluster in 1..self.clusters.len() {
                let digest = self.digest(cluster, ms);
                let history = self.history.join("\n");
                assert_eq!(digest, first, "seed {seed}, cluster {cluster} at {ms}\n{history}");
            }
        }
    }
}

/// What a client can see of a key: type, value or fields, number of fields, end.
fn look(world: &mut World, key: &str) -> Vec<String> {
    let ty = world.read(&format!("TYPE {key}"));
    let mut seen = match ty.as_str() {
        "string" => vec![world.read(&format!("GET {key}"))],
        "hash" => vec![world.read(&format!("HGETALL {key}")), world.read(&format!("HLEN {key}"))],
        _ => vec![],
    };
    seen.push(world.read(&format!("PEXPIRETIME {key}")));
    seen.insert(0, ty);
    seen
}

/// The number of fields that HLEN knows is the number of fields that there are.
fn check_counts(world: &mut World) {
    for key in KEYS {
        if let [ty, fields, count, _] = &look(world, key)[..] {
            let fields = fields.matches('=').count();
            assert_eq!((ty.as_str(), fields.to_string()), ("hash", count.clone()), "{key}");
        }
    }
}

/// What a command does to a key that is seen as `before`, where nothing is synced.
fn unsynced(before: &[String], ms: u64, key: &str, line: &str) -> (String, Vec<String>) {
    let mut world = World::new(1, false);
    let bare = |text: &str| text.replace(['"', '{', '}'], "");
    match before[0].as_str() {
        "string" => {
            world.cmd(&format!("SET {key} {}", bare(&before[1])));
        }
        "hash" => {
            world.cmd(&format!("HSET {key} {}", bare(&before[1]).replace('=', " ")));
        }
        _ => {}
    }
    if let Some(end) = before.last().filter(|end| !end.starts_with('-')) {
        world.cmd(&format!("PEXPIREAT {key} {end}"));
    }
    let reply = world.at(ms).cmd(line);
    let after = look(&mut world, key);
    (reply, after)
}

#[test]
fn clusters_agree_and_every_command_does_what_it_says() {
    let seeds = std::env::var("FLOTILLA_MERGE_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 1..=seeds.unwrap_or(SEEDS) {
        Simulation::new(seed).run(seed);
    }
}
