//! `flotilla verify`: whether clusters hold the same.
//!
//! In a round, every group of every cluster is asked, at one group time, for the digests of its
//! slots, the highest stamp of its own effects, and its closed vector. Two clusters are comparable
//! when each one's vector covers what the other has written. Rounds repeat until all are equal, or a
//! difference stays while nothing is written, or the time is over. Of slots that differ the first
//! keys that differ are asked for and named.
//!
//! Exit code 0 equal, 1 different, 6 still moving or not to be reached.

mod ask;
mod compare;
mod keys;
mod replicas;
mod scope;

pub use keys::DifferentKey;
pub use replicas::replicas;
pub use scope::Scope;

use crate::exit;
use crate::find::{self, Known, Where};
use crate::serve;
use crate::state::ClientFiles;
use anyhow::{Context, bail};
use ask::{Asker, Content};
use clap::Args;
use compare::Comparison;
use flotilla_chaos::checkers::converge::Verified;
use flotilla_chaos::wan::parse_duration;
use flotilla_node::clock;
use flotilla_node::tls::{Tls, TlsFiles};
use flotilla_topology::ids::ClusterId;
use flotilla_topology::slot::{Slot, SlotRange};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Pause between rounds: what is under way needs a round trip, and groups must not be busy with
/// digests only.
const ROUND_PAUSE: Duration = Duration::from_millis(300);
/// Slots named in a line.
const SLOTS_NAMED_MAX: usize = 10;

/// What `flotilla verify` takes.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    place: Where,
    /// The authority's certificate; a state file names it already.
    #[arg(long, requires = "cert")]
    ca: Option<PathBuf>,
    /// Certificate of role client; repeat it with its key for each cluster.
    #[arg(long, requires = "ca")]
    cert: Vec<PathBuf>,
    /// Key of that certificate, in the same order.
    #[arg(long, requires = "cert")]
    key: Vec<PathBuf>,
    /// Compare this namespace only.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Compare these slots only: A-B, or one slot.
    #[arg(long, value_name = "A-B", value_parser = scope::parse_slots)]
    slots: Option<SlotRange>,
    /// How long to wait until what is under way has arrived.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Of all pairs.
    pub verdict: Verdict,
    /// One line.
    pub detail: String,
    /// Every pair of clusters and namespace.
    pub pairs: Vec<Pair>,
    /// How long it took.
    pub seconds: f64,
}

/// Two clusters and a namespace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// Name of the one cluster.
    pub a: String,
    /// Name of the other.
    pub b: String,
    /// Name of the namespace.
    pub namespace: String,
    /// Equal or not.
    pub verdict: Verdict,
    /// One line.
    pub detail: String,
    /// Slots that differ.
    pub slots: Vec<Slot>,
    /// The first keys that differ, in the first of these slots.
    pub first_keys: Vec<DifferentKey>,
    /// Keys in each of the two.
    pub keys: [u64; 2],
}

/// The answer, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Both hold the same.
    Equal,
    /// Something is under way, or somebody cannot be asked.
    Moving,
    /// Nothing is under way, and they differ.
    Different,
}

impl Verdict {
    fn code(self) -> u8 {
        match self {
            Verdict::Equal => 0,
            Verdict::Different => exit::FAILED,
            Verdict::Moving => exit::MOVING,
        }
    }
}

/// Runs `flotilla verify`.
pub fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let known = args.place.clusters()?;
    let given = certificates(&args)?;
    let slots = args.slots.unwrap_or(SlotRange::ALL);
    let scope = Scope { namespace: args.namespace.clone(), slots };
    let report = serve::block_on(async {
        // Refused at once; whoever cannot be asked now is waited for below.
        if let Ok(told) = find::ask_all(known.clone()).await.all() {
            scope.check(told.iter().map(|one| &one.status.map))?;
        }
        Ok(verify(&known, &given, &scope, args.timeout).await)
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for pair in &report.pairs {
            println!("{} {} {}: {}", pair.a, pair.b, pair.namespace, pair.detail);
        }
        println!("{}", report.detail);
    }
    Ok(ExitCode::from(report.verdict.code()))
}

