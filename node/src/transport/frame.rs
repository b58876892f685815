//! Frames: what travels inside a connection, and the loops that read and write many at a time.
//!
//! ```text
//! length u32 ‖ id u64 ‖ kind u16 ‖ sort u8 ‖ payload        length = what follows it
//! ```
//! No checksum: TLS authenticates every byte.

use super::stats::Meter;
use crate::codec::{DecodeError, Decoder, Encoder};
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// Largest payload of a frame.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Largest payload before the two sides have greeted each other.
pub(super) const GREETING_BYTES_MAX: usize = 1 << 10;

const HEAD_BYTES: usize = 15;
const LENGTH_BYTES: usize = 4;

/// Size of a read buffer: several TLS records of 16 KiB.
const READ_ROOM_BYTES: usize = 64 << 10;

/// A buffer is used until less than this is free. Payloads share it, so one buffer per read would
/// let every small payload that someone keeps hold on to all of it.
const READ_ROOM_BYTES_MIN: usize = 8 << 10;

/// Most bytes that the writer takes before it lets the socket have them; one frame may be larger.
pub(super) const WRITE_BATCH_BYTES: usize = 256 << 10;

/// Payloads up to this size are copied to stand beside others in one TLS record and system call.
const COPY_BYTES_MAX: usize = 16 << 10;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Client: do this.
    Request = 0,
    /// Server: done, this is the result.
    Answer = 1,
    /// Server: not done, this is why ([`super::RpcRefused`]).
    Refusal = 2,
    /// Either: the wall clock here, answer with yours.
    Ping = 3,
    /// Either: the wall clock here.
    Pong = 4,
    /// Client: the first frame.
    Hello = 5,
    /// Server: the first frame.
    Welcome = 6,
    /// Server: no further request will be served, and why.
    Goodbye = 7,
}

impl Sort {
    fn from_byte(byte: u8) -> Option<Sort> {
        use Sort::{Answer, Goodbye, Hello, Ping, Pong, Refusal, Request, Welcome};
        let sorts = [Request, Answer, Refusal, Ping, Pong, Hello, Welcome, Goodbye];
        sorts.get(usize::from(byte)).copied()
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub id: u64,
    pub kind: u16,
    pub sort: Sort,
    pub payload: Bytes,
}

impl Frame {
    /// A frame that belongs to no request.
    pub fn plain(sort: Sort, id: u64, payload: impl Into<Bytes>) -> Frame {
        Frame { id, kind: 0, sort, payload: payload.into() }
    }

    /// A ping or pong, with the wall clock.
    pub fn pulse(sort: Sort, id: u64, wall_ms: u64) -> Frame {
        Frame::plain(sort, id, wall_ms.to_be_bytes().to_vec())
    }

    /// Bytes on the wire, before encryption.
    pub fn wire_bytes(&self) -> usize {
        HEAD_BYTES + self.payload.len()
    }

    pub fn put_head(&self, out: &mut BytesMut) {
        let length = HEAD_BYTES - LENGTH_BYTES + self.payload.len();
        // Every payload is checked against PAYLOAD_BYTES_MAX where it enters.
        let length = u32::try_from(length).expect("payloads are limited");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&[self.sort as u8]);
    }
}

/// Splits a stream of bytes into frames. Payloads share the buffer that was read into.
#[derive(Debug)]
pub(super) struct FrameReader {
    pub buffer: BytesMut,
    payload_max: usize,
}

impl FrameReader {
    /// With the narrow limit for greetings.
    pub fn greeting() -> FrameReader {
        FrameReader { buffer: BytesMut::new(), payload_max: GREETING_BYTES_MAX }
    }

    /// The peer is known and welcome: from here on payloads may be large.
    pub fn widen(&mut self) {
        self.payload_max = PAYLOAD_BYTES_MAX;
    }

    /// The next frame if all of it is here. An error means that the peer does not speak our
    /// protocol; the stream cannot go on.
    pub fn next(&mut self) -> Result<Option<Frame>, DecodeError> {
        let Some(length) = self.length()? else { return Ok(None) };
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        let whole = self.buffer.split_to(LENGTH_BYTES + length).freeze();
        if self.buffer.is_empty() && length > WRITE_BATCH_BYTES {
            self.buffer = BytesMut::new(); // or it would keep the large frame's room for itself
        }
        let mut input = Decoder::shared(&whole);
        input.u32()?;
        let (id, kind) = (input.u64()?, input.u16()?);
        let error = input.error("a sort of frame that this release knows");
        let sort = Sort::from_byte(input.u8()?).ok_or(error)?;
        Ok(Some(Frame { id, kind, sort, payload: input.rest_bytes() }))
    }

