//! A raw connection: what is sent is a command, what comes is told apart down to the kind of each null.

use super::steps::How;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a reply may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much of a reply a message shows.
const SHOWN: usize = 600;

/// A reply as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// A line with its first byte: statuses, errors, numbers, nulls.
    Line(Vec<u8>),
    /// A string with the byte that its length follows.
    Text(u8, Vec<u8>),
    /// What is nested, with the byte that the number of its elements follows; keys and values of a map
    /// are elements one by one.
    Nested(u8, Vec<Reply>),
    /// The server has closed the connection.
    Closed,
}

impl Reply {
    /// As much as a message should show.
    pub fn shown(&self) -> String {
        let mut text = String::new();
        self.show(&mut text);
        if text.len() > SHOWN {
            let end = (0..=SHOWN).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push_str(" ...");
        }
        text
    }

    fn show(&self, out: &mut String) {
        match self {
            Reply::Line(line) => out.push_str(&line.escape_ascii().to_string()),
            Reply::Text(b'$', text) => out.push_str(&format!("\"{}\"", text.escape_ascii())),
            Reply::Text(kind, text) => {
                out.push_str(&format!("{}\"{}\"", char::from(*kind), text.escape_ascii()));
            }
            Reply::Nested(kind, elements) => {
                out.push(char::from(*kind));
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    element.show(out);
                }
                out.push(']');
            }
            Reply::Closed => out.push_str("(closed)"),
        }
    }

    /// Whether two replies are the same as far as a step wants it.
    pub fn same(&self, other: &Reply, how: How) -> bool {
        match how {
            How::Exact => self == other,
            How::AnyOrder => self.sorted(1) == other.sorted(1),
            How::Pairs => self.sorted(2) == other.sorted(2),
            How::Floats => self.floats() == other.floats(),
            How::Shape => self.shape() == other.shape(),
            How::Near(far) => self.near(other, far),
        }
    }

    /// Elements in an order of their own, so many of them together; what is nested in elements as well.
    fn sorted(&self, together: usize) -> Reply {
        let Reply::Nested(kind, elements) = self else { return self.clone() };
        let elements: Vec<Reply> =
            elements.iter().map(|element| element.sorted(together)).collect();
        // A list of pairs has them together already.
        let nested = elements.iter().all(|element| matches!(element, Reply::Nested(..)));
        let together = match kind {
            b'%' | b'|' => 2,
            _ if nested => 1,
            _ => together,
        };
        let mut parts: Vec<Vec<Reply>> = elements.chunks(together).map(<[_]>::to_vec).collect();
        parts.sort();
        Reply::Nested(*kind, parts.concat())
    }

    /// With floats as Rust writes them.
    fn floats(&self) -> Reply {
        let float = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<f64>().ok();
        match self {
            Reply::Text(kind, text) => match float(text) {
                Some(value) => Reply::Text(*kind, value.to_string().into_bytes()),
                None => self.clone(),
            },
            Reply::Line(line) => match line.strip_prefix(b",").and_then(float) {
                Some(value) => Reply::Line(format!(",{value}").into_bytes()),
                None => self.clone(),
            },
            Reply::Nested(kind, elements) => {
                Reply::Nested(*kind, elements.iter().map(Reply::floats).collect())
            }
            Reply::Closed => Reply::Closed,
        }
    }

    /// What is left without numbers and texts. Errors and statuses are no values: they stay.
    fn shape(&self) -> Reply {
        match self {
            Reply::Line(line) if line.starts_with(b":") || line.starts_with(b",") => {
                Reply::Line(line[..1].to_vec())
            }
            Reply::Text(kind, _) => Reply::Text(*kind, Vec::new()),
            Reply::Nested(kind, elements) => {
                Reply::Nested(*kind, elements.iter().map(Reply::shape).collect())
            }
            other => other.clone(),
        }
    }

    fn near(&self, other: &Reply, far: i64) -> bool {
        match (self, other) {
            (Reply::Nested(a, mine), Reply::Nested(b, theirs)) => {
                let mut pairs = mine.iter().zip(theirs);
                a == b && mine.len() == theirs.len() && pairs.all(|(a, b)| a.near(b, far))
            }
            _ => match (self.integer(), other.integer()) {
                // Below 0 a number says that there is none.
                (Some(a), Some(b)) if a >= 0 && b >= 0 => a.abs_diff(b) <= far.unsigned_abs(),
                _ => self == other,
            },
        }
    }

    fn integer(&self) -> Option<i64> {
        let Reply::Line(line) = self else { return None };
        std::str::from_utf8(line.strip_prefix(b":")?).ok()?.parse().ok()
    }
}

