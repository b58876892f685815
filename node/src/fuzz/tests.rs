use super::*;
use std::collections::BTreeSet;

/// Iterations of the quick run: a second or two.
const QUICK: u64 = 400_000;

/// One byte, below 128.
fn digit() -> Target {
    let decode = |bytes: &Bytes| match bytes[..] {
        [digit] if digit < 128 => Ok(digit),
        _ => Err(DecodeError { expected: "a digit", offset: 0 }),
    };
    Target::new("digit", vec![7], decode, |digit: &u8| Bytes::copy_from_slice(&[*digit]))
}

/// A decoder that is wrong for some input, and what is found.
fn found_in(decode: fn(&Bytes) -> Result<u8, DecodeError>, encode: fn(&u8) -> Bytes) -> Finding {
    let fuzzer = Fuzzer::new(vec![digit(), Target::new("wrong", vec![7], decode, encode)]).unwrap();
    let finding = fuzzer.run(1, 0..100_000).unwrap_err();
    let (seed, iteration) = finding.at.unwrap();
    let again = fuzzer.run(seed, iteration..iteration + 1).unwrap_err();
    assert_eq!(again, finding, "one iteration shows it again");
    let replayed = fuzzer.replay("wrong", finding.input.clone()).unwrap().unwrap_err();
    assert_eq!(replayed.fault, finding.fault, "its bytes alone too");
    assert_eq!(finding.target, "wrong");
    finding
}

fn one(digit: &u8) -> Bytes {
    Bytes::copy_from_slice(&[*digit])
}

#[test]
fn a_panic_a_lost_value_and_a_refused_value_are_found() {
    let panic = found_in(
        |bytes| {
            assert!(bytes.len() < 3, "too long");
            Ok(bytes.first().copied().unwrap_or(0))
        },
        one,
    );
    assert!(panic.fault.contains("too long"), "{panic}");
    let lost =
        found_in(|bytes| Ok(bytes.first().copied().unwrap_or(0)), |digit| one(&(digit & 15)));
    assert!(lost.fault.contains("another value"), "{lost}");
    let refused = found_in(
        |bytes| match bytes[..] {
            [first, ..] => Ok(first),
            [] => Err(DecodeError { expected: "a byte", offset: 0 }),
        },
        |digit| if *digit > 99 { Bytes::new() } else { one(digit) },
    );
    assert!(refused.fault.contains("expected a byte"), "{refused}");
}

#[test]
fn slow_reading_and_swelling_are_found() {
    let slow = found_in(
        |bytes| {
            if bytes.len() > 9 {
                std::thread::sleep(READ_MAX);
            }
            Ok(bytes.first().copied().unwrap_or(0))
        },
        one,
    );
    assert!(slow.fault.contains("reading took"), "{slow}");
    let swells = found_in(
        |bytes| Ok(bytes.first().copied().unwrap_or(0)),
        |digit| if *digit == 200 { vec![*digit; 2 << 20].into() } else { one(digit) },
    );
    assert!(swells.fault.contains("bytes became"), "{swells}");
}

#[test]
fn a_corpus_that_is_not_valid_is_refused() {
    let decode = |bytes: &Bytes| Ok(bytes.len());
    let wrong = Target::new("wrong", vec![7], decode, |_| Bytes::from_static(b"x"));
    let finding = Fuzzer::new(vec![digit(), wrong]).err().unwrap();
    assert_eq!((finding.target, finding.at), ("wrong", None));
}

#[test]
fn the_formats_of_this_crate_stand_damage() {
    let fuzzer = Fuzzer::new(targets()).unwrap_or_else(|finding| panic!("{finding}"));
    let names: BTreeSet<&str> = fuzzer.names().into_iter().collect();
    assert_eq!(names.len(), fuzzer.names().len(), "names are unique");
    let report = fuzzer.run(1, 0..QUICK).unwrap_or_else(|finding| panic!("{finding}"));
    assert_eq!(report.inputs(), QUICK);
    for tally in &report.tallies {
        // Damage that is always refused, or never, would show nothing of what stands behind a check.
        assert!(tally.read > 0 && tally.read < tally.inputs, "{tally:?}");
    }
}