    fn length(&self) -> Result<Option<usize>, DecodeError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        let head = HEAD_BYTES - LENGTH_BYTES;
        if (head..=head + self.payload_max).contains(&length) {
            return Ok(Some(length));
        }
        Err(DecodeError { expected: "a frame length within its limit", offset: 0 })
    }

    /// Reads what is there. An end between frames and one inside a frame are alike: both sides say
    /// goodbye by other means.
    pub async fn fill(&mut self, input: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        // Room for the rest of a large frame at once spares copies; it is within the limit.
        let missing = match self.length() {
            Ok(Some(length)) => (LENGTH_BYTES + length).saturating_sub(self.buffer.len()),
            _ => 0,
        };
        let free = self.buffer.capacity() - self.buffer.len();
        if free < missing.max(READ_ROOM_BYTES_MIN) {
            self.buffer.reserve(missing.max(READ_ROOM_BYTES));
        }
        match input.read_buf(&mut self.buffer).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer hung up")),
            bytes => Ok(bytes),
        }
    }

    /// Waits for one frame.
    pub async fn one(&mut self, input: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.next().map_err(invalid)? {
                return Ok(frame);
            }
            self.fill(input).await?;
        }
    }
}

pub(super) fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Where the writer of a connection gets its frames.
pub(super) trait Source: Sync {
    /// Moves waiting frames to `out`, about [`WRITE_BATCH_BYTES`] of them. False: none will come.
    fn take(&self, out: &mut Vec<Frame>) -> bool;

    /// Told once after each change that could make `take` yield.
    fn wake(&self) -> &Notify;
}

/// Writes what `source` gives until it ends: all that waits in one go, so that many small frames
/// share a TLS record and a system call.
pub(super) async fn write_frames(
    output: &mut (impl AsyncWrite + Unpin),
    source: &impl Source,
    meter: &Meter,
) -> io::Result<()> {
    let (mut frames, mut buffer) = (Vec::new(), BytesMut::new());
    loop {
        let more = source.take(&mut frames);
        if frames.is_empty() {
            if !more {
                return output.shutdown().await;
            }
            source.wake().notified().await;
            tokio::task::yield_now().await; // what others of this turn have to send goes along
            continue;
        }
        meter.sent(&frames);
        for frame in frames.drain(..) {
            frame.put_head(&mut buffer);
            if frame.payload.len() <= COPY_BYTES_MAX {
                buffer.extend_from_slice(&frame.payload);
            } else {
                output.write_all_buf(&mut buffer).await?;
                output.write_all(&frame.payload).await?;
            }
        }
        output.write_all_buf(&mut buffer).await?;
        output.flush().await?;
    }
}

/// Writes one frame, outside of the loop: greetings.
pub(super) async fn write_one(
    output: &mut (impl AsyncWrite + Unpin),
    frame: &Frame,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(frame.wire_bytes());
    frame.put_head(&mut buffer);
    buffer.extend_from_slice(&frame.payload);
    output.write_all_buf(&mut buffer).await?;
    output.flush().await
}

const MAGIC: &[u8] = b"flotilla";
const PROTOCOL: u8 = 1;

/// The payload of [`Sort::Hello`].
pub(super) fn hello(class: super::Class) -> Bytes {
    let mut out = Encoder::new();
    out.put_raw(MAGIC);
    out.put_u8(PROTOCOL);
    out.put_u8(class as u8);
    out.into_bytes()
}

/// Reads the payload of [`Sort::Hello`].
pub(super) fn read_hello(payload: &[u8]) -> Result<super::Class, DecodeError> {
    let mut input = Decoder::new(payload);
    if input.raw(MAGIC.len(), "a Flotilla greeting")? != MAGIC {
        return Err(DecodeError { expected: "a Flotilla greeting", offset: 0 });
    }
    input.version(PROTOCOL)?;
    let error = input.error("a class of connection");
    let class = super::Class::from_byte(input.u8()?).ok_or(error)?;
    input.finish()?;
    Ok(class)
}
