//! Mounts on the machine: what a plan cannot see, since only there links lead somewhere.

use std::os::unix::fs::symlink;

use first_boot::Verdict;

use crate::machine::{Bench, KEY};

#[test]
fn no_link_leads_a_mount_over_the_way_in() {
    for (link, target) in
        [("/srv/homes", "home"), ("/srv/keys", "home/core/.ssh"), ("/opt/config", "etc/ssh")]
    {
        let bench = Bench::new();
        let place = bench.machine.root.path_of(link);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink(bench.machine.root.path_of(&format!("/{target}")), &place).unwrap();

        let outcome = bench.apply(&format!(
            "#cloud-config\nssh_authorized_keys: [{KEY}]\nmounts: [[tmpfs, {link}, tmpfs, nofail], [tmpfs, /srv/data, tmpfs, nofail]]\n"
        ));

        assert_eq!(outcome.run_verdict(), Verdict::Degraded, "{link}");
        assert!(outcome.journal_text().contains("leads to a protected place"), "{}", outcome.journal_text());
        let fstab = bench.read("/etc/fstab");
        assert!(!fstab.contains(link) && fstab.contains("/srv/data"), "{fstab}");
        assert_eq!(bench.read("/home/core/.ssh/authorized_keys"), format!("{KEY}\n"));
    }
}
