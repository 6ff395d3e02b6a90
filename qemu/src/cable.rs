//! Cuts, slows and heals the cables of a cluster's machines.
//!
//! Knows how a machine's number becomes a port of the switch; the rest is the switch's.

use std::fmt::Write as _;
use std::path::Path;

use vm::cluster::folder::ClusterFolder;
use vm::cluster::plan::ClusterMember;
use vm::switch::address_table::PortIndex;
use vm::switch::cable::LinkState;
use vm::switch::control::{ControlRequest, PortStatus, send_request};

use crate::cli::{CableArguments, HealArguments, LinkArguments};
use crate::failure::CommandFailure;
use crate::report::{print_note, print_result};

/// Cuts machines off from the others.
pub(crate) fn cut_cables(root: &Path, arguments: &CableArguments) -> Result<(), CommandFailure> {
    let cluster = ClusterFolder::beside_machines(root);
    for member in find_members(&cluster, &arguments.names)? {
        send_request(cluster.path(), &ControlRequest::Cut { port: port_of(&member) })?;
        print_note(format!("{} is cut off", member.name));
    }
    Ok(())
}

/// Makes cables as good as new; all of them if none is named.
pub(crate) fn heal_cables(root: &Path, arguments: &HealArguments) -> Result<(), CommandFailure> {
    let cluster = ClusterFolder::beside_machines(root);
    let members = if arguments.names.is_empty() {
        cluster.read_members()?
    } else {
        find_members(&cluster, &arguments.names)?
    };
    for member in members {
        send_request(cluster.path(), &ControlRequest::Heal { port: port_of(&member) })?;
        print_note(format!("{} is healed", member.name));
    }
    Ok(())
}

/// Changes what a cable does to frames, and shows what passed through it.
pub(crate) fn shape_cable(root: &Path, arguments: &LinkArguments) -> Result<(), CommandFailure> {
    let cluster = ClusterFolder::beside_machines(root);
    let member = cluster.find_member(&arguments.name)?;
    let request = ControlRequest::Shape {
        port: port_of(&member),
        delay_ms: arguments.delay,
        loss_percent: arguments.loss,
        drop_next: arguments.drop,
    };
    let ports = send_request(cluster.path(), &request)?;
    if let Some(status) = ports.get(port_of(&member).0) {
        print_result(if arguments.json {
            format!("{:#}\n", serde_json::to_value(status)?)
        } else {
            describe_port(&member, status)
        });
    }
    Ok(())
}

/// All of them, before anything is done to the first.
fn find_members(cluster: &ClusterFolder, names: &[String]) -> Result<Vec<ClusterMember>, CommandFailure> {
    Ok(names.iter().map(|name| cluster.find_member(name)).collect::<Result<_, _>>()?)
}

/// The port of the switch at which a machine is.
pub(crate) fn port_of(member: &ClusterMember) -> PortIndex {
    PortIndex(usize::from(member.number).saturating_sub(1))
}

fn describe_port(member: &ClusterMember, status: &PortStatus) -> String {
    let counted = &status.statistics;
    let mut text = format!("{} {}: {}\n", member.name, member.address, describe_link(status));
    for (name, frames, bytes) in [
        ("sent", counted.sent_frames, Some(counted.sent_bytes)),
        ("received", counted.received_frames, Some(counted.received_bytes)),
        ("lost by cut", counted.lost_by_cut, None),
        ("lost by chance", counted.lost_by_chance, None),
        ("lost by drop", counted.lost_by_drop, None),
        ("lost by overflow", counted.lost_by_overflow, None),
        ("invalid", counted.invalid, None),
    ] {
        let bytes = bytes.map_or_else(String::new, |bytes| format!(", {bytes} bytes"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<17}{frames} frames{bytes}");
    }
    text
}

/// What a cable does, in a few words.
pub(crate) fn describe_link(status: &PortStatus) -> String {
    if status.link == LinkState::Cut {
        return "cut".to_owned();
    }
    let mut words = Vec::new();
    if status.delay_ms > 0 {
        words.push(format!("{} ms", status.delay_ms));
    }
    if status.loss_percent > 0.0 {
        words.push(format!("{} % lost", status.loss_percent));
    }
    if status.drop_next > 0 {
        words.push(format!("next {} lost", status.drop_next));
    }
    if words.is_empty() { "whole".to_owned() } else { words.join(", ") }
}
