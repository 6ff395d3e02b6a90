//! `man` and `completions`: what can be typed, as a manual page and for shells.

use super::arguments::Arguments;
use super::session::{CommandError, CommandOutcome};
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write as _;
use std::io::Write;

const AFTER: &str = r".SH ENVIRONMENT
Each global option is also read from \fBFLEETCTL_\fR and its name in capitals, with underscores for dashes:
\fBFLEETCTL_ENDPOINT\fR, \fBFLEETCTL_TUNNEL\fR. The command line wins.
.SH EXIT STATUS
.TP
\fB0\fR
It is done, or there was nothing to do.
.TP
\fB1\fR
The command failed; stderr says why.
.TP
\fB2\fR
The command line made no sense, or asked for signed units.
.TP
\fB255\fR
ssh could not connect. \fBstatus\fR, \fBjournal\fR and \fBssh\fR otherwise end as the command they ran.
.SH FILES
.TP
\fI/var/run/fleet.sock\fR
Where fleetd listens unless it is told otherwise.
.TP
\fI~/.fleetctl/known_hosts\fR
The keys of machines that were reached by ssh.
.SH SEE ALSO
\fBfleetd\fR(8), \fBsystemctl\fR(1), \fBsystemd.unit\fR(5)
";

/// Prints the manual page.
pub fn print_man_page(out: &mut dyn Write) -> CommandOutcome {
    let mut command = Arguments::command();
    command.build();
    let mut page = Vec::new();
    let manual = clap_mangen::Man::new(command.clone());
    manual.render_title(&mut page)?;
    manual.render_name_section(&mut page)?;
    manual.render_synopsis_section(&mut page)?;
    manual.render_description_section(&mut page)?;
    manual.render_options_section(&mut page)?;
    out.write_all(&page)?;
    let mut text = ".SH COMMANDS\n".to_owned();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        describe_verb(&mut text, verb);
    }
    text.push_str(AFTER);
    out.write_all(text.as_bytes())?;
    Ok(0)
}

/// Prints a shell's completions.
pub fn print_completions(shell: clap_complete::Shell, out: &mut dyn Write) -> Result<u8, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "fleetctl", &mut script);
    out.write_all(&script)?;
    Ok(0)
}

fn describe_verb(text: &mut String, verb: &Command) {
    let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
    let names: Vec<_> = verb.get_positionals().filter_map(Arg::get_value_names).flatten().collect();
    let _ = write!(text, ".SS \\fB{}\\fR", escape_roff(verb.get_name()));
    for name in names {
        let _ = write!(text, " [\\fI{}\\fR]", escape_roff(name));
    }
    let _ = writeln!(text, "\n{}", escape_roff(&about));
    let own = verb.get_opts().chain(verb.get_arguments().filter(|each| !each.get_action().takes_values()));
    let mut seen = Vec::new();
    for option in own.filter(|each| !each.is_global_set() && !each.is_hide_set() && !each.is_positional()) {
        let Some(long) = option.get_long().filter(|long| !seen.contains(long)) else { continue };
        seen.push(long);
        let short = option.get_short().map(|short| format!("\\fB\\-{short}\\fR, ")).unwrap_or_default();
        let value = option.get_value_names().filter(|_| option.get_action().takes_values());
        let value = value.and_then(<[_]>::first).map(|name| format!("=\\fI{}\\fR", escape_roff(name)));
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let long = escape_roff(long);
        let _ = writeln!(
            text,
            ".TP\n{short}\\fB\\-\\-{long}\\fR{}\n{}",
            value.unwrap_or_default(),
            escape_roff(&help)
        );
    }
}

fn escape_roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_page_names_every_verb_and_flag() {
        let mut page = Vec::new();
        print_man_page(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();

        for verb in Arguments::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            assert!(
                page.contains(&format!(".SS \\fB{}\\fR", escape_roff(verb.get_name()))),
                "{}",
                verb.get_name()
            );
            for flag in verb.get_arguments().filter(|flag| !flag.is_hide_set()).filter_map(Arg::get_long) {
                assert!(page.contains(&format!("\\-\\-{}", escape_roff(flag))), "--{flag}");
            }
        }
    }

    #[test]
    fn completions_know_the_verbs() {
        let mut script = Vec::new();
        print_completions(clap_complete::Shell::Bash, &mut script).unwrap();

        assert!(String::from_utf8(script).unwrap().contains("list-unit-files"));
    }
}
