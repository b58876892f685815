//! `disk-full`: a disk that is nearly full refuses writes and serves everything else; one that is full
//! stops its node; and nothing that was acknowledged is lost by either.
//!
//! Each node has a small disk of its own. Part of it is taken away at first (`World::squeeze_disk`), so that
//! it can be given back later.

use super::Report;
use super::trial::{Settings, Trial};
use super::world::{self, World};
use crate::checkers::Violation;
use crate::resp::{Client, RespError, Value};
use crate::workload::{Bulk, DISK_FULL, text};
use flotilla_topology::ids::Role;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const INVARIANT: &str = "disk_full";
/// What is left of each disk at first.
const SPACE: u64 = 320 << 20;
/// Bytes of each value that fills.
const VALUE_BYTES: usize = 64 << 10;
/// Values that are written at most until writes are refused: several times what fits.
const FILL_MAX: u64 = 4 * SPACE / VALUE_BYTES as u64;
/// Values that are written through those that stay while a disk is full: they must fit there.
const THROUGH_MAX: u64 = 1600;
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long refusing must last at least.
const REFUSED_MIN: Duration = Duration::from_secs(5);
/// How long a node whose disk is full may go on, while others send it what they write.
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// How long all disks are kept full: who has not stopped by then refuses writes.
const ALL_FULL_FOR: Duration = Duration::from_secs(15);
/// Values that are read in a probe: by chance of all groups.
const PROBED: usize = 64;
/// Pause between two looks.
const PERIOD: Duration = Duration::from_millis(100);

/// Fills disks from inside and from outside, and gives them back.
pub async fn disk_full(world: &dyn World, seed: u64, settings: &Settings) -> Report {
    let mut trial = Trial::begin(world, "disk-full", seed, settings).await;
    let Some(cluster) = trial.cluster_of_three() else { return trial.finish().await };
    let nodes = world::of_role(&world.members(), Role::Node, std::slice::from_ref(&cluster));
    let filler = Filler::new(format!("fill:{}", trial.mark));
    trial.fill_disks(&cluster, &nodes, &filler).await;
    if trial.is_sound() {
        trial.read_filled(&cluster, &filler).await;
    }
    for node in &nodes {
        trial.squeeze(node, None);
    }
    trial.finish().await
}

/// What a node says to a write.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Done,
    /// Its disk has too little left; the whole line.
    Full(String),
    /// Certainly not carried out, or it is not known.
    Other(String),
}

fn understood(reply: Result<Value, RespError>) -> Said {
    match reply {
        Ok(Value::Error(error)) => {
            let line = String::from_utf8_lossy(&error).into_owned();
            if line.starts_with(DISK_FULL) { Said::Full(line) } else { Said::Other(line) }
        }
        Ok(_) => Said::Done,
        Err(error) => Said::Other(error.to_string()),
    }
}

/// Writes large values, each once, and remembers which were acknowledged.
struct Filler {
    prefix: String,
    next: AtomicU64,
    acked: Mutex<BTreeSet<u64>>,
}

impl Filler {
    fn new(prefix: String) -> Filler {
        Filler { prefix, next: AtomicU64::new(0), acked: Mutex::default() }
    }

    fn key(&self, number: u64) -> String {
        format!("{}:{number}", self.prefix)
    }

    async fn write(&self, client: &mut Client) -> Said {
        let number = self.next.fetch_add(1, Relaxed);
        let value = text(number, VALUE_BYTES);
        let said = understood(client.call(&["SET", &self.key(number), &value]).await);
        if said == Said::Done {
            self.acked.lock().insert(number);
        }
        said
    }

    /// Writes through one node until it refuses for lack of disk; what it says then.
    async fn until_refused(&self, address: &str, patience: Duration) -> Result<String, String> {
        let deadline = Instant::now() + patience;
        let mut last = "nothing was written".to_owned();
        let mut client = None;
        while Instant::now() < deadline && self.next.load(Relaxed) < FILL_MAX {
            let mut line: Client = match client.take() {
                Some(line) => line,
                None => Client::connect(address, PATIENCE).await.map_err(|why| why.to_string())?,
            };
            match self.write(&mut line).await {
                Said::Full(line) => return Ok(line),
                Said::Done => client = Some(line),
                Said::Other(why) => last = why,
            }
        }
        let written = self.next.load(Relaxed);
        Err(format!("{address} never refused, after {written} values in all; last: {last}"))
    }

    fn acked(&self) -> u64 {
        self.acked.lock().len() as u64
    }
}

