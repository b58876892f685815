//! One batch of a connection: what was read becomes replies, in order.
//!
//! Commands that the connection answers itself are answered at once; data commands are collected
//! into a run for the [`Backend`](super::Backend). A run ends where a command changes what the
//! next run is told of the session, and a command over all groups is a run of its own, as is one that
//! may wait. Before it waits, what was answered is written; while it waits, the socket is watched.
//! Invariant: reply i answers request i, whoever gave it.

use super::line::{End, Line};
use super::local;
use super::patience::{Ended, Patience};
use super::session::{Session, Silence};
use crate::command::{Command, CommandError, Flags, Id, Place, Spec, subcommand, subcommands_of};
use crate::group::transaction::Transaction;
use crate::resp::{Protocol, Reply};
use bytes::Bytes;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Commands of a connection that are under way at a time.
pub const COMMANDS_MAX: usize = 1024;
/// Replies that are gathered before they are written: who asks for large values and reads none is held
/// back by its socket, with not much more of ours in hand.
const GATHERED_BYTES: usize = 1024 * 1024;
/// Commands of a run as long as nothing is known of a connection's replies: so many of the largest values
/// may be told.
const RUN_FIRST: usize = 8;
/// Bytes of commands of a connection that are under way at a time; one command may be larger.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A reply, and how it is to be written.
pub(super) struct Answer {
    /// `None`: the client does not want to see it.
    pub(super) reply: Option<Reply>,
    pub(super) protocol: Protocol,
}

/// One request of the batch.
enum Slot {
    /// Answered, or not to be seen.
    Done(Answer),
    /// The next one of the run answers it.
    Run { spec: &'static Spec, silent: bool },
}

/// What came of a batch.
pub(super) struct Done {
    /// To be written, as far as it was not.
    pub(super) answers: Vec<Answer>,
    /// Bytes that they take.
    pub(super) reply_bytes: usize,
    /// Why the connection ends behind them, if the client went or had to while it waited.
    pub(super) end: Option<End>,
}

/// A batch at work.
pub(super) struct Batch<'s, S> {
    session: &'s mut Session,
    line: &'s mut Line<S>,
    stop: &'s CancellationToken,
    end: Option<End>,
    started: Instant,
    slots: Vec<Slot>,
    run: Vec<Command>,
    answers: Vec<Answer>,
    reply_bytes: usize,
}

/// The replies that were not written yet took more than the limit: nothing of them may be sent.
#[derive(Debug)]
pub(super) struct OutputLimit;

/// How many commands of a connection are executed at a time: fewer as their replies are larger.
#[derive(Debug)]
pub(super) struct Pace(usize);

impl Default for Pace {
    fn default() -> Pace {
        Pace(RUN_FIRST)
    }
}

impl Pace {
    /// So many commands were answered by so many bytes.
    fn note(&mut self, commands: usize, bytes: usize) {
        self.0 = match bytes {
            bytes if bytes > GATHERED_BYTES => (commands * GATHERED_BYTES / bytes).max(1),
            _ if commands >= self.0 => (self.0 * 2).min(COMMANDS_MAX),
            _ => self.0,
        };
    }
}

