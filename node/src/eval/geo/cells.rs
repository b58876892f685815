//! Which scores the members around a place have.
//!
//! A cell of the grid of `1 << steps` rows and columns is one range of scores, since scores are hashes
//! whose first bits name the cell. Nine cells cover whatever is looked for: the one of its middle and
//! those around it, as small as they may be.
//!
//! Their size and order are those of Redis, so what is found without an order comes as it does there.
//! But around a pole Redis takes cells that are too small and misses members beside them; here they are
//! as large as they must be.

use super::hash::{EARTH_METERS, LATITUDE_MAX, LONGITUDE_MAX, Place, STEPS, edges, part, spread};
use std::f64::consts::{FRAC_PI_2, PI};

/// Half the length of Redis' equator on the map, in meters: from here on the coarsest grid is taken.
const MAP_METERS: f64 = 20_037_726.37;
/// What bounds are widened by, in degrees, for what is lost in rounding.
const ROUNDING_DEGREES: f64 = 1e-6;
/// Rows and columns from the middle's cell to the nine, in the order of Redis.
const AROUND: [(i64, i64); 9] =
    [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)];

/// What is looked for around a place, in meters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
}

/// Degrees that a shape reaches over.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    south: f64,
    north: f64,
    /// These may lie beyond the date line.
    west: f64,
    east: f64,
}

impl Bounds {
    /// So many degrees to the north and south, and to the east and west.
    fn around(middle: Place, up: f64, aside: f64) -> Bounds {
        Bounds {
            south: middle.latitude - up,
            north: middle.latitude + up,
            west: middle.longitude - aside,
            east: middle.longitude + aside,
        }
    }

    fn has_all_longitudes(self) -> bool {
        self.east - self.west >= 2.0 * LONGITUDE_MAX
    }

    fn touches_date_line(self) -> bool {
        self.west <= -LONGITUDE_MAX || self.east >= LONGITUDE_MAX
    }
}

impl Shape {
    /// How far a place is from the middle, if it is within.
    pub(super) fn distance(self, middle: Place, place: Place) -> Option<f64> {
        let within = match self {
            Shape::Circle { radius } => {
                return Some(middle.distance(place)).filter(|d| *d <= radius);
            }
            Shape::Box { width, height } => {
                let level = Place { longitude: middle.longitude, ..place };
                middle.along_meridian(place) <= height / 2.0 && place.distance(level) <= width / 2.0
            }
        };
        within.then(|| middle.distance(place))
    }

    /// Ranges of scores, end excluded, in which all members within the shape are.
    pub(super) fn scores(self, middle: Place) -> Vec<(f64, f64)> {
        let bounds = self.bounds(middle);
        let grid = |steps| Grid { steps, middle };
        let mut steps = self.steps_of_redis(middle);
        if steps > 1 && !grid(steps).is_enough_for_redis(self.bounds_of_redis(middle)) {
            steps -= 1;
        }
        while steps > 1 && !grid(steps).covers(bounds) {
            steps -= 1;
        }
        grid(steps).ranges(bounds)
    }

    fn bounds(self, middle: Place) -> Bounds {
        let latitude = middle.latitude.abs().to_radians();
        let (up, aside) = match self {
            Shape::Circle { radius } => {
                let angle = radius / EARTH_METERS;
                // A circle around a pole has all longitudes.
                let polar = latitude + angle >= FRAC_PI_2;
                (angle, if polar { PI } else { (angle.sin() / latitude.cos()).asin() })
            }
            Shape::Box { width, height } => {
                let up = height / 2.0 / EARTH_METERS;
                // Nearest to a pole the same width has the most degrees.
                let farthest = (latitude + up).min(LATITUDE_MAX.to_radians());
                let half = (width / 4.0 / EARTH_METERS).min(FRAC_PI_2).sin() / farthest.cos();
                (up, if half >= 1.0 { PI } else { 2.0 * half.asin() })
            }
        };
        let (up, aside) =
            (up.to_degrees() + ROUNDING_DEGREES, aside.to_degrees() + ROUNDING_DEGREES);
        Bounds::around(middle, up, aside)
    }

    fn bounds_of_redis(self, middle: Place) -> Bounds {
        let (aside, up) = match self {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let degrees = |radians: f64| radians / (PI / 180.0);
        let up = degrees(up / EARTH_METERS);
        let edge = if middle.latitude < 0.0 { middle.latitude - up } else { middle.latitude + up };
        let aside = degrees(aside / EARTH_METERS / edge.to_radians().cos());
        Bounds::around(middle, up, aside)
    }

    fn steps_of_redis(self, middle: Place) -> u32 {
        let mut meters = match self {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => (width / 2.0).hypot(height / 2.0),
        };
        if meters == 0.0 {
            return STEPS;
        }
        let mut doublings = 0;
        while meters < MAP_METERS {
            meters *= 2.0;
            doublings += 1;
        }
        let narrower = match middle.latitude.abs() {
            ..=66.0 => 1,
            ..=80.0 => 2,
            _ => 3,
        };
        u32::clamp(doublings, narrower + 1, narrower + STEPS) - narrower
    }
}

/// The grid of so many steps, with the cell of the middle in it.
#[derive(Debug, Clone, Copy)]
struct Grid {
    steps: u32,
    middle: Place,
}

impl Grid {
    fn cells(self) -> u32 {
        1 << self.steps
    }

    fn row(self) -> u32 {
        part(self.middle.latitude, LATITUDE_MAX, self.steps).min(self.cells() - 1)
    }

    fn column(self) -> u32 {
        part(self.middle.longitude, LONGITUDE_MAX, self.steps).min(self.cells() - 1)
    }

    fn latitudes(self, row: u32) -> (f64, f64) {
        edges(row, LATITUDE_MAX, self.steps)
    }

