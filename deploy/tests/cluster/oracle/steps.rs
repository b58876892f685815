//! Steps as data: `oracle/*.steps`, one file for each family of commands.
//!
//! ```text
//! # A comment.
//! ## CLIENT|SETNAME            opens the section of a command or subcommand
//! SET k "a\r\n\x00"            a step: words as redis-cli reads them; replies must be the same
//! ~ SMEMBERS s                 the same elements in any order, also of what is nested
//! ~2 HGETALL h                 the same pairs in any order
//! ? SRANDMEMBER s              of the same shape: types, numbers of elements, errors
//! ?20000 PTTL k                integers at most so far from each other
//! = ZSCORE z m                 the same floats, however they are written
//! !help OBJECT HELP            replies differ, for the reason that node/README.md lists by this key
//! !help:3 OBJECT HELP          they differ in RESP3 only
//! !config ~2 CONFIG GET *      they differ in whatever order
//! !version ? HELLO             they differ, and are of the same shape; `=`: and are the same floats
//! @b SET k v                   on a second connection (any letter)
//! - CLIENT REPLY SKIP          no reply comes
//! ```
//!
//! Marks may be combined: `@b !key ~ KEYS *`. Every section begins without keys and with new connections.

use std::path::Path;

/// How replies are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Byte by byte.
    Exact,
    /// Elements in any order.
    AnyOrder,
    /// Pairs of elements in any order.
    Pairs,
    /// Types and numbers of elements only, but errors byte by byte.
    Shape,
    /// Floats are the same however they are written, all else byte by byte.
    Floats,
    /// Integers at most so far from each other.
    Near(i64),
}

/// A difference that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What node/README.md lists it by.
    pub key: String,
    /// In which protocol, if not in both.
    pub protocol: Option<u8>,
}

/// One command and what is expected of its reply.
#[derive(Debug, Clone)]
pub struct Step {
    /// Line of the file.
    pub line: usize,
    /// The line itself.
    pub text: String,
    /// Name and arguments.
    pub words: Vec<Vec<u8>>,
    /// Which connection sends it.
    pub connection: char,
    /// How replies are compared.
    pub how: How,
    /// Whether a reply comes.
    pub answered: bool,
    /// Why replies differ, if they do.
    pub differs: Option<Known>,
}

/// The steps of one command.
#[derive(Debug)]
pub struct Section {
    /// `command` or `command|subcommand`, in lower case.
    pub command: String,
    /// In their order.
    pub steps: Vec<Step>,
}

impl Section {
    /// Steps that are this command, not what surrounds it.
    pub fn own(&self) -> usize {
        let (name, sub) = self.command.split_once('|').unwrap_or((&self.command, ""));
        let is = |step: &&Step| {
            let word = |at: usize| step.words.get(at).map_or(&[][..], Vec::as_slice);
            word(0).eq_ignore_ascii_case(name.as_bytes())
                && (sub.is_empty() || word(1).eq_ignore_ascii_case(sub.as_bytes()))
        };
        self.steps.iter().filter(is).count()
    }
}

/// One file.
#[derive(Debug)]
pub struct File {
    /// Its name, without `.steps`.
    pub family: String,
    /// Its sections.
    pub sections: Vec<Section>,
}

/// Reads all files, by name. Tests run in their crate's directory.
pub fn read_all() -> Vec<File> {
    let dir = Path::new("tests/cluster/oracle");
    let entries = std::fs::read_dir(dir).expect("the directory of the steps");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "steps"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let family = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("a readable file of steps");
        let sections = parse(&text).unwrap_or_else(|why| panic!("{}:{why}", path.display()));
        File { family, sections }
    };
    paths.iter().map(read).collect()
}

/// The sections of a text; the error begins with the number of the line.
fn parse(text: &str) -> Result<Vec<Section>, String> {
    let mut sections: Vec<Section> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        let text = text.trim_end();
        if let Some(name) = text.strip_prefix("## ") {
            let command = name.trim().to_ascii_lowercase();
            sections.push(Section { command, steps: Vec::new() });
        } else if !text.is_empty() && !text.starts_with('#') {
            let section =
                sections.last_mut().ok_or(format!("{line}: a step before any section"))?;
            let step = Step::parse(line, text).map_err(|why| format!("{line}: {why}"))?;
            section.steps.push(step);
        }
    }
    Ok(sections)
}

