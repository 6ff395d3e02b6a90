//! What a unit asks of the machine that runs it: the `[X-Fleet]` section.
//!
//! Knows every key, old and new, and which may stand together; refuses to know any machine. Invariant:
//! the requirements of a unit depend on its name and its file only.
//!
//! Keys of the original: `MachineID`, `MachineMetadata`, `MachineOf`, `Conflicts`, `Replaces`, `Global`
//! and their deprecated `X-` forms. Keys added: `ReserveMemory`, `ReserveCPU` (defaults: `MemoryMax=` and
//! `CPUQuota=` of the unit's own section), `SpreadBy`, `Prefer`, `Fence`, `MaxParallel`, `HealthyAfter`,
//! `HealthDeadline`, `AutoRevert`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::{glob, machine::Resources, unit_file::UnitFile, unit_name::UnitName};

/// The section that holds requirements.
pub const SECTION: &str = "X-Fleet";

const KNOWN_KEYS: [&str; 20] = [
    "AutoRevert",
    "Conflicts",
    "Fence",
    "Global",
    "HealthDeadline",
    "HealthyAfter",
    "MachineID",
    "MachineMetadata",
    "MachineOf",
    "MaxParallel",
    "Prefer",
    "Replaces",
    "ReserveCPU",
    "ReserveMemory",
    "SpreadBy",
    "X-ConditionMachineBootID",
    "X-ConditionMachineID",
    "X-ConditionMachineMetadata",
    "X-ConditionMachineOf",
    "X-Conflicts",
];

/// Requirements that no machine could ever meet together, or that exclude each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RequirementError {
    #[error("unresolvable requirements: peer {peer:?} matches conflict {pattern:?}")]
    PeerConflicts { peer: String, pattern: String },
    #[error("unresolvable requirements: peer {peer:?} matches replace {pattern:?}")]
    PeerReplaced { peer: String, pattern: String },
    #[error("{0} cannot be used with {1}")]
    Exclusive(&'static str, &'static str),
}

/// How a changed unit is brought to the machines that run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RolloutRules {
    /// How many units of a family may be in change at once.
    pub max_parallel: u32,
    /// How long a changed unit must be up before the next one is touched.
    pub healthy_after: Duration,
    /// How long a changed unit may take to come up.
    pub deadline: Duration,
    /// Whether a failed change is taken back.
    pub auto_revert: bool,
}

impl Default for RolloutRules {
    fn default() -> Self {
        Self {
            max_parallel: 1,
            healthy_after: Duration::from_secs(10),
            deadline: Duration::from_mins(5),
            auto_revert: true,
        }
    }
}

/// The requirements of one unit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnitRequirements {
    /// The machine it must run on: a full or a short ID.
    pub machine_id: Option<String>,
    /// Metadata the machine must have: any of the values of each key.
    pub metadata: BTreeMap<String, BTreeSet<String>>,
    /// Units that must be on the same machine, by exact name.
    pub peers: BTreeSet<String>,
    /// Patterns of units that must not be on the same machine.
    pub conflicts: BTreeSet<String>,
    /// Patterns of units that leave the machine when this one comes.
    pub replaces: BTreeSet<String>,
    /// Whether every able machine runs it.
    pub global: bool,
    /// What it takes from its machine's capacity.
    pub reserve: Resources,
    /// The metadata key over whose values the units of its family are spread.
    pub spread_by: Option<String>,
    /// Metadata that is wished for, the first wish first.
    pub prefer: Vec<(String, String)>,
    /// Whether a machine that lost the cluster must stop it before another starts it.
    pub fence: bool,
    /// How a change is rolled out.
    pub rollout: RolloutRules,
}

