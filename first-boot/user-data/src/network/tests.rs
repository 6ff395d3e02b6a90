use std::fs;
use std::path::Path;

use super::*;
use crate::plan::text::describe_step;
use document::caret::{Excerpts, render_diagnostics};
use document::source::SourceTexts;

/// The units and findings of a document, as a person reads them in review.
fn printed(name: &str, content: &[u8]) -> String {
    let mut sources = SourceTexts::default();
    let part = sources.add(name, String::from_utf8_lossy(content));
    let mut found = Diagnostics::default();
    let plan = read(content, part, &mut found);
    let mut text = String::new();
    for planned in &plan.steps {
        match &planned.step {
            PlanStep::WriteUnit { name, content, .. } => text.extend(["--- ", name, "\n", content.reveal()]),
            other => text.extend(["--- ", &describe_step(other), "\n"]),
        }
    }
    text + &render_diagnostics(&found, &sources, Excerpts::Hidden)
}

/// With `BLESS=1` the expectations are written anew, to be read in review.
#[test]
fn every_document_makes_the_units_beside_it() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/network/golden"));
    let mut documents: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    documents.retain(|path| path.extension().is_some_and(|ending| ending != "units"));
    documents.sort();
    assert!(documents.len() >= 12, "{documents:?}");
    for document in documents {
        let name = document.file_name().unwrap().to_str().unwrap();
        let expectation = document.with_extension("units");
        let text = printed(name, &fs::read(&document).unwrap());
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expectation, &text).unwrap();
        }

        assert_eq!(text, fs::read_to_string(&expectation).unwrap_or_default(), "{name}");
    }
}

#[test]
fn nothing_that_is_written_becomes_a_second_setting() {
    let evil = "\"x\\nDHCP=yes\\n[Route]\"";
    let text = format!(
        "version: 2\nethernets:\n  {evil}:\n    match: {{macaddress: {evil}, name: {evil}}}\n  eth0:\n    set-name: {evil}\n    \
         addresses: [{evil}]\n    nameservers: {{search: [{evil}], addresses: [{evil}]}}\n    dhcp4-overrides: {{hostname: {evil}}}\n\
         bonds:\n  {evil}: {{interfaces: [{evil}]}}\n  bond0: {{interfaces: [{evil}], parameters: {{mode: {evil}}}, dhcp6: true}}\n"
    );

    let units = printed("evil", text.as_bytes());

    let units: Vec<&str> = units.lines().take_while(|line| !line.starts_with("error")).collect();
    assert!(!units.iter().any(|line| line.contains("DHCP=yes") || line.contains("[Route]")), "{units:?}");
}

#[test]
fn thousands_of_interfaces_are_refused_at_once() {
    let links = "{\"id\": \"a\"},".repeat(10_000);

    let text = printed("x", format!("{{\"links\": [{links}{{}}]}}").as_bytes());

    assert!(text.contains("more than 1024 interfaces"), "{text}");
}

/// Twenty thousand members of a bond once took as many looks at as many interfaces: half a minute.
#[test]
fn lists_that_no_machine_has_cost_no_time() {
    let many = |item: &dyn Fn(usize) -> String, count| (0..count).map(item).collect::<Vec<_>>().join(",");
    let member = |number: usize| format!("eth{number}");
    let members = many(&member, 20_000);
    let route = |number: usize| format!("{{to: 10.{}.{}.0/24, via: 192.0.2.1}}", number / 250, number % 250);
    let address = |number: usize| format!("10.{}.{}.1/24", number / 250, number % 250);
    let words = "192.0.2.53 ".repeat(90_000);
    for text in [
        format!("version: 1\nconfig: [{{type: bond, name: bond0, bond_interfaces: [{members}]}}]"),
        format!("version: 2\nbonds: {{bond0: {{interfaces: [{members}]}}}}"),
        format!("{{\"links\": [{{\"id\": \"a\", \"type\": \"bond\", \"bond_links\": [{}]}}]}}", {
            many(&|number| format!("\"eth{number}\""), 20_000)
        }),
        format!("auto bond0\niface bond0 inet dhcp\n  bond-slaves {}\n", members.replace(',', " ")),
        format!("auto eth0\n{}", "iface eth0 inet static\naddress 192.0.2.1/24\n".repeat(20_000)),
        format!("version: 2\nethernets: {{eth0: {{routes: [{}]}}}}", many(&route, 20_000)),
        format!(
            "version: 2\nethernets: {{eth0: {{addresses: [{}], routes: [{}]}}}}",
            many(&address, 1000),
            many(&route, 1000)
        ),
        format!(
            "version: 1\nconfig: [{{type: nameserver, address: \"{words}\"}}, {{type: physical, name: eth0}}]"
        ),
    ] {
        let start = processor_time();

        let units = printed("x", text.as_bytes());

        let took = processor_time().saturating_sub(start);
        assert!(took < std::time::Duration::from_secs(1), "{took:?}: {}", &text[..60]);
        assert!(units.len() < 1 << 20, "{}: {}", units.len(), &text[..60]);
    }
}

/// What the kernel says of this thread: others may keep the machine busy.
fn processor_time() -> std::time::Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    std::time::Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn a_debian_file_is_told_from_yaml() {
    for (text, expected) in [
        ("auto lo\n", true),
        ("# a comment\n\niface eth0 inet dhcp\n", true),
        ("source /etc/network/interfaces.d/*\n", true),
        ("auto: lo\n", false),
        ("auto\n", false),
        ("version: 2\n", false),
        ("", false),
    ] {
        assert_eq!(debian::is_interfaces_file(text), expected, "{text:?}");
    }
}

#[test]
fn a_header_does_not_hide_what_a_document_is() {
    let with_header = b"#cloud-config\nversion: 2\nethernets: {eth0: {dhcp4: true}}\n";

    assert!(is_config(with_header));
    assert!(is_config(b"network: {version: 2}\n"));
    assert!(!is_config(b"#cloud-config\nnetwork: {version: 2}\n"));
    assert!(!is_config(b"#cloud-config\nhostname: a\n"));
}

#[test]
fn a_configuration_that_is_switched_off_or_empty_writes_nothing() {
    for text in ["network: {config: disabled}", "{\"version\": 2}", "version: 1\nconfig: []\n", ""] {
        assert_eq!(printed("x", text.as_bytes()), "", "{text}");
    }
}
