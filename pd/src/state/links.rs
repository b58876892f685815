//! The clusters on the other end of links: who they are, what they count for, and what operators do
//! with the links to them.
//!
//! A peer comes from the topology file, which is read at start, or is added while PD runs.
//! Invariants:
//! * What the file lists has the file's name and addresses. What an operator decided (pauses,
//!   standings, removals) is kept beside it and survives restarts.
//! * A record of a peer is never dropped: one that comes back after it was gone comes back fenced,
//!   since rows may have been collected without it, and its epochs never go back.
//! * The mesh version rises with every change of the set of (peer id, standing).
//! * Every operation may be repeated; a dry run answers just as the real one and changes nothing.

use super::durable::{Durable, LoadError};
use super::members::{check_address, check_name};
use super::{Done, Refusal, State, refuse};
use flotilla_topology::api::{LinkOp, PeerCluster, Standing};
use flotilla_topology::ids::ClusterId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Addresses of syncers that a peer may have.
const ADDRESSES_MAX: usize = 64;

/// Longest round trip time that is taken: what goes twice around the earth takes less.
const RTT_MS_MAX: f64 = 10_000.0;

/// A peer, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// As in the map.
    #[serde(flatten)]
    pub peer: PeerCluster,
    /// Added while PD ran, and not in the topology file.
    #[serde(default)]
    pub added: bool,
    /// Why it is no peer at present.
    #[serde(default)]
    pub gone: Option<Gone>,
}

/// Why a cluster is no peer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// An operator removed it: only an operator brings it back.
    Removed,
    /// The topology file does not list it any more.
    Unlisted,
}

impl PeerRecord {
    /// It is a peer again, without any of its standing.
    fn comes_back(&mut self) {
        self.gone = None;
        self.peer.standing = Standing::Fenced;
        self.peer.paused = false;
    }
}

/// What is stored, brought up to date with the topology file. `first` if nothing was ever stored: a
/// peer that comes later than the cluster itself begins with the full state.
pub fn merged(
    stored: &BTreeMap<ClusterId, PeerRecord>,
    file: &[PeerCluster],
    first: bool,
) -> Result<BTreeMap<ClusterId, PeerRecord>, LoadError> {
    let mut all = stored.clone();
    for record in all.values_mut() {
        match file.iter().find(|listed| listed.id == record.peer.id) {
            Some(listed) => {
                record.peer.name.clone_from(&listed.name);
                record.peer.syncers.clone_from(&listed.syncers);
                record.peer.rtt_ms = listed.rtt_ms;
                record.added = false;
                if record.gone == Some(Gone::Unlisted) {
                    record.comes_back();
                }
            }
            None if record.gone.is_none() && !record.added => record.gone = Some(Gone::Unlisted),
            None => {}
        }
    }
    for listed in file.iter().filter(|listed| !stored.contains_key(&listed.id)) {
        let peer = PeerCluster { merge_epoch: u64::from(!first), ..listed.clone() };
        let record = PeerRecord { peer, added: false, gone: None };
        all.insert(listed.id, record);
    }
    let mut names = BTreeMap::new();
    for record in all.values().filter(|record| record.gone.is_none()) {
        if let Some(twin) = names.insert(&record.peer.name, record.peer.id) {
            return Err(LoadError::Peers(format!(
                "the topology file and a peer that was added while PD ran are both called `{}` \
                 (clusters {twin} and {}): rename the one in the file",
                record.peer.name, record.peer.id
            )));
        }
    }
    Ok(all)
}

/// The version of `new`'s mesh, when `old` was before.
pub fn mesh_version(old: &Durable, new: &Durable) -> u64 {
    let mesh = |durable: &Durable| -> BTreeSet<(ClusterId, Standing)> {
        durable.present_peers().map(|peer| (peer.id, peer.standing)).collect()
    };
    let (before, now) = (mesh(old), mesh(new));
    // A store from before there were versions has peers and no version.
    let unnumbered = old.counters.mesh == 0 && !now.is_empty();
    old.counters.mesh + u64::from(before != now || unnumbered)
}

