//! One run of `fleetctl`: the API it talks to, and the two streams it speaks on.
//!
//! Verbs say what they have to say through this and return an exit status or a [`CommandError`]. What the
//! original printed on which stream is a contract, so the words stand in the verbs, not here.

use super::arguments::parse_bool;
use super::client::{ApiClient, ApiError};
use super::settings::{ClientSettings, OutputFormat};
use super::table::{printable_json, printable_lines, printable_text};
use crate::api::schema::{ApiMachine, ApiUnit};
use crate::model::unit_file::{UnitFile, UnitOption};
use crate::model::unit_name::UnitName;
use error_text::error_chain;
use serde::Serialize;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};

/// What ends a verb early: a line for stderr, and the exit status.
#[derive(Debug)]
pub struct CommandError {
    /// The line; empty if everything is said already.
    pub text: String,
    /// The exit status.
    pub exit: u8,
}

/// The exit status of a verb that ran, or what stopped it.
pub type CommandOutcome = Result<u8, CommandError>;

impl CommandError {
    /// Ends the verb with status 1 and this line.
    pub fn new(text: impl Display) -> Self {
        Self { text: text.to_string(), exit: 1 }
    }
}

impl From<io::Error> for CommandError {
    /// The reader of our output has gone: say nothing more.
    fn from(_: io::Error) -> Self {
        Self { text: String::new(), exit: 1 }
    }
}

/// An error with its causes on one line, as a terminal may show it.
pub fn printable_chain(error: &dyn Error) -> String {
    printable_text(&error_chain(error))
}

/// One run of `fleetctl`.
pub struct CommandSession<'a> {
    /// The API.
    pub client: ApiClient,
    /// What holds for the whole run.
    pub settings: ClientSettings,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    machines: Option<BTreeMap<String, ApiMachine>>,
}

impl std::fmt::Debug for CommandSession<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<'a> CommandSession<'a> {
    /// A run that speaks on these streams.
    pub fn new(
        client: ApiClient,
        settings: ClientSettings,
        out: &'a mut dyn Write,
        err: &'a mut dyn Write,
    ) -> Self {
        Self { client, settings, out, err, machines: None }
    }

    /// Prints a line, unless programs are to read the output.
    pub fn print_line(&mut self, line: impl Display) -> Result<(), CommandError> {
        match self.settings.format {
            OutputFormat::Json => Ok(()),
            OutputFormat::Text => Ok(writeln!(self.out, "{}", printable_lines(&line.to_string()))?),
        }
    }

    /// Tells what became of a unit: a line for people, an object for programs.
    pub fn report_unit(&mut self, unit: &str, state: &str, line: impl Display) -> Result<(), CommandError> {
        match self.settings.format {
            OutputFormat::Json => self.print_json(&serde_json::json!({ "state": state, "unit": unit })),
            OutputFormat::Text => self.print_line(line),
        }
    }

    /// Prints text as it is: nothing of it may come from the cluster unless it is escaped already.
    pub fn print_text(&mut self, text: &str) -> Result<(), CommandError> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// Prints a value for programs, on a line of its own.
    pub fn print_json(&mut self, value: &impl Serialize) -> Result<(), CommandError> {
        let text = serde_json::to_string(value).map_err(CommandError::new)?;
        Ok(writeln!(self.out, "{}", printable_json(&text))?)
    }

    /// Whether programs are to read the output.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.settings.format == OutputFormat::Json
    }

    /// Prints a line on stderr; one that nobody can read is lost.
    pub fn print_warning(&mut self, line: impl Display) {
        let _ = writeln!(self.err, "{}", printable_lines(&line.to_string()));
    }

    /// Tells what is being done, with `--debug`.
    pub fn print_trace(&mut self, line: impl Display) {
        if self.settings.debug {
            self.print_warning(format_args!("DEBUG {line}"));
        }
    }

    /// How a machine is shown beside a unit: its short id and its address. Machines are asked for once,
    /// and one that is not known is shown by its id.
    pub fn machine_legend(&mut self, id: &str, length: IdLength) -> String {
        let client = &self.client;
        let machines = self.machines.get_or_insert_with(|| {
            let machines = client.list_machines().unwrap_or_default();
            machines.into_iter().map(|machine| (machine.id.clone(), machine)).collect()
        });
        machines.get(id).map_or_else(|| id_legend(id, length), |machine| full_legend(machine, length))
    }
}

