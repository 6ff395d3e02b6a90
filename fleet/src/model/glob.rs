//! Shell patterns on unit names, as `Conflicts=` and `Replaces=` use them.
//!
//! Knows `*` (not across `/`), `?`, `[a-z]`, `[^a]` and `\`; a pattern must match the whole name and a
//! malformed one matches nothing. Invariant: matching takes at most pattern length times name length
//! steps, whatever the pattern.

/// Whether the pattern has no special character, so that it matches exactly itself.
#[must_use]
pub fn is_literal(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '[', '\\'])
}

/// Whether `pattern` matches the whole of `name`.
///
/// ```
/// use fleet::model::glob::glob_matches;
///
/// assert!(glob_matches("mongo@*.service", "mongo@1.service"));
/// assert!(glob_matches("web[0-9].service", "web7.service"));
/// assert!(!glob_matches("mongo@*.service", "mongo.service"));
/// assert!(!glob_matches("web[", "web["), "a malformed pattern matches nothing");
/// ```
#[must_use]
pub fn glob_matches(pattern: &str, name: &str) -> bool {
    if is_literal(pattern) {
        return pattern == name;
    }
    let Some(tokens) = parse_pattern(pattern) else { return false };
    let name: Vec<char> = name.chars().collect();
    // One place to go back to, the last star, and no recursion: an earlier star never has to give way, so
    // the time is bounded by the product of the two lengths. Recursion over `*a*a*a*b` takes time without
    // bounds, and patterns come from users.
    let (mut token, mut at, mut retry) = (0, 0, None);
    while at < name.len() || token < tokens.len() {
        match tokens.get(token) {
            Some(GlobToken::Star) => {
                retry = Some((token, at + 1));
                token += 1;
            }
            Some(one) if at < name.len() && one.accepts_character(name[at]) => {
                token += 1;
                at += 1;
            }
            _ => match retry {
                Some((star, next)) if next <= name.len() && name[next - 1] != '/' => {
                    retry = Some((star, next + 1));
                    token = star + 1;
                    at = next;
                }
                _ => return false,
            },
        }
    }
    true
}

enum GlobToken {
    Star,
    Any,
    One(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl GlobToken {
    fn accepts_character(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            // As Go's path.Match, which the original used. Names of units hold no slash, so this only keeps
            // its letter.
            Self::Any => c != '/',
            Self::One(expected) => *expected == c,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

fn parse_pattern(pattern: &str) -> Option<Vec<GlobToken>> {
    let mut chars = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => GlobToken::Star,
            '?' => GlobToken::Any,
            '\\' => GlobToken::One(chars.next()?),
            '[' => parse_class(&mut chars)?,
            c => GlobToken::One(c),
        });
    }
    Some(tokens)
}

fn parse_class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<GlobToken> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(GlobToken::Class { negated, ranges });
        }
        let low = parse_bound(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { parse_bound(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn parse_bound(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '\\' => chars.next(),
        '-' | ']' => None,
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("mongo@*.service", "mongo@1.service", true),
            ("mongo@*.service", "mongo.service", false),
            ("*", "a.service", true),
            ("*.service", "a.service.x", false),
            ("a?c", "abc", true),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "ace", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a[", "a[", false),
            ("a[]b]", "a]b", false),
            ("a*b*c", "aXbYbZc", true),
            ("*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("**", "", true),
            ("a*", "a/b", false),
        ] {
            assert_eq!(glob_matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
