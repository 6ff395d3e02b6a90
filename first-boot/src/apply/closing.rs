//! Messages, calls home and power.
//!
//! Knows the console. Refuses to end the machine while scripts run. Invariant: whoever calls home
//! says only what was asked for.
//!
//! Documentation: cloud-init's modules "Final Message", "Phone Home" and "Power State Change" in
//! <https://docs.cloud-init.io/en/latest/reference/modules.html>, systemd-run(1).

use std::fs;
use std::io::Write;

use user_data::plan::step::{PhoneHome, PowerStep};

use super::{ApplyContext, scripts};
use crate::files::FileChange;
use crate::programs::ProgramCall;
use crate::step_error::StepError;

const CONSOLE: &str = "/dev/console";

/// Shows a line on the console, with cloud-init's four variables in it.
pub(crate) fn show_message(text: &str, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let uptime = fs::read_to_string(host.root.path_of("/proc/uptime")).unwrap_or_default();
    let uptime = uptime.split(' ').next().unwrap_or_default().to_owned();
    let mut shown = text.to_owned();
    // As mail has it, which is cloud-init's way; a message without it costs no program.
    let asks = shown.to_ascii_lowercase().contains("$timestamp");
    let now = if asks {
        host.programs.run_program(&ProgramCall::new("date", ["--rfc-email"])).unwrap_or_default()
    } else {
        Vec::new()
    };
    let now = String::from_utf8_lossy(&now).trim().to_owned();
    for (name, value) in [
        ("uptime", uptime.as_str()),
        ("version", env!("CARGO_PKG_VERSION")),
        ("datasource", "catamaran"),
        ("timestamp", now.as_str()),
    ] {
        shown =
            // cloud-init takes both spellings.
            shown.replace(&format!("${name}"), value).replace(&format!("${}", name.to_uppercase()), value);
    }
    say_on_console(&(shown.trim_end().to_owned() + "\n"), host)
}

/// Writes to the console.
pub(crate) fn say_on_console(text: &str, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let path = host.root.path_of(CONSOLE);
    // A container has none, and nobody who could read there.
    if !path.exists() {
        return Ok(FileChange::None);
    }
    let said =
        fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    said.map(|()| FileChange::Made).map_err(|source| StepError::Write { path, source })
}

/// Posts what was asked for.
pub(crate) fn phone_home(home: &PhoneHome, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let url = home.url.replace("$INSTANCE_ID", host.instance_id);
    let form: Vec<(String, String)> =
        home.post.iter().filter_map(|name| Some((name.clone(), read_fact(name, host)?))).collect();
    host.web.post(&url, &form, home.tries)?;
    Ok(FileChange::Made)
}

fn read_fact(name: &str, host: &ApplyContext<'_>) -> Option<String> {
    let read = |path: &str| Some(fs::read_to_string(host.root.path_of(path)).ok()?.trim_end().to_owned());
    match name {
        "instance_id" => Some(host.instance_id.to_owned()),
        "hostname" => read("/etc/hostname").map(|name| name.split('.').next().unwrap_or_default().to_owned()),
        "fqdn" => read("/etc/hostname"),
        name => read(&format!("/etc/ssh/ssh_host_{}_key.pub", name.strip_prefix("pub_key_")?)),
    }
}

/// Ends the machine after its scripts, as a unit of its own that waits for them.
pub(crate) fn change_power(power: &PowerStep, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    if let Some(condition) = &power.condition
        && !condition_holds(condition, host)
    {
        return Ok(FileChange::None);
    }
    let scripts = scripts::script_unit("*");
    let script = format!(
        "while systemctl is-active --quiet '{scripts}'; do sleep 1; done; sleep {}; exec systemctl {}",
        u64::from(power.delay_minutes) * 60,
        power.mode,
    );
    if let Some(message) = &power.message {
        say_on_console(&format!("{message}\n"), host)?;
    }
    let after = scripts::script_unit("runcmd");
    host.programs.run_program(&ProgramCall::new(
        "systemd-run",
        [
            "--unit=catamaran-power.service",
            "--quiet",
            "--collect",
            "--no-block",
            &format!("--property=After={after}"),
            "--",
            "/bin/sh",
            "-c",
            &script,
        ],
    ))?;
    Ok(FileChange::Made)
}

/// Whether the condition's command succeeds; it may take a minute.
fn condition_holds(condition: &[String], host: &ApplyContext<'_>) -> bool {
    let arguments = ["--quiet", "--collect", "--wait", "--property=RuntimeMaxSec=60", "--"];
    let arguments = arguments.into_iter().map(str::to_owned).chain(condition.iter().cloned());
    host.programs.run_program(&ProgramCall::new("systemd-run", arguments)).is_ok()
}
