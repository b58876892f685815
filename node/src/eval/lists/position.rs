//! Positions of list elements: bytes between any two of which another one fits, and which no two
//! commands ever make alike.
//!
//! A position is a path of steps, each a digit and the stamp of the command that made it. At the ends
//! the first digit goes up or down by one, so a position there has one step however long a list becomes;
//! between two neighbours a step is added behind the left one's if there is no room beside it. Two
//! clusters that push at the same time make the same digit, and the stamps say which comes first.
//!
//! A step is a byte 0x80 + n and a number of n bytes, big-endian, or 0x7F - n and the complement of
//! -1 - digit in n bytes if the digit is negative; then the stamp's clock (8) and its cluster (1). So
//! bytes stand in the order of the paths, and one that goes on stands behind the one that it goes on from.

use super::super::args::Stop;
use bytes::Bytes;
use flotilla_topology::stamp::Stamp;

/// Longest position, in bytes: it stands in each row of its element. Only elements that are put between
/// two others again and again have long ones: a thousand of them that halve the same gap take this much.
const POSITION_BYTES_MAX: usize = 4096;

/// What a step behind another one begins with, so that there is room on both sides of it.
const MIDDLE: i64 = 0;
/// How far the next step stands from one that it is put beside, between two neighbours.
const GAP: i64 = 1 << 24;

const NOT_NEGATIVE: u8 = 0x80;
const NEGATIVE: u8 = 0x7F;
const STAMP_BYTES: usize = 9;

fn put(position: &mut Vec<u8>, digit: i64, stamp: Stamp) {
    let (magnitude, flip) = if digit < 0 { (!digit as u64, 0xFF) } else { (digit as u64, 0) };
    let bytes = magnitude.to_be_bytes();
    let used = &bytes[(magnitude.leading_zeros() / 8) as usize..];
    let many = used.len() as u8;
    position.push(if digit < 0 { NEGATIVE - many } else { NOT_NEGATIVE + many });
    position.extend(used.iter().map(|byte| byte ^ flip));
    position.extend_from_slice(&stamp.hlc.0.to_be_bytes());
    position.push(stamp.cluster.0);
}

/// The digit of the step that a position begins with, and how many bytes the step has; none if it is no
/// position, which no release writes.
fn step(position: &[u8]) -> Option<(i64, usize)> {
    let first = *position.first()?;
    let (many, flip) = match first {
        NOT_NEGATIVE.. => (first - NOT_NEGATIVE, 0),
        _ => (NEGATIVE - first, 0xFF),
    };
    let many = usize::from(many);
    let used = position.get(1..1 + many).filter(|used| used.len() <= 8)?;
    let magnitude = used.iter().fold(0, |all, byte| all << 8 | u64::from(byte ^ flip));
    let digit = if flip == 0 { magnitude as i64 } else { !magnitude as i64 };
    (position.len() >= 1 + many + STAMP_BYTES).then_some((digit, 1 + many + STAMP_BYTES))
}

/// Where the last step of a position begins.
fn last_step(position: &[u8]) -> usize {
    let mut at = 0;
    while let Some((_, bytes)) = step(&position[at..]) {
        if at + bytes >= position.len() {
            break;
        }
        at += bytes;
    }
    at
}

/// The one of place `index` in a list that is made anew.
pub(in super::super) fn nth(index: i64, stamp: Stamp) -> Bytes {
    let mut position = Vec::new();
    put(&mut position, index, stamp);
    position.into()
}

/// One before the first, or in an empty list.
pub(super) fn before(first: Option<&[u8]>, stamp: Stamp) -> Bytes {
    let digit = first.and_then(step).map_or(0, |(digit, _)| digit.saturating_sub(1));
    nth(digit, stamp)
}

/// One behind the last, or in an empty list.
pub(super) fn behind(last: Option<&[u8]>, stamp: Stamp) -> Bytes {
    let digit = last.and_then(step).map_or(0, |(digit, _)| digit.saturating_add(1));
    nth(digit, stamp)
}

