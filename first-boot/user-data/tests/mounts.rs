//! What cannot be lost is not lost to a mount either: each way to ask for one, at each place that
//! matters, leaves no step that would mount there.

use user_data::cloudconfig::order::PlanFacts;
use user_data::part::PayloadPart;
use user_data::plan::step::PlanStep;
use user_data::reading::{self, UserDataInput};
use user_data::systemd::{mount_path, mount_unit};

/// What people get in by, what holds it, and what is below the read-only root.
const KEPT: [&str; 15] = [
    "/home",
    "/home/core",
    "/home/core/.ssh",
    "/home/ana",
    "/srv/people/ben/.ssh",
    "/root",
    "/root/.ssh",
    "/etc",
    "/etc/ssh",
    "/etc/systemd/system",
    "/run",
    "/run/sshd",
    "/var",
    "/var/lib",
    "/media/scratch",
];

/// A document of each format that asks for a mount on a place.
fn documents(place: &str) -> Vec<String> {
    let unit = mount_unit(place);
    let automount = unit.replace(".mount", ".automount");
    let cloud = |keys: &str| {
        format!("#cloud-config\nusers: [{{name: ana}}, {{name: ben, homedir: /srv/people/ben}}]\n{keys}\n")
    };
    let content = format!("\"[Mount]\\nWhat=tmpfs\\nType=tmpfs\\nWhere={place}\\n\"");
    let ignition = |keys: &str| {
        let users = r#""passwd": {"users": [{"name": "ben", "homeDir": "/srv/people/ben"}]}"#;
        format!("{{\"ignition\": {{\"version\": \"3.4.0\"}}, {users}, {keys}}}")
    };
    vec![
        cloud(&format!("mounts: [[tmpfs, {place}, tmpfs]]")),
        cloud(&format!("mounts: [[tmpfs, '{place}/', tmpfs]]")),
        cloud(&format!("coreos: {{units: [{{name: '{unit}', content: {content}, command: start}}]}}")),
        cloud(&format!("coreos: {{units: [{{name: '{automount}', content: {content}, runtime: true}}]}}")),
        cloud(&format!("write_files: [{{path: '/etc/systemd/system/{unit}', content: {content}}}]")),
        cloud(&format!("write_files: [{{path: '/run/systemd/system/{automount}', content: {content}}}]")),
        ignition(&format!(
            r#""storage": {{"filesystems": [{{"device": "/dev/vdb", "format": "ext4", "path": "{place}"}}]}}"#
        )),
        ignition(&format!(
            r#""systemd": {{"units": [{{"name": "{}", "enabled": true, "contents": {content}}}]}}"#,
            unit.replace('\\', "\\\\")
        )),
    ]
}

fn mounted(step: &PlanStep) -> Vec<String> {
    let by_name = |path: &str| path.rsplit('/').next().and_then(mount_path).into_iter().collect();
    match step {
        PlanStep::AddMounts(mounts) => mounts.iter().map(|mount| mount.fields[1].clone()).collect(),
        PlanStep::WriteFile(file) => by_name(&file.path),
        PlanStep::WriteUnit { name, .. } => by_name(name),
        _ => Vec::new(),
    }
}

fn read(text: &str) -> reading::ReadResult {
    let user = vec![PayloadPart::whole("user-data", text)];
    reading::read(&UserDataInput { user, ..UserDataInput::default() }, &PlanFacts::default())
}

#[test]
fn no_document_mounts_over_what_people_get_in_by() {
    for place in KEPT {
        for text in documents(place) {
            let reading = read(&text);

            let left: Vec<String> =
                reading.plan.steps.iter().flat_map(|planned| mounted(&planned.step)).collect();
            assert!(left.is_empty(), "{text}\n{left:?}");
            assert!(reading.found.worst_severity().is_some(), "{text}");
        }
    }
}

#[test]
fn every_document_mounts_where_nothing_is_hidden() {
    for place in ["/srv/data", "/var/lib/docker", "/home/core/data", "/mnt", "/opt"] {
        for text in documents(place) {
            let reading = read(&text);

            assert!(
                reading.plan.steps.iter().any(|planned| !mounted(&planned.step).is_empty()),
                "{text}\n{:?}",
                reading.found
            );
        }
    }
}