/// A connection to one of the two servers.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects, and chooses the protocol.
    pub fn open(port: u16, protocol: u8) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a server that listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut connection = Connection(BufReader::new(stream));
        if protocol == 3 {
            let hello = connection.ask(&["HELLO", "3"]);
            assert!(matches!(hello, Reply::Nested(b'%', _)), "HELLO 3: {}", hello.shown());
        }
        connection
    }

    /// Sends a command. One that the server has closed takes nothing: its next reply says so.
    pub fn send<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let word = word.as_ref();
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        let _ = self.0.get_mut().write_all(&bytes);
    }

    /// The next reply.
    pub fn reply(&mut self) -> Reply {
        match self.read() {
            Ok(reply) => reply,
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    Reply::Closed
                }
                _ => panic!("no reply within {PATIENCE:?}: {error}"),
            },
        }
    }

    /// Sends a command and waits for its reply.
    pub fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Reply {
        self.send(words);
        self.reply()
    }

    fn read(&mut self) -> std::io::Result<Reply> {
        let line = self.line()?;
        let size = || std::str::from_utf8(&line[1..]).ok().and_then(|text| text.parse().ok());
        let size: Option<usize> = size();
        Ok(match (line[0], size) {
            (kind @ (b'$' | b'='), Some(size)) => {
                let mut text = vec![0; size + 2];
                self.0.read_exact(&mut text)?;
                assert!(text.ends_with(b"\r\n"), "a string ends where it says");
                text.truncate(size);
                Reply::Text(kind, text)
            }
            (kind @ (b'*' | b'~' | b'%' | b'>'), Some(size)) => {
                let size = if kind == b'%' { 2 * size } else { size };
                let elements: std::io::Result<Vec<Reply>> =
                    (0..size).map(|_| self.read()).collect();
                Reply::Nested(kind, elements?)
            }
            _ => Reply::Line(line),
        })
    }

    /// A line without its end; not empty.
    fn line(&mut self) -> std::io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        assert!(
            line.len() > 2 && line.ends_with(b"\r\n"),
            "a line of RESP: {}",
            line.escape_ascii()
        );
        line.truncate(line.len() - 2);
        Ok(line)
    }
}

#[test]
fn replies_are_the_same_as_far_as_a_step_wants_it() {
    let text = |text: &str| Reply::Text(b'$', text.into());
    let line = |text: &str| Reply::Line(text.into());
    let list = |names: &[&str]| Reply::Nested(b'*', names.iter().map(|name| text(name)).collect());
    let same = |a: &Reply, b: &Reply| {
        let all = [How::Exact, How::AnyOrder, How::Pairs, How::Shape, How::Near(5)];
        all.map(|how| a.same(b, how))
    };
    let short = Reply::Nested(b'*', vec![text("0.1"), line(",1e5")]);
    let long = Reply::Nested(b'*', vec![text("0.10000000000000001"), line(",100000")]);
    assert!(short.same(&long, How::Floats) && !short.same(&long, How::Exact));
    assert!(
        !text("0.1").same(&text("0.2"), How::Floats) && !text("a").same(&text("b"), How::Floats)
    );
    let pairs = list(&["a", "1", "b", "2"]);
    assert_eq!(same(&pairs, &pairs), [true; 5]);
    assert_eq!(same(&pairs, &list(&["b", "2", "a", "1"])), [false, true, true, true, false]);
    assert_eq!(same(&pairs, &list(&["b", "1", "a", "2"])), [false, true, false, true, false]);
    assert_eq!(same(&pairs, &list(&["b", "1", "a"])), [false; 5]);
    assert_eq!(same(&line(":7"), &line(":9")), [false, false, false, true, true]);
    assert_eq!(same(&line(":7"), &line(":-1")), [false, false, false, true, false]);
    assert_eq!(same(&line("-ERR a"), &line("-ERR b")), [false; 5]);
    assert_eq!(same(&line("$-1"), &line("*-1")), [false; 5]);
}
