//! When news that more of the log is committed may wait.
//!
//! The library tells each member of each commit: with the next entries, or by an append of its own if there
//! are none; half of all appends under load. A voter needs to know soon only if somebody reads from it, and
//! whoever does asks the leader first how far it must have applied ([`Told::want`]). So news waits, for
//! [`NEWS_WAIT`] or [`NEWS_BYTES_MAX`] at most: an append without entries is not sent, one with entries says
//! what was said before. What has become committed meanwhile is then applied in one go, where an apply for
//! each entry costs a turn of two tasks and a batch of its own.
//!
//! To drop an append without entries is safe: an answer acknowledges everything up to where the member's log
//! agrees. To say less is: Raft asks only that a member hears of nothing that is not committed.

use super::config::{C, RaftLogId};
use super::convert;
use openraft::raft::AppendEntriesRequest;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// How long it waits at most.
pub(super) const NEWS_WAIT: Duration = Duration::from_millis(10);

/// Bytes of entries that a member may hold without knowing that they are committed, for that reason: it applies
/// them in one go, and its Raft thread does nothing else then.
const NEWS_BYTES_MAX: usize = 32 << 10;

type Request = AppendEntriesRequest<C>;

fn committed(request: &Request) -> u64 {
    convert::log_id(request.leader_commit.as_ref()).index
}

/// Up to which index this replica, as leader, has told others that the log is committed, and up to where
/// somebody waits to be told.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<Shared>);

#[derive(Default)]
struct Shared {
    told: AtomicU64,
    wanted: AtomicU64,
    hasten: Arc<Notify>,
}

impl Told {
    /// The highest index; 0 for none. Noted before a message leaves, so nobody else knows of more.
    pub(super) fn index(&self) -> u64 {
        self.0.told.load(Ordering::Acquire)
    }

    pub(super) fn note(&self, request: &Request) {
        self.0.told.fetch_max(committed(request), Ordering::AcqRel);
    }

    /// A replica waits until it knows that `index` is committed: what says so leaves now.
    pub(super) fn want(&self, index: u64) {
        if self.0.wanted.fetch_max(index, Ordering::AcqRel) < index {
            self.0.hasten.notify_waiters();
        }
    }

    fn wanted(&self) -> u64 {
        self.0.wanted.load(Ordering::Acquire)
    }

    /// Ends when more is wanted than when this was called.
    pub(super) fn more_wanted(&self) -> OwnedNotified {
        self.0.hasten.clone().notified_owned()
    }
}

/// The news of one stream of appends.
pub(super) struct News {
    waits: bool,
    /// What the stream has told its member, once it has carried entries.
    told: Option<Option<RaftLogId>>,
    /// Bytes of entries that it has carried since.
    bytes: usize,
    /// What would tell the rest.
    held: Option<(Request, Instant)>,
}

impl News {
    /// `waits`: whether the member can wait at all.
    pub(super) fn new(waits: bool) -> News {
        News { waits, told: None, bytes: 0, held: None }
    }

    /// Takes what the library wants sent; gives what is to be sent now.
    pub(super) fn pass(
        &mut self,
        mut request: Request,
        told: &Told,
        now: Instant,
    ) -> Option<Request> {
        self.bytes += request.entries.iter().map(convert::entry_bytes).sum::<usize>();
        let due = self.held.take().map_or(now + NEWS_WAIT, |(_, due)| due);
        let may_wait = self.waits && due > now && self.bytes <= NEWS_BYTES_MAX;
        let Some(said) = self.told.filter(|said| may_wait && *said < request.leader_commit) else {
            return Some(self.sent(request));
        };
        if self.is_wanted(told) {
            return Some(self.sent(request));
        }
        let end = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let (vote, leader_commit) = (request.vote, request.leader_commit);
        let news = Request { vote, prev_log_id: end, leader_commit, entries: Vec::new() };
        self.held = Some((news, due));
        request.leader_commit = said;
        (!request.entries.is_empty()).then_some(request)
    }

    /// What waited, if its time has come or somebody wants it.
    pub(super) fn release(&mut self, told: &Told, now: Instant) -> Option<Request> {
        let wanted = self.is_wanted(told);
        let (request, _) = self.held.take_if(|(_, due)| wanted || *due <= now)?;
        Some(self.sent(request))
    }

    /// What waited: nothing else will come.
    pub(super) fn end(&mut self) -> Option<Request> {
        let (request, _) = self.held.take()?;
        Some(self.sent(request))
    }

