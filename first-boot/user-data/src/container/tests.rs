use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn opened(content: impl AsRef<[u8]>) -> Vec<PayloadPart> {
    open_payload("user-data", content.as_ref(), FetchPolicy::none())
}

fn zipped(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn flaws(parts: &[PayloadPart]) -> Vec<&str> {
    parts.iter().flat_map(|part| &part.flaws).map(|flaw| flaw.message.as_str()).collect()
}

const MIME: &str = "Content-Type: multipart/mixed; boundary=\"===1==\"\r\nMIME-Version: 1.0\r\n\r\nignored\r\n\
    --===1==\r\nContent-Type: text/cloud-config; charset=\"us-ascii\"\r\nMIME-Version: 1.0\r\n\
    Content-Disposition: attachment;\r\n filename=\"web.yaml\"\r\nMerge-Type: list(append)\r\n\r\n\
    #cloud-config\r\nhostname: a\r\n--===1==\r\nContent-Type: text/x-shellscript\r\n\
    Content-Transfer-Encoding: base64\r\n\r\nIyEvYmluL3NoCmVjaG8gaGkK\r\n--===1==--\r\nignored too\r\n";

#[test]
fn a_payload_without_a_container_is_one_part() {
    let parts = opened("#cloud-config\nhostname: a\n");

    assert_eq!(parts, [PayloadPart::whole("user-data", "#cloud-config\nhostname: a\n")]);
}

#[test]
fn multipart_is_split_and_decoded() {
    let parts = opened(MIME);

    assert_eq!(parts.len(), 2);
    assert_eq!(parts[0].name, "user-data part 1 (web.yaml)");
    assert_eq!(parts[0].content, b"#cloud-config\r\nhostname: a");
    assert_eq!(parts[0].first_line, 12);
    assert_eq!(parts[0].merge_how.as_deref(), Some("list(append)"));
    assert_eq!(parts[1].content, b"#!/bin/sh\necho hi\n");
    assert_eq!(parts[1].payload_kind(), PayloadKind::Script);
    assert_eq!(flaws(&parts), Vec::<&str>::new());
}

#[test]
fn containers_lie_in_one_another_in_any_order() {
    let parts = opened(STANDARD.encode(zipped(STANDARD.encode(zipped(MIME)))));

    assert_eq!(
        parts.iter().map(PayloadPart::payload_kind).collect::<Vec<_>>(),
        [PayloadKind::CloudConfig, PayloadKind::Script]
    );
}

#[test]
fn multipart_in_multipart_is_flattened_whatever_its_subtype() {
    let text = "Content-Type: multipart/related; boundary=o\n\n--o\nContent-Type: multipart/alternative; boundary=i\n\n\
        --i\n\n#!/bin/sh\n--i\nContent-Type: text/x-shellscript-per-boot\n\n#!/bin/bash\n--i--\n--o\n\n#cloud-config\n--o--\n";

    let parts = opened(text);

    let kinds: Vec<PayloadKind> = parts.iter().map(PayloadPart::payload_kind).collect();
    assert_eq!(kinds, [PayloadKind::Script, PayloadKind::ScriptPerBoot, PayloadKind::CloudConfig]);
    assert_eq!(flaws(&parts), Vec::<&str>::new());
}

#[test]
fn what_the_header_says_counts_where_the_bytes_do_not_tell() {
    let text = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/cloud-config\n\n\
        hostname: a\n--b\nContent-Type: text/cloud-boothook\n\n#!/bin/sh\n--b--\n";

    let parts = opened(text);

    assert_eq!(
        parts.iter().map(PayloadPart::payload_kind).collect::<Vec<_>>(),
        [PayloadKind::CloudConfig, PayloadKind::Boothook]
    );
}

#[test]
fn quoted_printable_is_decoded() {
    let text = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
        Content-Transfer-Encoding: quoted-printable\n\n#cloud-config=0Ahostname: =\n=C3=A9=\n--b--\n";

    assert_eq!(opened(text)[0].content, "#cloud-config\nhostname: é".as_bytes());
}

#[test]
fn a_message_that_was_cut_off_is_used_and_reported() {
    let parts = opened(MIME.split("--===1==--").next().unwrap());

    assert_eq!(parts.len(), 2);
    assert!(flaws(&parts)[0].contains("cut off"), "{:?}", flaws(&parts));
}

#[test]
fn a_message_without_a_boundary_is_reported() {
    assert_eq!(
        flaws(&opened("Content-Type: multipart/mixed\nMIME-Version: 1.0\n\n--x\n")),
        ["this is MIME multipart, but its header names no boundary"]
    );
    assert_eq!(
        flaws(&opened("Content-Type: multipart/mixed; boundary=x\nMIME-Version: 1.0\n\nhi\n")),
        ["this is MIME multipart, but its boundary never occurs"]
    );
}

#[test]
fn one_damaged_part_costs_no_other() {
    let text = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
        Content-Transfer-Encoding: base64\n\n!!!\n--b\n\n#cloud-config\n--b--\n";

    let parts = opened(text);

    assert_eq!(parts[1].payload_kind(), PayloadKind::CloudConfig);
    assert_eq!(flaws(&parts), ["the header says that this part is base64, but it is not"]);
}

#[test]
fn a_gzip_bomb_stops_at_the_limit() {
    let bomb = zipped(vec![b' '; MOST_BYTES + 1]);
    let nested = zipped(zipped(vec![b' '; MOST_BYTES - 100]));

    assert_eq!(flaws(&opened(bomb)), ["unpacked, this is larger than 16 MiB"]);
    assert_eq!(flaws(&opened(nested)), ["unpacked, this is larger than 16 MiB"]);
}

#[test]
fn gzip_that_breaks_off_is_reported() {
    let whole = zipped("#cloud-config\nhostname: a\n");

    assert_eq!(flaws(&opened(&whole[..whole.len() - 9])), ["this is gzip, but it is damaged or cut off"]);
}

#[test]
fn containers_without_end_are_refused() {
    let mut payload = b"#cloud-config\n".to_vec();
    for _ in 0..=DEEPEST {
        payload = zipped(payload);
    }

    assert_eq!(flaws(&opened(payload)), ["containers lie more than 8 deep in one another"]);
}

#[test]
fn thousands_of_parts_are_cut_to_the_limit() {
    let many = "--b\n\n#!/bin/sh\n".repeat(5000);
    let text = format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{many}--b--\n");

    let parts = opened(text);

    assert!(parts.len() <= MOST_PARTS + 1);
    assert_eq!(flaws(&parts), ["there are more than 256 parts; the rest is not used"]);
}

#[test]
fn an_archive_is_a_list_of_parts() {
    let parts = opened(
        "#cloud-config-archive\n- type: text/cloud-config\n  filename: a\n  content: |\n    hostname: a\n\
         - |\n  #!/bin/sh\n- type: x\n",
    );

    assert_eq!(
        parts.iter().map(PayloadPart::payload_kind).collect::<Vec<_>>(),
        [PayloadKind::CloudConfig, PayloadKind::Script, PayloadKind::Empty]
    );
    assert_eq!((parts[0].name.as_str(), parts[0].first_line), ("user-data part 1 (a)", 5));
    assert_eq!(flaws(&parts), ["this entry of the archive has no `content` that can be read"]);
}

#[test]
fn an_entry_of_an_archive_without_a_type_is_a_cloud_config() {
    let parts = opened(
        "#Cloud-Config-Archive:\n- content: 'hostname: a'\n- 'hostname: b'\n- content: '#!/bin/sh'\n\
         - {type: 'Text/X-Shellscript-Per-Once; charset=utf-8', content: '#!/bin/sh'}\n\
         - {Merge-Type: 'list(append)', Launch-Index: 3, content: 'hostname: c'}\n\
         - {launch-index: last, content: !!binary 'aG9zdG5hbWU6IGQ'}\n",
    );

    let kinds: Vec<PayloadKind> = parts.iter().map(PayloadPart::payload_kind).collect();
    let config = PayloadKind::CloudConfig;
    assert_eq!(kinds, [config, config, PayloadKind::Script, PayloadKind::ScriptPerOnce, config, config]);
    assert_eq!((parts[4].launch_index, parts[4].merge_how.as_deref()), (Some(3), Some("list(append)")));
    assert_eq!(parts[5].content, b"hostname: d");
    assert_eq!(
        flaws(&parts),
        ["the launch index of this part is no number, so the part is for every machine"]
    );
}

#[test]
fn a_message_of_one_part_is_that_part() {
    let message = |header: &str, body: &str| opened(format!("{header}\nMIME-Version: 1.0\n\n{body}"));

    let config =
        message("Content-Type: text/cloud-config; charset=\"us-ascii\"", "#cloud-config\nhostname: a\n");
    let bare = message("Content-Type: text/cloud-config", "hostname: a\n");
    let script = message(
        "Content-Type: text/x-shellscript\nContent-Transfer-Encoding: base64\nLaunch-Index: 2",
        "IyEvYmluL3NoCg",
    );

    assert_eq!((config[0].name.as_str(), config[0].first_line), ("user-data", 4));
    assert_eq!(config[0].content, b"#cloud-config\nhostname: a\n");
    assert_eq!(bare[0].payload_kind(), PayloadKind::CloudConfig);
    assert_eq!((script[0].payload_kind(), script[0].launch_index), (PayloadKind::Script, Some(2)));
    assert_eq!(script[0].content, b"#!/bin/sh\n");
    assert_eq!((config.len(), bare.len(), script.len()), (1, 1, 1));
}

#[test]
fn base64_needs_no_padding_and_uuencode_is_named() {
    let part = |encoding: &str, body: &str| {
        opened(format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
             Content-Transfer-Encoding: {encoding}\n\n{body}\n--b--\n"
        ))
    };

    assert_eq!(part("base64", "IyEvYmluL3NoCg")[0].content, b"#!/bin/sh\n");
    assert_eq!(opened("IyEvYmluL3NoCg")[0].content, b"#!/bin/sh\n");
    assert!(flaws(&part("x-uuencode", "begin 644 a"))[0].contains("send it as base64"));
}

