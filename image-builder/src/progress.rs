//! Tells how a build goes: bars on a terminal, lines in a log, events for machines.
#![expect(clippy::disallowed_methods, reason = "effects live here: it looks at the clock")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::step::BuildStep;

/// How progress is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProgressDisplay {
    Bars,
    Events,
    Lines,
}

/// Who wants to read the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    Machines,
    People,
}

/// The progress of one build.
#[derive(Debug)]
pub(crate) struct BuildProgress {
    display: ProgressDisplay,
    started: Instant,
    running: Option<(BuildStep, Instant, ProgressBar)>,
    begun: usize,
}

impl BuildProgress {
    pub(crate) fn new(audience: OutputFormat) -> Self {
        let display = match audience {
            OutputFormat::Machines => ProgressDisplay::Events,
            // Bars redraw themselves, which fills a log with escape sequences.
            OutputFormat::People if std::io::stderr().is_terminal() => ProgressDisplay::Bars,
            OutputFormat::People => ProgressDisplay::Lines,
        };
        Self { display, started: Instant::now(), running: None, begun: 0 }
    }

    /// Ends the step before and begins this one.
    pub(crate) fn begin_step(&mut self, step: BuildStep) {
        self.finish_step();
        // Whoever reads the plan or the events waits for each of these.
        debug_assert_eq!(BuildStep::ALL.get(self.begun), Some(&step), "the steps are begun in their order");
        self.begun += 1;
        let bar = match self.display {
            ProgressDisplay::Bars => step_spinner(step),
            ProgressDisplay::Events | ProgressDisplay::Lines => ProgressBar::hidden(),
        };
        if self.display == ProgressDisplay::Events {
            print_event(
                &serde_json::json!({ "event": "begin", "step": step.step_name(), "text": step.step_sentence() }),
            );
        }
        self.running = Some((step, Instant::now(), bar));
    }

    /// Measures how far the running step is; may be handed to other threads.
    pub(crate) fn step_meter(&self) -> StepMeter {
        let (step, bar) = match &self.running {
            Some((step, _, bar)) => (step.step_name(), bar.clone()),
            None => ("", ProgressBar::hidden()),
        };
        StepMeter { display: self.display, step, bar, told: Arc::default() }
    }

    /// Says what the running step found out, in a few words.
    pub(crate) fn note_result(&mut self, text: &str) {
        match (self.display, &self.running) {
            (ProgressDisplay::Bars, Some((_, _, bar))) => bar.set_message(text.to_owned()),
            (ProgressDisplay::Events, Some((step, ..))) => {
                print_event(&serde_json::json!({ "event": "note", "step": step.step_name(), "text": text }));
            }
            (ProgressDisplay::Lines, Some((step, ..))) => eprintln!("{:>10}  {text}", step.step_name()),
            (_, None) => {}
        }
    }

    /// Says what a person should know before they use the image.
    pub(crate) fn show_warning(&self, text: &str) {
        match (self.display, &self.running) {
            (ProgressDisplay::Events, Some((step, ..))) => {
                print_event(
                    &serde_json::json!({ "event": "warning", "step": step.step_name(), "text": text }),
                );
            }
            (ProgressDisplay::Bars, Some((_, _, bar))) => bar.suspend(|| eprintln!("WARNING: {text}")),
            _ => eprintln!("WARNING: {text}"),
        }
    }

    /// Ends the running step.
    pub(crate) fn finish_step(&mut self) {
        let Some((step, since, bar)) = self.running.take() else { return };
        let took = since.elapsed();
        match self.display {
            ProgressDisplay::Bars => {
                let message = bar.message();
                bar.finish_and_clear();
                eprintln!("{:>10}  {:>6.1} s  {message}", step.step_name(), took.as_secs_f64());
            }
            ProgressDisplay::Events => {
                print_event(
                    &serde_json::json!({ "event": "end", "step": step.step_name(), "seconds": rounded_seconds(took) }),
                );
            }
            ProgressDisplay::Lines => eprintln!("{:>10}  {:>6.1} s", step.step_name(), took.as_secs_f64()),
        }
    }

    /// How long it all took.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// How far a step is.
#[derive(Debug, Clone)]
pub(crate) struct StepMeter {
    display: ProgressDisplay,
    step: &'static str,
    bar: ProgressBar,
    /// The last tenth that was told.
    told: Arc<AtomicU64>,
}

impl StepMeter {
    /// So much of so much is done; the unit is the caller's.
    pub(crate) fn set_progress(&self, done: u64, total: u64) {
        match self.display {
            ProgressDisplay::Bars => {
                if self.bar.length() != Some(total) {
                    self.bar.set_length(total);
                    self.bar.set_style(bar_style(
                        "{prefix:>10}  {elapsed:>6}  [{bar:30}] {percent:>3} %  {wide_msg}",
                    ));
                }
                self.bar.set_position(done.min(total));
            }
            ProgressDisplay::Events => {
                let tenth = done.saturating_mul(10) / total.max(1);
                // Several threads count; only the one that first reaches a tenth tells it.
                if self.told.fetch_max(tenth, Ordering::Relaxed) < tenth {
                    print_event(&serde_json::json!({
                        "event": "progress", "step": self.step, "done": done, "total": total,
                    }));
                }
            }
            ProgressDisplay::Lines => {}
        }
    }
}

/// A bar that is cleared, not finished, when its step fails.
impl Drop for BuildProgress {
    fn drop(&mut self) {
        if let Some((_, _, bar)) = self.running.take() {
            bar.finish_and_clear();
        }
    }
}

fn step_spinner(step: BuildStep) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(bar_style("{prefix:>10}  {elapsed:>6}  {spinner} {wide_msg}"));
    bar.set_prefix(step.step_name());
    bar.set_message(step.step_sentence());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn bar_style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn rounded_seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// One line of JSON.
pub(crate) fn print_event(value: &serde_json::Value) {
    println!("{value}");
}