/// One between two neighbours, the left of which is lower.
pub(super) fn between(left: &[u8], right: &[u8], stamp: Stamp) -> Result<Bytes, Stop> {
    let at = last_step(left);
    // Beside the last step of the left one, farther if there is room.
    let beside = step(&left[at..]).into_iter().flat_map(|(digit, _)| {
        let room = right.strip_prefix(&left[..at]).and_then(step).map(|(right, _)| right);
        let half = room.map(|right| digit.saturating_add(right.saturating_sub(digit) / 2));
        [half, digit.checked_add(GAP).filter(|_| room.is_none())].into_iter().flatten()
    });
    // Behind the left one, before what goes on from it.
    let inner = right.strip_prefix(left).and_then(step);
    let below = inner.map_or(MIDDLE, |(digit, _)| digit.saturating_sub(GAP));
    let candidates = beside.map(|digit| (at, digit)).chain([(left.len(), below)]);
    let made = candidates.map(|(keep, digit)| {
        let mut position = left[..keep].to_vec();
        put(&mut position, digit, stamp);
        position
    });
    let fits = |made: &Vec<u8>| left < &made[..] && &made[..] < right;
    match made.into_iter().find(fits) {
        Some(made) if made.len() <= POSITION_BYTES_MAX => Ok(made.into()),
        _ => Err(Stop::error(
            "ERR too many elements were put between the same two: copy the list".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::ids::ClusterId;
    use flotilla_topology::stamp::Hlc;
    use proptest::prelude::*;

    fn stamp(clock: u64) -> Stamp {
        Stamp { hlc: Hlc(clock), cluster: ClusterId(1) }
    }

    proptest! {
        #[test]
        fn positions_stand_in_the_order_of_digits_and_stamps(a: i64, b: i64, s: u64, t: u64) {
            let (one, other) = (nth(a, stamp(s)), nth(b, stamp(t)));
            prop_assert_eq!((a, s).cmp(&(b, t)), one.cmp(&other));
            prop_assert_eq!(step(&one), Some((a, one.len())));
        }

        #[test]
        fn there_is_always_room(places in proptest::collection::vec(any::<u16>(), 1..400)) {
            let mut list: Vec<Bytes> = Vec::new();
            for (clock, place) in places.into_iter().enumerate() {
                let at = usize::from(place) % (list.len() + 1);
                let stamp = stamp(clock as u64);
                let made = match (at, list.len()) {
                    (0, _) => before(list.first().map(|first| &first[..]), stamp),
                    (at, len) if at == len => behind(list.last().map(|last| &last[..]), stamp),
                    (at, _) => between(&list[at - 1], &list[at], stamp).unwrap(),
                };
                list.insert(at, made);
                prop_assert!(list.is_sorted_by(|a, b| a < b));
            }
        }
    }

    #[test]
    fn pushes_and_inserts_at_one_place_stay_short() {
        for always_left in [true, false] {
            let (mut left, mut right) = (nth(1, stamp(1)), nth(2, stamp(1)));
            for clock in 2..10_000 {
                let made = between(&left, &right, stamp(clock)).unwrap();
                *(if always_left { &mut left } else { &mut right }) = made;
            }
            assert!(left.len().max(right.len()) < 64, "{} {}", left.len(), right.len());
        }
        let mut last = nth(0, stamp(0));
        for clock in 1..100_000 {
            last = behind(Some(&last), stamp(clock));
        }
        assert!(last.len() < 16, "{}", last.len());
    }

    #[test]
    fn a_place_that_is_halved_for_ever_is_refused_at_last() {
        let (mut left, mut right) = (nth(1, stamp(1)), nth(2, stamp(1)));
        let mut made = 0;
        loop {
            let Ok(one) = between(&left, &right, stamp(made + 2)) else { break };
            *(if made % 2 == 0 { &mut left } else { &mut right }) = one;
            made += 1;
        }
        assert!(made > 1_000, "{made}");
    }
}
