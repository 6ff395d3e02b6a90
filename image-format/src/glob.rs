//! Patterns of the kernel's kind, as `modules.alias` has them.
//!
//! Knows `*`, `?` and `[a-f0]`, which modprobe(8) passes to fnmatch(3). Refuses an escape: a set of one character is
//! one. Invariant: matching takes at most pattern length times text length steps, whatever the pattern.

/// Whether a pattern of the kernel's kind (`*`, `?`, `[a-f0]`) fits the whole text. The last star
/// is the only one to go back to, so the time is the product of the lengths at worst.
#[must_use]
pub fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut star = None;
    while pos < text.len() {
        match match_one(&pattern[at..], text[pos]) {
            GlobStep::Fits(width) => {
                at += width;
                pos += 1;
            }
            GlobStep::Star => {
                star = Some((at + 1, pos));
                at += 1;
            }
            GlobStep::Fails => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                at = after;
                pos = from + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

enum GlobStep {
    Fails,
    Fits(usize),
    Star,
}

fn match_one(pattern: &[u8], byte: u8) -> GlobStep {
    match pattern {
        [b'*', ..] => GlobStep::Star,
        [b'?', ..] => GlobStep::Fits(1),
        [b'[', rest @ ..] => match rest.iter().position(|byte| *byte == b']') {
            Some(end) if in_set(&rest[..end], byte) => GlobStep::Fits(end + 2),
            _ => GlobStep::Fails,
        },
        [same, ..] if *same == byte => GlobStep::Fits(1),
        _ => GlobStep::Fails,
    }
}

fn in_set(mut set: &[u8], byte: u8) -> bool {
    loop {
        match set {
            [from, b'-', to, rest @ ..] => {
                if (*from..=*to).contains(&byte) {
                    return true;
                }
                set = rest;
            }
            [single, rest @ ..] => {
                if *single == byte {
                    return true;
                }
                set = rest;
            }
            [] => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_the_kernels() {
        let cases = [
            ("pci:v00001AF4d*sv*", "pci:v00001AF4d00001001sv00001AF4", true),
            ("pci:v00001AF4d*sv*", "pci:v00001AF5d00001001sv00001AF4", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("usb:v[0-9A-F]*", "usb:vA", true),
            ("x[ab-d]z", "xcz", true),
            ("x[ab-d]z", "xez", false),
            ("x[ab", "xa", false),
            ("a?c", "abc", true),
            ("", "", true),
            ("*", "", true),
            ("", "x", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob_matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