impl State {
    /// An operator does something with a link, or asks what it would do.
    pub(super) fn link(&mut self, peer: &str, op: LinkOp, dry_run: bool) -> Result<Done, Refusal> {
        let before = Arc::clone(&self.durable);
        let lines = match op {
            LinkOp::Add { peer: new } => self.add_peer(peer, new)?,
            LinkOp::Remove => self.remove_peer(peer)?,
            LinkOp::Pause => self.pause(peer)?,
            LinkOp::Resume => self.resume(peer)?,
            LinkOp::Rewind => self.rewind(peer)?,
            LinkOp::Merge => self.merge(peer)?,
            LinkOp::Fence => self.fence(peer)?,
            LinkOp::Return => self.take_back(peer)?,
        };
        if dry_run {
            self.durable = before;
        }
        Ok(Done::Plan { lines, done: !dry_run })
    }

    /// A returning peer to which everything moves again has what we have: it is live.
    pub(super) fn notice_returned(&mut self) {
        if !self.durable.present_peers().any(|peer| peer.standing == Standing::Returning) {
            return;
        }
        let (links, wanted) = (self.links(), self.synced_groups());
        let returning = self.durable.present_peers().filter(|p| p.standing == Standing::Returning);
        let back: Vec<ClusterId> = returning
            .map(|peer| peer.id)
            .filter(|id| {
                let moving = links.iter().filter(|link| link.peer == *id && link.state.moves());
                wanted > 0 && moving.count() == wanted
            })
            .collect();
        for id in back {
            self.peer_mut(id).standing = Standing::Live;
        }
    }

    /// A returning peer has merged.
    pub(super) fn peer_live(&mut self, id: ClusterId) -> Result<Done, Refusal> {
        let name = id.to_string();
        let peer = self.find(&name)?.peer.clone();
        match peer.standing {
            Standing::Live => {}
            Standing::Returning => self.peer_mut(id).standing = Standing::Live,
            Standing::Fenced => refuse!(
                "cluster `{}` is fenced: let it return first (`flotilla link return {}`)",
                peer.name,
                peer.name
            ),
        }
        Ok(Done::Plain)
    }

    /// Clusters that the topology file lists although an operator removed them.
    pub(super) fn removed_and_listed(&self) -> impl Iterator<Item = &PeerCluster> {
        let listed = |id| self.settings.peers.iter().any(|peer| peer.id == id);
        let removed = |record: &&PeerRecord| record.gone == Some(Gone::Removed);
        let records = self.durable.peers.values().filter(removed).map(|record| &record.peer);
        records.filter(move |peer| listed(peer.id))
    }

    fn pause(&mut self, peer: &str) -> Result<Vec<String>, Refusal> {
        let PeerCluster { id, name, paused, .. } = self.find(peer)?.peer.clone();
        if paused {
            return Ok(unchanged(&name, "is paused already"));
        }
        self.peer_mut(id).paused = true;
        Ok(vec![
            format!("nothing is shipped to `{name}` until `flotilla link resume {name}`"),
            self.waiting(id),
            format!(
                "logs are kept for it meanwhile, {} for each group; beyond that it needs a merge",
                bytes(self.settings.backlog_budget_bytes)
            ),
            format!("what `{name}` sends is taken as before"),
        ])
    }

    fn resume(&mut self, peer: &str) -> Result<Vec<String>, Refusal> {
        let PeerCluster { id, name, paused, .. } = self.find(peer)?.peer.clone();
        if !paused {
            return Ok(unchanged(&name, "is not paused"));
        }
        self.peer_mut(id).paused = false;
        Ok(vec![format!("the links to `{name}` go on where it is"), self.waiting(id)])
    }

