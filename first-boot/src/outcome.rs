//! What came of a run, for people and for programs.
//!
//! Knows verdicts, text and JSON. Refuses to hold a value of a content, password or key. Invariant:
//! each item of the plan is in it, with its place and its fate.
//!
//! Documentation of the exit codes: <https://docs.cloud-init.io/en/latest/explanation/return_codes.html>.

use std::fmt::Write;

use document::caret::{self, Excerpts};
use document::diagnostic::{DiagnosticCode, Diagnostics, Severity};
use document::source::SourceTexts;
use serde_json::{Value, json};
use user_data::plan::PlannedStep;
use user_data::plan::text;

use crate::step_result::{ResultItem, StepResult};

/// How a run went as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything that was asked for was done.
    Ok,
    /// Something was not done; the rest was.
    Degraded,
    /// What was asked for could not be read or fetched.
    Failed,
}

impl Verdict {
    /// The word in the result.
    #[must_use]
    pub fn verdict_word(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Ok => "ok",
        }
    }

    /// 0, 1 or 2, as `cloud-init status` has it.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Degraded => 2,
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Ok, Self::Degraded, Self::Failed].into_iter().find(|verdict| verdict.verdict_word() == word)
    }
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct RunOutcome {
    pub(crate) platform: String,
    pub(crate) instance_id: String,
    pub(crate) is_first: bool,
    pub(crate) items: Vec<ResultItem>,
    pub(crate) found: Diagnostics,
    pub(crate) sources: SourceTexts,
    pub(crate) errors: RunErrors,
}

/// What went wrong beside the steps of the plan. Each phase hands its own over with what it found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RunErrors {
    /// What stopped the run as a whole.
    pub(crate) failures: Vec<String>,
    /// What the platform has but could not hand over.
    pub(crate) problems: Vec<String>,
    /// Who wanted to say what this machine is to be and was turned away. It does not count as a failure: else
    /// whoever attaches a volume could make a good slot look bad.
    pub(crate) refused: Vec<String>,
}

impl RunErrors {
    /// Of a phase that either did its work or says why not.
    pub(crate) fn from_failure(result: Result<(), String>) -> Self {
        Self { failures: result.err().into_iter().collect(), ..Self::default() }
    }

    /// Of a phase whose failure costs only itself.
    pub(crate) fn from_problem(result: Result<(), String>) -> Self {
        Self { problems: result.err().into_iter().collect(), ..Self::default() }
    }

    /// Adds those of a later phase.
    pub(crate) fn append(&mut self, later: Self) {
        self.failures.extend(later.failures);
        self.problems.extend(later.problems);
        self.refused.extend(later.refused);
    }
}

impl RunOutcome {
    /// How it went.
    #[must_use]
    pub fn run_verdict(&self) -> Verdict {
        let unread = self.found.list().iter().any(|one| {
            one.severity == Severity::Error
                && matches!(one.code, DiagnosticCode::Syntax | DiagnosticCode::UnknownFormat)
        });
        let flawed = self.found.worst_severity() > Some(Severity::Note);
        let failed_item = self.items.iter().any(|item| matches!(item.done, StepResult::Failed(_)));
        if unread || !self.errors.failures.is_empty() {
            Verdict::Failed
        } else if flawed || failed_item || !self.errors.problems.is_empty() {
            Verdict::Degraded
        } else {
            Verdict::Ok
        }
    }

