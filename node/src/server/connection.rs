//! One connection: read what has come, execute it, write the replies, again.

use super::batch::{Answer, BATCH_BYTES_MAX, Batch, COMMANDS_MAX};
use super::memory::{Charge, FREE_BYTES};
use super::session::Session;
use crate::resp::{ProtocolError, Reply, RequestReader};
use bytes::{Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Room made for a read at first; it doubles while reads fill it.
const READ_BYTES_MIN: usize = 16 * 1024;
/// Room made for a read at most.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Replies are written when so much has been encoded: one write for most batches, and large
/// replies are not held twice.
const WRITE_BYTES: usize = 256 * 1024;
/// What is read and thrown away after an error, so that the client sees the error and not a reset.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How long that may take.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client closed, or the socket broke.
    Gone,
    /// Told, or asked to be.
    Closing,
    /// By the server, for the reason that metrics and logs show.
    Because(&'static str),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Gone // a client's broken connection is its own business
    }
}

/// Serves one client until it leaves or has to.
pub(super) async fn serve<S>(stream: S, session: Session, charge: Charge, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = RequestReader::new(session.shared.config.limits);
    reader.set_authenticated(session.authenticated);
    let mut connection = Connection {
        stream,
        session,
        reader,
        charge,
        input: BytesMut::new(),
        output: BytesMut::new(),
        read_bytes: READ_BYTES_MIN,
    };
    let end = connection.run(&stop).await;
    if let End::Because(reason) = end {
        let session = &connection.session;
        session.shared.stats.close(reason);
        let (id, peer) = (session.record.id, &session.record.peer);
        tracing::info!(client = id, %peer, reason, "closed a client");
    }
    if !matches!(end, End::Gone) {
        connection.linger().await;
    }
}

struct Connection<S> {
    stream: S,
    session: Session,
    reader: RequestReader,
    charge: Charge,
    input: BytesMut,
    output: BytesMut,
    read_bytes: usize,
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
            return self.read(stop).await;
        }
        self.note(&requests);
        let answers = Batch::new(&mut self.session).execute(requests).await;
        let Ok((answers, reply_bytes)) = answers else {
            let line = "ERR the replies of this pipeline take more than output_bytes_max, closing";
            self.say(&Reply::error(line)).await?;
            return Err(End::Because("output_limit"));
        };
        self.reader.set_authenticated(self.session.authenticated);
        self.charge_held(reply_bytes).await?;
        self.write(answers).await?;
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
        let mut bytes = 0;
        // A stranger's requests are taken one by one: the next may be longer once it has said AUTH.
        let count_max = if self.session.authenticated { COMMANDS_MAX } else { 1 };
        while requests.len() < count_max && bytes < BATCH_BYTES_MAX {
            match self.reader.next(&mut self.input) {
                Ok(Some(args)) => {
                    bytes += args.iter().map(|arg| arg.len() + size_of::<Bytes>()).sum::<usize>();
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
        let input_bytes = self.input.len();
        let last = requests.last().and_then(|args| super::local::display_name(args));
        self.session.record.update(|state| {
            state.active = std::time::Instant::now();
            state.input_bytes = input_bytes;
            state.command = last.unwrap_or(state.command);
        });
    }

    async fn read(&mut self, stop: &CancellationToken) -> Result<(), End> {
        if self.input.is_empty() && self.input.capacity() > READ_BYTES_MIN {
            self.input = BytesMut::new(); // an idle connection holds no large buffer
        }
        // Less than before: the batch is gone.
        let _ = self.charge.set(self.input.len() + self.session.transaction.bytes());
        self.input.reserve(self.read_bytes);
        let idle = self.session.shared.config.idle_max;
        let read = self.stream.read_buf(&mut self.input);
        let read = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(End::Because("shutdown")),
            read = within(idle, read) => read.ok_or(End::Because("idle"))??,
        };
        if read == 0 {
            return Err(End::Gone);
        }
        self.session.shared.stats.received(read);
        self.read_bytes = match read >= self.read_bytes {
            true => (self.read_bytes * 2).min(READ_BYTES_MAX),
            false => READ_BYTES_MIN,
        };
        self.charge_held(0).await
    }

    /// Asks the budget for what this connection holds: what was read, and `reply_bytes`.
    async fn charge_held(&mut self, reply_bytes: usize) -> Result<(), End> {
        let held = self.input.len() + self.session.transaction.bytes();
        if self.charge.set(held + reply_bytes) {
            return Ok(());
        }
        self.say(&Reply::error(
            "ERR clients of this node hold clients_memory_max bytes together, closing this one",
        ))
        .await?;
        Err(End::Because("memory"))
    }

    async fn write(&mut self, answers: Vec<Answer>) -> Result<(), End> {
        for answer in answers {
            if let Some(reply) = answer.reply {
                reply.encode(answer.protocol, &mut self.output);
            }
            if self.output.len() >= WRITE_BYTES {
                self.write_out().await?;
            }
        }
        self.write_out().await?;
        if self.output.capacity() > FREE_BYTES {
            self.output = BytesMut::new();
        }
        Ok(())
    }

    async fn write_out(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let bytes = self.output.len();
        self.session.record.update(|state| state.output_bytes = bytes);
        let stall = self.session.shared.config.output_stall_max;
        let mut written = 0;
        while written < bytes {
            let write = self.stream.write(&self.output[written..]);
            // The limit is on each write that moves nothing: a slow client is no dead one.
            let moved = within(stall, write).await.ok_or(End::Because("output_stall"))??;
            if moved == 0 {
                return Err(End::Gone);
            }
            written += moved;
        }
        within(stall, self.stream.flush()).await.ok_or(End::Because("output_stall"))??;
        self.output.clear();
        self.session.shared.stats.sent(bytes);
        self.session.record.update(|state| state.output_bytes = 0);
        Ok(())
    }

    /// Writes one last line.
    async fn say(&mut self, reply: &Reply) -> Result<(), End> {
        self.output.clear();
        reply.encode(self.session.protocol, &mut self.output);
        self.write_out().await
    }

    /// Ends our side, and takes for a moment what the client still sends.
    async fn linger(&mut self) {
        (self.input, self.output) = (BytesMut::new(), BytesMut::new());
        let _ = self.charge.set(0); // always granted
        linger(&mut self.stream).await;
    }
}

/// Ends our side of a stream so that what was written arrives: closing a socket with unread input
/// resets it, and the client would lose the error that tells it why.
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let drain = async {
        stream.shutdown().await?;
        let mut scratch = vec![0u8; READ_BYTES_MIN];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            let read = stream.read(&mut scratch).await?;
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read);
        }
        io::Result::Ok(())
    };
    // Whatever happens here, the connection is over.
    let _ = tokio::time::timeout(LINGER_MAX, drain).await;
}

/// `None` when it takes longer than `max`; zero means without end.
async fn within<T>(max: Duration, work: impl Future<Output = T>) -> Option<T> {
    if max.is_zero() {
        return Some(work.await);
    }
    tokio::time::timeout(max, work).await.ok()
}
