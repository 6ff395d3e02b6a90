//! `$public_ipv4` and its three sisters: addresses that are known only on the machine.
//!
//! Knows the four tokens and their escape. Refuses to guess: a token without a value stays in the
//! text and is reported, it never becomes an empty string. Substitution happens in values after the
//! document was parsed, so an address cannot break its syntax.
//!
//! Documentation: coreos-cloudinit's `Documentation/cloud-config.md`, section "Environment variable
//! substitution".

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::SourceMark;
use document::yaml::{Node, ScalarStyle, Value};

/// The addresses of this machine, as far as its platform knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenAddresses {
    /// `$public_ipv4`.
    pub public_ipv4: Option<String>,
    /// `$private_ipv4`.
    pub private_ipv4: Option<String>,
    /// `$public_ipv6`.
    pub public_ipv6: Option<String>,
    /// `$private_ipv6`.
    pub private_ipv6: Option<String>,
}

const TOKENS: [&str; 4] = ["public_ipv4", "private_ipv4", "public_ipv6", "private_ipv6"];

impl TokenAddresses {
    /// Addresses that are nobody's, so that documents can be checked anywhere.
    #[must_use]
    pub fn example_addresses() -> Self {
        let some = |address: &str| Some(address.to_owned());
        Self {
            // Addresses that RFC 5737 and RFC 3849 set aside for documentation.
            public_ipv4: some("192.0.2.1"),
            private_ipv4: some("198.51.100.1"),
            public_ipv6: some("2001:db8::1"),
            private_ipv6: some("2001:db8::2"),
        }
    }

    /// Stands for addresses in a plan that is printed where none can be known.
    #[must_use]
    pub fn placeholders() -> Self {
        let keep = |name: &str| Some(format!("${name}"));
        Self {
            public_ipv4: keep("public_ipv4"),
            private_ipv4: keep("private_ipv4"),
            public_ipv6: keep("public_ipv6"),
            private_ipv6: keep("private_ipv6"),
        }
    }

    /// The known ones as the lines CoreOS keeps in /etc/environment.
    #[must_use]
    pub fn environment_lines(&self) -> Vec<(String, String)> {
        let named = TOKENS.iter().filter_map(|token| Some((*token, self.address_for(token)?)));
        let mut lines: Vec<_> = named
            .filter(|(token, value)| *value != format!("${token}"))
            .map(|(token, value)| (format!("COREOS_{}", token.to_ascii_uppercase()), value.to_owned()))
            .collect();
        lines.sort();
        lines
    }

    fn address_for(&self, token: &str) -> Option<&str> {
        match token {
            "public_ipv4" => self.public_ipv4.as_deref(),
            "private_ipv4" => self.private_ipv4.as_deref(),
            "public_ipv6" => self.public_ipv6.as_deref(),
            _ => self.private_ipv6.as_deref(),
        }
    }
}

/// A token that stayed in the text, by its offset there.
#[derive(Debug, PartialEq, Eq)]
struct LeftToken {
    token: &'static str,
    offset: usize,
}

