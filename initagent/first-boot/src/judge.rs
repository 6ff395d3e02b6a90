//! `validate` and `plan`: what a run would say and do, on any machine, without doing it.
//!
//! Knows files, of user-data and of network configuration. Refuses to know this machine: addresses are judged by examples, and printed as their tokens. Invariant: nothing is
//! written.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use document::caret::{self, Excerpts};
use document::diagnostic::Severity;
use serde_json::json;
use user_data::container::References;
use user_data::network;
use user_data::part::Part;
use user_data::payload::{self, Kind};
use user_data::plan::Plan;
use user_data::plan::order::Facts;
use user_data::plan::text::{self, Contents};
use user_data::reading::{self, Handed, Reading};
use user_data::template::InstanceData;
use user_data::tokens::Addresses;

use crate::facts;
use crate::outcome::Verdict;

/// More than any cloud hands over.
const MOST: u64 = 64 << 20;

/// How a judgement is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Whether a printed plan shows contents.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listing {
    /// With the contents of files, units and scripts.
    Full,
    /// One line a step.
    Short,
}

/// What is printed, and the exit code: 0 ok, 1 errors, 2 warnings only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Judgement {
    /// For stdout.
    pub text: String,
    /// How it went.
    pub verdict: Verdict,
}

/// Says everything that a run would complain about.
#[must_use]
pub fn validate(files: &[PathBuf], style: Style) -> Judgement {
    let mut verdict = Verdict::Ok;
    let (mut out, mut list) = (String::new(), Vec::new());
    for file in files {
        match read(file) {
            Ok(handed) => {
                let reading = reading_of(&handed, Addresses::examples());
                verdict = verdict.max(verdict_of(&reading));
                out += &caret::render(&reading.found, &reading.sources, Excerpts::Shown);
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
        Style::Json => format!("{:#}\n", json!({ "verdict": verdict.word(), "files": list })),
        Style::Text if verdict == Verdict::Ok => out + "no mistakes found\n",
        Style::Text => out,
    };
    Judgement { text, verdict }
}

/// Prints each effect in order, then what is wrong.
#[must_use]
pub fn plan(file: &Path, listing: Listing) -> Judgement {
    match read(file) {
        Ok(handed) => {
            // The plan of this one is let go, since contents may be large.
            let reading = Reading { plan: Plan::default(), ..reading_of(&handed, Addresses::examples()) };
            let shown = reading_of(&handed, Addresses::placeholders());
            let contents = match listing {
                Listing::Full => Contents::Shown,
                Listing::Short => Contents::Hidden,
            };
            let plan = text::render(&shown.plan, &shown.sources, contents);
            let found = caret::render(&reading.found, &reading.sources, Excerpts::Shown);
            let gap = if found.is_empty() { "" } else { "\n" };
            Judgement { text: format!("{plan}{gap}{found}"), verdict: verdict_of(&reading) }
        }
        Err(error) => {
            let text = format!("error: cannot read {}: {error}\n", file.display());
            Judgement { text, verdict: Verdict::Failed }
        }
    }
}

fn verdict_of(reading: &Reading) -> Verdict {
    match reading.found.worst() {
        None | Some(Severity::Note) => Verdict::Ok,
        Some(Severity::Warning) => Verdict::Degraded,
        Some(Severity::Error) => Verdict::Failed,
    }
}

fn reading_of(handed: &Handed, addresses: Addresses) -> Reading {
    reading::read(handed, &Facts { addresses, instance: InstanceData::examples(), ..Facts::default() })
}

/// Reads a file, or stdin for `-`.
fn read(file: &Path) -> io::Result<Handed> {
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        io::stdin().take(MOST + 1).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(MOST + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other(format!("it is larger than {MOST} bytes")));
    }
    let name = file.display().to_string();
    // What lies beside user-data as `network-config` has no first line that would say so, or that of a
    // cloud-config, which many people write there.
    let may_be_network = matches!(payload::detect(&bytes), Kind::CloudConfig | Kind::Unknown);
    Ok(if may_be_network && network::is_config(&bytes) {
        Handed { network: Some(Part::whole(name, bytes)), ..Handed::default() }
    } else {
        Handed { user: facts::unpack(&name, &bytes, References::none()), ..Handed::default() }
    })
}
