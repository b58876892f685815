//! Read barriers from remote leaders, one request for all reads that wait at the time.
//!
//! A request that is under way already may have been answered before a read began, so a read joins
//! the next one: at most one request per group is under way, and everyone who came meanwhile shares
//! the one after it.

use crate::group::exec::{Barrier, decode_barrier, encode_barrier_request};
use crate::router::Places;
use crate::transport::{Class, kinds};
use flotilla_topology::ids::{GroupId, Role};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A leader that does not answer a barrier within this is asked again, or another one is.
const BARRIER_DEADLINE: Duration = Duration::from_secs(1);

/// A barrier, or the leader as far as the asked node knows.
pub type BarrierAnswer = Result<Barrier, Option<String>>;

type Waiters = Vec<oneshot::Sender<BarrierAnswer>>;

/// Asks leaders for barriers.
pub struct Barriers {
    places: Arc<Places>,
    /// Present while a request is under way: who waits for the next one.
    waiting: Arc<Mutex<HashMap<(GroupId, String), Waiters>>>,
}

impl Barriers {
    /// None under way.
    pub fn new(places: Arc<Places>) -> Barriers {
        Barriers { places, waiting: Arc::default() }
    }

    /// A barrier of `group` from `node`, asked for after this call began.
    pub async fn from(&self, group: GroupId, node: &str) -> BarrierAnswer {
        let (tell, answer) = oneshot::channel();
        let key = (group, node.to_owned());
        let first = {
            let mut waiting = self.waiting.lock();
            match waiting.get_mut(&key) {
                Some(waiters) => {
                    waiters.push(tell);
                    false
                }
                None => {
                    waiting.insert(key.clone(), vec![tell]);
                    true
                }
            }
        };
        if first {
            tokio::spawn(serve(self.places.clone(), self.waiting.clone(), key));
        }
        answer.await.unwrap_or(Err(None))
    }

    /// As [`Barriers::from`], behind a tick at `at_ms`. Ticks are rare: they are not shared.
    pub async fn tick(&self, group: GroupId, node: &str, at_ms: u64) -> BarrierAnswer {
        ask(&self.places, group, node, at_ms).await
    }
}

/// Asks again and again while somebody waits.
async fn serve(
    places: Arc<Places>,
    waiting: Arc<Mutex<HashMap<(GroupId, String), Waiters>>>,
    key: (GroupId, String),
) {
    loop {
        let waiters = {
            let mut waiting = waiting.lock();
            match waiting.get_mut(&key) {
                Some(waiters) if !waiters.is_empty() => std::mem::take(waiters),
                _ => {
                    waiting.remove(&key);
                    return;
                }
            }
        };
        let answer = ask(&places, key.0, &key.1, 0).await;
        for waiter in waiters {
            let _ = waiter.send(answer.clone()); // the reader is gone
        }
    }
}

async fn ask(places: &Places, group: GroupId, node: &str, tick_ms: u64) -> BarrierAnswer {
    let Some(client) = places.client(Role::Node, node) else { return Err(None) };
    let kind = if tick_ms == 0 { kinds::READ_INDEX } else { kinds::TICK };
    let payload = encode_barrier_request(group, tick_ms);
    match client.call(Class::Forward, kind, payload, BARRIER_DEADLINE).await {
        Ok(answer) => decode_barrier(&answer).unwrap_or(Err(None)),
        Err(_) => Err(None),
    }
}