/// Puts the addresses into every value of a tree.
pub fn substitute_tokens(node: &mut Node, addresses: &TokenAddresses, found: &mut Diagnostics) {
    match &mut node.value {
        Value::Mapping(entries) => {
            for entry in entries {
                substitute_tokens(&mut entry.value, addresses, found);
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(|item| substitute_tokens(item, addresses, found)),
        // Bytes that happen to spell a token are no text of the author's.
        Value::Scalar(scalar) if !scalar.binary && scalar.text.contains('$') => {
            let (text, left) = replace_tokens(&scalar.text, addresses);
            // Only a literal block has the lines of its source. Folded and quoted texts have other ones.
            let literal = scalar.style == ScalarStyle::Literal;
            report_left_tokens(&left, &scalar.text, node.at, literal, found);
            scalar.text = text;
        }
        Value::Scalar(_) | Value::Unreadable => {}
    }
}

/// Puts the addresses into a script.
#[must_use]
pub fn substitute_text(text: &str, part: u16, addresses: &TokenAddresses, found: &mut Diagnostics) -> String {
    let (replaced, left) = replace_tokens(text, addresses);
    report_left_tokens(&left, text, SourceMark { width: 1, ..SourceMark::start_of(part) }, true, found);
    replaced
}

fn replace_tokens(text: &str, addresses: &TokenAddresses) -> (String, Vec<LeftToken>) {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut left) = (text, Vec::new());
    while let Some(dollar) = rest.find('$') {
        let (before, from) = rest.split_at(dollar);
        // No word must end behind it, as with coreos-cloudinit: `http://$private_ipv4:2379` is the usual
        // case.
        let Some(token) = TOKENS.into_iter().find(|token| from[1..].starts_with(token)) else {
            out.push_str(&rest[..=dollar]);
            rest = &from[1..];
            continue;
        };
        match (before.strip_suffix('\\'), addresses.address_for(token)) {
            (Some(before), _) => out.extend([before, "$", token]),
            (None, Some(value)) => out.extend([before, value]),
            (None, None) => {
                left.push(LeftToken { token, offset: text.len() - from.len() });
                out.extend([before, "$", token]);
            }
        }
        rest = &from[1 + token.len()..];
    }
    out.push_str(rest);
    (out, left)
}

fn report_left_tokens(
    left: &[LeftToken],
    text: &str,
    at: SourceMark,
    literal: bool,
    found: &mut Diagnostics,
) {
    for one in left {
        let width = u32::try_from(one.token.len() + 1).unwrap_or(1);
        // Finding the line takes time, which nobody spends on the ten-thousandth token.
        let at = if literal && !found.is_full() { place_in(text, one.offset, at, width) } else { at };
        let message =
            format!("this machine's platform does not say its `${}`; the text stays as it is", one.token);
        found.push(
            Diagnostic::error(DiagnosticCode::UnknownToken, at, message)
                .with_help("write the address, or escape the token as `\\$…` if the text is meant"),
        );
    }
}

fn place_in(text: &str, offset: usize, start: SourceMark, width: u32) -> SourceMark {
    let before = &text[..offset];
    let lines = u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX);
    let last = before.rsplit('\n').next().unwrap_or_default().chars().count();
    let column = start.column.saturating_add(u32::try_from(last).unwrap_or(u32::MAX));
    SourceMark { line: start.line.saturating_add(lines), column, width, ..start }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> TokenAddresses {
        let value = |text: &str| Some(text.to_owned());
        TokenAddresses {
            public_ipv4: value("192.0.2.1"),
            private_ipv4: value("10.0.0.1"),
            ..TokenAddresses::default()
        }
    }

    #[test]
    fn adjacent_tokens_are_both_replaced() {
        assert_eq!(replace_tokens("$public_ipv4$private_ipv4", &known()).0, "192.0.2.110.0.0.1");
        assert_eq!(replace_tokens("http://$private_ipv4:2380", &known()).0, "http://10.0.0.1:2380");
    }

    #[test]
    fn a_backslash_keeps_the_token() {
        assert_eq!(
            replace_tokens(r"echo \$private_ipv4", &known()),
            ("echo $private_ipv4".to_owned(), vec![])
        );
    }

    #[test]
    fn a_token_without_value_stays_and_is_told() {
        let (text, left) = replace_tokens("a $public_ipv6 b", &known());

        assert_eq!(text, "a $public_ipv6 b");
        assert_eq!(left, [LeftToken { token: "public_ipv6", offset: 2 }]);
    }

    #[test]
    fn other_dollars_are_left_alone() {
        for text in ["$HOME", "$", "$$", "${private_ipv4}", "\\$", "$publ"] {
            assert_eq!(replace_tokens(text, &known()), (text.to_owned(), vec![]));
        }
    }

    #[test]
    fn a_token_inside_a_literal_block_is_marked_on_its_own_line() {
        let mut found = Diagnostics::default();
        let mut node = document::yaml::parse_yaml("a: |\n  one\n  x $public_ipv6\n", 0, &mut found).unwrap();

        substitute_tokens(&mut node, &known(), &mut found);

        let at = found.list()[0].at;
        assert_eq!((at.line, at.column, at.width), (3, 5, 12));
    }
}
