use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    let words = std::iter::once("fleetctl").chain(line.split(' ')).map(OsString::from);
    Arguments::try_parse_from(without_switch_values(words))
}

fn verb(line: &str) -> String {
    let debug = format!("{:?}", parse(line).unwrap().verb.unwrap());
    debug.split(['(', ' ']).next().unwrap().to_owned()
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn every_switch_is_known() {
    let command = Arguments::command();
    let known: Vec<_> = std::iter::once(&command)
        .chain(command.get_subcommands())
        .flat_map(clap::Command::get_arguments)
        .filter(|each| !each.get_action().takes_values())
        .flat_map(|each| each.get_long_and_visible_aliases().unwrap_or_default())
        .collect();

    for name in known {
        assert!(SWITCHES.contains(&name), "--{name}=false would not be understood");
    }
}

#[test]
fn prefixes_that_named_one_verb_of_the_original_still_do() {
    let prefixes = [
        ("c", "Cat"),
        ("ca", "Cat"),
        ("d", "Destroy"),
        ("de", "Destroy"),
        ("f s", "FdForward"),
        ("j", "Journal"),
        ("list-m", "ListMachines"),
        ("list-unit-", "ListUnitFiles"),
        ("list-units", "ListUnits"),
        ("lo", "Load"),
        ("r", "Restart"),
        ("re", "Restart"),
        ("ss", "Ssh"),
        ("star", "Start"),
        ("stat", "Status"),
        ("sto", "Stop"),
        ("su", "Submit"),
        ("u", "Unload"),
        ("un", "Unload"),
        ("veri", "Verify"),
        ("vers", "Version"),
    ];

    for (typed, meant) in prefixes {
        assert_eq!(verb(typed), meant, "{typed}");
    }
    assert!(parse("sta").is_err(), "start and status");
}

#[test]
fn flags_and_names_may_be_interleaved() {
    let Some(Verb::Start(start)) = parse("start a --no-block b --endpoint=http://x --replace").unwrap().verb
    else {
        panic!("not start")
    };

    assert_eq!(
        (start.units, start.wait.no_block, start.create.replace),
        (vec!["a".into(), "b".into()], true, true)
    );
}

#[test]
fn switches_take_truth_values() {
    let Some(Verb::ListUnits(table)) = parse("list-units --full=true --no-legend=false").unwrap().verb else {
        panic!("not list-units")
    };
    assert!(table.full && !table.no_legend);

    let global = parse("version --strict-host-key-checking=false").unwrap().global;
    assert_eq!(global.strict_host_key_checking.as_deref(), Some("false"));
}

#[test]
fn a_command_for_ssh_keeps_its_flags() {
    let Some(Verb::Ssh(ssh)) = parse("ssh -A m1 ls -l --all").unwrap().verb else { panic!("not ssh") };

    assert!(ssh.forward_agent);
    assert_eq!(ssh.words, ["m1", "ls", "-l", "--all"]);
}
