//! What came of a verb, in words or for programs.
//!
//! Knows how results are put. Refuses to know how they came about.
#![expect(clippy::print_stdout, reason = "the results are printed here")]

use std::path::Path;
use std::process::ExitCode;

use image_format::release::channel::ChannelMetadata;
use serde::Serialize;

use super::Failure;
use super::key_verbs::WrittenRoot;
use super::publish::PublishedRelease;
use crate::progress::OutputFormat;
use error_text::printable::printable_lines;

/// Who reads the output.
pub(super) const fn output_format(json: bool) -> OutputFormat {
    if json { OutputFormat::Machines } else { OutputFormat::People }
}

/// Prints a result for programs, or in words.
pub(super) fn print_result<T: Serialize>(
    result: &T,
    format: OutputFormat,
    words: impl FnOnce() -> String,
) -> Result<ExitCode, Failure> {
    match format {
        OutputFormat::Machines => println!("{}", serde_json::to_string_pretty(result)?),
        // Reasons, versions and comments of keys come from files that others may have written.
        OutputFormat::People => println!("{}", printable_lines(&words()).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// What came of publishing, in words.
pub(super) fn describe_published(published: &PublishedRelease, folder: &Path) -> String {
    let PublishedRelease { version, known, payload, channel } = published;
    let how = if *known { "lay there already, the same" } else { "is published" };
    let mut lines = vec![format!("release {version} {how} in {}", folder.display())];
    lines.extend(payload.as_ref().map(|summary| format!("  payload    {summary}")));
    lines.extend(channel.as_ref().map(|channel| {
        format!("  offered    on channel {}, {}", channel.channel, describe_validity(channel))
    }));
    lines.join("\n")
}

/// Which one of a channel's documents it is, and until when it holds.
pub(super) fn describe_validity(channel: &ChannelMetadata) -> String {
    format!("counter {}, until {}", channel.counter, channel.expires)
}

/// Says where root metadata is, and what must be done now.
pub(super) fn print_root(written: &WrittenRoot, format: OutputFormat) -> Result<ExitCode, Failure> {
    print_result(written, format, || {
        let WrittenRoot { number, path, missing_signatures, next_steps } = written;
        let mut lines = vec![format!("root metadata {number} is in {path}")];
        if *missing_signatures > 0 {
            let step = "`keys sign`, then `keys publish`";
            lines.push(format!("  it lacks {missing_signatures} signatures: {step}"));
        }
        lines.extend(next_steps.iter().map(|step| format!("  now: {step}")));
        lines.join("\n")
    })
}

/// Says how many signatures a document has now.
pub(super) fn print_signed(file: &Path, count: usize) -> ExitCode {
    println!("{} has {count} signatures", file.display());
    ExitCode::SUCCESS
}
