//! `flotilla fuzz`: gives damaged bytes to every decoder of what arrives, from a seed. Exit code 1
//! when one does not stand them.

use crate::exit::{self, Exit};
use clap::Args;
use flotilla_syncer::fuzz::{self, Finding, Fuzzer, Report};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Iterations that a thread takes at once.
const STEP: u64 = 10_000;

/// What `flotilla fuzz` takes.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many inputs, instead of for how long.
    #[arg(long, conflicts_with = "seconds")]
    iterations: Option<u64>,
    /// Where chance begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first iteration: with --iterations 1, that one again.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Give these bytes to a format, as TARGET=HEX, and nothing else.
    #[arg(long, value_name = "TARGET=HEX")]
    replay: Option<String>,
}

/// Runs `flotilla fuzz`.
pub fn run(args: FuzzArgs) -> anyhow::Result<ExitCode> {
    let fuzzer = match fuzz::fuzzer() {
        Ok(fuzzer) => fuzzer,
        Err(finding) => return Ok(told(&finding)),
    };
    if let Some(given) = &args.replay {
        return replayed(&fuzzer, given);
    }
    let began = Instant::now();
    let (report, finding) = search(&fuzzer, &args);
    print(&report, began.elapsed());
    Ok(finding.map_or(ExitCode::SUCCESS, |finding| told(&finding)))
}

fn told(finding: &Finding) -> ExitCode {
    println!("{finding}");
    if let Some((seed, iteration)) = finding.at {
        println!("flotilla fuzz --seed {seed} --first {iteration} --iterations 1 shows it again");
    }
    ExitCode::from(exit::FAILED)
}

fn replayed(fuzzer: &Fuzzer, given: &str) -> anyhow::Result<ExitCode> {
    let shape = || Exit::usage("--replay takes TARGET=HEX, as a finding prints them");
    let (target, hex) = given.split_once('=').ok_or_else(shape)?;
    let input = bytes_of(hex).ok_or_else(shape)?;
    match fuzzer.replay(target, input.into()) {
        None => {
            let names = fuzzer.names().join(", ");
            Err(Exit::usage(format!("no format `{target}`: there are {names}")))
        }
        Some(Ok(())) => {
            println!("{target} stands these bytes");
            Ok(ExitCode::SUCCESS)
        }
        Some(Err(finding)) => Ok(told(&finding)),
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Runs on all cores; what came of all inputs but those of a step with a finding, and the first
/// finding.
fn search(fuzzer: &Fuzzer, args: &FuzzArgs) -> (Report, Option<Finding>) {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let total = args.iterations.unwrap_or(u64::MAX - args.first);
    let worker = || {
        let mut report = Report::default();
        while !stop.load(Ordering::Relaxed) {
            let start = next.fetch_add(STEP, Ordering::Relaxed);
            let late = args.iterations.is_none() && Instant::now() >= until;
            if late || start >= total {
                break;
            }
            let end = total.min(start.saturating_add(STEP));
            match fuzzer.run(args.seed, args.first + start..args.first + end) {
                Ok(step) => report.add(&step),
                Err(finding) => {
                    stop.store(true, Ordering::Relaxed);
                    return (report, Some(finding));
                }
            }
        }
        (report, None)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let (mut report, mut findings) = (Report::default(), Vec::new());
        for (part, finding) in workers.into_iter().filter_map(|worker| worker.join().ok()) {
            report.add(&part);
            findings.extend(finding);
        }
        (report, findings.into_iter().min_by_key(|finding| finding.at))
    })
}

fn print(report: &Report, took: Duration) {
    println!(
        "{:<20} {:>10} {:>10} {:>10} {:>10}",
        "format", "inputs", "read", "respelled", "slowest"
    );
    for tally in &report.tallies {
        let slowest = format!("{:.1?}", tally.slowest);
        println!(
            "{:<20} {:>10} {:>10} {:>10} {slowest:>10}",
            tally.target, tally.inputs, tally.read, tally.respelled
        );
    }
    println!("{} inputs in {took:.1?}", report.inputs());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_as_it_is_printed() {
        assert_eq!(bytes_of("00ff7A"), Some(vec![0, 0xFF, 0x7A]));
        assert_eq!(bytes_of(""), Some(Vec::new()));
        assert_eq!((bytes_of("0"), bytes_of("0g")), (None, None));
    }

    #[test]
    fn as_many_inputs_are_run_as_were_asked_for() {
        let args =
            FuzzArgs { seconds: 0, iterations: Some(25_001), seed: 3, first: 7, replay: None };
        let fuzzer = fuzz::fuzzer().unwrap_or_else(|finding| panic!("{finding}"));
        let (report, finding) = search(&fuzzer, &args);
        assert_eq!((report.inputs(), finding), (25_001, None));
    }
}
