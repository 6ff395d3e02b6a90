//! Documents made to cost time or memory cost little of either: at most a second and 64 MiB.

#![expect(clippy::unwrap_used, reason = "this file is a test")]

use std::fmt::Write;
use std::fs;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use document::caret::{self, Excerpts};
use flate2::Compression;
use flate2::write::GzEncoder;
use user_data::cloudconfig::order::PlanFacts;
use user_data::part::PayloadPart;
use user_data::plan::step::PlanStep;
use user_data::plan::text::{self, ContentDisplay};
use user_data::reading::{self, ReadResult, UserDataInput};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtUsNNX8kEnqp0nrmHYBNCJYGPTrPHmFQhRCGGQpqaH";
const MIB: usize = 1 << 20;
/// Unoptimized code gets smaller documents, since every developer waits for it.
const SIZE: usize = if cfg!(debug_assertions) { MIB / 16 } else { MIB };

/// What the kernel says of memory is of the process: whoever measures it does so alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What reading, judging and printing a document costs.
fn cost(document: &str) -> Duration {
    let user = vec![PayloadPart::whole("user-data", document)];
    let before = processor_time();
    let reading = reading::read(&UserDataInput { user, ..UserDataInput::default() }, &PlanFacts::default());
    let found = caret::render_diagnostics(&reading.found, &reading.sources, Excerpts::Shown);
    let plan = text::render_plan(&reading.plan, &reading.sources, ContentDisplay::Hidden);
    let took = processor_time().saturating_sub(before);
    assert!(found.len() < MIB, "{} bytes of diagnostics", found.len());
    assert!(plan.len() < 64 * MIB);
    took
}

fn alias_bomb(levels: usize) -> String {
    let mut bomb =
        "#cloud-config\nruncmd:\n  - &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..levels {
        let references = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "  - &a{level} [{references}]").unwrap();
    }
    bomb
}

/// A document of about a MiB, made of one line over and over.
fn filled(head: &str, line: impl Fn(usize) -> String) -> String {
    let mut document = format!("#cloud-config\n{head}");
    let mut number = 0;
    while document.len() < SIZE - 200 {
        document.push_str(&line(number));
        number += 1;
    }
    document
}

