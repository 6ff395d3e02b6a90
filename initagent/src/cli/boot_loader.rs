//! The words of `initagent boot-loader`.

use lexopt::prelude::*;

use super::{UsageError, Verb, help, printable_word};
use crate::boot_loader::order::LoaderOrder;

/// Reads what follows `boot-loader`.
pub(super) fn parse_boot_loader(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let mut order = None;
    while let Some(argument) = parser.next()? {
        let given = match argument {
            Short('h') | Long("help") => return Ok(Verb::Help(help::BOOT_LOADER)),
            Value(word) => printable_word(&word),
            other => return Err(other.unexpected().into()),
        };
        order = match (order, given.as_str()) {
            (None, "check") => Some(LoaderOrder::Check),
            (None, "repair") => Some(LoaderOrder::Repair),
            _ => return Err(UsageError::Word { verb: "boot-loader", given }),
        };
    }
    Ok(Verb::BootLoader(order.unwrap_or(LoaderOrder::Check)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_word() {
        let typed = |line: &str| {
            parse_boot_loader(&mut lexopt::Parser::from_args(line.split_whitespace()))
                .map_err(|error| error.to_string())
        };
        assert_eq!(typed(""), Ok(Verb::BootLoader(LoaderOrder::Check)));
        assert_eq!(typed("check"), Ok(Verb::BootLoader(LoaderOrder::Check)));
        assert_eq!(typed("repair"), Ok(Verb::BootLoader(LoaderOrder::Repair)));
        assert_eq!(typed("--help"), Ok(Verb::Help(help::BOOT_LOADER)));
        for line in ["fly", "check repair", "--yes"] {
            assert!(typed(line).is_err(), "{line}");
        }
    }
}
