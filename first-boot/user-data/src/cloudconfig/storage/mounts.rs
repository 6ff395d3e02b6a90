//! `mounts`: lines of fstab(5), in the shapes that cloud-init takes.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::{Node, Value};

use super::super::fields::{MappingFields, text_of, wrong_type};
use super::{DeviceAliases, NAME_A_DISK, is_platforms, resolve_device};
use crate::plan::step::MountStep;
use crate::protected::{self, PolicyObjection};

// cloud-init's, without its `x-systemd.after=` and `_netdev`, which name or concern what is not here.
pub(super) const DEFAULT_FIELDS: [&str; 6] = ["", "", "auto", "defaults,nofail", "0", "2"];

pub(super) fn read_mounts(
    fields: &mut MappingFields<'_>,
    aliases: &DeviceAliases,
    found: &mut Diagnostics,
) -> Vec<Located<MountStep>> {
    let mut defaults = DEFAULT_FIELDS.map(str::to_owned);
    for (slot, item) in defaults.iter_mut().zip(fields.read_list("mount_default_fields", found)) {
        if let Some(text) = text_of(item).filter(|_| !item.is_null()) {
            *slot = text.value;
        }
    }
    let path = fields.child_path("mounts");
    let items = fields.read_list("mounts", found).iter().enumerate();
    items
        .filter_map(|(index, item)| read_mount(item, &defaults, aliases, format!("{path}[{index}]"), found))
        .collect()
}

pub(super) fn read_mount(
    item: &Node,
    defaults: &[String; 6],
    aliases: &DeviceAliases,
    path: String,
    found: &mut Diagnostics,
) -> Option<Located<MountStep>> {
    let Value::Sequence(written) = &item.value else {
        found.push(wrong_type("a list like [ /dev/vdb1, /data ]", item).with_key(path));
        return None;
    };
    let mut fields = defaults.clone();
    for (slot, value) in fields.iter_mut().zip(written) {
        match text_of(value) {
            Some(text) if !value.is_null() => *slot = text.value,
            Some(_) => {}
            None => {
                found.push(wrong_type("text", value).with_key(path));
                return None;
            }
        }
    }
    // `[ephemeral0]` and `[ephemeral0, null]` say that a default mount is not wanted: there is none.
    if written.len() < 2 || written[1].is_null() {
        if written.len() < 2 && !is_platforms(&fields[0], aliases) {
            let message = "this names no directory, so nothing is mounted";
            found.push(
                Diagnostic::warning(DiagnosticCode::NoEffect, item.at, message)
                    .with_key(path)
                    .with_help("write [ /dev/vdb1, /srv/data ]"),
            );
        }
        return None;
    }
    if is_platforms(&fields[0], aliases) {
        let message = format!(
            "`{}` is no disk here: no platform is asked for such a name; nothing is mounted",
            fields[0]
        );
        found.push(
            Diagnostic::warning(DiagnosticCode::NoEffect, written[0].at, message)
                .with_key(path)
                .with_help(NAME_A_DISK),
        );
        return None;
    }
    fields[0] = resolve_device(&fields[0], aliases);
    let options = || protected::fstab::check_options(&fields[3]);
    if let Some(PolicyObjection { message, instead }) = objection_to(&fields[1]).or_else(options) {
        let diagnostic = Diagnostic::error(DiagnosticCode::Protected, written[1].at, message);
        found.push(diagnostic.with_help(instead).with_key(path));
        return None;
    }
    if fields.iter().any(|field| field.contains(['\n', '\0'])) {
        found.push(
            Diagnostic::error(
                DiagnosticCode::BadValue,
                item.at,
                "a field of this mount has a line break in it",
            )
            .with_key(path),
        );
        return None;
    }
    // Without it local-fs.target requires the mount, and a disk that is missing ends in the emergency shell.
    if !fields[3].split(',').any(|option| option == "nofail") {
        fields[3] += ",nofail";
        let message = "`nofail` is added: the machine must boot without this mount too";
        found.push(Diagnostic::note(DiagnosticCode::Translated, item.at, message).with_key(path));
    }
    Some(Located { value: MountStep { fields }, at: item.at })
}

/// Why nothing can be mounted on a place, in one sentence.
pub(crate) fn place_flaw(place: &str) -> Option<String> {
    let PolicyObjection { message, instead } = objection_to(place)?;
    Some(format!("{message}; {instead}"))
}

/// As [`place_flaw`], in two; swap is mounted nowhere.
pub(super) fn objection_to(place: &str) -> Option<PolicyObjection> {
    if matches!(place, "none" | "swap") { None } else { protected::mounts::mount_objection(place) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_mounted_over_the_system() {
        for bad in ["/", "/usr/", "/etc", "/usr/lib", "data", "/a/../etc"] {
            assert!(place_flaw(bad).is_some(), "{bad}");
        }
        assert!(place_flaw("/data").is_some() && place_flaw("/mnt/data").is_some());
        assert_eq!(place_flaw("/mnt"), None);
        assert_eq!(place_flaw("/srv/data"), None);
        assert_eq!(place_flaw("/var/lib/docker"), None);
    }
}
