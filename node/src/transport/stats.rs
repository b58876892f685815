//! What the transport counts, and what pings measure.

use super::frame::Frame;
use super::{Class, RpcError};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples that are kept: the best of them counts, since queues only ever add to a round trip.
const SAMPLES_KEPT: usize = 8;

/// Pings and pongs that may wait for a blocked writer; further ones are dropped, as they would only
/// tell the time late.
pub(super) const PULSES_MAX: usize = 16;

/// How far away a peer is and what its wall clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerClock {
    /// Round trip time, the best of the last few pings.
    pub rtt: Duration,
    /// The peer's wall clock minus ours now, in milliseconds, exact to about half the round trip.
    /// A jump of our clock shows at once, one of the peer's within the next few pings.
    pub offset_ms: i64,
}

/// Counts of one connection, by class and direction.
pub(super) struct Meter {
    bytes_in: metrics::Counter,
    bytes_out: metrics::Counter,
    frames_in: metrics::Counter,
    frames_out: metrics::Counter,
    open: metrics::Gauge,
}

impl Meter {
    pub fn new(class: Class, side: &'static str) -> Meter {
        let counter = |name: &'static str, direction: &'static str| metrics::counter!(name, "class" => class.as_str(), "direction" => direction);
        let open = metrics::gauge!(
            "flotilla_transport_connections", "class" => class.as_str(), "side" => side
        );
        open.increment(1.0);
        Meter {
            bytes_in: counter("flotilla_transport_bytes_total", "in"),
            bytes_out: counter("flotilla_transport_bytes_total", "out"),
            frames_in: counter("flotilla_transport_frames_total", "in"),
            frames_out: counter("flotilla_transport_frames_total", "out"),
            open,
        }
    }

    pub fn sent(&self, frames: &[Frame]) {
        self.frames_out.increment(frames.len() as u64);
        self.bytes_out.increment(frames.iter().map(|frame| frame.wire_bytes() as u64).sum());
    }

    pub fn received(&self, frame: &Frame) {
        self.frames_in.increment(1);
        self.bytes_in.increment(frame.wire_bytes() as u64);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

/// Counts of finished calls of one lane, by outcome.
pub(super) struct CallCounts {
    answered: metrics::Counter,
    refused: metrics::Counter,
    unreachable: metrics::Counter,
    lost: metrics::Counter,
    timeout: metrics::Counter,
}

impl CallCounts {
    pub fn new(class: Class) -> CallCounts {
        let counter = |outcome: &'static str| {
            let class = class.as_str();
            let name = "flotilla_transport_calls_total";
            metrics::counter!(name, "class" => class, "outcome" => outcome)
        };
        CallCounts {
            answered: counter("answered"),
            refused: counter("refused"),
            unreachable: counter("unreachable"),
            lost: counter("lost"),
            timeout: counter("timeout"),
        }
    }

    pub fn count<T>(&self, outcome: &Result<T, RpcError>) {
        let counter = match outcome {
            Ok(_) => &self.answered,
            Err(RpcError::Refused(_)) => &self.refused,
            Err(RpcError::Unreachable(_)) => &self.unreachable,
            Err(RpcError::Lost(_)) => &self.lost,
            Err(RpcError::Timeout) => &self.timeout,
        };
        counter.increment(1);
    }
}

pub(super) fn count_dial(outcome: &'static str) {
    metrics::counter!("flotilla_transport_dials_total", "outcome" => outcome).increment(1);
}

pub(super) fn count_rejected(reason: &'static str) {
    metrics::counter!("flotilla_transport_rejected_total", "reason" => reason).increment(1);
}

/// The pings of one connection: when the peer was last heard, and what its answers told.
pub(super) struct Pulse {
    state: Mutex<PulseState>,
}

struct PulseState {
    heard: Instant,
    next_id: u64,
    waiting: Option<(u64, Instant)>,
    samples: VecDeque<Sample>,
}

/// What a pong told.
struct Sample {
    rtt: Duration,
    /// The peer's wall clock at `at`, about.
    there_ms: u64,
    at: Instant,
}

impl PulseState {
    /// The best sample, seen from our wall clock now.
    fn clock(&self, here_ms: u64) -> Option<PeerClock> {
        let Sample { rtt, there_ms, at } = self.samples.iter().min_by_key(|sample| sample.rtt)?;
        let there_now = u128::from(*there_ms) + at.elapsed().as_millis();
        let ahead = i128::try_from(there_now).unwrap_or(i128::MAX) - i128::from(here_ms);
        let offset_ms = i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX });
        Some(PeerClock { rtt: *rtt, offset_ms })
    }
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse {
            state: Mutex::new(PulseState {
                heard: Instant::now(),
                next_id: 0,
                waiting: None,
                samples: VecDeque::with_capacity(SAMPLES_KEPT),
            }),
        }
    }
}

impl Pulse {
    /// Bytes came.
    pub fn heard(&self) {
        self.state.lock().heard = Instant::now();
    }

    /// How long nothing came.
    pub fn silent_for(&self) -> Duration {
        self.state.lock().heard.elapsed()
    }

    /// A ping is about to leave; its id.
    pub fn ping(&self) -> u64 {
        let mut state = self.state.lock();
        state.next_id += 1;
        state.waiting = Some((state.next_id, Instant::now()));
        state.next_id
    }

    /// A pong came with the peer's wall clock; `here_ms` is ours now.
    pub fn pong(&self, id: u64, there_ms: u64, here_ms: u64) -> Option<PeerClock> {
        let mut state = self.state.lock();
        let (_, sent) = state.waiting.take_if(|(waiting, _)| *waiting == id)?;
        let rtt = sent.elapsed();
        // The peer read its clock about half a round trip ago.
        let there_ms = there_ms.saturating_add(rtt.as_millis() as u64 / 2);
        if state.samples.len() == SAMPLES_KEPT {
            state.samples.pop_front();
        }
        state.samples.push_back(Sample { rtt, there_ms, at: Instant::now() });
        state.clock(here_ms)
    }

    /// The best sample; `here_ms` is our wall clock now.
    pub fn clock(&self, here_ms: u64) -> Option<PeerClock> {
        self.state.lock().clock(here_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a pong told holds until the next one, whatever our own clock does meanwhile.
    #[test]
    fn a_jump_of_our_own_clock_shows_at_once() {
        let pulse = Pulse::default();
        assert_eq!(pulse.clock(5), None);
        let id = pulse.ping();
        let told = pulse.pong(id, 100_000, 100_000).unwrap();
        assert!(told.offset_ms.abs() < 1_000, "{told:?}");
        let jumped = pulse.clock(103_000).unwrap();
        assert!((-3_000..-2_000).contains(&jumped.offset_ms), "{jumped:?}");
    }
}
