//! Runs stories, two at a time, and reports each with its time.
//!
//! Knows order, panics and totals; refuses to know what a story is about. Invariant: every chosen story is run
//! and reported, whatever the others did.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::scene::{self, Scene};

/// Emulated machines want a processor each, and the smallest machine this runs on has two.
const AT_ONCE: usize = 2;

/// A named piece of behaviour; it fails by panicking.
pub(crate) struct Story {
    pub(crate) name: String,
    act: Box<dyn Fn(&Scene) + Send + Sync>,
}

impl Story {
    pub(crate) fn new(name: impl Into<String>, act: impl Fn(&Scene) + Send + Sync + 'static) -> Self {
        Self { name: name.into(), act: Box::new(act) }
    }
}

struct Report {
    name: String,
    time: Duration,
    processor: Duration,
    failure: Option<String>,
}

/// The stories whose names contain one of the words; all of them without words.
pub(crate) fn chosen(stories: Vec<Story>, arguments: &[String]) -> Vec<Story> {
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |story: &Story| words.is_empty() || words.iter().any(|word| story.name.contains(*word));
    stories.into_iter().filter(wanted).collect()
}

/// Runs them all.
pub(crate) fn run(scene: &Scene, stories: &[Story]) -> ExitCode {
    let begin = Instant::now();
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    // The report says what a panic said; the default hook would say it in the middle of other stories.
    panic::set_hook(Box::new(|_| {}));
    println!("running {} stories, {AT_ONCE} at a time", stories.len());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(stories.len()) {
            scope.spawn(|| {
                while let Some(story) = stories.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = tell(scene, story);
                    print(&report);
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let reports =
        reports.into_inner().unwrap().into_iter().map(|report| second_chance(scene, stories, report));
    summary(&reports.collect::<Vec<_>>(), begin.elapsed())
}

/// A story that failed is told once more, alone: emulated machines on a host with neighbours miss deadlines
/// that mean nothing. What failed first stays in the log.
fn second_chance(scene: &Scene, stories: &[Story], report: Report) -> Report {
    let story = stories.iter().find(|story| report.failure.is_some() && story.name == report.name);
    let Some(story) = story else { return report };
    println!("telling {} once more, alone", story.name);
    let again = tell(scene, story);
    print(&again);
    again
}

fn tell(scene: &Scene, story: &Story) -> Report {
    let begin = Instant::now();
    let _ = scene::take_processor_time();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (story.act)(scene)));
    Report {
        name: story.name.clone(),
        time: begin.elapsed(),
        processor: scene::take_processor_time(),
        failure: outcome.err().map(|panic| message(panic.as_ref())),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked without words").to_owned()
}

/// What all machines together took: unlike the clock, the same on a busy host.
fn processor_seconds() -> i64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    usage.user_time().tv_sec() + usage.system_time().tv_sec()
}

fn print(report: &Report) {
    let verdict = report.failure.as_ref().map_or_else(|| "ok".to_owned(), |why| format!("FAILED\n{why}"));
    let (time, processor) = (report.time.as_secs_f64(), report.processor.as_secs_f64());
    println!("story {:<50} {time:>6.1} s, {processor:>6.1} s of a processor  {verdict}", report.name);
}

fn summary(reports: &[Report], time: Duration) -> ExitCode {
    let failed: Vec<&Report> = reports.iter().filter(|report| report.failure.is_some()).collect();
    println!(
        "\nstories: {} passed, {} failed, in {:.0} s, with {} s of processor time",
        reports.len() - failed.len(),
        failed.len(),
        time.as_secs_f64(),
        processor_seconds()
    );
    for report in &failed {
        println!("failed: {}", report.name);
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
