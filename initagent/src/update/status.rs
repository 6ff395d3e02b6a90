//! What an update is up to, for people, programs and Prometheus.
//!
//! Knows words. Refuses to ask the network: `status` answers at once, whatever mirrors do, and while another
//! process installs. Invariant: the same facts in each form.

use std::fmt::{self, Write as _};
use std::fs;

use serde::Serialize;

use super::journal::{HistoryEntry, Journal};
use super::machine::UpdateMachine;
use super::phase::{Outcome, Phase, TrialKind};
use super::settings::UpdateSettings;

/// Where `node_exporter`'s textfile collector looks, by Debian's default.
pub(crate) const METRICS: &str = "var/lib/prometheus/node-exporter/catamaran-update.prom";

/// How an update stands.
#[derive(Debug, Serialize)]
pub(crate) struct UpdateStatus {
    running: RunningView,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trial: Option<TrialKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<serde_json::Value>,
    reboot_required: bool,
    channel: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_check: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<FailureView>,
    not_tried_again: Vec<String>,
    settings: UpdateSettings,
}

#[derive(Debug, Serialize)]
struct RunningView {
    slot: String,
    version: String,
}

#[derive(Debug, Serialize)]
struct TargetView {
    slot: String,
    version: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct FailureView {
    version: String,
    slot: String,
    at: u64,
    reason: String,
    details: String,
}

/// How an update stands, as `update_engine` said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineStatus {
    last_checked: u64,
    done: u64,
    total: u64,
    operation: &'static str,
    version: String,
}

impl EngineStatus {
    /// What `GetStatus` answers and `StatusUpdate` says: when it was asked last, how far it is, what is being done,
    /// the new version and its size.
    pub(crate) fn to_arguments(&self) -> (i64, f64, String, String, i64) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let progress = f64::from(self.millionths()) / 1e6;
        let operation = format!("UPDATE_STATUS_{}", self.operation);
        (number(self.last_checked), progress, operation, self.version.clone(), number(self.total))
    }

    fn millionths(&self) -> u32 {
        let share = self.done.saturating_mul(1_000_000).checked_div(self.total).unwrap_or_default();
        u32::try_from(share.min(1_000_000)).unwrap_or(1_000_000)
    }

    /// A download of which so much is done.
    #[cfg(test)]
    pub(crate) fn of_download(last_checked: u64, done: u64, total: u64, version: &str) -> Self {
        Self { last_checked, done, total, operation: "DOWNLOADING", version: version.to_owned() }
    }
}

impl fmt::Display for EngineStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millionths = self.millionths();
        write!(
            f,
            "LAST_CHECKED_TIME={}\nPROGRESS={}.{:06}\nCURRENT_OP=UPDATE_STATUS_{}\nNEW_VERSION={}\nNEW_SIZE={}\n",
            self.last_checked,
            millionths / 1_000_000,
            millionths % 1_000_000,
            self.operation,
            self.version,
            self.total,
        )
    }
}

