//! A second opinion: the histories of the simulator, replayed by the plain rules of the merge.
//!
//! The oracle of the simulation joins with the node's own code, so a rule that is wrong there is
//! wrong in both. This checker shares no code with the node's `model` and `eval`: it has its own
//! stamps, registers, sums, floors, claims and expiries ([`plain`]), its own idea of what each
//! command must say ([`local`]), and one plain state for each group that never forgets anything
//! ([`history`]). Only [`border`] knows the node's types, and only to take them apart.
//!
//! What it says, as the invariant `plain_rules`:
//! * A command found of its key what the rules show there: whatever was collected, nobody can see.
//! * It answered what the rules answer, and its entry says what the rules say ([`judge`]).
//! * Its stamp is above all that was known where it was carried out; an end that it saw is in an
//!   entry; an entry without a command says nothing of keys.
//! * An answer holds only if the entries below it took effect, and the other way round.
//! * A full state says nothing that its source did not know.
//! * In the end every cluster shows of every key what the rules make of everything that was said.
//!
//! What it says nothing about: that things are collected, cursors, losers, counts on the way.

mod border;

mod history;

mod judge;

mod local;
mod ordered;

mod plain;

#[cfg(test)]
mod tests;

use super::commands::{self, KEYS, Seen};
use super::group::SimGroup;
use super::world::{Broken, Step, World};
use bytes::Bytes;
use flotilla_node::group::entry::{Entry, Fence};
use flotilla_node::group::exec::Outcome;
use flotilla_node::group::leader::Work;
use flotilla_node::group::state::StateStep;
use flotilla_node::raft::Body;
use flotilla_topology::ids::GroupId;
use flotilla_topology::slot::Slot;
use history::{At, Command, GroupIs, History, Verdict};
use local::Answer;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// When a client hears of its command.
type Reply = oneshot::Receiver<Vec<Outcome>>;

/// What a leader was asked.
enum What {
    Command(Command, Option<Reply>),
    Rows(Vec<Bytes>),
}

/// Work that a leader has evaluated.
pub struct Heard {
    what: What,
    /// Entries in the log then.
    log: usize,
    /// The entry that it went into, or that it rides on.
    entry: Option<Bytes>,
    /// Nothing was written: it only rides.
    rides: bool,
}

impl Heard {
    /// Of work that is about to be evaluated at the group's clock, if the checker judges such.
    pub fn of(work: &Work, now: u64, log: usize) -> Option<Heard> {
        let what = match work {
            Work::Exec { commands, .. } => {
                let words = border::words(&commands.first()?.args);
                What::Command(Command { words, now, before: None }, None)
            }
            Work::State { request, .. } => match &request.step {
                StateStep::Chunk { effects, .. } => What::Rows(effects.clone()),
                _ => return None,
            },
            _ => return None,
        };
        Some(Heard { what, log, entry: None, rides: true })
    }

    /// The newest entry under way, and whether this work is in it.
    pub fn goes_into(mut self, entry: Option<Bytes>, is_in_it: bool) -> Heard {
        self.entry = entry;
        self.rides = !is_in_it;
        self
    }

    /// What a client saw of the key before its command, and where it hears of it.
    pub fn with(&mut self, seen: Seen, hears: Reply) {
        if let What::Command(command, reply) = &mut self.what {
            command.before = Some(seen);
            *reply = Some(hears);
        }
    }
}

/// What a client must not hear, or must.
struct Awaited {
    line: String,
    reply: Reply,
    /// What the rules answer; none if the entries below never took effect.
    want: Option<Answer>,
    /// The command is in the log.
    wrote: bool,
}

/// See the module.
#[derive(Default)]
pub struct Checker {
    history: History,
    places: BTreeMap<GroupId, At>,
    /// Of each log: how much was read, and its fence there.
    read: BTreeMap<At, (usize, Fence)>,
    /// What is under way in each group, in order.
    under_way: BTreeMap<At, Vec<Heard>>,
    awaited: Vec<Awaited>,
    found: Option<String>,
}

fn broken(what: &str) -> Step {
    Err(Broken { invariant: "plain_rules", what: what.to_owned() })
}

