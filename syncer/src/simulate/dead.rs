//! Histories with a link that is dead while all others are well: what all have settled but one, which has
//! not heard of it. Each cluster does one thing to the same key, and soon nothing more; states travel only
//! against that link.

use super::commands::{KEYS, Mix};
use super::dice::Dice;
use super::world::{OFFSET_MAX_MS, Step, World};
use flotilla_topology::slot::Slot;
use std::collections::BTreeSet;

/// The key that all of them change.
const KEY: &str = KEYS[0];

/// Which link is dead, and what the clusters do.
#[derive(Debug, Clone, Copy)]
pub struct Dead {
    /// Who is not heard,
    pub from: usize,
    /// by whom.
    pub to: usize,
    before: Before,
}

/// What has happened before chance takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// The key is a list of one element, known to all: `from` sets that, unheard, `to` pops it and begins
    /// a set in its place. So a key may have a claim that is later than all that was done to it, and of
    /// which nothing else is left.
    EndedList,
    /// The key is a set of `to`, and a hash of `from` in its place, unheard. The third one lets that hash
    /// end, and when it has, `to` gives its set another end. So an end that has passed may be taken
    /// back where what it hid has not arrived yet.
    EndedUnheard,
}

impl Dead {
    /// One for a history of three clusters.
    pub fn new(dice: &mut Dice) -> Dead {
        let from = dice.roll(3);
        let to = (from + 1 + dice.roll(2)) % 3;
        let before = match dice.roll(100) {
            0..35 => Before::EndedList,
            35..45 => Before::EndedUnheard,
            _ => Before::Nothing,
        };
        Dead { from, to, before }
    }

    /// The one of the three that hears both.
    fn third(&self) -> usize {
        3 - self.from - self.to
    }

    /// Links over which little goes, by receiving and sending cluster, and how much, in percent.
    pub fn slow(&self, dice: &mut Dice) -> (BTreeSet<(usize, usize)>, usize) {
        let ended_list = self.before == Before::EndedList;
        let dead = (self.to, self.from);
        let late = (self.third(), self.to);
        let late = Some(late).filter(|_| ended_list && dice.chance(50));
        (late.into_iter().chain([dead]).collect(), if ended_list { 5 } else { 0 })
    }

    /// Steps until the faults end, and of those how many with writes.
    pub fn length(&self, dice: &mut Dice) -> (usize, usize) {
        let writes = match self.before {
            Before::Nothing => 20 + dice.roll(60),
            Before::EndedList => 5 + dice.roll(25),
            Before::EndedUnheard => 0,
        };
        (150 + dice.roll(350), writes)
    }

    /// What each cluster does.
    pub fn mixes(&self, dice: &mut Dice) -> Vec<Mix> {
        let mut mix = |cluster| match cluster {
            _ if self.before == Before::Nothing => Mix::of_one(dice),
            cluster if cluster == self.to => Mix::FILLS_SET,
            _ => Mix::RESTS,
        };
        (0..3).map(&mut mix).collect()
    }
}

impl World {
    /// What has happened before chance takes over.
    pub(super) fn before_it_dies(&mut self) -> Step {
        let Some(dead) = self.taste.dead else { return Ok(()) };
        self.faults = false;
        match dead.before {
            Before::Nothing => {}
            Before::EndedList => self.ended_list(dead)?,
            Before::EndedUnheard => self.ended_unheard(dead)?,
        }
        self.faults = true;
        Ok(())
    }

    /// The group of a cluster that has the key.
    fn home(&self, cluster: usize) -> (usize, usize) {
        (cluster, self.group_of(cluster, Slot::of(KEY.as_bytes())))
    }

    fn ended_list(&mut self, dead: Dead) -> Step {
        let (Dead { from, to, .. }, third) = (dead, dead.third());
        let (ahead, behind) = (self.home(from), self.home(to));
        self.command(ahead, KEY, &format!("RPUSH {KEY} 0"))?;
        self.settle(1)?;
        for (cluster, offset_ms) in [(from, OFFSET_MAX_MS as i64), (to, -(OFFSET_MAX_MS as i64))] {
            self.clusters[cluster].iter_mut().for_each(|group| group.offset_ms = offset_ms);
        }
        self.command(behind, KEY, &format!("LPOP {KEY}"))?;
        // It hears, and says, that the others are past that; of what one of them does then it knows nothing.
        self.now_ms += OFFSET_MAX_MS as u64 / 2;
        for (cluster, peer) in [(third, from), (third, to), (from, to)] {
            self.tick_cluster(cluster);
            self.carry_from(cluster, peer);
        }
        self.now_ms += OFFSET_MAX_MS as u64 / 2;
        self.command(ahead, KEY, &format!("LSET {KEY} 0 1"))?;
        // All that the third one needs to forget the list.
        self.tick_cluster(to);
        self.carry_from(to, from);
        self.carry_from(to, third);
        self.tick_cluster(from);
        self.carry_from(from, third);
        Ok(())
    }

    fn ended_unheard(&mut self, dead: Dead) -> Step {
        let (Dead { from, to, .. }, third) = (dead, dead.third());
        self.command(self.home(to), KEY, &format!("SADD {KEY} f"))?;
        self.tick_cluster(to);
        self.now_ms += 1;
        self.command(self.home(from), KEY, &format!("HSET {KEY} f 1"))?;
        self.tick_cluster(from);
        self.carry_from(to, third);
        self.carry_from(from, third);
        let end = self.now_ms + 2;
        self.command(self.home(third), KEY, &format!("PEXPIREAT {KEY} {end}"))?;
        self.now_ms = end + 1;
        // All are past the end, and tell the third one so.
        self.tick_cluster(third);
        for cluster in [to, from] {
            self.carry_from(third, cluster);
            self.tick_cluster(cluster);
            self.carry_from(cluster, third);
        }
        self.tick_cluster(third);
        let later = end + 20;
        self.command(self.home(to), KEY, &format!("PEXPIREAT {KEY} {later}"))
    }

    fn carry_from(&mut self, from: usize, to: usize) {
        self.carry_over(|route| (route.from, route.to) == (from, to));
    }

    fn tick_cluster(&mut self, cluster: usize) {
        (0..self.clusters[cluster].len()).for_each(|group| self.tick((cluster, group)));
    }
}
