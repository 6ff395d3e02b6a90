//! Says how a copy of known length goes: a bar on a terminal, a line for each tenth in a log, events for machines.
//!
//! Nothing is said in the first second: most copies are over by then.
#![expect(clippy::disallowed_methods, reason = "effects live here: it looks at the clock")]
#![expect(clippy::print_stderr, reason = "printing is what it is for")]

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use disk_install::progress::rate_text;
use indicatif::{ProgressBar, ProgressStyle};

use crate::progress::{OutputFormat, print_event};

/// Who waits less sees nothing.
const QUIET: Duration = Duration::from_secs(1);
/// A bar need not move more often.
const INTERVAL: Duration = Duration::from_millis(100);

/// How far a copy is.
#[derive(Debug)]
pub(crate) struct TransferMeter {
    name: &'static str,
    output: OutputFormat,
    started: Instant,
    shown: Option<Instant>,
    tenth: u64,
    bar: Option<ProgressBar>,
}

impl TransferMeter {
    pub(crate) fn start_meter(name: &'static str, output: OutputFormat) -> Self {
        Self { name, output, started: Instant::now(), shown: None, tenth: 0, bar: None }
    }

    /// So many bytes of so many are done.
    pub(crate) fn set_progress(&mut self, done: u64, total: u64) {
        let elapsed = self.started.elapsed();
        if elapsed < QUIET || self.shown.is_some_and(|shown| shown.elapsed() < INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        let tenth = done.saturating_mul(10) / total.max(1);
        match self.output {
            OutputFormat::Machines if tenth > self.tenth => print_event(&serde_json::json!({
                "event": "progress", "step": self.name, "done": done, "total": total,
            })),
            OutputFormat::People if std::io::stderr().is_terminal() => {
                self.bar.get_or_insert_with(|| new_bar(self.name, total)).set_position(done);
            }
            OutputFormat::People if tenth > self.tenth => {
                eprintln!("{:>10}  {:>3} %  {}", self.name, tenth * 10, rate_text(done, total, elapsed));
            }
            _ => {}
        }
        self.tenth = tenth;
    }
}

impl Drop for TransferMeter {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(name: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = "{prefix:>10}  [{bar:30}] {percent:>3} %  {binary_bytes_per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(name);
    bar
}
