//! What Flotilla is held to: ratios and times that are passed or missed.
//!
//! All are of the door `flotilla-one`: the load comes to one node, while the leaders of the groups
//! are spread over all. Numbers are medians over the rounds, of ratios within each round.

use super::case::{Case, Command};
use super::kind::Kind;
use super::open_table::OpenRow;
use super::sample::{Sample, Samples, shown};
use super::table::NONE;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The door that is held to the gates.
const DOOR: Kind = Kind::FlotillaOne;
/// Connections of all gates.
const CONNECTIONS: usize = 50;

/// How a gate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateResult {
    /// Also as good as it is aimed to be.
    AimMet,
    /// As good as needed.
    Passed,
    /// Not so good.
    Missed,
    /// There is no number, or there were errors in what it comes from.
    NotMeasured,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// What is measured.
    pub name: String,
    /// True: the more the better. False: the less the better.
    pub at_least: bool,
    /// The number that passes.
    pub needed: f64,
    /// The number that is aimed at, if it is a better one.
    pub aim: Option<f64>,
    /// What was measured: median, least and most of the rounds.
    pub measured: Option<[f64; 3]>,
    /// How it ended.
    pub result: GateResult,
}

impl Gate {
    fn new(
        name: String,
        at_least: bool,
        (needed, aim): (f64, Option<f64>),
        measured: Option<[f64; 3]>,
    ) -> Gate {
        let reaches = |[median, ..]: [f64; 3], bound: f64| {
            if at_least { median >= bound } else { median <= bound }
        };
        let result = match measured {
            None => GateResult::NotMeasured,
            Some(numbers) if !reaches(numbers, needed) => GateResult::Missed,
            Some(numbers) if aim.is_some_and(|aim| reaches(numbers, aim)) => GateResult::AimMet,
            Some(_) => GateResult::Passed,
        };
        Gate { name, at_least, needed, aim, measured, result }
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        matches!(self.result, GateResult::AimMet | GateResult::Passed)
    }

    /// All gates, of the closed loop's cases and the open loop.
    pub fn all(closed: &Samples, open: &[OpenRow]) -> Vec<Gate> {
        let mut gates = throughput(closed);
        gates.extend(times(open));
        gates.extend(cpu(closed));
        gates
    }

    /// What must be measured for them: servers, and the closed loop's cases.
    pub fn needs() -> ([Kind; 4], Vec<Case>) {
        let commands = [Command::Set, Command::Get];
        let cases = commands.into_iter().flat_map(|command| [case(command, 1), case(command, 16)]);
        ([Kind::Redis, DOOR, Kind::Etcd, Kind::Standalone], cases.collect())
    }
}

fn case(command: Command, pipeline: usize) -> Case {
    Case { command, connections: CONNECTIONS, pipeline }
}

/// A ratio, unless anything went wrong in what it comes from.
fn ratio(
    samples: &Samples,
    case: Case,
    to: Kind,
    number: fn(&Sample) -> Option<f64>,
) -> Option<[f64; 3]> {
    let mut of_it = samples.0.iter().filter(|one| one.case == case);
    let failed = of_it.any(|one| [DOOR, to].contains(&one.kind) && one.failed());
    if failed { None } else { samples.ratios(("", case), DOOR, to, number) }
}

fn throughput(closed: &Samples) -> Vec<Gate> {
    let bounds = [
        (Kind::Redis, Command::Set, 1, (0.65, Some(0.8))),
        (Kind::Redis, Command::Set, 16, (0.3, Some(0.5))),
        (Kind::Redis, Command::Get, 1, (0.75, Some(0.9))),
        (Kind::Redis, Command::Get, 16, (0.4, Some(0.6))),
        (Kind::Etcd, Command::Set, 1, (5.0, None)),
        (Kind::Etcd, Command::Set, 16, (8.0, None)),
        (Kind::Etcd, Command::Get, 1, (6.0, None)),
        (Kind::Etcd, Command::Get, 16, (6.0, None)),
    ];
    let gate = |(to, command, pipeline, bounds)| {
        let case = case(command, pipeline);
        let measured = ratio(closed, case, to, |one| Some(one.per_second));
        Gate::new(format!("{case}: ops/s as a multiple of {to}"), true, bounds, measured)
    };
    bounds.into_iter().map(gate).collect()
}

fn times(open: &[OpenRow]) -> Vec<Gate> {
    let case = case(Command::Set, 1);
    let row = open.iter().find(|row| row.server == DOOR && row.case == case);
    let row = row.filter(|row| row.errors == 0 && row.unsent == 0);
    let gate = |what: &str, bound, measured| {
        Gate::new(format!("{case}, open loop: {what}"), false, (bound, None), measured)
    };
    vec![
        gate("p50 in canaries", 8.0, row.map(|row| row.canaries[0])),
        gate("p99 in canaries", 40.0, row.map(|row| row.canaries[1])),
        gate("p99.9 in ms", 50.0, row.map(|row| row.us[2].map(|us| us / 1e3))),
    ]
}

fn cpu(closed: &Samples) -> Vec<Gate> {
    let gate = |pipeline| {
        let case = case(Command::Set, pipeline);
        let measured = ratio(closed, case, Kind::Standalone, Sample::cpu_per_1000);
        let name = format!("{case}: CPU of three replicas as a multiple of standalone");
        Gate::new(name, false, (3.5, None), measured)
    };
    [1, 16].map(gate).into()
}

