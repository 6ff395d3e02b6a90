//! What systemd accepts as names, and how it wants values quoted.
//!
//! Documentation: systemd.unit(5) for names, systemd.exec(5) and systemd.syntax(7) for quoting,
//! systemd-escape(1).

use std::fmt::Write;

/// The endings of units that systemd loads, and those of networkd's files.
const UNIT_TYPES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];
const NETWORK_TYPES: [&str; 3] = ["network", "netdev", "link"];
// No file name may be longer on Linux's file systems, and systemd's `UNIT_NAME_MAX` is the same.
const LONGEST_NAME: usize = 255;

/// Where a unit belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitClass {
    /// To networkd or udev: a file in systemd/network.
    Network,
    /// To the manager: a file in systemd/system.
    System,
}

/// Where a unit of this name belongs, or what is wrong with the name.
pub fn classify_unit(name: &str) -> Result<UnitClass, &'static str> {
    // systemd's own set; `\` is there for escapes such as `\x2d`.
    let legal = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let (stem, ending) = name.rsplit_once('.').ok_or("has no ending like `.service`")?;
    match ending {
        _ if name.len() > LONGEST_NAME => Err("is too long"),
        _ if stem.is_empty() => Err("is only an ending"),
        _ if !name.chars().all(legal) => Err("has characters that systemd does not allow in names"),
        _ if UNIT_TYPES.contains(&ending) => Ok(UnitClass::System),
        _ if NETWORK_TYPES.contains(&ending) => Ok(UnitClass::Network),
        _ => Err("does not end in a type that systemd knows, like `.service`"),
    }
}

/// Whether a name can be that of a drop-in file.
#[must_use]
pub fn is_drop_in(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.strip_suffix(".conf").is_some_and(|stem| !stem.is_empty())
        && !name.contains(['/', '\0', '\n'])
}

/// A line that sets a variable for a service, whatever its value holds.
#[must_use]
pub fn environment_setting(name: &str, value: &str) -> String {
    let mut line = format!("Environment=\"{name}=");
    for character in value.chars() {
        match character {
            '"' => line += "\\\"",
            '\\' => line += "\\\\",
            // `Environment=` expands specifiers, systemd.exec(5).
            '%' => line += "%%",
            '\n' => line += "\\n",
            '\r' => line += "\\r",
            '\t' => line += "\\t",
            other => line.push(other),
        }
    }
    line + "\""
}

/// A line that sets a variable in a file for `EnvironmentFile=`, whatever its value holds.
///
/// Only these four are escaped between double quotes, see `systemd.exec(5)`; nothing is expanded.
#[must_use]
pub fn environment_line(name: &str, value: &str) -> String {
    let mut line = format!("{name}=\"");
    for character in value.chars() {
        if matches!(character, '"' | '\\' | '`' | '$') {
            line.push('\\');
        }
        line.push(character);
    }
    line + "\"\n"
}

/// The unit that mounts a path.
#[must_use]
pub fn mount_unit(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return "-.mount".to_owned();
    }
    let mut name = String::new();
    for (index, byte) in path.bytes().enumerate() {
        match byte {
            // Several slashes count as one, as systemd normalizes a path.
            b'/' if name.ends_with('-') => {}
            b'/' => name.push('-'),
            // systemd-escape does so, as a name that begins with a dot would be a hidden file.
            b'.' if index == 0 => name += "\\x2e",
            byte if byte.is_ascii_alphanumeric() || b":_.".contains(&byte) => name.push(char::from(byte)),
            byte => {
                let _ = write!(name, "\\x{byte:02x}");
            }
        }
    }
    name + ".mount"
}

/// Where a `.mount` or `.automount` unit mounts, which its name says; `None` for other units.
#[must_use]
pub fn mount_path(unit: &str) -> Option<String> {
    let stem = unit.strip_suffix(".mount").or_else(|| unit.strip_suffix(".automount"))?;
    if stem == "-" {
        return Some("/".to_owned());
    }
    Some(format!("/{}", unescape_name(&stem.replace('-', "/"))))
}

/// A name or value without systemd's `\xNN`.
#[must_use]
pub fn unescape_name(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = rest.strip_prefix(b"\\x").and_then(|hex| hex.get(..2));
        let byte = digits.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        rest = if byte.is_some() { &rest[4..] } else { tail };
        bytes.push(byte.unwrap_or(*first));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_systemd_quoting() {
        assert_eq!(environment_setting("A", r#"50% "of" \n"#), r#"Environment="A=50%% \"of\" \\n""#);
        assert_eq!(environment_setting("A", "a\nb"), "Environment=\"A=a\\nb\"");
    }

    #[test]
    fn values_survive_an_environment_file() {
        assert_eq!(environment_line("A", r#"5% "of" $HOME \`"#), "A=\"5% \\\"of\\\" \\$HOME \\\\\\`\"\n");
    }

    #[test]
    fn names_belong_somewhere_or_nowhere() {
        assert_eq!(classify_unit("etcd2.service"), Ok(UnitClass::System));
        assert_eq!(classify_unit("getty@tty1.service"), Ok(UnitClass::System));
        assert_eq!(classify_unit("50-static.network"), Ok(UnitClass::Network));
        for bad in ["etcd2", ".service", "a b.service", "../x.service", "x.conf"] {
            assert!(classify_unit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mount_units_are_named_as_systemd_escape_does() {
        assert_eq!(mount_unit("/"), "-.mount");
        assert_eq!(mount_unit("/var/lib/docker/"), "var-lib-docker.mount");
        assert_eq!(mount_unit("/mnt/a-b"), "mnt-a\\x2db.mount");
        for place in ["/", "/var/lib/docker", "/mnt/a-b", "/home/core/.ssh", "/.hidden", "/srv/\u{e4} b"] {
            assert_eq!(mount_path(&mount_unit(place)).as_deref(), Some(place));
        }
        assert_eq!(mount_path("home-core.automount").as_deref(), Some("/home/core"));
        assert_eq!(mount_path("home.service"), None);
    }
}
