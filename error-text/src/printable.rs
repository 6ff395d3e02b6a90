//! Text from an image, a mirror or a program that failed, as a terminal may get it.
//!
//! Knows the characters by which a text takes hold of a terminal, or shows itself in another order than it has.
//! Refuses to touch what goes into a file or a pipe: programs want the bytes.

/// The text with every character that is no plain one written as an escape.
#[must_use]
pub fn printable_text(text: &str) -> String {
    escape_characters(text, |_| false)
}

/// The same of a text of several lines.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    escape_characters(text, |char| matches!(char, '\n' | '\t'))
}

fn escape_characters(text: &str, allowed: impl Fn(char) -> bool) -> String {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        if is_plain(char) || allowed(char) {
            plain.push(char);
        } else {
            plain.extend(char.escape_unicode());
        }
    }
    plain
}

/// Neither a control character (C0, DEL, C1) nor one of Unicode's marks and overrides of direction, by which a
/// name can be read from right to left (UAX #9), nor a separator that some programs take for a line's end.
fn is_plain(char: char) -> bool {
    let turns = matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !char.is_control() && !turns && !matches!(char, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_foreign_text_reaches_the_terminal_but_its_letters() {
        assert_eq!(printable_text("A\u{1b}]0;owned\u{7}\u{1b}[2J"), "A\\u{1b}]0;owned\\u{7}\\u{1b}[2J");
        assert_eq!(printable_text("one\ntwo\r\u{9b}2J\u{7f}"), "one\\u{a}two\\u{d}\\u{9b}2J\\u{7f}");
        assert_eq!(printable_text("gpj\u{202e}exe"), "gpj\\u{202e}exe");
        assert_eq!(printable_text("Größe 12 MiB – 日本"), "Größe 12 MiB – 日本");
        assert_eq!(printable_lines("a\tb\nc\u{1b}c"), "a\tb\nc\\u{1b}c");
    }
}
