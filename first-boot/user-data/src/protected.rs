//! The one guard of the way in: every step of every plan passes here before it is carried out.
//!
//! Knows paths, and by `units` what units do to each other. Refuses to know who asks. Invariant:
//! user-data cannot cost the machine its SSH access. What can be seen only on the machine (a broken
//! `sshd_config`, what a link leads to, what was fetched) the one who acts judges by the same tables,
//! or after the fact and takes back. Not judged are programs, which may do anything, and firewalls.
//!
//! Documentation: sshd(8), `sshd_config(5)`, nologin(5), `hosts_access(5)`, nsswitch.conf(5), ld.so(8) and
//! file-hierarchy(7).

pub mod fstab;
pub mod mounts;
pub mod paths;
mod settings;
mod units;

use std::collections::HashSet;

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

use crate::plan::step::{FileContent, LinkStep, PlanStep, UnitVerb};
use crate::plan::{FirstBootPlan, PlannedStep};
use crate::secret::Secret;
use crate::systemd::{UnitClass, classify_unit};
use paths::{check_directory, denied_path, instead_of};
use units::UnitTextKind;

/// Directories of units, of those that systemd reads.
// The load path of systemd.unit(5) without what is below /usr, which is read-only.
const UNIT_FOLDERS: [&str; 9] = [
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/etc/systemd/system.control",
    "/run/systemd/generator",
    "/run/systemd/generator.early",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/system.control",
    "/run/systemd/transient",
];

/// How long ssh may wait for a unit that does not say how long it takes: systemd's own limit for services
/// of other types, which is long enough for what is done once in a boot.
const BOUND_SECONDS: u32 = 90;

/// Why something may not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyObjection {
    /// What is wrong with it.
    pub message: String,
    /// What to do instead.
    pub instead: String,
}

impl PolicyObjection {
    fn new(message: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { message: message.into(), instead: instead.into() }
    }
}

/// Takes out of a plan what may not be done, and says so where it was asked for. What is objected to
/// costs the item that it belongs to; a drop-in costs itself.
pub fn take_out(plan: &mut FirstBootPlan, found: &mut Diagnostics) {
    let (mut items, mut alone) = (HashSet::new(), HashSet::new());
    // Before the judgement, so that a unit that can be mended is not refused.
    let bounded = bound_units(plan, found);
    let homes = mounts::foreign_homes(plan);
    for (index, planned) in plan.steps.iter().enumerate() {
        // What is refused is the unit without its bound, and the drop-in gives it one.
        let is_bounded = matches!(&planned.step, PlanStep::WriteUnit { name, .. } if bounded.contains(name));
        let objection = check_step(&planned.step).filter(|_| !is_bounded);
        let objection = objection.or_else(|| mounts::over_homes(&planned.step, &homes));
        let (Some(objection), Some(at)) = (objection, planned.origin.at) else { continue };
        let is_first = !items.contains(&(at, planned.origin.key.clone()));
        alone.insert(index);
        // Drop-ins add up. Without the refused one, the unit is what its other files say.
        if !matches!(planned.step, PlanStep::WriteDropIn { .. }) {
            items.insert((at, planned.origin.key.clone()));
        }
        if is_first {
            let diagnostic = Diagnostic::error(DiagnosticCode::Protected, at, objection.message);
            found.push(diagnostic.with_help(objection.instead).with_key(planned.origin.key.clone()));
        }
    }
    let mut index = 0;
    plan.steps.retain(|planned| {
        index += 1;
        let is_of_item =
            planned.origin.at.is_some_and(|at| items.contains(&(at, planned.origin.key.clone())));
        !is_of_item && !alone.contains(&(index - 1))
    });
}

