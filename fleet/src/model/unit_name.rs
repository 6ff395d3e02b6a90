//! Names of units: which are allowed and what their parts mean.
//!
//! Invariant: a [`UnitName`] obeys the rules, so its parts can be cut without looking again and it can
//! be used as a file name: it holds no `/` and never starts with a dot that climbs.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
// systemd's own limit (UNIT_NAME_MAX), which the original's message names.
pub const MAX_LENGTH: usize = 256;

const SUFFIXES: [&str; 13] = [
    "automount",
    "busname",
    "device",
    "mount",
    "path",
    "scope",
    "service",
    "slice",
    "snapshot",
    "socket",
    "swap",
    "target",
    "timer",
];
const TEMPLATE_SUFFIXES: [&str; 5] = ["path", "service", "socket", "target", "timer"];

/// The suffixes that a command line takes as they are; any other name gets `.service` appended.
const CLIENT_SUFFIXES: [&str; 7] = ["service", "socket", "timer", "path", "device", "mount", "automount"];

/// Why a text is no unit name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum NameError {
    #[error("unit name cannot be empty")]
    Empty,
    #[error("unit name exceeds maximum length ({MAX_LENGTH})")]
    TooLong,
    #[error("unit name must contain \".\"")]
    NoDot,
    #[error("unit name cannot end in \".\"")]
    EndsInDot,
    #[error("invalid unit type: {0:?}")]
    Suffix(String),
    #[error("invalid unit type for template: {0:?}")]
    TemplateSuffix(String),
    #[error("invalid character {0:?} in unit name")]
    Character(char),
    #[error("unit name cannot start in \"@\"")]
    StartsInAt,
}

/// A valid unit name, such as `mongo@1.service`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(Arc<str>);

