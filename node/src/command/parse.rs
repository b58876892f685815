//! A request whose name and number of arguments are right, and its form between nodes.
//!
//! Wire form: the number of arguments, then each behind its length, the name first. The name and
//! not a number is what travels, so that tables of two releases cannot be mixed up.

use super::refused::refusal_of;
use super::spec::{Spec, Split};
use super::table::lookup;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::resp::Reply;
use bytes::Bytes;

/// Arguments of a forwarded command: as many as a client may send.
pub const ARGS_MAX: usize = 1_048_576;
/// How much of a client's words an error quotes, as in Redis.
const QUOTED_MAX: usize = 128;

/// A command of the table with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its line of the table.
    pub spec: &'static Spec,
    /// All arguments, the name included, as many as `spec` wants.
    pub args: Vec<Bytes>,
}

/// A request that is no command. Answer it and go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", String::from_utf8_lossy(.0))]
pub struct CommandError(Bytes);

impl CommandError {
    /// The wrong number of arguments for the command or `command|subcommand` of that name.
    pub fn arity(name: &str) -> CommandError {
        let line = format!("ERR wrong number of arguments for '{name}' command");
        CommandError(Bytes::from(line))
    }

    /// No subcommand `given` of `container`.
    pub fn subcommand(container: &str, given: &[u8]) -> CommandError {
        if let Some(refused) = refusal_of(&[container.as_bytes(), b"|", given].concat()) {
            let given = String::from_utf8_lossy(given);
            let line = format!("ERR unknown subcommand '{given}': {}", refused.why);
            return CommandError(Bytes::from(line));
        }
        let mut line = b"ERR unknown subcommand '".to_vec();
        line.extend_from_slice(quoted(given, QUOTED_MAX));
        line.extend_from_slice(b"'. Try ");
        line.extend_from_slice(container.to_ascii_uppercase().as_bytes());
        line.extend_from_slice(b" HELP.");
        CommandError(Bytes::from(line))
    }

    fn unknown(args: &[Bytes]) -> CommandError {
        let name = args.first().map_or(&[][..], |name| name);
        if let Some(refused) = refusal_of(name) {
            let name = String::from_utf8_lossy(name);
            let line = format!("ERR unknown command '{name}': {}", refused.why);
            return CommandError(Bytes::from(line));
        }
        let mut line = b"ERR unknown command '".to_vec();
        line.extend_from_slice(quoted(name, QUOTED_MAX));
        line.extend_from_slice(b"', with args beginning with: ");
        let start = line.len();
        for arg in args.iter().skip(1) {
            let room = QUOTED_MAX.saturating_sub(line.len() - start);
            if room == 0 {
                break;
            }
            line.push(b'\'');
            line.extend_from_slice(quoted(arg, room));
            line.extend_from_slice(b"' ");
        }
        CommandError(Bytes::from(line))
    }

    /// The error line to answer.
    pub fn reply(&self) -> Reply {
        Reply::Error(self.0.clone())
    }
}

/// At most `max` bytes, up to the first NUL: Redis prints them as a C string.
fn quoted(bytes: &[u8], max: usize) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    &bytes[..end.min(max)]
}

impl Command {
    /// Finds the command that a request names, and checks the number of its arguments.
    pub fn parse(args: Vec<Bytes>) -> Result<Command, CommandError> {
        let name = args.first().map_or(&[][..], |name| name);
        let Some(spec) = lookup(name) else { return Err(CommandError::unknown(&args)) };
        // Keys with values come in pairs, which an arity cannot say. Checked here, because the router
        // cuts such commands up pair by pair.
        let odd = spec.split == Split::Pairs && args.len().is_multiple_of(2);
        if odd || !spec.takes(args.len()) {
            return Err(CommandError::arity(spec.name));
        }
        Ok(Command { spec, args })
    }

    /// Bytes that this command takes up, about: what queues count.
    pub fn size(&self) -> usize {
        let args: usize = self.args.iter().map(|arg| arg.len() + size_of::<Bytes>()).sum();
        size_of::<Command>() + args
    }

    /// Appends the form between nodes.
    pub fn to_wire(&self, out: &mut Encoder) {
        out.put_varint(self.args.len() as u64);
        for arg in &self.args {
            out.put_bytes(arg);
        }
    }

    /// Reads what [`Command::to_wire`] wrote, and checks it as if a client had sent it.
    pub fn from_wire(input: &mut Decoder<'_>) -> Result<Command, DecodeError> {
        let unknown = input.error("a command that this release knows, with its arguments");
        let count = input.count(ARGS_MAX, 1)?;
        let args = (0..count).map(|_| input.bytes(usize::MAX)).collect::<Result<_, _>>()?;
        Command::parse(args).map_err(|_| unknown)
    }
}
