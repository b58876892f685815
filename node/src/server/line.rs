//! A client's socket with its buffers: reading, writing, and the memory that they take.

use super::batch::{Answer, BATCH_BYTES_MAX};
use super::clients::ClientRecord;
use super::listener::Shared;
use super::memory::{Charge, FREE_BYTES};
use crate::resp::{Protocol, Reply};
use bytes::{BufMut, BytesMut};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Room made for a read at first; it doubles while reads fill it.
const READ_BYTES_MIN: usize = 16 * 1024;
/// Room made for a read at most, and bytes of one read.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Who has read so much at once lets others go first: a large value takes many such turns.
const TURN_BYTES: usize = 64 * 1024;
/// A buffer whose request has no known end grows by this part of what is in it.
const GROWTH: usize = 4;
/// Replies are written when so much has been encoded: one write for most batches, and large
/// replies are not held twice.
const WRITE_BYTES: usize = 256 * 1024;
/// What is read and thrown away after an error, so that the client sees the error and not a reset.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How long that may take.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// Bytes that are kept of what a client sends behind a command that waits. Of a client that sends
/// more, nothing is read before its wait is over, also not that it is gone.
pub(super) const KEPT_BYTES_MAX: usize = BATCH_BYTES_MAX;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
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

/// See the module.
pub(super) struct Line<S> {
    stream: S,
    shared: Arc<Shared>,
    record: Arc<ClientRecord>,
    charge: Charge,
    pub(super) input: BytesMut,
    output: BytesMut,
    read_bytes: usize,
    /// Bytes of what was read and is being executed.
    pub(super) batch_bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub(super) fn new(
        stream: S,
        shared: Arc<Shared>,
        record: Arc<ClientRecord>,
        charge: Charge,
    ) -> Line<S> {
        let (input, output) = (BytesMut::new(), BytesMut::new());
        let (read_bytes, batch_bytes) = (READ_BYTES_MIN, 0);
        Line { stream, shared, record, charge, input, output, read_bytes, batch_bytes }
    }

    /// Reads what comes next, on the way to `needed` bytes if that is known and not 0. The connection
    /// holds `queued` bytes beside.
    pub(super) async fn read(
        &mut self,
        needed: usize,
        queued: usize,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        if self.input.is_empty() && self.input.capacity() > READ_BYTES_MIN {
            self.input = BytesMut::new(); // an idle connection holds no large buffer
        }
        // Less than before: the batch is gone.
        let _ = self.charge.set(self.input.capacity() + queued);
        self.make_room(needed, usize::MAX);
        let idle = self.shared.config.idle_max;
        let mut room = (&mut self.input).limit(READ_BYTES_MAX);
        let read = self.stream.read_buf(&mut room);
        let read = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(End::Because("shutdown")),
            read = within(idle, read) => read.ok_or(End::Because("idle"))??,
        };
        if read == 0 {
            return Err(End::Gone);
        }
        self.shared.stats.received(read);
        self.read_bytes = match read >= self.read_bytes {
            true => (self.read_bytes * 2).min(READ_BYTES_MAX),
            false => READ_BYTES_MIN,
        };
        self.charge_held(queued).await?;
        if read >= TURN_BYTES {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Makes room for the next read, of `most` bytes.
    fn make_room(&mut self, needed: usize, most: usize) {
        let len = self.input.len();
        if len < FREE_BYTES {
            self.input.reserve(self.read_bytes);
        } else if let Some(more) = growth(len, self.input.capacity() - len, needed) {
            let mut larger = BytesMut::with_capacity(len + more.min(most));
            larger.extend_from_slice(&self.input);
            self.input = larger;
        }
    }

    /// Keeps what comes while a command waits, and tells why it need not wait any more. It may be
    /// given up at any time. The connection holds `queued` bytes beside.
    pub(super) async fn watch(&mut self, queued: usize, stop: &CancellationToken) -> End {
        loop {
            let room = KEPT_BYTES_MAX.saturating_sub(self.input.len());
            if room == 0 {
                stop.cancelled().await;
                return End::Because("shutdown");
            }
            self.make_room(0, room);
            let mut input = (&mut self.input).limit(room);
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return End::Because("shutdown"),
                read = self.stream.read_buf(&mut input) => read,
            };
            match read {
                Ok(0) | Err(_) => return End::Gone,
                Ok(read) => self.shared.stats.received(read),
            }
            if !self.charge.set(self.input.capacity() + self.batch_bytes + queued) {
                return End::Because("memory");
            }
        }
    }

    /// Asks the budget for what this connection holds: what was read, and `more`.
    pub(super) async fn charge_held(&mut self, more: usize) -> Result<(), End> {
        if self.charge.set(self.input.capacity() + more) {
            return Ok(());
        }
        Err(self.over_budget().await)
    }

    /// Tells the client that there is no memory left for it.
    pub(super) async fn over_budget(&mut self) -> End {
        let line =
            "ERR clients of this node hold clients_memory_max bytes together, closing this one";
        // Errors look the same in all versions of the protocol.
        match self.say(&Reply::error(line), Protocol::default()).await {
            Ok(()) => End::Because("memory"),
            Err(end) => end,
        }
    }

    pub(super) async fn write(&mut self, answers: Vec<Answer>) -> Result<(), End> {
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
        self.record.update(|state| state.output_bytes = bytes);
        let stall = self.shared.config.output_stall_max;
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
        self.shared.stats.sent(bytes);
        self.record.update(|state| state.output_bytes = 0);
        Ok(())
    }

    /// Writes one last line.
    pub(super) async fn say(&mut self, reply: &Reply, protocol: Protocol) -> Result<(), End> {
        self.output.clear();
        reply.encode(protocol, &mut self.output);
        self.write_out().await
    }

    /// Ends our side, and takes for a moment what the client still sends.
    pub(super) async fn linger(&mut self) {
        (self.input, self.output) = (BytesMut::new(), BytesMut::new());
        let _ = self.charge.set(0); // always granted
        linger(&mut self.stream).await;
    }
}

/// By how much a buffer of `len` bytes and `free` ones grows that must come to hold `needed`. It grows by
/// half of what has come, up to just what is needed. Without a known end it grows by a smaller part: most of
/// that would stay empty, and many connections may hold such a one.
fn growth(len: usize, free: usize, needed: usize) -> Option<usize> {
    match needed.saturating_sub(len) {
        0 => (free < READ_BYTES_MIN).then(|| (len / GROWTH).max(FREE_BYTES)),
        missing => (free < missing.min(READ_BYTES_MIN)).then(|| missing.min(len / 2)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_by_half_up_to_just_what_its_request_needs() {
        let needed = 5_000_000;
        let (mut len, mut free, mut copied) = (FREE_BYTES, 0, 0);
        while len + free < needed {
            let more = growth(len, free, needed).unwrap();
            assert!(more <= len / 2, "{more}");
            (copied, free) = (copied + len, more);
            (len, free) = (len + free, 0);
        }
        assert_eq!(len, needed);
        assert!(copied < 3 * needed, "{copied}");
        assert_eq!(growth(needed - 100, 100, needed), None, "the rest fits");
    }

    #[test]
    fn a_buffer_without_a_known_end_grows_by_a_part() {
        assert_eq!(growth(1 << 20, READ_BYTES_MIN, 0), None);
        assert_eq!(growth(1 << 20, 0, 0), Some(1 << 18));
        assert_eq!(growth(FREE_BYTES, 0, 7), Some(FREE_BYTES), "what is needed is there already");
    }
}
