//! Every cut of a migration, and what the new and the old release find after it.

use std::cell::Cell;
use std::os::unix::fs::PermissionsExt as _;

use first_boot::RealPrograms;

use super::*;

/// A machine whose power goes after so many steps.
struct CutAfter(Cell<u32>);

impl StepGate for CutAfter {
    fn pass(&self) -> io::Result<()> {
        match self.0.get().checked_sub(1) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(io::Error::other("the power went")),
        }
    }
}

struct Machine(tempfile::TempDir);

fn old() -> Sha256 {
    Sha256::digest_of(b"old")
}

fn new() -> Sha256 {
    Sha256::digest_of(b"new")
}

impl Machine {
    /// Two programs with data of the first form, and hooks that bring it to the second.
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for name in ["cache", "ledger"] {
            let data = machine.at(&format!("var/lib/{name}"));
            fs::create_dir_all(data.join("deep")).unwrap();
            fs::write(data.join("form"), "1").unwrap();
            machine.hook(
                name,
                &format!("/var/lib/{name}"),
                "printf 2 >\"$1/form\"; printf new >\"$1/deep/more\"",
            );
        }
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn hook(&self, name: &str, data: &str, script: &str) {
        let folder = self.at(HOOKS).join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("folder"), format!("{data}\n")).unwrap();
        fs::write(folder.join("run"), format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
        fs::set_permissions(folder.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn migrations<'a>(&'a self, gate: &'a dyn StepGate) -> Migrations<'a> {
        Migrations { root: self.0.path(), programs: &RealPrograms, gate }
    }

    fn form(&self, name: &str) -> (String, bool) {
        let data = self.at("var/lib").join(name);
        (fs::read_to_string(data.join("form")).unwrap(), data.join("deep/more").exists())
    }

    /// No folder and no record is left over.
    fn assert_tidy(&self) {
        let names = fs::read_dir(self.at("var/lib")).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(SUFFIX)).collect();
        assert!(left.is_empty() && !self.at(RECORDS).exists(), "{left:?}");
    }
}

const FIRST: (&str, bool) = ("1", false);
const SECOND: (&str, bool) = ("2", true);

fn assert_forms(machine: &Machine, wanted: (&str, bool), when: &str) {
    for name in ["cache", "ledger"] {
        let (form, has_more) = machine.form(name);
        assert_eq!((form.as_str(), has_more), wanted, "{name} {when}");
    }
}

#[test]
fn data_is_in_its_new_form_and_the_old_one_is_beside_until_the_release_is_proven() {
    let machine = Machine::new();
    let migrations = machine.migrations(&NoCut);

    let said = migrations.migrate(new()).unwrap();

    assert_eq!(said, ["cache: /var/lib/cache", "ledger: /var/lib/ledger"]);
    assert_forms(&machine, SECOND, "after the migration");
    assert_eq!(fs::read_to_string(machine.at("var/lib/ledger.catamaran-migration/form")).unwrap(), "1");
    // Another boot of the trial changes nothing.
    fs::write(machine.at("var/lib/ledger/deep/more"), "written since").unwrap();
    migrations.migrate(new()).unwrap();
    assert_eq!(fs::read_to_string(machine.at("var/lib/ledger/deep/more")).unwrap(), "written since");

    migrations.keep(new()).unwrap();
    assert_forms(&machine, SECOND, "after the trial");
    machine.assert_tidy();
}

/// Case 49.
#[test]
fn a_release_that_goes_back_leaves_the_data_as_it_was() {
    let machine = Machine::new();
    let migrations = machine.migrations(&NoCut);
    migrations.migrate(new()).unwrap();
    fs::write(machine.at("var/lib/cache/form"), "3").unwrap();

    migrations.restore(old()).unwrap();

    assert_forms(&machine, FIRST, "after the way back");
    machine.assert_tidy();
}

#[test]
fn one_hook_that_fails_leaves_the_data_of_all_as_it_was() {
    let machine = Machine::new();
    machine.hook("ledger", "/var/lib/ledger", "printf 9 >\"$1/form\"; echo page 7 is torn; exit 4");
    let migrations = machine.migrations(&NoCut);

    let refused = migrations.migrate(new()).unwrap_err();

    assert!(
        refused.to_string().contains("the hook ledger failed") && refused.to_string().contains("page 7"),
        "{refused}"
    );
    assert_forms(&machine, FIRST, "after a failed hook");
    migrations.restore(old()).unwrap();
    machine.assert_tidy();
}

/// The power goes after each step in turn; then the old release starts, or the new one does and goes on.
#[test]
fn no_cut_costs_the_old_release_its_data_or_the_new_one_its_form() {
    let mut cuts = 0;
    loop {
        let (back, on) = (Machine::new(), Machine::new());
        let ends: Vec<bool> = [&back, &on]
            .map(|machine| machine.migrations(&CutAfter(Cell::new(cuts))).migrate(new()).is_ok())
            .to_vec();
        for machine in [&back, &on] {
            let forms = ["cache", "ledger"].map(|name| machine.form(name));
            let is_whole =
                |(form, has_more): &(String, bool)| [FIRST, SECOND].contains(&(form.as_str(), *has_more));
            assert!(forms.iter().all(is_whole), "after {cuts} steps: {forms:?}");
        }

        back.migrations(&NoCut).restore(old()).unwrap();
        on.migrations(&NoCut).migrate(new()).unwrap();

        assert_forms(&back, FIRST, &format!("in the old release after {cuts} steps"));
        back.assert_tidy();
        assert_forms(&on, SECOND, &format!("in the new release after {cuts} steps"));
        on.migrations(&NoCut).keep(new()).unwrap();
        on.assert_tidy();
        if ends == [true, true] {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 6, "only {cuts} steps");
}

/// The way back and the end of a trial are cut off, too.
#[test]
fn no_cut_on_the_way_back_or_at_the_end_loses_data() {
    for (end, wanted) in [(old(), FIRST), (new(), SECOND)] {
        for cuts in 0..20 {
            let machine = Machine::new();
            machine.migrations(&NoCut).migrate(new()).unwrap();
            let finish = |gate: &dyn StepGate| {
                let migrations = machine.migrations(gate);
                if end == new() { migrations.keep(end) } else { migrations.restore(end) }
            };

            let ended = finish(&CutAfter(Cell::new(cuts)));
            finish(&NoCut).unwrap();

            assert_forms(&machine, wanted, &format!("after {cuts} steps"));
            machine.assert_tidy();
            if ended.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn what_another_release_left_undone_is_not_built_on() {
    let machine = Machine::new();
    machine.migrations(&NoCut).migrate(Sha256::digest_of(b"third")).unwrap();

    machine.migrations(&NoCut).migrate(new()).unwrap();

    assert_forms(&machine, SECOND, "after both");
    machine.migrations(&NoCut).restore(old()).unwrap();
    assert_forms(&machine, FIRST, "after the way back");
}

#[test]
fn only_a_folder_of_its_own_on_state_is_migrated() {
    for data in ["/etc", "/var", "var/lib/cache", "/var/lib/../../etc", "/usr/lib", "/var/lib/cache/form", ""]
    {
        let machine = Machine::new();
        machine.hook("ledger", data, "true");

        let refused = machine.migrations(&NoCut).migrate(new()).unwrap_err();

        assert!(matches!(refused, MigrateError::Folder { .. }), "{data}: {refused}");
        assert_forms(&machine, FIRST, "after a refusal");
    }
}

#[test]
fn a_program_without_data_needs_no_migration() {
    let machine = Machine::new();
    machine.hook("fresh", "/var/lib/fresh", "exit 9");

    machine.migrations(&NoCut).migrate(new()).unwrap();

    assert!(!machine.at("var/lib/fresh").exists());
    assert!(Machine(tempfile::tempdir().unwrap()).migrations(&NoCut).migrate(new()).unwrap().is_empty());
}
