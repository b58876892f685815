//! Histories with a link that is dead while all others are well: what all have settled but one, which has
//! not heard of it. Each cluster does one thing to the same key, and soon nothing more; states travel only
//! against that link.

use super::commands::{KEYS, Mix};
use super::dice::Dice;
use super::world::{OFFSET_MAX_MS, Step, World};
use flotilla_topology::slot::Slot;
use std::collections::BTreeSet;

/// Which link is dead, and what the clusters do.
#[derive(Debug, Clone, Copy)]
pub struct Dead {
    /// Who is not heard,
    pub from: usize,
    /// by whom.
    pub to: usize,
    /// The key is a list of one element, known to all: `from` sets that, unheard, `to` pops it and begins
    /// a set in its place. So a key may have a claim that is later than all that was done to it, and of
    /// which nothing else is left.
    ended_list: bool,
}

impl Dead {
    /// One for a history of three clusters.
    pub fn new(dice: &mut Dice) -> Dead {
        let from = dice.roll(3);
        let to = (from + 1 + dice.roll(2)) % 3;
        Dead { from, to, ended_list: dice.chance(35) }
    }

    /// The one of the three that hears both.
    fn third(&self) -> usize {
        3 - self.from - self.to
    }

    /// Links over which little goes, by receiving and sending cluster, and how much, in percent.
    pub fn slow(&self, dice: &mut Dice) -> (BTreeSet<(usize, usize)>, usize) {
        let dead = (self.to, self.from);
        let late = (self.third(), self.to);
        let late = Some(late).filter(|_| self.ended_list && dice.chance(50));
        (late.into_iter().chain([dead]).collect(), if self.ended_list { 5 } else { 0 })
    }

    /// Steps until the faults end, and of those how many with writes.
    pub fn length(&self, dice: &mut Dice) -> (usize, usize) {
        let writes = if self.ended_list { 5 + dice.roll(25) } else { 20 + dice.roll(60) };
        (150 + dice.roll(350), writes)
    }

    /// What each cluster does.
    pub fn mixes(&self, dice: &mut Dice) -> Vec<Mix> {
        let mut mix = |cluster| match cluster {
            _ if !self.ended_list => Mix::of_one(dice),
            cluster if cluster == self.to => Mix::FILLS_SET,
            _ => Mix::RESTS,
        };
        (0..3).map(&mut mix).collect()
    }
}

impl World {
    /// What has happened before the link dies.
    pub(super) fn before_it_dies(&mut self) -> Step {
        let Some(dead) = self.taste.dead.filter(|dead| dead.ended_list) else { return Ok(()) };
        let (Dead { from, to, .. }, third) = (dead, dead.third());
        let key = KEYS[0];
        let home =
            |world: &World, cluster| (cluster, world.group_of(cluster, Slot::of(key.as_bytes())));
        let (ahead, behind) = (home(self, from), home(self, to));
        self.faults = false;
        self.command(ahead, key, &format!("RPUSH {key} 0"))?;
        self.settle(1)?;
        for (cluster, offset_ms) in [(from, OFFSET_MAX_MS as i64), (to, -(OFFSET_MAX_MS as i64))] {
            self.clusters[cluster].iter_mut().for_each(|group| group.offset_ms = offset_ms);
        }
        self.command(behind, key, &format!("LPOP {key}"))?;
        // It hears, and says, that the others are past that; of what one of them does then it knows nothing.
        self.now_ms += OFFSET_MAX_MS as u64 / 2;
        for (cluster, peer) in [(third, from), (third, to), (from, to)] {
            self.tick_cluster(cluster);
            self.carry_from(cluster, peer);
        }
        self.now_ms += OFFSET_MAX_MS as u64 / 2;
        self.command(ahead, key, &format!("LSET {key} 0 1"))?;
        // All that the third one needs to forget the list.
        self.tick_cluster(to);
        self.carry_from(to, from);
        self.carry_from(to, third);
        self.tick_cluster(from);
        self.carry_from(from, third);
        self.faults = true;
        Ok(())
    }

    fn carry_from(&mut self, from: usize, to: usize) {
        self.carry_over(|route| (route.from, route.to) == (from, to));
    }

    fn tick_cluster(&mut self, cluster: usize) {
        (0..self.clusters[cluster].len()).for_each(|group| self.tick((cluster, group)));
    }
}