    /// Until when something waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.as_ref().map(|(_, due)| *due)
    }

    fn is_wanted(&self, told: &Told) -> bool {
        self.told.is_some_and(|said| convert::log_id(said.as_ref()).index < told.wanted())
    }

    fn sent(&mut self, request: Request) -> Request {
        if self.told.is_some() || !request.entries.is_empty() {
            self.told = Some(self.told.flatten().max(request.leader_commit));
            self.bytes = 0;
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Vote;
    use super::*;
    use crate::log::{Record, RecordKind};
    use flotilla_topology::ids::LogId;

    /// An append of the one entry at this index, or of none, that says this is committed.
    fn append(entry: Option<u64>, committed: u64) -> Request {
        append_of(entry, committed, 0)
    }

    fn append_of(entry: Option<u64>, committed: u64, bytes: usize) -> Request {
        let at = |index| convert::raft_log_id(LogId { term: 1, index });
        let kind = RecordKind::Normal;
        let record =
            |index| Record { id: LogId { term: 1, index }, kind, payload: vec![0; bytes].into() };
        let entry = entry.map(record);
        Request {
            vote: Vote::new_committed(1, 1),
            prev_log_id: at(1),
            leader_commit: at(committed),
            entries: entry.into_iter().map(|record| convert::entry(record).unwrap()).collect(),
        }
    }

    fn index(request: Option<Request>) -> Option<u64> {
        request.as_ref().map(committed)
    }

    /// A stream that has told up to 3.
    fn open(told: &Told, now: Instant) -> News {
        let mut news = News::new(true);
        assert_eq!(index(news.pass(append(None, 2), told, now)), Some(2), "nothing to go with yet");
        assert_eq!(index(news.pass(append(Some(4), 3), told, now)), Some(3));
        news
    }

    #[test]
    fn news_waits_and_entries_take_its_place() {
        let (told, now) = (Told::default(), Instant::now());
        let mut news = open(&told, now);
        assert_eq!(index(news.pass(append(None, 4), &told, now)), None);
        assert_eq!(news.due(), Some(now + NEWS_WAIT));
        let later = now + NEWS_WAIT / 2;
        let passed = news.pass(append(Some(5), 4), &told, later);
        assert_eq!(index(passed), Some(3), "entries say what was said before");
        assert_eq!(index(news.pass(append(Some(6), 5), &told, later)), Some(3));
        assert_eq!(news.due(), Some(now + NEWS_WAIT), "and so the news goes on waiting");
        assert_eq!(index(news.pass(append(Some(7), 6), &told, now + NEWS_WAIT)), Some(6));
        assert_eq!((news.due(), index(news.end())), (None, None), "until entries may carry it");
    }

    #[test]
    fn news_behind_entries_is_of_their_end() {
        let (told, now) = (Told::default(), Instant::now());
        let mut news = open(&told, now);
        assert_eq!(index(news.pass(append(Some(5), 4), &told, now)), Some(3));
        let news = news.release(&told, now + NEWS_WAIT).unwrap();
        assert_eq!((committed(&news), news.entries.len()), (4, 0));
        assert_eq!(convert::log_id(news.prev_log_id.as_ref()).index, 5);
    }

    #[test]
    fn a_member_holds_no_more_than_it_may_without_knowing_that_it_is_committed() {
        let (told, now) = (Told::default(), Instant::now());
        let mut news = open(&told, now);
        let half = || append_of(Some(5), 4, NEWS_BYTES_MAX / 2);
        for said in [3, 4, 4] {
            assert_eq!(index(news.pass(half(), &told, now)), Some(said));
        }
        assert_eq!(index(news.pass(append(Some(6), 5), &told, now)), Some(4));
    }

    #[test]
    fn news_leaves_when_its_time_has_come_or_the_stream_ends() {
        let (told, now) = (Told::default(), Instant::now());
        let mut news = open(&told, now);
        assert_eq!(index(news.pass(append(None, 4), &told, now)), None);
        let later = now + NEWS_WAIT / 2;
        assert_eq!(index(news.pass(append(None, 5), &told, later)), None);
        assert_eq!(news.due(), Some(now + NEWS_WAIT), "newer news waits no longer than older");
        assert_eq!(index(news.release(&told, later)), None);
        assert_eq!(index(news.release(&told, now + NEWS_WAIT)), Some(5));
        assert_eq!(index(news.pass(append(None, 6), &told, later)), None);
        assert_eq!(index(news.end()), Some(6));
    }

    #[test]
    fn what_somebody_waits_for_leaves_at_once() {
        let (told, now) = (Told::default(), Instant::now());
        let mut news = open(&told, now);
        told.want(3);
        assert_eq!(index(news.pass(append(None, 4), &told, now)), None, "3 is known");
        told.want(4);
        assert_eq!(index(news.release(&told, now)), Some(4));
        told.want(5);
        assert_eq!(index(news.pass(append(None, 5), &told, now)), Some(5));
        assert_eq!(index(news.pass(append(None, 6), &told, now)), None);
    }

    #[tokio::test]
    async fn who_holds_news_hears_that_more_is_wanted() {
        let told = Told::default();
        told.want(4);
        let more_wanted = told.more_wanted();
        told.want(4);
        tokio::pin!(more_wanted);
        assert!(futures::poll!(&mut more_wanted).is_pending(), "4 was wanted before");
        told.want(5);
        assert!(futures::poll!(&mut more_wanted).is_ready());
    }

    #[test]
    fn a_learner_is_told_at_once() {
        let (told, now) = (Told::default(), Instant::now());
        let mut news = News::new(false);
        for (entry, committed) in [(Some(2), 1), (None, 2), (None, 3)] {
            assert_eq!(index(news.pass(append(entry, committed), &told, now)), Some(committed));
        }
    }
}
