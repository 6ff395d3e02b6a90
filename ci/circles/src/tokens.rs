//! Splits Rust source into words and signs.
//!
//! Knows where comments and literals begin and end. Refuses to know grammar. Invariant: no text of a comment, string
//! or character becomes a token, so a path that a message quotes is no import.

/// One word or sign, and the line it stands on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The words and signs of a source file. `::` is one sign, each other sign is one character.
///
/// A lexer of 80 lines and no parser crate: `syn` would bring a dozen crates into the first thing that a newcomer's
/// `ci/test` compiles, and paths are the same for any grammar around them.
pub(crate) fn split_tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (source, 1);
    while let Some(first) = rest.chars().next() {
        let length = blank_length(rest).or_else(|| literal_length(rest));
        let (length, text) = match length {
            Some(length) => (length, None),
            None => token_length(rest, first),
        };
        if let Some(text) = text {
            tokens.push(Token { text: text.to_owned(), line });
        }
        // A literal that does not end takes the rest of the file: rustc refuses such a file long before.
        let (past, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        line += past.matches('\n').count();
        rest = after;
    }
    tokens
}

/// How long the word or sign at the beginning is, and what it is without the mark of a raw identifier.
fn token_length(rest: &str, first: char) -> (usize, Option<&str>) {
    if rest.starts_with("::") {
        return (2, Some("::"));
    }
    let raw = if rest.starts_with("r#") { 2 } else { 0 };
    let word = word_length(&rest[raw..]);
    if word > 0 {
        (raw + word, Some(&rest[raw..raw + word]))
    } else {
        (first.len_utf8(), Some(&rest[..first.len_utf8()]))
    }
}

fn word_length(text: &str) -> usize {
    text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len())
}

/// How long the white space or comment at the beginning is.
fn blank_length(rest: &str) -> Option<usize> {
    if rest.starts_with(char::is_whitespace) {
        return Some(rest.len() - rest.trim_start().len());
    }
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.starts_with("/*").then(|| block_comment_length(rest))
}

/// Block comments nest: <https://doc.rust-lang.org/reference/comments.html>.
fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let step = &rest.as_bytes()[at..];
        if step.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if step.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// How long the string, character or lifetime at the beginning is, its prefix included.
///
/// Prefixes as in <https://doc.rust-lang.org/reference/tokens.html>: `b`, `c`, `r`, `br`, `cr`.
fn literal_length(rest: &str) -> Option<usize> {
    let prefix = word_length(rest);
    let (before, body) = rest.split_at(prefix);
    if matches!(before, "r" | "br" | "cr") {
        return raw_string_length(body).map(|length| prefix + length);
    }
    let length = match (before, body.chars().next()?) {
        ("" | "b" | "c", '"') => quoted_length(body, b'"'),
        ("b", '\'') => quoted_length(body, b'\''),
        ("", '\'') => character_length(body),
        _ => return None,
    };
    Some(prefix + length)
}

fn raw_string_length(body: &str) -> Option<usize> {
    let hashes = body.len() - body.trim_start_matches('#').len();
    let text = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = text.find(&end).map_or(text.len(), |at| at + end.len());
    Some(hashes + 1 + length)
}

fn quoted_length(body: &str, quote: u8) -> usize {
    let bytes = body.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// `'a'` and `'\n'` are characters, `'a` is a lifetime.
fn character_length(body: &str) -> usize {
    let mut letters = body[1..].chars();
    let first = letters.next();
    if first == Some('\\') || letters.next() == Some('\'') {
        return quoted_length(body, b'\'');
    }
    1 + word_length(&body[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> String {
        split_tokens(source).into_iter().map(|token| token.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_no_tokens() {
        assert_eq!(words("a // crate::b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(words(r#"a("crate::b \" c", b"d", 'e', '\'', b'\'') f"#), "a ( , , , , ) f");
        assert_eq!(words("r\"a\\\" b r##\"c\"# d\"## e"), "b e");
        assert_eq!(words("/// crate::a\n//! crate::b\nc"), "c");
    }

    #[test]
    fn a_lifetime_does_not_swallow_what_follows() {
        assert_eq!(
            words("fn f<'a>(x: &'a str, y: char) { 'x'; crate::b }"),
            "fn f < > ( x : & str , y : char ) { ; crate :: b }"
        );
    }

    #[test]
    fn a_raw_identifier_is_its_word() {
        assert_eq!(words("mod r#type; r#type::A"), "mod type ; type :: A");
    }

    #[test]
    fn each_token_knows_its_line() {
        let lines: Vec<usize> =
            split_tokens("a\n\"x\ny\"\n/* \n */ b").iter().map(|token| token.line).collect();

        assert_eq!(lines, [1, 5]);
    }

    #[test]
    fn what_does_not_end_takes_the_rest() {
        for open in ["\"a", "r#\"a", "/* a", "'\\", "b'", "\"\\", "'"] {
            assert_eq!(words(&format!("x {open}")).split(' ').next(), Some("x"), "{open}");
        }
    }

    #[test]
    fn letters_of_any_script_are_words() {
        assert_eq!(words("größe 'ß' \"日\\本\" crate"), "größe crate");
    }
}
