//! What each fuzz target does with its bytes. The fuzzer and the corpus test both include this file,
//! so that a past crash is a plain test from then on.

use document::caret::{self, Excerpts};
use document::diagnostic::Diagnostics;
use document::source::SourceTexts;
use user_data::cloudconfig::order::PlanFacts;
use user_data::container::{self, FetchPolicy};
use user_data::plan::step::{FetchRequest, PlanStep};
use user_data::plan::text::{self, ContentDisplay};
use user_data::plan::{FirstBootPlan, PlanStage};
use user_data::reading::{self, UserDataInput};
use user_data::room::DecompressionBudget;

/// A payload in containers, whose references lead to the payload itself.
pub(crate) fn container(bytes: &[u8]) {
    let mut fetch = |_: &FetchRequest| Ok(bytes.to_vec());
    let parts = container::open_payload("x", bytes, FetchPolicy { include: true, fetch: Some(&mut fetch) });
    assert!(parts.len() <= container::MOST_PARTS + 1);
    assert!(
        parts.iter().map(|part| part.content.len()).sum::<usize>() <= bytes.len() + 2 * container::MOST_BYTES
    );
}

/// An Ignition configuration: done wholly, or not at all but for keys.
pub(crate) fn ignition(bytes: &[u8]) {
    let mut sources = SourceTexts::default();
    let content = String::from_utf8_lossy(bytes);
    let part = sources.add("config.ign", content.clone());
    let mut found = Diagnostics::default();
    let plan = user_data::ignition::read(&content, part, &mut DecompressionBudget::default(), &mut found);
    let refused = found.worst_severity() == Some(document::diagnostic::Severity::Error);
    let only_access = plan.steps.iter().all(|one| matches!(one.step, PlanStep::AuthorizeKeys { .. }));
    assert!(!refused || only_access, "a refused configuration does something");
    print(&plan, &found, &sources);
    merged(bytes);
}

/// A configuration whose references lead to itself: every place is one of the sources.
fn merged(bytes: &[u8]) {
    let mut fetch = |_: &FetchRequest| Ok(bytes.to_vec());
    let user =
        container::open_payload("config.ign", bytes, FetchPolicy { include: false, fetch: Some(&mut fetch) });
    let reading = reading::read(&UserDataInput { user, ..UserDataInput::default() }, &PlanFacts::default());
    for diagnostic in reading.found.list() {
        assert!(
            diagnostic.at.line == 0 || reading.sources.source_text(diagnostic.at.part).is_some(),
            "{diagnostic}"
        );
    }
    print(&reading.plan, &reading.found, &reading.sources);
}

/// Network configuration: every unit that comes of it has only sections and settings, one a line.
pub(crate) fn network(bytes: &[u8]) {
    let mut sources = SourceTexts::default();
    let part = sources.add("network-config", String::from_utf8_lossy(bytes));
    let mut found = Diagnostics::default();
    let plan = user_data::network::read(bytes, part, &mut found);
    for planned in &plan.steps {
        assert_eq!(planned.stage, PlanStage::Network);
        if let PlanStep::WriteUnit { name, content, .. } = &planned.step {
            assert!(!name.contains('/') && name.starts_with("10-cloud-init-"), "{name}");
            content.reveal().lines().for_each(is_setting);
        }
    }
    print(&plan, &found, &sources);
}

fn is_setting(line: &str) {
    let section = line.starts_with('[') && line.ends_with(']');
    let name = line.split('=').next().unwrap_or_default();
    let setting = line.contains('=') && name.chars().all(|c| c.is_ascii_alphanumeric());
    assert!(line.is_empty() || section || setting, "{line}");
    assert!(!line.contains(|c: char| c.is_control()), "{line}");
}

/// User-data of any kind, from its containers to the printed plan.
pub(crate) fn reading(bytes: &[u8]) {
    let user = container::open_payload("user-data", bytes, FetchPolicy::none());
    let reading = reading::read(&UserDataInput { user, ..UserDataInput::default() }, &PlanFacts::default());
    print(&reading.plan, &reading.found, &reading.sources);
}

fn print(plan: &FirstBootPlan, found: &Diagnostics, sources: &SourceTexts) {
    let _ = text::render_plan(plan, sources, ContentDisplay::Hidden);
    let _ = caret::render_diagnostics(found, sources, Excerpts::Shown);
}
