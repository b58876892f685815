//! Inline commands: a line of words, as people type them into telnet.
//!
//! Quoting is that of Redis: `"..."` knows \n \r \t \b \a \xHH and \ before any other byte;
//! `'...'` knows only \'. A closing quote must be followed by white space or the end.

use bytes::Bytes;

/// Splits a line without its line break. `None`: the quotes are not balanced.
pub(super) fn split(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // Redis works on C strings here: a NUL ends the line.
        if rest.first().is_none_or(|&byte| byte == 0) {
            return Some(words);
        }
        let (word, after) = take_word(rest)?;
        words.push(Bytes::from(word));
        rest = after;
    }
}

fn take_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' | 0 => break,
            b'"' => return quoted(word, after),
            b'\'' => return single_quoted(word, after),
            _ => word.push(byte),
        }
        rest = after;
    }
    Some((word, rest))
}

fn quoted(mut word: Vec<u8>, mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    loop {
        match *rest {
            [b'\\', b'x', high, low, ref after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(high) << 4 | hex(low));
                rest = after;
            }
            [b'\\', escaped, ref after @ ..] => {
                word.push(unescape(escaped));
                rest = after;
            }
            [b'"', ref after @ ..] => return closed(after).then_some((word, after)),
            [byte, ref after @ ..] if byte != 0 => {
                word.push(byte);
                rest = after;
            }
            _ => return None,
        }
    }
}

fn single_quoted(mut word: Vec<u8>, mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    loop {
        match *rest {
            [b'\\', b'\'', ref after @ ..] => {
                word.push(b'\'');
                rest = after;
            }
            [b'\'', ref after @ ..] => return closed(after).then_some((word, after)),
            [byte, ref after @ ..] if byte != 0 => {
                word.push(byte);
                rest = after;
            }
            _ => return None,
        }
    }
}

fn closed(after: &[u8]) -> bool {
    after.first().is_none_or(|&b| b == 0 || b.is_ascii_whitespace() || b == 0x0B)
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
        split(line).map(|words| words.iter().map(|word| word.to_vec()).collect())
    }

    #[test]
    fn quotes_as_redis() {
        assert_eq!(words(b""), Some(vec![]));
        assert_eq!(words(b"  \t "), Some(vec![]));
        assert_eq!(words(b"SET  k v "), Some(vec![b"SET".into(), b"k".into(), b"v".into()]));
        assert_eq!(words(br#""a\x41\n\"\q" 'b\'\n'"#), {
            Some(vec![b"aA\n\"q".to_vec(), b"b'\\n".to_vec()])
        });
        assert_eq!(words(br#"a"b c""#), Some(vec![b"ab c".to_vec()]));
        assert_eq!(words(br#""" x"#), Some(vec![vec![], b"x".to_vec()]));
        assert_eq!(words(br#""\xZZ""#), Some(vec![b"xZZ".to_vec()]));
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [&b"\"a"[..], b"'a", b"\"a\"b", b"'a'b", b"\"a\\", b"\"a\\\"", b"x\"\0\""] {
            assert_eq!(words(line), None, "{line:?}");
        }
    }
}
