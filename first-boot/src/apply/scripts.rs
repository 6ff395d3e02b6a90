//! Scripts, as transient units.
//!
//! Knows systemd-run. Refuses to wait without a bound: a script that hangs must not cost the boot.
//! Invariant: a script is readable by root only, since people put secrets into them.
//!
//! Documentation: systemd-run(1), systemd.exec(5), systemd.service(5).

use std::time::Duration;

use user_data::plan::step::ScriptStep;

use super::ApplyContext;
use crate::files::{self, FileChange, FileRights};
use crate::programs::ProgramCall;
use crate::record;
use crate::step_error::StepError;

/// How much longer than its script we wait for systemd-run to say so.
const GRACE: Duration = Duration::from_secs(10);

/// Starts a script, and waits for it as long as the plan says.
pub(crate) fn run_script(script: &ScriptStep, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let path = format!("{}/scripts/{}", record::FOLDER, script.name);
    // The file itself is run, so that its first line chooses the interpreter, execve(2).
    let rights = FileRights { uid: 0, gid: 0, mode: 0o700 };
    record::prepare_folder(host.root)?;
    files::write(&host.root.path_of(&path), script.body.reveal(), rights)?;
    let mut arguments = vec![
        format!("--unit={}", script_unit(&script.name)),
        format!("--description=User-data: {}", script.name),
        format!("--setenv=INSTANCE_ID={}", host.instance_id),
        // Proxies that the document has set are there. The hyphen: a machine may have no such file.
        "--property=EnvironmentFile=-/etc/environment".to_owned(),
        "--property=SyslogIdentifier=user-data".to_owned(),
        // systemd.exec(5) sets it for units with `User=` only, and some programs stop without, git among
        // them.
        "--setenv=HOME=/root".to_owned(),
        // systemd-run(1): without it a script that failed would keep the unit's name from the next run.
        "--collect".to_owned(),
    ];
    let mut call_patience = GRACE;
    match script.wait {
        Some(seconds) => {
            arguments.extend(["--wait".to_owned(), format!("--property=RuntimeMaxSec={seconds}")]);
            call_patience += Duration::from_secs(seconds.into());
        }
        None => arguments.extend([
            "--no-block".to_owned(),
            // cloud-init runs such scripts in its final stage, which comes after the network, too.
            "--property=Wants=network-online.target".to_owned(),
            "--property=After=network-online.target".to_owned(),
        ]),
    }
    arguments.extend(["--".to_owned(), path]);
    host.programs.run_program(&ProgramCall::new("systemd-run", arguments).with_timeout(call_patience))?;
    Ok(FileChange::Made)
}

/// The unit of a script.
pub(crate) fn script_unit(script: &str) -> String {
    format!("catamaran-user-{script}.service")
}
