//! Whether somebody gets in, by what sshd says that its settings are.
//!
//! Knows the settings, as `sshd -T` prints them, by which a login is refused. Refuses to run anything.
//! Invariant: what it does not understand counts as an obstacle only where sshd would refuse, too.
//!
//! Documentation: `sshd_config(5)`, "PATTERNS" in `ssh_config(5)`, and RFC 8332.

use std::net::{IpAddr, SocketAddr};

use super::key_files::PLATFORM_KEYS;

/// Somebody who may get in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LoginCandidate {
    pub(super) name: String,
    pub(super) home: String,
    /// The groups' names.
    pub(super) groups: Vec<String>,
    /// The kinds of the user's own keys, like `ssh-ed25519`.
    pub(super) key_kinds: Vec<String>,
    /// Of those that the platform has for the user, in another file.
    pub(super) platform_key_kinds: Vec<String>,
    pub(super) has_password: bool,
    pub(super) is_root: bool,
}

impl LoginCandidate {
    pub(super) fn has_key(&self) -> bool {
        !self.key_kinds.is_empty() || !self.platform_key_kinds.is_empty()
    }
}

/// What sshd says, line by line.
#[derive(Debug, Clone, Copy)]
pub(super) struct SshdSettings<'a>(pub(super) &'a str);

impl<'a> SshdSettings<'a> {
    /// All values of a setting.
    fn values_of(self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter_map(move |line| {
            let (known, value) = line.split_once(' ')?;
            (known == name).then(|| value.trim())
        })
    }

    fn value_of(self, name: &'a str, default: &'a str) -> &'a str {
        self.values_of(name).next().unwrap_or(default)
    }

    /// The addresses it listens on; what it prints is an address and a port.
    fn listen_addresses(self) -> impl Iterator<Item = SocketAddr> {
        self.values_of("listenaddress").filter_map(|address| address.parse().ok())
    }
}

/// Why nobody could reach sshd; `is_ours` says whether this machine has an address.
pub(super) fn listen_blocker(settings: SshdSettings<'_>, is_ours: impl Fn(IpAddr) -> bool) -> Option<String> {
    let reachable = |address: SocketAddr| {
        let ip = address.ip();
        address.port() != 0 && (ip.is_unspecified() || (!ip.is_loopback() && is_ours(ip)))
    };
    if settings.listen_addresses().any(reachable) {
        return None;
    }
    let list: Vec<String> = settings.listen_addresses().map(|address| address.to_string()).collect();
    Some(format!("sshd would listen only on {}, where nobody reaches this machine", list.join(" and ")))
}

/// Why this user would not get in.
pub(super) fn login_blocker(settings: SshdSettings<'_>, who: &LoginCandidate) -> Option<String> {
    let flat = |name: &'static str| settings.value_of(name, "none") != "none";
    let said = |text: &str| Some(text.to_owned());
    if !is_allowed(settings, who) {
        return Some(format!("its lists of users and groups leave {} out", who.name));
    }
    if who.is_root
        // `forced-commands-only` lets root in for a command of the key's, which is no way to repair a
        // machine.
        && !["yes", "prohibit-password", "without-password"]
            .contains(&settings.value_of("permitrootlogin", "yes"))
    {
        return said("it does not let root in");
    }
    if flat("forcecommand") || flat("chrootdirectory") {
        return Some(format!("it gives {} no shell", who.name));
    }
    // sshd_config(5): with 0 there are no sessions, only forwarding.
    if settings.value_of("maxsessions", "10") == "0" || settings.value_of("refuseconnection", "no") == "yes" {
        return said("it refuses every session");
    }
    let by_password = who.has_password
        && settings.value_of("passwordauthentication", "no") == "yes"
        && (!who.is_root || settings.value_of("permitrootlogin", "yes") == "yes");
    if by_password && methods_allow(settings, "password") {
        return None;
    }
    key_obstacle(settings, who)
}

