//! `list-machines`: who is in the cluster.

use super::arguments::TableArguments;
use super::columns::{Column, table};
use super::session::{Complaint, Outcome, Session, chain, id_legend};
use crate::api::schema::Machine;

const DEFAULT: &str = "machine,ip,metadata";

const COLUMNS: &[Column<Machine>] = &[
    Column {
        name: "drain",
        cell: |_, machine, _| if machine.draining { "draining".into() } else { String::new() },
    },
    Column { name: "ip", cell: |_, machine, _| machine.primary_ip.clone() },
    Column { name: "machine", cell: |_, machine, full| id_legend(&machine.id, full) },
    Column { name: "metadata", cell: metadata },
];

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &TableArguments) -> Outcome {
    let machines = |session: &mut Session<'_>| {
        session.client.machines().map_err(|error| {
            Complaint::new(format_args!(
                "Error retrieving list of active machines from fleet API ({})\nPossible issues:\n  \
                 etcd is unhealthy and/or lost quorum\n  connection cannot be established to any etcd servers",
                chain(&error)
            ))
        })
    };
    table(session, arguments, DEFAULT, COLUMNS, machines)
}

fn metadata(_: &mut Session<'_>, machine: &Machine, _: bool) -> String {
    let pairs: Vec<_> = machine.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}
