//! Reads in the end what a history has touched.

use super::client::{Outcome, command, understand};
use crate::checkers::Finals;
use crate::history::{Answer, History, Op, Record, Recorder};
use crate::resp::Client;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Reads sent at once.
const READS_PER_BATCH: usize = 200;
/// How long one batch may take.
const BATCH_PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a batch is tried again at the next node.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The client number of these reads.
const READER: u32 = u32::MAX;

/// A key and, in a hash, a field.
type Cell = (String, Option<String>);

/// All cells that a history touched.
pub(super) fn cells(history: &History) -> Vec<Cell> {
    let mut cells = BTreeSet::new();
    // A key that was only deleted could be of either kind; it is of neither family then.
    for Record { key, op, .. } in &history.records {
        match op {
            Op::HSet(field, _) | Op::HGet(field) => {
                cells.insert((key.clone(), Some(field.clone())))
            }
            Op::Del | Op::GetDel => false,
            _ => cells.insert((key.clone(), None)),
        };
    }
    cells.into_iter().collect()
}

/// Reads cells, batch by batch, each through the next node. `patience` is for each batch: how many
/// there are depends on how long the load went on.
pub(super) async fn read(
    recorder: Option<&Recorder>,
    cells: &[Cell],
    addresses: &[String],
    patience: Duration,
) -> Result<Finals, String> {
    let mut finals = Finals::new();
    let mut nodes = (0..addresses.len()).cycle();
    for batch in cells.chunks(READS_PER_BATCH) {
        let deadline = Instant::now() + patience;
        loop {
            let node = nodes.next().ok_or("no node to read from")?;
            let left: Vec<&Cell> = batch.iter().filter(|cell| !finals.contains_key(cell)).collect();
            match read_batch(recorder, &left, &addresses[node], &mut finals).await {
                Ok(()) => break,
                Err(why) if Instant::now() > deadline => {
                    return Err(format!("cannot read through {}: {why}", addresses[node]));
                }
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }
    Ok(finals)
}

async fn read_batch(
    recorder: Option<&Recorder>,
    batch: &[&Cell],
    address: &str,
    finals: &mut Finals,
) -> Result<(), String> {
    let ops: Vec<Op> =
        batch.iter().map(|(_, field)| field.clone().map_or(Op::Get, Op::HGet)).collect();
    let commands: Vec<Vec<&str>> =
        batch.iter().zip(&ops).map(|((key, _), op)| command(key, op)).collect();
    let mut client =
        Client::connect(address, BATCH_PATIENCE).await.map_err(|error| error.to_string())?;
    let invoked = recorder.map_or(0, Recorder::now);
    let replies = client.pipeline(&commands).await.map_err(|error| error.to_string())?;
    let returned = recorder.map_or(0, Recorder::now);
    let mut refused = None;
    for ((cell, op), reply) in batch.iter().zip(ops).zip(replies) {
        match understand(&op, reply) {
            Outcome::Answered(answer) => {
                if let Answer::Value(value) = &answer {
                    finals.insert((*cell).clone(), value.clone());
                }
                let returned = Some((returned, answer));
                let key = cell.0.clone();
                if let Some(recorder) = recorder {
                    recorder.add(Record { client: READER, key, op, invoked, returned });
                }
            }
            other => refused = Some(format!("{}: {other:?}", cell.0)),
        }
    }
    refused.map_or(Ok(()), Err)
}