impl Trial<'_> {
    fn broken(&mut self, what: String) {
        self.violation(Violation { invariant: INVARIANT, what });
    }

    fn squeeze(&mut self, node: &str, leave: Option<u64>) {
        let done = self.world.squeeze_disk(node, leave);
        self.done(done);
    }

    fn free(&self, nodes: &[String]) -> String {
        let each = nodes.iter().map(|node| match self.world.disk_free(node) {
            Ok(bytes) => format!("{node} {} MiB", bytes >> 20),
            Err(error) => format!("{node} {error}"),
        });
        each.collect::<Vec<_>>().join(", ")
    }

    async fn fill_disks(&mut self, cluster: &str, nodes: &[String], filler: &Filler) {
        for node in nodes {
            self.squeeze(node, Some(SPACE));
        }
        self.tell(format!("small disks; free: {}", self.free(nodes)));
        self.reserve(cluster, nodes, filler).await;
        self.tell("give back what was taken of the disks");
        for node in nodes {
            self.squeeze(node, None);
        }
        self.more_writes(&[cluster.to_owned()], self.settings.writes).await;
        self.tell(format!("writes go on; free: {}", self.free(nodes)));
        if !self.is_sound() {
            return;
        }
        let victim = match self.world.leader(cluster).await {
            Ok(leader) => leader,
            Err(error) => return self.violated(format!("{error:#}")),
        };
        self.fill_from_outside(cluster, &[victim], nodes, filler).await;
        if self.is_sound() {
            self.fill_from_outside(cluster, nodes, nodes, filler).await;
        }
    }

    /// Up to the reserve: writes are refused, and everything else goes on.
    async fn reserve(&mut self, cluster: &str, nodes: &[String], filler: &Filler) {
        let addresses = self.addresses[cluster].clone();
        let began = Instant::now();
        let patience = self.settings.patience * 4;
        let fills = addresses.iter().map(|address| filler.until_refused(address, patience));
        let said = futures::future::join_all(fills).await;
        for (node, said) in nodes.iter().zip(&said) {
            match said {
                Ok(line) => self.tell(format!("{node} refuses: {line}")),
                Err(why) => self.broken(why.clone()),
            }
        }
        let (mib, took) = ((filler.acked() * VALUE_BYTES as u64) >> 20, began.elapsed());
        self.tell(format!("{mib} MiB written in {took:.1?}; free: {}", self.free(nodes)));
        if !self.is_sound() {
            return;
        }
        let until = Instant::now() + REFUSED_MIN.max(self.settings.fault);
        self.probe(&addresses, filler).await;
        // Raft goes on: groups elect other leaders, who serve reads.
        match self.world.leader(cluster).await {
            Err(error) => self.violated(format!("{error:#}")),
            Ok(leader) => {
                self.tell(format!("kill -9 {leader}"));
                let killed = self.world.kill(&leader).await;
                self.done(killed);
                let place = nodes.iter().position(|node| *node == leader).unwrap_or_default();
                let mut others = addresses.clone();
                others.remove(place.min(others.len() - 1));
                self.probe(&others, filler).await;
                self.restart(&leader).await;
                self.settle().await;
            }
        }
        tokio::time::sleep_until(until.into()).await;
        self.probe(&addresses, filler).await;
        self.tell(format!("still refused; free: {}", self.free(nodes)));
        self.expect_deaths(&[]);
    }

    /// Each node must read, and refuse to write. What deletes are told is told in the story.
    async fn probe(&mut self, addresses: &[String], filler: &Filler) {
        let numbers: Vec<u64> = filler.acked.lock().iter().copied().take(PROBED).collect();
        if numbers.is_empty() {
            return self.broken("nothing was written".to_owned());
        }
        for address in addresses {
            match ask(address, filler, &numbers).await {
                Ok(line) => self.tell(format!("{address}: {line}")),
                Err(why) => self.broken(format!("{address}: {why}")),
            }
        }
    }

    /// Disks are filled to the last block while values are written through the other nodes, or through all
    /// when there are none: the nodes stop, or do not write. Then they get their space back.
    async fn fill_from_outside(
        &mut self,
        cluster: &str,
        victims: &[String],
        nodes: &[String],
        filler: &Filler,
    ) {
        self.tell(format!("fill the disks of {} from outside", victims.join(" ")));
        let mut through = self.addresses[cluster].clone();
        if victims.len() < nodes.len() {
            let mut all = nodes.iter();
            through.retain(|_| !all.next().is_some_and(|node| victims.contains(node)));
        }
        let (mut dead, began) = (BTreeSet::new(), Instant::now());
        let (before, end) = (filler.acked(), filler.next.load(Relaxed) + THROUGH_MAX);
        let patience = if victims.len() < nodes.len() { STOPS_WITHIN } else { ALL_FULL_FOR };
        while dead.len() < victims.len() && began.elapsed() < patience {
            for node in victims {
                self.squeeze(node, Some(0));
            }
            if filler.next.load(Relaxed) < end {
                for address in &through {
                    if let Ok(mut client) = Client::connect(address, PATIENCE).await {
                        filler.write(&mut client).await;
                    }
                }
            } else {
                tokio::time::sleep(PERIOD).await;
            }
            dead.extend(self.expect_deaths(victims));
        }
        let written = filler.acked() - before;
        self.tell(format!(
            "{} of {} nodes stopped within {:.1?}, {written} values were acknowledged meanwhile; free: {}",
            dead.len(),
            victims.len(),
            began.elapsed(),
            self.free(nodes)
        ));
        if victims.len() < nodes.len() {
            if dead.len() < victims.len() {
                self.broken(format!("a full disk did not stop {}", victims.join(" ")));
            }
            self.more_writes(&[cluster.to_owned()], self.settings.writes).await;
        }
        for node in victims {
            self.squeeze(node, None);
        }
        // Some may have stopped by what was under way.
        dead.extend(self.expect_deaths(victims));
        for node in &dead {
            self.restart(node).await;
        }
        self.settle().await;
        self.more_writes(&[cluster.to_owned()], self.settings.writes).await;
        self.tell(format!("writes go on everywhere; free: {}", self.free(nodes)));
    }

    /// Who has died since this was last asked; a death of anybody else breaks a promise.
    fn expect_deaths(&mut self, may: &[String]) -> Vec<String> {
        let mut found = Vec::new();
        for death in self.world.unexpected_deaths() {
            match may.iter().find(|name| death.starts_with(&format!("{name} "))) {
                Some(name) => {
                    found.push(name.clone());
                    self.tell(death);
                }
                None => self.violated(death),
            }
        }
        found
    }

    /// Everything that was acknowledged must be there.
    async fn read_filled(&mut self, cluster: &str, filler: &Filler) {
        let acked = filler.acked.lock().clone();
        let bulk = Bulk::new(&self.addresses[cluster], self.settings.patience).sized(VALUE_BYTES);
        let get = |number| vec!["GET".to_owned(), filler.key(number)];
        let judge = |number: u64, reply: &Value| {
            let right = !acked.contains(&number) || reply.text() == Some(text(number, VALUE_BYTES));
            (!right).then(|| format!("value {number} was acknowledged and is not there"))
        };
        match bulk.each(0..filler.next.load(Relaxed), get, judge).await {
            Ok(complaints) => complaints.into_iter().for_each(|what| self.broken(what)),
            Err(why) => self.violated(why),
        }
        self.tell(format!("{} large values were acknowledged, all were looked for", acked.len()));
    }
}