impl Checker {
    /// For these clusters.
    pub fn new(clusters: &[Vec<SimGroup>]) -> Checker {
        let mut checker = Checker::default();
        for (cluster, groups) in clusters.iter().enumerate() {
            for (group, is) in groups.iter().map(|group| &group.context).enumerate() {
                let slots = (is.slots.first.0, is.slots.last.0);
                let counter = border::counter(is.origin);
                checker.history.add((cluster, group), GroupIs { counter, slots });
                checker.places.insert(is.group, (cluster, group));
            }
        }
        checker
    }

    /// Reads on in a group's log, and judges what was asked of its leaders.
    pub fn witness(&mut self, at: At, group: &mut SimGroup) {
        for heard in std::mem::take(&mut group.heard) {
            self.read(at, group, heard.log);
            if heard.entry.is_some() {
                self.under_way.entry(at).or_default().push(heard);
            } else if let What::Command(command, reply) = heard.what {
                let told = self.history.idle(at, &command);
                self.judged(&command, reply, told.map(Some), false);
            }
        }
        self.read(at, group, group.log.len());
        self.hear();
    }

    /// The first place where the rules and the product parted.
    pub fn found(&self) -> Step {
        self.found.as_deref().map_or(Ok(()), broken)
    }

    fn find(&mut self, verdict: Verdict) {
        if let (None, Err(what)) = (&self.found, verdict) {
            self.found = Some(what);
        }
    }

    fn read(&mut self, at: At, group: &SimGroup, until: usize) {
        let (mut read, mut fence) = self.read.get(&at).copied().unwrap_or_default();
        while read < until {
            let logged = &group.log[read];
            read += 1;
            match &logged.body {
                Body::Blank => {
                    fence.blank(logged.log_id.term);
                    let lost = std::mem::take(self.under_way.entry(at).or_default());
                    self.lost(lost);
                }
                Body::Membership(_) => {}
                Body::Normal(bytes) => {
                    let entry = Entry::decode(bytes).expect("entries are readable");
                    let heard = self.heard_of(at, bytes);
                    if fence.admit(logged.log_id.term, entry.header.evaluation) {
                        let own = entry.header.origin == group.context.origin;
                        let verdict = match own {
                            true => self.own(at, read as u64, &entry, heard),
                            false => self.foreign(at, read as u64, &entry, heard),
                        };
                        let told = |what| format!("group {at:?}, entry {read}: {what}");
                        self.find(verdict.map_err(told));
                    } else {
                        self.lost(heard);
                    }
                }
            }
        }
        self.read.insert(at, (read, fence));
    }

    /// What went into an entry. What went into earlier ones that never came was refused.
    fn heard_of(&mut self, at: At, bytes: &Bytes) -> Vec<Heard> {
        let under_way = self.under_way.entry(at).or_default();
        // A refused tick and the next may be alike, byte for byte, so it must be these very bytes.
        let is_here =
            |heard: &Heard| heard.entry.as_ref().is_some_and(|e| e.as_ptr() == bytes.as_ptr());
        let Some(first) = under_way.iter().position(is_here) else { return Vec::new() };
        let here = under_way[first..].iter().take_while(|heard| is_here(heard)).count();
        let rest = under_way.split_off(first + here);
        let heard = under_way.split_off(first);
        let lost = std::mem::replace(under_way, rest);
        self.lost(lost);
        heard
    }

    fn lost(&mut self, heard: Vec<Heard>) {
        for heard in heard {
            if let What::Command(command, reply) = heard.what {
                self.judged(&command, reply, Ok(None), false);
            }
        }
    }

    fn judged(
        &mut self,
        command: &Command,
        reply: Option<Reply>,
        told: Verdict<Option<Answer>>,
        wrote: bool,
    ) {
        match (told, reply) {
            (Ok(want), Some(reply)) => {
                self.awaited.push(Awaited { line: command.line(), reply, want, wrote });
            }
            (Ok(_), None) => {}
            (Err(what), _) => self.find(Err(what)),
        }
    }

