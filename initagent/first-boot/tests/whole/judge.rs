//! `validate` and `plan` of files as people have them.

use std::fs;

use first_boot::{Judgement, Listing, Style, Verdict, plan, validate};

fn judged(content: &str) -> Judgement {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, content).unwrap();
    validate(&[file], Style::Text)
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

    let judgement = plan(&file, Listing::Full);

    assert!(judgement.text.contains("write unit 10-cloud-init-eth0.network"), "{}", judgement.text);
    assert!(judgement.text.contains("| DHCP=ipv4"), "{}", judgement.text);
}

#[test]
fn an_address_in_a_host_name_is_judged_as_the_address_that_it_will_be() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user-data");
    fs::write(&file, "#cloud-config\nfqdn: ip-$private_ipv4.example.org\n").unwrap();

    let judgement = plan(&file, Listing::Short);

    assert_eq!(judgement.verdict, Verdict::Ok, "{}", judgement.text);
    assert!(judged("#cloud-config\nfqdn: ip-$private.example.org\n").text.contains("not a host name"));
}
