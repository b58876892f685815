//! Counts replies without building them.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// What came back on one connection.
#[derive(Default)]
pub(super) struct Replies {
    buffer: Vec<u8>,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    /// Strings and arrays that are not there, elements of arrays included.
    pub(super) nothing: u64,
}

impl Replies {
    /// Reads so many replies, and nothing behind them.
    pub(super) async fn read(
        &mut self,
        stream: &mut TcpStream,
        count: usize,
    ) -> std::io::Result<()> {
        let (mut seen, mut at) = (0, 0);
        self.buffer.clear();
        loop {
            while seen < count {
                let Some(end) = self.skip(at)? else { break };
                (at, seen) = (end, seen + 1);
            }
            if seen == count {
                return Ok(());
            }
            self.buffer.reserve(READ_BYTES);
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Where the reply that starts at `at` ends; `None` when it is incomplete. A reply is counted
    /// once, when it is whole.
    pub(super) fn skip(&mut self, at: usize) -> std::io::Result<Option<usize>> {
        let mut nothing = 0;
        let Some(end) = end_of(&self.buffer, at, &mut nothing)? else { return Ok(None) };
        self.nothing += nothing;
        if self.buffer[at] == b'-' {
            let text = String::from_utf8_lossy(&self.buffer[at..end]).trim_end().to_owned();
            self.failed(text);
        }
        Ok(Some(end))
    }

    /// Counts an error.
    pub(super) fn failed(&mut self, what: String) {
        self.errors += 1;
        self.first_error.get_or_insert(what);
    }

    #[cfg(test)]
    pub(super) fn over(bytes: &[u8]) -> Replies {
        Replies { buffer: bytes.to_vec(), ..Replies::default() }
    }
}

fn end_of(buffer: &[u8], at: usize, nothing: &mut u64) -> std::io::Result<Option<usize>> {
    let mut at = at;
    // One reply, and for each array so many more.
    let mut wanted = 1usize;
    while wanted > 0 {
        let rest = buffer.get(at..).unwrap_or_default();
        let Some(line) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let end = at + line + 1;
        wanted -= 1;
        at = match rest[0] {
            b'+' | b':' | b'-' => end,
            b'_' => {
                *nothing += 1;
                end
            }
            b'$' | b'*' if rest[1] == b'-' => {
                *nothing += 1;
                end
            }
            b'$' => end.saturating_add(number(&rest[1..line])).saturating_add(2),
            b'*' => {
                wanted = wanted.saturating_add(number(&rest[1..line]));
                end
            }
            _ => return Err(std::io::Error::other("a reply of unknown type")),
        };
        if at > buffer.len() {
            return Ok(None);
        }
    }
    Ok(Some(at))
}

fn number(digits: &[u8]) -> usize {
    let digits = digits.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0usize, |number, digit| {
        number.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_whole() {
        let bytes = b"+OK\r\n$3\r\na\nb\r\n$-1\r\n-ERR no\r\n:5\r\n$5\r\nhal";
        let mut replies = Replies::over(bytes);
        let (mut at, mut ends) = (0, vec![]);
        while let Some(end) = replies.skip(at).unwrap() {
            at = end;
            ends.push(end);
        }
        assert_eq!(ends, [5, 14, 19, 28, 32]);
        assert_eq!((replies.errors, replies.first_error.as_deref()), (1, Some("-ERR no")));
        assert_eq!(replies.nothing, 1);
        assert!(Replies::over(b"?\r\n").skip(0).is_err());
        assert_eq!(Replies::over(b"$99999999999999999999999\r\n").skip(0).unwrap(), None);
    }

    #[test]
    fn an_array_ends_with_its_last_element() {
        let whole = b"*3\r\n$1\r\na\r\n$-1\r\n*1\r\n:7\r\n";
        let mut replies = Replies::over(whole);
        assert_eq!(replies.skip(0).unwrap(), Some(whole.len()));
        assert_eq!(replies.nothing, 1);
        for cut in 0..whole.len() {
            let mut replies = Replies::over(&whole[..cut]);
            assert_eq!((replies.skip(0).unwrap(), replies.nothing), (None, 0), "{cut}");
        }
        assert_eq!(Replies::over(b"*0\r\n").skip(0).unwrap(), Some(4));
    }
}
