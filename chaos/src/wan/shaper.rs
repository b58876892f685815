//! What one direction does to what travels on it. Arithmetic and dice: time is an argument.
//!
//! Invariants:
//! * A knob at zero rolls no dice: what it does not touch is the same with it and without it, and
//!   the same seed gives the same datagrams the same fate.
//! * Datagrams arrive in order unless jitter or a hold says otherwise, also when the delay shrinks.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt;
use std::time::{Duration, Instant};

/// Datagrams that wait for bandwidth longer than this are dropped, as a router's queue does.
pub(super) const UDP_QUEUE_TIME_MAX: Duration = Duration::from_millis(50);
/// What is reordered arrives so much later than it would have ...
pub(super) const HOLD_MIN: Duration = Duration::from_millis(2);
/// ... up to so much; a copy arrives behind its original by up to this.
pub(super) const HOLD_MAX: Duration = Duration::from_millis(8);

/// What the network is like in one direction. Shares are probabilities, 0 to 1, of one datagram;
/// TCP hides loss, order, copies and damage, so they do not apply there.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Path {
    /// One way delay: half of a round trip.
    pub delay: Duration,
    /// Each datagram takes up to this longer, by chance, so that datagrams may overtake each
    /// other. A connection's bytes are late too, but stay in order.
    pub jitter: Duration,
    /// Share of the datagrams that are lost.
    pub loss: f64,
    /// Share of the datagrams that are held back some milliseconds, behind later ones.
    pub reorder: f64,
    /// Share of the datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of the datagrams that arrive with one bit flipped. Of one that arrives twice, the
    /// copy is whole.
    pub corrupt: f64,
    /// Bandwidth in bits per second, shared by all that travels in this direction.
    pub rate: Option<u64>,
    /// Nothing passes: datagrams are dropped, TCP stalls.
    pub cut: bool,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delay {:?}", self.delay)?;
        if !self.jitter.is_zero() {
            write!(f, ", jitter {:?}", self.jitter)?;
        }
        let Path { loss, reorder, duplicate, corrupt, .. } = *self;
        write!(f, ", loss {}%", percent(loss))?;
        for (name, share) in [("reorder", reorder), ("duplicate", duplicate), ("corrupt", corrupt)]
        {
            if share > 0.0 {
                write!(f, ", {name} {}%", percent(share))?;
            }
        }
        match self.rate {
            Some(bits) => write!(f, ", {} mbit", bits as f64 / 1e6)?,
            None => write!(f, ", no limit")?,
        }
        if self.cut { write!(f, ", CUT") } else { Ok(()) }
    }
}

/// Without the digits that a product of binary fractions may have.
fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

/// What becomes of a datagram that enters a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives(Arrival),
    Lost,
    Overflows,
    Cut,
}

/// How a datagram arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    /// When.
    pub(super) due: Instant,
    /// It was held back behind later ones.
    pub(super) held: bool,
    /// When its copy arrives.
    pub(super) again: Option<Instant>,
    /// The bit that is flipped on the way.
    pub(super) flip: Option<usize>,
}

/// When the line is free again, what arrives last, and the dice.
pub(super) struct Shaper {
    free_at: Instant,
    /// When the last datagram that was not held back arrives: later ones stay behind it.
    newest: Instant,
    dice: SmallRng,
    /// Of their own for connections, so that those do not change what happens to datagrams.
    stream_dice: SmallRng,
}

impl Shaper {
    pub(super) fn new(now: Instant, seed: u64) -> Shaper {
        let dice = SmallRng::seed_from_u64(seed);
        let stream_dice = SmallRng::seed_from_u64(!seed);
        Shaper { free_at: now, newest: now, dice, stream_dice }
    }

    pub(super) fn free_at(&self) -> Instant {
        self.free_at
    }

