//! Messages on a QUIC stream: a task that writes what is queued, a task that reads into a queue.
//!
//! Whoever drives a shipper or a receiver never waits for the network: it queues, and it takes what
//! has come. The write queue is bounded by what the shipper keeps under way; the read queue holds
//! one message, behind which QUIC's flow control holds back the sender.

use super::{AUDIT_PRIORITY, LinkError};
use crate::batch::{FRAME_BYTES_MAX, Message};
use bytes::{Bytes, BytesMut};
use flotilla_node::clock;
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Messages that were read and wait to be taken: one, while the next is being read.
const READ_QUEUE: usize = 1;
/// A frame's room is taken in steps of this size, as bytes arrive, whatever its length says.
const READ_STEP: usize = 256 << 10;

/// Both directions of a stream. Dropping it resets the stream.
pub struct Wire {
    queue: mpsc::UnboundedSender<Message>,
    /// What came, until it ended with an error.
    pub incoming: mpsc::Receiver<Result<Message, LinkError>>,
    tasks: [AbortHandle; 2],
}

impl Wire {
    /// Starts the two tasks. `sent` is told the bytes of each frame.
    pub fn start(
        send: SendStream,
        receive: RecvStream,
        sent: impl Fn(usize) + Send + 'static,
    ) -> Wire {
        let (queue, outgoing) = mpsc::unbounded_channel();
        let (came, incoming) = mpsc::channel(READ_QUEUE);
        let writer = tokio::spawn(write_all(send, outgoing, sent)).abort_handle();
        let reader = tokio::spawn(read_all(receive, came)).abort_handle();
        Wire { queue, incoming, tasks: [writer, reader] }
    }

    /// Queues a message. Nothing is said when the stream is gone: the reader says so.
    pub fn send(&self, message: Message) {
        let _ = self.queue.send(message);
    }

    /// The next message; an error when the stream has ended.
    pub async fn next(&mut self) -> Result<Message, LinkError> {
        match self.incoming.recv().await {
            Some(result) => result,
            None => Err(LinkError::Lost("the stream has ended".into())),
        }
    }

    /// Sends a last message and lets it travel, without waiting for it.
    pub fn close_with(mut self, message: Message) {
        self.send(message);
        self.tasks[1].abort();
        // The writer ends when the queue is closed and empty, and finishes the stream.
        self.tasks[0] = self.tasks[1].clone();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn write_all(
    mut send: SendStream,
    mut outgoing: mpsc::UnboundedReceiver<Message>,
    sent: impl Fn(usize),
) {
    while let Some(mut message) = outgoing.recv().await {
        if let Message::Batch(batch) = &mut message {
            batch.sent_ms = clock::wall_ms(); // what waited in our queue is not the path's time
        }
        if matches!(message, Message::Audit(_)) {
            let _ = send.set_priority(AUDIT_PRIORITY); // fails only once the stream is gone
        }
        let frame = message.encode();
        sent(frame.len());
        if send.write_chunk(frame).await.is_err() {
            return; // the reader tells
        }
    }
    // The stream was closed on purpose; what was written still arrives.
    let _ = send.finish();
    let _ = send.stopped().await;
}

async fn read_all(mut receive: RecvStream, came: mpsc::Sender<Result<Message, LinkError>>) {
    loop {
        let result = read_message(&mut receive).await;
        let ended = result.is_err();
        if came.send(result).await.is_err() || ended {
            return;
        }
    }
}

/// Reads one frame. A length above the limit ends the stream before anything is allocated.
pub async fn read_message(receive: &mut RecvStream) -> Result<Message, LinkError> {
    let mut len = [0u8; 4];
    receive.read_exact(&mut len).await.map_err(LinkError::lost)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > FRAME_BYTES_MAX {
        let what = format!("a frame of {len} bytes, the limit is {FRAME_BYTES_MAX}");
        return Err(LinkError::Protocol(what));
    }
    let mut frame = BytesMut::new();
    while frame.len() < len {
        let start = frame.len();
        frame.resize(len.min(start + READ_STEP), 0);
        receive.read_exact(&mut frame[start..]).await.map_err(LinkError::lost)?;
    }
    decode(frame.freeze())
}

fn decode(frame: Bytes) -> Result<Message, LinkError> {
    Message::decode(&frame).map_err(|error| LinkError::Protocol(error.to_string()))
}
