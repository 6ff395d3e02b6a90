//! What each fuzz target does with its bytes. The fuzzer and the corpus test both include this file,
//! so that a past crash is a plain test from then on.

use std::collections::BTreeMap;

use fleet::{
    api::schema,
    model::{glob, requirements::UnitRequirements, unit_file::UnitFile, unit_name::UnitName},
    plan::{explain::explain_unit, reconcile::MachineAssignments},
    settings::{DaemonSettings, Options},
    store::{
        keys::{DEFAULT_PREFIX, KeySpace},
        picture::{ClusterView, KeyEvent},
        registry::ClusterChange,
        revision::Revision,
    },
};

/// A unit file that is taken must survive being written; its requirements must read for any name.
pub(crate) fn unit_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(file) = UnitFile::parse(&text) else { return };
    if let Ok(taken) = UnitFile::from_options(file.options().to_vec()) {
        let again =
            UnitFile::parse(&taken.canonical_text()).map(|again| (again.hash(), again.canonical_text()));
        assert_eq!(again, Ok((taken.hash(), taken.canonical_text())));
    }
    for name in ["a@1.service", "a.timer"] {
        if let Ok(name) = UnitName::parse(name) {
            let wanted = UnitRequirements::of_unit(&name, &file);
            let _ = wanted.check_rules();
            for pattern in wanted.conflicts.iter().chain(&wanted.replaces) {
                let _ = glob::glob_matches(pattern, name.as_str());
            }
        }
    }
}

/// A body of the API that is taken must mean a unit that can be written and placed.
pub(crate) fn api_body(bytes: &[u8]) {
    if let Ok(unit) = serde_json::from_slice::<schema::ApiUnit>(bytes) {
        let options = serde_json::to_vec(&unit.options).unwrap_or_default();
        if let Ok(options) = serde_json::from_slice(&options)
            && let Ok(file) = UnitFile::from_options(options)
        {
            assert_eq!(UnitFile::parse(&file.canonical_text()).map(|again| again.hash()), Ok(file.hash()));
        }
        let _ = UnitName::parse(&unit.name);
    }
    let _ = serde_json::from_slice::<Vec<schema::MetadataOperation>>(bytes);
    let _ = serde_json::from_slice::<schema::RebalanceRequest>(bytes);
}

/// Lines of `key value`, as if somebody had written them into etcd: the picture must take them, and
/// everything that reads the picture too.
pub(crate) fn store_value(bytes: &[u8]) {
    let keys = KeySpace::with_prefix(DEFAULT_PREFIX);
    let mut picture = ClusterView::of_keys(keys.clone());
    let mut changes: Vec<ClusterChange> = Vec::new();
    for (revision, line) in (1..).zip(bytes.split(|byte| *byte == b'\n').take(64)) {
        let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (key, value) = line.split_at(at);
        let key = [keys.key_prefix().as_bytes(), key].concat();
        let value = value.get(1..).map(<[u8]>::to_vec);
        let _ = picture.apply_event(
            &KeyEvent { key, value, revision: Revision(revision), created: Revision(revision) },
            &mut changes,
        );
    }
    let cluster = picture.cluster();
    for unit in cluster.units.keys() {
        let _ = explain_unit(cluster, unit.as_str());
    }
    for machine in cluster.machines.values() {
        let mut duties = MachineAssignments::of_machine(machine.id.clone());
        duties.observe_change(cluster, &ClusterChange::Everything);
        let _ = duties.desired_units(cluster, machine, &BTreeMap::new());
    }
    let _ = (picture.unused_files(), picture.orphaned_assignments().count());
}

/// A configuration file of any bytes.
pub(crate) fn settings(bytes: &[u8]) {
    if let Ok(options) = Options::parse(&String::from_utf8_lossy(bytes)) {
        let _ = DaemonSettings::from_options(&options);
    }
}