#[test]
fn a_type_says_how_often_a_script_runs_and_that_a_text_is_a_template() {
    let kind = |of: &str, body: &str| {
        opened(format!("MIME-Version: 1.0\nContent-Type: {of}\n\n{body}\n"))[0].payload_kind()
    };

    assert_eq!(kind("text/x-shellscript-per-boot", "#!/bin/sh"), PayloadKind::ScriptPerBoot);
    assert_eq!(kind("text/x-shellscript-per-once", "#!/bin/sh"), PayloadKind::ScriptPerOnce);
    assert_eq!(kind("text/x-shellscript-per-instance", "#!/bin/sh"), PayloadKind::Script);
    assert_eq!(kind("text/cloud-boothook", "#!/bin/sh"), PayloadKind::Boothook);
    assert_eq!(kind("text/cloud-boothook", "## template: jinja\n#!/bin/sh"), PayloadKind::Jinja);
    assert_eq!(kind("text/jinja2", "#cloud-config"), PayloadKind::Jinja);
    assert_eq!(kind("text/cloud-config", "## template: jinja\nhostname: a"), PayloadKind::Jinja);
}

#[test]
fn an_include_may_begin_on_its_first_line() {
    let mut fetch = |what: &FetchRequest| Ok(format!("#!{}", what.url).into_bytes());

    let parts = open_payload(
        "x",
        b"#Include: http://h/a\n#include-once http://h/b\n",
        FetchPolicy { include: true, fetch: Some(&mut fetch) },
    );

    let contents: Vec<&[u8]> = parts.iter().map(|part| part.content.as_slice()).collect();
    assert_eq!(contents, [b"#!http://h/a", b"#!http://h/b"]);
}

