//! One connection: read what has come, execute it, write the replies, again.

use super::batch::{BATCH_BYTES_MAX, Batch, COMMANDS_MAX};
use super::line::{End, Line};
use super::memory::Charge;
use super::session::Session;
use crate::resp::{ProtocolError, Reply, RequestReader};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Serves one client until it leaves or has to.
pub(super) async fn serve<S>(stream: S, session: Session, charge: Charge, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = RequestReader::new(session.shared.config.limits);
    reader.set_authenticated(session.authenticated);
    let line = Line::new(stream, session.shared.clone(), session.record.clone(), charge);
    let mut connection = Connection { line, session, reader };
    let end = connection.run(&stop).await;
    if let End::Because(reason) = end {
        let session = &connection.session;
        session.shared.stats.close(reason);
        let (id, peer) = (session.record.id, &session.record.peer);
        tracing::info!(client = id, %peer, reason, "closed a client");
    }
    if !matches!(end, End::Gone) {
        connection.line.linger().await;
    }
}

struct Connection<S> {
    line: Line<S>,
    session: Session,
    reader: RequestReader,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self, stop: &CancellationToken) -> End {
        loop {
            if let Err(end) = self.step(stop).await {
                return end;
            }
        }
    }

    /// One batch: what the buffer holds, or else what comes next.
    async fn step(&mut self, stop: &CancellationToken) -> Result<(), End> {
        let (requests, error) = self.take_batch();
        if requests.is_empty() && error.is_none() {
            let queued = self.session.transaction.bytes();
            return self.line.read(self.reader.needed(), queued, stop).await;
        }
        self.note(&requests);
        let answers = Batch::new(&mut self.session, &mut self.line, stop).execute(requests).await;
        self.line.batch_bytes = 0;
        let Ok(done) = answers else {
            let line = "ERR the replies of this pipeline take more than output_bytes_max, closing";
            self.say(&Reply::error(line)).await?;
            return Err(End::Because("output_limit"));
        };
        self.reader.set_authenticated(self.session.authenticated);
        self.line.charge_held(self.session.transaction.bytes() + done.reply_bytes).await?;
        self.line.write(done.answers).await?;
        if let Some(end) = done.end {
            return Err(match end {
                End::Because("memory") => self.line.over_budget().await,
                end => end,
            });
        }
        if self.session.closing {
            return Err(End::Closing);
        }
        if let Some(error) = error {
            let reply = error.reply();
            self.session.shared.stats.error(&reply);
            self.say(&reply).await?;
            return Err(End::Because("protocol"));
        }
        if stop.is_cancelled() {
            return Err(End::Because("shutdown"));
        }
        Ok(())
    }

    /// Takes whole requests off the buffer; an error stands behind them.
    fn take_batch(&mut self) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
        let mut requests = Vec::new();
        let bytes = &mut self.line.batch_bytes;
        // A stranger's requests are taken one by one: the next may be longer once it has said AUTH.
        let count_max = if self.session.authenticated { COMMANDS_MAX } else { 1 };
        while requests.len() < count_max && *bytes < BATCH_BYTES_MAX {
            match self.reader.next(&mut self.line.input) {
                Ok(Some(args)) => {
                    *bytes += args.iter().map(|arg| arg.len() + size_of::<Bytes>()).sum::<usize>();
                    requests.push(args);
                }
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
        (requests, None)
    }

    /// Keeps what CLIENT LIST shows.
    fn note(&self, requests: &[Vec<Bytes>]) {
        let input_bytes = self.line.input.len();
        let last = requests.last().and_then(|args| super::local::display_name(args));
        self.session.record.update(|state| {
            state.active = std::time::Instant::now();
            state.input_bytes = input_bytes;
            state.command = last.unwrap_or(state.command);
        });
    }

    async fn say(&mut self, reply: &Reply) -> Result<(), End> {
        self.line.say(reply, self.session.protocol).await
    }
}
