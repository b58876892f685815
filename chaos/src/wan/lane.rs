//! One direction between two datacenters: its live settings, its counters, and the datagrams under
//! way on it. What happens to each is decided by its `Shaper`.
//!
//! TCP connections keep their own queues, since each must be able to push back on its own sender,
//! but they share the lane's bandwidth.

use super::alarm::Alarm;
use super::shaper::{Fate, Path, Shaper};
use super::udp::{self, Flight};
use parking_lot::Mutex;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// A TCP reader stops this far ahead of the lane's bandwidth: far enough to keep the lane busy
/// between two wake-ups, near enough that connections share it fairly.
pub(super) const TCP_AHEAD_MAX: Duration = Duration::from_millis(20);
/// Bytes of datagrams under way on one lane: 500 MB/s at a delay of 100 ms and more.
pub(super) const UDP_LANE_BYTES_MAX: usize = 64 << 20;
/// Batches of datagrams under way on one lane.
pub(super) const UDP_LANE_FLIGHTS_MAX: usize = 64 << 10;
/// Batches that land in one go, before others get their turn.
const LANDINGS_MAX: usize = 64;

/// What one direction carried since it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes that entered: of datagrams and of connections.
    pub bytes: u64,
    /// Datagrams that entered.
    pub datagrams: u64,
    /// Datagrams lost by the loss rate.
    pub lost: u64,
    /// Datagrams held back behind later ones.
    pub reordered: u64,
    /// Datagrams that got a copy.
    pub duplicated: u64,
    /// Datagrams with a bit flipped.
    pub corrupted: u64,
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
    reordered: AtomicU64,
    duplicated: AtomicU64,
    corrupted: AtomicU64,
    overflowed: AtomicU64,
    cut: AtomicU64,
}

/// Datagrams under way, the next to land first.
#[derive(Default)]
struct UnderWay {
    flights: BinaryHeap<Ticket>,
    bytes: usize,
    /// Flights that were ever launched: those that land at the same time do so in this order.
    launched: u64,
}

struct Ticket {
    number: u64,
    flight: Flight,
}

impl Ticket {
    fn place(&self) -> (Instant, u64) {
        (self.flight.due(), self.number)
    }
}

impl Ord for Ticket {
    /// The heap gives out its greatest: that is the one to land first.
    fn cmp(&self, other: &Ticket) -> Ordering {
        other.place().cmp(&self.place())
    }
}

impl PartialOrd for Ticket {
    fn partial_cmp(&self, other: &Ticket) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Ticket) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Ticket {}

/// One direction, shared by all sockets whose data travels on it.
pub(super) struct Lane {
    path: watch::Sender<Path>,
    shaper: Mutex<Shaper>,
    counters: Counters,
    under_way: Mutex<UnderWay>,
    /// A flight was launched that lands before all others.
    earlier: Notify,
    /// The task that delivers starts with the first datagram.
    delivering: AtomicBool,
    alarm: Alarm,
    stop: CancellationToken,
}

