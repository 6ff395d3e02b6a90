//! Where a redirect leads.
//!
//! Knows RFC 9110, section 10.2.2: the address may be relative to the one that was asked. Refuses to follow.

use user_data::address;

use super::Answer;

/// The address that an answer leads to; `None` if it leads nowhere that can be asked.
pub(super) fn redirect_address(answer: &Answer, asked: &str) -> Option<String> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.headers().get("location")?.to_str().ok()?;
    join_address(asked, location.trim()).filter(|address| address::is_web(address))
}

/// An address seen from another one.
fn join_address(base: &str, location: &str) -> Option<String> {
    if location.contains("://") {
        return Some(location.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
    Some(match location.chars().next() {
        Some('/') => format!("{scheme}://{host}{location}"),
        Some('?') => format!("{scheme}://{host}{path}{location}"),
        _ => format!("{scheme}://{host}{folder}{location}"),
    })
}

#[cfg(test)]
mod tests {
    use super::join_address;

    #[test]
    fn relative_addresses_are_seen_from_the_one_that_was_asked() {
        let base = "https://h:8443/a/b?c#d";
        for (location, address) in [
            ("http://other/x", "http://other/x"),
            ("//other/x", "https://other/x"),
            ("/x?y", "https://h:8443/x?y"),
            ("x/y", "https://h:8443/a/x/y"),
            ("?y", "https://h:8443/a/b?y"),
        ] {
            assert_eq!(join_address(base, location).as_deref(), Some(address), "{location}");
        }
        assert_eq!(join_address("http://h", "x").as_deref(), Some("http://h/x"));
    }
}