/// What one node says to a read, a write and a delete, while its disk is nearly full.
async fn ask(address: &str, filler: &Filler, numbers: &[u64]) -> Result<String, String> {
    let failed = |error: RespError| error.to_string();
    let mut client = Client::connect(address, PATIENCE).await.map_err(failed)?;
    for number in numbers {
        let read = client.call(&["GET", &filler.key(*number)]).await.map_err(failed)?;
        if read.text() != Some(text(*number, VALUE_BYTES)) {
            let read: String = format!("{read:?}").chars().take(80).collect();
            return Err(format!("a value that was acknowledged reads {read}"));
        }
    }
    let write = understood(client.call(&["SET", &format!("{}:more", filler.prefix), "v"]).await);
    if !matches!(write, Said::Full(_)) {
        return Err(format!("a write was not refused: {write:?}"));
    }
    let delete = client.call(&["DEL", &format!("{}:none", filler.prefix)]).await;
    let delete = match understood(delete) {
        Said::Full(_) => "refused".to_owned(),
        said => format!("{said:?}"),
    };
    let count = numbers.len();
    Ok(format!("{count} reads are answered, a write refused, a delete: {delete}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_for_lack_of_disk_are_told_from_others() {
        let error = |line: &str| Ok(Value::Error(line.to_owned().into()));
        let full = "ERR the disk is nearly full: writes are refused";
        assert_eq!(understood(error(full)), Said::Full(full.to_owned()));
        assert_eq!(understood(error("TRYAGAIN no")), Said::Other("TRYAGAIN no".to_owned()));
        assert_eq!(understood(Ok(Value::Int(0))), Said::Done);
    }
}
