//! The switch on the machine by which its owner says whether it may be configured again.
//!
//! Knows one file of one word. Refuses to guess: a word that is none closes the machine, since who writes the
//! file wants less than the default. Invariant: without the file it is [`Switch::Once`].

use std::fmt::Write;
use std::fs;
use std::io;

use user_data::cloudconfig::order::SWITCH;

use crate::files::{self, FileRights};
use crate::record;
use crate::root::MachineRoot;
use crate::source::Switch;

/// Why the switch was not set.
#[derive(Debug, thiserror::Error)]
#[error("cannot set the switch in {SWITCH}: {reason}")]
pub struct SwitchError {
    reason: String,
}

/// How it stands, and what is wrong with it.
pub(crate) fn read(root: &MachineRoot) -> (Switch, Option<String>) {
    let text = match fs::read_to_string(root.path_of(SWITCH)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Switch::default(), None),
        Err(error) => {
            return (Switch::Locked, Some(format!("cannot read {SWITCH}, so it is locked: {error}")));
        }
    };
    if let Some(switch) = Switch::from_word(text.trim()) {
        return (switch, None);
    }
    let words = Switch::ALL.map(Switch::switch_word).join(", ");
    (Switch::Locked, Some(format!("{SWITCH} holds none of {words}, so this machine is locked")))
}

/// Sets it, for all boots to come.
pub fn set_switch(root: &MachineRoot, switch: Switch) -> Result<(), SwitchError> {
    let text = format!("{}\n", switch.switch_word());
    // A power cut must not open a machine that its owner has just locked.
    let written = files::write_durably(&root.path_of(SWITCH), text.as_bytes(), FileRights::PUBLIC);
    written.map(drop).map_err(|error| SwitchError { reason: error.error_chain() })
}

/// How it stands, and what configured this machine, for people.
#[must_use]
pub fn describe_switch(root: &MachineRoot) -> String {
    let (switch, problem) = read(root);
    let mut text = format!("provision: {}\n", switch.switch_word());
    if let Some(problem) = problem {
        let _ = writeln!(text, "warning: {problem}");
    }
    match (record::source(root), record::configured_instance(root)) {
        (Some(remembered), Some(instance)) => {
            let _ =
                writeln!(text, "configured by {} as instance {instance}", remembered.source.source_text());
        }
        (None, Some(instance)) => {
            let _ = writeln!(text, "configured as instance {instance}, by nothing that is remembered");
        }
        (_, None) => text.push_str("not configured yet, or not for others to see\n"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_none_closes_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        assert_eq!(read(&root), (Switch::Once, None));

        set_switch(&root, Switch::Always).unwrap();
        assert_eq!(read(&root), (Switch::Always, None));

        for text in ["", "alway", "locked once", "\u{fffd}"] {
            fs::write(root.path_of(SWITCH), text).unwrap();
            let (switch, problem) = read(&root);
            assert_eq!(switch, Switch::Locked, "{text:?}");
            assert!(problem.unwrap().contains("/etc/catamaran/provision"));
        }
    }
}
