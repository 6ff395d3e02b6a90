//! Web addresses, as far as they can be judged without asking anyone.
//!
//! Documentation: RFC 3986, section 3, for the parts of an address.

/// Whether a text is an http or https address with a host.
#[must_use]
pub fn is_web(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    // No parser of addresses: what the client refuses later is told then. Control characters could end a
    // header.
    host.is_some_and(|host| !host.is_empty()) && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Whether a text holds an address with a password in it.
#[must_use]
pub fn has_password(text: &str) -> bool {
    let holds = |rest: &str| {
        let host = rest.split(['/', '?', '#', ',', ' ']).next().unwrap_or_default();
        host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    };
    // Lists of addresses, such as etcd's, hold several.
    text.split("://").skip(1).any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_seen() {
        assert!(has_password("http://a:1,https://me:pw@b:2379"));
        assert!(!has_password("http://a:1,http://b:2/@c:d") && !has_password("me:pw@b"));
    }

    #[test]
    fn only_http_with_a_host_counts() {
        assert!(is_web("https://example.org/a?b") && is_web("http://[::1]:8080/"));
        assert!(!is_web("ftp://example.org/") && !is_web("https:///x") && !is_web("http://a b/"));
    }
}
