//! Frames and greetings between nodes, as targets of [`crate::fuzz`].

use super::frame::{Frame, FrameReader, Sort, hello, read_hello};
use super::{Class, RpcRefused, kinds};
use crate::codec::DecodeError;
use crate::fuzz::Target;
use bytes::{Bytes, BytesMut};

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let refused = RpcRefused::new(RpcRefused::TOO_LARGE, "it is too large");
    vec![
        Target::new("frames", frames(), read_frames, write_frames),
        Target::new("greeting", Class::ALL.to_vec(), |b| read_hello(b), |class| hello(*class)),
        Target::new("refusal", vec![refused], |b| RpcRefused::decode(b), RpcRefused::encode),
    ]
}

fn frames() -> Vec<Vec<Frame>> {
    let request = Frame {
        id: 7,
        kind: kinds::EXEC,
        sort: Sort::Request,
        payload: Bytes::from_static(b"payload"),
    };
    let sorts = [Sort::Answer, Sort::Refusal, Sort::Hello, Sort::Welcome, Sort::Goodbye];
    let mut all = vec![request, Frame::pulse(Sort::Ping, 1, 99), Frame::pulse(Sort::Pong, 1, 99)];
    all.extend(sorts.map(|sort| Frame::plain(sort, u64::MAX, Bytes::new())));
    let mut values: Vec<Vec<Frame>> = all.iter().map(|frame| vec![frame.clone()]).collect();
    values.push(all);
    values
}

fn write_frames(frames: &Vec<Frame>) -> Bytes {
    let mut out = BytesMut::new();
    for frame in frames {
        frame.put_head(&mut out);
        out.extend_from_slice(&frame.payload);
    }
    out.freeze()
}

/// The frames at the front of the bytes; refused if there is none, or one is wrong.
fn read_frames(bytes: &Bytes) -> Result<Vec<Frame>, DecodeError> {
    let mut reader = FrameReader::greeting();
    reader.widen();
    reader.buffer.extend_from_slice(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = reader.next()? {
        frames.push(frame);
    }
    match frames.is_empty() {
        true => Err(DecodeError { expected: "a frame", offset: 0 }),
        false => Ok(frames),
    }
}
