//! A RESP2 client of our own: small, with deadlines, and honest about outcomes. It shares no code
//! with the server that it tests.
//!
//! Invariant: after an error the connection is never used again, since its replies could belong to
//! other commands.

use bytes::{Buf, Bytes, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest string or reply that a server may send.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// Elements of one array.
const ARRAY_MAX: usize = 1 << 20;
/// Nesting of arrays.
const DEPTH_MAX: usize = 8;
/// Largest line: a simple string, an error, a number.
const LINE_BYTES_MAX: usize = 64 << 10;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A status such as `OK`.
    Simple(Bytes),
    /// An error, with its prefix.
    Error(Bytes),
    /// A number.
    Int(i64),
    /// A string.
    Bulk(Bytes),
    /// No value.
    Nil,
    /// Several replies.
    Array(Vec<Value>),
}

impl Value {
    /// The text of a string, status or error; what is not UTF-8 is replaced.
    pub fn text(&self) -> Option<String> {
        match self {
            Value::Simple(bytes) | Value::Error(bytes) | Value::Bulk(bytes) => {
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
            _ => None,
        }
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum RespError {
    /// No connection: the command was certainly not carried out.
    #[error("cannot connect to {address}: {cause}")]
    NotSent {
        /// Whom we wanted.
        address: String,
        /// Why not.
        cause: std::io::Error,
    },
    /// The command may or may not have been carried out. The connection is unusable.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
    patience: Duration,
    broken: bool,
}

impl Client {
    /// Connects to `host:port`. Every call ends within `patience`.
    pub async fn connect(address: &str, patience: Duration) -> Result<Client, RespError> {
        let failed = |cause| RespError::NotSent { address: address.to_owned(), cause };
        let stream = tokio::time::timeout(patience, TcpStream::connect(address))
            .await
            .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Client { stream, input: BytesMut::new(), output: vec![], patience, broken: false })
    }

    /// Sends one command and waits for its reply.
    pub async fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Value, RespError> {
        let mut replies = self.pipeline(&[args]).await?;
        replies.pop().ok_or_else(|| RespError::Unknown("no reply".into()))
    }

    /// Sends several commands at once and waits for all replies.
    pub async fn pipeline<C, A>(&mut self, commands: &[C]) -> Result<Vec<Value>, RespError>
    where
        C: AsRef<[A]>,
        A: AsRef<[u8]>,
    {
        // Stays so when this future is dropped half way.
        if std::mem::replace(&mut self.broken, true) {
            return Err(RespError::Unknown("the connection failed before".into()));
        }
        self.output.clear();
        for command in commands {
            encode(command.as_ref(), &mut self.output);
        }
        let patience = self.patience;
        let replies = tokio::time::timeout(patience, self.exchange(commands.len()))
            .await
            .map_err(|_| RespError::Unknown(format!("no reply within {patience:?}")))??;
        self.broken = false;
        Ok(replies)
    }

    async fn exchange(&mut self, count: usize) -> Result<Vec<Value>, RespError> {
        let lost = |error: std::io::Error| RespError::Unknown(error.to_string());
        self.stream.write_all(&self.output).await.map_err(lost)?;
        let mut replies = Vec::with_capacity(count);
        while replies.len() < count {
            match parse(&self.input, DEPTH_MAX).map_err(|what| RespError::Unknown(what.into()))? {
                Some((value, used)) => {
                    self.input.advance(used);
                    replies.push(value);
                }
                None if self.input.len() > REPLY_BYTES_MAX => {
                    return Err(RespError::Unknown("the reply is too large".into()));
                }
                None => {
                    if self.stream.read_buf(&mut self.input).await.map_err(lost)? == 0 {
                        return Err(RespError::Unknown("the server closed the connection".into()));
                    }
                }
            }
        }
        Ok(replies)
    }
}

/// Appends a command as an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(args: &[A], output: &mut Vec<u8>) {
    output.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        output.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        output.extend_from_slice(arg);
        output.extend_from_slice(b"\r\n");
    }
}

type Parsed = Result<Option<(Value, usize)>, &'static str>;

