//! Units: their files, and what systemd's manager is asked for.
//!
//! Knows where units belong. Refuses to wait for one: a unit that is ordered after the end of the boot
//! must not stop it. Invariant: contents are on disk before the manager reads them.
//!
//! Documentation: systemd.unit(5), systemd.netdev(5), systemd.network(5), and the manager's calls in
//! org.freedesktop.systemd1(5).

use std::fs;
use std::path::{Path, PathBuf};

use user_data::plan::PlannedStep;
use user_data::plan::step::{PlanStep, UnitVerb};
use user_data::systemd::{UnitClass, classify_unit};

use super::ApplyContext;
use crate::accounts;
use crate::files::{self, FileChange, FileRights};
use crate::step_error::StepError;
use crate::step_result::StepResult;
use crate::systemd::UnitRequest;

const NETWORKD: &str = "systemd-networkd.service";
const NETWORKD_GROUP: &str = "systemd-network";
const NETWORK_FOLDERS: [&str; 2] = ["/etc/systemd/network/", "/run/systemd/network/"];
/// Settings of networkd's files whose values are keys: of tunnels, of MAC security, of 802.1X and of PPP.
const NETWORK_SECRETS: [&str; 4] = ["privatekey=", "presharedkey=", "password=", "\nkey="];

/// Whether a step is something that the manager is asked for.
pub(crate) fn is_request(step: &PlanStep) -> bool {
    matches!(
        step,
        PlanStep::CommandUnit { .. }
            | PlanStep::EnableUnit { .. }
            | PlanStep::ReloadUnits
            | PlanStep::RestartNetwork
    )
}

/// Asks for several such steps in one conversation: fifty of them take longer than one.
pub(crate) fn carry_out(batch: &[PlannedStep], host: &ApplyContext<'_>) -> Vec<StepResult> {
    let changed = host.changed_units.take();
    let requests: Vec<_> = batch.iter().map(|planned| manager_request(&planned.step, &changed)).collect();
    let mut answers =
        host.manager.send_requests(&requests.iter().flatten().copied().collect::<Vec<_>>()).into_iter();
    let fate = |request: Option<_>| match request {
        None => StepResult::Unchanged,
        Some(_) => match answers.next() {
            Some(answer) => {
                StepResult::from_result(answer.map(|()| FileChange::Made).map_err(StepError::from))
            }
            None => StepResult::Failed("systemd did not answer".to_owned()),
        },
    };
    requests.into_iter().map(fate).collect()
}

/// What the manager is asked for; nothing if no unit was changed that it could read anew.
fn manager_request<'a>(step: &'a PlanStep, changed: &'a [String]) -> Option<UnitRequest<'a>> {
    Some(match step {
        PlanStep::CommandUnit { name, verb } => UnitRequest::Job { unit: name, verb: *verb },
        PlanStep::EnableUnit { name, enable: true, runtime } => {
            UnitRequest::Enable { unit: name, runtime: *runtime }
        }
        PlanStep::EnableUnit { name, enable: false, runtime } => {
            UnitRequest::Disable { unit: name, runtime: *runtime }
        }
        // A reload runs every generator, which was a third of a whole run.
        PlanStep::ReloadUnits if !changed.is_empty() => UnitRequest::Reread { units: changed },
        PlanStep::RestartNetwork => UnitRequest::Job { unit: NETWORKD, verb: UnitVerb::Restart },
        _ => return None,
    })
}

/// Notes that the manager must read a unit anew, if it has read it before.
fn note_change(unit: &str, change: FileChange, host: &ApplyContext<'_>) -> FileChange {
    if change == FileChange::Made && matches!(classify_unit(unit), Ok(UnitClass::System)) {
        host.changed_units.borrow_mut().push(unit.to_owned());
    }
    change
}

