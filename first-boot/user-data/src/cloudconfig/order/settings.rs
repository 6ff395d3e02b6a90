//! The steps for the machine's own settings: each is a file of its own.
//!
//! Knows which file takes which setting. Refuses to decide what a setting may be. Invariant: one file for one setting, so
//! that a wrong one costs itself alone.

use document::source::SourceMark;

use super::super::CloudConfig;
use super::{ENVIRONMENT, PlanFacts, SWITCH};
use crate::cluster::DEFINITION;
use crate::plan::step::{AccountRef, ExistingFile, FileContent, FileOwner, FileStep, PlanStep};
use crate::plan::{FirstBootPlan, PlanStage, StepOrigin};
use crate::secret::Secret;

/// Settings that are files.
pub(super) fn plan_settings(plan: &mut FirstBootPlan, config: &CloudConfig, facts: &PlanFacts) {
    let mut write = |at: SourceMark, key: &str, path: &str, text: String| {
        plan.push_once(
            PlanStage::Files,
            StepOrigin::from_mark(at, key),
            PlanStep::WriteFile(settings_file(path, text, 0o644)),
        );
    };
    let system = &config.system;
    if let Some(word) = &system.provision {
        write(word.at, "provision", SWITCH, format!("{}\n", word.value));
    }
    if let Some(locale) = &system.locale {
        write(locale.at, "locale", "/etc/locale.conf", format!("LANG={}\n", locale.value));
    }
    if let Some(ntp) = &system.ntp {
        let text = format!("[Time]\nNTP={}\n", ntp.value.join(" "));
        write(ntp.at, "ntp", "/etc/systemd/timesyncd.conf.d/cloud-init.conf", text);
    }
    if let Some(resolver) = &system.resolver {
        let (servers, domains) = &resolver.value;
        let text = format!("[Resolve]\nDNS={}\nDomains={}\n", servers.join(" "), domains.join(" "));
        write(resolver.at, "resolv_conf", "/etc/systemd/resolved.conf.d/50-cloud-init.conf", text);
    }
    if let Some((at, key, text)) = sshd_settings(config) {
        write(at, key, "/etc/ssh/sshd_config.d/50-cloud-init.conf", text);
    }
    if let Some(oem) = &config.services.oem {
        write(oem.at, "coreos.oem", "/etc/oem-release", oem.value.clone());
    }
    if let Some(zone) = &system.timezone {
        plan.push_once(
            PlanStage::Files,
            StepOrigin::from_mark(zone.at, "timezone"),
            PlanStep::SetTimezone(zone.value.clone()),
        );
    }
    if let Some(authorities) = &system.authorities {
        let (trusted, remove_defaults) = authorities.value.clone();
        let step = PlanStep::TrustCertificates { trusted, remove_defaults };
        plan.push_once(PlanStage::Files, StepOrigin::from_mark(authorities.at, "ca_certs"), step);
    }
    environment_files(plan, config, facts);
    plan_cluster_file(plan, config);
}

/// The machine's cluster, for the programs that form it at each boot.
pub(super) fn plan_cluster_file(plan: &mut FirstBootPlan, config: &CloudConfig) {
    if let Some(definition) = &config.cluster.definition {
        let step = PlanStep::WriteFile(settings_file(DEFINITION, definition.value.definition_text(), 0o600));
        plan.push_once(PlanStage::Files, StepOrigin::from_mark(definition.at, "cluster"), step);
    }
}

/// Settings of sshd, in a file that comes before the image's own: of each, sshd takes the first.
pub(super) fn sshd_settings(config: &CloudConfig) -> Option<(SourceMark, &'static str, String)> {
    let word = |flag: bool| if flag { "yes" } else { "no" };
    let access = &config.access;
    let (login, root) = (access.password_login, access.close_root);
    let rsa = access.key_types.iter().any(|kind| kind == "rsa")
        || access.host_keys.iter().any(|(name, _)| name == "ssh_host_rsa_key");
    let mut text = String::new();
    if let Some(login) = login {
        text.extend(["PasswordAuthentication ", word(login.value), "\n"]);
    }
    if let Some(root) = root {
        // `prohibit-password` is sshd's own default, so `disable_root: false` lets in by key alone.
        text.extend(["PermitRootLogin ", if root.value { "no" } else { "prohibit-password" }, "\n"]);
    }
    if rsa {
        // The image's sshd_config names ed25519 and ecdsa only, and the first `HostKey` of all ends the
        // built-in list.
        text.push_str("HostKey /etc/ssh/ssh_host_rsa_key\n");
    }
    let places = [
        login.map(|flag| (flag.at, "ssh_pwauth")),
        root.map(|flag| (flag.at, "disable_root")),
        access.key_types_at.filter(|_| rsa).map(|at| (at, "ssh_genkeytypes")),
        access.host_keys_at.filter(|_| rsa).map(|at| (at, "ssh_keys")),
    ];
    let (at, key) = places.into_iter().flatten().next()?;
    Some((at, key, text))
}

pub(super) fn environment_files(plan: &mut FirstBootPlan, config: &CloudConfig, facts: &PlanFacts) {
    if let Some(update) = &config.services.update {
        let step = PlanStep::MergeEnvironment {
            path: "/etc/coreos/update.conf".to_owned(),
            template: Some("/usr/share/coreos/update.conf".to_owned()),
            variables: update.variables.clone(),
        };
        plan.push_once(PlanStage::Files, StepOrigin::from_mark(update.at, "coreos.update"), step);
    }
    let lines = facts.addresses.environment_lines();
    if !lines.is_empty() {
        let variables = lines.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        let step = PlanStep::MergeEnvironment { path: ENVIRONMENT.to_owned(), template: None, variables };
        plan.every_boot(PlanStage::Files, StepOrigin::from("platform"), step);
    }
}

pub(super) fn settings_file(path: &str, text: String, mode: u32) -> FileStep {
    FileStep {
        path: path.to_owned(),
        content: FileContent::Inline(Secret::new(text.into_bytes())),
        mode: Some(mode),
        owner: FileOwner { user: Some(AccountRef::Id(0)), group: Some(AccountRef::Id(0)) },
        existing: ExistingFile::Replace,
    }
}
