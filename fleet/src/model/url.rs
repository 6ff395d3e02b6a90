//! Addresses of servers as they may be shown.
//!
//! Knows where a URL holds a password. Refuses to know whose URL it is. Invariant: what is shown holds no user and no
//! password.

/// A list of URLs as it may be shown: without the user and the password that one may hold.
#[must_use]
pub fn without_credentials(urls: &str) -> String {
    let shown = urls.split(',').map(|url| match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            // From the right: a password may hold an `@`, a host may not.
            match authority.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://***@{host}{path}"),
                None => url.to_owned(),
            }
        }
        None => url.to_owned(),
    });
    shown.collect::<Vec<_>>().join(",")
}