    fn rewind(&mut self, peer: &str) -> Result<Vec<String>, Refusal> {
        let PeerCluster { id, name, .. } = self.not_fenced(peer)?.clone();
        self.peer_mut(id).rewind_epoch += 1;
        Ok(vec![
            format!("all streams to `{name}` are opened anew, each where its receiver is"),
            self.waiting(id),
            "what was under way travels again and is skipped there".to_owned(),
        ])
    }

    fn merge(&mut self, peer: &str) -> Result<Vec<String>, Refusal> {
        let PeerCluster { id, name, paused, .. } = self.not_fenced(peer)?.clone();
        self.peer_mut(id).merge_epoch += 1;
        let mut lines = vec![
            format!(
                "all rows of {} are compared with those of `{name}`, and what it lacks travels",
                groups(self.synced_groups())
            ),
            self.waiting(id),
            "both clusters serve and take writes meanwhile".to_owned(),
        ];
        if paused {
            lines.push(format!("the link is paused: it begins with `flotilla link resume {name}`"));
        }
        Ok(lines)
    }

    fn fence(&mut self, peer: &str) -> Result<Vec<String>, Refusal> {
        let PeerCluster { id, name, standing, .. } = self.find(peer)?.peer.clone();
        if standing == Standing::Fenced {
            return Ok(unchanged(&name, "is fenced already"));
        }
        let others = self.give_up(id);
        let mut lines = vec![
            format!("`{name}` is given up: it holds back no logs"),
            "its streams are refused here, and nothing is shipped to it".to_owned(),
            self.waiting(id),
        ];
        if others > 0 {
            lines.push(
                "the other clusters are sent what of our state they lack: it holds back collection \
                 until all of them have fenced it and done the same"
                    .to_owned(),
            );
        }
        lines.push(format!(
            "what is deleted here from now on is forgotten, so it comes back in a new life: with a \
             higher `incarnation`, and then `flotilla link return {name}`"
        ));
        lines.push(self.elsewhere(id, "fence it"));
        Ok(lines)
    }

    /// Fences a peer; how many others are sent what they lack. Each of them may have more of what it
    /// sent last than we have.
    pub(super) fn give_up(&mut self, peer: ClusterId) -> usize {
        self.peer_mut(peer).standing = Standing::Fenced;
        let others: Vec<ClusterId> = self.durable.counting_peers().map(|peer| peer.id).collect();
        for other in &others {
            self.peer_mut(*other).merge_epoch += 1;
        }
        others.len()
    }

    fn take_back(&mut self, peer: &str) -> Result<Vec<String>, Refusal> {
        let PeerCluster { id, name, standing, .. } = self.find(peer)?.peer.clone();
        match standing {
            Standing::Live => return Ok(unchanged(&name, "is live")),
            Standing::Returning => return Ok(unchanged(&name, "is returning already")),
            Standing::Fenced => {}
        }
        let record = self.peer_mut(id);
        record.standing = Standing::Returning;
        record.merge_epoch += 1;
        Ok(vec![
            format!("`{name}` counts again: logs and collection wait for it from now on"),
            format!(
                "it must come back with a higher `incarnation`, empty or with its data; its earlier life \
                 is refused. It is sent the state of {}, drops what was deleted here meanwhile, gives \
                 us what it wrote, and is live when all links to it move",
                groups(self.synced_groups())
            ),
            self.elsewhere(id, "let it return"),
        ])
    }

    fn remove_peer(&mut self, peer: &str) -> Result<Vec<String>, Refusal> {
        if let Some(gone) = self.lookup(peer).filter(|record| record.gone.is_some()) {
            return Ok(vec![format!("`{}` is no peer any more: nothing changes", gone.peer.name)]);
        }
        let PeerCluster { id, name, standing, paused, .. } = self.find(peer)?.peer.clone();
        if standing != Standing::Fenced && !paused {
            refuse!(
                "cluster `{name}` is {} and not paused: `flotilla link pause {name}` or `flotilla \
                 link fence {name}` first, look whether all is well without it, then remove it",
                standing.word()
            );
        }
        let listed = self.settings.peers.iter().any(|listed| listed.id == id);
        let waiting = self.waiting(id);
        if let Some(record) = self.durable_mut().peers.get_mut(&id) {
            record.gone = Some(Gone::Removed);
        }
        let mut lines = vec![
            format!("`{name}` is no peer any more: nothing is kept for it, its links are refused"),
            waiting,
            self.elsewhere(id, "remove it"),
        ];
        if listed {
            lines.push("take it out of the topology file too".to_owned());
        }
        Ok(lines)
    }

