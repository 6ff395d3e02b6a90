//! `validate` and `plan` of files as people have them.

use std::fs;
use std::io::{Cursor, Write};

use first_boot::{
    Document, OfflineReport, OutputFormat, PlanDetail, Role, Verdict, plan_file, validate_files,
};

fn judged(content: &str) -> OfflineReport {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, content).unwrap();
    validate_files(&[file.into()], OutputFormat::Text)
}

#[test]
fn a_network_configuration_is_judged_as_one() {
    for good in [
        "version: 2\nethernets: {eth0: {dhcp4: true}}\n",
        "network:\n  version: 1\n  config: [{type: physical, name: eth0, subnets: [{type: dhcp}]}]\n",
        r#"{"links": [], "networks": [], "services": []}"#,
        "#cloud-config\nversion: 2\nethernets: {eth0: {dhcp4: true}}\n",
        "auto eth0\niface eth0 inet dhcp\n",
    ] {
        let judgement = judged(good);

        assert_eq!(judgement.verdict, Verdict::Ok, "{good}: {}", judgement.text);
    }
    let judgement = judged("version: 2\nethernets: {eth0: {dhcp4: true, adresses: [192.0.2.1/24]}}\n");
    assert!(judgement.text.contains("did you mean `addresses`?"), "{}", judgement.text);
}

#[test]
fn a_cloud_config_without_its_first_line_is_none() {
    for document in ["hostname: a\nnetwork: {version: 2}\n", "version: 1\nhostname: a\n"] {
        let judgement = judged(document);

        assert!(judgement.text.contains("without its first line"), "{}", judgement.text);
    }
}

#[test]
fn a_plan_of_a_network_configuration_has_its_units() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("network-config");
    fs::write(&file, "version: 2\nethernets: {eth0: {dhcp4: true}}\n").unwrap();

    let judgement = plan_file(&file, PlanDetail::Full);

    assert!(judgement.text.contains("write unit 10-cloud-init-eth0.network"), "{}", judgement.text);
    assert!(judgement.text.contains("| DHCP=ipv4"), "{}", judgement.text);
}

#[test]
fn an_address_in_a_host_name_is_judged_as_the_address_that_it_will_be() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user-data");
    fs::write(&file, "#cloud-config\nfqdn: ip-$private_ipv4.example.org\n").unwrap();

    let judgement = plan_file(&file, PlanDetail::Short);

    assert_eq!(judgement.verdict, Verdict::Ok, "{}", judgement.text);
    assert!(judged("#cloud-config\nfqdn: ip-$private.example.org\n").text.contains("not a host name"));
}

#[test]
fn a_network_configuration_is_known_behind_a_first_line_too() {
    let judgement = judged("#cloud-config\nversion: 2\nethernets:\n  eth0: {dhcp4: true}\n");

    assert_eq!(judgement.verdict, Verdict::Ok, "{}", judgement.text);
    let judgement = judged("#cloud-config\nhostname: a\nversion: 2\n");
    assert!(judgement.text.contains("one version of cloud-config"), "{}", judgement.text);
}

#[test]
fn a_file_is_what_it_is_told_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eth0.yaml");
    fs::write(&path, "etherents: {eth0: {dhcp4: true}}\n").unwrap();
    let judged = |role| validate_files(&[Document { path: path.clone(), role }], OutputFormat::Text).text;

    assert!(judged(Role::NetworkConfig).contains("no network configuration that is known"));
    assert!(judged(Role::UserData).contains("no kind of user-data"));
    assert!(judged(Role::VendorData).contains("no kind of user-data"));
    assert!(judged(Role::MetaData).contains("no `instance-id` is given"));
}

#[test]
fn facts_of_an_instance_are_judged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("meta-data");
    fs::write(
        &file,
        "instance-id: a\nlocal-hostnam: b\nhostname: a b\npublic-keys: {0: ssh-rsa nonsense}\nsite: x\n",
    )
    .unwrap();

    let judgement = validate_files(&[file.into()], OutputFormat::Text);

    for words in ["did you mean `local-hostname`?", "is not a host name", "this key", "meta-data:3:"] {
        assert!(judgement.text.contains(words), "{words}: {}", judgement.text);
    }
    assert!(!judgement.text.contains("site"));
}

