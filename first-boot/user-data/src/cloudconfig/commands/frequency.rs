//! How often the scripts of user-data run.
//!
//! Knows `[scripts-user, always]` in `cloud_final_modules`, which providers teach as the way to run a script at
//! each boot, and the same as a key. Refuses any other change of cloud-init's stages: they have one order here.
//! Invariant: a frequency that is not understood leaves scripts at once an instance.
//!
//! Documentation: cloud-init's `cloud_final_modules` and `cloud-init single --frequency`, and AWS's page on
//! running user-data at each start: <https://repost.aws/knowledge-center/execute-user-data-ec2>.

use crate::cloudconfig::fields::{MappingFields, text_of};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::yaml::{Node, Value};

/// How often scripts and `runcmd` run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Frequency {
    /// At each boot.
    Always,
    /// Once in the life of an instance.
    #[default]
    Instance,
}

/// A module as its list names it: by a text, a list or a mapping.
struct Module {
    name: String,
    frequency: Option<String>,
}

pub(super) fn read(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Frequency {
    let by_list = of_modules(fields, found);
    let written = fields.read_text("scripts_user", found);
    match written.as_ref().map(|text| (word_of(&text.value), text.at)) {
        None => by_list,
        Some((Some(frequency), _)) => frequency,
        Some((None, at)) => {
            let message = "`scripts_user` must be `always` or `instance`";
            let help = "it says how often scripts and `runcmd` run; write the scripts themselves as parts";
            fields.refuse_field(
                "scripts_user",
                Diagnostic::error(DiagnosticCode::BadValue, at, message).with_help(help),
                found,
            );
            by_list
        }
    }
}

fn of_modules(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Frequency {
    let items = match fields.field_node("cloud_final_modules").map(|node| &node.value) {
        Some(Value::Sequence(items)) => items.as_slice(),
        _ => &[],
    };
    let modules = items.iter().filter_map(read_module);
    // Of two entries the last one counts, as when cloud-init runs a module twice.
    let mut scripts = modules.filter(|module| module.name == "scripts_user" && module.frequency.is_some());
    let Some(at) = fields.key_at("cloud_final_modules") else { return Frequency::default() };
    let said = scripts.next_back().and_then(|module| word_of(&module.frequency?));
    if said.is_none() {
        let message = "`cloud_final_modules` has nothing to do here: stages and modules have one order here";
        found.push(Diagnostic::note(DiagnosticCode::NoEffect, at, message).with_key("cloud_final_modules"));
    }
    said.unwrap_or_default()
}

/// As cloud-init reads an entry: `name`, `[name, frequency, …]` or `{name: …, frequency: …}`.
fn read_module(item: &Node) -> Option<Module> {
    let text = |node: &Node| Some(text_of(node)?.value.trim().to_owned());
    let (name, frequency) = match &item.value {
        Value::Sequence(words) => (text(words.first()?)?, words.get(1).and_then(text)),
        Value::Mapping(entries) => {
            let of = |key: &str| text(&entries.iter().find(|entry| entry.key == key)?.value);
            (of("name")?, of("frequency"))
        }
        _ => (text(item)?, None),
    };
    Some(Module { name: name.replace('-', "_"), frequency })
}

/// cloud-init's words; `once` is not told apart from once an instance, since user-data is the instance's.
fn word_of(written: &str) -> Option<Frequency> {
    match written.trim().to_ascii_lowercase().replace('_', "-").as_str() {
        "always" => Some(Frequency::Always),
        "once" | "instance" | "once-per-instance" => Some(Frequency::Instance),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use document::diagnostic::Diagnostics;

    use super::Frequency;
    use crate::cloudconfig::CloudConfig;
    use crate::room::DecompressionBudget;

    fn read(text: &str) -> (Frequency, usize) {
        let mut found = Diagnostics::default();
        let node = document::yaml::parse_yaml(text, 0, &mut found).unwrap();
        let config = CloudConfig::check_document(&node, &mut DecompressionBudget::default(), &mut found);
        (config.commands.scripts, found.list().len())
    }

    #[test]
    fn scripts_run_always_in_each_way_to_write_it() {
        for text in [
            "cloud_final_modules: [[scripts-user, always]]",
            "cloud_final_modules:\n- rightscale_userdata\n- [scripts_user, always]\n- final-message",
            "cloud_final_modules: [{name: scripts-user, frequency: always}]",
            "scripts-user: always",
        ] {
            assert_eq!(read(text), (Frequency::Always, 0), "{text}");
        }
    }

    #[test]
    fn another_order_of_modules_is_noted() {
        for text in ["cloud_final_modules: [scripts-user]", "cloud_final_modules: [[phone-home, always]]"] {
            assert_eq!(read(text), (Frequency::Instance, 1), "{text}");
        }
        assert_eq!(read("scripts_user: sometimes"), (Frequency::Instance, 1));
    }
}