    fn add_peer(&mut self, asked: &str, new: PeerCluster) -> Result<Vec<String>, Refusal> {
        self.check_new(asked, &new)?;
        let (id, name) = (new.id, new.name.clone());
        let listed = self.settings.peers.iter().any(|listed| listed.id == id);
        let PeerCluster { syncers, rtt_ms, .. } = new.clone();
        let known = self.durable.peers.get(&id).map(|record| (record.gone, record.peer.clone()));
        let mut lines = match known {
            Some((None, peer)) if (&peer.syncers, peer.rtt_ms) == (&syncers, rtt_ms) => {
                return Ok(unchanged(&name, "is a peer already"));
            }
            Some((_, peer)) if listed && (&peer.syncers, peer.rtt_ms) != (&syncers, rtt_ms) => {
                refuse!(
                    "cluster `{name}` is in the topology file: change its addresses there, and \
                     restart PD"
                )
            }
            Some((None, _)) => vec![format!("the addresses of `{name}` change")],
            Some((Some(_), _)) => vec![
                format!(
                    "`{name}` is a peer again, fenced: rows may have been collected without it"
                ),
                format!("it comes back by `flotilla link return {name}`"),
            ],
            None => vec![
                format!("`{name}` is a peer, live from now on"),
                format!("it is sent the whole state of {} first", groups(self.synced_groups())),
            ],
        };
        // What was deleted before it came may be forgotten: logs alone would bring it back there.
        let merge_epoch = 1;
        let fresh =
            PeerCluster { syncers, rtt_ms, id, name, merge_epoch, ..PeerCluster::default() };
        let new = || PeerRecord { peer: fresh.clone(), added: true, gone: None };
        let record = self.durable_mut().peers.entry(id).or_insert_with(new);
        if record.gone.is_some() {
            record.comes_back();
        }
        // The file wins on what it lists, also when it comes back.
        if !listed {
            let PeerCluster { name, syncers, rtt_ms, .. } = fresh;
            record.added = true;
            record.peer = PeerCluster { name, syncers, rtt_ms, ..record.peer.clone() };
        }
        lines.extend(self.stays_here());
        lines.push(self.elsewhere(id, "add it"));
        Ok(lines)
    }

    /// What can be known here of a cluster that is to be added. Other clusters cannot be seen.
    fn check_new(&self, asked: &str, new: &PeerCluster) -> Result<(), Refusal> {
        let (id, name) = (new.id, &new.name);
        check_name("cluster", name)?;
        if asked != name && asked != id.to_string() {
            refuse!("asked to add `{asked:.80}` and told of cluster {id} `{name}`: name one");
        }
        if id.0 == 0 {
            refuse!("cluster id 0 means none: give the id that `{name}` has, 1 to 255");
        }
        if id == self.settings.cluster || *name == self.settings.name {
            refuse!(
                "this is cluster {} `{}`: a cluster has no link to itself",
                self.settings.cluster,
                self.settings.name
            );
        }
        let listed = self.settings.peers.iter().find(|listed| listed.id == id);
        if let Some(listed) = listed.filter(|listed| listed.name != *name) {
            refuse!("the topology file calls cluster {id} `{}`: so must you", listed.name);
        }
        let mut present = self.durable.present_peers();
        if let Some(twin) = present.find(|peer| (peer.id == id) != (peer.name == *name)) {
            refuse!(
                "cluster {} is called `{}` here: ids and names of clusters are unique, give those \
                 that the new one has in its own configuration",
                twin.id,
                twin.name
            );
        }
        if new.syncers.is_empty() || new.syncers.len() > ADDRESSES_MAX {
            refuse!(
                "`{name}` comes with {} syncer addresses: give 1 to {ADDRESSES_MAX}, else the mesh \
                 is partial and what it lacks would never reach it",
                new.syncers.len()
            );
        }
        for address in &new.syncers {
            check_address(name, "syncer", address)?;
        }
        if new.rtt_ms.is_some_and(|rtt| !(0.0..=RTT_MS_MAX).contains(&rtt)) {
            refuse!("a round trip time must be 0 to {RTT_MS_MAX} ms");
        }
        Ok(())
    }