/// Where standard output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// To a program or a file, which want every byte.
    File,
    /// To a person's terminal, which obeys control characters.
    Terminal,
}

/// How ids and hashes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdLength {
    /// Whole, for scripts and for other programs' arguments.
    Full,
    /// Their beginning, which fits into a table and tells a cluster's apart.
    Short,
}

/// A machine's id: whole, or its first eight characters.
#[must_use]
pub fn id_legend(id: &str, length: IdLength) -> String {
    match length {
        IdLength::Full => id.to_owned(),
        IdLength::Short => format!("{}...", id.chars().take(8).collect::<String>()),
    }
}

/// A machine's id, and its address if it is known.
#[must_use]
pub fn full_legend(machine: &ApiMachine, length: IdLength) -> String {
    let legend = id_legend(&machine.id, length);
    if machine.primary_ip.is_empty() { legend } else { format!("{legend}/{}", machine.primary_ip) }
}

/// The name that a person means: the last part of a path, with `.service` if no known suffix is there.
#[must_use]
pub fn unit_name(argument: &str) -> String {
    match UnitName::from_argument(argument) {
        Ok(name) => name.to_string(),
        // The server says what is wrong with it.
        Err(_) => argument.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

/// Whether the unit runs on every able machine.
#[must_use]
pub fn is_global(unit: &ApiUnit) -> bool {
    let value = unit.options.iter().rfind(|option| option.section == "X-Fleet" && option.name == "Global");
    value.is_some_and(|option| {
        let word = option.value.trim_matches('"').to_lowercase();
        parse_bool(&word).unwrap_or(matches!(word.as_str(), "yes" | "on"))
    })
}

/// The unit's file, if the options can be one.
pub fn unit_file(unit: &ApiUnit) -> Result<UnitFile, CommandError> {
    let options = unit.options.iter().map(UnitOption::from).collect();
    UnitFile::from_options(options)
        .map_err(|error| CommandError::new(format_args!("Unit {} is no valid unit file: {error}", unit.name)))
}

/// Joins names as Go prints a list of strings.
#[must_use]
pub fn go_list(names: &[String]) -> String {
    format!("[{}]", names.join(" "))
}

impl From<ApiError> for CommandError {
    fn from(error: ApiError) -> Self {
        Self::new(printable_chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_a_name_or_a_path() {
        let names = [
            ("foo", "foo.service"),
            ("./units/foo@1.service", "foo@1.service"),
            ("foo.socket", "foo.socket"),
            ("foo.target", "foo.target.service"),
        ];

        for (typed, meant) in names {
            assert_eq!(unit_name(typed), meant);
        }
    }

    #[test]
    fn the_last_global_line_counts() {
        let unit = |values: &[&str]| ApiUnit {
            options: values
                .iter()
                .map(|value| crate::api::schema::UnitOption {
                    name: "Global".into(),
                    section: "X-Fleet".into(),
                    value: (*value).into(),
                })
                .collect(),
            ..ApiUnit::default()
        };

        assert!(is_global(&unit(&["false", "Yes"])) && is_global(&unit(&["on"])) && is_global(&unit(&["T"])));
        assert!(!is_global(&unit(&["true", "no"])) && !is_global(&unit(&[])));
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open /x")]
        struct Outer(#[source] io::Error);

        let error = Outer(io::Error::other("permission denied"));
        assert_eq!(printable_chain(&error), "cannot open /x: permission denied");
    }
}
