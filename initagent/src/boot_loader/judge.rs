//! Decides whether a boot loader of the disk is replaced by that of the running release. Pure.
//!
//! Knows damage from age: what does not fit its own signature is damaged, whoever made it. Refuses to bring back what a
//! revocation could refuse: shim keeps the highest levels in the firmware, for ever.

use image_format::efi_program::EfiProgram;

/// How the running release stands to what the machine has proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReleaseAge {
    /// Nothing newer was proven.
    Newest,
    /// A newer one was, or nobody knows: only damage is mended.
    Older,
}

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoaderVerdict {
    /// It is the release's.
    Same,
    /// It is another, and stays.
    Keep(&'static str),
    /// The release's takes its place.
    Replace(&'static str),
}

const MISSING: LoaderVerdict = LoaderVerdict::Replace("it is not there, or cannot be read");
const OLDER_RELEASE: LoaderVerdict = LoaderVerdict::Keep("a newer release than this one has proven itself");

/// Judges a signed program.
pub(super) fn judge_program(wanted: &[u8], found: Option<&[u8]>, age: ReleaseAge) -> LoaderVerdict {
    let Some(found) = found else { return MISSING };
    if found == wanted {
        return LoaderVerdict::Same;
    }
    let (wanted, found) = (EfiProgram::parse(wanted), EfiProgram::parse(found));
    // A release may bring programs that nobody signed, for machines without Secure Boot.
    let is_signed = |program: &EfiProgram| program.is_intact();
    match (wanted, found) {
        (Ok(wanted), Err(_)) if is_signed(&wanted) => LoaderVerdict::Replace("it is damaged"),
        (Ok(wanted), Ok(found)) if is_signed(&wanted) && !is_signed(&found) => {
            LoaderVerdict::Replace("it is damaged: it does not fit its signature")
        }
        (Ok(wanted), Ok(found)) if wanted.is_below(&found) => {
            LoaderVerdict::Keep("its SBAT level is higher than that of this release")
        }
        _ if age == ReleaseAge::Older => OLDER_RELEASE,
        _ => LoaderVerdict::Replace("this release brings another"),
    }
}

/// Judges what has no signature of its own: damage and age cannot be told apart there.
pub(super) fn judge_text(wanted: &[u8], found: Option<&[u8]>, age: ReleaseAge) -> LoaderVerdict {
    match found {
        None => MISSING,
        Some(found) if found == wanted => LoaderVerdict::Same,
        Some(_) if age == ReleaseAge::Older => OLDER_RELEASE,
        Some(_) => LoaderVerdict::Replace("it is not what this release brings"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_or_differs_is_replaced_by_the_newest_release_only() {
        for judge in [judge_text, judge_program] {
            assert_eq!(judge(b"new", Some(b"new"), ReleaseAge::Older), LoaderVerdict::Same);
            assert_eq!(judge(b"new", None, ReleaseAge::Older), MISSING);
            assert_eq!(judge(b"new", Some(b"old"), ReleaseAge::Older), OLDER_RELEASE);
            assert!(matches!(judge(b"new", Some(b"old"), ReleaseAge::Newest), LoaderVerdict::Replace(_)));
        }
    }
}
