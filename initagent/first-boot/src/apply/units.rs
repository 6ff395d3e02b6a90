//! Units, through systemctl.
//!
//! Knows where units belong. Refuses to wait for one: a unit that is ordered after the end of the boot
//! must not stop it. Invariant: contents are on disk before the manager reads them.

use std::fs;
use std::path::PathBuf;

use user_data::plan::Planned;
use user_data::plan::step::{Step, Verb};
use user_data::systemd::{UnitClass, classify};

use super::{Done, Host};
use crate::files::{self, Change, Rights};
use crate::programs::Call;
use crate::step_error::StepError;

/// Whether two neighbours can be one call of systemctl: fifty processes take longer than one, and
/// starting or enabling again what the call did before it failed changes nothing.
pub(crate) fn go_together(one: &Step, next: &Step) -> bool {
    match (one, next) {
        (Step::CommandUnit { verb: Verb::Start, .. }, Step::CommandUnit { verb: Verb::Start, .. }) => true,
        (
            Step::EnableUnit { enable: true, runtime, .. },
            Step::EnableUnit { enable: true, runtime: other, .. },
        ) => runtime == other,
        _ => false,
    }
}

/// Does several such steps at once; `None` if they must be done one by one to tell which of them fails.
pub(crate) fn all_at_once(batch: &[Planned], host: &Host<'_>) -> Option<Done> {
    let names: Vec<&str> = batch.iter().filter_map(|planned| name_of(&planned.step)).collect();
    let mut arguments = match &batch.first()?.step {
        _ if names.len() < 2 => return None,
        Step::CommandUnit { verb, .. } => vec!["--no-block", verb.word()],
        Step::EnableUnit { runtime, .. } => enable_words(true, *runtime),
        _ => return None,
    };
    arguments.extend(names);
    host.programs.run(&Call::new("systemctl", arguments)).ok().map(|_| Done::Changed)
}

fn name_of(step: &Step) -> Option<&str> {
    match step {
        Step::CommandUnit { name, .. } | Step::EnableUnit { name, .. } => Some(name),
        _ => None,
    }
}

/// Writes a unit.
pub(crate) fn write_unit(
    name: &str,
    content: &str,
    runtime: bool,
    host: &Host<'_>,
) -> Result<Change, StepError> {
    let path = place(name, runtime, host);
    // A mask in its place is lifted by this.
    files::write(&path, content.as_bytes(), Rights::PUBLIC)
}

/// Writes a drop-in.
pub(crate) fn write_drop_in(
    unit: &str,
    name: &str,
    content: &str,
    runtime: bool,
    host: &Host<'_>,
) -> Result<Change, StepError> {
    let folder = place(&format!("{unit}.d"), runtime, host);
    // Settings may hold passwords of the services.
    let rights = if runtime { Rights::PRIVATE } else { Rights::PUBLIC };
    files::write(&folder.join(name), content.as_bytes(), rights)
}

/// Masks, or lifts a mask.
pub(crate) fn mask(name: &str, mask: bool, runtime: bool, host: &Host<'_>) -> Result<Change, StepError> {
    let path = place(name, runtime, host);
    if mask {
        return files::link(&path, "/dev/null");
    }
    let is_mask = fs::read_link(&path).is_ok_and(|target| target.as_os_str() == "/dev/null");
    let is_empty = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
    if !is_mask && !is_empty {
        return Ok(Change::None);
    }
    fs::remove_file(&path).map(|()| Change::Made).map_err(|source| StepError::Write { path, source })
}

/// Enables or disables.
pub(crate) fn enable(name: &str, enable: bool, runtime: bool, host: &Host<'_>) -> Result<Change, StepError> {
    let mut arguments = enable_words(enable, runtime);
    arguments.push(name);
    host.programs.run(&Call::new("systemctl", arguments))?;
    Ok(Change::Made)
}

fn enable_words(enable: bool, runtime: bool) -> Vec<&'static str> {
    let mut words =
        if enable { vec!["--no-reload", "--force", "enable"] } else { vec!["--no-reload", "disable"] };
    words.extend(runtime.then_some("--runtime"));
    words
}

/// Has the manager read its units.
pub(crate) fn reload(host: &Host<'_>) -> Result<Change, StepError> {
    host.programs.run(&Call::new("systemctl", ["daemon-reload"]))?;
    Ok(Change::Made)
}

/// Applies network configuration.
pub(crate) fn restart_network(host: &Host<'_>) -> Result<Change, StepError> {
    host.programs.run(&Call::new("systemctl", ["--no-block", "restart", "systemd-networkd.service"]))?;
    Ok(Change::Made)
}

/// Starts, stops and so on, without waiting.
pub(crate) fn command(name: &str, verb: Verb, host: &Host<'_>) -> Result<Change, StepError> {
    host.programs.run(&Call::new("systemctl", ["--no-block", verb.word(), name]))?;
    Ok(Change::Made)
}

fn place(name: &str, runtime: bool, host: &Host<'_>) -> PathBuf {
    let unit = name.trim_end_matches(".d");
    let folder = match classify(unit) {
        Ok(UnitClass::Network) => "network",
        _ => "system",
    };
    host.root.path(&format!("{}/systemd/{folder}/{name}", if runtime { "/run" } else { "/etc" }))
}
