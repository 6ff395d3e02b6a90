//! Tells an SSH public key from anything else a platform may put in its place.
//!
//! Knows the shape of a line of `authorized_keys`. Refuses to judge whether the key is strong.
//! Invariant: a line accepted here is one line, so that it cannot smuggle in a second key.
//!
//! Documentation: sshd(8), `AUTHORIZED_KEYS FILE FORMAT`, and RFC 4253, section 6.6, for the blob.

use jiff::Timestamp;

/// The words that begin the key type of every format OpenSSH reads.
const TYPE_PREFIXES: [&str; 4] = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];

/// Whether `line` is a public key, perhaps with options before it.
pub(crate) fn is_public_key(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    !line.chars().any(char::is_control) && words.windows(2).any(|pair| is_type(pair[0]) && is_blob(pair[1]))
}

/// Whether no options stand before the key.
pub(crate) fn begins_with_type(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(is_type)
}

/// A moment as sshd's option `expiry-time` has it; without the `Z` it would be local time.
pub(crate) fn expiry_time(moment: Timestamp) -> String {
    moment.strftime("%Y%m%d%H%M%SZ").to_string()
}

fn is_type(word: &str) -> bool {
    TYPE_PREFIXES.iter().any(|prefix| word.starts_with(prefix))
}

/// Every key blob starts with the length of its type's name: three zero bytes, "AAAA" in base64.
fn is_blob(word: &str) -> bool {
    word.starts_with("AAAA")
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_type_of_openssh_is_a_key() {
        for line in [
            "ssh-rsa AAAAB3NzaC1yc2E= core@example",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
            "ecdsa-sha2-nistp256 AAAAE2VjZHNh",
            "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5",
            "no-pty,command=\"/bin/true x\" ssh-rsa AAAAB3NzaC1yc2E=",
        ] {
            assert!(is_public_key(line), "{line}");
        }
    }

    #[test]
    fn times_are_written_as_sshd_reads_them() {
        for (seconds, text) in [
            (0, "19700101000000Z"),
            (951_825_600, "20000229120000Z"),
            (1_787_220_672, "20260820101112Z"),
            (4_107_542_399, "21000228235959Z"),
            (4_107_542_400, "21000301000000Z"),
        ] {
            assert_eq!(expiry_time(Timestamp::from_second(seconds).unwrap()), text);
        }
    }

    #[test]
    fn other_text_is_no_key() {
        for line in
            ["", "ssh-rsa", "ssh-rsa rubbish", "<html>", "-----BEGIN PRIVATE KEY-----", "ssh-rsa AAAA\nx"]
        {
            assert!(!is_public_key(line), "{line}");
        }
    }
}