/// Bounds the units that the way in would wait for without an end, by a drop-in beside each.
///
/// Files that worked on CoreOS have many such: a oneshot before `network.target`, say. Nobody waits for
/// them longer than the drop-in says, so that they need not be refused.
fn bound_units(plan: &mut FirstBootPlan, found: &mut Diagnostics) -> HashSet<String> {
    let mut bounded = HashSet::new();
    let mut steps = Vec::with_capacity(plan.steps.len());
    for planned in std::mem::take(&mut plan.steps) {
        let bound = match &planned.step {
            PlanStep::WriteUnit { name, content, runtime } if units::lacks_bound(name, content.reveal()) => {
                bounded.insert(name.clone());
                Some(bound_of(name, *runtime))
            }
            _ => None,
        };
        let bound = bound.map(|step| PlannedStep { step, ..planned.clone() });
        if let (Some(_), Some(at), PlanStep::WriteUnit { name, .. }) =
            (&bound, planned.origin.at, &planned.step)
        {
            let message = format!(
                "`TimeoutStartSec={BOUND_SECONDS}` is added to {name}: ssh waits for it, so it must end"
            );
            found.push(
                Diagnostic::note(DiagnosticCode::Translated, at, message)
                    .with_key(planned.origin.key.clone()),
            );
        }
        steps.push(planned);
        steps.extend(bound);
    }
    plan.steps = steps;
    bounded
}

fn bound_of(unit: &str, runtime: bool) -> PlanStep {
    PlanStep::WriteDropIn {
        unit: unit.to_owned(),
        // A low number, so that a drop-in of the author's with another time goes over it.
        name: "10-catamaran-bound.conf".to_owned(),
        content: Secret::new(format!("[Service]\nTimeoutStartSec={BOUND_SECONDS}\n")),
        runtime,
    }
}

/// Why a step may not be carried out.
#[must_use]
pub fn check_step(step: &PlanStep) -> Option<PolicyObjection> {
    match step {
        PlanStep::AddMounts(mounts) => mounts.iter().find_map(fstab::check_line),
        PlanStep::CommandUnit { name, verb: UnitVerb::Stop }
        | PlanStep::EnableUnit { name, enable: false, .. }
        | PlanStep::MaskUnit { name, mask: true, .. } => {
            units::check_disable(name).or_else(|| mounts::removal_objection(name))
        }
        PlanStep::CommandUnit { name, .. } | PlanStep::EnableUnit { name, .. } => units::check_start(name),
        PlanStep::MakeDirectory(directory) => {
            check_path(&directory.path).or_else(|| check_directory(directory))
        }
        PlanStep::MakeLink(link) => {
            check_path(&link.path).or_else(|| instead_of(&link.path)).or_else(|| check_link(link))
        }
        // What is fetched is judged on the machine, where its bytes are.
        PlanStep::PlaceFile(file) => match file.known_content() {
            None => check_path(&file.path).or_else(|| instead_of(&file.path)),
            Some(bytes) => check_file(&file.path, &bytes),
        },
        PlanStep::WriteDropIn { unit, name, content, .. } => {
            unit_text(unit, UnitTextKind::DropIn(name), content.reveal())
        }
        PlanStep::MakeSwap { path, .. } => mounts::mount_objection(path),
        PlanStep::WriteFile(file) => match &file.content {
            FileContent::Fetched(_) => check_path(&file.path).or_else(|| instead_of(&file.path)),
            FileContent::Inline(bytes) => check_file(&file.path, bytes.reveal()),
        },
        PlanStep::WriteUnit { name, content, .. } if matches!(classify_unit(name), Ok(UnitClass::System)) => {
            replacement_objection(name).or_else(|| unit_text(name, UnitTextKind::Whole, content.reveal()))
        }
        _ => None,
    }
}

/// Why a file of this content may not be written at this path.
#[must_use]
pub fn check_file(path: &str, content: &[u8]) -> Option<PolicyObjection> {
    let text = || String::from_utf8_lossy(content);
    let is_unit = || match place_of_unit(path)? {
        UnitPlace::DropIn { unit, name } => unit_text(unit, UnitTextKind::DropIn(name), &text()),
        UnitPlace::Unit(name) => unit_text(name, UnitTextKind::Whole, &text()),
        UnitPlace::Tie { .. } => None,
    };
    check_path(path)
        .or_else(|| instead_of(path))
        .or_else(is_unit)
        .or_else(|| settings::content_objection(path, &text()))
}