    fn longitudes(self, column: u32) -> (f64, f64) {
        edges(column, LONGITUDE_MAX, self.steps)
    }

    /// Redis goes on behind an edge of the map at the opposite one, also here, and so takes larger cells
    /// beside any edge.
    fn is_enough_for_redis(self, bounds: Bounds) -> bool {
        let next = |at: u32| (at + 1) % self.cells();
        let before = |at: u32| (at + self.cells() - 1) % self.cells();
        let (row, column) = (self.row(), self.column());
        !(self.latitudes(next(row)).1 < bounds.north
            || self.latitudes(before(row)).0 > bounds.south
            || self.longitudes(next(column)).1 < bounds.east
            || self.longitudes(before(column)).0 > bounds.west)
    }

    /// Whether the nine cells have all of it that is on the map.
    fn covers(self, bounds: Bounds) -> bool {
        let (bottom, top) = self.latitudes(self.row());
        let (left, right) = self.longitudes(self.column());
        let (height, width) = (top - bottom, right - left);
        bottom - height <= bounds.south.max(-LATITUDE_MAX)
            && top + height >= bounds.north.min(LATITUDE_MAX)
            && !bounds.has_all_longitudes()
            && left - width <= bounds.west
            && right + width >= bounds.east
    }

    /// Those of the nine cells that the shape reaches into. Places at the very end of the map are in a
    /// row and a column of their own.
    fn ranges(self, bounds: Bounds) -> Vec<(f64, f64)> {
        let (row, column, cells) = (self.row(), self.column(), self.cells());
        let (bottom, top) = self.latitudes(row);
        let (left, right) = self.longitudes(column);
        let mut ranges: Vec<(f64, f64)> = Vec::new();
        let mut add = |row: u32, column: u32| {
            let cell = spread(row) | spread(column) << 1;
            let shift = 2 * (STEPS - self.steps);
            let range = ((cell << shift) as f64, ((cell + 1) << shift) as f64);
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        };
        for (up, aside) in AROUND {
            let beyond = match up {
                1 => top > bounds.north || row + 1 == cells,
                -1 => bottom < bounds.south || row == 0,
                _ => false,
            };
            let beside = match aside {
                1 => right > bounds.east,
                -1 => left < bounds.west,
                _ => false,
            };
            if beyond || beside {
                continue;
            }
            let column = (i64::from(column) + aside).rem_euclid(i64::from(cells)) as u32;
            let row = (i64::from(row) + up) as u32;
            add(row, column);
            if bounds.touches_date_line() {
                add(row, cells);
            }
            if bounds.north >= LATITUDE_MAX {
                add(cells, column);
            }
            if bounds.touches_date_line() && bounds.north >= LATITUDE_MAX {
                add(cells, cells);
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everywhere, but often at the edges of the map.
    fn coordinate(max: f64) -> impl Strategy<Value = f64> {
        prop_oneof![
            -max..=max,
            (-3.0..3.0f64)
                .prop_map(move |off: f64| { if off < 0.0 { -max - off } else { max - off } }),
            Just(max),
            Just(-max),
        ]
        .prop_map(move |number| number.clamp(-max, max))
    }

    fn place() -> impl Strategy<Value = Place> {
        let both = (coordinate(LONGITUDE_MAX), coordinate(LATITUDE_MAX));
        both.prop_map(|(longitude, latitude)| Place { longitude, latitude })
    }

    /// One near a given one, or anywhere: degrees of distance as powers of ten.
    fn beside(middle: Place) -> impl Strategy<Value = Place> {
        let near = (-6.0..2.3f64, 0.0..360.0f64).prop_map(move |(power, angle)| {
            let (sine, cosine) = angle.to_radians().sin_cos();
            let far = 10f64.powf(power);
            let longitude = (middle.longitude + far * cosine + 540.0).rem_euclid(360.0) - 180.0;
            let latitude = (middle.latitude + far * sine).clamp(-LATITUDE_MAX, LATITUDE_MAX);
            Place { longitude, latitude }
        });
        prop_oneof![near, place()]
    }

    fn is_among(ranges: &[(f64, f64)], score: f64) -> bool {
        ranges.iter().any(|(start, end)| (*start..*end).contains(&score))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn the_cells_have_all_members_within_a_shape(
            (middle, member) in place().prop_flat_map(|at| (Just(at), beside(at))),
            wider in 1.0..3.0f64,
            higher in 1.0..30.0f64,
        ) {
            let score = member.score();
            let member = Place::of_score(score);
            let radius = middle.distance(member);
            let circle = Shape::Circle { radius: radius * wider };
            let across = member.distance(Place { longitude: middle.longitude, ..member });
            let height = 2.0 * middle.along_meridian(member);
            let tight = Shape::Box { width: 2.0 * across * wider, height: height * higher };
            for shape in [Shape::Circle { radius }, circle, tight] {
                let ranges = shape.scores(middle);
                prop_assert!(ranges.len() <= 16, "{ranges:?}");
                if shape.distance(middle, member).is_some() {
                    prop_assert!(is_among(&ranges, score), "{shape:?} {middle:?} {member:?}");
                }
            }
        }
    }

    #[test]
    fn a_small_circle_has_few_and_small_cells() {
        let middle = Place { longitude: 13.361389, latitude: 38.115556 };
        for (radius, degrees) in [(100.0, 0.01), (10_000.0, 1.0), (1_000_000.0, 60.0)] {
            let ranges = Shape::Circle { radius }.scores(middle);
            let all: f64 = ranges.iter().map(|(start, end)| end - start).sum();
            let part = all / (1u64 << (2 * STEPS)) as f64;
            assert!(part * 360.0 * 2.0 * LATITUDE_MAX < degrees * degrees, "{radius} {part}");
        }
    }
}
