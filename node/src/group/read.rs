//! Reads of applied state, on any replica.
//!
//! A read is linearizable if the caller got a [`Barrier`] from the leader after the client asked:
//! the replica waits for the barrier's position and judges expiry by the barrier's clock. A key that
//! is due by that clock and has not passed in applied state is answered only after a tick: the
//! next leader's clock may be slower, and a key must not come back.

use crate::command::{Command, Family};
use crate::engine::rows::{FrozenRows, TabletRows};
use crate::engine::view::{Overlay, Rows, View};
use crate::eval::{self, Txn};
use crate::group::exec::{Barrier, REPLY_BYTES_MAX};
use crate::group::leader::eval_context;
use crate::group::{AppliedState, Group};
use crate::model::Synced;
use crate::resp::Reply;
use flotilla_topology::stamp::Stamp;
use std::io;

/// A read was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A key is due: commit a tick at this time (milliseconds), then read again behind it.
    #[error("a key is due at {0}")]
    NeedsTick(u64),
    /// This replica did not reach the barrier in time: read elsewhere.
    #[error("this replica is behind")]
    Behind,
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether a command reads one row.
fn is_of_one_row(command: &Command) -> bool {
    let family = command.spec.family;
    matches!(family, Family::String | Family::Bitmap | Family::HyperLogLog)
        && command.keys().count() == 1
}

impl Group {
    /// Answers reads from this replica's applied state, as of a barrier: all of them, or as many as
    /// [`REPLY_BYTES_MAX`] allows.
    pub async fn read(
        &self,
        commands: &[Command],
        barrier: Barrier,
    ) -> Result<Vec<Reply>, ReadError> {
        self.wait_applied(barrier.log_id.index).await?;
        self.read_applied(commands, barrier.clock_ms)
    }

    /// Answers reads from whatever this replica has applied, by the applied clock.
    pub fn read_stale(&self, commands: &[Command]) -> Result<Vec<Reply>, ReadError> {
        self.read_applied(commands, 0)
    }

    /// Answers reads from what is applied, at `clock_ms` or the applied clock.
    fn read_applied(&self, commands: &[Command], clock_ms: u64) -> Result<Vec<Reply>, ReadError> {
        loop {
            let applied = self.applied();
            let clock_ms = clock_ms.max(applied.clock.ms());
            let replies = self.evaluate_reads(commands, applied, clock_ms);
            if self.applied().tablet == applied.tablet {
                return replies;
            }
            // Another state was installed, and the rows that were read may be gone.
        }
    }

    fn evaluate_reads(
        &self,
        commands: &[Command],
        applied: AppliedState,
        now_ms: u64,
    ) -> Result<Vec<Reply>, ReadError> {
        // One row is consistent with itself, and commands of a run may be read one after the other; one
        // that reads more is read from one moment.
        let single = commands.iter().all(is_of_one_row);
        let rows: Box<dyn Rows> = if single {
            Box::new(TabletRows::new(&self.engine, applied.tablet))
        } else {
            Box::new(FrozenRows::new(&self.engine, applied.tablet))
        };
        // Before the switch one row says all that there is to say of its key.
        let synced = match self.context.synced_since(applied.since) {
            Synced::No if !single => self.context.synced_in(rows.as_ref())?,
            known => known,
        };
        let mut overlay = Overlay::new();
        let mut replies = Vec::with_capacity(commands.len());
        let mut bytes = 0;
        for command in commands {
            if bytes > REPLY_BYTES_MAX {
                break;
            }
            let applied_ms = applied.clock.ms();
            let mut context = eval_context(&self.context, synced, Stamp::ZERO, now_ms, applied_ms);
            context.chance = rand::random();
            let view = View::new(rows.as_ref(), &mut overlay);
            let mut txn = Txn::new(view, context).with_marks(&self.scans);
            let reply = eval::command(&mut txn, command)?;
            bytes += reply.size();
            replies.push(reply);
            if txn.needs_tick() {
                return Err(ReadError::NeedsTick(now_ms));
            }
        }
        Ok(replies)
    }
}
