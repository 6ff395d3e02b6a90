//! Units: their files, and what systemd's manager is asked for.
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
use crate::manager::Request;
use crate::step_error::StepError;

const NETWORKD: &str = "systemd-networkd.service";

/// Whether a step is something that the manager is asked for.
pub(crate) fn is_request(step: &Step) -> bool {
    requested(step).is_some()
}

/// Asks for several such steps in one conversation: fifty of them take longer than one.
pub(crate) fn carry_out(batch: &[Planned], host: &Host<'_>) -> Vec<Done> {
    let requests: Vec<Request<'_>> = batch.iter().filter_map(|planned| requested(&planned.step)).collect();
    let answers = host.manager.ask(&requests);
    answers
        .into_iter()
        .map(|answer| Done::of(answer.map(|()| Change::Made).map_err(StepError::from)))
        .collect()
}

/// One such step.
pub(crate) fn request(step: &Step, host: &Host<'_>) -> Result<Change, StepError> {
    let Some(request) = requested(step) else { return Ok(Change::None) };
    host.manager.ask(&[request]).into_iter().collect::<Result<(), _>>()?;
    Ok(Change::Made)
}

fn requested(step: &Step) -> Option<Request<'_>> {
    Some(match step {
        Step::CommandUnit { name, verb } => Request::Job { unit: name, verb: *verb },
        Step::EnableUnit { name, enable: true, runtime } => Request::Enable { unit: name, runtime: *runtime },
        Step::EnableUnit { name, enable: false, runtime } => {
            Request::Disable { unit: name, runtime: *runtime }
        }
        Step::ReloadUnits => Request::Reload,
        Step::RestartNetwork => Request::Job { unit: NETWORKD, verb: Verb::Restart },
        _ => return None,
    })
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

fn place(name: &str, runtime: bool, host: &Host<'_>) -> PathBuf {
    let unit = name.trim_end_matches(".d");
    let folder = match classify(unit) {
        Ok(UnitClass::Network) => "network",
        _ => "system",
    };
    host.root.path(&format!("{}/systemd/{folder}/{name}", if runtime { "/run" } else { "/etc" }))
}
