//! A wide area network in user space: relays TCP and UDP between datacenters of one machine.
//!
//! The `Relay` owns one `Lane` per directed pair of datacenters (`east` to `west` is another lane
//! than `west` to `east`), and one listening socket per forwarded target. A process of one
//! datacenter is told the relay's address instead of the target's; what it sends travels on its
//! lane, what comes back travels on the opposite lane.
//!
//! Invariants:
//! * Without jitter and reorder a lane keeps order: what was sent earlier arrives earlier, also when
//!   its delay shrinks. A TCP connection keeps order always.
//! * TCP never loses a byte. A cut holds bytes back and lets new connections hang, as a partition
//!   does; after healing they flow. UDP loses what the loss rate, the bandwidth and a cut say, and
//!   suffers what the other shares of a `Path` say.
//! * Every queue has a limit: beyond it UDP drops and TCP pushes back on its sender.
//! * Settings change at once for what is sent from then on.
//!
//! A cut of one direction stops the data of that direction only. In a real network the
//! acknowledgements of the other direction would be lost too, so that its sender would stall after
//! a window of data; a relay that terminates TCP cannot show that.
//!
//! Not here: who dials whom, and which processes run (`process`, and the demo).

mod alarm;
mod lane;
mod shaper;
mod units;

mod tcp;
mod udp;

#[cfg(test)]
mod tests;

pub use lane::Traffic;
pub use shaper::Path;
pub use units::{UnitError, parse_duration, parse_rate, parse_share};

use alarm::Alarm;
use lane::Lane;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The emulated network. Clones are handles of the same network; it stops with the last of them.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

struct Shared {
    alarm: Alarm,
    seed: u64,
    lanes: Mutex<BTreeMap<(String, String), Arc<Lane>>>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Relay {
    /// A network without delay, loss, limits or cuts. The seed decides what happens to which
    /// datagram.
    pub fn new(seed: u64) -> io::Result<Relay> {
        let stop = CancellationToken::new();
        let shared = Shared {
            alarm: Alarm::start()?,
            seed,
            lanes: Mutex::default(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        };
        Ok(Relay { shared: Arc::new(shared) })
    }

    /// Carries TCP connections from datacenter `from` to `target`, which is in `to`. Returns the
    /// address that processes in `from` must dial. Must be called inside a tokio runtime.
    pub async fn forward_tcp(
        &self,
        from: &str,
        to: &str,
        target: SocketAddr,
    ) -> io::Result<SocketAddr> {
        if from == to {
            return Ok(target);
        }
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let road = tcp::Road {
            out: self.lane(from, to),
            back: self.lane(to, from),
            target,
            alarm: self.shared.alarm.clone(),
        };
        let stop = self.shared.stop.clone();
        tokio::spawn(tcp::serve(listener, road, stop));
        Ok(address)
    }

    /// Carries UDP datagrams from datacenter `from` to `target`, which is in `to`, and the answers
    /// back. Returns the address that processes in `from` must send to. Must be called inside a
    /// tokio runtime.
    pub async fn forward_udp(
        &self,
        from: &str,
        to: &str,
        target: SocketAddr,
    ) -> io::Result<SocketAddr> {
        if from == to {
            return Ok(target);
        }
        let (out, back) = (self.lane(from, to), self.lane(to, from));
        let forward = udp::Forward::bind(out, back, target).await?;
        let address = forward.local_addr()?;
        let stop = self.shared.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(forward.serve()).await });
        Ok(address)
    }

    /// The settings of what travels from one datacenter to another.
    pub fn path(&self, from: &str, to: &str) -> Path {
        self.lane(from, to).path()
    }

    /// Changes the settings of one direction; they hold for what is sent from now on.
    pub fn update(&self, from: &str, to: &str, change: impl FnOnce(&mut Path)) {
        self.lane(from, to).update(change);
    }

    /// Changes the settings of both directions between two datacenters.
    pub fn update_both(&self, a: &str, b: &str, change: impl Fn(&mut Path)) {
        self.update(a, b, &change);
        self.update(b, a, &change);
    }

    /// Sets the round trip time between two datacenters: half of it in each direction.
    pub fn set_rtt(&self, a: &str, b: &str, rtt: Duration) {
        self.update_both(a, b, |path| path.delay = rtt / 2);
    }

    /// Drops what travels in one direction (TCP: holds it back) until `heal`.
    pub fn cut(&self, from: &str, to: &str) {
        self.update(from, to, |path| path.cut = true);
    }

    /// Lifts all cuts. Everything else stays as it is.
    pub fn heal(&self) {
        for lane in self.all_lanes() {
            lane.update(|path| path.cut = false);
        }
    }

    /// All directions that were ever used or set, with their settings and what they carried.
    pub fn lanes(&self) -> Vec<(String, String, Path, Traffic)> {
        let lanes = self.shared.lanes.lock();
        lanes
            .iter()
            .map(|((from, to), lane)| (from.clone(), to.clone(), lane.path(), lane.traffic()))
            .collect()
    }

    /// What one direction carried and dropped so far.
    pub fn traffic(&self, from: &str, to: &str) -> Traffic {
        self.lane(from, to).traffic()
    }

    fn lane(&self, from: &str, to: &str) -> Arc<Lane> {
        let mut lanes = self.shared.lanes.lock();
        let number = lanes.len() as u64;
        let lane = lanes.entry((from.to_owned(), to.to_owned())).or_insert_with(|| {
            Arc::new(Lane::new(
                self.shared.seed.wrapping_add(number),
                self.shared.alarm.clone(),
                self.shared.stop.clone(),
            ))
        });
        lane.clone()
    }

    fn all_lanes(&self) -> Vec<Arc<Lane>> {
        self.shared.lanes.lock().values().cloned().collect()
    }
}