impl<'s, S: AsyncRead + AsyncWrite + Unpin> Batch<'s, S> {
    pub(super) fn new(
        session: &'s mut Session,
        line: &'s mut Line<S>,
        stop: &'s CancellationToken,
    ) -> Batch<'s, S> {
        Batch {
            session,
            line,
            stop,
            end: None,
            started: Instant::now(),
            slots: Vec::new(),
            run: Vec::new(),
            answers: Vec::new(),
            reply_bytes: 0,
        }
    }

    /// Executes requests until one of them closes the connection, or the client goes while one waits.
    pub(super) async fn execute(mut self, requests: Vec<Vec<Bytes>>) -> Result<Done, OutputLimit> {
        for request in requests {
            self.request(request).await?;
            if self.session.closing || self.end.is_some() {
                break; // what stands behind QUIT is not executed
            }
        }
        self.flush().await?;
        Ok(Done { answers: self.answers, reply_bytes: self.reply_bytes, end: self.end })
    }

    async fn request(&mut self, request: Vec<Bytes>) -> Result<(), OutputLimit> {
        if is_http(&request) {
            // A web page that makes its visitor's browser talk to us: say nothing.
            tracing::warn!(client = self.session.record.id, "closed a client that speaks HTTP");
            self.session.closing = true;
            return Ok(());
        }
        let exec = request.first().is_some_and(|name| name.eq_ignore_ascii_case(b"exec"));
        let command = match self.check(request) {
            Ok(command) => command,
            Err(reply) => {
                let reply = self.session.transaction.refused(exec, reply);
                self.session.shared.stats.error(&reply);
                return self.answer(reply);
            }
        };
        if command.spec.place == Place::Transaction {
            return self.transaction(command).await;
        }
        if self.session.transaction.is_open() && !matches!(command.spec.id, Id::Quit | Id::Reset) {
            return self.queue(command);
        }
        if local::answers(&command) {
            return self.local(command).await;
        }
        if command.spec.is_blocking() {
            return self.blocking(command).await;
        }
        // What looks at all keys sees every write before it and none behind it: a run of its own.
        let alone = command.spec.place == Place::EveryGroup;
        if alone {
            self.flush().await?;
            if self.end.is_some() {
                return Ok(());
            }
        }
        let silent = self.silent();
        self.slots.push(Slot::Run { spec: command.spec, silent });
        self.run.push(command);
        if alone { self.flush().await } else { Ok(()) }
    }

    fn check(&self, request: Vec<Bytes>) -> Result<Command, Reply> {
        let command = Command::parse(request).map_err(|error: CommandError| error.reply())?;
        if !self.session.authenticated && !command.spec.flags.has(Flags::NO_AUTH) {
            return Err(Reply::error("NOAUTH Authentication required."));
        }
        Ok(command)
    }

    async fn local(&mut self, command: Command) -> Result<(), OutputLimit> {
        let spec = command.spec;
        if changes_view(spec.id) {
            self.flush().await?;
        }
        if self.session.silence == Silence::Next {
            self.session.silence = Silence::This;
        }
        let reply = local::execute(self.session, &command);
        self.session.shared.stats.answered(spec, &reply, self.started.elapsed());
        // As it is now: CLIENT REPLY OFF and SKIP are not answered themselves, ON always is.
        let silent = self.session.silence != Silence::Off;
        if self.session.silence == Silence::This {
            self.session.silence = Silence::Off;
        }
        self.done(reply, silent)
    }

    /// A command that may wait, outside of MULTI.
    async fn blocking(&mut self, command: Command) -> Result<(), OutputLimit> {
        self.flush().await?;
        if self.end.is_some() {
            return Ok(());
        }
        let (spec, silent) = (command.spec, self.silent());
        let mut reply = self.execute_run(vec![command.clone()]).await.pop();
        let took = self.started.elapsed();
        if matches!(reply, Some(Reply::Null | Reply::NullArray)) {
            reply = self.wait(command).await;
            self.started = Instant::now(); // waiting is nobody's work
        }
        let Some(reply) = reply else { return Ok(()) };
        self.session.shared.stats.answered(spec, &reply, took);
        self.done(reply, silent)
    }

    /// Waits for what a command did not find. Nothing is answered if the connection ends.
    async fn wait(&mut self, command: Command) -> Option<Reply> {
        self.write_answered().await;
        if self.end.is_some() {
            return None;
        }
        let queued = self.session.transaction.bytes();
        let view = match self.session.view() {
            Ok(view) => view,
            Err(reply) => return Some(reply),
        };
        let (shared, record) = (self.session.shared.clone(), self.session.record.clone());
        record.update(|state| state.command = command.spec.name);
        let patience = Patience::begin(shared.clone(), record.clone());
        let mut served = shared.backend.clone().wait(view, command, patience);
        tokio::select! {
            biased; // who is gone is noticed before anything is begun for it
            end = self.line.watch(queued, self.stop) => self.end = Some(end),
            reply = &mut served => return reply,
        }
        // What it has begun to pop by now it pops, and that is still answered.
        record.end_wait(Ended::Gone);
        served.await
    }

    /// A command behind MULTI.
    fn queue(&mut self, command: Command) -> Result<(), OutputLimit> {
        let container = command.args.len() > 1 && subcommands_of(command.spec.id).next().is_some();
        let known = subcommand(command.spec.id, &command.args);
        let reply = match known.err().filter(|_| container) {
            Some(error) => self.session.transaction.refused(false, error.reply()),
            None => {
                let view = self.session.view();
                let backend = &self.session.shared.backend;
                let may = |command: &Command| backend.may_queue(view?, command);
                self.session.transaction.queue(command, may)
            }
        };
        self.session.shared.stats.error(&reply);
        self.answer(reply)
    }

    /// MULTI and what belongs to it, and TXN.
    async fn transaction(&mut self, command: Command) -> Result<(), OutputLimit> {
        let open = self.session.transaction.is_open();
        // What is carried out by groups is behind everything that came before it.
        let queued = open && matches!(command.spec.id, Id::Unwatch | Id::Txn | Id::Watch);
        if !queued && matches!(command.spec.id, Id::Watch | Id::Exec | Id::Txn) {
            self.flush().await?;
            if self.end.is_some() {
                return Ok(());
            }
        }
        let reply = match command.spec.id {
            Id::Multi => self.session.transaction.open(),
            Id::Discard => self.session.transaction.discard(),
            Id::Unwatch if !open => self.session.transaction.unwatch(),
            Id::Watch if open => Reply::error("ERR WATCH inside MULTI is not allowed"),
            Id::Unwatch | Id::Txn if open => return self.queue(command),
            Id::Watch => self.watch(&command.args[1..]).await,
            Id::Exec => self.exec().await,
            _ => self.txn(&command.args).await,
        };
        self.session.shared.stats.answered(command.spec, &reply, self.started.elapsed());
        self.answer(reply)
    }

    async fn watch(&mut self, keys: &[Bytes]) -> Reply {
        let view = match self.session.view() {
            Ok(view) => view,
            Err(reply) => return reply,
        };
        let keys = match self.session.transaction.not_watched(view.namespace, keys) {
            Ok(keys) if keys.is_empty() => return Reply::Ok,
            Ok(keys) => keys,
            Err(reply) => return reply,
        };
        let watched = self.session.shared.backend.clone().watch(view, keys).await;
        self.session.transaction.watched(view.namespace, watched)
    }

    async fn exec(&mut self) -> Reply {
        let mut closed = match self.session.transaction.close() {
            Ok(closed) => closed,
            Err(reply) => return reply,
        };
        let reply = match closed.transaction() {
            None => Reply::Array(Vec::new()),
            Some(transaction) => match self.session.view() {
                Ok(view) => self.session.shared.backend.clone().transact(view, transaction).await,
                Err(reply) => reply,
            },
        };
        let (shared, took) = (self.session.shared.clone(), self.started.elapsed());
        let local = |command: &Command| local::execute(self.session, command);
        closed.answer(reply, local, |command, reply| {
            shared.stats.answered(command.spec, reply, took);
        })
    }

    async fn txn(&mut self, args: &[Bytes]) -> Reply {
        match (Transaction::parse(args), self.session.view()) {
            (Err(reply), _) | (_, Err(reply)) => reply,
            (Ok(transaction), Ok(view)) => {
                self.session.shared.backend.clone().transact(view, transaction).await
            }
        }
    }

    /// Whether a command that does not change this is not to be answered.
    fn silent(&mut self) -> bool {
        let silence = self.session.silence;
        if silence == Silence::Next {
            self.session.silence = Silence::Off;
        }
        silence != Silence::Off
    }

    fn answer(&mut self, reply: Reply) -> Result<(), OutputLimit> {
        let silent = self.silent();
        self.done(reply, silent)
    }

    fn done(&mut self, reply: Reply, silent: bool) -> Result<(), OutputLimit> {
        let protocol = self.session.protocol;
        self.count(&reply)?;
        self.slots.push(Slot::Done(Answer { reply: (!silent).then_some(reply), protocol }));
        Ok(())
    }

    fn count(&mut self, reply: &Reply) -> Result<(), OutputLimit> {
        self.reply_bytes += reply.size();
        let max = self.session.shared.config.output_bytes_max;
        if self.reply_bytes > max { Err(OutputLimit) } else { Ok(()) }
    }

    /// Executes the run and puts all replies so far in order. Nothing more is executed once the
    /// connection ends.
    async fn flush(&mut self) -> Result<(), OutputLimit> {
        let mut run = std::mem::take(&mut self.run).into_iter();
        let mut slots = std::mem::take(&mut self.slots).into_iter();
        while slots.len() > 0 && self.end.is_none() {
            let part: Vec<Command> = run.by_ref().take(self.session.pace.0).collect();
            let (commands, last) = (part.len(), run.len() == 0);
            let replies = self.execute_run(part).await;
            let bytes = self.put_in_order(&mut slots, replies, last)?;
            self.session.pace.note(commands, bytes);
            if self.reply_bytes > GATHERED_BYTES && !last {
                self.write_answered().await;
            }
        }
        Ok(())
    }

    /// Moves answers up to those of a part of the run, or all if it is the `last`; bytes of these replies.
    fn put_in_order(
        &mut self,
        slots: &mut std::vec::IntoIter<Slot>,
        replies: Vec<Reply>,
        last: bool,
    ) -> Result<usize, OutputLimit> {
        let protocol = self.session.protocol;
        let (mut replies, mut bytes) = (replies.into_iter(), 0);
        while last || replies.len() > 0 {
            let answer = match slots.next() {
                None => break,
                Some(Slot::Done(answer)) => answer,
                Some(Slot::Run { spec, silent }) => {
                    let reply = replies.next().expect("as many replies as commands");
                    self.session.shared.stats.answered(spec, &reply, self.started.elapsed());
                    bytes += reply.size();
                    self.count(&reply)?;
                    Answer { reply: (!silent).then_some(reply), protocol }
                }
            };
            self.answers.push(answer);
        }
        Ok(bytes)
    }

    /// Writes what was answered so far. An error ends the connection.
    async fn write_answered(&mut self) {
        let held = self.session.transaction.bytes() + self.line.batch_bytes + self.reply_bytes;
        let answers = std::mem::take(&mut self.answers);
        self.reply_bytes = 0;
        let told = async {
            self.line.charge_held(held).await?;
            self.line.write(answers).await
        };
        self.end = told.await.err();
    }

    async fn execute_run(&self, run: Vec<Command>) -> Vec<Reply> {
        if run.is_empty() {
            return Vec::new();
        }
        let commands = run.len();
        let view = match self.session.view() {
            Ok(view) => view,
            Err(reply) => return vec![reply; commands],
        };
        let replies = self.session.shared.backend.clone().execute(view, run).await;
        assert_eq!(replies.len(), commands, "the backend answers each command once");
        replies
    }
}

/// Commands after which the next run is told something else of the session, or whose replies are
/// written differently.
fn changes_view(id: Id) -> bool {
    matches!(id, Id::Select | Id::Readonly | Id::Readwrite | Id::Hello | Id::Reset | Id::Quit)
}

fn is_http(request: &[Bytes]) -> bool {
    request.first().is_some_and(|name| {
        name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
    })
}
