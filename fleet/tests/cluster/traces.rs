//! What units leave in systemd when they went: nothing, after each verb.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::time::Instant;

use fleet::agent::systemd::calls;

use crate::{
    nodes::{Cluster, Node},
    scheduling::SLEEP,
};

const INSTALLED: &str = "[Unit]\nDescription=of the cluster\n[Service]\nExecStart=/usr/bin/sleep infinity\n\
                         [Install]\nWantedBy=multi-user.target\nAlias=other-name.service\n";

/// Compares every call, signal and property that this crate uses with what systemd and the bus say of
/// themselves.
pub(crate) fn calls_are_as_systemd_describes_them(node: &Node) {
    let describe = |service: &str, path: &str| {
        node.shell(&format!(
            "busctl --xml-interface introspect {service} {path}; busctl --xml-interface introspect {service} {path}/unit/init_2escope"
        ))
    };
    let text = describe("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
        + &node.shell("busctl --xml-interface introspect org.freedesktop.DBus /org/freedesktop/DBus");
    let used = calls::used_members();
    assert!(used.len() > 12, "{used:?}");
    for member in used {
        let described = described(&text, member.interface, member.name);
        let described = described.unwrap_or_else(|| panic!("{} has no {}", member.interface, member.name));
        assert_eq!((member.takes, member.gives), described, "{}.{}", member.interface, member.name);
    }
}

/// What goes into a member of an interface and what comes out, as the interface is described in XML.
fn described(text: &str, interface: &str, name: &str) -> Option<(String, String)> {
    let start = text.find(&format!("<interface name=\"{interface}\">"))?;
    let interface = text[start..].split("</interface>").next()?;
    let mut lines = interface.lines().map(str::trim);
    let named = format!(" name=\"{name}\"");
    let head = lines.find(|line| !line.starts_with("<arg") && line.contains(&named))?;
    let attribute = |line: &str, key: &str| -> Option<String> {
        Some(line.split_once(&format!(" {key}=\""))?.1.split('"').next()?.to_owned())
    };
    if head.starts_with("<property") {
        return Some((String::new(), attribute(head, "type")?));
    }
    let mut both = (String::new(), String::new());
    if head.ends_with("/>") {
        return Some(both);
    }
    for line in lines.take_while(|line| !line.starts_with("</")).filter(|line| line.starts_with("<arg")) {
        let goes_in = attribute(line, "direction").as_deref() == Some("in");
        let side = if goes_in { &mut both.0 } else { &mut both.1 };
        side.push_str(&attribute(line, "type")?);
    }
    Some(both)
}

/// What systemd and its directories say that a unit should not leave: links to nothing, failed units,
/// and units whose files are not those in memory.
fn troubles(node: &Node) -> String {
    node.shell(
        "find /run/systemd/system -xtype l; systemctl --failed --plain --no-legend; \
         systemctl show -P NeedDaemonReload '*' | grep -v '^no$' | grep -v '^$' | sort | uniq -c",
    )
}

/// All that is left of a unit.
fn traces(node: &Node, unit: &str) -> String {
    node.shell(&format!(
        "find /run/systemd/system /run/fleet/units -name '{unit}*'; \
         systemctl list-unit-files --plain --no-legend '{unit}'; systemctl list-units --all --plain --no-legend '{unit}'"
    ))
}

pub(crate) fn every_verb_leaves_systemd_as_it_found_it(cluster: &Cluster, node: &Node) {
    let health = node.shell("systemctl is-system-running");
    assert_eq!(troubles(node), "", "before");
    let vendor = "[Unit]\nDescription=of the vendor\n[Service]\nExecStart=/usr/bin/sleep 100000\n";
    node.write("/usr/lib/systemd/system/mine.service", vendor);
    node.write("/root/mine.service", INSTALLED);
    node.write("/root/fails.service", "[Service]\nExecStart=/usr/bin/false\n");
    let typed = |line: &str| node.shell(&format!("cd /root; fleetctl {line} 2>&1"));

    for (verb, active) in
        [("load", "inactive"), ("start", "active"), ("stop", "inactive"), ("start", "active"), ("unload", "")]
    {
        typed(&format!("{verb} mine.service"));
        if !active.is_empty() {
            cluster.wait(verb, |_| (node.active("mine.service") == active).then_some(()));
            assert_eq!(node.property("mine.service", "Description"), "of the cluster", "{verb}");
            let links = node.shell("ls /run/systemd/system/ /run/systemd/system/*.wants");
            assert_eq!(links.matches("mine.service").count(), 2, "{verb}: {links}");
            let state = node.shell("systemctl is-enabled mine.service");
            assert!(["enabled-runtime\n", "linked-runtime\n"].contains(&state.as_str()), "{verb}: {state}");
        }
        // `unload` waits for the engine, which lets go before the machine does.
        cluster.wait(&format!("systemd agrees after {verb}"), |_| troubles(node).is_empty().then_some(()));
    }
    cluster.wait("the vendor's unit is back", |_| {
        (node.property("mine.service", "Description") == "of the vendor").then_some(())
    });
    typed("start mine.service");
    typed("start --no-block fails.service");
    cluster.wait("it failed", |_| (node.active("fails.service") == "failed").then_some(()));
    typed("destroy mine.service fails.service");

    assert_eq!(troubles(node), "", "destroy");
    assert_eq!(traces(node, "fails.service"), "");
    assert_eq!(traces(node, "other-name.service"), "");
    assert_eq!(node.shell("systemctl is-system-running"), health);
    assert_eq!(node.shell("systemctl start mine.service; systemctl is-active mine.service"), "active\n");
    assert_eq!(node.property("mine.service", "Description"), "of the vendor");
    node.shell(
        "systemctl stop mine.service; rm /usr/lib/systemd/system/mine.service; systemctl daemon-reload",
    );
}

/// Links of a fleetd that could not disable units go when the next one starts.
pub(crate) fn links_of_an_earlier_fleetd_are_removed(cluster: &Cluster, node: &Node) {
    node.shell(
        "mkdir -p /run/systemd/system/multi-user.target.wants; for place in . multi-user.target.wants; do \
         ln -s /run/fleet/units/left.service /run/systemd/system/$place/left.service; done; systemctl restart fleet",
    );
    cluster.wait("they are gone", |_| {
        node.shell("find /run/systemd/system -name left.service").is_empty().then_some(())
    });
    cluster.wait("it serves again", |_| (node.get("/fleet/v1/health").0 == 200).then_some(()));
}

/// A timer, a path and a socket that come before what they activate, one start after the other and in one.
pub(crate) fn what_activates_a_unit_may_come_before_it(cluster: &Cluster, node: &Node) {
    let kinds = [
        ("timer", "[Timer]\nOnActiveSec=1h\n"),
        ("path", "[Path]\nPathExists=/run/never\n"),
        ("socket", "[Socket]\nListenStream=/run/early.sock\n"),
    ];
    for (kind, text) in kinds {
        node.put(&format!("early-{kind}.{kind}"), text, "launched");
    }
    for (kind, _) in kinds {
        cluster.wait("it is refused", |_| {
            let state = node.get(&format!("/fleet/v1/explain/early-{kind}.{kind}")).1;
            state.contains("job ended: failed").then_some(())
        });
        node.put(&format!("early-{kind}.service"), SLEEP, "loaded");
    }
    for (kind, _) in kinds {
        cluster.wait("it starts when its service is here", |_| node.home(&format!("early-{kind}.{kind}")));
    }
    node.put("early-b.service", &format!("[Unit]\nRequires=early-c.service\n{SLEEP}"), "launched");
    cluster.wait("systemd refuses it", |_| {
        node.get("/fleet/v1/explain/early-b.service").1.contains("cannot start").then_some(())
    });
    let begun = Instant::now();
    node.put("early-c.service", SLEEP, "loaded");
    cluster.wait("it starts with what it requires", |_| node.home("early-b.service"));
    println!("# it started {:.1} s after what it requires came", begun.elapsed().as_secs_f64());

    for (kind, text) in kinds {
        node.write(&format!("/root/both-{kind}.{kind}"), &text.replace("early", "both"));
        node.write(&format!("/root/both-{kind}.service"), SLEEP);
        let seen = node.shell(&format!(
            "cd /root; fleetctl start both-{kind}.{kind} both-{kind}.service 2>&1; echo [$?]"
        ));
        assert!(seen.ends_with("[0]\n"), "{seen}");
    }
    let all = node.shell("ls /root | grep ^both | tr '\\n' ' '; echo early-b.service early-c.service");
    let early = kinds.map(|(kind, _)| format!("early-{kind}.{kind} early-{kind}.service")).join(" ");
    node.shell(&format!("fleetctl destroy {early} {}", all.trim()));
    assert_eq!(troubles(node), "");
}

/// A unit that systemd refuses, and how often the log says so.
pub(crate) fn a_refusal_is_said_once(cluster: &Cluster, node: &Node) {
    let failures = || {
        let metrics = node.get("/metrics").1;
        let line =
            metrics.lines().find_map(|line| line.strip_prefix("fleet_agent_task_failure_count_total "));
        line.and_then(|count| count.parse::<f64>().ok()).unwrap_or_default()
    };
    let before = failures();
    node.put("refused.service", "[Service]\nType=simple\n", "launched");

    cluster.wait("it was tried twice", |_| (failures() >= before + 2.0).then_some(()));

    let log = node.shell("journalctl -u fleet -o cat --no-pager | grep -c 'not as wanted.*refused.service\\|refused.service.*not as wanted'");
    assert_eq!(log, "1\n");
    node.destroy("refused.service");
    cluster.wait("it is gone", |_| traces(node, "refused.service").is_empty().then_some(()));
}

/// A unit that stops slowly is destroyed, and another text of it is started meanwhile.
pub(crate) fn another_text_follows_a_slow_stop(cluster: &Cluster, node: &Node) {
    let slow = "[Service]\nExecStart=/usr/bin/sleep infinity\nExecStop=/usr/bin/sleep 2\n";
    for round in 0..3 {
        node.put("slow-stop.service", &format!("{slow}Environment=ROUND={round}\n"), "launched");
        cluster.wait("it runs in this text", |_| {
            let text = node.property("slow-stop.service", "Environment");
            (text == format!("ROUND={round}") && node.active("slow-stop.service") == "active").then_some(())
        });
        cluster.wait("the cluster knows", |_| node.home("slow-stop.service"));
        node.destroy("slow-stop.service");
    }
    cluster.wait("it is gone", |_| traces(node, "slow-stop.service").is_empty().then_some(()));
}

/// A unit that moved leaves nothing behind.
pub(crate) fn a_move_leaves_nothing(cluster: &Cluster, from: usize, unit: &str) {
    let node = cluster.node(from);
    cluster.wait("nothing is left of it", |_| traces(node, unit).is_empty().then_some(()));
    assert_eq!(troubles(node), "", "after {unit} moved away");
}