fn key_obstacle(settings: SshdSettings<'_>, who: &LoginCandidate) -> Option<String> {
    if settings.value_of("pubkeyauthentication", "yes") != "yes" {
        return Some("it takes no public keys".to_owned());
    }
    if !methods_allow(settings, "publickey") {
        return Some("it wants more than a public key".to_owned());
    }
    let seen = match seen_kinds(settings, who) {
        Ok(seen) => seen,
        Err(obstacle) => return Some(obstacle),
    };
    let accepted = settings.value_of("pubkeyacceptedalgorithms", "");
    let takes = |kind: &String| {
        accepted.is_empty()
            || accepted.split(',').any(|known| {
                // RFC 8332: the newer signatures are made with the same keys, whose kind is still `ssh-rsa`.
                known == kind || (kind == "ssh-rsa" && known.starts_with("rsa-sha2-") && !known.contains('@'))
            })
    };
    if !seen.is_empty() && !seen.into_iter().any(takes) {
        return Some(format!("it takes no keys of {}'s kinds", who.name));
    }
    None
}

/// The kinds of the keys in those files that sshd looks into.
fn seen_kinds<'a>(settings: SshdSettings<'_>, who: &'a LoginCandidate) -> Result<Vec<&'a String>, String> {
    let files = settings.value_of("authorizedkeysfile", ".ssh/authorized_keys");
    let reads = |names: &[&str]| files.split_ascii_whitespace().any(|file| names.contains(&file));
    let own = reads(&[
        ".ssh/authorized_keys",
        "%h/.ssh/authorized_keys",
        &format!("{}/.ssh/authorized_keys", who.home),
    ]);
    let platforms = format!("{PLATFORM_KEYS}/{}", who.name);
    let platforms = reads(&[&format!("{PLATFORM_KEYS}/%u"), &platforms]);
    let seen: Vec<&String> = [(own, &who.key_kinds), (platforms, &who.platform_key_kinds)]
        .into_iter()
        .filter_map(|(is_read, kinds)| is_read.then_some(kinds))
        .flatten()
        .collect();
    // Who has no key yet will get one in the usual place.
    if (seen.is_empty() && who.has_key()) || (!own && !who.has_key()) {
        return Err("it looks for keys elsewhere than in .ssh/authorized_keys".to_owned());
    }
    Ok(seen)
}

/// One of the ways it accepts needs nothing but this.
fn methods_allow(settings: SshdSettings<'_>, method: &str) -> bool {
    // sshd_config(5): a list must be passed whole, and a method may name its submethod behind a colon.
    let is_method = |word: &str| word == method || word.starts_with(&format!("{method}:"));
    let mut ways = settings.value_of("authenticationmethods", "any").split_ascii_whitespace();
    ways.any(|way| way == "any" || way.split(',').all(is_method))
}

/// The four lists, in sshd's order: who is denied stays out, and an allowing list leaves out all others.
fn is_allowed(settings: SshdSettings<'_>, who: &LoginCandidate) -> bool {
    let user = |pattern: &str| pattern_matches(pattern.split('@').next().unwrap_or_default(), &who.name);
    let group = |pattern: &str| who.groups.iter().any(|group| pattern_matches(pattern, group));
    let list = |name: &'static str| -> Vec<&str> {
        settings.values_of(name).flat_map(str::split_ascii_whitespace).collect()
    };
    // A denial for some hosts only leaves the others.
    // DenyUsers, AllowUsers, DenyGroups, AllowGroups: sshd_config(5) gives this order.
    let denied = list("denyusers").iter().any(|pattern| !pattern.contains('@') && user(pattern));
    let allow_users = list("allowusers");
    let allow_groups = list("allowgroups");
    !denied
        && (allow_users.is_empty() || is_listed(&allow_users, user))
        && !list("denygroups").into_iter().any(group)
        && (allow_groups.is_empty() || is_listed(&allow_groups, group))
}

/// In a list, unless it is there with a `!`, too.
fn is_listed(list: &[&str], is_meant: impl Fn(&str) -> bool) -> bool {
    let is_out = list.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(&is_meant);
    !is_out && list.iter().any(|pattern| is_meant(pattern))
}