    /// The process's exit code: 0 ok, 1 failed, 2 degraded.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.run_verdict().exit_code()
    }

    /// For the journal: what failed, with places and without values, and one line about the whole.
    #[must_use]
    pub fn journal_text(&self) -> String {
        let mut out = String::new();
        for failure in &self.errors.failures {
            let _ = writeln!(out, "error: {failure}");
        }
        for problem in &self.errors.problems {
            let _ = writeln!(out, "warning: {problem}");
        }
        for refused in &self.errors.refused {
            let _ = writeln!(out, "warning: {refused}");
        }
        for diagnostic in self.found.list() {
            out += &caret::render_one(diagnostic, &self.sources, Excerpts::Hidden);
        }
        for item in &self.items {
            if let StepResult::Failed(cause) = &item.done {
                let _ =
                    writeln!(out, "error: could not {}: {cause}", text::describe_step(&item.planned.step));
                let _ = writeln!(out, "  --> {}", self.place_of(&item.planned));
            }
        }
        out + &self.summary_line()
    }

    fn summary_line(&self) -> String {
        let count =
            |wanted: fn(&StepResult) -> bool| self.items.iter().filter(|item| wanted(&item.done)).count();
        format!(
            "first boot: {} (instance {} on {}, {}): {} changed, {} unchanged, {} failed\n",
            self.run_verdict().verdict_word(),
            self.instance_id,
            self.platform,
            if self.is_first { "configured now" } else { "configured before" },
            count(|done| *done == StepResult::Changed),
            count(|done| *done == StepResult::Unchanged),
            count(|done| matches!(done, StepResult::Failed(_))),
        )
    }

    fn place_of(&self, planned: &PlannedStep) -> String {
        match planned.origin.at {
            Some(at) => format!("{} {}", self.sources.place_of(at), planned.origin.key),
            None => planned.origin.key.clone(),
        }
    }

    /// The result file.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let items: Vec<Value> = self.items.iter().map(|item| self.item_json(item)).collect();
        let found = caret::to_json(&self.found, &self.sources, Excerpts::Hidden);
        json!({
            "version": 1,
            "verdict": self.run_verdict().verdict_word(),
            "platform": self.platform,
            "instance_id": self.instance_id,
            "first_boot": self.is_first,
            "failures": self.errors.failures,
            "problems": self.errors.problems,
            "refused_sources": self.errors.refused,
            "diagnostics": found["diagnostics"],
            "diagnostics_left_out": found["left_out"],
            "items": items,
        })
    }

    fn item_json(&self, item: &ResultItem) -> Value {
        let place = item.planned.origin.at.map(|at| self.sources.place_of(at));
        let (status, cause) = match &item.done {
            StepResult::Changed => ("changed", None),
            StepResult::Failed(cause) => ("failed", Some(cause)),
            StepResult::Unchanged => ("done", None),
        };
        json!({
            "stage": item.planned.stage.stage_word(),
            "key": item.planned.origin.key,
            "what": text::describe_step(&item.planned.step),
            "status": status,
            "cause": cause,
            "file": place.map(|place| place.file),
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
        })
    }
}

/// The verdict in a result file.
pub(crate) fn verdict_of(result: &Value) -> Option<Verdict> {
    Verdict::from_word(result.get("verdict")?.as_str()?)
}

/// A result file as text.
pub(crate) fn describe_result(result: &Value) -> String {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let list = |name: &str| result.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut out = format!(
        "verdict:  {}\ninstance: {}\nplatform: {}\n",
        text(result, "verdict"),
        text(result, "instance_id"),
        text(result, "platform")
    );
    for failure in list("failures").iter().chain(&list("problems")) {
        let _ = writeln!(out, "failure:  {}", failure.as_str().unwrap_or_default());
    }
    for refused in list("refused_sources") {
        let _ = writeln!(out, "refused:  {}", refused.as_str().unwrap_or_default());
    }
    for one in list("diagnostics") {
        let (line, column) = (&one["line"], &one["column"]);
        let _ = writeln!(
            out,
            "{}: {}:{line}:{column}: {}",
            text(&one, "severity"),
            text(&one, "file"),
            text(&one, "message")
        );
    }
    for item in list("items") {
        let _ =
            writeln!(out, "{:8} {}  [{}]", text(&item, "status"), text(&item, "what"), text(&item, "key"));
        if let Some(cause) = item.get("cause").and_then(Value::as_str) {
            let _ = writeln!(out, "         because {cause}");
        }
    }
    out
}
