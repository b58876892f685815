//! An alarm clock more precise than tokio's, which ticks in milliseconds: one thread sleeps until
//! the earliest deadline (about 0.06 ms late on an idle machine) and wakes the tasks that wait.
//!
//! A task waits once per batch, not once per packet, so that a wake-up is shared by all that is due.

use parking_lot::{Condvar, Mutex};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Handle of the alarm thread, which ends with the last handle.
#[derive(Clone)]
pub(super) struct Alarm {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Deadlines with the number of their waiter. A waiter that gave up leaves its deadline here
    /// until it is due. A connection leaves one at most, a lane one per flight under way.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    waiting: HashMap<u64, Waker>,
    next: u64,
    stopped: bool,
}

impl Alarm {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Alarm> {
        let shared = Arc::new(Shared::default());
        let alarm = Alarm { handle: Arc::new(Handle { shared: shared.clone() }) };
        std::thread::Builder::new().name("wan-alarm".into()).spawn(move || run(&shared))?;
        Ok(alarm)
    }

    /// Waits until `when`; ready at once when that is past.
    pub(super) fn until(&self, when: Instant) -> Until {
        Until { shared: self.handle.shared.clone(), when, waiter: None }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_one();
    }
}

fn run(shared: &Shared) {
    let mut wake = Vec::new();
    let mut state = shared.state.lock();
    while !state.stopped {
        let now = Instant::now();
        while let Some(&Reverse((when, waiter))) = state.due.peek() {
            if when > now {
                break;
            }
            state.due.pop();
            wake.extend(state.waiting.remove(&waiter));
        }
        if !wake.is_empty() {
            // Wake without the lock: the tasks take it when they wait again.
            parking_lot::MutexGuard::unlocked(&mut state, || wake.drain(..).for_each(Waker::wake));
            continue;
        }
        match state.due.peek() {
            Some(&Reverse((when, _))) => {
                shared.changed.wait_until(&mut state, when);
            }
            None => shared.changed.wait(&mut state),
        }
    }
    // Nobody may wait forever for a clock that stopped.
    state.waiting.drain().for_each(|(_, waker)| waker.wake());
}

/// Future of `Alarm::until`.
pub(super) struct Until {
    shared: Arc<Shared>,
    when: Instant,
    waiter: Option<u64>,
}

impl Future for Until {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.when {
            return Poll::Ready(());
        }
        let shared = self.shared.clone();
        let mut state = shared.state.lock();
        if state.stopped {
            return Poll::Ready(());
        }
        if let Some(waker) = self.waiter.and_then(|waiter| state.waiting.get_mut(&waiter)) {
            waker.clone_from(context.waker());
            return Poll::Pending;
        }
        let waiter = state.next;
        state.next += 1;
        let earliest = state.due.peek().is_none_or(|Reverse((when, _))| self.when < *when);
        state.due.push(Reverse((self.when, waiter)));
        state.waiting.insert(waiter, context.waker().clone());
        drop(state);
        self.waiter = Some(waiter);
        if earliest {
            shared.changed.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.shared.state.lock().waiting.remove(&waiter);
        }
    }
}