/// A name and how the document is made; one at a time, so that they don't add up.
type Bomb = (&'static str, Box<dyn Fn() -> String>);

fn bomb(name: &'static str, document: impl Fn() -> String + 'static) -> Bomb {
    (name, Box::new(document))
}

fn bombs() -> Vec<Bomb> {
    vec![
        bomb("aliases, 7 levels", move || alias_bomb(7)),
        bomb("aliases, 30 levels", move || alias_bomb(30)),
        bomb("one long text, often", move || {
            filled(&format!("a: &a {}\nruncmd:\n", "x".repeat(20_000)), |_| "  - *a\n".to_owned())
        }),
        bomb("anchors", move || filled("x-a:\n", |number| format!("  - &a{number} b\n"))),
        bomb("anchors in anchors", move || {
            format!("#cloud-config\na: {}", "&a [".repeat(60) + &"a,".repeat(SIZE / 5))
        }),
        bomb("merge keys", move || filled("a: &a {b: c}\nusers:\n", |_| "  - {<<: *a}\n".to_owned())),
        bomb("deep brackets", move || format!("#cloud-config\na: {}", "[".repeat(SIZE - 100))),
        bomb("deep dashes", move || format!("#cloud-config\na:\n{}", "- ".repeat(SIZE / 2 - 100))),
        bomb("deep indentation", move || {
            (0..1400).fold("#cloud-config\n".to_owned(), |all, n| all + &" ".repeat(n) + "a:\n")
        }),
        bomb("unknown keys", move || filled("", |number| format!("wrte_files{number}: 1\n"))),
        bomb("duplicate keys", move || filled("", |_| "hostname: a\n".to_owned())),
        bomb("hyphens and underscores", move || {
            filled("", |n| format!("{}: 1\n", if n % 2 == 0 { "write-files" } else { "write_files" }))
        }),
        bomb("unknown tokens", move || {
            filled("write_files: [{path: /etc/a, content: '", |_| "$public_ipv6 ".to_owned()) + "'}]"
        }),
        bomb("unknown tokens, lines", move || filled("runcmd:\n - |\n", |_| "  $public_ipv6\n".to_owned())),
        bomb("many users", move || filled("users:\n", |number| format!("- u{number}\n"))),
        bomb("users with mistakes", move || {
            filled("users:\n", |_| "- {name: a b, uid: x, nmae: y}\n".to_owned())
        }),
        bomb("users of each other's groups", move || {
            filled("users:\n", |n| format!("- {{name: u{n}, groups: [g{n}]}}\n"))
        }),
        bomb("groups with commas", move || filled("groups: '", |number| format!("g{number},")) + "'"),
        bomb("keys", move || filled("ssh_authorized_keys:\n", |number| format!("- {KEY} {number}\n"))),
        bomb("keys in one text", move || {
            filled("ssh_authorized_keys:\n - |\n", |number| format!("  {KEY} {number}\n"))
        }),
        bomb("bad keys", move || filled("ssh_authorized_keys:\n", |_| "- ssh-rsa AAAA\n".to_owned())),
        bomb("files", move || filled("write_files:\n", |number| format!("- {{path: /etc/{number}}}\n"))),
        bomb("units", move || {
            filled("coreos:\n units:\n", |number| format!(" - {{name: a{number}.service, mask: true}}\n"))
        }),
        bomb("commands", move || filled("runcmd:\n", |_| "- [a, b]\n".to_owned())),
        bomb("mounts", move || filled("mounts:\n", |number| format!("- [vdb, /srv/{number}]\n"))),
        bomb("mounts and homes", move || {
            let line = |n: usize| format!("- [vdb, /srv/{n}]\n");
            let homes = (0..SIZE / 64).map(|n| format!("- {{name: u{n}, homedir: /opt/{n}}}\n"));
            filled("mounts:\n", line).split_at(SIZE / 2).0.rsplit_once('\n').unwrap().0.to_owned()
                + "\nusers:\n"
                + &homes.collect::<String>()
        }),
        bomb("mount units and homes", move || {
            filled("coreos:\n units:\n", |n| format!(" - {{name: srv-{n}.mount, content: '[Mount]'}}\n"))
        }),
        bomb("users in lists of lists", move || {
            filled("users:\n", |_| "- [[[a, b], 'c,d'], e]\n".to_owned())
        }),
        bomb("quoted texts indented too little", move || {
            filled("a:\n  b: \"", |_| "it's\n".to_owned()) + "\""
        }),
        bomb("temporary files", move || {
            filled("write_files: [{path: /etc/tmpfiles.d/a.conf, content: '", |_| "R /a\n\n    ".to_owned())
                + "'}]"
        }),
        bomb("a long environment", move || {
            filled("write_files: [{path: /etc/environment, content: '", |_| "A=b\n\n    ".to_owned()) + "'}]"
        }),
        bomb("device names with dots", move || {
            format!("#cloud-config\nmounts: [['{}', /srv/a]]\n", "a.".repeat(SIZE / 2 - 100))
        }),
        bomb("broken, with many keys", move || filled("\t\n", |_| "users: [a]\n".to_owned())),
        bomb("one long line", move || format!("#cloud-config\nhostname: {}\n", "x".repeat(SIZE - 100))),
        bomb("colons", move || format!("#cloud-config\nhostnme: \"{}\"\n", ":".repeat(SIZE - 100))),
        bomb("quotes", move || filled("a: ", |_| "'a' ".to_owned())),
        bomb("zeros", move || format!("#cloud-config\n{}", "\0".repeat(SIZE - 100))),
        bomb("carriage returns", move || format!("#cloud-config\r\n{}", "\r".repeat(SIZE - 100))),
        bomb("a script of one line", move || format!("#!/bin/sh\n{}", "$public_ipv4".repeat(SIZE / 12 - 10))),
        bomb("too long", move || filled("", |number| format!("a{number}: b\n")).repeat(20)),
    ]
}

#[test]
fn many_parts_cost_no_more_than_one() {
    let _alone = alone();
    let first = filled("", |number| format!("k{number}: 1\n"));
    let later =
        (0..250).map(|number| format!("#cloud-config\nruncmd: [echo {number}]\nhostname: h{number}\n"));
    let parts = [first].into_iter().chain(later).enumerate();
    let user: Vec<PayloadPart> =
        parts.map(|(number, text)| PayloadPart::whole(format!("part-{number}"), text)).collect();
    let before = processor_time();

    let reading = reading::read(&UserDataInput { user, ..UserDataInput::default() }, &PlanFacts::default());

    let took = processor_time().saturating_sub(before);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(!reading.plan.steps.is_empty());
}

#[test]
fn no_document_costs_more_than_a_second_or_64_mib() {
    let _alone = alone();
    let mut expensive = Vec::new();
    for (name, document) in bombs() {
        let before = memory("VmRSS:");
        // Lets the kernel forget the peak of the document before.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let took = cost(&document());
        let peak = memory("VmHWM:").saturating_sub(before);
        if took > Duration::from_secs(1) || peak > 64 * MIB {
            expensive.push(format!("{name}: {took:?}, {} MiB", peak / MIB));
        }
    }

    assert_eq!(expensive, Vec::<String>::new());
}

#[test]
fn an_alias_bomb_costs_less_than_10_ms_and_16_mib() {
    let _alone = alone();
    let bomb = alias_bomb(7);
    cost(&bomb);
    let before = memory("VmRSS:");
    fs::write("/proc/self/clear_refs", "5").unwrap();

    let took = cost(&bomb);

    assert!(took < Duration::from_millis(10), "{took:?}");
    assert!(memory("VmHWM:").saturating_sub(before) < 16 * MIB);
}

/// Zeros, so many MiB of them, as gzip and base64: a thousandth of that.
fn packed_zeros(mebibytes: usize) -> String {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; MIB];
    (0..mebibytes).for_each(|_| packer.write_all(&zeros).unwrap());
    STANDARD.encode(packer.finish().unwrap())
}

