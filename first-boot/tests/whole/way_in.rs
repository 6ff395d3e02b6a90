//! Whatever a document writes for sshd, the owner gets in: judged by the host's own sshd.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use first_boot::{RunOutcome, Verdict};

use crate::machine::{Bench, KEY, Sshd};

/// Whether there is an sshd that may be asked; says why if not, and fails if there must be.
fn can_ask() -> bool {
    let is_there = Path::new("/usr/sbin/sshd").exists();
    assert!(
        std::env::var("CI").as_deref() != Ok("true") || (is_root() && is_there),
        "CI must ask a real sshd: it needs root and the package openssh-server"
    );
    if is_root() && is_there {
        // sshd refuses to be asked without it.
        fs::create_dir_all("/run/sshd").unwrap();
        return true;
    }
    eprintln!("skipped: asking a real sshd needs root and the package openssh-server");
    false
}

/// Applies drop-ins of sshd, each with the owner's key beside it.
fn apply(bench: &Bench, drop_ins: &[(&str, &str)]) -> RunOutcome {
    let mut document = format!("#cloud-config\nssh_authorized_keys: [{KEY}]\nwrite_files:\n");
    for (name, content) in drop_ins {
        let content = content.replace('\n', "\\n");
        let path = format!("/etc/ssh/sshd_config.d/{name}.conf");
        writeln!(document, "- {{path: {path}, content: \"{content}\"}}").unwrap();
    }
    bench.apply(&document)
}

fn is_there(bench: &Bench, name: &str) -> bool {
    bench.machine.root.path_of(&format!("/etc/ssh/sshd_config.d/{name}.conf")).exists()
}

/// What keeps the owner out, though sshd would start with most of it.
const LOCKING_OUT: [(&str, &str); 9] = [
    ("no-keys", "PubkeyAuthentication no\n"),
    ("nobody", "AllowUsers nobody\n"),
    ("denied", "DenyGroups core\n"),
    ("port-0", "Port 0\n"),
    ("loopback", "ListenAddress 127.0.0.1\n"),
    ("not-ours", "ListenAddress 203.0.113.7\n"),
    ("password-too", "Match User core\n AuthenticationMethods publickey,password\n"),
    ("other-files", "AuthorizedKeysFile /etc/keys\n"),
    ("nonsense", "Nonsense yes\n"),
];
const HARMLESS: [(&str, &str); 4] = [
    ("port", "Port 2222\n"),
    ("root", "PermitRootLogin no\nPasswordAuthentication no\n"),
    ("users", "AllowUsers core ada\n"),
    ("wildcard", "ListenAddress 127.0.0.1\nListenAddress 0.0.0.0\n"),
];

#[test]
fn each_file_that_keeps_the_owner_out_is_taken_back() {
    if !can_ask() {
        return;
    }
    for (name, content) in LOCKING_OUT {
        let bench = Bench::with_sshd(Sshd::Real);

        let outcome = apply(&bench, &[(name, content)]);

        assert!(!is_there(&bench, name), "{name}: {}", outcome.journal_text());
        assert_eq!(outcome.run_verdict(), Verdict::Degraded, "{name}");
        let json = outcome.to_json();
        let mut items = json["items"].as_array().unwrap().iter();
        let item = items.find(|item| item["key"] == "write_files[0]").unwrap();
        assert_eq!((item["status"].as_str(), item["line"].as_u64()), (Some("failed"), Some(4)), "{name}");
        assert!(item["cause"].as_str().unwrap().contains("nobody would get in"), "{item}");
    }
}

#[test]
fn what_lets_the_owner_in_stays_beside_what_does_not() {
    if !can_ask() {
        return;
    }
    let bench = Bench::with_sshd(Sshd::Real);

    let outcome = apply(&bench, &[HARMLESS[0], LOCKING_OUT[0], HARMLESS[1], LOCKING_OUT[8], HARMLESS[2]]);

    for (name, _) in &HARMLESS[..3] {
        assert!(is_there(&bench, name), "{name}: {}", outcome.journal_text());
    }
    assert!(!is_there(&bench, "no-keys") && !is_there(&bench, "nonsense"), "{}", outcome.journal_text());
}

#[test]
fn a_host_key_that_is_none_is_taken_back_too() {
    if !can_ask() {
        return;
    }
    let bench = Bench::with_sshd(Sshd::Real);
    bench.apply("#cloud-config\n{}\n");
    let before = bench.read("/etc/ssh/ssh_host_ecdsa_key");

    let outcome = bench.apply(
        "#cloud-config
write_files: [{path: /etc/ssh/ssh_host_ecdsa_key, content: no key, permissions: '0600'}]
",
    );

    assert_eq!(bench.read("/etc/ssh/ssh_host_ecdsa_key"), before, "{}", outcome.journal_text());
    assert_eq!(bench.mode("/etc/ssh/ssh_host_ecdsa_key"), 0o600);
    assert_eq!(outcome.run_verdict(), Verdict::Degraded);
}

