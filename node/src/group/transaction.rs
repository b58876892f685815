//! Transactions on their way to a group's leader: watched keys, conditions, commands; as TXN's
//! arguments and as RPC kind 23.
//!
//! A transaction is one entry of its group's log: all of it or nothing. All its keys are the
//! group's; whoever makes one sees to that.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::command::{Command, CommandError, Place};
use crate::eval::{Comparison, Condition};
use crate::resp::Reply;
use bytes::Bytes;
use flotilla_topology::ids::GroupId;

const VERSION: u8 = 1;
/// Commands of a transaction.
pub const TRANSACTION_COMMANDS_MAX: usize = 8192;
/// Bytes of its commands, about.
pub const TRANSACTION_BYTES_MAX: usize = 16 << 20;
/// Keys that a connection watches at a time.
pub const WATCHES_MAX: usize = 1024;
/// Conditions of a TXN.
pub const CONDITIONS_MAX: usize = 1024;
/// Bytes of a watched key or a condition's value on the wire: more than any client may send.
const WORD_BYTES_MAX: usize = TRANSACTION_BYTES_MAX;

/// Since when a key is watched, as the leader of that time says it. It means something to that
/// leader's run only: to every other one the key counts as changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// The term that the leader evaluated in.
    pub term: u64,
    /// Its run.
    pub run: u64,
    /// The changes of watched keys that the run had seen.
    pub change: u64,
    /// When the key ends, in milliseconds since 1970; 0 if it does not exist or does not end.
    pub end_ms: u64,
}

/// A watched key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The group whose leader watches it.
    pub group: GroupId,
    /// It.
    pub key: Bytes,
    /// Since when.
    pub since: Since,
}

/// Commands that are carried out as one, and what must hold for that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// Keys that must not have been changed since they are watched; else nothing is carried out and
    /// the answer is a null array.
    pub watches: Vec<Watch>,
    /// If there are any, the answer is which list was carried out, and its replies: 1 and `then` if
    /// all are met, 0 and `otherwise` if not.
    pub conditions: Vec<Condition>,
    /// What is carried out if all conditions are met.
    pub then: Vec<Command>,
    /// What is carried out if one is not.
    pub otherwise: Vec<Command>,
}

/// What a group's leader is asked beside plain commands. It answers with one outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Watch these keys: answered by [`told`].
    Watch(Vec<Bytes>),
    /// Carry this out.
    Transact(Transaction),
}

/// An ask for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskRequest {
    /// The group that owns the slots of all keys.
    pub group: GroupId,
    /// What is asked.
    pub ask: Ask,
}

/// Why a command cannot be part of a transaction, whatever its keys.
pub fn refusal(command: &Command) -> Option<Reply> {
    let name = command.spec.name;
    let remedy = match command.spec.place {
        Place::Group => return None,
        Place::Connection => "works on the connection, not on keys: call it outside",
        Place::EveryGroup => "works on every group of the namespace: call it outside",
        Place::Transaction => "is a transaction or controls one: they do not nest",
    };
    let line = format!("ERR '{name}' cannot be part of a transaction: it {remedy}");
    Some(Reply::error(line))
}

/// Whether so many commands with so many bytes are too much.
pub fn too_large(commands: usize, bytes: usize) -> Option<Reply> {
    let fits = commands <= TRANSACTION_COMMANDS_MAX && bytes <= TRANSACTION_BYTES_MAX;
    (!fits).then(|| {
        let line = format!(
            "ERR a transaction may hold {TRANSACTION_COMMANDS_MAX} commands and \
             {TRANSACTION_BYTES_MAX} bytes: use several"
        );
        Reply::error(line)
    })
}

impl Transaction {
    /// Both lists.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.then.iter().chain(&self.otherwise)
    }

    /// All keys that it names.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let watched = self.watches.iter().map(|watch| &watch.key);
        let conditions = self.conditions.iter().map(|condition| &condition.key);
        watched.chain(conditions).chain(self.commands().flat_map(Command::keys))
    }

    /// Reads TXN's arguments. The error is the answer.
    pub fn parse(args: &[Bytes]) -> Result<Transaction, Reply> {
        let mut words = Words(&args[1..]);
        let mut transaction = Transaction::default();
        while words.take_word("IF") {
            transaction.conditions.push(words.condition()?);
        }
        let known = !transaction.conditions.is_empty() && words.take_word("THEN");
        if !known || transaction.conditions.len() > CONDITIONS_MAX {
            return Err(syntax());
        }
        transaction.then = words.commands()?;
        if words.take_word("ELSE") {
            transaction.otherwise = words.commands()?;
        }
        if !words.0.is_empty() {
            return Err(syntax());
        }
        let bytes = transaction.commands().map(Command::size).sum();
        match too_large(transaction.commands().count(), bytes) {
            Some(reply) => Err(reply),
            None => Ok(transaction),
        }
    }
}

fn syntax() -> Reply {
    Reply::error(
        "ERR syntax error: TXN IF key EXISTS|NOTEXISTS|<EQ|NE|GT|GE|LT|LE value> [IF ...] \
         THEN [n command ...] [ELSE [n command ...]]",
    )
}

