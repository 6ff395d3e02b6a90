//! `list-machines`: who is in the cluster.

use super::arguments::TableArguments;
use super::columns::{ListColumn, print_table};
use super::session::{CommandError, CommandOutcome, CommandSession, IdLength, id_legend, printable_chain};
use crate::api::schema::ApiMachine;

const DEFAULT: &str = "machine,ip,metadata";

const COLUMNS: &[ListColumn<ApiMachine>] = &[
    ListColumn {
        name: "drain",
        cell: |_, machine, _| if machine.draining { "draining".into() } else { String::new() },
    },
    ListColumn { name: "ip", cell: |_, machine, _| machine.primary_ip.clone() },
    ListColumn { name: "machine", cell: |_, machine, length| id_legend(&machine.id, length) },
    ListColumn { name: "metadata", cell: metadata_column },
];

/// Runs the verb.
pub fn run_list_machines(session: &mut CommandSession<'_>, arguments: &TableArguments) -> CommandOutcome {
    let machines = |session: &mut CommandSession<'_>| {
        session.client.list_machines().map_err(|error| {
            CommandError::new(format_args!(
                "Error retrieving list of active machines from fleet API ({})\nPossible issues:\n  \
                 etcd is unhealthy and/or lost quorum\n  connection cannot be established to any etcd servers",
                printable_chain(&error)
            ))
        })
    };
    print_table(session, arguments, DEFAULT, COLUMNS, machines)
}

fn metadata_column(_: &mut CommandSession<'_>, machine: &ApiMachine, _: IdLength) -> String {
    let pairs: Vec<_> = machine.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}
