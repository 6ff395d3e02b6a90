use serde_json::{Map, Value, json};

use super::*;

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn machine() -> InstanceData {
    let standard = json!({"local-hostname": "web-1", "instance-id": "i-1", "region": "r"});
    let meta_data = json!({"local-hostname": "web-1.example.net", "placement": {"availability-zone": "r-a"}});
    InstanceData::new(map(&standard), map(&meta_data))
}

fn expanded(body: &str) -> String {
    let text = format!("## template: jinja\n{body}");
    expand_template(&text, 0, &machine()).unwrap().text.strip_prefix('\n').unwrap().to_owned()
}

fn refused(body: &str) -> Diagnostic {
    expand_template(&format!("## template: jinja\n{body}"), 0, &machine()).unwrap_err()
}

#[test]
fn each_spelling_of_a_name_is_known() {
    for name in [
        "v1.local_hostname",
        "v1['local-hostname']",
        "local_hostname",
        "ds.meta_data.local_hostname.split('.')[0]",
        "ds['meta_data']['local-hostname'].replace('.example.net', '')",
        "ds.meta_data.rack | default('web-1')",
        "'web-1' if ds.meta_data.rack is not defined else ''",
    ] {
        assert_eq!(expanded(&format!("{{{{ {name} }}}}")), "web-1", "{name}");
    }
    assert_eq!(expanded("{{ ds.meta_data.placement.availability_zone }}"), "r-a");
}

#[test]
fn blocks_leave_no_line_and_the_last_line_end_stays() {
    let text = "{# why #}\n{% if v1.region == 'r' %}\na\n{% endif %}\n{% if v1.zone %}\nb\n{% endif %}\nc\n";

    assert_eq!(expanded(text), "a\nc\n");
}

#[test]
fn an_unknown_name_is_refused_in_its_place() {
    let flaw = refused("#cloud-config\nfqdn: a{{ v1.local_hostnam }}\n");

    assert_eq!((flaw.at.line, flaw.at.column, flaw.at.width), (3, 11, 16));
    assert_eq!(
        flaw.message,
        "`v1.local_hostnam` is not known on this machine, so this template is not expanded"
    );
    assert_eq!(
        flaw.help.unwrap(),
        "`{{ v1.local_hostnam | default('…') }}` gives another value; known are v1.instance_id, v1.local_hostname, v1.region"
    );
}

#[test]
fn what_is_no_jinja_is_refused_in_its_place() {
    for (body, line, column) in [
        ("a\n  {{ v1.region", 3, 9),
        ("{% include 'x' %}", 2, 4),
        ("a\n{{ v1.region | nothing }}", 3, 16),
        ("{{ debug() }}", 2, 4),
        ("{# a #}\necho ${#list[@]}\n", 3, 7),
        ("{% for a in [1] %}\n", 2, 17),
    ] {
        let flaw = refused(body);
        assert_eq!((flaw.at.line, flaw.at.column), (line, column), "{body:?} {flaw:?}");
    }
    let text = "## template: basic\n$hostname";
    assert!(expand_template(text, 0, &machine()).unwrap_err().message.contains("a program that is not here"));
}

#[test]
fn a_header_alone_moves_nothing() {
    let expansion =
        expand_template("\n## template: jinja\n#!/bin/sh\necho }}\n", 0, &InstanceData::default()).unwrap();

    assert_eq!(expansion.text, "\n\n#!/bin/sh\necho }}\n");
    assert_eq!(expand_template("## template: jinja", 0, &InstanceData::default()).unwrap().text, "");
}

#[test]
fn places_lead_back_to_the_authors_text() {
    let text = "## template: jinja\n{% for n in [1, 2] %}\né: {{ n }}\n{% endfor %}\nb: {{ v1.region }} c\n";
    let expansion = expand_template(text, 3, &machine()).unwrap();
    assert_eq!(expansion.text, "\né: 1\né: 2\nb: r c\n");

    let origin = |line, column| {
        let at = expansion.places.original_mark(SourceMark { part: 3, line, column, width: 1 });
        (at.line, at.column, at.width)
    };

    assert_eq!(origin(1, 1), (1, 1, 1));
    assert_eq!(origin(3, 1), (3, 1, 1));
    assert_eq!(origin(3, 4), (3, 7, 1));
    assert_eq!(origin(4, 4), (5, 7, 9));
    assert_eq!(origin(4, 6), (5, 20, 1));
}

#[test]
fn without_a_machine_examples_stand_for_its_names() {
    let text = "{{ v1.cloud_name }} {{ ds.meta_data.rack.row }} {{ ds.meta_data['provider-id'] }}";

    let expansion = expand_template(text, 0, &InstanceData::example_names()).unwrap();

    assert_eq!(expansion.text, "aws example example");
    let notes: Vec<&str> = expansion.notes.iter().map(|note| note.message.as_str()).collect();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(expand_template("{{ v1.cloud_nam }}", 0, &InstanceData::example_names()).is_err());
}

#[test]
fn no_template_takes_more_than_its_share() {
    for body in [
        format!("{{{{ 1{} }}}}", "+1".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{{{ 1{} }}}}", "|abs".repeat(100_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(2000), ")".repeat(2000)),
        format!("{{% raw %}}{{{{ \" {{% endraw %}}{{{{ \"}}}}\" {} }}}}", "+1".repeat(100_000)),
        format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(50_000)),
        format!("{{% if 1 %}}{}", "{% if 1 %}".repeat(900)),
        "{{ 1 }}".repeat(20_000),
        "{{ 'a' * 1000000000 }}".to_owned(),
        "{{ 'a'.replace('a', 'a' * 100000) }}{{ ('a' * 100000).replace('a', 'a' * 100000) }}".to_owned(),
        "{% for a in range(10000) %}{% for a in range(10000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% macro a() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}".to_owned(),
        "{% set n = namespace(x='aaaa') %}{% for a in range(10000) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
            .to_owned(),
        "a".repeat(2 << 20) + "{{ 1 }}",
    ] {
        refused(&body);
    }
}

#[test]
fn the_deepest_that_is_allowed_fits_the_stack() {
    let chain = format!("{{{{ 1{} }}}}", "+1".repeat(2000));
    let minus = format!("{{{{ {}1 }}}}", "-".repeat(4000));
    let branches = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(990));

    assert_eq!(expanded(&chain), "2001");
    assert_eq!(expanded(&branches), "");
    // Whether it is read or refused is minijinja's choice.
    let _ = expand_template(&minus, 0, &machine());
}
