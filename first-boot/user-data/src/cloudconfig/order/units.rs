//! The steps for units of systemd and for the services that CoreOS names.
//!
//! Knows that files come before links, and links before starts. Refuses to read a document. Invariant: every file of
//! every unit is there before systemd is asked to read any.

use document::source::Located;

use super::super::CloudConfig;
use super::super::services::ServiceSettings;
use super::super::units::UnitConfig;
use super::SECRETS;
use super::settings::settings_file;
use crate::plan::step::{PlanStep, UnitVerb};
use crate::plan::{FirstBootPlan, PlanStage, StepOrigin};
use crate::secret::Secret;
use crate::systemd::UnitClass;

/// What runs on each machine of a cluster. On a worker etcd's unit skips itself.
pub(super) const CLUSTER_UNITS: [&str; 2] = ["etcd.service", "fleet.service"];

/// Contents first, then one reload, then masks and enables, then commands: none waits for another.
pub(super) fn plan_units(plan: &mut FirstBootPlan, config: &CloudConfig) {
    let units = &config.units;
    for unit in units {
        unit_files(plan, unit);
    }
    service_files(plan, config);
    let wrote = plan.steps.iter().any(|one| one.stage == PlanStage::Units);
    for unit in units {
        unit_links(plan, unit);
    }
    if wrote || units.iter().any(|unit| unit.value.mask) {
        // One reload for all: it runs every generator, which took a third of an apply.
        plan.every_boot(PlanStage::Units, StepOrigin::from("agent"), PlanStep::ReloadUnits);
    }
    // A drop-in alone changes the network too: of the image's own file, or of one that is there.
    let changes_network = |unit: &Located<UnitConfig>| {
        let UnitConfig { class, content, drop_ins, .. } = &unit.value;
        *class == UnitClass::Network && (content.is_some() || !drop_ins.is_empty())
    };
    if units.iter().any(changes_network) {
        plan.every_boot(PlanStage::Units, StepOrigin::from("agent"), PlanStep::RestartNetwork);
    }
    if config.system.ntp.is_some() {
        push_restart(plan, "systemd-timesyncd.service");
    }
    if config.system.resolver.is_some() {
        push_restart(plan, "systemd-resolved.service");
    }
    // As `command: start` would, so that one key makes a member of a cluster.
    if let Some(definition) = &config.cluster.definition {
        for name in CLUSTER_UNITS {
            let step = PlanStep::CommandUnit { name: name.to_owned(), verb: UnitVerb::Start };
            plan.every_boot(PlanStage::Units, StepOrigin::from_mark(definition.at, "cluster"), step);
        }
    }
    for unit in units {
        let UnitConfig { class, mask, .. } = &unit.value;
        // A masked unit can only be stopped.
        let possible = |verb: &UnitVerb| *class == UnitClass::System && (!mask || *verb == UnitVerb::Stop);
        let command = unit.value.command.filter(possible);
        if let Some(verb) = command {
            let step = PlanStep::CommandUnit { name: unit.value.name.clone(), verb };
            plan.every_boot(PlanStage::Units, StepOrigin::from_mark(unit.at, &unit.value.key), step);
        }
    }
}

pub(super) fn push_restart(plan: &mut FirstBootPlan, unit: &str) {
    let step = PlanStep::CommandUnit { name: unit.to_owned(), verb: UnitVerb::TryRestart };
    plan.push_once(PlanStage::Units, StepOrigin::from("agent"), step);
}

pub(super) fn unit_files(plan: &mut FirstBootPlan, unit: &Located<UnitConfig>) {
    let UnitConfig { name, content, drop_ins, runtime, .. } = &unit.value;
    let origin = || StepOrigin::from_mark(unit.at, &unit.value.key);
    let mut add = |step| match runtime {
        true => plan.every_boot(PlanStage::Units, origin(), step),
        false => plan.push_once(PlanStage::Units, origin(), step),
    };
    if let Some(content) = content.as_ref().filter(|_| !unit.value.mask) {
        add(PlanStep::WriteUnit { name: name.clone(), content: content.clone(), runtime: *runtime });
    }
    for (drop_in, content) in drop_ins {
        add(PlanStep::WriteDropIn {
            unit: name.clone(),
            name: drop_in.clone(),
            content: content.clone(),
            runtime: *runtime,
        });
    }
}

pub(super) fn unit_links(plan: &mut FirstBootPlan, unit: &Located<UnitConfig>) {
    let UnitConfig { name, class, enable, mask, runtime, .. } = &unit.value;
    let origin = || StepOrigin::from_mark(unit.at, &unit.value.key);
    let mut add = |step| match runtime {
        true => plan.every_boot(PlanStage::Units, origin(), step),
        false => plan.push_once(PlanStage::Units, origin(), step),
    };
    if *mask {
        add(PlanStep::MaskUnit { name: name.clone(), mask: true, runtime: *runtime });
    } else if let Some(enable) = enable.filter(|_| *class == UnitClass::System) {
        add(PlanStep::EnableUnit { name: name.clone(), enable, runtime: *runtime });
    }
}

/// The services' own configuration: in /run, so it is made at each boot with that boot's addresses.
pub(super) fn service_files(plan: &mut FirstBootPlan, config: &CloudConfig) {
    for settings in &config.services.environments {
        for step in service_steps(settings) {
            let origin = StepOrigin::from_mark(settings.at, format!("coreos.{}", settings.service));
            plan.every_boot(PlanStage::Units, origin, step);
        }
    }
}

/// Passwords are for the manager's eyes, which reads the files as root and hands the variables on.
pub(super) fn service_steps(settings: &ServiceSettings) -> Vec<PlanStep> {
    let unit = match settings.service {
        "flannel" => {
            return vec![PlanStep::WriteFile(settings_file(
                "/run/flannel/options.env",
                settings.environment_lines(),
                // flanneld's password may be in it.
                0o600,
            ))];
        }
        "locksmith" => "locksmithd.service".to_owned(),
        service => format!("{service}.service"),
    };
    let secrets = format!("{SECRETS}/{unit}.env");
    let (drop_in, hidden) = settings.drop_in(&secrets);
    let hidden = hidden.map(|text| PlanStep::WriteFile(settings_file(&secrets, text, 0o600)));
    let drop_in = PlanStep::WriteDropIn {
        unit,
        // coreos-cloudinit's own name, so that drop-ins with higher numbers go over it, as they did there.
        name: "20-cloudinit.conf".to_owned(),
        content: Secret::new(drop_in),
        runtime: true,
    };
    hidden.into_iter().chain([drop_in]).collect()
}
