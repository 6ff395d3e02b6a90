//! Which units of a batch systemd has to know, or start, before which others.
//!
//! systemd orders jobs itself, but only those that are queued when it starts the first; and it does not
//! start a timer, path or socket at all while the unit that it activates is not loaded. Knows the keys that
//! name other units, and what they mean when they are not set: see systemd.unit(5), and "Implicit
//! Dependencies" of systemd.timer(5), systemd.path(5), systemd.socket(5) and systemd.automount(5). Refuses
//! to know systemd. Invariant: an order holds every unit once, also when units come after each other in a
//! circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{unit_file::UnitFile, unit_name::UnitName},
    plan::machine_units::DesiredUnit,
};

/// A start fails while one of these is not loaded. `Wants=` and `After=` are missing on purpose: systemd
/// starts the unit without them.
const REQUIRING: [&str; 3] = ["BindsTo", "Requires", "Requisite"];

/// Units that must be loaded for the start of this one to succeed.
#[must_use]
pub fn required_units(name: &UnitName, file: &UnitFile) -> BTreeSet<UnitName> {
    let required = REQUIRING.iter().flat_map(|key| listed_units(name, file, "Unit", key));
    required.chain(activated_unit(name, file)).collect()
}

/// The unit that a timer, path, socket or automount activates. A socket with `Accept=yes` starts without
/// its template.
fn activated_unit(name: &UnitName, file: &UnitFile) -> Option<UnitName> {
    let (section, key, kind) = match name.suffix() {
        "timer" => ("Timer", "Unit", "service"),
        "path" => ("Path", "Unit", "service"),
        "socket" if !accepts_connections(file) => ("Socket", "Service", "service"),
        "automount" => ("Automount", "", "mount"),
        _ => return None,
    };
    let named = listed_units(name, file, section, key).pop();
    named.or_else(|| UnitName::parse(&format!("{}.{kind}", name.stem())).ok())
}

fn accepts_connections(file: &UnitFile) -> bool {
    let last = file.values_of("Socket", "Accept").last().unwrap_or_default();
    ["1", "on", "t", "true", "y", "yes"].contains(&last.trim().to_lowercase().as_str())
}

fn listed_units(name: &UnitName, file: &UnitFile, section: &str, key: &str) -> Vec<UnitName> {
    let words = file.values_of(section, key).flat_map(str::split_whitespace);
    words.map(|word| name.expand_specifiers(word)).filter_map(|word| UnitName::parse(&word).ok()).collect()
}

/// Units after those they come after; otherwise, and in circles, by name.
pub(super) fn in_dependency_order(
    units: &BTreeSet<UnitName>,
    wanted: &BTreeMap<UnitName, DesiredUnit>,
) -> Vec<UnitName> {
    let mut first: BTreeMap<&UnitName, BTreeSet<UnitName>> = BTreeMap::new();
    for name in units {
        let Some(file) = wanted.get(name).map(|wish| &wish.file) else { continue };
        let mut earlier = listed_units(name, file, "Unit", "After");
        // `After=` alone was tried: files that people write do not name what systemd adds by itself.
        earlier.extend(listed_units(name, file, "Service", "Sockets"));
        first.entry(name).or_default().extend(earlier);
        // A socket cannot start any more when its service runs already.
        for later in listed_units(name, file, "Unit", "Before").into_iter().chain(activated_unit(name, file))
        {
            if let Some(later) = units.get(&later) {
                first.entry(later).or_default().insert(name.clone());
            }
        }
    }
    let mut order: Vec<UnitName> = Vec::with_capacity(units.len());
    let mut done = BTreeSet::new();
    for name in units {
        visit_unit(name, units, &first, &mut done, &mut order);
    }
    order
}

fn visit_unit(
    name: &UnitName,
    units: &BTreeSet<UnitName>,
    first: &BTreeMap<&UnitName, BTreeSet<UnitName>>,
    done: &mut BTreeSet<UnitName>,
    order: &mut Vec<UnitName>,
) {
    // Marked before its predecessors are visited, which ends a circle at the first unit by name. systemd
    // breaks circles, too, by dropping a job; here each unit is started.
    if !units.contains(name) || !done.insert(name.clone()) {
        return;
    }
    for earlier in first.get(name).into_iter().flatten() {
        visit_unit(earlier, units, first, done, order);
    }
    order.push(name.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::state::JobState;

    fn name(text: &str) -> UnitName {
        UnitName::parse(text).unwrap()
    }

    fn file(text: &str) -> UnitFile {
        UnitFile::parse(&text.replace("; ", "\n")).unwrap()
    }

    fn order(units: &[(&str, &str)]) -> Vec<String> {
        let wish = |text: &str| DesiredUnit {
            file: file(text),
            job: JobState::Launched,
            restarts: 0,
            fence: false,
            global: false,
        };
        let wanted: BTreeMap<_, _> = units.iter().map(|(unit, text)| (name(unit), wish(text))).collect();
        let names = wanted.keys().cloned().collect();
        in_dependency_order(&names, &wanted).iter().map(UnitName::to_string).collect()
    }

    #[test]
    fn what_activates_a_unit_starts_before_it() {
        let service = "[Service]; ExecStart=1";

        assert_eq!(
            order(&[("a.service", service), ("a.timer", "[Timer]; OnActiveSec=1")]),
            ["a.timer", "a.service"]
        );
        assert_eq!(
            order(&[("a.service", service), ("b.path", "[Path]; Unit=a.service")]),
            ["b.path", "a.service"]
        );
        assert_eq!(
            order(&[("a@1.service", service), ("z@1.socket", "[Socket]; Service=a@%i.service")]),
            ["z@1.socket", "a@1.service"]
        );
        assert_eq!(
            order(&[("a.service", "[Service]; Sockets=z.socket"), ("z.socket", "[Socket]; Accept=yes")]),
            ["z.socket", "a.service"]
        );
        assert_eq!(
            order(&[("a.automount", "[Automount]; Where=/a"), ("a.mount", "[Mount]; Where=/a")]),
            ["a.automount", "a.mount"]
        );
    }

    #[test]
    fn circles_lose_nobody() {
        let units = [
            ("a.service", "[Unit]; After=b.service"),
            ("b.service", "[Unit]; After=a.service missing.service"),
        ];

        assert_eq!(order(&units), ["b.service", "a.service"]);
    }

    #[test]
    fn a_unit_requires_what_it_cannot_start_without() {
        let cases = [
            ("a.timer", "[Timer]; OnActiveSec=1", vec!["a.service"]),
            ("a.path", "[Path]; Unit=b.target", vec!["b.target"]),
            ("a.socket", "[Socket]; ListenStream=1", vec!["a.service"]),
            ("a.socket", "[Socket]; Accept=true", vec![]),
            (
                "a@1.service",
                "[Unit]; Requires=%p@2.service c.service; After=d.service; Wants=e.service",
                vec!["a@2.service", "c.service"],
            ),
            ("a.service", "[Unit]; BindsTo=b.mount; Requisite=c.service", vec!["b.mount", "c.service"]),
        ];

        for (unit, text, expected) in cases {
            let units: Vec<String> =
                required_units(&name(unit), &file(text)).iter().map(UnitName::to_string).collect();
            assert_eq!(units, expected, "{unit}");
        }
    }
}