// Each key is read by its old names too: unit files of the first fleets still say `X-Condition…`.
impl UnitRequirements {
    /// The requirements of `file` under the name `name`.
    ///
    /// ```
    /// use fleet::model::{
    ///     machine::parse_metadata, requirements::UnitRequirements, unit_file::UnitFile, unit_name::UnitName,
    /// };
    ///
    /// let name = UnitName::parse("web@1.service")?;
    /// let file = UnitFile::parse("[X-Fleet]\nMachineMetadata=zone=a\nConflicts=%p@*.service\n")?;
    ///
    /// let wanted = UnitRequirements::of_unit(&name, &file);
    ///
    /// assert!(wanted.accepts_metadata(&parse_metadata("zone=a,disk=ssd")));
    /// assert!(!wanted.accepts_metadata(&parse_metadata("zone=b")));
    /// assert!(wanted.conflicts.contains("web@*.service"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn of_unit(name: &UnitName, file: &UnitFile) -> Self {
        let keys = FleetKeys { name, file };
        Self {
            machine_id: keys.machine_id(),
            metadata: keys.read_metadata(),
            // A unit is always where it is.
            peers: keys
                .all_values(&["X-ConditionMachineOf", "MachineOf"])
                .into_iter()
                .filter(|peer| peer != name.as_str())
                .collect(),
            conflicts: keys.all_words(&["X-Conflicts", "Conflicts"]),
            replaces: keys.all_words(&["Replaces"]),
            global: keys.read_flag("Global").unwrap_or(false),
            reserve: keys.read_reserve(),
            spread_by: keys.last_value("SpreadBy").filter(|key| !key.is_empty()),
            prefer: keys.all_values(&["Prefer"]).iter().filter_map(|pair| metadata_pair(pair)).collect(),
            fence: keys.read_flag("Fence").unwrap_or(false),
            rollout: keys.read_rollout(),
        }
    }

    /// Refuses combinations that cannot be met; the first rule broken is the one reported.
    pub fn check_rules(&self) -> Result<(), RequirementError> {
        self.check_peers()?;
        let (pinned, peers) = (self.machine_id.is_some(), !self.peers.is_empty());
        let (conflicts, replaces) = (!self.conflicts.is_empty(), !self.replaces.is_empty());
        for (first, second, both) in [
            ("MachineID", "Peers", pinned && peers),
            ("MachineID", "Conflicts", pinned && conflicts),
            ("MachineID", "Global", pinned && self.global),
            ("MachineID", "Replaces", pinned && replaces),
            ("Global", "Peers", self.global && peers),
            ("Global", "Replaces", self.global && replaces),
            ("Conflicts", "Replaces", conflicts && replaces),
        ] {
            if both {
                return Err(RequirementError::Exclusive(first, second));
            }
        }
        Ok(())
    }

    fn check_peers(&self) -> Result<(), RequirementError> {
        for peer in &self.peers {
            if let Some(pattern) = self.conflicts.iter().find(|pattern| glob::glob_matches(pattern, peer)) {
                return Err(RequirementError::PeerConflicts { peer: peer.clone(), pattern: pattern.clone() });
            }
            if let Some(pattern) = self.replaces.iter().find(|pattern| glob::glob_matches(pattern, peer)) {
                return Err(RequirementError::PeerReplaced { peer: peer.clone(), pattern: pattern.clone() });
            }
        }
        Ok(())
    }

    /// Whether a machine with this metadata meets the metadata asked for.
    #[must_use]
    pub fn accepts_metadata(&self, metadata: &BTreeMap<String, String>) -> bool {
        self.metadata
            .iter()
            .all(|(key, values)| metadata.get(key).is_some_and(|value| values.contains(value)))
    }
}

/// The keys of `[X-Fleet]` that nobody knows, in order, each once: a client warns of them.
#[must_use]
pub fn unknown_keys(file: &UnitFile) -> Vec<&str> {
    let mut unknown: Vec<&str> = Vec::new();
    for option in file.options().iter().filter(|option| option.section == SECTION) {
        let name = option.name.as_str();
        if !KNOWN_KEYS.contains(&name) && !unknown.contains(&name) {
            unknown.push(name);
        }
    }
    unknown
}

struct FleetKeys<'a> {
    name: &'a UnitName,
    file: &'a UnitFile,
}