/// Certificates from the command line, by cluster.
fn certificates(args: &VerifyArgs) -> anyhow::Result<BTreeMap<ClusterId, ClientFiles>> {
    if args.cert.len() != args.key.len() {
        let line = "give as many --key as --cert, in the same order";
        return Err(exit::Exit::usage(line));
    }
    let mut found = BTreeMap::new();
    let Some(ca) = &args.ca else { return Ok(found) };
    for (cert, key) in args.cert.iter().zip(&args.key) {
        let files = ClientFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone() };
        let tls = load(&files).map_err(exit::Exit::usage_chain)?;
        found.insert(tls.identity().cluster, files);
    }
    Ok(found)
}

fn load(files: &ClientFiles) -> anyhow::Result<Tls> {
    let ClientFiles { ca, cert, key } = files.clone();
    Ok(Tls::load(&TlsFiles { ca, cert, key })?)
}

/// Compares clusters until they are equal, or different for good, or the time is over.
pub async fn verify(
    known: &[Known],
    given: &BTreeMap<ClusterId, ClientFiles>,
    scope: &Scope,
    timeout: Duration,
) -> Report {
    let began = Instant::now();
    let mut askers = BTreeMap::new();
    let mut before: Option<Vec<Content>> = None;
    loop {
        let (pairs, contents) = match round(known, given, scope, &mut askers).await {
            Ok(contents) => (compare_all(&contents, before.as_deref()), Some(contents)),
            Err(error) => (Err(format!("{error:#}")), None),
        };
        let over = began.elapsed() >= timeout;
        match pairs {
            Ok(pairs) => {
                let moving = pairs.iter().any(|pair| pair.verdict == Verdict::Moving);
                if !moving || over {
                    let pairs = name_keys(pairs, contents.as_deref(), &askers).await;
                    return report(pairs, contents.as_deref().unwrap_or_default(), began);
                }
            }
            Err(detail) if over => {
                let seconds = began.elapsed().as_secs_f64();
                return Report { verdict: Verdict::Moving, detail, pairs: vec![], seconds };
            }
            Err(_) => {}
        }
        before = contents;
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

/// Names the first keys of what differs for good. That they cannot be named is said, and changes
/// nothing about the verdict.
async fn name_keys(
    mut pairs: Vec<Pair>,
    contents: Option<&[Content]>,
    askers: &BTreeMap<ClusterId, Asker>,
) -> Vec<Pair> {
    let side = |name: &str| {
        let content = contents?.iter().find(|content| content.name == name)?;
        Some((content, askers.get(&content.cluster)?))
    };
    for pair in pairs.iter_mut().filter(|pair| !pair.slots.is_empty()) {
        let (Verdict::Different, Some(a), Some(b)) = (pair.verdict, side(&pair.a), side(&pair.b))
        else {
            continue;
        };
        let slots = &pair.slots[..pair.slots.len().min(SLOTS_NAMED_MAX)];
        match keys::first_keys([a, b], &pair.namespace, slots).await {
            Ok(keys) => {
                pair.detail += &keys::in_words(&keys, [&pair.a, &pair.b]);
                pair.first_keys = keys;
            }
            Err(error) => pair.detail += &format!("; keys not named: {error:#}"),
        }
    }
    pairs
}

fn report(pairs: Vec<Pair>, contents: &[Content], began: Instant) -> Report {
    let verdict = pairs.iter().map(|pair| pair.verdict).max().unwrap_or(Verdict::Equal);
    let detail = match (verdict, contents) {
        (_, [one]) => {
            format!("{} is the only cluster: there is nothing to compare it with", one.name)
        }
        (Verdict::Equal, _) => "equal".to_owned(),
        (Verdict::Different, _) => "DIFFERENT".to_owned(),
        (Verdict::Moving, _) => "still moving or not to be reached".to_owned(),
    };
    Report { verdict, detail, pairs, seconds: began.elapsed().as_secs_f64() }
}

/// Asks all clusters, at one time.
async fn round(
    known: &[Known],
    given: &BTreeMap<ClusterId, ClientFiles>,
    scope: &Scope,
    askers: &mut BTreeMap<ClusterId, Asker>,
) -> anyhow::Result<Vec<Content>> {
    let told = find::ask_all(known.to_vec()).await.all()?;
    for one in &told {
        let id = one.status.map.cluster;
        if told.len() > 1 && !askers.contains_key(&id) {
            let name = &one.status.map.name;
            let Some(files) = one.known.client.as_ref().or_else(|| given.get(&id)) else {
                bail!(
                    "cluster {name} (id {id}) is asked with a certificate of role client: give \
                     --ca, --cert and --key, or --state"
                );
            };
            let tls = load(files).with_context(|| format!("the certificate for {name}"))?;
            askers.insert(id, Asker::new(tls));
        }
    }
    let at_ms = clock::wall_ms();
    let asked = told.iter().map(|one| {
        let asker = askers.get(&one.status.map.cluster);
        async move {
            let map = &one.status.map;
            match asker {
                Some(asker) => asker.content(map, scope, at_ms).await,
                None => Ok(Content::empty(map)),
            }
        }
    });
    futures::future::try_join_all(asked).await
}

/// Every pair of clusters, every namespace. A difference counts once it was there in the round
/// before too and nothing was written in between: one side may have been read earlier.
fn compare_all(contents: &[Content], before: Option<&[Content]>) -> Result<Vec<Pair>, String> {
    let mut pairs = Vec::new();
    for (n, a) in contents.iter().enumerate() {
        for b in &contents[n + 1..] {
            let names = a.namespaces.keys().chain(b.namespaces.keys());
            let mut names: Vec<&String> = names.collect();
            names.sort();
            names.dedup();
            for name in names {
                pairs.push(pair(a, b, name, before));
            }
            if a.namespaces.is_empty() && b.namespaces.is_empty() {
                return Err(format!("{} and {} have no synced namespace yet", a.name, b.name));
            }
        }
    }
    Ok(pairs)
}

fn pair(a: &Content, b: &Content, namespace: &str, before: Option<&[Content]>) -> Pair {
    let mut pair = Pair {
        a: a.name.clone(),
        b: b.name.clone(),
        namespace: namespace.to_owned(),
        verdict: Verdict::Moving,
        detail: String::new(),
        slots: vec![],
        first_keys: vec![],
        keys: [0; 2],
    };
    let (Some(in_a), Some(in_b)) = (a.namespaces.get(namespace), b.namespaces.get(namespace))
    else {
        let missing = if a.namespaces.contains_key(namespace) { &b.name } else { &a.name };
        pair.detail = format!("{missing} has no synced namespace of that name: create it");
        pair.verdict = Verdict::Different;
        return pair;
    };
    match compare::compare((a.cluster, in_a), (b.cluster, in_b)) {
        Comparison::NotYet(why) => pair.detail = format!("not comparable yet: {why}"),
        Comparison::Differ { slots, keys } => {
            let same_as_before = before.is_some_and(|before| {
                let still = |now: &Content| {
                    let then = before.iter().find(|then| then.cluster == now.cluster);
                    let then = then.and_then(|then| then.namespaces.get(namespace));
                    then.is_some_and(|then| compare::same(then, &now.namespaces[namespace]))
                };
                still(a) && still(b)
            });
            pair.keys = keys;
            pair.verdict = if same_as_before { Verdict::Different } else { Verdict::Moving };
            pair.detail = differing(&slots, keys);
            pair.slots = slots;
        }
        Comparison::Equal { keys } => {
            pair.verdict = Verdict::Equal;
            pair.keys = [keys; 2];
            pair.detail = format!("equal, {keys} keys");
        }
    }
    pair
}

fn differing(slots: &[Slot], keys: [u64; 2]) -> String {
    let named: Vec<String> = slots.iter().take(SLOTS_NAMED_MAX).map(Slot::to_string).collect();
    let more = slots.len().saturating_sub(SLOTS_NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("different in slots {}{more}; {} and {} keys", named.join(", "), keys[0], keys[1])
}

impl Report {
    /// As the chaos checkers take it.
    pub fn verified(&self) -> Verified {
        let pairs = self.pairs.iter().filter(|pair| pair.verdict == self.verdict);
        let mut lines: Vec<String> =
            pairs.map(|pair| format!("{} {}: {}", pair.a, pair.b, pair.detail)).collect();
        lines.push(self.detail.clone());
        match self.verdict {
            Verdict::Equal => Verified::Equal,
            Verdict::Different => Verified::Different(lines.join("; ")),
            Verdict::Moving => Verified::Moving(lines.join("; ")),
        }
    }
}
