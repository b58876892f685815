//! Read barriers from remote leaders, one request for all reads that wait at the time.
//!
//! A request that is under way already may have been answered before a read began, so a read joins
//! the next one: at most one request per node is under way, and everyone who came meanwhile shares the
//! one after it, whatever their groups. It asks for what the node can tell at once. Of a group that has
//! no lease just then a majority must be asked, which others need not wait for: such a group is asked
//! for alone, again one request at a time.

use crate::group::exec::{self, BARRIERS_MAX, BarrierAnswer};
use crate::router::Places;
use crate::transport::{Class, kinds};
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, Role};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::mem::{replace, take};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A leader that does not answer a barrier within this is asked again, or another one is.
const BARRIER_DEADLINE: Duration = Duration::from_secs(1);

type Waiters = Vec<oneshot::Sender<BarrierAnswer>>;

/// Asks leaders for barriers.
#[derive(Clone)]
pub struct Barriers {
    shared: Arc<Shared>,
}

struct Shared {
    places: Arc<Places>,
    /// Present while a request to the node is under way: who waits for the next one.
    waiting: Mutex<HashMap<String, BTreeMap<GroupId, Waiters>>>,
    /// The same of groups that are asked for alone.
    alone: Mutex<HashMap<(GroupId, String), Waiters>>,
}

impl Barriers {
    /// None under way.
    pub fn new(places: Arc<Places>) -> Barriers {
        let (waiting, alone) = (Mutex::default(), Mutex::default());
        Barriers { shared: Arc::new(Shared { places, waiting, alone }) }
    }

    /// A barrier of `group` from `node`, asked for after this call began.
    pub async fn from(&self, group: GroupId, node: &str) -> BarrierAnswer {
        let (tell, answer) = oneshot::channel();
        self.shared.join(group, node, tell);
        answer.await.unwrap_or(Err(None))
    }

    /// As [`Barriers::from`], behind a tick at `at_ms`. Ticks are rare: they are not shared.
    pub async fn tick(&self, group: GroupId, node: &str, at_ms: u64) -> BarrierAnswer {
        self.shared.ask(group, node, at_ms).await
    }
}

/// Asks again and again while somebody waits.
async fn serve(shared: Arc<Shared>, node: String) {
    let some = |groups: &mut BTreeMap<_, _>| (!groups.is_empty()).then(|| take_some(groups));
    while let Some(mut groups) = next(&shared.waiting, &node, some) {
        let asked: Vec<GroupId> = groups.keys().copied().collect();
        let answers = shared.ask_for(&asked, &node).await;
        for (group, answer) in asked.into_iter().zip(answers) {
            let waiters = groups.remove(&group).unwrap_or_default();
            match answer {
                Some(answer) => tell(waiters, &answer),
                None => shared.ask_alone(group, &node, waiters),
            }
        }
    }
}

/// What waits for the next request, taken out; if nothing does, none is under way from now on.
fn next<K: Eq + Hash, W>(
    waiting: &Mutex<HashMap<K, W>>,
    key: &K,
    some: impl FnOnce(&mut W) -> Option<W>,
) -> Option<W> {
    let mut waiting = waiting.lock();
    let taken = waiting.get_mut(key).and_then(some);
    if taken.is_none() {
        waiting.remove(key);
    }
    taken
}

/// As many as one request may ask for.
fn take_some(groups: &mut BTreeMap<GroupId, Waiters>) -> BTreeMap<GroupId, Waiters> {
    match groups.keys().nth(BARRIERS_MAX).copied() {
        None => take(groups),
        Some(next) => {
            let rest = groups.split_off(&next);
            replace(groups, rest)
        }
    }
}

fn tell(waiters: Waiters, answer: &BarrierAnswer) {
    for waiter in waiters {
        let _ = waiter.send(answer.clone()); // the reader is gone
    }
}

impl Shared {
    /// Joins the next request to a node, and begins it if none is under way.
    fn join(self: &Arc<Shared>, group: GroupId, node: &str, tell: oneshot::Sender<BarrierAnswer>) {
        let mut waiting = self.waiting.lock();
        if let Some(groups) = waiting.get_mut(node) {
            return groups.entry(group).or_default().push(tell);
        }
        waiting.insert(node.to_owned(), BTreeMap::from([(group, vec![tell])]));
        tokio::spawn(serve(self.clone(), node.to_owned()));
    }

    /// One answer for each group; none where it must be asked for alone.
    async fn ask_for(&self, groups: &[GroupId], node: &str) -> Vec<Option<BarrierAnswer>> {
        let payload = exec::encode_barriers_request(groups);
        let answers = self.call(node, kinds::READ_INDEXES, payload).await;
        let answers = answers.and_then(|answer| exec::decode_barriers(&answer).ok());
        let answers = answers.filter(|answers| answers.len() == groups.len());
        answers.unwrap_or_else(|| vec![Some(Err(None)); groups.len()])
    }

    /// Asks for one group, or lets the next request do that if one is under way.
    fn ask_alone(self: &Arc<Shared>, group: GroupId, node: &str, waiters: Waiters) {
        let key = (group, node.to_owned());
        let mut alone = self.alone.lock();
        if let Some(others) = alone.get_mut(&key) {
            return others.extend(waiters);
        }
        alone.insert(key.clone(), waiters);
        let shared = self.clone();
        tokio::spawn(async move {
            let all = |waiters: &mut Waiters| (!waiters.is_empty()).then(|| take(waiters));
            while let Some(waiters) = next(&shared.alone, &key, all) {
                tell(waiters, &shared.ask(key.0, &key.1, 0).await);
            }
        });
    }

    async fn ask(&self, group: GroupId, node: &str, tick_ms: u64) -> BarrierAnswer {
        let kind = if tick_ms == 0 { kinds::READ_INDEX } else { kinds::TICK };
        let payload = exec::encode_barrier_request(group, tick_ms);
        let answer = self.call(node, kind, payload).await.ok_or(None)?;
        exec::decode_barrier(&answer).unwrap_or(Err(None))
    }

    async fn call(&self, node: &str, kind: u16, payload: Bytes) -> Option<Bytes> {
        let client = self.places.client(Role::Node, node)?;
        client.call(Class::Forward, kind, payload, BARRIER_DEADLINE).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_for_so_many_groups_and_the_next_one_for_the_rest() {
        let all = (1..=BARRIERS_MAX as u32 + 2).map(|group| (GroupId(group), Waiters::new()));
        let mut groups: BTreeMap<GroupId, Waiters> = all.collect();
        let first = take_some(&mut groups);
        assert_eq!((first.len(), groups.len()), (BARRIERS_MAX, 2));
        assert_eq!(take_some(&mut groups).len(), 2);
        assert!(groups.is_empty());
    }
}
