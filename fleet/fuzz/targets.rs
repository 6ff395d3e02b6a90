//! What each fuzz target does with its bytes. The fuzzer and the corpus test both include this file,
//! so that a past crash is a plain test from then on.

use std::collections::BTreeMap;

use fleet::{
    api::schema,
    model::{glob, requirements::Requirements, unit_file::UnitFile, unit_name::UnitName},
    plan::{explain::explain, reconcile::Duties},
    settings::{Options, Settings},
    store::{
        keys::{DEFAULT_PREFIX, Keys},
        picture::{Event, Picture},
        registry::Change,
    },
};

/// A unit file that is taken must survive being written; its requirements must read for any name.
pub(crate) fn unit_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(file) = UnitFile::parse(&text) else { return };
    if let Ok(taken) = UnitFile::from_options(file.options().to_vec()) {
        let again = UnitFile::parse(&taken.text()).map(|again| (again.hash(), again.text()));
        assert_eq!(again, Ok((taken.hash(), taken.text())));
    }
    for name in ["a@1.service", "a.timer"] {
        if let Ok(name) = UnitName::parse(name) {
            let wanted = Requirements::of(&name, &file);
            let _ = wanted.check();
            for pattern in wanted.conflicts.iter().chain(&wanted.replaces) {
                let _ = glob::matches(pattern, name.as_str());
            }
        }
    }
}

/// A body of the API that is taken must mean a unit that can be written and placed.
pub(crate) fn api_body(bytes: &[u8]) {
    if let Ok(unit) = serde_json::from_slice::<schema::Unit>(bytes) {
        let options = serde_json::to_vec(&unit.options).unwrap_or_default();
        if let Ok(options) = serde_json::from_slice(&options)
            && let Ok(file) = UnitFile::from_options(options)
        {
            assert_eq!(UnitFile::parse(&file.text()).map(|again| again.hash()), Ok(file.hash()));
        }
        let _ = UnitName::parse(&unit.name);
    }
    let _ = serde_json::from_slice::<Vec<schema::MetadataOperation>>(bytes);
    let _ = serde_json::from_slice::<schema::RebalanceRequest>(bytes);
}

/// Lines of `key value`, as if somebody had written them into etcd: the picture must take them, and
/// everything that reads the picture too.
pub(crate) fn store_value(bytes: &[u8]) {
    let keys = Keys::under(DEFAULT_PREFIX);
    let mut picture = Picture::of(keys.clone());
    let mut changes: Vec<Change> = Vec::new();
    for (revision, line) in (1..).zip(bytes.split(|byte| *byte == b'\n').take(64)) {
        let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (key, value) = line.split_at(at);
        let key = [keys.prefix().as_bytes(), key].concat();
        let value = value.get(1..).map(<[u8]>::to_vec);
        let _ = picture.apply(&Event { key, value, revision, created: revision }, &mut changes);
    }
    let cluster = picture.cluster();
    for unit in cluster.units.keys() {
        let _ = explain(cluster, unit.as_str());
    }
    for machine in cluster.machines.values() {
        let mut duties = Duties::of(machine.id.clone());
        duties.observe(cluster, &Change::Everything);
        let _ = duties.wanted(cluster, machine, &BTreeMap::new());
    }
    let _ = (picture.unused_files(), picture.strays().count());
}

/// A configuration file of any bytes.
pub(crate) fn settings(bytes: &[u8]) {
    if let Ok(options) = Options::parse(&String::from_utf8_lossy(bytes)) {
        let _ = Settings::of(&options);
    }
}
