//! What is within a circle or a box.
//!
//! All forms are read as Redis reads them, in its order, so that of several mistakes the same is told.

use super::super::args::{Outcome, Stop, integer, is};
use super::super::collection::{self, Budget};
use super::super::order::Entry;
use super::super::txn::{Key, Txn};
use super::super::zsets;
use super::cells::Shape;
use super::hash::Place;
use super::{coordinates, distance_text, place, unit};
use crate::engine::order::{Span, ordered_score};
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

/// Members that are kept beside the nearest ones until these are told apart again.
const SPARE: usize = 1024;

/// Where a command's arguments say what the middle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MiddleIn {
    /// In an option, as well as the shape.
    Option,
    /// In a place before the options, with a radius behind it.
    Place,
    /// In a member there.
    Member,
}

/// Which command's arguments are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Form {
    middle: MiddleIn,
    /// Whether it stores, or does so if an option names a target.
    stores: bool,
}

impl Form {
    /// GEOSEARCH.
    pub(in super::super) const SEARCH: Form = Form { middle: MiddleIn::Option, stores: false };
    /// GEOSEARCHSTORE.
    pub(in super::super) const SEARCH_STORE: Form = Form { stores: true, ..Form::SEARCH };
    /// GEORADIUS_RO.
    pub(in super::super) const AROUND_RO: Form = Form { middle: MiddleIn::Place, stores: false };
    /// GEORADIUS.
    pub(in super::super) const AROUND: Form = Form { stores: true, ..Form::AROUND_RO };
    /// GEORADIUSBYMEMBER_RO.
    pub(in super::super) const AROUND_MEMBER_RO: Form =
        Form { middle: MiddleIn::Member, stores: false };
    /// GEORADIUSBYMEMBER.
    pub(in super::super) const AROUND_MEMBER: Form =
        Form { stores: true, ..Form::AROUND_MEMBER_RO };

    fn searches(self) -> bool {
        self.middle == MiddleIn::Option
    }
}

/// What a command asks for.
#[derive(Debug, Default)]
struct Asked {
    /// None if the key does not exist and so tells of no member.
    middle: Option<Place>,
    by_place: bool,
    by_member: bool,
    shape: Option<Shape>,
    /// Meters in the unit of the shape.
    unit: f64,
    count: Option<usize>,
    any: bool,
    /// The nearest first, or the farthest; none in no order.
    nearest: Option<bool>,
    with_distance: bool,
    with_hash: bool,
    with_coordinates: bool,
    /// Where the members go, if they are to be stored.
    target: Option<Bytes>,
    store_distance: bool,
}

/// A member that was found.
#[derive(Debug)]
struct Found {
    entry: Entry,
    meters: f64,
}

fn error(line: &str) -> Stop {
    Stop::error(line.to_owned())
}

fn meters(word: &[u8], what: &str) -> Result<f64, Stop> {
    zsets::float(word).map_err(|_| error(&format!("ERR need numeric {what}")))
}

fn circle(radius: &[u8], of: &[u8]) -> Result<(Shape, f64), Stop> {
    let radius = meters(radius, "radius")?;
    if radius < 0.0 {
        return Err(error("ERR radius cannot be negative"));
    }
    let unit = unit(of)?;
    Ok((Shape::Circle { radius: radius * unit }, unit))
}

fn rectangle(width: &[u8], height: &[u8], of: &[u8]) -> Result<(Shape, f64), Stop> {
    let (width, height) = (meters(width, "width")?, meters(height, "height")?);
    if width < 0.0 || height < 0.0 {
        return Err(error("ERR height or width cannot be negative"));
    }
    let unit = unit(of)?;
    Ok((Shape::Box { width: width * unit, height: height * unit }, unit))
}

fn of_member(txn: &Txn<'_>, key: &Key, member: &[u8]) -> Result<Place, Stop> {
    let score = txn.score(key, member)?;
    let score = score.ok_or_else(|| error("ERR could not decode requested zset member"))?;
    Ok(Place::of_score(score))
}

