//! Web addresses, as far as they can be judged without asking anyone.

/// Whether a text is an http or https address with a host.
#[must_use]
pub fn is_web(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    host.is_some_and(|host| !host.is_empty()) && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::is_web;

    #[test]
    fn only_http_with_a_host_counts() {
        assert!(is_web("https://example.org/a?b") && is_web("http://[::1]:8080/"));
        assert!(!is_web("ftp://example.org/") && !is_web("https:///x") && !is_web("http://a b/"));
    }
}
