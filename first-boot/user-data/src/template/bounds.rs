//! How large and how nested a template may be.
//!
//! Knows where minijinja's tags end. Refuses to understand them. Invariant: no text that passes makes the
//! recursions of minijinja's parser, compiler or destructors deeper than [`LONGEST`] plus [`MOST_BLOCKS`] levels:
//! it bounds parentheses itself, but neither `1+1+1…`, `not not not …` nor a row of `elif`, by which it overflows
//! its stack.

/// As of any document.
// The reader of YAML takes no more, and scripts that are templates are smaller still.
const MOST_BYTES: usize = 1 << 20;
/// `{{` and `{%`; the largest templates of Cluster API have some dozens.
const MOST_TAGS: usize = 10_000;
/// `{%`: an `elif` is one level below the one before it.
const MOST_BLOCKS: usize = 1000;
/// Bytes of one tag, each of which may be a level.
const LONGEST: usize = 4096;

/// What is too much.
pub(super) struct Flaw {
    /// Where it is, from the start of the template.
    pub(super) at: usize,
    pub(super) message: String,
}

/// Every opening is measured, also one in a comment, a text or between `raw` and `endraw`: whoever skips some must
/// know where those end, and can be led astray.
pub(super) fn check_bounds(template: &str) -> Result<(), Flaw> {
    let flaw = |at: usize, message: String| Err(Flaw { at, message });
    if template.len() > MOST_BYTES {
        return flaw(
            0,
            format!("this template has {} bytes; at most {MOST_BYTES} are expanded", template.len()),
        );
    }
    let (mut tags, mut blocks) = (0, 0);
    for (at, pair) in template.as_bytes().windows(2).enumerate() {
        match pair {
            b"{%" => blocks += 1,
            b"{{" => {}
            _ => continue,
        }
        tags += 1;
        if tags > MOST_TAGS || blocks > MOST_BLOCKS {
            return flaw(
                at,
                format!("a template may have {MOST_TAGS} tags, and {MOST_BLOCKS} of them blocks"),
            );
        }
        if tag_length(&template.as_bytes()[at + 2..]) > LONGEST {
            return flaw(at, format!("this tag is longer than {LONGEST} bytes, or does not end"));
        }
    }
    Ok(())
}

/// How far it is to the end of a tag, by minijinja's rules: not in a text, and not inside parentheses. More than
/// [`LONGEST`] if it is farther.
fn tag_length(tag: &[u8]) -> usize {
    let (mut depth, mut quote) = (0_i32, None);
    let mut at = 0;
    while at <= LONGEST {
        match (tag.get(at), quote) {
            (None, _) => return at,
            // An escaped quote does not end a text, by minijinja's lexer.
            (Some(b'\\'), Some(_)) => at += 1,
            (Some(byte), Some(open)) => quote = Some(open).filter(|open| open != byte),
            (Some(byte @ (b'\'' | b'"')), None) => quote = Some(*byte),
            (Some(b'}' | b'%'), None) if depth == 0 && tag.get(at + 1) == Some(&b'}') => return at,
            (Some(b'(' | b'[' | b'{'), None) => depth += 1,
            (Some(b')' | b']' | b'}'), None) => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    at
}