#[test]
fn includes_are_refused_unless_they_are_switched_on() {
    let payload = "#include\nhttp://10.0.0.1/a\n# a comment\nhttp://10.0.0.1/b\n";
    let mut fetch = |what: &FetchRequest| match what.url.as_str() {
        "http://10.0.0.1/a" => Ok(b"#cloud-config\n".to_vec()),
        _ => Err("the server answered with status 500".to_owned()),
    };

    let on =
        open_payload("user-data", payload.as_bytes(), FetchPolicy { include: true, fetch: Some(&mut fetch) });

    assert_eq!(flaws(&opened(payload)), ["`#include` is switched off on this machine"]);
    assert_eq!(on[0].payload_kind(), PayloadKind::CloudConfig);
    assert_eq!(
        flaws(&on),
        ["a configuration this refers to is missing: the server answered with status 500"]
    );
}

#[test]
fn includes_that_include_themselves_end() {
    let mut asked = 0;
    let mut fetch = |_: &FetchRequest| {
        asked += 1;
        Ok(b"#include\nhttp://h/a\nhttp://h/b\n".to_vec())
    };

    let parts =
        open_payload("x", b"#include\nhttp://h/a\n", FetchPolicy { include: true, fetch: Some(&mut fetch) });

    assert!(asked <= 65, "{asked}");
    assert!(!flaws(&parts).is_empty());
}