impl FleetKeys<'_> {
    fn all_values(&self, names: &[&str]) -> Vec<String> {
        let lines = names.iter().flat_map(|name| self.file.values_of(SECTION, name));
        lines.flat_map(split_line).map(|value| self.name.expand_specifiers(&value)).collect()
    }

    fn all_words(&self, names: &[&str]) -> BTreeSet<String> {
        self.all_values(names).iter().flat_map(|line| line.split_whitespace()).map(str::to_owned).collect()
    }

    fn last_value(&self, name: &str) -> Option<String> {
        self.all_values(&[name]).pop()
    }

    fn read_flag(&self, name: &str) -> Option<bool> {
        let value = self.last_value(name)?.to_lowercase();
        Some(matches!(value.as_str(), "true" | "yes" | "1" | "on" | "t"))
    }

    fn machine_id(&self) -> Option<String> {
        ["MachineID", "X-ConditionMachineID", "X-ConditionMachineBootID"]
            .iter()
            .find_map(|name| self.all_values(&[name]).into_iter().next())
    }

    fn read_metadata(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut metadata: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for option_pair in self.all_values(&["X-ConditionMachineMetadata", "MachineMetadata"]) {
            if let Some((key, value)) = metadata_pair(&option_pair) {
                metadata.entry(key).or_default().insert(value);
            }
        }
        metadata
    }

    fn read_reserve(&self) -> Resources {
        let kinds = ["Service", "Socket", "Mount", "Swap"];
        let own = |key: &str| {
            kinds.iter().find_map(|kind| self.file.values_of(kind, key).last().map(str::to_owned))
        };
        let memory = self.last_value("ReserveMemory").or_else(|| own("MemoryMax"));
        let cpu = self.last_value("ReserveCPU").or_else(|| own("CPUQuota"));
        Resources {
            memory_mib: memory.and_then(|text| parse_mebibytes(&text)).unwrap_or(0),
            cpu_percent: cpu.and_then(|text| parse_percent(&text)).unwrap_or(0),
        }
    }

    fn read_rollout(&self) -> RolloutRules {
        let standard = RolloutRules::default();
        let time = |key: &str| self.last_value(key).and_then(|text| parse_duration(&text));
        RolloutRules {
            max_parallel: self
                .last_value("MaxParallel")
                .and_then(|text| text.parse().ok())
                .unwrap_or(standard.max_parallel)
                .max(1),
            healthy_after: time("HealthyAfter").unwrap_or(standard.healthy_after),
            deadline: time("HealthDeadline").unwrap_or(standard.deadline),
            auto_revert: self.read_flag("AutoRevert").unwrap_or(standard.auto_revert),
        }
    }
}

fn metadata_pair(pair: &str) -> Option<(String, String)> {
    let (key, value) = pair.split_once('=')?;
    (!key.is_empty() && !value.is_empty() && !value.contains('=')).then(|| (key.to_owned(), value.to_owned()))
}

/// A line that starts and ends with `"` holds several values: spaces between quotes part them.
fn split_line(line: &str) -> Vec<String> {
    if line.len() < 2 || !line.starts_with('"') || !line.ends_with('"') {
        return vec![line.to_owned()];
    }
    let (mut values, mut current, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => values.push(std::mem::take(&mut current)),
            c => current.push(c),
        }
    }
    values.push(current);
    values
}

/// `512M`, `2G`, `1048576`: bytes with an optional binary suffix, rounded up to MiB. `infinity` and
/// shares of a machine (`50%`) reserve nothing.
fn parse_mebibytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, scale) = match text.chars().last()? {
        'K' => (&text[..text.len() - 1], 1 << 10),
        'M' => (&text[..text.len() - 1], 1 << 20),
        'G' => (&text[..text.len() - 1], 1 << 30),
        'T' => (&text[..text.len() - 1], 1 << 40),
        _ => (text, 1_u64),
    };
    let bytes: u64 = number.trim().parse::<u64>().ok()?.checked_mul(scale)?;
    Some(bytes.div_ceil(1 << 20))
}

fn parse_percent(text: &str) -> Option<u64> {
    text.trim().strip_suffix('%')?.parse().ok()
}