impl Lane {
    pub(super) fn new(seed: u64, alarm: Alarm, stop: CancellationToken) -> Lane {
        Lane {
            path: watch::Sender::new(Path::default()),
            shaper: Mutex::new(Shaper::new(Instant::now(), seed)),
            counters: Counters::default(),
            under_way: Mutex::default(),
            earlier: Notify::new(),
            delivering: AtomicBool::new(false),
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
        let counters = &self.counters;
        Traffic {
            bytes: counters.bytes.load(Relaxed),
            datagrams: counters.datagrams.load(Relaxed),
            lost: counters.lost.load(Relaxed),
            reordered: counters.reordered.load(Relaxed),
            duplicated: counters.duplicated.load(Relaxed),
            corrupted: counters.corrupted.load(Relaxed),
            overflowed: counters.overflowed.load(Relaxed),
            cut: counters.cut.load(Relaxed),
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
        let path = self.path();
        let arrives = Instant::now() + path.delay + self.shaper.lock().late(&path);
        self.alarm.until(arrives).await;
        self.open().await;
    }

    /// Puts bytes of a connection on the lane and says when they arrive.
    pub(super) fn stream_bytes(&self, bytes: usize) -> Instant {
        self.counters.bytes.fetch_add(bytes as u64, Relaxed);
        let path = self.path();
        self.shaper.lock().stream(&path, Instant::now(), bytes)
    }

    /// Until when a connection must not read on, because the lane's bandwidth is used up.
    pub(super) fn stream_pause(&self) -> Option<Instant> {
        self.path().rate?;
        let resume = self.shaper.lock().free_at().checked_sub(TCP_AHEAD_MAX)?;
        (resume > Instant::now()).then_some(resume)
    }

    /// Decides the fates of datagrams of these sizes and counts them.
    pub(super) fn datagrams(&self, sizes: impl Iterator<Item = usize>, fates: &mut Vec<Fate>) {
        let path = self.path();
        let now = Instant::now();
        let mut shaper = self.shaper.lock();
        for size in sizes {
            let fate = shaper.datagram(&path, now, size);
            self.count(size, &fate);
            fates.push(fate);
        }
    }

    fn count(&self, size: usize, fate: &Fate) {
        let counters = &self.counters;
        counters.datagrams.fetch_add(1, Relaxed);
        counters.bytes.fetch_add(size as u64, Relaxed);
        let one_more = |counter: &AtomicU64, so: bool| {
            if so {
                counter.fetch_add(1, Relaxed);
            }
        };
        match fate {
            Fate::Arrives(arrival) => {
                one_more(&counters.reordered, arrival.held);
                one_more(&counters.duplicated, arrival.again.is_some());
                one_more(&counters.corrupted, arrival.flip.is_some());
            }
            Fate::Lost => one_more(&counters.lost, true),
            Fate::Overflows => one_more(&counters.overflowed, true),
            Fate::Cut => one_more(&counters.cut, true),
        }
    }

    /// Sends datagrams on their way; over the lane's limits they are dropped.
    pub(super) fn launch(self: &Arc<Lane>, flight: Flight) {
        if !self.delivering.swap(true, Relaxed) {
            let lane = self.clone();
            tokio::spawn(async move {
                lane.stop.clone().run_until_cancelled(lane.deliver()).await;
            });
        }
        let mut under_way = self.under_way.lock();
        let bytes = under_way.bytes + flight.len();
        if bytes > UDP_LANE_BYTES_MAX || under_way.flights.len() >= UDP_LANE_FLIGHTS_MAX {
            drop(under_way);
            self.counters.overflowed.fetch_add(flight.count() as u64, Relaxed);
            return;
        }
        let first = under_way.flights.peek().is_none_or(|next| flight.due() < next.flight.due());
        let number = under_way.launched;
        under_way.launched += 1;
        under_way.bytes = bytes;
        under_way.flights.push(Ticket { number, flight });
        drop(under_way);
        // Who waits for an earlier one anyway need not be woken: in order, that is nearly always.
        if first {
            self.earlier.notify_one();
        }
    }

    /// Lets flights land when they are due, for ever.
    async fn deliver(&self) {
        let mut due = Vec::with_capacity(LANDINGS_MAX);
        loop {
            match self.take_due(&mut due) {
                Wait::Not => {
                    for flight in due.drain(..) {
                        self.land(&flight);
                    }
                    tokio::task::yield_now().await;
                }
                Wait::Until(next) => tokio::select! {
                    () = self.alarm.until(next) => {}
                    () = self.earlier.notified() => {}
                },
                Wait::ForOne => self.earlier.notified().await,
            }
        }
    }

    fn take_due(&self, due: &mut Vec<Flight>) -> Wait {
        let now = Instant::now();
        let mut under_way = self.under_way.lock();
        while due.len() < LANDINGS_MAX {
            match under_way.flights.peek() {
                Some(next) if next.flight.due() <= now => {}
                Some(next) if due.is_empty() => return Wait::Until(next.flight.due()),
                None if due.is_empty() => return Wait::ForOne,
                _ => break,
            }
            if let Some(Ticket { flight, .. }) = under_way.flights.pop() {
                under_way.bytes -= flight.len();
                due.push(flight);
            }
        }
        Wait::Not
    }

    fn land(&self, flight: &Flight) {
        if self.path.borrow().cut {
            self.counters.cut.fetch_add(flight.count() as u64, Relaxed);
        } else {
            udp::land(flight);
        }
    }
}

/// What the delivering task does next.
enum Wait {
    /// Flights are due.
    Not,
    /// The next one is due then.
    Until(Instant),
    /// Nothing is under way.
    ForOne,
}
