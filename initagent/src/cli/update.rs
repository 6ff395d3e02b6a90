//! The words of `initagent update`.

use lexopt::prelude::*;

use super::{OutputFormat, UsageError, Verb, help};
use crate::update::orders::{UpdateOrder, UpdateRequest, parse_source};

const VERB: &str = "update";
/// The name by which scripts of CoreOS and Flatcar call this program.
pub(super) const ENGINE: &str = "update_engine_client";

/// Reads what follows `update_engine_client`: flags with one dash or two, as gflags takes them.
pub(super) fn parse_engine(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let words: Vec<std::ffi::OsString> = parser.raw_args()?.collect();
    let flag = words.first().and_then(|word| word.to_str()).map(|word| word.trim_start_matches('-'));
    let order = match flag {
        None | Some("status") => UpdateOrder::EngineStatus,
        Some("check_for_update" | "update") => UpdateOrder::Poll,
        Some("reset_status") => UpdateOrder::Cancel,
        Some("help") => return Ok(Verb::Help(help::UPDATE)),
        Some(_) => return Err(UsageError::Word { verb: VERB, given: super::printable_word(&words[0]) }),
    };
    Ok(Verb::Update(UpdateRequest { order, format: OutputFormat::Text }))
}

/// Reads what follows `update`.
pub(super) fn parse_update(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut format, mut words) = (OutputFormat::Text, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => format = OutputFormat::Json,
            Short('h') | Long("help") => return Ok(Verb::Help(help::UPDATE)),
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    let order = parse_order(&words)?;
    Ok(Verb::Update(UpdateRequest { order, format }))
}

fn parse_order(words: &[std::ffi::OsString]) -> Result<UpdateOrder, UsageError> {
    let Some((first, rest)) = words.split_first() else { return Ok(UpdateOrder::Status) };
    let unknown =
        |given: &std::ffi::OsString| UsageError::Word { verb: VERB, given: super::printable_word(given) };
    let argument = rest.first();
    let incomplete = |what| UsageError::Incomplete { verb: VERB, what };
    let text =
        |what| argument.map(|word| word.to_string_lossy().into_owned()).ok_or_else(|| incomplete(what));
    let (order, takes) = match first.to_str() {
        Some("cancel") => (UpdateOrder::Cancel, 0),
        Some("channel") => (UpdateOrder::Channel(text("the NAME of a channel")?), 1),
        Some("check") => (UpdateOrder::Check, 0),
        Some("end-boot") => (UpdateOrder::EndBoot, 0),
        Some("expire") => (UpdateOrder::Expire, 0),
        Some("guard") => (UpdateOrder::Guard, 0),
        Some("history") => (UpdateOrder::History, 0),
        Some("install") => (UpdateOrder::Install(argument.map(|word| parse_source(word))), 1),
        Some("migrate") => (UpdateOrder::Migrate, 0),
        Some("next-root") => (UpdateOrder::NextRoot, 0),
        Some("pin") => {
            let version = text("a VERSION after 'pin'")?;
            (
                UpdateOrder::Pin(
                    version.parse().map_err(|_| incomplete("a VERSION like 1.2.3 after 'pin'"))?,
                ),
                1,
            )
        }
        Some("poll") => (UpdateOrder::Poll, 0),
        Some("resume") => (UpdateOrder::Resume, 0),
        Some("rollback") => (UpdateOrder::Rollback, 0),
        Some("serve-bus") => (UpdateOrder::ServeBus, 0),
        Some("status") => (UpdateOrder::Status, 0),
        Some("trial") => (UpdateOrder::Trial, 0),
        Some("unpin") => (UpdateOrder::Unpin, 0),
        _ => return Err(unknown(first)),
    };
    rest.get(takes).map_or(Ok(order), |extra| Err(unknown(extra)))
}

#[cfg(test)]
mod tests {
    use image_format::version::Version;

    use super::*;
    use crate::update::orders::InstallSource;

    fn typed(line: &str) -> Result<UpdateOrder, String> {
        match parse_update(&mut lexopt::Parser::from_args(line.split_whitespace())) {
            Ok(Verb::Update(request)) => Ok(request.order),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_order_is_understood() {
        assert_eq!(typed(""), Ok(UpdateOrder::Status));
        for word in [
            "cancel",
            "check",
            "history",
            "rollback",
            "status",
            "unpin",
            "poll",
            "resume",
            "trial",
            "guard",
            "next-root",
        ] {
            assert!(typed(word).is_ok(), "{word}");
            assert!(typed(&format!("{word} more")).unwrap_err().contains("\"more\""), "{word}");
        }
        assert_eq!(typed("pin 1.2.3"), Ok(UpdateOrder::Pin(Version::new(1, 2, 3))));
        assert_eq!(typed("channel beta"), Ok(UpdateOrder::Channel("beta".into())));
        assert_eq!(typed("install"), Ok(UpdateOrder::Install(None)));
        let version = InstallSource::Version(Version::new(1, 2, 3));
        assert_eq!(typed("install 1.2.3"), Ok(UpdateOrder::Install(Some(version))));
        let path = InstallSource::Path("/media/stick".into());
        assert_eq!(typed("install /media/stick"), Ok(UpdateOrder::Install(Some(path))));
    }

    #[test]
    fn scripts_of_other_systems_are_understood() {
        let called =
            |words: &str| super::super::parse_verb(&mut lexopt::Parser::from_iter(words.split_whitespace()));
        for (flag, order) in [
            ("", UpdateOrder::EngineStatus),
            ("-status", UpdateOrder::EngineStatus),
            ("--status", UpdateOrder::EngineStatus),
            ("-check_for_update", UpdateOrder::Poll),
            ("-reset_status", UpdateOrder::Cancel),
        ] {
            let verb = called(&format!("/usr/bin/update_engine_client {flag}")).unwrap();
            assert!(matches!(verb, Verb::Update(request) if request.order == order), "{flag}");
        }
        assert!(called("update_engine_client -fly").is_err());
    }

    #[test]
    fn what_is_not_understood_says_what_would_be() {
        assert_eq!(
            typed("fly").unwrap_err(),
            "'initagent update' has no \"fly\"; 'initagent update --help' says what it has"
        );
        assert!(typed("pin").unwrap_err().contains("needs a VERSION"));
        assert!(typed("pin new").unwrap_err().contains("like 1.2.3"));
        assert!(typed("channel").unwrap_err().contains("the NAME of a channel"));
    }
}