/// Reads one reply from the start of `input`, with the bytes it takes; `None` when incomplete.
pub fn parse(input: &[u8], depth: usize) -> Parsed {
    let Some(&kind) = input.first() else { return Ok(None) };
    let window = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() < LINE_BYTES_MAX { Ok(None) } else { Err("a line has no end") };
    };
    let (line, used) = (&input[1..end.max(1)], end + 2);
    let value = match kind {
        b'+' => Value::Simple(Bytes::copy_from_slice(line)),
        b'-' => Value::Error(Bytes::copy_from_slice(line)),
        b':' => Value::Int(number(line)?),
        b'_' => Value::Nil,
        b'$' => return parse_bulk(input, number(line)?, used),
        b'*' => return parse_array(input, number(line)?, used, depth),
        _ => return Err("a reply of unknown type"),
    };
    Ok(Some((value, used)))
}

fn number(line: &[u8]) -> Result<i64, &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "a number is not text")?;
    text.parse().map_err(|_| "a number is not a number")
}

fn parse_bulk(input: &[u8], size: i64, used: usize) -> Parsed {
    if size == -1 {
        return Ok(Some((Value::Nil, used)));
    }
    let size = usize::try_from(size).ok().filter(|size| *size <= REPLY_BYTES_MAX);
    let end = used + size.ok_or("a string of impossible size")?;
    let Some(bytes) = input.get(used..end) else { return Ok(None) };
    match input.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((Value::Bulk(Bytes::copy_from_slice(bytes)), end + 2))),
        Some(_) => Err("a string does not end where it should"),
    }
}

fn parse_array(input: &[u8], size: i64, mut used: usize, depth: usize) -> Parsed {
    if size == -1 {
        return Ok(Some((Value::Nil, used)));
    }
    let size = usize::try_from(size).ok().filter(|size| *size <= ARRAY_MAX);
    let size = size.ok_or("an array of impossible size")?;
    let depth = depth.checked_sub(1).ok_or("arrays are nested too deeply")?;
    let mut values = Vec::new();
    for _ in 0..size {
        let Some((value, more)) = parse(&input[used..], depth)? else { return Ok(None) };
        used += more;
        values.push(value);
    }
    Ok(Some((Value::Array(values), used)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(input: &[u8]) -> Value {
        for end in 0..input.len() {
            assert_eq!(parse(&input[..end], DEPTH_MAX), Ok(None), "cut at {end}");
        }
        let (value, used) = parse(input, DEPTH_MAX).unwrap().unwrap();
        assert_eq!(used, input.len());
        value
    }

    #[test]
    fn replies_are_read_whole_or_not_at_all() {
        let bulk = |text: &'static str| Value::Bulk(Bytes::from_static(text.as_bytes()));
        assert_eq!(whole(b"+OK\r\n"), Value::Simple(Bytes::from_static(b"OK")));
        assert_eq!(whole(b"-ERR no\r\n"), Value::Error(Bytes::from_static(b"ERR no")));
        assert_eq!(whole(b":-7\r\n"), Value::Int(-7));
        assert_eq!(whole(b"$-1\r\n"), Value::Nil);
        assert_eq!(whole(b"*-1\r\n"), Value::Nil);
        assert_eq!(whole(b"$0\r\n\r\n"), bulk(""));
        assert_eq!(whole(b"$4\r\na\r\nb\r\n"), bulk("a\r\nb"));
        let nested = Value::Array(vec![Value::Int(1), Value::Array(vec![bulk("x"), Value::Nil])]);
        assert_eq!(whole(b"*2\r\n:1\r\n*2\r\n$1\r\nx\r\n$-1\r\n"), nested);
        for garbage in [&b"?\r\n"[..], b":x\r\n", b"$-2\r\n", b"$1\r\nab\r\n", b"*9999999\r\n"] {
            assert!(parse(garbage, DEPTH_MAX).is_err(), "{garbage:?}");
        }
        assert!(parse(&b"*1\r\n".repeat(20), DEPTH_MAX).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(input in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&input, DEPTH_MAX);
        }
    }

    #[tokio::test]
    async fn a_late_reply_is_an_unknown_outcome_and_the_connection_is_over() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut client = Client::connect(&address, Duration::from_millis(50)).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        assert!(matches!(client.call(&["PING"]).await, Err(RespError::Unknown(_))));
        server.write_all(b"+PONG\r\n").await.unwrap();
        let error = client.call(&["PING"]).await.unwrap_err().to_string();
        assert!(error.contains("failed before"), "{error}");
    }
}
