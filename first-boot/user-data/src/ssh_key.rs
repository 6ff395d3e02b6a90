//! Public keys as `authorized_keys` holds them.
//!
//! Knows the shape of a line: options, type, base64, comment. Refuses to judge strength. Invariant:
//! what passes is one line that sshd can read, so a broken neighbour never costs a good key.
//!
//! Documentation: sshd(8), `AUTHORIZED_KEYS FILE FORMAT`, RFC 4253, section 6.6, and OpenSSH's
//! `PROTOCOL.u2f`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

// `ssh-dss` is no longer taken by sshd. Such a line does no harm, and who has it is told by sshd.
const TYPES: [&str; 11] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-dss",
    "ssh-ed25519-cert-v01@openssh.com",
    "ssh-rsa-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
];

/// What is wrong with a line, in words that follow "the key".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFlaw {
    /// Its base64 is broken or cut.
    Encoding,
    /// A private key where a public one belongs.
    Private,
    /// No known key type in it.
    Type,
}

impl KeyFlaw {
    /// The words.
    #[must_use]
    pub fn flaw_words(self) -> &'static str {
        match self {
            Self::Encoding => "is cut off or damaged: its base64 does not hold a key of its type",
            Self::Private => "is a private key; only the public one (the .pub file) belongs here",
            Self::Type => "names no key type, like `ssh-ed25519` or `ssh-rsa`",
        }
    }
}

/// The lines of a text that may hold several keys, trimmed, without comments.
pub fn key_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Checks one line.
pub fn check_key(line: &str) -> Result<(), KeyFlaw> {
    // The first line of each private key, in PEM's form and in OpenSSH's own.
    if line.contains("PRIVATE KEY") {
        return Err(KeyFlaw::Private);
    }
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let kind = words.iter().position(|word| TYPES.contains(word)).ok_or(KeyFlaw::Type)?;
    let blob = words.get(kind + 1).and_then(|word| STANDARD.decode(word).ok()).ok_or(KeyFlaw::Encoding)?;
    let inner = blob.split_at_checked(4).ok_or(KeyFlaw::Encoding)?;
    let length = inner.0.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    let name = inner.1.get(..length).ok_or(KeyFlaw::Encoding)?;
    // The blob repeats its type, and a cut key lacks its end. ed25519's, the shortest, has 36 bytes behind
    // the type.
    if name == words[kind].as_bytes() && inner.1.len() > length + 16 {
        Ok(())
    } else {
        Err(KeyFlaw::Encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtUsNNX8kEnqp0nrmHYBNCJYGPTrPHmFQhRCGGQpqaH";

    #[test]
    fn options_and_comments_are_fine() {
        assert_eq!(check_key(&format!("{KEY} me@home")), Ok(()));
        assert_eq!(check_key(&format!("no-pty,command=\"echo hi\" {KEY}")), Ok(()));
    }

    #[test]
    fn garbage_is_named() {
        assert_eq!(check_key("hello world"), Err(KeyFlaw::Type));
        assert_eq!(check_key(&KEY[..40]), Err(KeyFlaw::Encoding));
        assert_eq!(check_key(&KEY.replacen("ssh-ed25519", "ssh-rsa", 1)), Err(KeyFlaw::Encoding));
        assert_eq!(check_key("-----BEGIN OPENSSH PRIVATE KEY-----"), Err(KeyFlaw::Private));
        assert_eq!(check_key("ssh-rsa"), Err(KeyFlaw::Encoding));
    }
}