impl UnitName {
    /// Reads a full unit name; the first rule broken is the one reported.
    ///
    /// ```
    /// use fleet::model::unit_name::UnitName;
    ///
    /// let name = UnitName::parse("mongo@1.service")?;
    ///
    /// assert_eq!((name.prefix(), name.instance(), name.suffix()), ("mongo", "1", "service"));
    /// assert_eq!(name.template(), Some(UnitName::parse("mongo@.service")?));
    /// assert_eq!(name.expand_specifiers("%p-%i"), "mongo-1");
    /// assert!(UnitName::parse("mongo").is_err());
    /// # Ok::<(), fleet::model::unit_name::NameError>(())
    /// ```
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > MAX_LENGTH {
            return Err(NameError::TooLong);
        }
        let dot = name.rfind('.').ok_or(NameError::NoDot)?;
        let (stem, suffix) = (&name[..dot], &name[dot + 1..]);
        check_suffix(stem, suffix)?;
        if let Some(bad) = stem.chars().find(|c| !is_allowed(*c)) {
            return Err(NameError::Character(bad));
        }
        if name.starts_with('@') {
            return Err(NameError::StartsInAt);
        }
        Ok(Self(name.into()))
    }

    /// The name a user means: the last path element, with `.service` where no known suffix is typed.
    pub fn from_argument(argument: &str) -> Result<Self, NameError> {
        let base = argument.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let known = base.rsplit_once('.').is_some_and(|(_, suffix)| CLIENT_SUFFIXES.contains(&suffix));
        if known { Self::parse(base) } else { Self::parse(&format!("{base}.service")) }
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last dot: `service`.
    #[must_use]
    pub fn suffix(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, suffix)| suffix)
    }

    /// The name without its suffix: `mongo@1`. Specifier `%N`.
    #[must_use]
    pub fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(&*self.0, |(stem, _)| stem)
    }

    /// The part before the first `@`: `mongo`. Specifier `%p`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.stem().split('@').next().unwrap_or_default()
    }

    /// The part between the first `@` and the suffix; empty for a template and for a plain unit.
    /// Specifier `%i`.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.stem().split_once('@').map_or("", |(_, instance)| instance)
    }

    /// Whether this is a template: `mongo@.service`.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.stem().split_once('@').is_some_and(|(_, instance)| instance.is_empty())
    }

    /// Whether this is an instance of a template: `mongo@1.service`.
    #[must_use]
    pub fn is_instance(&self) -> bool {
        !self.instance().is_empty()
    }

    /// The template of an instance or of a template; `None` for a plain unit.
    #[must_use]
    pub fn template(&self) -> Option<Self> {
        self.stem().contains('@').then(|| Self(format!("{}@.{}", self.prefix(), self.suffix()).into()))
    }

    /// Whether an agent runs units of this kind (others can be stored, never loaded).
    #[must_use]
    pub fn is_runnable(&self) -> bool {
        CLIENT_SUFFIXES.contains(&self.suffix())
    }

    /// Replaces the specifiers `%n %N %p %i`, in this order, as plain text.
    #[must_use]
    pub fn expand_specifiers(&self, text: &str) -> String {
        if !text.contains('%') {
            return text.to_owned();
        }
        text.replace("%n", self.as_str())
            .replace("%N", self.stem())
            .replace("%p", self.prefix())
            .replace("%i", self.instance())
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for UnitName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UnitName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::parse(&name)
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl std::str::FromStr for UnitName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

fn check_suffix(stem: &str, suffix: &str) -> Result<(), NameError> {
    if suffix.is_empty() {
        return Err(NameError::EndsInDot);
    }
    if !SUFFIXES.contains(&suffix) {
        return Err(NameError::Suffix(suffix.to_owned()));
    }
    if stem.contains('@') && !TEMPLATE_SUFFIXES.contains(&suffix) {
        return Err(NameError::TemplateSuffix(suffix.to_owned()));
    }
    Ok(())
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '\\' | '@' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UnitName {
        UnitName::parse(text).unwrap()
    }

    #[test]
    fn the_parts_are_those_of_the_original() {
        for (full, stem, prefix, template, instance) in [
            ("foo.service", "foo", "foo", None, ""),
            ("foo@.service", "foo@", "foo", Some("foo@.service"), ""),
            ("foo@bar.service", "foo@bar", "foo", Some("foo@.service"), "bar"),
            ("foo@bar@baz.service", "foo@bar@baz", "foo", Some("foo@.service"), "bar@baz"),
            ("foo.1@2.service", "foo.1@2", "foo.1", Some("foo.1@.service"), "2"),
            ("ssh@.socket", "ssh@", "ssh", Some("ssh@.socket"), ""),
        ] {
            let unit = name(full);

            let template_name = unit.template();
            assert_eq!((unit.stem(), unit.prefix(), unit.instance()), (stem, prefix, instance));
            assert_eq!(template_name.as_ref().map(UnitName::as_str), template);
            assert_eq!(unit.is_template(), template.is_some() && instance.is_empty());
        }
    }

    #[test]
    fn each_broken_rule_has_its_message() {
        let long = format!("{}.service", "x".repeat(MAX_LENGTH));
        for (text, message) in [
            ("", "unit name cannot be empty"),
            (long.as_str(), "unit name exceeds maximum length (256)"),
            ("foo", "unit name must contain \".\""),
            ("foo.", "unit name cannot end in \".\""),
            ("foo.txt", "invalid unit type: \"txt\""),
            ("foo@1.mount", "invalid unit type for template: \"mount\""),
            ("fo/o.service", "invalid character '/' in unit name"),
            ("../x.service", "invalid character '/' in unit name"),
            ("@foo.service", "unit name cannot start in \"@\""),
        ] {
            assert_eq!(UnitName::parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn an_argument_gets_the_suffix_it_lacks() {
        for (typed, meant) in [
            ("foo", "foo.service"),
            ("./d/foo.timer", "foo.timer"),
            ("foo.link", "foo.link.service"),
            ("a@1", "a@1.service"),
        ] {
            assert_eq!(UnitName::from_argument(typed).unwrap().as_str(), meant);
        }
    }

    #[test]
    fn specifiers_are_replaced_as_plain_text() {
        assert_eq!(
            name("a@b.service").expand_specifiers("%n %N %p %i %%n %u"),
            "a@b.service a@b a b %a@b.service %u"
        );
    }
}
