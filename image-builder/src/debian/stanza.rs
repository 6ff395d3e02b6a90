//! The deb822 text format: paragraphs of `Field: value`, continued by indented lines.
//!
//! Source: Debian Policy, chapter 5, "Control files and their fields".

/// One paragraph, its fields in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stanza {
    fields: Vec<(String, String)>,
}

impl Stanza {
    /// The value of a field (names are case-insensitive), continuation lines joined by a newline.
    pub(crate) fn field_value(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Replaces a field's value; an absent field is added at the end.
    pub(crate) fn set_field(&mut self, name: &str, value: String) {
        match self.fields.iter_mut().find(|(field, _)| field.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name.to_owned(), value)),
        }
    }
}

impl std::fmt::Display for Stanza {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.fields {
            writeln!(f, "{name}: {}", value.replace('\n', "\n "))?;
        }
        Ok(())
    }
}

/// Splits a text into its paragraphs. Lines that are neither field nor continuation are passed over,
/// as apt and dpkg do with comments.
pub(crate) fn parse_stanzas(text: &str) -> Vec<Stanza> {
    let mut stanzas = Vec::new();
    let mut current = Stanza::default();
    for line in text.lines() {
        if line.trim().is_empty() {
            if !current.fields.is_empty() {
                stanzas.push(std::mem::take(&mut current));
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = current.fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if !line.starts_with('#')
            && let Some((name, value)) = line.split_once(':')
        {
            current.fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    if !current.fields.is_empty() {
        stanzas.push(current);
    }
    stanzas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuation_lines_belong_to_the_field_above() {
        let stanzas = parse_stanzas("Package: a\nDepends: b,\n c\n\n# note\nPackage: d\n");

        assert_eq!(stanzas.len(), 2);
        assert_eq!(stanzas[0].field_value("depends"), Some("b,\nc"));
        assert_eq!(stanzas[1].to_string(), "Package: d\n");
    }
}
