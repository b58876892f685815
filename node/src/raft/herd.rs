//! Parks the groups of one process that have nothing to do, and wakes them: see [`super::parking`].
//!
//! Once a round the process lists to every other one the groups that it leads, that are parked, and of
//! which the other has a voter: one message for all of them, in the place of a heartbeat for each. The
//! answer names those to which the other does not agree, since it knows more or less than their leader;
//! they are woken. A replica that no listing names any more, because its leader woke, was replaced,
//! ended or cannot be reached, stands for election as if its heartbeats had ceased.

use super::group::RaftGroup;
use super::parking::{Parked, Rest};
use super::registry::RaftGroups;
use super::server::refused;
use super::types::{Member, RaftRole, Settings};
use super::wire::{self, Address};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::transport::{Class, ReplyTo, RpcError, kinds};
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Between two listings of a parked group: a third of the shortest lease, so that two may be lost.
pub(super) const ROUND: Duration = Duration::from_millis(200);

/// Groups in one message. More take several.
const LISTED_MAX: usize = 16 << 10;

/// One parked group, as its leader lists it to a voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) address: Address,
    pub(super) rest: Rest,
}

/// A listing: the version, how many, and of each group, receiver, sender, term and last index.
pub(super) fn encode_listing(listed: impl ExactSizeIterator<Item = Listed>) -> Bytes {
    let mut out = Encoder::with_capacity(16 + listed.len() * 16);
    out.put_u8(wire::VERSION);
    out.put_varint(listed.len() as u64);
    for Listed { address, rest } in listed {
        out.put_group(address.group);
        out.put_replica(address.to);
        out.put_replica(address.from);
        out.put_varint(rest.term);
        out.put_varint(rest.index);
    }
    out.into_bytes()
}

pub(super) fn decode_listing(bytes: &Bytes) -> Result<Vec<Listed>, DecodeError> {
    let mut input = Decoder::shared(bytes);
    input.version(wire::VERSION)?;
    let count = input.count(LISTED_MAX, 5)?;
    let mut listed = Vec::with_capacity(count);
    for _ in 0..count {
        let (group, to, from) = (input.group()?, input.replica()?, input.replica()?);
        let address = Address { group, to, from };
        listed
            .push(Listed { address, rest: Rest { term: input.varint()?, index: input.varint()? } });
    }
    input.finish()?;
    Ok(listed)
}

/// The answer: the version, how many, and the groups to which the receiver does not agree.
pub(super) fn encode_disagreed(groups: &[GroupId]) -> Bytes {
    let mut out = Encoder::with_capacity(16 + groups.len() * 5);
    out.put_u8(wire::VERSION);
    out.put_varint(groups.len() as u64);
    for group in groups {
        out.put_group(*group);
    }
    out.into_bytes()
}

pub(super) fn decode_disagreed(bytes: &Bytes) -> Result<Vec<GroupId>, DecodeError> {
    let mut input = Decoder::shared(bytes);
    input.version(wire::VERSION)?;
    let count = input.count(LISTED_MAX, 1)?;
    let groups = (0..count).map(|_| input.group()).collect::<Result<_, _>>()?;
    input.finish()?;
    Ok(groups)
}

/// What goes to one process in one round.
struct Listing {
    first: (RaftGroup, ReplicaId),
    listed: Vec<(RaftGroup, Listed)>,
}

impl RaftGroup {
    /// What is due once a round; what to list to whom if it leads and is parked.
    fn round(&self, late: Duration, to: &mut BTreeMap<Member, Listing>) -> Option<Parked> {
        let (parking, settings, now) = (self.parking(), self.settings(), Instant::now());
        if self.reader().role() != RaftRole::Leader {
            if parking.follow(late, settings, now) {
                tracing::debug!(group = %self.group(), "its leader's process is silent: awake");
            }
            return parking.parked();
        }
        let me = self.me();
        let standing = self.reader().rest(me);
        let standing = standing.filter(|(rest, _)| !self.has_handed_over(rest.term));
        let (rest, members) = standing.unzip();
        let voters = members.iter().flat_map(|members| members.configs.first()).flatten();
        let others = voters.copied().filter(|voter| *voter != me);
        let was_parked = parking.is_parked();
        if !parking.lead(rest, others.clone(), late, settings, now) {
            if was_parked {
                self.show_life();
            }
            return None;
        }
        let (rest, members) = (rest?, members.as_ref()?);
        for voter in others {
            let Some(member) = members.members.get(&voter) else { continue };
            let address = Address { group: self.group(), to: voter, from: me };
            let listed = (self.clone(), Listed { address, rest });
            match to.get_mut(member) {
                Some(listing) => listing.listed.push(listed),
                None => {
                    let first = (self.clone(), voter);
                    to.insert(member.clone(), Listing { first, listed: vec![listed] });
                }
            }
        }
        Some(Parked::Leads)
    }

