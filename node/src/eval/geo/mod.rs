//! Commands on places. A member is one of a sorted set; its score is a geohash of 52 bits.

mod cells;
mod hash;
mod search;

pub(super) use search::{Form, search};

use super::args::{Outcome, Stop};
use super::collection;
use super::txn::Txn;
use super::zsets;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;
use hash::Place;

/// Meters in a unit.
fn unit(word: &[u8]) -> Result<f64, Stop> {
    let named = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    match () {
        () if named("m") => Ok(1.0),
        () if named("km") => Ok(1000.0),
        () if named("ft") => Ok(0.3048),
        () if named("mi") => Ok(1609.34),
        () => {
            Err(Stop::error("ERR unsupported unit provided. please use M, KM, FT, MI".to_owned()))
        }
    }
}

fn place(longitude: &[u8], latitude: &[u8]) -> Result<Place, Stop> {
    let (longitude, latitude) = (zsets::float(longitude)?, zsets::float(latitude)?);
    Place::new(longitude, latitude).ok_or_else(|| {
        let line = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
        Stop::error(line)
    })
}

/// A distance as Redis prints it: with four digits, rounded in binary.
fn distance_text(meters: f64, unit: f64) -> Reply {
    let digits = (meters / unit * 10_000.0).round_ties_even() as u64;
    Reply::bulk(format!("{}.{:04}", digits / 10_000, digits % 10_000))
}

pub(super) fn geoadd(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    zsets::add_scored(txn, args, 3, |triple| Ok(place(&triple[0], &triple[1])?.score()))
}

/// What a command says of each of some members, or of none.
fn each(
    txn: &mut Txn<'_>,
    args: &[Bytes],
    absent: &Reply,
    tell: impl Fn(Place) -> Reply,
) -> Outcome {
    let key = collection::load(txn, &args[1], Type::SortedSet)?;
    let mut all = Vec::with_capacity(args.len() - 2);
    for member in &args[2..] {
        let score = txn.score(&key, member)?;
        all.push(score.map_or_else(|| absent.clone(), |score| tell(Place::of_score(score))));
    }
    Ok(Reply::Array(all))
}

pub(super) fn geopos(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    each(txn, args, &Reply::NullArray, coordinates)
}

fn coordinates(place: Place) -> Reply {
    Reply::Array(vec![Reply::Double(place.longitude), Reply::Double(place.latitude)])
}

pub(super) fn geohash(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    each(txn, args, &Reply::Null, |place| Reply::bulk(place.text()))
}

pub(super) fn geodist(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let unit = match args.len() {
        4 => 1.0,
        5 => unit(&args[4])?,
        _ => return Err(Stop::syntax()),
    };
    let key = collection::load(txn, &args[1], Type::SortedSet)?;
    let (from, to) = (txn.score(&key, &args[2])?, txn.score(&key, &args[3])?);
    Ok(match from.zip(to) {
        None => Reply::Null,
        Some((from, to)) => {
            distance_text(Place::of_score(from).distance(Place::of_score(to)), unit)
        }
    })
}
