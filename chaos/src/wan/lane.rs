//! One direction between two datacenters: its settings, and when what is sent now will arrive.
//!
//! `Shaper` is the arithmetic (time is an argument); `Lane` holds it with the live settings, the
//! counters, and the queue of datagrams under way. TCP connections keep their own queues, since
//! each must be able to push back on its own sender, but they share the lane's bandwidth.

use super::alarm::Alarm;
use super::udp::{self, Flight};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Datagrams that wait for bandwidth longer than this are dropped, as a router's queue does.
pub(super) const UDP_QUEUE_TIME_MAX: Duration = Duration::from_millis(50);
/// A TCP reader stops this far ahead of the lane's bandwidth: far enough to keep the lane busy
/// between two wake-ups, near enough that connections share it fairly.
pub(super) const TCP_AHEAD_MAX: Duration = Duration::from_millis(20);
/// Bytes of datagrams under way on one lane: 500 MB/s at a delay of 100 ms and more.
pub(super) const UDP_LANE_BYTES_MAX: u64 = 64 << 20;
/// Batches of datagrams under way on one lane.
pub(super) const UDP_LANE_FLIGHTS_MAX: usize = 64 << 10;

/// What the network is like in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Path {
    /// One way delay: half of a round trip.
    pub delay: Duration,
    /// Share of the datagrams that are lost, 0 to 1. TCP hides loss, so it does not apply there.
    pub loss: f64,
    /// Bandwidth in bits per second, shared by all that travels in this direction.
    pub rate: Option<u64>,
    /// Nothing passes: datagrams are dropped, TCP stalls.
    pub cut: bool,
}

/// What one direction carried since it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes that entered: of datagrams and of connections.
    pub bytes: u64,
    /// Datagrams that entered.
    pub datagrams: u64,
    /// Datagrams lost by the loss rate.
    pub lost: u64,
    /// Datagrams dropped because a queue was full.
    pub overflowed: u64,
    /// Datagrams dropped by a cut.
    pub cut: u64,
}

#[derive(Default)]
struct Counters {
    bytes: AtomicU64,
    datagrams: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
    cut: AtomicU64,
}

/// What becomes of a datagram that enters a lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives(Instant),
    Lost,
    Overflows,
    Cut,
}

/// When the line is free again, and the dice.
struct Shaper {
    free_at: Instant,
    dice: SmallRng,
}

impl Shaper {
    fn datagram(&mut self, path: &Path, now: Instant, bytes: usize) -> Fate {
        if path.cut {
            return Fate::Cut;
        }
        if path.rate.is_some() && self.free_at > now + UDP_QUEUE_TIME_MAX {
            return Fate::Overflows;
        }
        let left = self.transmit(path, now, bytes);
        // Loss strikes on the way: a lost datagram has used its bandwidth.
        if path.loss > 0.0 && self.dice.random_bool(path.loss.min(1.0)) {
            return Fate::Lost;
        }
        Fate::Arrives(left + path.delay)
    }

    /// Puts bytes on the line and says when the last of them has left.
    fn transmit(&mut self, path: &Path, now: Instant, bytes: usize) -> Instant {
        let Some(rate) = path.rate else {
            self.free_at = now;
            return now;
        };
        let seconds = bytes as f64 * 8.0 / rate.max(1) as f64;
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(seconds);
        self.free_at
    }
}

/// One direction, shared by all sockets whose data travels on it.
pub(super) struct Lane {
    path: watch::Sender<Path>,
    shaper: Mutex<Shaper>,
    counters: Counters,
    /// Bytes of datagrams in `flights`.
    under_way: AtomicU64,
    flights: mpsc::Sender<Flight>,
    /// Taken by the task that delivers, which starts with the first datagram.
    undelivered: Mutex<Option<mpsc::Receiver<Flight>>>,
    alarm: Alarm,
    stop: CancellationToken,
}

impl Lane {
    pub(super) fn new(seed: u64, alarm: Alarm, stop: CancellationToken) -> Lane {
        let (flights, undelivered) = mpsc::channel(UDP_LANE_FLIGHTS_MAX);
        Lane {
            path: watch::Sender::new(Path::default()),
            shaper: Mutex::new(Shaper {
                free_at: Instant::now(),
                dice: SmallRng::seed_from_u64(seed),
            }),
            counters: Counters::default(),
            under_way: AtomicU64::new(0),
            flights,
            undelivered: Mutex::new(Some(undelivered)),
            alarm,
            stop,
        }
    }