impl UpdateStatus {
    /// Gathers it.
    pub(crate) fn gather_status(
        machine: &UpdateMachine,
        journal: &Journal,
        settings: UpdateSettings,
    ) -> Self {
        let record = &machine.record;
        let read_json = |name: &str| serde_json::from_slice(&fs::read(machine.run_file(name)).ok()?).ok();
        let is_fetching = matches!(journal.phase, Phase::Fetching(_));
        let last_error = match &journal.phase {
            Phase::Fetching(fetching) => fetching.last_error.clone(),
            _ => None,
        };
        let target = journal.phase.update_target().map(|target| TargetView {
            slot: target.slot.to_string(),
            version: target.version.to_string(),
            source: target.source.clone(),
            last_error,
        });
        let last_failure = journal.last_failure().map(|(entry, failure)| FailureView {
            version: entry.target.version.to_string(),
            slot: entry.target.slot.to_string(),
            at: entry.at,
            reason: failure.failure_sentence(),
            details: failure.details.clone(),
        });
        let condemned =
            journal.failed.iter().filter(|failed| journal.find_objection(failed.root_hash).is_some());
        Self {
            running: RunningView { slot: record.slot.to_string(), version: record.version.to_string() },
            phase: journal.phase.phase_word(),
            trial: journal.phase.trial_kind(),
            progress: if is_fetching { read_json("progress.json") } else { None },
            target,
            reboot_required: machine.reboot_is_required(),
            channel: channel_name(machine, journal, &settings),
            pinned: journal.pinned.as_ref().map(ToString::to_string),
            last_check: read_json("check.json"),
            last_failure,
            not_tried_again: condemned
                .map(|failed| format!("{} ({})", failed.version, failed.reason))
                .collect(),
            settings,
        }
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> String {
        // Strings, numbers and lists only: there is nothing that JSON could not hold.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{:<10} {value}", format!("{name}:"));
        };
        line("running", &format!("{} in slot {}", self.running.version, self.running.slot));
        line("phase", self.phase);
        if let Some(kind) = self.trial {
            line("trial", describe_trial(kind));
        }
        if let Some(target) = &self.target {
            line("target", &format!("{} in slot {}, from {}", target.version, target.slot, target.source));
            target.last_error.iter().for_each(|error| line("error", error));
        }
        if let Some(progress) = &self.progress {
            let number =
                |name: &str| progress.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
            let stage = progress.get("stage").and_then(serde_json::Value::as_str).unwrap_or_default();
            let share = number("done").saturating_mul(100).checked_div(number("total")).unwrap_or_default();
            line("progress", &format!("{stage}, {share} %"));
        }
        line("channel", &self.channel);
        match self.settings.mirrors.as_slice() {
            [] => line("server", "none: set SERVER in /etc/coreos/update.conf"),
            mirrors => line("server", &mirrors.join(" ")),
        }
        self.pinned.iter().for_each(|version| line("pinned", version));
        if self.reboot_required {
            line("restart", "required");
        }
        if let Some(check) = &self.last_check {
            line("checked", check.get("said").and_then(serde_json::Value::as_str).unwrap_or_default());
        }
        if let Some(failure) = &self.last_failure {
            line("failed", &format!("{} in slot {}: {}", failure.version, failure.slot, failure.reason));
        }
        self.not_tried_again.iter().for_each(|release| line("avoided", release));
        self.settings.warnings.iter().for_each(|warning| line("warning", warning));
        text
    }

    /// As `update_engine_client -status` prints it, which scripts of `CoreOS` and Flatcar read
    /// (<https://github.com/flatcar/update_engine>, `update_engine_client.cc`).
    pub(crate) fn to_engine_text(&self) -> String {
        self.to_engine_status().to_string()
    }

    /// As `update_engine` had it.
    pub(crate) fn to_engine_status(&self) -> EngineStatus {
        let number = |json: &Option<serde_json::Value>, name: &str| {
            json.as_ref()
                .and_then(|json| json.get(name))
                .and_then(serde_json::Value::as_u64)
                .unwrap_or_default()
        };
        let stage = self.progress.as_ref().and_then(|progress| progress.get("stage")?.as_str());
        let operation = match (self.phase, stage) {
            // It runs already, and nobody has to restart for it.
            ("armed", _) if self.trial == Some(TrialKind::AfterSoft) => "IDLE",
            ("armed", _) => "UPDATED_NEED_REBOOT",
            ("fetching", Some("verifying")) => "VERIFYING",
            ("fetching", _) => "DOWNLOADING",
            ("written", _) => "FINALIZING",
            // A trial is over for who waits for a restart; the old program knew none.
            _ => "IDLE",
        };
        EngineStatus {
            last_checked: number(&self.last_check, "at"),
            done: number(&self.progress, "done"),
            total: number(&self.progress, "total"),
            operation,
            version: self.target.as_ref().map_or_else(|| "0.0.0".to_owned(), |target| target.version.clone()),
        }
    }

    /// For Prometheus.
    pub(crate) fn to_metrics(&self) -> String {
        let phases = ["armed", "fetching", "steady", "trial", "written"].map(|phase| {
            format!("catamaran_update_phase{{phase=\"{phase}\"}} {}\n", u8::from(phase == self.phase))
        });
        format!(
            "# HELP catamaran_update_info What runs.\n# TYPE catamaran_update_info gauge\n\
             catamaran_update_info{{version=\"{}\",slot=\"{}\",channel=\"{}\"}} 1\n\
             # HELP catamaran_update_phase Where an update stands.\n# TYPE catamaran_update_phase gauge\n{}\
             # HELP catamaran_update_reboot_required Whether a restart is due.\n\
             # TYPE catamaran_update_reboot_required gauge\ncatamaran_update_reboot_required {}\n\
             # HELP catamaran_update_failed Whether the last update came to nothing.\n\
             # TYPE catamaran_update_failed gauge\ncatamaran_update_failed {}\n",
            self.running.version,
            self.running.slot,
            self.channel.replace(['"', '\\', '\n'], ""),
            phases.concat(),
            u8::from(self.reboot_required),
            u8::from(self.last_failure.is_some()),
        )
    }
}

