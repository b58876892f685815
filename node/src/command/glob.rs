//! Patterns of SCAN MATCH, CONFIG GET and COMMAND LIST: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
//!
//! One star is remembered at a time: a later star makes an earlier one's choice final. So the cost
//! is at most pattern times text, whatever a client sends.

/// Whether all of `text` matches `pattern`; letters of any case are alike if `any_case`.
pub fn glob_matches(pattern: &[u8], text: &[u8], any_case: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what stands behind the last star does not match: one byte further.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        if t < text.len() && p < pattern.len() {
            let (matches, next) = one(pattern, p, text[t], any_case);
            if matches {
                (p, t) = (next, t + 1);
                continue;
            }
        }
        match retry {
            Some((star, at)) if at < text.len() => {
                retry = Some((star, at + 1));
                (p, t) = (star, at + 1);
            }
            _ => return false,
        }
    }
}

/// Whether the pattern's element at `p` matches `byte`, and where the next one begins.
fn one(pattern: &[u8], p: usize, byte: u8, any_case: bool) -> (bool, usize) {
    let fold = |b: u8| if any_case { b.to_ascii_lowercase() } else { b };
    let byte = fold(byte);
    match pattern[p] {
        b'?' => (true, p + 1),
        b'[' => class(pattern, p + 1, byte, fold),
        b'\\' if p + 1 < pattern.len() => (fold(pattern[p + 1]) == byte, p + 2),
        other => (fold(other) == byte, p + 1),
    }
}

/// A class whose bracket was read. One that is not closed ends with the pattern, as in Redis.
fn class(pattern: &[u8], mut p: usize, byte: u8, fold: impl Fn(u8) -> u8) -> (bool, usize) {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut matches = false;
    loop {
        match pattern[p.min(pattern.len())..] {
            [] => return (matches != negated, pattern.len()),
            [b'\\', escaped, ..] => {
                matches |= fold(escaped) == byte;
                p += 2;
            }
            [b']', ..] => return (matches != negated, p + 1),
            [from, b'-', to, ..] => {
                let (from, to) = (fold(from.min(to)), fold(from.max(to)));
                matches |= (from..=to).contains(&byte);
                p += 3;
            }
            [other, ..] => {
                matches |= fold(other) == byte;
                p += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::glob_matches;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        glob_matches(pattern.as_bytes(), text.as_bytes(), false)
    }

    #[test]
    fn matches_as_redis() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "abc"),
            ("a*", "a"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hbllo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            ("h\\*llo", "h*llo"),
            ("a*b*c", "a1b2b3c"),
            ("*x", "axbx"),
            ("[\\]]", "]"),
            ("[a", "a"),
            ("\\", "\\"),
            ("a**", "abc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("?", ""),
            ("h[^e]llo", "hello"),
            ("h\\*llo", "hello"),
            ("a*b*c", "a1b2b3"),
            ("[a]", "b"),
            ("A", "a"),
            ("[", ""),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert!(glob_matches(b"MAX[C-M]*", b"maxclients", true));
    }

    #[test]
    fn stars_cost_no_exponential_time() {
        let pattern = "a*".repeat(50) + "b";
        assert!(!matches(&pattern, &"a".repeat(5000)));
    }

    proptest! {
        #[test]
        fn never_panics(pattern: Vec<u8>, text: Vec<u8>) {
            let _ = glob_matches(&pattern, &text, true);
        }

        #[test]
        fn escaped_text_matches_itself(text: Vec<u8>) {
            let pattern: Vec<u8> = text.iter().flat_map(|&byte| [b'\\', byte]).collect();
            prop_assert!(glob_matches(&pattern, &text, false));
        }
    }
}
