//! Tells an SSH public key from anything else a platform may put in its place.
//!
//! Knows the shape of a line of `authorized_keys`. Refuses to judge whether the key is strong.
//! Invariant: a line accepted here is one line, so that it cannot smuggle in a second key.
//!
//! Documentation: sshd(8), `AUTHORIZED_KEYS FILE FORMAT`, and RFC 4253, section 6.6, for the blob.

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

/// Seconds since 1970 as sshd's option `expiry-time` has them; without the `Z` they would be local time.
pub(crate) fn expiry_time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The method is `civil_from_days` of <https://howardhinnant.github.io/date_algorithms.html>.
    // Eras of 400 years, which begin in March: the way of `gce::parse_date` back.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, passed) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + passed;
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60)
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
        assert_eq!(expiry_time(0), "19700101000000Z");
        assert_eq!(expiry_time(951_825_600), "20000229120000Z");
        assert_eq!(expiry_time(1_787_220_672), "20260820101112Z");
        assert_eq!(expiry_time(4_107_542_399), "21000228235959Z");
        assert_eq!(expiry_time(4_107_542_400), "21000301000000Z");
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
