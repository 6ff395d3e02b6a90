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

/// So many sampled stories begin, whatever the time: on the slowest machine a commit must still see some of them.
const MIN_SAMPLED: usize = 4;

/// How often CI runs a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frequency {
    /// When it is named: what it wants was not seen to hold yet
    ByName,
    /// In each run: no other story proves what it proves
    EveryTime,
    /// When its turn comes: a moment of many, or another way to what a story of each run proves
    Sampled,
}

/// A named piece of behaviour; it fails by panicking.
pub(crate) struct Story {
    pub(crate) name: String,
    pub(crate) frequency: Frequency,
    act: Box<dyn Fn(&Scene) + Send + Sync>,
}

impl Story {
    /// A story of each run.
    pub(crate) fn every_time(name: impl Into<String>, act: impl Fn(&Scene) + Send + Sync + 'static) -> Self {
        Self { name: name.into(), frequency: Frequency::EveryTime, act: Box::new(act) }
    }

    /// A story of what is not done yet.
    pub(crate) fn by_name(name: impl Into<String>, act: impl Fn(&Scene) + Send + Sync + 'static) -> Self {
        Self { frequency: Frequency::ByName, ..Self::every_time(name, act) }
    }

    /// A story that a sample may leave out.
    pub(crate) fn sampled(name: impl Into<String>, act: impl Fn(&Scene) + Send + Sync + 'static) -> Self {
        Self { frequency: Frequency::Sampled, ..Self::every_time(name, act) }
    }
}

struct Report {
    name: String,
    time: Duration,
    processor: Duration,
    failure: Option<String>,
}

/// Hands out stories in order, and stops handing out sampled ones when the time is over.
struct Queue<'a> {
    stories: &'a [Story],
    next: AtomicUsize,
    sampled: AtomicUsize,
    end: Option<Instant>,
    left_out: Mutex<Vec<&'a str>>,
}

impl<'a> Queue<'a> {
    fn next_story(&self) -> Option<&'a Story> {
        loop {
            let story = self.stories.get(self.next.fetch_add(1, Ordering::Relaxed))?;
            if story.frequency == Frequency::EveryTime || self.has_time() {
                return Some(story);
            }
            self.left_out.lock().unwrap().push(&story.name);
        }
    }

    fn has_time(&self) -> bool {
        let enough = self.sampled.fetch_add(1, Ordering::Relaxed) >= MIN_SAMPLED;
        !enough || self.end.is_none_or(|end| Instant::now() < end)
    }
}

/// Runs them all, or what `budget` leaves time for.
pub(crate) fn run(scene: &Scene, stories: &[Story], budget: Option<Duration>) -> ExitCode {
    let begin = Instant::now();
    let queue = Queue {
        stories,
        next: AtomicUsize::new(0),
        sampled: AtomicUsize::new(0),
        end: budget.map(|budget| begin + budget),
        left_out: Mutex::new(Vec::new()),
    };
    let reports = Mutex::new(Vec::new());
    // The report prints what a panic said; the default hook would print it in the middle of other stories.
    panic::set_hook(Box::new(|_| {}));
    println!("running {} stories, {AT_ONCE} at a time", stories.len());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(stories.len()) {
            scope.spawn(|| {
                while let Some(story) = queue.next_story() {
                    let report = tell(scene, story);
                    print(&report);
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let reports =
        reports.into_inner().unwrap().into_iter().map(|report| second_chance(scene, stories, report));
    let reports: Vec<Report> = reports.collect();
    print_left_out(&queue.left_out.into_inner().unwrap(), budget);
    summary(&reports, begin.elapsed())
}

fn print_left_out(names: &[&str], budget: Option<Duration>) {
    let Some(budget) = budget.filter(|_| !names.is_empty()) else { return };
    println!("\nnot run, since {} s were over: {}", budget.as_secs(), names.join(" "));
    println!("`ci/test boot` runs every story");
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