/// sshd's patterns: `*` for any characters, `?` for one.
fn pattern_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut in_pattern, mut in_text) = (0, 0);
    // Where to go on if the last `*` must stand for one character more.
    let mut star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        match (pattern.get(in_pattern), star) {
            (Some(b'*'), _) => {
                star = Some((in_pattern + 1, in_text));
                in_pattern += 1;
            }
            (Some(known), _) if *known == b'?' || *known == text[in_text] => {
                in_pattern += 1;
                in_text += 1;
            }
            (_, Some((after, at))) => {
                star = Some((after, at + 1));
                (in_pattern, in_text) = (after, at + 1);
            }
            _ => return false,
        }
    }
    pattern[in_pattern..].iter().all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> LoginCandidate {
        LoginCandidate {
            name: "core".to_owned(),
            home: "/home/core".to_owned(),
            groups: vec!["core".to_owned(), "sudo".to_owned()],
            key_kinds: vec!["ssh-ed25519".to_owned()],
            ..LoginCandidate::default()
        }
    }

    const USUAL: &str = "pubkeyauthentication yes\npasswordauthentication no\npermitrootlogin no\n\
        forcecommand none\nchrootdirectory none\nmaxsessions 10\n\
        authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2\n\
        pubkeyacceptedalgorithms ssh-ed25519,rsa-sha2-512\n";

    /// The usual settings with these before them: of each, the first one counts.
    fn meets(settings: &str) -> bool {
        login_blocker(SshdSettings(&format!("{settings}\n{USUAL}")), &core()).is_some()
    }

    #[test]
    fn the_usual_settings_let_the_owner_in() {
        assert_eq!(login_blocker(SshdSettings(USUAL), &core()), None);
    }

    #[test]
    fn each_of_these_keeps_the_owner_out() {
        for settings in [
            "allowusers nobody",
            "allowusers c?re\nallowusers !core",
            "denyusers co*",
            "allowgroups wheel",
            "denygroups sudo",
            "pubkeyauthentication no",
            "authenticationmethods publickey,password",
            "authorizedkeysfile /etc/keys/%u",
            "pubkeyacceptedalgorithms ecdsa-sha2-nistp256",
            "forcecommand /bin/false",
            "chrootdirectory /srv",
            "maxsessions 0",
            "refuseconnection yes",
        ] {
            assert!(meets(settings), "{settings}");
        }
    }

    #[test]
    fn each_of_these_lets_the_owner_in() {
        for settings in [
            "allowusers ada\nallowusers core@10.0.0.0/8",
            "allowgroups sudo docker",
            "denyusers core@192.0.2.*",
            "denyusers ada",
            "authenticationmethods password publickey",
            "authorizedkeysfile %h/.ssh/authorized_keys",
        ] {
            assert!(!meets(settings), "{settings}");
        }
    }

    #[test]
    fn the_platforms_keys_count_where_sshd_looks_for_them() {
        let who = LoginCandidate {
            key_kinds: Vec::new(),
            platform_key_kinds: vec!["ssh-ed25519".to_owned()],
            ..core()
        };
        let both = SshdSettings("authorizedkeysfile .ssh/authorized_keys /run/catamaran/keys/%u\n");

        assert_eq!(login_blocker(both, &who), None);
        assert!(login_blocker(SshdSettings("authorizedkeysfile .ssh/authorized_keys\n"), &who).is_some());
        assert!(
            login_blocker(SshdSettings("authorizedkeysfile /etc/keys/%u\n"), &LoginCandidate::default())
                .is_some()
        );
        assert_eq!(login_blocker(both, &LoginCandidate { platform_key_kinds: Vec::new(), ..who }), None);
    }

    #[test]
    fn a_password_is_a_way_in_where_there_is_one() {
        let settings = SshdSettings("pubkeyauthentication no\npasswordauthentication yes\n");

        assert!(login_blocker(settings, &core()).is_some());
        assert_eq!(login_blocker(settings, &LoginCandidate { has_password: true, ..core() }), None);
    }

    #[test]
    fn sshd_must_listen_where_it_is_reached() {
        let listen =
            |lines: &str| listen_blocker(SshdSettings(lines), |ip| ip.to_string() == "10.0.0.5").is_none();

        assert!(listen("listenaddress 0.0.0.0:22\n") && listen("listenaddress [::]:2222\n"));
        assert!(listen("listenaddress 127.0.0.1:22\nlistenaddress 10.0.0.5:22\n"));
        assert!(!listen("listenaddress 127.0.0.1:22\nlistenaddress [::1]:22\n"));
        assert!(!listen("listenaddress 203.0.113.7:22\n"));
    }

    #[test]
    fn patterns_match_as_sshds_do_and_hostile_ones_cost_little() {
        assert!(
            pattern_matches("*", "")
                && pattern_matches("c?r*e", "core")
                && pattern_matches("a*b*c", "aXbbYc")
        );
        assert!(
            !pattern_matches("c?re", "coore") && !pattern_matches("", "a") && !pattern_matches("core", "cor")
        );
        assert!(!pattern_matches(&format!("{}b", "a*".repeat(1000)), &"a".repeat(2000)));
    }
}
