//! Long flags with one dash, as Go's programs take them: `-config FILE` is `--config FILE`.
//!
//! Knows from a program's definition which long flags there are, and which of them take a value. Refuses to
//! touch anything else: short flags, values, and the words of a command that another program will read.
//! Invariant: what clap understood before, it understands the same.

use std::ffi::OsString;

use clap::Command;

/// Writes the second dash where a long flag has one. `foreign` is the verb whose words after the first are
/// a command for another program, if there is such a verb.
#[must_use]
// Before clap and not in it: clap reads `-version` as seven short flags, and has no switch for Go's way.
pub fn with_double_dashes(words: Vec<OsString>, program: &Command, foreign: Option<&str>) -> Vec<OsString> {
    let mut rewritten = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    rewritten.extend(words.next());
    let (mut value_follows, mut positionals, mut is_foreign) = (false, 0, false);
    for word in words.by_ref() {
        let text = word.to_str().unwrap_or_default().to_owned();
        if std::mem::take(&mut value_follows) {
            rewritten.push(word);
            continue;
        }
        if !text.starts_with('-') || text == "-" {
            rewritten.push(word);
            positionals += 1;
            if is_foreign {
                break;
            }
            is_foreign = positionals == 1 && foreign.is_some_and(|verb| names_verb(program, &text, verb));
            continue;
        }
        if text == "--" {
            rewritten.push(word);
            break;
        }
        let flag = long_flag(program, &text).map_or(word, OsString::from);
        value_follows = takes_value(program, &flag);
        rewritten.push(flag);
    }
    rewritten.extend(words);
    rewritten
}

/// The word with two dashes, if it is a long flag with one.
fn long_flag(program: &Command, word: &str) -> Option<String> {
    let flag = word.strip_prefix('-').filter(|flag| !flag.starts_with('-'))?;
    let name = flag.split('=').next().unwrap_or_default();
    // A single letter is a short flag, even where there is a long one of one letter.
    (name.len() > 1 && (is_built_in(name) || find_argument(program, name).is_some()))
        .then(|| format!("--{flag}"))
}

fn is_built_in(name: &str) -> bool {
    matches!(name, "help" | "version")
}

/// Whether the next word belongs to this one.
fn takes_value(program: &Command, word: &OsString) -> bool {
    let Some(word) = word.to_str().filter(|word| word.starts_with('-') && !word.contains('=')) else {
        return false;
    };
    let argument = match (word.strip_prefix("--"), word.strip_prefix('-')) {
        (Some(name), _) => find_argument(program, name),
        (None, Some(short)) => {
            let mut letters = short.chars();
            match (letters.next(), letters.next()) {
                (Some(letter), None) => all_arguments(program).find(|each| each.get_short() == Some(letter)),
                // More letters are several flags, or one with its value.
                _ => None,
            }
        }
        _ => None,
    };
    argument.is_some_and(|argument| argument.get_action().takes_values())
}

fn find_argument<'a>(program: &'a Command, name: &str) -> Option<&'a clap::Arg> {
    all_arguments(program).find(|each| {
        each.get_long() == Some(name) || each.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })
}

fn all_arguments(program: &Command) -> impl Iterator<Item = &clap::Arg> {
    std::iter::once(program).chain(program.get_subcommands()).flat_map(Command::get_arguments)
}

/// Whether a word, perhaps cut short, names this verb and no other.
fn names_verb(program: &Command, word: &str, verb: &str) -> bool {
    let mut named = program.get_subcommands().map(Command::get_name).filter(|name| name.starts_with(word));
    word == verb || (verb.starts_with(word) && named.next() == Some(verb) && named.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction};

    fn program() -> Command {
        let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        Command::new("p")
            .arg(Arg::new("config").long("config").alias("conf"))
            .arg(switch("full").short('l'))
            .subcommand(Command::new("ssh").arg(Arg::new("unit").long("unit").short('u')).arg(switch("all")))
            .subcommand(Command::new("start").arg(switch("no-block")))
    }

    fn rewritten(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let words = with_double_dashes(words, &program(), Some("ssh"));
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_long_flag_takes_one_dash_or_two() {
        for (typed, meant) in [
            ("p -config x", "p --config x"),
            ("p -config=x -full", "p --config=x --full"),
            ("p -conf x", "p --conf x"),
            ("p -version", "p --version"),
            ("p -help", "p --help"),
            ("p start a -no-block b -full=true", "p start a --no-block b --full=true"),
        ] {
            assert_eq!(rewritten(typed), meant);
            assert_eq!(rewritten(meant), meant, "two dashes stay");
        }
    }

    #[test]
    fn what_is_no_long_flag_stays() {
        for line in [
            "p -l start",
            "p -lx",
            "p -fully",
            "p - -- -full",
            "p --config -full start",
            "p -config= start",
            "p ssh m1 ls -full",
            "p ss m1 docker -version",
            "p ssh --unit a ls -all",
            "p ssh -u a ls -all",
        ] {
            assert_eq!(rewritten(line).replace("--config= ", "-config= "), line);
        }
        assert_eq!(rewritten("p -full ssh -all -unit a ls -all"), "p --full ssh --all --unit a ls -all");
    }
}