    pub(super) fn datagram(&mut self, path: &Path, now: Instant, bytes: usize) -> Fate {
        if path.cut {
            return Fate::Cut;
        }
        if path.rate.is_some() && self.free_at > now + UDP_QUEUE_TIME_MAX {
            return Fate::Overflows;
        }
        let left = self.transmit(path, now, bytes);
        // Loss strikes on the way: a lost datagram has used its bandwidth.
        if self.strikes(path.loss) {
            return Fate::Lost;
        }
        let (due, held) = self.due(path, left);
        let copied = self.strikes(path.duplicate);
        let again = copied.then(|| due + self.dice.random_range(Duration::ZERO..=HOLD_MAX));
        let damaged = bytes > 0 && self.strikes(path.corrupt);
        let flip = damaged.then(|| self.dice.random_range(0..bytes * 8));
        Fate::Arrives(Arrival { due, held, again, flip })
    }

    fn due(&mut self, path: &Path, left: Instant) -> (Instant, bool) {
        let straight = left + path.delay;
        let due = if path.jitter.is_zero() {
            straight.max(self.newest)
        } else {
            straight + self.dice.random_range(Duration::ZERO..=path.jitter)
        };
        if self.strikes(path.reorder) {
            return (due + self.dice.random_range(HOLD_MIN..=HOLD_MAX), true);
        }
        self.newest = self.newest.max(due);
        (due, false)
    }

    fn strikes(&mut self, share: f64) -> bool {
        share > 0.0 && self.dice.random_bool(share.min(1.0))
    }

    /// When bytes of a connection that are sent now arrive. They may not overtake what the same
    /// connection sent before: the caller sees to that.
    pub(super) fn stream(&mut self, path: &Path, now: Instant, bytes: usize) -> Instant {
        self.transmit(path, now, bytes) + path.delay + self.late(path)
    }

