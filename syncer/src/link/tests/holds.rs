//! What operators and deaths do to a link: pauses, fences, rewinds, removals, and a syncer that is
//! gone.

use super::*;
use crate::outbound::{Merger, Merges, Window};
use flotilla_topology::api::Standing;
use tokio::sync::Semaphore;

/// A sender of one group, in operators' hands.
struct Rig {
    node: Arc<Node>,
    outlets: Outlets,
    gate: Gate,
    window: Window,
    told: watch::Sender<PeerCluster>,
    sent: u64,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start(ca: &Authority, node: Arc<Node>, west: SocketAddr) -> Rig {
        Rig::with(ca, node, west, Merges::new(no_merger()), (0, 0))
    }

    /// With another merger; a merge that an operator asked for, and the one that is done.
    fn with(
        ca: &Authority,
        node: Arc<Node>,
        west: SocketAddr,
        merges: Merges,
        (merge_epoch, merged): (u64, u64),
    ) -> Rig {
        let link = dial(&ca.tls(identity(EAST, Role::Syncer, "s1")).unwrap(), west, 10.0);
        let (outlets, gate) = (Outlets::default(), Gate::default());
        let news = outlets.add(gate.clone());
        let peer = PeerCluster { merge_epoch, ..PeerCluster::default() };
        let (told, telling) = watch::channel(peer);
        let begin = (Position::default(), merged);
        let (outbound, window) =
            Outbound::new(route(), begin, gate.clone(), news, link, telling, merges);
        let task = tokio::spawn(outbound.run());
        Rig { node, outlets, gate, window, told, sent: 0, task }
    }

    fn commit(&mut self, entries: u64) {
        let next = self.sent + 1..=self.sent + entries;
        self.sent += entries;
        self.outlets.tell(&News::Committed(next.map(learned).collect()));
    }

    fn arrived(&self) -> u64 {
        let groups = self.node.groups.lock();
        groups.values().map(|(cursor, _)| cursor.index).min().unwrap_or(0)
    }