/// Why a unit may not be replaced by anything: people get in by it, or it would hide what they do.
fn replacement_objection(name: &str) -> Option<PolicyObjection> {
    mounts::unit_objection(name).or_else(|| units::check_replace(name))
}

/// Why a unit or a drop-in may not say this.
fn unit_text(name: &str, part: UnitTextKind<'_>, content: &str) -> Option<PolicyObjection> {
    units::check_content(name, part, content).or_else(|| {
        let places = units::mount_places(name, content);
        mounts::text_objection(places.iter().map(String::as_str)).or_else(|| {
            let is_changed = matches!(part, UnitTextKind::DropIn(_)) && units::changes_mount(content);
            mounts::unit_objection(name).filter(|_| is_changed)
        })
    })
}

/// Why nothing may be written at this path, whatever it is.
#[must_use]
pub fn check_path(path: &str) -> Option<PolicyObjection> {
    let objection = |instead| PolicyObjection::new(format!("{path} cannot be written"), instead);
    denied_path(path).map(objection).or_else(|| match place_of_unit(path)? {
        UnitPlace::Tie { to, kind, name } => units::check_dependency(to, kind, name),
        UnitPlace::Unit(name) => replacement_objection(name),
        UnitPlace::DropIn { .. } => None,
    })
}

/// Why a link may not be made: it hides what people get in by, or is a text that nobody read.
fn check_link(link: &LinkStep) -> Option<PolicyObjection> {
    let followed = |unit: &str| {
        let victim = units::access_unit_of(unit)?;
        let message = format!("{} cannot be a link: people get in by {victim}", link.path);
        Some(PolicyObjection::new(message, "write the drop-in itself as a file"))
    };
    if let Some(objection) = settings::link_objection(&link.path, &link.target) {
        return Some(objection);
    }
    match place_of_unit(&link.path)? {
        UnitPlace::DropIn { unit, .. } => followed(unit),
        UnitPlace::Unit(name) => followed(name.strip_suffix(".d")?),
        UnitPlace::Tie { .. } => None,
    }
}

/// What a path below a directory of units is to systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnitPlace<'a> {
    DropIn {
        unit: &'a str,
        name: &'a str,
    },
    /// A link by which one unit needs or wants another.
    Tie {
        to: &'a str,
        kind: &'a str,
        name: &'a str,
    },
    Unit(&'a str),
}