/// TXN's arguments, from the next on.
struct Words<'a>(&'a [Bytes]);

impl Words<'_> {
    fn next(&mut self) -> Result<Bytes, Reply> {
        let (first, rest) = self.0.split_first().ok_or_else(syntax)?;
        self.0 = rest;
        Ok(first.clone())
    }

    /// Takes the next argument if it is this word.
    fn take_word(&mut self, word: &str) -> bool {
        let found = self.0.first().is_some_and(|next| next.eq_ignore_ascii_case(word.as_bytes()));
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn condition(&mut self) -> Result<Condition, Reply> {
        let key = self.next()?;
        let comparison = Comparison::of(&self.next()?).ok_or_else(syntax)?;
        let value = if comparison.takes_value() { self.next()? } else { Bytes::new() };
        Ok(Condition { key, comparison, value })
    }

    /// Commands, each behind the number of its words.
    fn commands(&mut self) -> Result<Vec<Command>, Reply> {
        let mut commands = Vec::new();
        while let Some(count) = self.0.first().and_then(|word| number(word)) {
            self.0 = &self.0[1..];
            if count == 0 || count > self.0.len() {
                return Err(syntax());
            }
            let (args, rest) = self.0.split_at(count);
            self.0 = rest;
            let command = Command::parse(args.to_vec()).map_err(|e: CommandError| e.reply())?;
            if let Some(reply) = refusal(&command) {
                return Err(reply);
            }
            commands.push(command);
        }
        Ok(commands)
    }
}

fn number(word: &[u8]) -> Option<usize> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// The answer to [`Ask::Watch`]: where the leader stands, and when each key ends.
pub fn told(since: Since, ends_ms: impl IntoIterator<Item = u64>) -> Reply {
    let head = [since.term, since.run, since.change].into_iter();
    Reply::Array(head.chain(ends_ms).map(|number| Reply::Int(number as i64)).collect())
}

/// What [`told`] says of the keys that were asked for; none if it is no such answer.
pub fn watched(group: GroupId, keys: Vec<Bytes>, reply: &Reply) -> Option<Vec<Watch>> {
    let Reply::Array(numbers) = reply else { return None };
    let number = |reply: &Reply| if let Reply::Int(n) = reply { Some(*n as u64) } else { None };
    let numbers: Vec<u64> = numbers.iter().map(number).collect::<Option<_>>()?;
    let [term, run, change, ends @ ..] = &numbers[..] else { return None };
    let (term, run, change) = (*term, *run, *change);
    let since = |end_ms: &u64| Since { term, run, change, end_ms: *end_ms };
    let watch = |(key, end_ms)| Watch { group, key, since: since(end_ms) };
    (ends.len() == keys.len()).then(|| keys.into_iter().zip(ends).map(watch).collect())
}

const WATCH: u8 = 0;
const TRANSACT: u8 = 1;

impl AskRequest {
    /// The payload of an RPC of kind 23. The answer is that of an exec with one command.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(VERSION);
        out.put_group(self.group);
        match &self.ask {
            Ask::Watch(keys) => {
                out.put_u8(WATCH);
                out.put_varint(keys.len() as u64);
                keys.iter().for_each(|key| out.put_bytes(key));
            }
            Ask::Transact(transaction) => {
                out.put_u8(TRANSACT);
                put_transaction(&mut out, transaction);
            }
        }
        out.into_bytes()
    }

    /// Reads it.
    pub fn decode(payload: &Bytes) -> Result<AskRequest, DecodeError> {
        let mut input = Decoder::shared(payload);
        input.version(VERSION)?;
        let group = input.group()?;
        let unknown = input.error("keys to watch (0) or a transaction (1)");
        let ask = match input.u8()? {
            WATCH => {
                let count = input.count(WATCHES_MAX, 1)?;
                Ask::Watch(
                    (0..count).map(|_| input.bytes(WORD_BYTES_MAX)).collect::<Result<_, _>>()?,
                )
            }
            TRANSACT => Ask::Transact(take_transaction(&mut input, group)?),
            _ => return Err(unknown),
        };
        input.finish()?;
        Ok(AskRequest { group, ask })
    }
}

fn put_transaction(out: &mut Encoder, transaction: &Transaction) {
    out.put_varint(transaction.watches.len() as u64);
    for Watch { key, since, .. } in &transaction.watches {
        out.put_bytes(key);
        for number in [since.term, since.run, since.change, since.end_ms] {
            out.put_varint(number);
        }
    }
    out.put_varint(transaction.conditions.len() as u64);
    for Condition { key, comparison, value } in &transaction.conditions {
        out.put_bytes(key);
        out.put_u8(*comparison as u8);
        out.put_bytes(value);
    }
    for commands in [&transaction.then, &transaction.otherwise] {
        out.put_varint(commands.len() as u64);
        commands.iter().for_each(|command| command.to_wire(out));
    }
}