impl Step {
    fn parse(line: usize, text: &str) -> Result<Step, String> {
        let mut step = Step {
            line,
            text: text.to_owned(),
            words: Vec::new(),
            connection: 'a',
            how: How::Exact,
            answered: true,
            differs: None,
        };
        let mut rest = text;
        while rest.starts_with(['~', '?', '=', '!', '@', '-']) {
            let (mark, command) = rest.split_once(' ').ok_or("a mark without a command")?;
            step.mark(mark).ok_or_else(|| format!("no such mark: {mark}"))?;
            rest = command.trim_start();
        }
        step.words = words(rest).ok_or("quotes that do not close, or what they hold is wrong")?;
        if step.words.is_empty() { Err("no command".to_owned()) } else { Ok(step) }
    }

    fn mark(&mut self, mark: &str) -> Option<()> {
        let (kind, value) = mark.split_at(1);
        match (kind, value) {
            ("~", "") => self.how = How::AnyOrder,
            ("~", "2") => self.how = How::Pairs,
            ("=", "") => self.how = How::Floats,
            ("?", "") => self.how = How::Shape,
            ("?", far) => self.how = How::Near(far.parse().ok()?),
            ("-", "") => self.answered = false,
            ("@", name) if name.len() == 1 => self.connection = name.chars().next()?,
            ("!", key) => {
                let (key, protocol) = match key.split_once(':') {
                    None => (key, None),
                    Some((key, protocol @ ("2" | "3"))) => (key, protocol.parse().ok()),
                    Some(_) => return None,
                };
                let named = !key.is_empty();
                self.differs = named.then(|| Known { key: key.to_owned(), protocol });
                self.differs.as_ref()?;
            }
            _ => return None,
        }
        Some(())
    }
}

/// Words between blanks; in double quotes anything, with `\xNN`, `\r`, `\n`, `\t`, `\"` and `\\`.
fn words(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        rest = rest.trim_ascii_start();
        match rest {
            [] => return Some(words),
            [b'"', quoted @ ..] => {
                let (word, behind) = quoted_word(quoted)?;
                words.push(word);
                rest = behind;
                if rest.first().is_some_and(|byte| *byte != b' ') {
                    return None;
                }
            }
            bare => {
                let end = bare.iter().position(|byte| *byte == b' ').unwrap_or(bare.len());
                let (word, behind) = bare.split_at(end);
                words.push(word.to_vec());
                rest = behind;
            }
        }
    }
}

/// A word up to its closing quote, and what stands behind that.
fn quoted_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        let (byte, behind) = match rest {
            [b'"', behind @ ..] => return Some((word, behind)),
            [b'\\', b'x', high, low, behind @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let byte = digit(*high)? * 16 + digit(*low)?;
                (u8::try_from(byte).ok()?, behind)
            }
            [b'\\', b'r', behind @ ..] => (b'\r', behind),
            [b'\\', b'n', behind @ ..] => (b'\n', behind),
            [b'\\', b't', behind @ ..] => (b'\t', behind),
            [b'\\', byte @ (b'"' | b'\\'), behind @ ..] => (*byte, behind),
            [] | [b'\\', ..] => return None,
            [byte, behind @ ..] => (*byte, behind),
        };
        word.push(byte);
        rest = behind;
    }
}

#[test]
fn steps_are_read() {
    let text =
        "# x\n## CLIENT|SETNAME\n@b ~2 !why:3 SET k \"a \\x00\\r\\n\\\"\"\n\n?20 PTTL k\n- GET k\n";
    let sections = parse(text).unwrap();
    let [section] = &sections[..] else { panic!("{sections:?}") };
    let [set, pttl, get] = &section.steps[..] else { panic!("{section:?}") };
    assert_eq!((section.command.as_str(), section.own()), ("client|setname", 0));
    assert_eq!(set.words, [&b"SET"[..], b"k", b"a \0\r\n\""]);
    assert_eq!((set.line, set.connection, set.how), (3, 'b', How::Pairs));
    assert_eq!(set.differs, Some(Known { key: "why".into(), protocol: Some(3) }));
    assert_eq!((pttl.how, pttl.answered, get.answered), (How::Near(20), true, false));
    for wrong in
        ["GET k", "## X\nGET \"k", "## X\nGET \"\\q\"", "## X\n! GET", "## X\n?x GET", "## X\n~"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