    pub(super) fn path(&self) -> Path {
        *self.path.borrow()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Path)) {
        self.path.send_modify(change);
    }

    pub(super) fn traffic(&self) -> Traffic {
        let Counters { bytes, datagrams, lost, overflowed, cut } = &self.counters;
        Traffic {
            bytes: bytes.load(Relaxed),
            datagrams: datagrams.load(Relaxed),
            lost: lost.load(Relaxed),
            overflowed: overflowed.load(Relaxed),
            cut: cut.load(Relaxed),
        }
    }

    /// Waits while the lane is cut.
    pub(super) async fn open(&self) {
        if self.path.borrow().cut {
            // The lane owns the sender, so this ends with an open lane or not at all.
            let _ = self.path.subscribe().wait_for(|path| !path.cut).await;
        }
    }

    /// Waits as long as one small packet needs: the delay, and for a cut to heal.
    pub(super) async fn trip(&self) {
        let arrives = Instant::now() + self.path().delay;
        self.alarm.until(arrives).await;
        self.open().await;
    }

    /// Puts bytes of a connection on the lane and says when they arrive.
    pub(super) fn stream_bytes(&self, bytes: usize) -> Instant {
        self.counters.bytes.fetch_add(bytes as u64, Relaxed);
        let path = self.path();
        self.shaper.lock().transmit(&path, Instant::now(), bytes) + path.delay
    }

    /// Until when a connection must not read on, because the lane's bandwidth is used up.
    pub(super) fn stream_pause(&self) -> Option<Instant> {
        self.path().rate?;
        let resume = self.shaper.lock().free_at.checked_sub(TCP_AHEAD_MAX)?;
        (resume > Instant::now()).then_some(resume)
    }

    /// Decides the fate of the datagrams of one size and counts them.
    pub(super) fn datagrams(&self, sizes: impl Iterator<Item = usize>, fates: &mut Vec<Fate>) {
        let path = self.path();
        let now = Instant::now();
        let mut shaper = self.shaper.lock();
        for size in sizes {
            self.counters.datagrams.fetch_add(1, Relaxed);
            self.counters.bytes.fetch_add(size as u64, Relaxed);
            let fate = shaper.datagram(&path, now, size);
            match fate {
                Fate::Arrives(_) => 0,
                Fate::Lost => self.counters.lost.fetch_add(1, Relaxed),
                Fate::Overflows => self.counters.overflowed.fetch_add(1, Relaxed),
                Fate::Cut => self.counters.cut.fetch_add(1, Relaxed),
            };
            fates.push(fate);
        }
    }

    /// Sends datagrams on their way; over the lane's limits they are dropped.
    pub(super) fn launch(self: &Arc<Lane>, flight: Flight) {
        let undelivered = self.undelivered.lock().take();
        if let Some(undelivered) = undelivered {
            let (lane, stop) = (self.clone(), self.stop.clone());
            tokio::spawn(async move {
                stop.run_until_cancelled(udp::deliver(&lane, undelivered)).await;
            });
        }
        let (bytes, count) = (flight.len() as u64, flight.count() as u64);
        let full = self.under_way.fetch_add(bytes, Relaxed) + bytes > UDP_LANE_BYTES_MAX;
        if full || self.flights.try_send(flight).is_err() {
            self.under_way.fetch_sub(bytes, Relaxed);
            self.counters.overflowed.fetch_add(count, Relaxed);
        }
    }

    /// Waits until a flight is due and says whether it may land.
    pub(super) async fn land(&self, flight: &Flight) -> bool {
        self.alarm.until(flight.due()).await;
        self.under_way.fetch_sub(flight.len() as u64, Relaxed);
        if self.path.borrow().cut {
            self.counters.cut.fetch_add(flight.count() as u64, Relaxed);
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaper(now: Instant) -> Shaper {
        Shaper { free_at: now, dice: SmallRng::seed_from_u64(7) }
    }

    #[test]
    fn bandwidth_spaces_datagrams_and_the_queue_ends() {
        let now = Instant::now();
        let mut shaper = shaper(now);
        // 1,250 bytes at 10 Mbit/s take a millisecond.
        let path = Path { rate: Some(10_000_000), ..Path::default() };
        for n in 1..=51 {
            let expected = now + Duration::from_millis(n);
            let Fate::Arrives(at) = shaper.datagram(&path, now, 1250) else { panic!("dropped") };
            let off = at.max(expected) - at.min(expected);
            assert!(off < Duration::from_micros(1), "datagram {n} is off by {off:?}");
        }
        assert_eq!(shaper.datagram(&path, now, 1250), Fate::Overflows);
        let later = now + Duration::from_millis(2);
        assert!(matches!(shaper.datagram(&path, later, 1250), Fate::Arrives(_)));
    }

    #[test]
    fn loss_is_as_frequent_as_asked() {
        let now = Instant::now();
        let mut shaper = shaper(now);
        let path = Path { loss: 0.1, ..Path::default() };
        let lost = (0..10_000).filter(|_| shaper.datagram(&path, now, 100) == Fate::Lost).count();
        assert!((850..1150).contains(&lost), "{lost} of 10000 lost at 10 %");
    }

    #[test]
    fn a_cut_takes_all() {
        let now = Instant::now();
        let path = Path { cut: true, ..Path::default() };
        assert_eq!(shaper(now).datagram(&path, now, 100), Fate::Cut);
    }
}
