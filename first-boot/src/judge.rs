//! `validate` and `plan`: what a run would say and do, on any machine, without doing it.
//!
//! Knows documents, of user-data and of what lies beside it, and by [`source`] seeds. Refuses to know this
//! machine: addresses are judged by examples, and printed as their tokens. Invariant: nothing is written.

mod meta_data;
mod seed;
mod source;

use std::path::Path;

use document::caret::{self, Excerpts};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics, Severity};
use document::source::SourceMark;
use serde_json::json;
use user_data::cloudconfig::order::PlanFacts;
use user_data::container::FetchPolicy;
use user_data::image_units;
use user_data::part::PayloadPart;
use user_data::payload;
use user_data::plan::FirstBootPlan;
use user_data::plan::text::{self, ContentDisplay};
use user_data::reading::{self, ReadResult, UserDataInput};
use user_data::template::InstanceData;
use user_data::tokens::TokenAddresses;

use crate::facts;
use crate::outcome::Verdict;
pub use seed::Role;
use seed::Seed;
pub use source::Document;

/// How a judgement is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Whether a printed plan shows contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanDetail {
    /// With the contents of files, units and scripts.
    Full,
    /// One line a step.
    Short,
}

/// What is printed, and the exit code: 0 ok, 1 errors, 2 warnings only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineReport {
    /// For stdout.
    pub text: String,
    /// How it went.
    pub verdict: Verdict,
}

/// Says everything that a run would complain about.
#[must_use]
pub fn validate_files(documents: &[Document], style: OutputFormat) -> OfflineReport {
    let mut verdict = Verdict::Ok;
    let (mut out, mut list) = (String::new(), Vec::new());
    for document in documents {
        let file = &document.path;
        match source::read(document) {
            Ok(seed) => {
                let reading = reading_of(&seed, TokenAddresses::example_addresses());
                verdict = verdict.max(verdict_of(&reading));
                out += &caret::render_diagnostics(&reading.found, &reading.sources, Excerpts::Shown);
                let found = caret::to_json(&reading.found, &reading.sources, Excerpts::Shown);
                list.push(json!({ "file": file.display().to_string(), "diagnostics": found["diagnostics"] }));
            }
            Err(error) => {
                verdict = Verdict::Failed;
                let message = format!("cannot read {}: {error}", file.display());
                out.extend(["error: ", &message, "\n"]);
                list.push(json!({ "file": file.display().to_string(), "error": message }));
            }
        }
    }
    let text = match style {
        OutputFormat::Json => format!("{:#}\n", json!({ "verdict": verdict.verdict_word(), "files": list })),
        OutputFormat::Text if verdict == Verdict::Ok => out + "no mistakes found\n",
        OutputFormat::Text => out,
    };
    OfflineReport { text, verdict }
}

/// Prints each effect in order, then what is wrong.
#[must_use]
pub fn plan_file(file: &Path, listing: PlanDetail) -> OfflineReport {
    match source::read(&file.to_owned().into()) {
        Ok(seed) => {
            // The plan of this one is let go, since contents may be large.
            let reading = ReadResult {
                plan: FirstBootPlan::default(),
                ..reading_of(&seed, TokenAddresses::example_addresses())
            };
            // Read twice: examples let addresses be checked, but in a printed plan they would look like the
            // machine's own.
            let shown = reading_of(&seed, TokenAddresses::placeholders());
            let contents = match listing {
                PlanDetail::Full => ContentDisplay::Shown,
                PlanDetail::Short => ContentDisplay::Hidden,
            };
            let plan = text::render_plan(&shown.plan, &shown.sources, contents);
            let found = caret::render_diagnostics(&reading.found, &reading.sources, Excerpts::Shown);
            let gap = if found.is_empty() { "" } else { "\n" };
            OfflineReport { text: format!("{plan}{gap}{found}"), verdict: verdict_of(&reading) }
        }
        Err(error) => {
            let text = format!("error: cannot read {}: {error}\n", file.display());
            OfflineReport { text, verdict: Verdict::Failed }
        }
    }
}

fn verdict_of(reading: &ReadResult) -> Verdict {
    match reading.found.worst_severity() {
        None | Some(Severity::Note) => Verdict::Ok,
        Some(Severity::Warning) => Verdict::Degraded,
        Some(Severity::Error) => Verdict::Failed,
    }
}

fn reading_of(seed: &Seed, addresses: TokenAddresses) -> ReadResult {
    let mut handed = UserDataInput::default();
    for file in &seed.files {
        let unpacked = || facts::unpack_payload(&file.name, &file.bytes, FetchPolicy::none());
        match file.role {
            Role::NetworkConfig => handed.network = Some(PayloadPart::whole(&file.name, file.bytes.clone())),
            Role::Files => handed.files.extend(unpacked()),
            Role::VendorData => handed.vendor.extend(unpacked()),
            Role::Guessed | Role::UserData => handed.user.extend(unpacked()),
            Role::MetaData => {}
        }
    }
    let mut reading = reading::read(
        &handed,
        &PlanFacts { addresses, instance: InstanceData::example_names(), ..PlanFacts::default() },
    );
    let mut found = Diagnostics::default();
    image_units::warn_missing_units(&reading.plan, &mut found);
    for file in seed.files.iter().filter(|file| file.role == Role::MetaData) {
        let text = String::from_utf8_lossy(payload::without_marks(&file.bytes)).into_owned();
        let number = reading.sources.add_at(&file.name, text.as_str(), 1);
        meta_data::judge_text(&text, number, &mut found);
        for problem in &seed.problems {
            let message = format!("the machine would not get {problem}");
            found.push(Diagnostic::error(DiagnosticCode::BadValue, SourceMark::start_of(number), message));
        }
    }
    reading.found.append(found);
    reading.found.sort_by_place();
    reading
}
