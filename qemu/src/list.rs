//! Shows the machines, as a table or as JSON.
//!
//! Knows what the registry and a machine's description tell; asks no machine.

use std::fmt::Write as _;

use serde_json::json;
use vm::Machine;
use vm::registry::{MachineEntry, MachineRegistry, MachineState, RunningRecord};

use crate::app::CommandFailure;
use crate::cli::ListArguments;
use crate::report::print_result;

/// Shows them.
pub(crate) fn print_list(registry: &MachineRegistry, list: &ListArguments) -> Result<(), CommandFailure> {
    let entries = registry.list()?;
    let rows: Vec<_> = entries.iter().map(list_row).collect();
    if list.json {
        let all: Vec<_> = rows.iter().map(ListRow::to_json).collect();
        print_result(format!("{:#}\n", json!(all)));
        return Ok(());
    }
    let mut text = format!("{:<20} {:<8} {:>5} {:<22} {}\n", "NAME", "STATE", "SSH", "FIRMWARE", "DISK");
    for row in &rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{row}");
    }
    print_result(text);
    Ok(())
}

struct ListRow {
    name: String,
    state: &'static str,
    on: Option<RunningRecord>,
    machine: Option<Machine>,
    kept: bool,
}

fn list_row(entry: &MachineEntry) -> ListRow {
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
        machine: Machine::open(&entry.folder).ok(),
        kept: entry.kept,
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
        write!(f, "{:<20} {:<8} {port:>5} {firmware:<22} {disk}", self.name, self.state)
    }
}