fn place_of_unit(path: &str) -> Option<UnitPlace<'_>> {
    let inner = |folder: &&str| path.strip_prefix(*folder).and_then(|rest| rest.strip_prefix('/'));
    let rest = UNIT_FOLDERS.iter().find_map(inner)?;
    let Some((folder, name)) = rest.split_once('/') else { return Some(UnitPlace::Unit(rest)) };
    let (of, kind) = folder.rsplit_once('.')?;
    match kind {
        "d" => Some(UnitPlace::DropIn { unit: of, name }),
        // The folders of systemd.unit(5) by which one unit pulls in another.
        "requires" | "upholds" | "wants" => Some(UnitPlace::Tie { to: of, kind, name }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use document::source::SourceMark;

    use super::*;
    use crate::plan::step::{AccountRef, DirectoryStep, FileOwner};
    use crate::plan::step::{ExistingFile, FileStep, PlacedFile};
    use crate::plan::{PlanStage, StepOrigin};

    #[test]
    fn the_accounts_and_the_image_are_protected() {
        for protected in [
            "/etc/shadow",
            "/usr/bin/ls",
            "/usr",
            "/etc/pam.d/sshd",
            "/lib/systemd/system/x.service",
            "/etc/ssh/sshd_not_to_be_run",
            "/etc/default/ssh",
            "/data/x",
            "/x",
        ] {
            assert!(denied_path(protected).is_some(), "{protected}");
        }
    }

    #[test]
    fn what_users_configure_is_not() {
        for free in [
            "/etc/ssh/sshd_config",
            "/etc/passwd.bak",
            "/var/usr",
            "/opt/bin/a",
            "/etc/libvirt",
            "/home/core/.ssh/authorized_keys",
        ] {
            assert_eq!(check_file(free, b"anything"), None, "{free}");
        }
    }

    /// The ways in which Ignition asks for a file of this content.
    fn placed(path: &str, content: &str) -> [PlanStep; 3] {
        let part = |text: &str| FileContent::Inline(Secret::new(text.as_bytes().to_vec()));
        let (first, rest) = content.split_at(content.len() / 2);
        let file = |contents, append| {
            let (mode, owner) = (None, FileOwner::default());
            PlanStep::PlaceFile(PlacedFile {
                path: path.to_owned(),
                contents,
                append,
                mode,
                owner,
                overwrite: false,
            })
        };
        [
            file(Some(part(content)), vec![]),
            file(None, vec![part(content)]),
            file(Some(part(first)), vec![part(rest)]),
        ]
    }

    #[test]
    fn a_file_of_ignition_is_judged_as_any_other() {
        for (path, content) in [
            ("/etc/shadow", "x"),
            ("/home/ada/.ssh/rc", "x"),
            ("/etc/systemd/system", "x"),
            ("/home", "x"),
            ("/etc/systemd/system/ssh.service", "[Service]\n"),
            ("/etc/systemd/system/a.service", "[Unit]\nConflicts=ssh.service\n"),
            ("/etc/systemd/system/ssh.service.d/b.conf", "[Service]\nExecStart=\n"),
            ("/etc/systemd/system/ssh.service.requires/a.service", "x"),
            ("/etc/systemd/system/home.mount", "[Mount]\nWhat=a\nWhere=/home\n"),
            ("/etc/systemd/system/home.mount.d/a.conf", "[Mount]\nWhat=a\n"),
            ("/etc/tmpfiles.d/site.conf", "R /home/core/.ssh\n"),
            ("/etc/systemd/system.conf.d/site.conf", "[Manager]\nDefaultTasksMax=5\n"),
            ("/etc/environment", "LD_PRELOAD=/x.so\n"),
        ] {
            let bytes = FileContent::Inline(Secret::new(content.as_bytes().to_vec()));
            let existing = ExistingFile::Replace;
            let owner = FileOwner::default();
            let written = PlanStep::WriteFile(FileStep {
                path: path.to_owned(),
                content: bytes,
                mode: None,
                owner,
                existing,
            });
            let objected = check_step(&written);
            assert!(objected.is_some(), "{path}");
            for step in placed(path, content) {
                assert_eq!(check_step(&step), objected, "{step:?}");
            }
        }
        for step in placed("/etc/systemd/system/a.service", "[Service]\nRestart=always\n") {
            assert_eq!(check_step(&step), None, "{step:?}");
        }
    }

    #[test]
    fn a_file_is_judged_as_the_unit_that_it_is() {
        let conflict = b"[Unit]\nConflicts=ssh.service\n".as_slice();
        let harmless = b"[Service]\nRestart=always\n".as_slice();
        for (path, content) in [
            ("/etc/systemd/system/ssh.service", harmless),
            ("/run/systemd/system/sshd.service", harmless),
            ("/etc/systemd/system/a.service", conflict),
            ("/etc/systemd/system/a.service.d/b.conf", conflict),
            ("/etc/systemd/system/service.d/b.conf", b"[Service]\nUser=nobody\n"),
            ("/etc/systemd/system/ssh.service.d/b.conf", b"[Service]\nExecStart=\n"),
            ("/etc/systemd/system/ssh.service.requires/a.service", harmless),
            ("/etc/systemd/system/multi-user.target.wants/ssh.service", harmless),
            ("/etc/systemd/system", harmless),
            ("/etc", harmless),
        ] {
            assert!(check_file(path, content).is_some(), "{path}");
        }
        for (path, content) in [
            ("/etc/systemd/system/a.service", harmless),
            ("/etc/systemd/system/ssh.service.d/b.conf", harmless),
            ("/etc/systemd/system/multi-user.target.wants/a.service", harmless),
            ("/etc/systemd/system/ssh.service.wants/a.service", harmless),
            ("/etc/systemd/user/a.service", conflict),
        ] {
            assert_eq!(check_file(path, content), None, "{path}");
        }
    }

    fn directory(path: &str, mode: u32, user: Option<AccountRef>, overwrite: bool) -> PlanStep {
        let owner = FileOwner { user, group: None };
        PlanStep::MakeDirectory(DirectoryStep { path: path.to_owned(), mode: Some(mode), owner, overwrite })
    }

    #[test]
    fn what_the_machine_needs_is_neither_emptied_nor_closed() {
        let core = || Some(AccountRef::Name("core".to_owned()));
        for step in [
            directory("/etc", 0o755, None, true),
            directory("/etc/ssh", 0o755, None, true),
            directory("/var", 0o700, None, false),
            directory("/etc/systemd/system", 0o755, core(), false),
            directory("/home/core", 0o777, core(), false),
            directory("/home/core/.ssh", 0o755, Some(AccountRef::Name("ada".to_owned())), false),
            directory("/home/ada", 0o775, None, false),
        ] {
            assert!(check_step(&step).is_some(), "{step:?}");
        }
        for step in [
            directory("/etc/systemd/system", 0o755, None, false),
            directory("/home/core/.ssh", 0o700, core(), false),
            directory("/home/ada", 0o750, None, false),
            directory("/opt/bin", 0o777, core(), true),
        ] {
            assert_eq!(check_step(&step), None, "{step:?}");
        }
    }

    #[test]
    fn a_link_is_no_way_around() {
        let link = |path: &str| {
            let (path, target) = (path.to_owned(), "/dev/null".to_owned());
            PlanStep::MakeLink(LinkStep {
                path,
                target,
                hard: false,
                owner: FileOwner::default(),
                overwrite: true,
            })
        };
        for path in [
            "/etc/systemd/system/ssh.service",
            "/etc/systemd/system/default.target",
            "/etc/systemd/system/ssh.service.d",
            "/etc/systemd/system/ssh.service.d/a.conf",
            "/etc/systemd/system/multi-user.target.wants/ssh.service",
            "/etc/ssh",
        ] {
            assert!(check_step(&link(path)).is_some(), "{path}");
        }
        for path in ["/etc/systemd/system/a.service", "/etc/systemd/system/systemd-timesyncd.service"] {
            assert_eq!(check_step(&link(path)), None, "{path}");
        }
    }

    #[test]
    fn what_ends_the_machine_at_each_boot_is_not_started() {
        let start = |name: &str| PlanStep::CommandUnit { name: name.to_owned(), verb: UnitVerb::Start };

        assert!(check_step(&start("reboot.target")).is_some());
        assert_eq!(check_step(&start("ssh.service")), None);
    }

    #[test]
    fn an_objection_costs_the_item_and_nothing_else() {
        let unit = |name: &str, content: &str| PlanStep::WriteUnit {
            name: name.to_owned(),
            content: Secret::new(content.to_owned()),
            runtime: false,
        };
        let drop_in = |content: &str| PlanStep::WriteDropIn {
            unit: "ssh.service".to_owned(),
            name: "a.conf".to_owned(),
            content: Secret::new(content.to_owned()),
            runtime: false,
        };
        let start = |name: &str| PlanStep::CommandUnit { name: name.to_owned(), verb: UnitVerb::Start };
        let mut plan = FirstBootPlan::default();
        for (key, step) in [
            ("units[0]", unit("bad.service", "[Unit]\nConflicts=ssh.service\n")),
            ("units[0]", start("bad.service")),
            ("units[1]", drop_in("[Service]\nExecStart=\n")),
            ("units[1]", drop_in("[Service]\nRestart=always\n")),
            ("units[2]", unit("good.service", "[Service]\nExecStart=/bin/true\n")),
        ] {
            plan.push_once(PlanStage::Units, StepOrigin::from_mark(SourceMark::default(), key), step);
        }
        let mut found = Diagnostics::default();

        take_out(&mut plan, &mut found);

        let left: Vec<&str> = plan.steps.iter().map(|planned| planned.origin.key.as_str()).collect();
        assert_eq!(left, ["units[1]", "units[2]"]);
        assert_eq!(found.list().len(), 2);
    }
}
