//! `flotilla simulate`: runs histories of clusters without processes, from seeds, and checks that
//! all come to the same. Exit code 1 when one did not.

use crate::exit;
use clap::Args;
use flotilla_node::flaws::Flaw;
use flotilla_syncer::simulate::{self, calibrate};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two lines that tell how far it is.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// What `flotilla simulate` takes.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// How many histories.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Put one rule wrong, and look for a history that shows it. See --calibrate for the names.
    #[arg(long)]
    flaw: Option<String>,
    /// Put one rule wrong after the other, and print how many histories it took to find it.
    #[arg(long)]
    calibrate: bool,
    /// Look for one invariant only, and go on when another breaks.
    #[arg(long)]
    only: Option<String>,
    /// Tell what happens in the history of the first seed.
    #[arg(long)]
    trace: bool,
}

/// Runs `flotilla simulate`.
pub fn run(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let flaw = args.flaw.as_deref().map(flaw_named).transpose()?;
    if args.trace {
        let (story, end) = simulate::trace(args.first, flaw);
        println!("{}", story.join("\n"));
        println!("{end:?}");
        return Ok(code(end.is_ok()));
    }
    if args.calibrate {
        return Ok(calibrated(&args));
    }
    let (done, broken) = search(&args, flaw);
    println!("{done} histories from seed {}", args.first);
    let Some((seed, broken)) = broken else { return Ok(ExitCode::SUCCESS) };
    println!("seed {seed}: {}: {}", broken.invariant, broken.what);
    println!("flotilla simulate --trace --first {seed} tells what happened");
    Ok(ExitCode::from(exit::FAILED))
}

fn code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) }
}

fn flaw_named(name: &str) -> anyhow::Result<Flaw> {
    let found = calibrate::FLAWS.iter().find(|flaw| format!("{flaw:?}") == name);
    found.copied().ok_or_else(|| {
        let names: Vec<String> = calibrate::FLAWS.iter().map(|flaw| format!("{flaw:?}")).collect();
        exit::Exit::usage(format!("no flaw `{name}`: there are {}", names.join(", ")))
    })
}

/// Runs the histories on all cores; how many ran, and the first that went wrong.
fn search(args: &SimulateArgs, flaw: Option<Flaw>) -> (u64, Option<(u64, simulate::Broken)>) {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    let worker = |tells: bool| {
        let mut told = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= args.seeds {
                break;
            }
            let seed = args.first + number;
            if let Err(broken) = simulate::run_only(seed, flaw, args.only.as_deref()) {
                stop.store(true, Ordering::Relaxed);
                return Some((seed, broken));
            }
            if tells && told.elapsed() > TELL_INTERVAL {
                told = Instant::now();
                eprintln!("{number} histories in {:.0?}", began.elapsed());
            }
        }
        None
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let broken = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|place| scope.spawn(move || worker(place == 0))).collect();
        let ends = workers.into_iter().filter_map(|worker| worker.join().ok().flatten());
        ends.min_by_key(|(seed, _)| *seed)
    });
    (next.load(Ordering::Relaxed).min(args.seeds), broken)
}

/// The calibration table; whether every flaw was found.
fn calibrated(args: &SimulateArgs) -> ExitCode {
    let mut all = true;
    println!("{:<20} {:>10} {:>12}  invariant", "rule put wrong", "histories", "seed");
    for flaw in calibrate::FLAWS {
        let (done, broken) = search(args, Some(*flaw));
        let name = format!("{flaw:?}");
        match broken {
            Some((seed, broken)) => {
                println!("{name:<20} {done:>10} {seed:>12}  {}", broken.invariant);
            }
            None => {
                all = false;
                println!("{name:<20} {done:>10}  NOT FOUND");
            }
        }
    }
    code(all)
}
