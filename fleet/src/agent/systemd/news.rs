//! What systemd tells unasked, read from its signals.
//!
//! Knows the two signals that tell how units fare, and the one that says that systemd is another one.
//! Refuses to know who listens. Invariant: a signal about anything that is no unit of ours is no news.

use std::collections::HashMap;

use zbus::{Message, Variant};

use super::calls::{BUS, JobRemoved, MANAGER, NameOwnerChanged, PROPERTIES};
use crate::model::unit_name::UnitName;

const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit";

/// What systemd tells unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The connection is another one: any news may have been missed.
    Anew,
    /// A unit's state changed.
    Changed {
        /// The unit.
        unit: UnitName,
        /// Its new `ActiveState`.
        active: Option<String>,
        /// Its new `SubState`.
        sub: Option<String>,
    },
    /// A job ended, well or not.
    JobDone {
        /// The unit it was about.
        unit: UnitName,
        /// How it ended, if not well: `failed`, `dependency`, `timeout`.
        trouble: Option<String>,
    },
}

/// What a message says, if it is news.
pub(super) fn read(message: &Message) -> Option<News> {
    let header = message.header();
    match (header.interface()?.as_str(), header.member()?.as_str()) {
        (PROPERTIES, "PropertiesChanged") => unit_changed(message),
        (MANAGER, "JobRemoved") => job_removed(message),
        (BUS, "NameOwnerChanged") => owner_changed(message),
        _ => None,
    }
}

fn owner_changed(message: &Message) -> Option<News> {
    let body = message.body();
    let (_, _, new): NameOwnerChanged = body.deserialize().ok()?;
    (!new.is_empty()).then_some(News::Anew)
}

fn unit_changed(message: &Message) -> Option<News> {
    let header = message.header();
    let unit = unit_of_path(header.path()?.as_str())?;
    let body = message.body();
    let (_, changed, _): (&str, HashMap<&str, Variant<'_>>, Vec<&str>) = body.deserialize().ok()?;
    let text = |property: &str| changed.get(property)?.downcast_ref::<String>().ok();
    let (active, sub) = (text("ActiveState"), text("SubState"));
    (active.is_some() || sub.is_some()).then_some(News::Changed { unit, active, sub })
}

fn job_removed(message: &Message) -> Option<News> {
    let body = message.body();
    let (_, _, unit, result): JobRemoved = body.deserialize().ok()?;
    let unit = UnitName::parse(&unit).ok()?;
    let trouble =
        (!matches!(result.as_str(), "done" | "canceled" | "skipped" | "collected")).then_some(result);
    Some(News::JobDone { unit, trouble })
}

/// The unit of an object path, where systemd writes `_xx` for each byte that is no letter or digit.
fn unit_of_path(path: &str) -> Option<UnitName> {
    let escaped = path.strip_prefix(UNIT_PATH)?.strip_prefix('/')?;
    let mut name = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'_' {
            let digits = [bytes.next()?, bytes.next()?];
            name.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            name.push(byte);
        }
    }
    UnitName::parse(std::str::from_utf8(&name).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_paths_name_units() {
        let unit = |path: &str| unit_of_path(&format!("{UNIT_PATH}/{path}")).map(|unit| unit.to_string());

        assert_eq!(unit("mongo_401_2eservice").as_deref(), Some("mongo@1.service"));
        assert_eq!(unit("a_2").as_deref(), None);
        assert_eq!(unit("_2e_2e_2fx_2eservice"), None);
    }
}
