//! A model of clusters, as far as an audit sees them: rows that the later stamp wins, tombstones and
//! ends, streams that keep their order and take their time, vectors, ticks, and collection of what is
//! stable. It shares no code with the real ones.

use crate::audit::pass::Part;
use bytes::Bytes;
use flotilla_node::group::digest::Look;
use flotilla_node::group::digest::look::{Cell, Cells};
use flotilla_topology::ids::ClusterId;
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::{Hlc, Stamp};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

pub const SLOTS: u16 = 4;
pub const KEYS: u32 = 24;

/// What the model tells wrongly, to see whether histories can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    None,
    /// The state digest is of what is visible only.
    VisibleOnly,
    /// Vectors say that everything has arrived.
    VectorsAhead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    stamp: Stamp,
    /// None: deleted.
    value: Option<u32>,
    /// When it ends.
    end_ms: u64,
}

/// By cluster, as everywhere here by index.
type Closed = BTreeMap<usize, Stamp>;

#[derive(Debug, Clone)]
struct Entry {
    stamp: Stamp,
    effect: Option<(u32, Row)>,
    vector: Closed,
    arrives_ms: u64,
}

#[derive(Debug, Default)]
struct Cluster {
    clock: Hlc,
    skew_ms: u64,
    rows: BTreeMap<u32, Row>,
    closed: Closed,
    /// What each of the others has said that it has.
    told: BTreeMap<usize, Closed>,
    moved: bool,
}

pub struct World {
    pub now_ms: u64,
    /// Nobody writes any more.
    pub quiet: bool,
    /// Nothing happens any more but time.
    pub still: bool,
    /// Nothing arrives at cluster 1 from cluster 0.
    pub cut: bool,
    clusters: Vec<Cluster>,
    streams: BTreeMap<(usize, usize), VecDeque<Entry>>,
    /// How likely a write is in a step.
    writes: f64,
    /// How long the ways are, each of them.
    delays_ms: BTreeMap<(usize, usize), u64>,
    /// These keys are written more often than others.
    hot: u32,
    /// Nobody writes it any more.
    lost: Option<u32>,
    lie: Lie,
}

pub fn slot_of(key: u32) -> Slot {
    Slot((key % u32::from(SLOTS)) as u16)
}