fn seed(folder: &std::path::Path) {
    fs::write(folder.join("meta-data"), "instance_id: a\n").unwrap();
    fs::write(folder.join("user-data"), "#cloud-config\nhostnam: a\n").unwrap();
    fs::write(folder.join("network-config"), "version: 2\nethernets: {eth0: {dhcp4: maybe}}\n").unwrap();
}

#[test]
fn a_folder_with_a_seed_is_judged_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    seed(folder.path());

    let judgement = validate_files(&[folder.path().to_owned().into()], OutputFormat::Text);

    for words in ["user-data:2:1", "network-config:2:"] {
        assert!(judgement.text.contains(words), "{words}: {}", judgement.text);
    }
    let drive = tempfile::tempdir().unwrap();
    let latest = drive.path().join("openstack/latest");
    fs::create_dir_all(&latest).unwrap();
    fs::write(latest.join("meta_data.json"), r#"{"uuid": "a"}"#).unwrap();
    fs::write(latest.join("user_data"), "#cloud-config\nhostname: a\n").unwrap();
    let judgement = validate_files(&[drive.path().to_owned().into()], OutputFormat::Text);
    assert_eq!(judgement.verdict, Verdict::Ok, "{}", judgement.text);
    let empty = tempfile::tempdir().unwrap();
    let judgement = validate_files(&[empty.path().to_owned().into()], OutputFormat::Text);
    assert!(judgement.text.contains("there is no seed in it"), "{}", judgement.text);
    assert_eq!(judgement.verdict, Verdict::Failed);
}

#[test]
fn an_image_with_a_seed_is_judged_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.img");
    let mut image = Cursor::new(vec![0; 1 << 20]);
    fatfs::format_volume(&mut image, fatfs::FormatVolumeOptions::new()).unwrap();
    let fat = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    for (name, content) in [("user-data", "#cloud-config\nhostnam: a\n"), ("meta-data", "instance-id: a\n")] {
        fat.root_dir().create_file(name).unwrap().write_all(content.as_bytes()).unwrap();
    }
    drop(fat);
    fs::write(&path, image.into_inner()).unwrap();

    let judgement = validate_files(&[path.into()], OutputFormat::Text);

    assert_eq!(judgement.verdict, Verdict::Degraded, "{}", judgement.text);
    assert!(judgement.text.contains("seed.img/user-data:2:1"), "{}", judgement.text);
}

#[test]
fn a_drive_is_judged_with_what_its_facts_refer_to() {
    let folder = tempfile::tempdir().unwrap();
    let drive = folder.path();
    for (name, content) in [
        (
            "openstack/latest/meta_data.json",
            r#"{"uuid": "i", "network_config": {"content_path": "/content/0000"}, "files": [
                {"path": "/etc/site/motto", "content_path": "/content/0001"},
                {"path": "/etc/site/gone", "content_path": "/content/0002"}]}"#,
        ),
        ("openstack/latest/vendor_data.json", r##"{"cloud-init": "#cloud-config\nhostname: vendor\n"}"##),
        (
            "openstack/content/0000",
            "auto eth0\niface eth0 inet static\n  address 192.0.2.10/24\n  gatewy 192.0.2.1\n",
        ),
        ("openstack/content/0001", "slow\n"),
    ] {
        fs::create_dir_all(drive.join(name).parent().unwrap()).unwrap();
        fs::write(drive.join(name), content).unwrap();
    }

    let planned = plan_file(drive, PlanDetail::Full).text;

    for expected in [
        "| Address=192.0.2.10/24",
        "write /etc/site/motto",
        "set host name vendor",
        "the machine would not get file /etc/site/gone",
        "meta_data.json network_config:4:3",
    ] {
        assert!(planned.contains(expected), "{expected}: {planned}");
    }
}