/// `90`, `90s`, `5min`, `1h`: as systemd writes spans, one unit only.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let millis = match text[digits..].trim() {
        "" | "s" | "sec" => number.checked_mul(1000)?,
        "ms" => number,
        "m" | "min" => number.checked_mul(60_000)?,
        "h" | "hr" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirements(name: &str, section: &str) -> UnitRequirements {
        let file = UnitFile::parse(&format!("[Service]\nMemoryMax=64M\n[X-Fleet]\n{section}")).unwrap();
        UnitRequirements::of_unit(&UnitName::parse(name).unwrap(), &file)
    }

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    #[test]
    fn quotes_part_values() {
        for (line, values) in [
            (r#""bar" "ping" "pong""#, vec!["bar", "ping", "pong"]),
            ("\"\"", vec![""]),
            ("\"bar", vec!["\"bar"]),
            (r#""bar" ""#, vec!["bar", ""]),
            (r#""foo\"bar""#, vec!["foo\\bar"]),
            ("a b", vec!["a b"]),
        ] {
            assert_eq!(split_line(line), values, "{line}");
        }
    }

    #[test]
    fn metadata_is_or_within_a_key_and_and_across_keys() {
        let wanted = requirements(
            "a.service",
            "MachineMetadata=\"zone=1\" \"disk=ssd\"\nX-ConditionMachineMetadata=zone=2\nMachineMetadata=a=b=c\nMachineMetadata==x\n",
        );
        let machine = |zone: &str, disk: &str| {
            BTreeMap::from([("zone".to_owned(), zone.to_owned()), ("disk".to_owned(), disk.to_owned())])
        };

        assert_eq!(wanted.metadata.keys().collect::<Vec<_>>(), ["disk", "zone"]);
        assert!(
            wanted.accepts_metadata(&machine("1", "ssd")) && wanted.accepts_metadata(&machine("2", "ssd"))
        );
        assert!(
            !wanted.accepts_metadata(&machine("3", "ssd")) && !wanted.accepts_metadata(&machine("1", "hdd"))
        );
    }

    #[test]
    fn names_in_requirements_are_expanded() {
        let wanted = requirements(
            "mongo@1.service",
            "Conflicts=%p@*.service a.service\nMachineOf=%p-%i.service\nGlobal=no\nGlobal=ON\n",
        );

        assert_eq!(wanted.conflicts, set(&["mongo@*.service", "a.service"]));
        assert_eq!(wanted.peers, set(&["mongo-1.service"]));
        assert!(wanted.global);
    }

    #[test]
    fn a_reservation_defaults_to_the_limit() {
        assert_eq!(requirements("a.service", "").reserve, Resources { memory_mib: 64, cpu_percent: 0 });
        assert_eq!(
            requirements("a.service", "ReserveMemory=1G\nReserveCPU=150%\n").reserve,
            Resources { memory_mib: 1024, cpu_percent: 150 }
        );
    }

    #[test]
    fn combinations_that_cannot_be_met_are_named() {
        for (section, message) in [
            (
                "MachineOf=b.service\nConflicts=b*\n",
                "unresolvable requirements: peer \"b.service\" matches conflict \"b*\"",
            ),
            (
                "MachineOf=b.service\nReplaces=b*\n",
                "unresolvable requirements: peer \"b.service\" matches replace \"b*\"",
            ),
            ("MachineID=x\nMachineOf=b.service\n", "MachineID cannot be used with Peers"),
            ("MachineID=x\nConflicts=b\n", "MachineID cannot be used with Conflicts"),
            ("MachineID=x\nGlobal=true\n", "MachineID cannot be used with Global"),
            ("MachineID=x\nReplaces=b\n", "MachineID cannot be used with Replaces"),
            ("Global=1\nMachineOf=b.service\n", "Global cannot be used with Peers"),
            ("Global=t\nReplaces=b\n", "Global cannot be used with Replaces"),
            ("Conflicts=a\nReplaces=b\n", "Conflicts cannot be used with Replaces"),
        ] {
            assert_eq!(requirements("a.service", section).check_rules().unwrap_err().to_string(), message);
        }
        assert_eq!(
            requirements("a.service", "Global=1\nConflicts=b\nMachineMetadata=a=b\n").check_rules(),
            Ok(())
        );
    }

    #[test]
    fn unknown_keys_are_named_once() {
        let file = UnitFile::parse("[X-Fleet]\nFoo=1\nConflicts=a\nFoo=2\n").unwrap();

        assert_eq!(unknown_keys(&file), ["Foo"]);
    }

    #[test]
    fn spans_are_read_with_their_unit() {
        for (text, seconds) in [("90", 90), ("5min", 300), ("1h", 3600), ("2 s", 2)] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(parse_duration("soon"), None);
    }
}