    fn state(&self) -> LinkState {
        self.window.status.lock().state
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Rig) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            let status = self.window.status.lock().clone();
            assert!(Instant::now() < deadline, "{what}: {status:?}, arrived {}", self.arrived());
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn all_arrive(&self) {
        self.until("all arrive", |rig| rig.arrived() == rig.sent && rig.gate.bytes() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_peer_gets_nothing_and_everything_when_it_is_resumed() {
    let ca = authority();
    let (node, west, _keep) = west(&ca).await;
    let mut rig = Rig::start(&ca, node, west);
    rig.commit(100);
    rig.all_arrive().await;
    rig.told.send_modify(|peer| peer.paused = true);
    rig.until("it is paused", |rig| rig.state() == LinkState::Paused).await;
    assert!(rig.window.status.lock().detail.contains("flotilla link resume"));
    rig.commit(50);
    rig.until("they wait", |rig| rig.window.status.lock().backlog_entries == 50).await;
    assert_eq!(rig.arrived(), 100);
    let status = rig.window.status.lock().clone();
    assert!(status.entry_bytes == 164.0 && status.floor_age_seconds.is_some(), "{status:?}");
    let floor = rig.window.floor.borrow().as_ref().map(|floor| floor.id.index);
    assert_eq!(floor, Some(100), "the log is kept from there");
    rig.told.send_modify(|peer| peer.paused = false);
    rig.all_arrive().await;
    rig.until("it is live", |rig| rig.state() == LinkState::Live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewind_asks_for_the_cursor_again_and_loses_nothing() {
    let ca = authority();
    let (node, west, _keep) = west(&ca).await;
    let mut rig = Rig::start(&ca, node, west);
    rig.commit(100);
    rig.all_arrive().await;
    // The receiver has fallen back, which no sender can know: its next batches meet a gap.
    for (cursor, merged) in rig.node.groups.lock().values_mut() {
        *cursor = LogId { term: 1, index: 100 };
        merged.clear();
    }
    rig.told.send_modify(|peer| peer.rewind_epoch += 1);
    rig.commit(50);
    rig.all_arrive().await;
    rig.until("it is live", |rig| rig.state() == LinkState::Live).await;
    let merged: usize = rig.node.groups.lock().values().map(|(_, merged)| merged.len()).sum();
    assert_eq!(merged, 50, "once each");
}

/// A merger that ends once for each permit, and tells for which requests it began.
fn held_merger() -> (Merger, Arc<Semaphore>, Arc<Mutex<Vec<u64>>>) {
    let (ends, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (permits, told) = (Arc::clone(&ends), Arc::clone(&begun));
    let merger: Merger = Arc::new(move |_, _, _, request, _| {
        told.lock().push(request);
        let permits = Arc::clone(&permits);
        Box::pin(async move {
            permits.acquire().await.expect("it is never closed").forget();
            Ok(())
        })
    });
    (merger, ends, begun)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_was_asked_for_is_owed_until_one_that_began_later_is_done() {
    let ca = authority();
    let (node, west, _keep) = west(&ca).await;
    // A part of it is here, and no merge is done: the syncer that was asked has died.
    node.has_begun();
    let (merger, ends, begun) = held_merger();
    let mut rig = Rig::with(&ca, node, west, Merges::new(merger), (1, 0));
    rig.until("the next one merges", |_| *begun.lock() == [1]).await;
    rig.told.send_modify(|peer| peer.merge_epoch = 2);
    ends.add_permits(1);
    rig.until("that one was begun before", |_| *begun.lock() == [1, 2]).await;
    ends.add_permits(1);
    rig.until("it is live", |rig| rig.state() == LinkState::Live).await;
    rig.commit(5);
    rig.all_arrive().await;
    assert_eq!(*begun.lock(), [1, 2], "both are done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_new_waits_for_a_whole_mesh_and_who_is_not_goes_on() {
    let ca = authority();
    let (node, west, _keep) = west(&ca).await;
    *node.gap.lock() = Some("partial mesh: `north` does not know `east`".into());
    let mut rig = Rig::start(&ca, Arc::clone(&node), west);
    rig.commit(10);
    rig.until("it is refused", |rig| rig.state() == LinkState::Refused).await;
    assert!(rig.window.status.lock().detail.contains("does not know `east`"));
    assert_eq!(rig.arrived(), 0);
    *node.gap.lock() = None;
    rig.all_arrive().await;
    *node.gap.lock() = Some("somebody was removed elsewhere".into());
    rig.told.send_modify(|peer| peer.rewind_epoch += 1);
    rig.commit(5);
    rig.all_arrive().await;
    rig.until("it is live", |rig| rig.state() == LinkState::Live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_fenced_or_removed_holds_nothing_back() {
    let ca = authority();
    let (node, west, _keep) = west(&ca).await;
    let mut rig = Rig::start(&ca, node, west);
    rig.commit(10);
    rig.all_arrive().await;
    rig.told.send_modify(|peer| peer.standing = Standing::Fenced);
    rig.until("it is fenced", |rig| rig.state() == LinkState::Fenced).await;
    rig.commit(500);
    rig.until("it costs no memory", |rig| rig.gate.bytes() == 0).await;
    assert_eq!(rig.arrived(), 10);
    assert!(!rig.task.is_finished());
    // What it missed is not here any more: the tenure begins anew, which asks the log.
    rig.told.send_modify(|peer| peer.standing = Standing::Returning);
    rig.until("the tenure begins anew", |rig| rig.task.is_finished()).await;

    let (node, west, _keep) = super::west(&ca).await;
    let mut rig = Rig::start(&ca, node, west);
    rig.commit(10);
    rig.all_arrive().await;
    let (told, _) = watch::channel(PeerCluster::default());
    drop(std::mem::replace(&mut rig.told, told));
    rig.commit(7);
    rig.until("it is no peer", |rig| rig.gate.bytes() == 0).await;
    rig.commit(7);
    rig.until("it stays so", |rig| rig.gate.bytes() == 0).await;
    assert_eq!(rig.arrived(), 10);
    assert!(!rig.task.is_finished(), "the tenure's other links go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_fenced_while_it_is_connected_is_told() {
    let ca = authority();
    let tls = |cluster| ca.tls(identity(cluster, Role::Syncer, "s1")).unwrap();
    let sink = Arc::new(Sink { knows: EAST, ..Sink::default() });
    let west = listen(&tls(WEST), sink.clone());
    let mut link = dial(&tls(EAST), west, 10.0);
    up(&mut link).await;
    *sink.fenced.lock() = Some("this cluster has fenced yours: it must return".into());
    let why = refused(&mut link).await;
    assert!(why.contains("has fenced yours"), "{why}");
    *sink.fenced.lock() = None;
    up(&mut link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_syncer_is_dialed_when_one_falls_silent() {
    let ca = authority();
    let tls = |cluster, name| ca.tls(identity(cluster, Role::Syncer, name)).unwrap();
    let sink = Arc::new(Sink { knows: EAST, ..Sink::default() });
    let delay = Duration::from_millis(30);
    let first = Path::start(listen(&tls(WEST, "s1"), sink.clone()), delay, 0.0).await;
    let second = Path::start(listen(&tls(WEST, "s2"), sink), delay, 0.0).await;
    let mut link = dial_all(&tls(EAST, "s1"), &[first.address, second.address], 60.0);
    let before = up(&mut link).await;
    assert_eq!(before.connection.remote_address(), first.address);
    // As if it were killed: not a word.
    first.cut(true);
    let silent = Instant::now();
    refused(&mut link).await;
    let after = up(&mut link).await;
    let took = silent.elapsed();
    assert_eq!(after.connection.remote_address(), second.address);
    assert!(took < Duration::from_secs(3), "{took:?}");
    println!("the next syncer was reached after {took:?}");
}

#[test]
fn patience_follows_the_path() {
    let ms = |rtt_ms| crate::link::patience(rtt_ms).as_millis();
    assert_eq!((ms(Some(0.5)), ms(Some(60.0)), ms(Some(300.0))), (1250, 1250, 1250));
    assert_eq!((ms(Some(400.0)), ms(None)), (1600, 1600));
    assert_eq!((ms(Some(-5.0)), ms(Some(1e12))), (1250, 8000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_begin_anew_waits_for_the_merge_of_another_peer() {
    let ca = authority();
    let (merger, ends, begun) = held_merger();
    let merges = Merges::new(merger);
    let (node, west, _keep) = west(&ca).await;
    node.has_begun();
    let other = Rig::with(&ca, node, west, merges.clone(), (1, 0));
    let (node, west, _keep_too) = super::west(&ca).await;
    let mut rig = Rig::with(&ca, node, west, merges, (0, 0));
    other.until("it merges", |_| *begun.lock() == [1]).await;
    rig.commit(10);
    rig.all_arrive().await;
    rig.told.send_modify(|peer| peer.standing = Standing::Fenced);
    rig.until("it is fenced", |rig| rig.state() == LinkState::Fenced).await;
    rig.commit(50);
    rig.until("that is left to the log", |rig| rig.gate.bytes() == 0).await;
    rig.told.send_modify(|peer| peer.standing = Standing::Live);
    rig.until("it wants the log", |rig| rig.state() == LinkState::CatchingUp).await;
    assert!(!rig.task.is_finished(), "that would end the merge");
    ends.add_permits(1);
    rig.until("the tenure begins anew", |rig| rig.task.is_finished()).await;
    other.until("the other is merged", |rig| rig.state() == LinkState::Live).await;
}