    /// By name, else by id; those that are gone come last.
    fn lookup(&self, peer: &str) -> Option<&PeerRecord> {
        let all = || self.durable.peers.values();
        let present = || all().filter(|record| record.gone.is_none());
        let named = |record: &&PeerRecord| record.peer.name == peer;
        let numbered = |record: &&PeerRecord| record.peer.id.to_string() == peer;
        let here = present().find(named).or_else(|| present().find(numbered));
        here.or_else(|| all().find(named)).or_else(|| all().find(numbered))
    }

    fn find(&self, peer: &str) -> Result<&PeerRecord, Refusal> {
        match self.lookup(peer) {
            Some(record) if record.gone.is_none() => Ok(record),
            Some(record) => refuse!(
                "cluster `{0}` is no peer any more: bring it back with `flotilla link add {0}`",
                record.peer.name
            ),
            None => {
                let known: Vec<&str> =
                    self.durable.present_peers().map(|peer| peer.name.as_str()).collect();
                match known.is_empty() {
                    true => refuse!("no peer `{peer:.80}`: this cluster has no links"),
                    false => refuse!("no peer `{peer:.80}`: there are {}", known.join(", ")),
                }
            }
        }
    }

    fn not_fenced(&self, peer: &str) -> Result<&PeerCluster, Refusal> {
        let peer = &self.find(peer)?.peer;
        if peer.standing == Standing::Fenced {
            refuse!(
                "cluster `{0}` is fenced, nothing is shipped to it: let it return first (`flotilla \
                 link return {0}`)",
                peer.name
            );
        }
        Ok(peer)
    }

    fn peer_mut(&mut self, id: ClusterId) -> &mut PeerCluster {
        let record = self.durable_mut().peers.get_mut(&id);
        &mut record.expect("it was found just above").peer
    }

    fn synced_groups(&self) -> usize {
        self.durable.groups.values().filter(|group| self.is_synced(group)).count()
    }

    /// What waits for a peer, in a line.
    fn waiting(&self, id: ClusterId) -> String {
        let all = groups(self.synced_groups());
        let links: Vec<_> = self.links().into_iter().filter(|link| link.peer == id).collect();
        if links.is_empty() {
            return format!("{all} are concerned; no syncer tells what waits");
        }
        let entries: u64 = links.iter().map(|link| link.backlog_entries).sum();
        let size: u64 = links.iter().map(|link| link.backlog_bytes).sum();
        format!("{all} are concerned; {entries} entries ({}) wait, as last told", bytes(size))
    }

    /// The mesh is full, and PD sees its own cluster only.
    fn elsewhere(&self, id: ClusterId, what: &str) -> String {
        let others = self.durable.present_peers().filter(|peer| peer.id != id);
        let others: Vec<String> = others.map(|peer| format!("`{}`", peer.name)).collect();
        match others.is_empty() {
            true => "no other cluster is linked with this one".to_owned(),
            false => format!("{what} at {} too: PD sees its own cluster only", others.join(", ")),
        }
    }
}

fn unchanged(name: &str, is: &str) -> Vec<String> {
    vec![format!("`{name}` {is}: nothing changes")]
}

fn groups(count: usize) -> String {
    if count == 1 { "1 group".to_owned() } else { format!("{count} groups") }
}

/// Bytes for people.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = count as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} bytes") } else { format!("{value:.1} {}", UNITS[unit]) }
}
