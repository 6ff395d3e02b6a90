//! The words of `initagent state`.

use lexopt::prelude::*;

use super::{OutputFormat, UsageError, Verb, help, printable_word};
use crate::state::order::{Confirmation, StateOrder, StateRequest};

const VERB: &str = "state";

/// Reads what follows `state`.
pub(super) fn parse_state(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut format, mut confirmation, mut words) = (OutputFormat::Text, Confirmation::Ask, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => format = OutputFormat::Json,
            Long("yes") => confirmation = Confirmation::Given,
            Short('h') | Long("help") => return Ok(Verb::Help(help::STATE)),
            Value(word) => words.push(printable_word(&word)),
            other => return Err(other.unexpected().into()),
        }
    }
    let unknown = |given: &str| UsageError::Word { verb: VERB, given: given.to_owned() };
    let order = match words.first().map(String::as_str) {
        // A yes to a check would be a mistake of who meant something else.
        None | Some("check") if confirmation == Confirmation::Given => return Err(unknown("--yes")),
        None | Some("check") => StateOrder::Check,
        Some("reset") => StateOrder::Reset(confirmation),
        Some(other) => return Err(unknown(other)),
    };
    match words.get(1) {
        Some(extra) => Err(unknown(extra)),
        None => Ok(Verb::State(StateRequest { order, format })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Verb, String> {
        parse_state(&mut lexopt::Parser::from_args(line.split_whitespace()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_order_is_understood() {
        let request = |order, format| Ok(Verb::State(StateRequest { order, format }));
        for (line, order, format) in [
            ("", StateOrder::Check, OutputFormat::Text),
            ("check --json", StateOrder::Check, OutputFormat::Json),
            ("reset", StateOrder::Reset(Confirmation::Ask), OutputFormat::Text),
            ("reset --yes", StateOrder::Reset(Confirmation::Given), OutputFormat::Text),
        ] {
            assert_eq!(typed(line), request(order, format), "{line}");
        }
        assert_eq!(typed("--help"), Ok(Verb::Help(help::STATE)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in ["fly", "check more", "check --yes", "reset now", "--fast"] {
            assert!(typed(line).is_err(), "{line}");
        }
    }
}
