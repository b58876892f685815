//! Places: random commands against a running Redis, synced and unsynced.

use super::redis::{Dice, Value, replies_are_the_same};
use super::world::World;

const KEYS: &[&str] = &["a", "b", "a", "b", "none", "string"];
const MEMBERS: &[&str] = &["Palermo", "Catania", "x", "pole", "date line", "other side"];
const LONGITUDES: &[&str] = &[
    "13.361389",
    "15.087269",
    "-122.4",
    "179.999999",
    "-180",
    "179.99",
    "-179.99",
    "0",
    "1e1",
    ".5",
];
const LATITUDES: &[&str] =
    &["38.115556", "37.502669", "0", "85.05", "-85.05", "84.9", "-84.9", "-0", "65.99", "80.01"];
const WRONG: &[&str] = &["x", "", "nan", "-inf", "181", "-86", "1 ", "inf"];
const SIZES: &[&str] = &["0", "1", "200", "3000", "12000", "40000", "0.5", "1e3"];
const WRONG_SIZES: &[&str] = &["-1", "x", "nan", "inf", "", "-0"];
const UNITS: &[&str] = &["m", "km", "KM", "mi", "ft", "km", "m"];
const COUNTS: &[&str] = &["1", "2", "3", "100", "1", "2", "0", "-1", "x", "9223372036854775808"];

const NAMES: &[&str] = &[
    "GEOADD",
    "GEOADD",
    "GEOADD",
    "GEOADD",
    "GEOPOS",
    "GEOHASH",
    "GEODIST",
    "GEOSEARCH",
    "GEOSEARCH",
    "GEOSEARCH",
    "geosearch",
    "GEOSEARCHSTORE",
    "GEORADIUS",
    "GEORADIUS",
    "GEORADIUSBYMEMBER",
    "GEORADIUSBYMEMBER",
    "GEORADIUS_RO",
    "GEORADIUSBYMEMBER_RO",
    "ZRANGE",
    "ZREM",
    "DEL",
    "SET",
    "ZCARD",
];

/// One command as it is made.
struct Words<'d> {
    dice: &'d mut Dice,
    words: Vec<String>,
}

impl Words<'_> {
    fn add(&mut self, lists: &[&[&str]]) {
        for list in lists {
            self.words.push(self.dice.pick(list).to_owned());
        }
    }

    fn seldom(&mut self, list: &[&str], else_of: &[&str]) {
        let list = if self.dice.roll(40) == 0 { list } else { else_of };
        self.add(&[list]);
    }

    /// One of a few, so that distances are alike, or any; now and then a wrong one.
    fn place(&mut self) {
        for (list, max) in [(LONGITUDES, 180_000), (LATITUDES, 85_000)] {
            match self.dice.roll(3) {
                0 => {
                    let thousandths = self.dice.roll(2 * max) as i64 - max as i64;
                    self.words.push(format!("{}", thousandths as f64 / 1000.0));
                }
                _ => self.seldom(WRONG, list),
            }
        }
    }

    fn size(&mut self) {
        match self.dice.roll(3) {
            0 => {
                let size = self.dice.roll(10_000);
                self.words.push(size.to_string());
            }
            _ => self.seldom(WRONG_SIZES, SIZES),
        }
    }

    fn unit(&mut self) {
        self.seldom(&["parsec", ""], UNITS);
    }

    fn word(&mut self, word: &str) {
        self.words.push(word.to_owned());
    }

    /// Where and what, in any order, now and then twice or not at all.
    fn search(&mut self) {
        let first = self.dice.roll(2);
        for part in [first, 1 - first] {
            let many = [1, 1, 1, 1, 1, 1, 1, 1, 0, 2][self.dice.roll(10)];
            for _ in 0..many {
                match (part, self.dice.roll(2)) {
                    (0, 0) => {
                        self.word("FROMMEMBER");
                        self.add(&[MEMBERS]);
                    }
                    (0, _) => {
                        self.word("fromlonlat");
                        self.place();
                    }
                    (_, 0) => {
                        self.word("BYRADIUS");
                        self.size();
                        self.unit();
                    }
                    _ => {
                        self.word("BYBOX");
                        self.size();
                        self.size();
                        self.unit();
                    }
                }
            }
        }
        self.options();
    }

    fn options(&mut self) {
        for _ in 0..self.dice.roll(4) {
            let options = [
                "ASC",
                "DESC",
                "WITHCOORD",
                "withdist",
                "WITHHASH",
                "COUNT",
                "COUNT",
                "ANY",
                "STORE",
                "STOREDIST",
            ];
            self.seldom(&["x", "", "FROMMEMBER"], &options);
            match self.words.last().map_or("", String::as_str) {
                "COUNT" => self.add(&[COUNTS]),
                "STORE" => self.add(&[KEYS]),
                "STOREDIST" if self.words[0] != "GEOSEARCHSTORE" => self.add(&[KEYS]),
                _ => {}
            }
        }
    }
}

