//! Secrets of the user-data that nobody else on the machine finds.
//!
//! The tests of `first-boot` look at modes. Only a whole machine shows what systemd answers over D-Bus, what the
//! journal gives away, and what the programs that were started with a secret let others see of it.

use vm::RunningMachine;

use crate::scene::run;

/// A secret in each place from which it travels to another program or file. They are numbered, so that root can
/// show that each has arrived. They suit a machine that starts neither fleet nor etcd: a password would keep fleet
/// from an etcd that has no users.
pub(crate) fn planted_in(user_data: &str) -> String {
    user_data.replacen("coreos:\n", KEYS, 1) + UNITS
}

const KEYS: &str = "  - path: /etc/story-secret
    permissions: '0600'
    content: A=STORYSECRET1
coreos:
  update:
    server: https://me:STORYSECRET2@update.invalid/
  fleet: {etcd_username: root, etcd_password: STORYSECRET3}
  flannel: {etcd_username: root, etcd_password: STORYSECRET4}
  locksmith: {etcd_username: root, etcd_password: STORYSECRET5}
";

const UNITS: &str = "    - name: 30-story.netdev
      content: |
        [NetDev]
        Name=story1
        Kind=wireguard
        [WireGuard]
        PrivateKey=STORYSECRET6AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
    - name: story-secret.service
      command: start
      content: |
        [Service]
        EnvironmentFile=/etc/story-secret
        ExecStart=/bin/sleep infinity
";

/// In places where a user may look: not the root, which holds nothing of this machine's own. The pattern does not
/// match itself, so that neither the search nor what sudo notes of it is found.
const SEARCH: &str = "places='/etc /run /var /home /root /srv /opt /tmp /dev/shm'
    sudo grep -rhoaE 'STORYSECRE[T][0-9]' $places 2>/dev/null | sort -u | tr '\\n' ' '; echo
    sudo -u nobody sh -s $places <<'END' 2>/dev/null
        grep -rlaE 'STORYSECRE[T]' \"$@\"
        grep -laE 'STORYSECRE[T]' /proc/[0-9]*/environ /proc/[0-9]*/cmdline
        { systemctl show --all '*'
          systemctl show --all $(systemctl list-unit-files -q --no-legend | awk '{print $1}' | grep -v @)
          networkctl status --all --json=short
          journalctl --no-pager -q -b
          initagent status --json
        } | grep -aE 'STORYSECRE[T]'
        echo searched
END
    sudo journalctl --no-pager -q -b | grep -aE 'STORYSECRE[T]'; echo read";

/// Root finds every secret, and nobody else finds one. The journal, which administrators hand to others, has none.
pub(crate) fn are_hidden(running: &RunningMachine) {
    let said = run(running, SEARCH);
    let all = (1..=6).map(|number| format!("STORYSECRET{number}")).collect::<Vec<_>>().join(" ");
    assert_eq!(said, format!("{all} \nsearched\nread\n"));
}
