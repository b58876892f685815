//! Takes requests from a growing buffer: arrays of bulk strings, and inline commands.
//!
//! The buffer is the caller's; the reader remembers where it stands in the request at its front.
//! Invariants:
//! * No byte is looked at twice, however the request is cut into packets, and the result does not
//!   depend on the cut.
//! * Every length is checked against [`Limits`] when it is declared, before any of it has come, and
//!   nothing is reserved on the word of a client: memory follows the bytes that have arrived.
//! * After an error the reader gives nothing but that error: bytes behind it have no known meaning.
//!
//! Error texts are those of Redis. Arguments are slices of the read buffer; one that is kept for
//! long should be copied, since it keeps the buffer alive.

use super::inline;
use super::reply::Reply;
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;

/// Arguments of a connection that has not authenticated: HELLO with all its options needs 7.
const UNAUTHENTICATED_ARGS_MAX: usize = 10;
/// Bytes of an argument of a connection that has not authenticated.
const UNAUTHENTICATED_BULK_MAX: usize = 16 * 1024;
/// Positions in a request are kept in 32 bits, at 8 bytes per argument.
const REQUEST_BYTES_CEILING: usize = u32::MAX as usize;
/// Argument positions reserved at first; more room is made as arguments come.
const SPANS_RESERVED: usize = 8;

/// What a request may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arguments of a request, the command's name included.
    pub args: usize,
    /// Bytes of an argument.
    pub bulk_bytes: usize,
    /// Bytes of an inline command, or of a line that carries a length.
    pub line_bytes: usize,
    /// Bytes of a whole request.
    pub request_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            args: 1_048_576,
            bulk_bytes: 512 * 1024 * 1024,
            line_bytes: 64 * 1024,
            request_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// The bytes are no request, or a larger one than is allowed. Answer it, then close.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Protocol error: {}", String::from_utf8_lossy(.text))]
pub struct ProtocolError {
    text: Cow<'static, [u8]>,
}

impl ProtocolError {
    fn new(text: &'static str) -> ProtocolError {
        ProtocolError { text: Cow::Borrowed(text.as_bytes()) }
    }

    /// The error line to answer before closing.
    pub fn reply(&self) -> Reply {
        Reply::error([b"ERR Protocol error: ", self.text.as_ref()].concat())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the first byte of a request.
    Start,
    /// `left` arguments are to come; the present one has `len` bytes, if that is known.
    Args { left: usize, len: Option<usize> },
}

/// Reads the requests of one connection.
#[derive(Debug)]
pub struct RequestReader {
    limits: Limits,
    authenticated: bool,
    state: State,
    /// What has been read of the request, from the buffer's front.
    at: usize,
    /// Up to where no line break was found.
    scanned: usize,
    /// Start and end of each argument read so far.
    spans: Vec<(u32, u32)>,
    failed: Option<ProtocolError>,
}

impl RequestReader {
    /// A reader at the start of a connection.
    pub fn new(limits: Limits) -> RequestReader {
        assert!(limits.request_bytes <= REQUEST_BYTES_CEILING, "a request is at most 4 GiB");
        RequestReader {
            limits,
            authenticated: true,
            state: State::Start,
            at: 0,
            scanned: 0,
            spans: Vec::new(),
            failed: None,
        }
    }

    /// Who has not authenticated yet may only send small requests.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }

    /// Takes the next request off the buffer's front; `None` when more bytes are needed.
    /// A request has at least one argument; empty lines and empty arrays are skipped.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.step(buffer).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Bytes that the buffer must hold, as far as the request's lengths are known, before the request goes
    /// on; 0 if nothing is known. It is the client's word, within the limits: who makes room for it should
    /// let what has come say how much at a time.
    pub fn needed(&self) -> usize {
        match self.state {
            State::Args { len: Some(len), .. } => self.at + len + 2,
            State::Start | State::Args { len: None, .. } => 0,
        }
    }

    #[cfg(test)]
    pub(super) fn spans_capacity(&self) -> usize {
        self.spans.capacity()
    }