fn random_command(dice: &mut Dice) -> Vec<String> {
    let name = dice.pick(NAMES);
    if name == "SET" {
        return vec!["SET".to_owned(), "string".to_owned(), "v".to_owned()];
    }
    let mut all = Words { dice, words: vec![name.to_owned()] };
    all.add(&[KEYS]);
    match name {
        "GEOADD" => {
            if all.dice.roll(3) == 0 {
                all.add(&[&["NX", "XX", "CH", "GT", "INCR"]]);
            }
            for _ in 0..1 + all.dice.roll(2) {
                all.place();
                all.add(&[MEMBERS]);
            }
        }
        "GEOPOS" | "GEOHASH" | "ZREM" => all.add(&[MEMBERS, MEMBERS]),
        "GEODIST" => {
            all.add(&[MEMBERS, MEMBERS]);
            if all.dice.roll(2) == 0 {
                all.unit();
            }
        }
        "GEOSEARCH" | "geosearch" => all.search(),
        "GEOSEARCHSTORE" => {
            all.add(&[KEYS]);
            all.search();
        }
        "GEORADIUS" | "GEORADIUS_RO" => {
            all.place();
            all.size();
            all.unit();
            all.options();
        }
        "GEORADIUSBYMEMBER" | "GEORADIUSBYMEMBER_RO" => {
            all.add(&[MEMBERS]);
            all.size();
            all.unit();
            all.options();
        }
        "ZRANGE" => all.words.extend(["0", "-1", "WITHSCORES"].map(str::to_owned)),
        _ => {}
    }
    if all.dice.roll(60) == 0 {
        all.words.pop();
    }
    all.words
}

/// Coordinates and scores have 17 digits in Redis 7.0 and as few as say the same here.
fn alike(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(alike).collect()),
        Value::Bulk(Some(bytes)) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let float = text.parse::<f64>().ok().filter(|_| text.contains(['.', 'e']));
            Value::Bulk(Some(float.map_or(bytes, |float| format!("{float:.9}").into_bytes())))
        }
        other => other,
    }
}

#[test]
fn replies_on_places_are_those_of_redis() {
    replies_are_the_same((8, 5_000), random_command, alike);
}

/// Where Redis 7.0 finds less than there is: beside the cell of a place near a pole, and on the date line.
#[test]
fn what_is_near_a_pole_or_on_the_date_line_is_found() {
    let mut world = World::new(1, true);
    world.at(100);
    world.cmd("GEOADD p 89 85.05 here 91 85.05 there 150 85.05 aside -91 85.05 behind");
    let near = world.cmd("GEOSEARCH p FROMMEMBER here BYRADIUS 624 km ASC");
    assert_eq!(near, "[\"here\" \"there\" \"aside\"]");
    world.cmd("GEOADD b 10 65.9 here -170 85 over");
    let high = world.cmd("GEOSEARCH b FROMMEMBER here BYBOX 2600 4262 km ASC");
    assert_eq!(high, "[\"here\" \"over\"]");
    world.cmd("GEOADD d 180 10 east -180 10 west 179.99 10 near");
    let all = world.cmd("GEOSEARCH d FROMLONLAT -179.99 10 BYBOX 10 10 km ASC");
    assert!(["east", "west", "near"].iter().all(|name| all.contains(name)), "{all}");
}

/// More than fits the spare room beside the nearest: the same as what a plain look at all says.
#[test]
fn the_nearest_of_many_are_kept() {
    let mut world = World::new(1, false);
    world.at(100);
    for row in 0..60 {
        let mut words: Vec<Vec<u8>> = ["GEOADD", "g"].map(|word| word.into()).to_vec();
        for column in 0..60 {
            let word = |text: String| text.into_bytes();
            words.push(word(format!("{}", 10.0 + f64::from(column) / 97.0)));
            words.push(word(format!("{}", 40.0 + f64::from(row) / 89.0)));
            words.push(word(format!("{row}/{column}")));
        }
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        world.run(&words);
    }
    for order in ["ASC", "DESC"] {
        let search = format!("GEOSEARCH g FROMLONLAT 10.3 40.3 BYRADIUS 200 km {order}");
        let all = world.cmd(&search);
        let some = world.cmd(&format!("{search} COUNT 7"));
        assert_eq!(all.split(' ').count(), 3_600);
        assert_eq!(some.split(' ').count(), 7);
        assert!(all.starts_with(some.trim_end_matches(']')), "{order}: {some}");
    }
    assert_eq!(
        world
            .cmd("GEOSEARCH g FROMLONLAT 10.3 40.3 BYRADIUS 200 km COUNT 5 ANY")
            .split(' ')
            .count(),
        5
    );
}