    /// Everything that clients have heard by now.
    fn hear(&mut self) {
        for mut awaited in std::mem::take(&mut self.awaited) {
            let heard = match awaited.reply.try_recv() {
                Ok(outcomes) => outcomes.into_iter().next(),
                Err(oneshot::error::TryRecvError::Empty) => {
                    self.awaited.push(awaited);
                    continue;
                }
                Err(oneshot::error::TryRecvError::Closed) => continue,
            };
            let Awaited { line, want, wrote, .. } = awaited;
            self.find(match (heard, want) {
                (Some(Outcome::Done(reply)), None) => {
                    Err(format!("{line} answered {reply:?}, and never took effect"))
                }
                (Some(Outcome::Done(reply)), Some(want)) if border::answer(&reply) != want => {
                    Err(format!("{line} answered {reply:?}, the rules answer {want:?}"))
                }
                (Some(Outcome::NotApplied { .. }), Some(_)) if wrote => {
                    Err(format!("{line} took effect, and was answered as not applied"))
                }
                _ => Ok(()),
            });
        }
    }

    fn own(&mut self, at: At, index: u64, entry: &Entry, heard: Vec<Heard>) -> Verdict {
        let plain = border::entry(index, &entry.header);
        let mut says = border::says(entry);
        let mut heard = heard.into_iter().peekable();
        let carried = heard.next_if(|heard| !heard.rides && is_command(heard));
        if let Some(Heard { what: What::Command(command, reply), .. }) = carried {
            let told = self.history.own(at, &plain, std::mem::take(&mut says), Some(&command));
            self.judged(&command, reply, told, true);
        } else {
            self.history.own(at, &plain, says, None)?;
        }
        self.ride(at, heard);
        Ok(())
    }

    /// Commands that wrote nothing saw everything up to the entry that they ride on.
    fn ride(&mut self, at: At, heard: impl Iterator<Item = Heard>) {
        for heard in heard {
            if let What::Command(command, reply) = heard.what {
                let told = self.history.idle(at, &command);
                self.judged(&command, reply, told.map(Some), false);
            }
        }
    }

    fn foreign(&mut self, at: At, index: u64, entry: &Entry, heard: Vec<Heard>) -> Verdict {
        let plain = border::entry(index, &entry.header);
        let rows = heard.iter().find_map(|heard| match &heard.what {
            What::Rows(rows) if !heard.rides => Some(border::rows(rows)),
            _ => None,
        });
        let from = usize::from(entry.header.origin.cluster.0) - 1;
        match (rows, border::cursor(entry)) {
            (Some(rows), _) => self.history.rows_arrive(at, &plain, from, &rows)?,
            (None, Some((source, position))) => {
                let source = self.places[&source];
                self.history.arrives(at, &plain, source, position);
            }
            (None, None) if border::touches_keys(entry) => {
                return Err(format!("rows of cluster {from} came without a cursor"));
            }
            (None, None) => self.history.nothing(at, &plain),
        }
        self.ride(at, heard.into_iter());
        Ok(())
    }
}

fn is_command(heard: &Heard) -> bool {
    matches!(heard.what, What::Command(..))
}

impl World {
    /// The first place where the rules and the product parted. What a cluster drops when it returns
    /// from a fence is not in the plain rules: such histories are judged up to the first fence.
    pub(super) fn check_found(&self) -> Step {
        if self.mesh.fences > 0 { Ok(()) } else { self.checker.found() }
    }

    /// Every cluster shows what the rules show of everything that was said, now and later.
    pub fn check_rules(&mut self) -> Step {
        self.check_found()?;
        if self.mesh.fences > 0 {
            return Ok(());
        }
        let clocks = self.clusters.iter().flatten().map(|group| group.state.meta.clock.ms());
        let now = clocks.max().unwrap_or(0).max(self.now_ms);
        for key in KEYS {
            let slot = Slot::of(key.as_bytes());
            for ms in [now, now + 1, now + 3, now + 100] {
                let want = self.checker.history.shows(key.as_bytes(), ms);
                for place in 0..self.clusters.len() {
                    let at = self.group_of(place, slot);
                    let shown = commands::look_at(&mut self.clusters[place][at], key, ms);
                    let came = self.checker.history.shows_at((place, at), key.as_bytes(), ms);
                    if came != want {
                        return broken(&format!(
                            "cluster {place} has heard {came:?} of {key} at {ms}, not {want:?}"
                        ));
                    }
                    if shown != want {
                        let said = self.checker.history.all_of(key.as_bytes());
                        return broken(&format!(
                            "cluster {place} shows {shown:?} of {key} at {ms}, \
                             the rules show {want:?} of {said:?}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
