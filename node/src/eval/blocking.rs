//! What commands that wait have beyond those that do not: a timeout, and what they wait for.
//!
//! Evaluated they never wait: what is there is popped, or a null says that there is nothing. Waiting is
//! the router's, which then asks again for the one key that has come.

use super::args::Stop;
use super::long_double::LongDouble;
use crate::command::{Command, Id};
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;
use std::time::Duration;

/// How long a command may wait, in milliseconds; 0: without end.
pub(super) fn timeout(arg: &[u8]) -> Result<u64, Stop> {
    let error = |line: &str| Stop::error(line.to_owned());
    let seconds = LongDouble::parse(arg);
    let seconds = seconds.ok_or_else(|| error("ERR timeout is not a float or out of range"))?;
    // What 64 bits do not hold is negative in Redis.
    let ms = seconds.thousandfold().and_then(|ms| u64::try_from(ms).ok());
    ms.ok_or_else(|| error("ERR timeout is negative"))
}

/// The keys of BLPOP and its kind, with the timeout behind them.
pub(super) fn keys_before_timeout(args: &[Bytes]) -> Result<&[Bytes], Stop> {
    let (max_wait, names) = args.split_last().ok_or_else(Stop::syntax)?;
    timeout(max_wait)?;
    Ok(names)
}

/// What a blocking command waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// One of these keys must be there, each named once, in the order of the command.
    pub keys: Vec<Bytes>,
    /// And be of this type.
    pub ty: Type,
    /// For so long; none: without end.
    pub timeout: Option<Duration>,
}

impl Awaited {
    /// That of a blocking command. The error is its answer.
    pub fn of(command: &Command) -> Result<Awaited, Reply> {
        let args = &command.args;
        let (ty, max_wait) = match command.spec.id {
            Id::BlPop | Id::BrPop | Id::BlMove | Id::BrpopLpush => (Type::List, args.last()),
            Id::BlmPop => (Type::List, args.get(1)),
            Id::BzPopMin | Id::BzPopMax => (Type::SortedSet, args.last()),
            Id::BzmPop => (Type::SortedSet, args.get(1)),
            _ => {
                let line = format!("ERR '{}' does not wait", command.spec.name);
                return Err(Reply::error(line));
            }
        };
        let ms = match timeout(max_wait.map_or(&[], |arg| arg)) {
            Ok(ms) => ms,
            Err(Stop::Reply(reply)) => return Err(reply),
            Err(Stop::Io(error)) => return Err(Reply::error(format!("ERR {error}"))),
        };
        // A move waits for its source only.
        let count = if Awaited::has_target(command) { 1 } else { usize::MAX };
        let mut keys: Vec<Bytes> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for key in command.keys().take(count).filter(|key| seen.insert(*key)) {
            keys.push(key.clone());
        }
        Ok(Awaited { keys, ty, timeout: (ms > 0).then(|| Duration::from_millis(ms)) })
    }

    /// The same command on this one of its keys alone: others may be of another type by now, which must
    /// not disturb who waits.
    pub fn narrowed(command: &Command, key: &Bytes) -> Command {
        let args = &command.args;
        let name = args[0].clone();
        let args = match command.spec.id {
            Id::BlmPop | Id::BzmPop => {
                let options = 3 + command.keys().count();
                let head = [name, args[1].clone(), Bytes::from_static(b"1"), key.clone()];
                let options = args.get(options..).unwrap_or_default();
                head.into_iter().chain(options.iter().cloned()).collect()
            }
            _ if Awaited::has_target(command) => args.clone(),
            _ => [name, key.clone()].into_iter().chain(args.last().cloned()).collect(),
        };
        Command { spec: command.spec, args }
    }

    /// Whether a blocking command has a second key, which it pushes to.
    pub fn has_target(command: &Command) -> bool {
        matches!(command.spec.id, Id::BlMove | Id::BrpopLpush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        let words = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes()));
        Command::parse(words.collect()).unwrap()
    }

    /// What `redis-server` 7.0.15 takes on x86-64.
    #[test]
    fn timeouts_are_read_as_by_redis() {
        let ms = |text: &str| match timeout(text.as_bytes()) {
            Ok(ms) => ms.to_string(),
            Err(Stop::Reply(Reply::Error(line))) => String::from_utf8_lossy(&line).into_owned(),
            Err(other) => panic!("{other:?}"),
        };
        for (text, want) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0001", "0"),
            ("-0.001", "0"), // a thousand times this float is a little above -1
            ("0.0001", "1"),
            ("0.001", "1"),
            ("0.0011", "2"),
            ("1.5", "1500"),
            ("0x1", "1000"),
            ("1e-4000", "1"),
            ("9223372036854775", "9223372036854775000"),
        ] {
            assert_eq!(ms(text), want, "{text}");
        }
        for text in ["-1", "-0.0011", "inf", "-inf", "1e17", "1e400", "9223372036854776"] {
            assert_eq!(ms(text), "ERR timeout is negative", "{text}");
        }
        for text in ["", "x", "nan", " 1", "1 ", "1e5000"] {
            assert_eq!(ms(text), "ERR timeout is not a float or out of range", "{text}");
        }
    }

    #[test]
    fn a_command_tells_what_it_waits_for_and_can_be_asked_of_one_key() {
        for (line, keys, ty, ms, of_b) in [
            ("BLPOP a b a 0", "a b", Type::List, 0, "BLPOP b 0"),
            ("BRPOP a 1.5", "a", Type::List, 1500, "BRPOP b 1.5"),
            ("BLMPOP 2 2 a b LEFT COUNT 3", "a b", Type::List, 2000, "BLMPOP 2 1 b LEFT COUNT 3"),
            ("BLMOVE a b LEFT RIGHT 1", "a", Type::List, 1000, "BLMOVE a b LEFT RIGHT 1"),
            ("BRPOPLPUSH a b 0.1", "a", Type::List, 100, "BRPOPLPUSH a b 0.1"),
            ("BZPOPMIN a b 0", "a b", Type::SortedSet, 0, "BZPOPMIN b 0"),
            ("BZPOPMAX a 0", "a", Type::SortedSet, 0, "BZPOPMAX b 0"),
            ("BZMPOP 0 2 a b MIN", "a b", Type::SortedSet, 0, "BZMPOP 0 1 b MIN"),
        ] {
            let asked = command(line);
            let awaited = Awaited::of(&asked).unwrap();
            assert_eq!(awaited.keys, command(&format!("DEL {keys}")).args[1..], "{line}");
            assert_eq!(awaited.ty, ty, "{line}");
            let wanted = (ms > 0).then(|| Duration::from_millis(ms));
            assert_eq!(awaited.timeout, wanted, "{line}");
            let narrowed = Awaited::narrowed(&asked, &Bytes::from_static(b"b"));
            assert_eq!(narrowed, command(of_b), "{line}");
        }
        assert!(Awaited::of(&command("BLPOP a -1")).is_err());
        assert!(Awaited::of(&command("LPOP a")).is_err());
    }
}