fn name(key: u32) -> Bytes {
    Bytes::from(format!("key:{key}"))
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl World {
    pub fn new(random: &mut StdRng, lie: Lie) -> World {
        let count: usize = random.random_range(2..=4);
        let mut delay = || [5, 60, 800, 2500][random.random_range(0..4)];
        let (all, each) = (delay(), [delay(), delay(), delay(), delay()]);
        let alike = random.random_bool(0.5);
        let ways = (0..count * count).map(|way| (way / count, way % count));
        let delay_ms = |(from, to)| if alike { all } else { each[(from + 2 * to) % 4] };
        let delays_ms = ways.map(|way| (way, delay_ms(way))).collect();
        let cluster = |_| Cluster { skew_ms: random.random_range(0..400), ..Cluster::default() };
        World {
            now_ms: 1_000_000,
            quiet: false,
            still: false,
            cut: false,
            clusters: (0..count).map(cluster).collect(),
            streams: BTreeMap::new(),
            writes: [0.003, 0.01, 0.1, 0.3][random.random_range(0..4)],
            delays_ms,
            hot: random.random_range(0..4),
            lost: None,
            lie,
        }
    }

    pub fn id(&self, cluster: usize) -> ClusterId {
        ClusterId(cluster as u8 + 1)
    }

    pub fn wall_ms(&self, cluster: usize) -> u64 {
        self.now_ms + self.clusters[cluster].skew_ms
    }

    fn others(&self, me: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.clusters.len()).filter(move |other| *other != me)
    }

    /// Something happens somewhere.
    pub fn step(&mut self, random: &mut StdRng) {
        self.now_ms += random.random_range(0..4);
        if self.still {
            return;
        }
        let at = random.random_range(0..self.clusters.len());
        if !self.quiet && random.random_bool(self.writes) {
            self.write(at, random);
        }
        for from in self.others(at) {
            let cut = self.cut && (from, at) == (0, 1);
            while !cut && self.arrive(from, at) {}
        }
        if random.random_bool(0.05) {
            self.collect(at);
        }
        if self.clusters[at].moved && random.random_bool(0.02) {
            self.tick(at, self.wall_ms(at));
        }
    }

    fn issue(&mut self, at: usize, wall_ms: u64) -> Stamp {
        let cluster = &mut self.clusters[at];
        cluster.clock = cluster.clock.next().max(Hlc::from_ms(wall_ms));
        Stamp { hlc: cluster.clock, cluster: ClusterId(at as u8 + 1) }
    }

    fn ship(&mut self, at: usize, stamp: Stamp, effect: Option<(u32, Row)>) {
        let vector = self.clusters[at].closed.clone();
        for other in self.others(at) {
            let arrives_ms = self.now_ms + self.delays_ms[&(at, other)];
            let entry = Entry { stamp, effect, vector: vector.clone(), arrives_ms };
            self.streams.entry((at, other)).or_default().push_back(entry);
        }
    }

    fn write(&mut self, at: usize, random: &mut StdRng) {
        let hot = self.hot > 0 && random.random_bool(0.7);
        let key = if hot { random.random_range(0..self.hot) } else { random.random_range(0..KEYS) };
        if self.lost == Some(key) {
            return;
        }
        let stamp = self.issue(at, self.wall_ms(at));
        let visible = self.clusters[at].rows.get(&key).is_some_and(|row| row.value.is_some());
        let ends = random.random_bool(0.3);
        let row = Row {
            stamp,
            value: (!visible || random.random_bool(0.5)).then(|| random.random()),
            end_ms: if ends { stamp.hlc.ms() + random.random_range(1..2000) } else { u64::MAX },
        };
        self.clusters[at].rows.insert(key, row);
        self.clusters[at].moved = true;
        self.ship(at, stamp, Some((key, row)));
    }

    fn tick(&mut self, at: usize, ms: u64) {
        let stamp = self.issue(at, ms);
        self.clusters[at].moved = false;
        self.ship(at, stamp, None);
    }

    /// Takes what has come all the way; false when nothing has.
    fn arrive(&mut self, from: usize, at: usize) -> bool {
        let stream = self.streams.entry((from, at)).or_default();
        let here = |entry: &mut Entry| entry.arrives_ms <= self.now_ms;
        let Some(Entry { stamp, effect, vector, .. }) = stream.pop_front_if(here) else {
            return false;
        };
        let cluster = &mut self.clusters[at];
        cluster.clock = cluster.clock.max(stamp.hlc);
        cluster.closed.insert(from, stamp);
        cluster.told.insert(from, vector);
        if let Some((key, row)) = effect {
            cluster.moved = true;
            let known = cluster.rows.entry(key).or_insert(row);
            if row.stamp > known.stamp {
                *known = row;
            }
        }
        true
    }

    /// What everybody has, and has said so: deletes, and what has ended by everybody's clock.
    fn collect(&mut self, at: usize) {
        let others: Vec<usize> = self.others(at).collect();
        let cluster = &mut self.clusters[at];
        let (closed, told, clock) = (&cluster.closed, &cluster.told, cluster.clock);
        let reached = |closed: &Closed, of: usize, stamp: Stamp| {
            closed.get(&of).is_some_and(|closed| *closed >= stamp)
        };
        cluster.rows.retain(|_, row| {
            let origin = usize::from(row.stamp.cluster.0) - 1;
            let here = origin == at || reached(closed, origin, row.stamp);
            let stable = here
                && others.iter().filter(|other| **other != origin).all(|other| {
                    told.get(other).is_some_and(|told| reached(told, origin, row.stamp))
                });
            let passed = |end_ms: u64| {
                let everywhere = |of: &usize| closed.get(of).is_some_and(|c| c.hlc.ms() >= end_ms);
                clock.ms() >= end_ms && others.iter().all(everywhere)
            };
            !(stable && (row.value.is_none() || passed(row.end_ms)))
        });
    }

    /// One side loses a key for good, or what the other one has of it.
    pub fn lose(&mut self, key: u32, side: usize) {
        self.lost = Some(key);
        let stamp = self.issue(1 - side, self.wall_ms(1 - side));
        let row = Row { stamp, value: Some(7), end_ms: u64::MAX };
        for at in 0..self.clusters.len() {
            if at != side {
                self.clusters[at].rows.insert(key, row);
            } else {
                self.clusters[at].rows.remove(&key);
            }
        }
        for entry in self.streams.values_mut().flatten() {
            entry.effect = entry.effect.filter(|(other, _)| *other != key);
        }
        self.ship(1 - side, stamp, None);
    }

    /// What the groups of a cluster show: one group in the first, two in the second.
    pub fn look(&mut self, at: usize, at_ms: u64, cells: &Cells) -> Vec<Part> {
        if self.clusters[at].clock < Hlc::from_ms(at_ms) && !self.still {
            self.tick(at, at_ms);
        }
        let half = Slot(SLOTS / 2);
        let ranges = match at {
            0 => vec![(Slot(0), Slot(SLOTS - 1))],
            _ => vec![(Slot(0), half), (Slot(half.0 + 1), Slot(SLOTS - 1))],
        };
        let of = |(first, last)| {
            let slots = SlotRange { first, last };
            Part { slots, look: self.shown(at, at_ms, &slots, cells) }
        };
        ranges.into_iter().map(of).collect()
    }

    fn shown(&self, at: usize, at_ms: u64, slots: &SlotRange, cells: &Cells) -> Look {
        let cluster = &self.clusters[at];
        let mut shown: BTreeMap<(Slot, u16), Cell> = BTreeMap::new();
        for (key, row) in &cluster.rows {
            let slot = slot_of(*key);
            if !slots.contains(slot) || !cells.slots.contains(slot) {
                continue;
            }
            let cell = shown.entry((slot, cells.bucket_of(&name(*key)))).or_default();
            let visible = row.value.is_some() && row.end_ms > at_ms;
            if visible {
                cell.sum = cell.sum.wrapping_add(u128::from(hash((key, row))));
                cell.keys += 1;
            }
            if visible || self.lie != Lie::VisibleOnly {
                cell.state = cell.state.wrapping_add(hash((key, row)));
                cell.rows += 1;
            }
        }
        let closed = |of: usize| match self.lie {
            Lie::VectorsAhead => Stamp { hlc: Hlc(u64::MAX), cluster: self.id(of) },
            _ => cluster.closed.get(&of).copied().unwrap_or(Stamp::ZERO),
        };
        Look {
            clock: cluster.clock,
            live: self.others(at).map(|other| self.id(other)).collect(),
            vector: self.others(at).map(|other| (self.id(other), closed(other))).collect(),
            unsettled: None,
            cells: shown,
        }
    }
}
