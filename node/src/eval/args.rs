//! Arguments of commands, and how a command stops early.

use super::ROW_OVERHEAD_BYTES;
use crate::model::parse_integer;
use crate::resp::Reply;
use std::io;

/// Values that one command may read to work out one result (BITOP, PFCOUNT, PFMERGE).
const READ_BYTES_MAX: usize = 256 << 20;

/// A command's answer, or why it stopped.
pub(super) type Outcome = Result<Reply, Stop>;

/// Why a command stopped before its end, having written nothing.
#[derive(Debug)]
pub(super) enum Stop {
    /// With this answer.
    Reply(Reply),
    /// Rows could not be read.
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Io(error)
    }
}

impl Stop {
    /// An error line.
    pub(super) fn error(line: String) -> Stop {
        Stop::Reply(Reply::error(line))
    }

    fn fixed(line: &'static str) -> Stop {
        Stop::Reply(Reply::error(line))
    }

    /// The options make no sense.
    pub(super) fn syntax() -> Stop {
        Stop::fixed("ERR syntax error")
    }

    /// The key holds another type.
    pub(super) fn wrong_type() -> Stop {
        Stop::fixed("WRONGTYPE Operation against a key holding the wrong kind of value")
    }

    /// A value or argument is no 64-bit integer.
    pub(super) fn not_an_integer() -> Stop {
        Stop::fixed("ERR value is not an integer or out of range")
    }

    /// A field's value is no 64-bit integer.
    pub(super) fn hash_value_not_an_integer() -> Stop {
        Stop::fixed("ERR hash value is not an integer")
    }

    /// The sum would leave 64 bits.
    pub(super) fn overflow() -> Stop {
        Stop::fixed("ERR increment or decrement would overflow")
    }

    /// The negation of a decrement would leave 64 bits.
    pub(super) fn decrement_overflow() -> Stop {
        Stop::fixed("ERR decrement would overflow")
    }

    /// The value would be longer than one may be.
    pub(super) fn too_long() -> Stop {
        Stop::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
    }

    /// The reply would hold more than [`COMMAND_REPLY_BYTES_MAX`](crate::resp::COMMAND_REPLY_BYTES_MAX).
    pub(super) fn reply_too_large() -> Stop {
        Stop::fixed("ERR the reply is larger than 48 MiB: ask for fewer keys or fields at once")
    }

    /// The number of arguments is wrong in a way that the table cannot tell.
    pub(super) fn arity(name: &str) -> Stop {
        Stop::error(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// An integer is not between these.
    pub(super) fn not_between(min: i64, max: i64) -> Stop {
        Stop::error(format!("ERR value is out of range, value must between {min} and {max}"))
    }

    /// The expiry is not positive or too far away.
    pub(super) fn invalid_expire(name: &str) -> Stop {
        Stop::error(format!("ERR invalid expire time in '{name}' command"))
    }
}

/// What one command may still read of the values that it works out its result from.
#[derive(Debug)]
pub(super) struct ReadBudget {
    name: &'static str,
    max: usize,
    left: usize,
}

impl ReadBudget {
    /// All of it, for the command of this name.
    pub(super) fn new(name: &'static str) -> ReadBudget {
        ReadBudget::of(name, READ_BYTES_MAX)
    }

    /// So many bytes, for the command of this name.
    pub(super) fn of(name: &'static str, max: usize) -> ReadBudget {
        ReadBudget { name, max, left: max }
    }

    /// Counts a value that was read.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Stop> {
        let spent = || {
            let (name, max) = (self.name, self.max);
            Stop::error(format!("ERR '{name}' may read {max} bytes: give it fewer or smaller keys"))
        };
        // Each key costs something, however little it holds.
        let bytes = bytes + ROW_OVERHEAD_BYTES;
        self.left = self.left.checked_sub(bytes).ok_or_else(spent)?;
        Ok(())
    }
}

/// An integer argument.
pub(super) fn integer(arg: &[u8]) -> Result<i64, Stop> {
    parse_integer(arg).ok_or_else(Stop::not_an_integer)
}

/// Whether an option is this word, in upper or lower case.
pub(super) fn is(option: &[u8], word: &str) -> bool {
    option.eq_ignore_ascii_case(word.as_bytes())
}