fn describe_trial(kind: TrialKind) -> &'static str {
    match kind {
        TrialKind::AfterSoft => "passed without a restart; the next boot from the disk is counted",
        TrialKind::Restart => "by a restart, counted by the boot loader",
        TrialKind::Soft => "by a soft-reboot; every accident ends on the old slot",
    }
}

/// The channel that this machine follows: a person's choice, the configured one, or the image's own.
pub(crate) fn channel_name(machine: &UpdateMachine, journal: &Journal, settings: &UpdateSettings) -> String {
    let chosen = journal.channel.clone().or_else(|| settings.channel.clone());
    chosen.unwrap_or_else(|| machine.record.channel.clone())
}

/// What was done, the newest first.
pub(crate) fn history_text(history: &[HistoryEntry]) -> String {
    let mut text = String::new();
    for entry in history.iter().rev() {
        let (version, slot, source) = (&entry.target.version, entry.target.slot, &entry.target.source);
        let at = image_format::release::time::UnixTime::from_seconds(entry.at);
        // Writing to a String does not fail.
        let _ = match &entry.outcome {
            Outcome::Abandoned(why) => writeln!(text, "{at}  {version} in slot {slot}: given up, {why}"),
            Outcome::Failed(failure) => {
                let rest: Vec<String> =
                    failure.details.lines().skip(1).map(|line| format!("    {line}\n")).collect();
                writeln!(
                    text,
                    "{at}  {version} in slot {slot}: {} ({} runs)",
                    failure.failure_sentence(),
                    entry.running
                )
                .and_then(|()| write!(text, "{}", rest.concat()))
            }
            Outcome::Succeeded => writeln!(text, "{at}  {version} in slot {slot}: good, from {source}"),
        };
    }
    if text.is_empty() { "no update has ended on this machine yet".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use image_format::version::Version;

    use super::super::phase::{Cause, Failure, Fetching};
    use super::super::tests::{Bench, target};
    use super::*;

    #[test]
    fn people_programs_and_prometheus_read_the_same() {
        let bench = Bench::new();
        let failure = Failure::new(Cause::Check("sshd".into()), "it is dead\nmore");
        let fetching = Fetching { target: target(b"next"), attempts: 1, last_error: Some("a cut".into()) };
        let journal = Journal::default()
            .end_update(0, Version::new(1, 0, 0), target(b"new"), Outcome::Failed(failure))
            .enter_phase(Phase::Fetching(fetching));
        bench
            .machine
            .write_run_file("progress.json", "{\"stage\": \"writing\", \"done\": 1, \"total\": 4}")
            .unwrap();

        let status = UpdateStatus::gather_status(&bench.machine, &journal, UpdateSettings::default());

        let text = status.to_text();
        for words in [
            "running:   1.0.0 in slot A",
            "target:    1.1.0 in slot B, from /media/stick",
            "error:     a cut",
            "progress:  writing, 25 %",
            "channel:   stable",
            "failed:    1.1.0 in slot B: the check \"sshd\" failed: it is dead",
            "avoided:   1.1.0 (",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let json: serde_json::Value = serde_json::from_str(&status.to_json()).unwrap();
        assert_eq!((&json["phase"], &json["last_failure"]["slot"]), (&"fetching".into(), &"B".into()));
        let engine = "LAST_CHECKED_TIME=0\nPROGRESS=0.250000\nCURRENT_OP=UPDATE_STATUS_DOWNLOADING\nNEW_VERSION=1.1.0\nNEW_SIZE=4\n";
        assert_eq!(status.to_engine_text(), engine);
        assert!(status.to_metrics().contains("catamaran_update_phase{phase=\"fetching\"} 1\n"));
        let history = history_text(&journal.history);
        assert!(history.contains("1.1.0 in slot B: the check") && history.contains("    more"), "{history}");
    }
}
