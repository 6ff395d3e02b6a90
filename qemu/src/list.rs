//! Shows the machines, as a table or as JSON.
//!
//! Knows what the registry, a machine's description and a cluster's network say; asks no machine.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;
use vm::Machine;
use vm::cluster::folder::ClusterFolder;
use vm::cluster::plan::ClusterMember;
use vm::registry::{MachineEntry, MachineRegistry, MachineState, RunningRecord};
use vm::switch::control::{ControlRequest, send_request};

use crate::cable::{describe_link, port_of};
use crate::cli::ListArguments;
use crate::failure::CommandFailure;
use crate::report::print_result;

/// Shows them.
pub(crate) fn print_list(
    registry: &MachineRegistry,
    root: &Path,
    list: &ListArguments,
) -> Result<(), CommandFailure> {
    let entries = registry.list_machines()?;
    let places = cluster_places(root);
    let row = |entry: &MachineEntry| list_row(entry, places.iter().find(|place| place.name == entry.name));
    let rows: Vec<_> = entries.iter().map(row).collect();
    if list.json {
        let all: Vec<_> = rows.iter().map(ListRow::to_json).collect();
        print_result(format!("{:#}\n", json!(all)));
        return Ok(());
    }
    let mut text = format!("{:<20} {:<8} {:>5} {:<22} {:<17}", "NAME", "STATE", "SSH", "FIRMWARE", "DISK");
    // Machines of vm run have neither, and most lists have no others. At the end, so that scripts which cut columns
    // out of the table find the old ones where they were.
    if !places.is_empty() {
        let _ = write!(text, " {:<12} LINK", "ADDRESS");
    }
    text = format!("{}\n", text.trim_end());
    for row in &rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", row.to_string().trim_end());
    }
    print_result(text);
    Ok(())
}

/// A machine's place in the cluster.
#[derive(Clone)]
struct ClusterPlace {
    name: String,
    address: String,
    link: String,
}

/// Those of all machines of the cluster, if there is one.
fn cluster_places(root: &Path) -> Vec<ClusterPlace> {
    let cluster = ClusterFolder::beside_machines(root);
    let Ok(members) = cluster.read_members() else { return Vec::new() };
    // A network that ended is no reason to show no machines.
    let ports = send_request(cluster.path(), &ControlRequest::Status {}).unwrap_or_default();
    let link = |member: &ClusterMember| {
        ports.get(port_of(member).0).map_or_else(|| "no network".to_owned(), describe_link)
    };
    let place = |member: &ClusterMember| ClusterPlace {
        name: member.name.clone(),
        address: member.address.to_string(),
        link: link(member),
    };
    members.iter().map(place).collect()
}

struct ListRow {
    name: String,
    state: &'static str,
    on: Option<RunningRecord>,
    machine: Option<Machine>,
    kept: bool,
    place: Option<ClusterPlace>,
}

fn list_row(entry: &MachineEntry, place: Option<&ClusterPlace>) -> ListRow {
    let (state, on) = match &entry.state {
        MachineState::Off => ("off", None),
        MachineState::Changing => ("changing", None),
        MachineState::On(on) => ("on", Some(on.clone())),
    };
    // One that is just being made has no description yet.
    ListRow {
        name: entry.name.clone(),
        state,
        on,
        machine: Machine::open_folder(&entry.folder).ok(),
        kept: entry.kept,
        place: place.cloned(),
    }
}

impl ListRow {
    fn to_json(&self) -> serde_json::Value {
        json!({
            "name": self.name,
            "state": self.state,
            "kept": self.kept,
            "pid": self.on.as_ref().map(|on| on.pid),
            "qemu_pid": self.on.as_ref().map(|on| on.qemu),
            "ssh_port": self.on.as_ref().map(|on| on.ports.ssh),
            "firmware": self.machine.as_ref().map(Machine::firmware),
            "acceleration": self.machine.as_ref().map(Machine::acceleration),
            "address": self.place.as_ref().map(|place| &place.address),
            "link": self.place.as_ref().map(|place| &place.link),
            "folder": self.machine.as_ref().map(|machine| machine.folder().display().to_string()),
        })
    }
}

impl std::fmt::Display for ListRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let port = self.on.as_ref().map_or_else(|| "-".to_owned(), |on| on.ports.ssh.to_string());
        let firmware =
            self.machine.as_ref().map_or_else(String::new, |machine| machine.firmware().to_string());
        let disk = if self.kept { "kept" } else { "removed when off" };
        write!(f, "{:<20} {:<8} {port:>5} {firmware:<22} {disk:<17}", self.name, self.state)?;
        match &self.place {
            Some(place) => write!(f, " {:<12} {}", place.address, place.link),
            None => Ok(()),
        }
    }
}
