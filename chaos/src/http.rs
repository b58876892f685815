//! The smallest HTTP client that can ask a process of ours for its health or its state: one
//! request per connection, HTTP/1.0, so that the answer ends with the connection.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body, without the head.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether the status says success.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Asks `http://<address><path>`. The address is `host:port`.
pub async fn get(address: &str, path: &str, patience: Duration) -> io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
    exchange(address, request.as_bytes(), patience).await
}

/// Posts a JSON body to `http://<address><path>`.
pub async fn post(
    address: &str,
    path: &str,
    json: &[u8],
    patience: Duration,
) -> io::Result<Answer> {
    let mut request = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        json.len()
    )
    .into_bytes();
    request.extend_from_slice(json);
    exchange(address, &request, patience).await
}

async fn exchange(address: &str, request: &[u8], patience: Duration) -> io::Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
        parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not HTTP"))
    };
    tokio::time::timeout(patience, exchange)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = words.next()?.parse().ok()?;
    Some(Answer { status, body: bytes[end + 4..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_status_and_body_and_garbage_is_none() {
        let answer = parse(b"HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nno leader").unwrap();
        assert_eq!((answer.status, &*answer.body, answer.is_ok()), (503, &b"no leader"[..], false));
        for garbage in [&b""[..], b"\r\n\r\n", b"HTTP/1.1 200", b"FTP/1.1 200 OK\r\n\r\n"] {
            assert_eq!(parse(garbage), None);
        }
    }
}