/// The table for people.
pub(super) fn markdown(gates: &[Gate]) -> String {
    let mut text = "### Gates, of `flotilla-one`\n\n\
        | gate | needed | aim | measured | result |\n|---|---|---|---|---|\n"
        .to_owned();
    for gate in gates {
        let sign = if gate.at_least { ">=" } else { "<=" };
        let aim = gate.aim.map_or(NONE.into(), |aim| format!("{sign} {aim}"));
        let measured = gate.measured.map_or(NONE.into(), |measured| shown(measured, 2));
        let result = match gate.result {
            GateResult::AimMet => "passed, aim met",
            GateResult::Passed => "passed",
            GateResult::Missed => "MISSED",
            GateResult::NotMeasured => "NOT MEASURED",
        };
        // Writing to a string cannot fail.
        let Gate { name, needed, .. } = gate;
        let _ = writeln!(text, "| {name} | {sign} {needed} | {aim} | {measured} | {result} |");
    }
    let held = gates.iter().filter(|gate| gate.holds()).count();
    let _ = writeln!(text, "\n{held} of {} gates hold.", gates.len());
    text
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::sample;
    use super::*;

    fn gate(at_least: bool, needed: f64, aim: Option<f64>, measured: f64) -> GateResult {
        Gate::new(String::new(), at_least, (needed, aim), Some([measured, 0.0, 99.0])).result
    }

    #[test]
    fn the_median_decides_and_a_bound_belongs_to_what_passes() {
        assert_eq!(gate(true, 0.65, Some(0.8), 0.649), GateResult::Missed);
        assert_eq!(gate(true, 0.65, Some(0.8), 0.65), GateResult::Passed);
        assert_eq!(gate(true, 0.65, Some(0.8), 0.8), GateResult::AimMet);
        assert_eq!(gate(true, 5.0, None, 50.0), GateResult::Passed);
        assert_eq!(gate(false, 3.5, None, 3.5), GateResult::Passed);
        assert_eq!(gate(false, 3.5, None, 3.51), GateResult::Missed);
        let none = Gate::new(String::new(), true, (1.0, None), None);
        assert_eq!((none.result, none.holds()), (GateResult::NotMeasured, false));
    }

    fn find<'a>(gates: &'a [Gate], name: &str) -> &'a Gate {
        gates.iter().find(|gate| gate.name == name).unwrap_or_else(|| panic!("{name}: {gates:?}"))
    }

    #[test]
    fn ratios_come_from_their_servers_and_errors_make_them_void() {
        let cpu =
            |kind, seconds| Sample { cpu: vec![("x".into(), seconds)], ..sample(kind, 0, 100.0) };
        let mut closed = Samples(vec![
            sample(Kind::Redis, 0, 200.0),
            Sample { per_second: 140.0, ..cpu(DOOR, 0.9) },
            sample(Kind::Etcd, 0, 35.0),
            cpu(Kind::Standalone, 0.3),
        ]);
        let gates = Gate::all(&closed, &[]);
        assert_eq!(gates.len(), 13);
        let set = find(&gates, "SET c50 P1: ops/s as a multiple of redis");
        assert_eq!((set.measured, set.result), (Some([0.7; 3]), GateResult::Passed));
        let etcd = find(&gates, "SET c50 P1: ops/s as a multiple of etcd");
        assert_eq!((etcd.measured, etcd.result), (Some([4.0; 3]), GateResult::Missed));
        let cpu = find(&gates, "SET c50 P1: CPU of three replicas as a multiple of standalone");
        assert_eq!(cpu.result, GateResult::Passed);
        assert!((cpu.measured.unwrap()[0] - 3.0).abs() < 1e-9);
        closed.0[2].errors = 1;
        let gates = Gate::all(&closed, &[]);
        let etcd = find(&gates, "SET c50 P1: ops/s as a multiple of etcd");
        assert_eq!((etcd.measured, etcd.result), (None, GateResult::NotMeasured));
        assert!(find(&gates, "SET c50 P1: ops/s as a multiple of redis").holds());
        let text = markdown(&gates);
        assert!(text.contains("| >= 0.65 | >= 0.8 | 0.70 (0.70 to 0.70) | passed |"), "{text}");
        assert!(text.ends_with("2 of 13 gates hold.\n"), "{text}");
    }

    #[test]
    fn times_are_of_the_open_loop_and_only_if_it_kept_up() {
        let row = OpenRow {
            case: case(Command::Set, 1),
            server: DOOR,
            rate: 100.0,
            per_second: [100.0; 3],
            us: [[900.0; 3], [3000.0; 3], [50_001.0; 3]],
            canaries: [[7.9; 3], [40.0; 3], [400.0; 3]],
            unsent: 0,
            errors: 0,
        };
        let results = |row: &OpenRow| {
            times(std::slice::from_ref(row)).iter().map(|gate| gate.result).collect::<Vec<_>>()
        };
        use GateResult::{Missed, NotMeasured, Passed};
        assert_eq!(results(&row), [Passed, Passed, Missed]);
        assert_eq!(results(&OpenRow { unsent: 1, ..row.clone() }), [NotMeasured; 3]);
        assert_eq!(results(&OpenRow { server: Kind::Flotilla, ..row }), [NotMeasured; 3]);
    }
}