impl Asked {
    fn parse(txn: &Txn<'_>, key: &Key, args: &[Bytes], form: Form) -> Result<Asked, Stop> {
        let mut asked = Asked { unit: 1.0, ..Asked::default() };
        let mut options = match (form.middle, args) {
            (MiddleIn::Place, [_, _, longitude, latitude, radius, unit, options @ ..]) => {
                asked.middle = Some(place(longitude, latitude)?);
                asked.is_within(circle(radius, unit)?);
                options
            }
            (MiddleIn::Member, [_, _, member, radius, unit, options @ ..]) => {
                // Redis does not look at these if there is no key.
                if key.ty.is_some() {
                    asked.middle = Some(of_member(txn, key, member)?);
                    asked.is_within(circle(radius, unit)?);
                }
                options
            }
            (MiddleIn::Option, [_, target, _, options @ ..]) if form.stores => {
                asked.target = Some(target.clone());
                options
            }
            (MiddleIn::Option, [_, _, options @ ..]) => options,
            _ => return Err(Stop::syntax()),
        };
        while let [word, rest @ ..] = options {
            options = match asked.flag(word, form) {
                true => rest,
                false if form.searches() => asked.search_option(txn, key, word, rest)?,
                false => asked.radius_option(word, rest, form)?,
            };
        }
        // As the client wrote it.
        asked.check(form, &String::from_utf8_lossy(&args[0]))?;
        Ok(asked)
    }

    fn is_within(&mut self, (shape, unit): (Shape, f64)) {
        (self.shape, self.unit) = (Some(shape), unit);
    }

    /// Reads an option without arguments; whether it is one.
    fn flag(&mut self, word: &[u8], form: Form) -> bool {
        match () {
            () if is(word, "WITHDIST") => self.with_distance = true,
            () if is(word, "WITHHASH") => self.with_hash = true,
            () if is(word, "WITHCOORD") => self.with_coordinates = true,
            () if is(word, "ANY") => self.any = true,
            () if is(word, "ASC") => self.nearest = Some(true),
            () if is(word, "DESC") => self.nearest = Some(false),
            () if form == Form::SEARCH_STORE && is(word, "STOREDIST") => {
                self.store_distance = true;
            }
            () => return false,
        }
        true
    }