#[test]
fn debians_network_inside_meta_data_is_judged_as_the_machine_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let facts = "instance-id: i\nnetwork-interfaces: |\n  iface eth0 inet static\n  address 192.0.2.10/24\n";
    fs::write(folder.path().join("meta-data"), facts).unwrap();
    let address = "| Address=192.0.2.10/24";

    assert!(plan_file(folder.path(), PlanDetail::Full).text.contains(address));
    // A file for it goes before.
    fs::write(folder.path().join("network-config"), "version: 2\nethernets: {eth1: {dhcp4: true}}\n")
        .unwrap();
    assert!(!plan_file(folder.path(), PlanDetail::Full).text.contains(address));
}

#[test]
fn json_has_one_entry_a_path_as_before() {
    let folder = tempfile::tempdir().unwrap();
    seed(folder.path());
    let path = folder.path().to_owned();

    let text = validate_files(&[path.clone().into(), path.join("user-data").into()], OutputFormat::Json).text;

    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["verdict"], "failed");
    assert_eq!(json["files"].as_array().unwrap().len(), 2);
    assert_eq!(json["files"][0]["file"], path.display().to_string());
    assert!(json["files"][0]["diagnostics"].as_array().unwrap().len() >= 2, "{text}");
    assert!(json["files"][1]["diagnostics"][0]["line"].is_number(), "{text}");
}

#[test]
fn a_unit_that_nobody_brings_is_told() {
    let unit = |name: &str, content: &str| {
        format!("#cloud-config\ncoreos: {{units: [{{name: {name}, command: start{content}}}]}}\n")
    };
    for missing in ["flanneld.service", "cron.service", "web@1.service", "backup.timer"] {
        let judgement = judged(&unit(missing, ""));

        assert_eq!(judgement.verdict, Verdict::Degraded, "{missing}: {}", judgement.text);
        assert!(judgement.text.contains(&format!("the image has no unit {missing}")), "{}", judgement.text);
    }
    for there in
        ["docker.service", "etcd2.service", "getty@tty3.service", "systemd-timesyncd.service", "x.target"]
    {
        assert_eq!(judged(&unit(there, "")).verdict, Verdict::Ok, "{there}");
    }
    let own = unit("web.service", r#", content: "[Service]\nExecStart=/opt/bin/web\n""#);
    assert_eq!(judged(&own).verdict, Verdict::Ok);
    let by_file = format!(
        "{}write_files: [{{path: /etc/systemd/system/cron.service, content: x}}]\n",
        unit("cron.service", "")
    );
    assert_eq!(judged(&by_file).verdict, Verdict::Ok);
}

/// Two parts, the second with these lines before its files.
fn two_parts(merging: &str) -> String {
    format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"fold\"\n\n\
         --fold\nContent-Type: text/cloud-config\n\n\
         #cloud-config\nhostname: one\nwrite_files: [{{path: /etc/site/base, content: x}}]\n\
         --fold\nContent-Type: text/cloud-config\n{merging}\
         hostname: one\nwrite_files: [{{path: /etc/site/extra, content: x}}]\n--fold--\n"
    )
}

#[test]
fn parts_of_a_mime_message_add_up_or_say_what_they_lose() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user-data");
    let replace = "\n#cloud-config\nmerge_how: dict(replace)\n";
    for (merging, has_both, verdict) in [
        ("\n#cloud-config\n", true, Verdict::Ok),
        ("\n#cloud-config\nmerge_how:\n", true, Verdict::Ok),
        ("\n#cloud-config\nmerge_how: dict(recurse_list)+list(append)\n", true, Verdict::Ok),
        ("Merge-Type: dict(recurse_array)+list(append)+str()\n\n#cloud-config\n", true, Verdict::Ok),
        (replace, false, Verdict::Degraded),
        ("X-Merge-Type: list(append)\n\n#cloud-config\n", false, Verdict::Degraded),
    ] {
        fs::write(&file, two_parts(merging)).unwrap();

        let judgement = plan_file(&file, PlanDetail::Short);

        let both =
            ["/etc/site/base 0644", "/etc/site/extra 0644"].iter().all(|path| judgement.text.contains(path));
        assert_eq!((both, judgement.verdict), (has_both, verdict), "{merging}: {}", judgement.text);
    }
}
