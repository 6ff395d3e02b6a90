//! Web addresses in messages.
//!
//! Knows which parts of an address may be secrets. Refuses to judge whether it is one. Invariant: what is returned
//! holds no user, password, query or fragment.
//!
//! Documentation: RFC 3986, section 3, for the parts of an address, and section 7.5 for what is sensitive in them.

/// An address without what may be secret in it: user, password, query and fragment.
#[must_use]
pub fn redacted_address(address: &str) -> String {
    // Signed addresses of object stores have their secret in the query.
    let plain = address.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = plain.split_once("://") else { return plain.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_an_address_are_not_shown() {
        for (address, shown) in [
            ("https://u:p@host:8080/a/b?token=x#y", "https://host:8080/a/b"),
            ("https://u:p@w@host/a@b", "https://host/a@b"),
            ("http://host?token=x", "http://host"),
            ("http://host#secret", "http://host"),
            ("http://example.org", "http://example.org"),
            ("not an address?x", "not an address"),
        ] {
            assert_eq!(redacted_address(address), shown);
        }
    }
}