#[test]
fn harmless_settings_are_no_reason_to_complain() {
    if !can_ask() {
        return;
    }
    for (name, content) in HARMLESS {
        let bench = Bench::with_sshd(Sshd::Real);

        let outcome = apply(&bench, &[(name, content)]);

        assert_eq!(outcome.run_verdict(), Verdict::Ok, "{name}: {}", outcome.journal_text());
        assert!(is_there(&bench, name));
    }
}

#[test]
fn another_owner_may_stand_in_for_the_images_own_user() {
    if !can_ask() {
        return;
    }
    let bench = Bench::with_sshd(Sshd::Real);
    let people = |groups: &str| {
        format!(
            "#cloud-config
users: [{{name: ada, groups: [{groups}], ssh_authorized_keys: [{KEY}]}}]
write_files: [{{path: /etc/ssh/sshd_config.d/1.conf, content: AllowUsers ada}}]
"
        )
    };

    let owner = bench.apply(&people("sudo"));
    let guest = Bench::with_sshd(Sshd::Real).apply(&people("docker"));

    assert_eq!(owner.run_verdict(), Verdict::Ok, "{}", owner.journal_text());
    assert_eq!(guest.run_verdict(), Verdict::Degraded, "who cannot become root is no owner");
}

#[test]
fn keys_that_were_written_as_a_file_are_the_users_own() {
    let bench = Bench::new();

    let outcome = bench.apply(&format!(
        "#cloud-config
write_files: [{{path: /home/core/.ssh/authorized_keys, content: \"{KEY}\\n\", permissions: '0640'}}]
"
    ));

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    assert_eq!(bench.mode("/home/core/.ssh/authorized_keys"), 0o600);
    assert_eq!(bench.mode("/home/core/.ssh"), 0o700);
    if is_root() {
        assert_eq!(bench.owner("/home/core/.ssh/authorized_keys"), (1000, 1000));
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn the_last_key_is_not_written_over() {
    let bench = Bench::new();
    bench.apply(&format!("#cloud-config\nssh_authorized_keys: [{KEY}]\n"));

    let outcome = bench.apply(
        "#cloud-config\nwrite_files: [{path: /home/core/.ssh/authorized_keys, content: PUT YOUR KEY HERE}]\n",
    );

    assert!(bench.read("/home/core/.ssh/authorized_keys").contains(KEY), "{}", outcome.journal_text());
    assert_eq!(outcome.run_verdict(), Verdict::Degraded);
    assert!(outcome.journal_text().contains("there were keys in it"), "{}", outcome.journal_text());
}

#[test]
fn no_link_leads_around_the_guard() {
    let bench = Bench::new();
    let (units, ssh) =
        (bench.machine.root.path_of("/etc/systemd/system"), bench.machine.root.path_of("/etc/ssh"));
    fs::create_dir_all(&units).unwrap();
    fs::create_dir_all(bench.machine.root.path_of("/opt")).unwrap();
    symlink(&units, bench.machine.root.path_of("/opt/units")).unwrap();
    symlink(&ssh, bench.machine.root.path_of("/opt/ssh")).unwrap();

    let outcome = bench.apply(
        "#cloud-config
write_files:
- {path: /opt/units/ssh.service, content: x}
- {path: /opt/units/ssh.service.d/a.conf, content: \"[Service]\\nExecStart=\\n\"}
- {path: /opt/ssh/sshd_not_to_be_run, content: x}
- {path: /opt/units/web.service, content: \"[Service]\\nExecStart=/bin/true\\n\"}
",
    );

    let left: Vec<_> = fs::read_dir(&units).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["web.service"], "{}", outcome.journal_text());
    assert!(!ssh.join("sshd_not_to_be_run").exists());
    assert_eq!(outcome.run_verdict(), Verdict::Degraded);
}

#[test]
fn what_is_appended_to_a_unit_is_judged_with_what_was_there() {
    let bench = Bench::new();
    let unit = "/etc/systemd/system/web.service";
    fs::create_dir_all(bench.machine.root.path_of("/etc/systemd/system")).unwrap();
    fs::write(bench.machine.root.path_of(unit), "[Unit]\nBefore=ssh.service\n").unwrap();

    let outcome = bench.apply(&format!(
        "#cloud-config\nwrite_files: [{{path: {unit}, append: true, content: \"[Service]\\nType=oneshot\\n\"}}]\n"
    ));

    assert_eq!(bench.read(unit), "[Unit]\nBefore=ssh.service\n");
    assert!(outcome.journal_text().contains("may take for ever"), "{}", outcome.journal_text());
}
