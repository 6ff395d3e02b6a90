//! The words of `initagent install`.

use std::path::PathBuf;

use disk_install::install::KeptData;
use disk_install::write::EraseScope;
use lexopt::prelude::*;

use super::{OutputFormat, UsageError, Verb, help, printable_word};
use crate::install::{Consent, ImageSource, InstallOrder};

const VERB: &str = "install";

/// Reads what follows `install`.
pub(super) fn parse_install(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let mut disks = Vec::new();
    let mut order = InstallOrder {
        disk: String::new(),
        source: ImageSource::RunningSystem,
        keys: Vec::new(),
        sha256: None,
        user_data: None,
        keep: KeptData::Nothing,
        erase: EraseScope::Marks,
        consent: Consent::Ask,
        format: OutputFormat::Text,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("dry-run") => order.consent = Consent::ShowOnly,
            Long("from") => order.source = ImageSource::Image(parser.value()?.string()?),
            Long("json") => order.format = OutputFormat::Json,
            Long("keep") => order.keep = parse_kept(&parser.value()?)?,
            Long("key") => order.keys.push(PathBuf::from(parser.value()?)),
            Long("sha256") => order.sha256 = Some(parser.value()?.string()?),
            Long("user-data") => order.user_data = Some(PathBuf::from(parser.value()?)),
            Long("wipe") => order.erase = EraseScope::WholeDisk,
            // `--dry-run --yes` shows only, in either order: who asks to see must not lose a disk.
            Short('y') | Long("yes") if order.consent == Consent::Ask => order.consent = Consent::Given,
            Short('y') | Long("yes") => {}
            Short('h') | Long("help") => return Ok(Verb::Help(help::INSTALL)),
            Value(word) => disks.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    match (<[String; 1]>::try_from(disks), order.keep, order.erase) {
        (Err(_), ..) => {
            let what = "one DISK; quote an expression, as in 'smallest >= 20 GB'";
            Err(UsageError::Incomplete { verb: VERB, what })
        }
        (Ok(_), KeptData::State, EraseScope::WholeDisk) => {
            Err(UsageError::Incomplete { verb: VERB, what: "either --keep or --wipe" })
        }
        (Ok([disk]), ..) => Ok(Verb::Install(InstallOrder { disk, ..order })),
    }
}

fn parse_kept(word: &std::ffi::OsString) -> Result<KeptData, UsageError> {
    if word.eq_ignore_ascii_case("state") {
        return Ok(KeptData::State);
    }
    Err(UsageError::Word { verb: VERB, given: printable_word(word) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &[&str]) -> Result<Verb, UsageError> {
        parse_install(&mut lexopt::Parser::from_args(words))
    }

    fn order(words: &[&str]) -> InstallOrder {
        match typed(words).unwrap() {
            Verb::Install(order) => order,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disk_is_one_word_and_options_stand_anywhere() {
        let order = order(&["--from", "disk.raw", "smallest >= 20 GB", "--keep", "STATE", "--key", "a.pub"]);

        assert_eq!(order.disk, "smallest >= 20 GB");
        assert_eq!(order.source, ImageSource::Image("disk.raw".to_owned()));
        assert_eq!((order.keep, order.keys.len()), (KeptData::State, 1));
        for wrong in [
            &[][..],
            &["smallest", ">=", "20"],
            &["a", "--keep", "home"],
            &["a", "--keep", "state", "--wipe"],
        ] {
            assert!(typed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn showing_wins_over_agreeing() {
        for words in [["/dev/sdb", "--dry-run", "--yes"], ["/dev/sdb", "--yes", "--dry-run"]] {
            assert_eq!(order(&words).consent, Consent::ShowOnly);
        }
    }
}
