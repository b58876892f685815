//! TCP over a lane: each connection is terminated here and dialled again to its target.
//!
//! Invariants:
//! * Bytes arrive complete and in order; an end or a reset arrives behind the bytes before it.
//! * A connection holds at most `STREAM_BYTES_MAX` per direction; then its sender is not read.
//! * The first bytes arrive one and a half round trips after the dial, as a handshake costs. (The
//!   kernel answers the dial itself at once; the relay cannot hide that.)

use super::alarm::Alarm;
use super::lane::Lane;
use bytes::{BufMut, Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Bytes under way in one direction of one connection: 100 MB/s at a delay of 150 ms.
pub(super) const STREAM_BYTES_MAX: usize = 16 << 20;
/// Pieces under way in one direction of one connection. Small writes make small pieces.
const STREAM_PIECES_MAX: usize = 16 << 10;
/// Largest piece that is read at once.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// Smallest piece on a slow lane, so that a trickle still makes progress.
const PIECE_BYTES_MIN: usize = 1460;
/// Connections of one forward at a time; further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 4096;
/// Pause after a failed accept: out of descriptors does not get better by asking at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the connections of one forward go.
#[derive(Clone)]
pub(super) struct Road {
    pub(super) out: Arc<Lane>,
    pub(super) back: Arc<Lane>,
    pub(super) target: SocketAddr,
    pub(super) alarm: Alarm,
}

/// Accepts and carries connections until the network stops.
pub(super) async fn serve(listener: TcpListener, road: Road, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        while let Ok(place) = places.clone().acquire_owned().await {
            let near = match listener.accept().await {
                Ok((near, _)) => near,
                Err(error) => {
                    tracing::warn!(target = %road.target, %error, "the relay cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (road, stop) = (road.clone(), stop.clone());
            tokio::spawn(async move {
                stop.run_until_cancelled(carry(near, road)).await;
                drop(place);
            });
        }
    };
    stop.run_until_cancelled(accept).await;
}

/// Carries one connection to its end.
async fn carry(mut near: TcpStream, road: Road) {
    road.out.trip().await;
    let far = TcpStream::connect(road.target).await;
    road.back.trip().await;
    let mut far = match far {
        Ok(far) => far,
        Err(_) => return reset(&near),
    };
    // Latency is what is emulated here; Nagle would add to it.
    let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
    let both = {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let out = pump(near_read, far_write, &road.out, &road.alarm);
        let back = pump(far_read, near_write, &road.back, &road.alarm);
        tokio::try_join!(out, back)
    };
    if both.is_err() {
        reset(&near);
        reset(&far);
    }
}

/// Makes the coming close a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    // A failure means that the socket is gone already.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// The connection was reset, and the reset has arrived at the other side.
struct Reset;

enum Piece {
    Bytes(Bytes, OwnedSemaphorePermit),
    End,
    Reset,
}

async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    lane: &Lane,
    alarm: &Alarm,
) -> Result<(), Reset> {
    let (pieces, under_way) = mpsc::channel(STREAM_PIECES_MAX);
    let (reading, writing) = (read(from, pieces, lane, alarm), write(under_way, to, lane, alarm));
    tokio::pin!(reading, writing);
    tokio::select! {
        // A target that went away ends the writing; its end or reset is seen by the other pump.
        result = &mut writing => result,
        () = &mut reading => writing.await,
    }
}

async fn read(
    mut from: ReadHalf<'_>,
    pieces: mpsc::Sender<(Instant, Piece)>,
    lane: &Lane,
    alarm: &Alarm,
) {
    let room = Arc::new(Semaphore::new(STREAM_BYTES_MAX));
    let mut buffer = BytesMut::new();
    let mut arrives = Instant::now();
    loop {
        while let Some(resume) = lane.stream_pause() {
            alarm.until(resume).await;
        }
        // A new block only when the old one is used up, so that small pieces share one.
        if buffer.capacity() < PIECE_BYTES_MIN {
            buffer.reserve(PIECE_BYTES_MAX);
        }
        let most = piece_bytes(lane.path().rate).min(buffer.capacity());
        let Ok(mut permit) = room.clone().acquire_many_owned(most as u32).await else { return };
        let read = from.read_buf(&mut (&mut buffer).limit(most)).await;
        let count = *read.as_ref().unwrap_or(&0);
        // A connection never reorders, also when the delay was shortened meanwhile.
        arrives = arrives.max(lane.stream_bytes(count));
        let piece = match read {
            Ok(0) => Piece::End,
            Ok(count) => {
                drop(permit.split(most - count));
                Piece::Bytes(buffer.split().freeze(), permit)
            }
            Err(_) => Piece::Reset,
        };
        let last = !matches!(piece, Piece::Bytes(..));
        if pieces.send((arrives, piece)).await.is_err() || last {
            return;
        }
    }
}

/// At most what the lane carries in 10 ms, so that a slow lane delivers steadily.
fn piece_bytes(rate: Option<u64>) -> usize {
    let Some(rate) = rate else { return PIECE_BYTES_MAX };
    let bytes = usize::try_from(rate / 800).unwrap_or(PIECE_BYTES_MAX);
    bytes.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX)
}

async fn write(
    mut under_way: mpsc::Receiver<(Instant, Piece)>,
    mut to: WriteHalf<'_>,
    lane: &Lane,
    alarm: &Alarm,
) -> Result<(), Reset> {
    while let Some((arrives, piece)) = under_way.recv().await {
        alarm.until(arrives).await;
        lane.open().await;
        match piece {
            Piece::Bytes(bytes, permit) => {
                if to.write_all(&bytes).await.is_err() {
                    return Ok(());
                }
                drop(permit);
            }
            Piece::End => {
                // Fails when the receiver is gone already, which is fine at the end.
                let _ = to.shutdown().await;
            }
            Piece::Reset => return Err(Reset),
        }
    }
    Ok(())
}
