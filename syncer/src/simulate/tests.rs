use super::*;

/// Histories of an ordinary run; `FLOTILLA_SIMULATE_SEEDS=100000` hunts.
const SEEDS: u64 = 2000;

fn seeds() -> u64 {
    let seeds = std::env::var("FLOTILLA_SIMULATE_SEEDS").ok();
    seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn whatever_happens_clusters_converge_and_clean_up() {
    for seed in 1..=seeds() {
        if run(seed, None).is_err() {
            let (trace, end) = trace(seed, None);
            panic!("seed {seed}:\n{}\n{:?}", trace.join("\n"), end);
        }
    }
}