    fn step(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            match self.state {
                State::Start => match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        let Some(count) = self.count(buffer)? else { return Ok(None) };
                        if count == 0 {
                            let _ = self.take(buffer);
                        } else {
                            self.spans.reserve(count.min(SPANS_RESERVED));
                            self.state = State::Args { left: count, len: None };
                        }
                    }
                    Some(_) => match self.inline(buffer)? {
                        Some(words) if words.is_empty() => {}
                        other => return Ok(other),
                    },
                },
                State::Args { left, len: None } => {
                    let Some(len) = self.bulk_len(buffer)? else { return Ok(None) };
                    self.state = State::Args { left, len: Some(len) };
                }
                State::Args { left, len: Some(len) } => {
                    // The line break behind an argument is skipped unread, as Redis does.
                    if buffer.len() < self.at + len + 2 {
                        return Ok(None);
                    }
                    self.spans.push((self.at as u32, (self.at + len) as u32));
                    self.at += len + 2;
                    if left == 1 {
                        return Ok(Some(self.finish(buffer)));
                    }
                    self.state = State::Args { left: left - 1, len: None };
                }
            }
        }
    }

    /// Bytes of the request at the buffer's front, off the buffer; the reader stands at a start.
    fn take(&mut self, buffer: &mut BytesMut) -> Bytes {
        let request = buffer.split_to(self.at).freeze();
        (self.at, self.scanned, self.state) = (0, 0, State::Start);
        request
    }

    fn finish(&mut self, buffer: &mut BytesMut) -> Vec<Bytes> {
        let request = self.take(buffer);
        let slice = |(from, to)| request.slice(from as usize..to as usize);
        // The room for positions is given back: one large request should not cost for ever.
        std::mem::take(&mut self.spans).into_iter().map(slice).collect()
    }

    /// The number of arguments; 0 when the array is empty or negative.
    fn count(&mut self, buffer: &BytesMut) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.length_line(buffer, "too big mbulk count string")? else {
            return Ok(None);
        };
        let invalid = ProtocolError::new("invalid multibulk length");
        let count = parse_length(&line[1..]).ok_or_else(|| invalid.clone())?;
        let count = usize::try_from(count).unwrap_or(0);
        if count > self.limits.args {
            return Err(invalid);
        }
        if !self.authenticated && count > UNAUTHENTICATED_ARGS_MAX {
            return Err(ProtocolError::new("unauthenticated multibulk length"));
        }
        Ok(Some(count))
    }

    /// The length of the next argument.
    fn bulk_len(&mut self, buffer: &BytesMut) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.length_line(buffer, "too big bulk count string")? else {
            return Ok(None);
        };
        let first = line.first().copied().unwrap_or(b'\r');
        if first != b'$' {
            let text = [b"expected '$', got '", &[first][..], b"'"].concat();
            return Err(ProtocolError { text: Cow::Owned(text) });
        }
        let len = parse_length(&line[1..]).and_then(|len| usize::try_from(len).ok());
        let Some(len) = len.filter(|len| *len <= self.limits.bulk_bytes) else {
            return Err(ProtocolError::new("invalid bulk length"));
        };
        if !self.authenticated && len > UNAUTHENTICATED_BULK_MAX {
            return Err(ProtocolError::new("unauthenticated bulk length"));
        }
        if self.at + len + 2 > self.limits.request_bytes {
            return Err(ProtocolError::new("too big request"));
        }
        Ok(Some(len))
    }

    /// The line at `at` without its line break, and steps behind that.
    fn length_line<'b>(
        &mut self,
        buffer: &'b BytesMut,
        too_big: &'static str,
    ) -> Result<Option<&'b [u8]>, ProtocolError> {
        let start = self.at;
        let Some(end) = self.find(b'\r', buffer, too_big)? else { return Ok(None) };
        if buffer.len() < end + 2 {
            return Ok(None); // the byte behind \r is skipped, so it must be there
        }
        self.at = end + 2;
        self.scanned = self.at;
        Ok(Some(&buffer[start..end]))
    }

    fn find(
        &mut self,
        wanted: u8,
        buffer: &BytesMut,
        too_big: &'static str,
    ) -> Result<Option<usize>, ProtocolError> {
        let from = self.scanned.max(self.at);
        let found = memchr::memchr(wanted, &buffer[from..]).map(|offset| from + offset);
        self.scanned = found.unwrap_or(buffer.len());
        if self.scanned - self.at > self.limits.line_bytes {
            return Err(ProtocolError::new(too_big));
        }
        Ok(found)
    }

    fn inline(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        let Some(end) = self.find(b'\n', buffer, "too big inline request")? else {
            return Ok(None);
        };
        self.at = end + 1;
        let request = self.take(buffer);
        let line = &request[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match inline::split(line) {
            Some(words) => Ok(Some(words)),
            None => Err(ProtocolError::new("unbalanced quotes in request")),
        }
    }
}

/// A number written in its only form: no plus sign, no space, no zero in front. Counts above
/// `i32::MAX` are none, as in Redis.
fn parse_length(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, digits),
    };
    let canonical = match digits {
        [b'0'] => !negative,
        [b'1'..=b'9', ..] => digits.len() <= 19,
        _ => false,
    };
    if !canonical {
        return None;
    }
    let value = digits.iter().try_fold(0i64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    let value = if negative { -value } else { value };
    (value <= i64::from(i32::MAX)).then_some(value)
}
