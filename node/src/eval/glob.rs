//! Glob patterns as Redis matches them: `*`, `?`, `[a-z]`, `[^a]`, and `\` before any of these.

/// Whether `text` matches `pattern`. Its work is bounded by the product of their lengths.
pub fn glob_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star fails: it then takes one more byte.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        let matched = match text.get(t) {
            Some(&byte) => one(&pattern[p..], byte),
            None if p == pattern.len() => return true,
            None => return false,
        };
        match matched {
            Some(len) => {
                p += len;
                t += 1;
            }
            None => match &mut retry {
                Some((star, from)) => {
                    *from += 1;
                    (p, t) = (*star, *from);
                }
                None => return false,
            },
        }
    }
}

/// Matches one byte; the length of the pattern that did.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (matched, len) = in_class(class, byte);
            matched.then_some(len + 1)
        }
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// Whether a class, given without its opening bracket, has the byte; and the class's length. One
/// without a closing bracket goes to the end, as in Redis.
fn in_class(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut matched = false;
    let len = loop {
        match &class[at..] {
            [] => break at,
            [b'\\', escaped, ..] => {
                matched |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => break at + 1,
            [a, b'-', b, ..] => {
                let (low, high) = (a.min(b), a.max(b));
                matched |= (low..=high).contains(&&byte);
                at += 3;
            }
            [literal, ..] => {
                matched |= *literal == byte;
                at += 1;
            }
        }
    };
    (matched != negated, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let yes: [(&str, &str); 16] = [
            ("*", ""),
            ("a*", "a"),
            ("a*c", "abbc"),
            ("a*b*c", "axxbyyc"),
            ("*ab", "aaab"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            ("\\*", "*"),
            ("[\\]]", "]"),
            ("[a", "a"),
            ("a\\", "a\\"),
            ("**", "xyz"),
            ("[^", "a"),
        ];
        for (pattern, text) in yes {
            assert!(glob_match(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        let no: [(&str, &str); 9] = [
            ("", "a"),
            ("a", ""),
            ("a", "A"),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("a*c", "ab"),
            ("\\*", "x"),
            ("[]", "]"),
            ("abc*d", "abc"),
        ];
        for (pattern, text) in no {
            assert!(!glob_match(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!glob_match(pattern.as_bytes(), "a".repeat(2000).as_bytes()));
    }
}