    /// Reads COUNT, or an option of GEORADIUS alone; what follows it.
    fn radius_option<'a>(
        &mut self,
        word: &[u8],
        rest: &'a [Bytes],
        form: Form,
    ) -> Result<&'a [Bytes], Stop> {
        match rest {
            [count, rest @ ..] if is(word, "COUNT") => {
                let count = usize::try_from(integer(count)?).ok().filter(|count| *count > 0);
                self.count = Some(count.ok_or_else(|| error("ERR COUNT must be > 0"))?);
                Ok(rest)
            }
            [target, rest @ ..] if form.stores && !form.searches() => {
                self.store_distance = is(word, "STOREDIST");
                if !self.store_distance && !is(word, "STORE") {
                    return Err(Stop::syntax());
                }
                self.target = Some(target.clone());
                Ok(rest)
            }
            _ => Err(Stop::syntax()),
        }
    }

    /// Reads an option of GEOSEARCH and GEOSEARCHSTORE; what follows it.
    fn search_option<'a>(
        &mut self,
        txn: &Txn<'_>,
        key: &Key,
        word: &[u8],
        rest: &'a [Bytes],
    ) -> Result<&'a [Bytes], Stop> {
        match rest {
            [member, rest @ ..] if !self.by_place && is(word, "FROMMEMBER") => {
                if key.ty.is_some() {
                    self.middle = Some(of_member(txn, key, member)?);
                }
                self.by_member = true;
                Ok(rest)
            }
            [longitude, latitude, rest @ ..] if !self.by_member && is(word, "FROMLONLAT") => {
                self.middle = Some(place(longitude, latitude)?);
                self.by_place = true;
                Ok(rest)
            }
            [radius, unit, rest @ ..]
                if !matches!(self.shape, Some(Shape::Box { .. })) && is(word, "BYRADIUS") =>
            {
                self.is_within(circle(radius, unit)?);
                Ok(rest)
            }
            [width, height, unit, rest @ ..]
                if !matches!(self.shape, Some(Shape::Circle { .. })) && is(word, "BYBOX") =>
            {
                self.is_within(rectangle(width, height, unit)?);
                Ok(rest)
            }
            rest => self.radius_option(word, rest, Form::SEARCH),
        }
    }

    fn check(&mut self, form: Form, name: &str) -> Result<(), Stop> {
        let shows = self.with_distance || self.with_hash || self.with_coordinates;
        if self.target.is_some() && shows {
            let what = if form.searches() { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(error(&format!(
                "ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        if form.searches() {
            let one_of = |what| format!("ERR exactly one of {what} can be specified for {name}");
            if !self.by_member && !self.by_place {
                return Err(error(&one_of("FROMMEMBER or FROMLONLAT")));
            }
            if self.shape.is_none() {
                return Err(error(&one_of("BYRADIUS and BYBOX")));
            }
        }
        if self.any && self.count.is_none() {
            return Err(error("ERR the ANY argument requires COUNT argument"));
        }
        // The nearest are wanted, unless any are.
        if self.count.is_some() && !self.any {
            self.nearest = self.nearest.or(Some(true));
        }
        Ok(())
    }

    fn found(&self, txn: &Txn<'_>, key: &Key, budget: Budget) -> Result<Vec<Found>, Stop> {
        let (Some(middle), Some(shape)) = (self.middle, self.shape) else { return Ok(Vec::new()) };
        let most = self.count.unwrap_or(usize::MAX);
        let (mut found, mut left) = (Vec::new(), budget);
        let cells = shape.scores(middle).into_iter().flat_map(|(start, end)| {
            let at = |score| Bytes::copy_from_slice(&ordered_score(score));
            txn.in_order(key, &Span { start: at(start), end: Some(at(end)) }, false)
        });
        for entry in cells {
            let entry = entry?;
            let Some(meters) = shape.distance(middle, Place::of_score(entry.score)) else {
                continue;
            };
            let next = Found { entry, meters };
            next.take_from(&mut left)?;
            found.push(next);
            if self.any && found.len() == most {
                break;
            }
            if found.len() > most.saturating_add(most.max(SPARE)) {
                self.sort(&mut found);
                left = budget;
                found.iter().try_for_each(|kept| kept.take_from(&mut left))?;
            }
        }
        self.sort(&mut found);
        Ok(found)
    }

    /// Puts members in order, and keeps as many as are asked for. Those that are as far away stay as
    /// they came.
    fn sort(&self, found: &mut Vec<Found>) {
        match self.nearest {
            Some(true) => found.sort_by(|a, b| a.meters.total_cmp(&b.meters)),
            Some(false) => found.sort_by(|a, b| b.meters.total_cmp(&a.meters)),
            None => {}
        }
        found.truncate(self.count.unwrap_or(usize::MAX));
    }

    fn tell(&self, found: &Found) -> Reply {
        let member = Reply::Bulk(found.entry.member());
        if !(self.with_distance || self.with_hash || self.with_coordinates) {
            return member;
        }
        let distance = self.with_distance.then(|| distance_text(found.meters, self.unit));
        let hash = self.with_hash.then_some(Reply::Int(found.entry.score as i64));
        let place = self.with_coordinates.then(|| coordinates(Place::of_score(found.entry.score)));
        Reply::Array([Some(member), distance, hash, place].into_iter().flatten().collect())
    }
}

impl Found {
    fn take_from(&self, budget: &mut Budget) -> Result<(), Stop> {
        budget.take(self.entry.place.len() + 4 * size_of::<Reply>())
    }
}

/// All forms of search.
pub(in super::super) fn search(txn: &mut Txn<'_>, args: &[Bytes], form: Form) -> Outcome {
    let source = if form == Form::SEARCH_STORE { &args[2] } else { &args[1] };
    let source = collection::load(txn, source, Type::SortedSet)?;
    let asked = Asked::parse(txn, &source, args, form)?;
    let Some(target) = &asked.target else {
        let found = asked.found(txn, &source, Budget::reply())?;
        return Ok(Reply::Array(found.iter().map(|found| asked.tell(found)).collect()));
    };
    let target = txn.load(target)?;
    let found = asked.found(txn, &source, Budget::write(&target))?;
    let score = |found: &Found| match asked.store_distance {
        true => found.meters / asked.unit,
        false => found.entry.score,
    };
    let members = found.iter().map(|found| (found.entry.member(), score(found))).collect();
    zsets::store(txn, target, members)
}