    /// How much longer than the delay the next packet of a connection takes.
    pub(super) fn late(&mut self, path: &Path) -> Duration {
        if path.jitter.is_zero() {
            return Duration::ZERO;
        }
        self.stream_dice.random_range(Duration::ZERO..=path.jitter)
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const COUNT: usize = 10_000;

    fn shaper(now: Instant) -> Shaper {
        Shaper::new(now, 7)
    }

    fn arrivals(path: &Path, now: Instant) -> Vec<Arrival> {
        let mut shaper = shaper(now);
        let mut arrival = || match shaper.datagram(path, now, 100) {
            Fate::Arrives(arrival) => arrival,
            other => panic!("{other:?}"),
        };
        (0..COUNT).map(|_| arrival()).collect()
    }

    #[test]
    fn bandwidth_spaces_datagrams_and_the_queue_ends() {
        let now = Instant::now();
        let mut shaper = shaper(now);
        // 1,250 bytes at 10 Mbit/s take a millisecond.
        let path = Path { rate: Some(10_000_000), ..Path::default() };
        for n in 1..=51 {
            let expected = now + Duration::from_millis(n);
            let Fate::Arrives(Arrival { due, .. }) = shaper.datagram(&path, now, 1250) else {
                panic!("dropped")
            };
            let off = due.max(expected) - due.min(expected);
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
        let lost = (0..COUNT).filter(|_| shaper.datagram(&path, now, 100) == Fate::Lost).count();
        assert!((850..1150).contains(&lost), "{lost} of {COUNT} lost at 10 %");
    }

    #[test]
    fn a_cut_takes_all() {
        let now = Instant::now();
        let path = Path { cut: true, ..Path::default() };
        assert_eq!(shaper(now).datagram(&path, now, 100), Fate::Cut);
    }

    #[test]
    fn jitter_spreads_arrivals_between_the_delay_and_the_delay_plus_jitter() {
        let now = Instant::now();
        let found = arrivals(&Path { delay: 20 * MS, jitter: 10 * MS, ..Path::default() }, now);
        let late: Vec<Duration> = found.iter().map(|one| one.due - now - 20 * MS).collect();
        assert!(late.iter().all(|late| *late <= 10 * MS));
        let mean = late.iter().sum::<Duration>() / COUNT as u32;
        assert!(mean > 4800 * MS / 1000 && mean < 5200 * MS / 1000, "mean {mean:?} of 10 ms");
        let overtaken = late.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!((4700..5300).contains(&overtaken), "{overtaken} of {COUNT} are overtaken");
    }

    #[test]
    fn what_is_held_back_and_nothing_else_arrives_behind_later_ones() {
        let now = Instant::now();
        let found = arrivals(&Path { delay: 20 * MS, reorder: 0.1, ..Path::default() }, now);
        let (held, straight): (Vec<Arrival>, Vec<Arrival>) =
            found.into_iter().partition(|one| one.held);
        assert!((850..1150).contains(&held.len()), "{} of {COUNT} held at 10 %", held.len());
        assert!(held.iter().all(|one| one.due >= now + 22 * MS && one.due <= now + 28 * MS));
        assert!(straight.iter().all(|one| one.due == now + 20 * MS));
    }

    #[test]
    fn copies_and_damage_are_as_frequent_as_asked() {
        let now = Instant::now();
        let found = arrivals(&Path { duplicate: 0.1, ..Path::default() }, now);
        let copies: Vec<Instant> = found.iter().filter_map(|one| one.again).collect();
        assert!((850..1150).contains(&copies.len()), "{} of {COUNT} copied", copies.len());
        assert!(copies.iter().all(|again| *again >= now && *again <= now + HOLD_MAX));
        let found = arrivals(&Path { corrupt: 0.1, ..Path::default() }, now);
        let bits: Vec<usize> = found.iter().filter_map(|one| one.flip).collect();
        assert!((850..1150).contains(&bits.len()), "{} of {COUNT} damaged", bits.len());
        assert!(bits.iter().all(|bit| *bit < 800));
        assert!(bits.iter().any(|bit| *bit < 80) && bits.iter().any(|bit| *bit >= 720));
        let nothing = Path { corrupt: 1.0, ..Path::default() };
        let fate = shaper(now).datagram(&nothing, now, 0);
        assert!(matches!(fate, Fate::Arrives(Arrival { flip: None, .. })), "{fate:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_fates_and_connections_do_not_change_them() {
        let now = Instant::now();
        let share = 0.2;
        let path = Path { jitter: 9 * MS, loss: share, reorder: share, ..Path::default() };
        let path = Path { duplicate: share, corrupt: share, ..path };
        let mut fates = [shaper(now), shaper(now)].map(|mut shaper| {
            let fate = |_| shaper.datagram(&path, now, 100);
            (0..1000).map(fate).collect::<Vec<Fate>>()
        });
        assert_eq!(fates[0], fates[1]);
        let mut busy = shaper(now);
        for fate in fates[0].drain(..) {
            busy.stream(&path, now, 1000);
            assert_eq!(busy.datagram(&path, now, 100), fate);
        }
    }

    #[test]
    fn without_jitter_order_is_kept_also_when_the_delay_shrinks() {
        let now = Instant::now();
        let mut shaper = shaper(now);
        let mut last = now;
        for delay in [30, 30, 10, 10, 20, 0] {
            let path = Path { delay: delay * MS, ..Path::default() };
            let Fate::Arrives(Arrival { due, held, again, flip }) =
                shaper.datagram(&path, now, 100)
            else {
                panic!("dropped")
            };
            assert!(due >= last, "overtakes at a delay of {delay} ms");
            assert_eq!((held, again, flip), (false, None, None));
            last = due;
        }
    }

    #[test]
    fn a_path_is_told_in_words() {
        let path = Path { delay: 30 * MS, loss: 0.01, ..Path::default() };
        assert_eq!(path.to_string(), "delay 30ms, loss 1%, no limit");
        let bad =
            Path { jitter: 10 * MS, corrupt: 0.001, cut: true, rate: Some(1e8 as u64), ..path };
        let told = "delay 30ms, jitter 10ms, loss 1%, corrupt 0.1%, 100 mbit, CUT";
        assert_eq!(bad.to_string(), told);
    }
}