    /// A leader lists this replica; whether it is parked now.
    fn listed(&self, listed: Listed) -> bool {
        let Listed { address, rest } = listed;
        let agrees = self.me() == address.to && self.reader().agrees(address.from, rest);
        self.parking().listed(address.from, agrees, patience(self.settings()), Instant::now())
    }
}

fn patience(settings: &Settings) -> Duration {
    let (from, to) = (settings.election_min_ms, settings.election_max_ms);
    Duration::from_millis(rand::random_range(from..=to))
}

impl RaftGroups {
    /// Parks and wakes the groups here until `stop`, on `runtime`.
    pub fn park_idle(&self, runtime: &Handle, stop: CancellationToken) {
        let groups = self.clone();
        runtime.spawn(async move {
            let mut rounds = tokio::time::interval(ROUND);
            rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut last = Instant::now();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = rounds.tick() => {}
                }
                let late = last.elapsed().saturating_sub(2 * ROUND);
                last = Instant::now();
                groups.round(late);
            }
        });
    }

    fn round(&self, late: Duration) {
        let mut to = BTreeMap::new();
        let (mut leads, mut follows) = (0, 0);
        for group in self.all() {
            match group.round(late, &mut to) {
                Some(Parked::Leads) => leads += 1,
                Some(Parked::Follows) => follows += 1,
                None => {}
            }
        }
        metrics::gauge!("flotilla_groups_parked", "as" => "leader").set(f64::from(leads));
        metrics::gauge!("flotilla_groups_parked", "as" => "follower").set(f64::from(follows));
        for (member, Listing { first: (group, replica), mut listed }) in to {
            let Some(peer) = group.peer(replica, &member) else { continue };
            while !listed.is_empty() {
                let rest = listed.split_off(listed.len().min(LISTED_MAX));
                let part = std::mem::replace(&mut listed, rest);
                let payload = encode_listing(part.iter().map(|(_, listed)| *listed));
                // An answer that takes longer is no agreement.
                let within = group.settings().lease();
                let answer = peer.call(Class::Control, kinds::RAFT_PARKED, payload, within);
                tokio::spawn(async move { conclude(&part, answer.await) });
            }
        }
    }

    /// Takes another process's listing.
    pub(super) fn take_listing(&self, payload: &Bytes, reply: ReplyTo) {
        let listed = match decode_listing(payload) {
            Ok(listed) => listed,
            Err(error) => return reply.send(Err(refused(error))),
        };
        let mut disagreed = Vec::new();
        for one in listed {
            let group = one.address.group;
            if !self.get(group).is_some_and(|raft| raft.listed(one)) {
                disagreed.push(group);
            }
        }
        reply.send(Ok(encode_disagreed(&disagreed)));
    }
}

/// The groups that an answer does not agree to have parked. Without one, time tells.
fn disagreed(
    listed: &[(RaftGroup, Listed)],
    answer: Result<Bytes, RpcError>,
) -> Option<BTreeSet<GroupId>> {
    match answer.map(|bytes| decode_disagreed(&bytes)) {
        Ok(Ok(groups)) => Some(groups.into_iter().collect()),
        // A process that takes no listings goes on with its elections, so its groups need heartbeats.
        Ok(Err(_)) | Err(RpcError::Refused(_)) => {
            Some(listed.iter().map(|(group, _)| group.group()).collect())
        }
        Err(_) => None,
    }
}

fn conclude(listed: &[(RaftGroup, Listed)], answer: Result<Bytes, RpcError>) {
    let Some(disagreed) = disagreed(listed, answer) else { return };
    let now = Instant::now();
    for (group, Listed { address, rest }) in listed {
        let agreed = !disagreed.contains(&address.group);
        let told = (*rest, agreed);
        if group.parking().answered(address.to, told, group.settings(), now) {
            group.show_life();
        }
    }
}