#[test]
fn packed_contents_are_bounded_all_together() {
    let _alone = alone();
    let packed = packed_zeros(15);
    let files = (0..20).fold("#cloud-config\nwrite_files:\n".to_owned(), |all, number| {
        all + &format!("- {{path: /etc/{number}, encoding: gz+b64, content: {packed}}}\n")
    });
    let sources = vec![format!(r#"{{"compression": "gzip", "source": "data:;base64,{packed}"}}"#); 20];
    let contents = sources.join(r#"}, {"path": "/etc/a", "contents": "#);
    let ignition = format!(
        r#"{{"ignition": {{"version": "3.4.0"}}, "storage": {{"files": [{{"path": "/etc/a", "contents": {contents}}}]}}}}"#
    );

    for (document, kept) in [(files, 1), (ignition, 0)] {
        let (reading, took, peak) = read(&document);

        let files = reading.plan.steps.iter().filter(|one| matches!(one.step, PlanStep::WriteFile(_)));
        assert_eq!(files.count(), kept);
        let found = caret::render_diagnostics(&reading.found, &reading.sources, Excerpts::Shown);
        assert!(found.contains("all contents together"), "{found}");
        assert!(took < Duration::from_secs(1) && peak < 64 * MIB, "{took:?}, {} MiB", peak / MIB);
    }
}

/// A document with its owner's key and so many users.
fn users(count: usize) -> String {
    let head = format!("#cloud-config\nssh_authorized_keys: [{KEY}]\nusers:\n");
    (0..count).fold(head, |mut document, number| {
        writeln!(document, "- u{number}").unwrap();
        document
    })
}

/// What a document costs, and what comes of it.
fn read(document: &str) -> (ReadResult, Duration, usize) {
    let before = memory("VmRSS:");
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let started = processor_time();
    let user = vec![PayloadPart::whole("user-data", document)];
    let reading = reading::read(&UserDataInput { user, ..UserDataInput::default() }, &PlanFacts::default());
    let took = processor_time().saturating_sub(started);
    (reading, took, memory("VmHWM:").saturating_sub(before))
}

#[test]
fn a_hundred_thousand_users_are_refused_where_it_is_too_much_and_their_owner_gets_in() {
    let _alone = alone();
    let (reading, took, peak) = read(&users(100_000));

    let found = caret::render_diagnostics(&reading.found, &reading.sources, Excerpts::Shown);
    assert!(found.contains("at most 50000 values") && found.contains("user-data:500"), "{found}");
    let keys = reading.plan.steps.iter().filter(|one| matches!(one.step, PlanStep::AuthorizeKeys { .. }));
    assert_eq!(keys.count(), 1);
    assert!(took < Duration::from_secs(1) && peak < 64 * MIB, "{took:?}, {} MiB", peak / MIB);
}

#[test]
fn as_many_users_as_are_read_are_planned() {
    let _alone = alone();
    // Unoptimized code takes longer, but not more memory.
    let count = if cfg!(debug_assertions) { 20_000 } else { 49_000 };
    let (reading, took, peak) = read(&users(count));

    let made = reading.plan.steps.iter().filter(|one| matches!(one.step, PlanStep::CreateUser(_)));
    assert_eq!(made.count(), count);
    assert!(took < Duration::from_secs(1) && peak < 64 * MIB, "{took:?}, {} MiB", peak / MIB);
}

/// What this thread has computed: the machine may be busy with other things.
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// What the kernel says of this process, in bytes.
fn memory(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
