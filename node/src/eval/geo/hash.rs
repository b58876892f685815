//! Geohashes of 52 bits, bit by bit those of Redis, and distances on a sphere.

/// The latitudes that web maps show, in degrees.
pub(super) const LATITUDE_MAX: f64 = 85.05112878;
pub(super) const LONGITUDE_MAX: f64 = 180.0;
/// Bits of each of the two.
pub(super) const STEPS: u32 = 26;
/// The radius of Redis' earth, in meters.
pub(super) const EARTH_METERS: f64 = 6_372_797.560856;

/// A place, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) longitude: f64,
    pub(super) latitude: f64,
}

/// Every other bit, from the lowest on.
pub(super) fn spread(number: u32) -> u64 {
    let mut bits = u64::from(number);
    for (shift, mask) in [
        (16, 0x0000_FFFF_0000_FFFF),
        (8, 0x00FF_00FF_00FF_00FF),
        (4, 0x0F0F_0F0F_0F0F_0F0F),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// The opposite.
fn gather(bits: u64) -> u32 {
    let mut number = bits & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0F0F_0F0F_0F0F_0F0F),
        (4, 0x00FF_00FF_00FF_00FF),
        (8, 0x0000_FFFF_0000_FFFF),
        (16, 0x0000_0000_FFFF_FFFF),
    ] {
        number = (number | number >> shift) & mask;
    }
    number as u32
}

/// Which of `1 << steps` equal parts of `-max..max` a number is in; `max` is in one more, as in Redis.
pub(super) fn part(number: f64, max: f64, steps: u32) -> u32 {
    ((number + max) / (2.0 * max) * f64::from(1u32 << steps)) as u32
}

/// Where one of them begins and ends.
pub(super) fn edges(part: u32, max: f64, steps: u32) -> (f64, f64) {
    let edge = |part: f64| -max + part / f64::from(1u32 << steps) * (2.0 * max);
    (edge(f64::from(part)), edge(f64::from(part) + 1.0))
}

fn hash_of(place: Place, latitude_max: f64) -> u64 {
    let latitude = part(place.latitude, latitude_max, STEPS);
    spread(latitude) | spread(part(place.longitude, LONGITUDE_MAX, STEPS)) << 1
}

/// The geohash that a score is. One that is none, such as an infinity, is what x86-64 makes of it.
fn bits_of(score: f64) -> u64 {
    const HALF: f64 = (1u64 << 63) as f64;
    match score {
        _ if score < HALF => score as i64 as u64,
        _ if score < 2.0 * HALF => score as u64,
        _ => 0,
    }
}

impl Place {
    /// One that Redis takes.
    pub(super) fn new(longitude: f64, latitude: f64) -> Option<Place> {
        let fits = longitude.abs() <= LONGITUDE_MAX && latitude.abs() <= LATITUDE_MAX;
        fits.then_some(Place { longitude, latitude })
    }

    /// The score of a member here.
    pub(super) fn score(self) -> f64 {
        hash_of(self, LATITUDE_MAX) as f64
    }

    /// The middle of the cell of a score.
    pub(super) fn of_score(score: f64) -> Place {
        let bits = bits_of(score);
        let middle = |part: u32, max: f64| {
            let (from, to) = edges(part, max, STEPS);
            ((from + to) / 2.0).clamp(-max, max)
        };
        let longitude = middle(gather(bits >> 1), LONGITUDE_MAX);
        Place { longitude, latitude: middle(gather(bits), LATITUDE_MAX) }
    }

    /// The geohash that maps know, of 11 characters: 50 bits, over all latitudes, and a zero.
    pub(super) fn text(self) -> String {
        const DIGITS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = hash_of(self, 90.0);
        let digit = |at: u32| match at {
            10 => 0,
            at => (bits >> (52 - (at + 1) * 5)) as usize & 31,
        };
        (0..11).map(|at| char::from(DIGITS[digit(at)])).collect()
    }

    /// Meters to another place.
    pub(super) fn distance(self, other: Place) -> f64 {
        let v = ((other.longitude.to_radians() - self.longitude.to_radians()) / 2.0).sin();
        if v == 0.0 {
            return self.along_meridian(other);
        }
        let (from, to) = (self.latitude.to_radians(), other.latitude.to_radians());
        let u = ((to - from) / 2.0).sin();
        let a = u * u + from.cos() * to.cos() * v * v;
        2.0 * EARTH_METERS * a.sqrt().asin()
    }

    pub(super) fn along_meridian(self, other: Place) -> f64 {
        EARTH_METERS * (other.latitude.to_radians() - self.latitude.to_radians()).abs()
    }
}