fn take_transaction(input: &mut Decoder<'_>, group: GroupId) -> Result<Transaction, DecodeError> {
    let mut transaction = Transaction::default();
    for _ in 0..input.count(WATCHES_MAX, 5)? {
        let key = input.bytes(WORD_BYTES_MAX)?;
        let (term, run) = (input.varint()?, input.varint()?);
        let since = Since { term, run, change: input.varint()?, end_ms: input.varint()? };
        transaction.watches.push(Watch { group, key, since });
    }
    for _ in 0..input.count(CONDITIONS_MAX, 3)? {
        let key = input.bytes(WORD_BYTES_MAX)?;
        let unknown = input.error("a comparison (0 to 7)");
        let (_, comparison) = *Comparison::ALL.get(usize::from(input.u8()?)).ok_or(unknown)?;
        transaction.conditions.push(Condition {
            key,
            comparison,
            value: input.bytes(WORD_BYTES_MAX)?,
        });
    }
    transaction.then = take_commands(input)?;
    transaction.otherwise = take_commands(input)?;
    Ok(transaction)
}

fn take_commands(input: &mut Decoder<'_>) -> Result<Vec<Command>, DecodeError> {
    let count = input.count(TRANSACTION_COMMANDS_MAX, 2)?;
    let mut commands = Vec::with_capacity(count);
    for _ in 0..count {
        let refused = input.error("a command that can be part of a transaction");
        let command = Command::from_wire(input)?;
        if refusal(&command).is_some() {
            return Err(refused);
        }
        commands.push(command);
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Transaction, String> {
        let words: Vec<Bytes> =
            line.split(' ').map(|w| Bytes::copy_from_slice(w.as_bytes())).collect();
        Transaction::parse(&words).map_err(|reply| match reply {
            Reply::Error(line) => String::from_utf8_lossy(&line).into_owned(),
            other => panic!("not an error: {other:?}"),
        })
    }

    #[test]
    fn txn_takes_conditions_and_two_lists_of_commands() {
        let line = "TXN IF a EQ THEN if b notexists THEN 3 SET a ELSE 2 GET b ELSE 2 DEL IF";
        let transaction = parse(line).unwrap();
        let keys: Vec<&[u8]> = transaction.keys().map(|key| &key[..]).collect();
        assert_eq!(keys, [&b"a"[..], b"b", b"a", b"b", b"IF"], "{transaction:?}");
        let [first, second] = &transaction.conditions[..] else { panic!("two") };
        assert_eq!((first.comparison, &first.value[..]), (Comparison::Eq, &b"THEN"[..]));
        assert_eq!((second.comparison, &second.value[..]), (Comparison::NotExists, &b""[..]));
        assert_eq!((transaction.then.len(), transaction.otherwise.len()), (2, 1));
        assert_eq!(&transaction.then[0].args[2][..], b"ELSE");
        for (word, comparison) in Comparison::ALL {
            let value = if comparison.takes_value() { " v" } else { "" };
            let found = parse(&format!("TXN IF k {word}{value} THEN")).unwrap();
            assert_eq!(found.conditions[0].comparison, comparison);
            assert!(found.commands().next().is_none());
        }
    }

    #[test]
    fn what_cannot_be_a_transaction_is_told() {
        for line in [
            "TXN",
            "TXN THEN 2 GET a",
            "TXN IF a",
            "TXN IF a IS b THEN",
            "TXN IF a EXISTS",
            "TXN IF a EXISTS THEN 3 GET a",
            "TXN IF a EXISTS THEN 0",
            "TXN IF a EXISTS THEN GET a",
            "TXN IF a EXISTS THEN 2 GET a ELSE ELSE",
            "TXN IF a EXISTS THEN -1 GET a",
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.starts_with("ERR syntax error: TXN IF"), "{line}: {error}");
        }
        let error =
            |commands: &str| parse(&format!("TXN IF a EXISTS THEN {commands}")).unwrap_err();
        assert_eq!(error("1 GET"), "ERR wrong number of arguments for 'get' command");
        assert_eq!(error("1 FOO"), "ERR unknown command 'FOO', with args beginning with: ");
        for (command, why) in
            [("2 SELECT x", "connection"), ("1 DBSIZE", "every"), ("1 EXEC", "nest")]
        {
            let error = error(command);
            assert!(error.contains("cannot be part of a transaction") && error.contains(why));
        }
        let many = "2 GET a ".repeat(TRANSACTION_COMMANDS_MAX);
        assert!(parse(&format!("TXN IF a EXISTS THEN {}", many.trim_end())).is_ok());
        assert!(error(&format!("{many}2 GET a")).contains("may hold 8192 commands"));
    }

    #[test]
    fn what_a_leader_told_of_watched_keys_is_read_back() {
        let since = Since { term: 3, run: u64::MAX, change: 7, end_ms: 0 };
        let keys = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        let reply = told(since, [0, 90]);
        let watches = watched(GroupId(4), keys.clone(), &reply).unwrap();
        assert_eq!(watches[0], Watch { group: GroupId(4), key: keys[0].clone(), since });
        assert_eq!(watches[1].since, Since { end_ms: 90, ..since });
        assert_eq!(watched(GroupId(4), keys.clone(), &told(since, [0])), None);
        assert_eq!(watched(GroupId(4), keys, &Reply::Ok), None);
    }
}