/// Writes a unit.
pub(crate) fn write_unit(
    name: &str,
    content: &str,
    runtime: bool,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let path = unit_path(name, runtime, host);
    // A mask in its place is lifted by this.
    Ok(note_change(name, files::write(&path, content.as_bytes(), unit_rights(name, content, host))?, host))
}

/// Writes a drop-in.
pub(crate) fn write_drop_in(
    unit: &str,
    name: &str,
    content: &str,
    runtime: bool,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let folder = unit_path(&format!("{unit}.d"), runtime, host);
    // Settings may hold passwords of the services.
    let rights = if runtime { FileRights::PRIVATE } else { FileRights::PUBLIC };
    let rights = if is_of_network(unit) { unit_rights(unit, content, host) } else { rights };
    Ok(note_change(unit, files::write(&folder.join(name), content.as_bytes(), rights)?, host))
}

fn is_of_network(unit: &str) -> bool {
    matches!(classify_unit(unit), Ok(UnitClass::Network))
}

/// Who may read a unit. The manager's own are no secret: it tells everybody who asks what is in them. The
/// keys of a network device are, and networkd, which is not root, must read them: see `systemd.netdev(5)`.
fn unit_rights(name: &str, content: &str, host: &ApplyContext<'_>) -> FileRights {
    let text = content.to_ascii_lowercase().replace([' ', '\t'], "");
    let has_secret = NETWORK_SECRETS.iter().any(|word| text.contains(word));
    let is_device = Path::new(name).extension().is_some_and(|kind| kind == "netdev");
    if !is_of_network(name) || !(has_secret || is_device) {
        return FileRights::PUBLIC;
    }
    match accounts::find_group(host.root, NETWORKD_GROUP) {
        // systemd.netdev(5) asks for this mode, owner root and the group systemd-network.
        Some(gid) => FileRights { gid, mode: 0o640, ..FileRights::PRIVATE },
        None if has_secret => FileRights::PRIVATE,
        None => FileRights::PUBLIC,
    }
}

/// The rights of a file that is such a unit, whatever it was asked for as: it is readable by all unless
/// somebody says otherwise, which few do who mean a key to be one.
pub(crate) fn file_rights(
    path: &str,
    content: &[u8],
    asked: FileRights,
    host: &ApplyContext<'_>,
) -> FileRights {
    let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
    let is_unit = NETWORK_FOLDERS.iter().any(|folder| path.starts_with(folder)) && is_of_network(&name);
    let wanted = unit_rights(&name, &String::from_utf8_lossy(content), host);
    // An owner or group that was asked for knows why.
    let is_plain = (asked.uid, asked.gid) == (0, 0) && asked.mode & 0o004 != 0;
    if is_unit && is_plain && wanted.mode & 0o004 == 0 { wanted } else { asked }
}

/// Masks, or lifts a mask.
pub(crate) fn mask_unit(
    name: &str,
    mask: bool,
    runtime: bool,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let path = unit_path(name, runtime, host);
    if mask {
        // systemd.unit(5): a link to /dev/null is a mask. By hand, since the manager would first have to read
        // a unit that may not be there yet.
        return Ok(note_change(name, files::replace_link(&path, "/dev/null")?, host));
    }
    let is_mask = fs::read_link(&path).is_ok_and(|target| target.as_os_str() == "/dev/null");
    // systemd.unit(5): an empty file is a mask, too.
    let is_empty = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
    if !is_mask && !is_empty {
        return Ok(FileChange::None);
    }
    fs::remove_file(&path).map_err(|source| StepError::Write { path, source })?;
    Ok(note_change(name, FileChange::Made, host))
}

fn unit_path(name: &str, runtime: bool, host: &ApplyContext<'_>) -> PathBuf {
    let unit = name.trim_end_matches(".d");
    let folder = match classify_unit(unit) {
        Ok(UnitClass::Network) => "network",
        _ => "system",
    };
    host.root.path_of(&format!("{}/systemd/{folder}/{name}", if runtime { "/run" } else { "/etc" }))
}
