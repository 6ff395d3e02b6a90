//! Which Debian mirror this host uses, read from apt's own configuration.
//!
//! A build asks the mirror that the host's administrator chose, and no other unless the spec or the
//! command line names one. Knows `sources.list(5)`, both its one-line and its deb822 style.

use super::stanza;

/// One archive an apt configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AptSource {
    /// Where the archive is.
    pub(crate) uri: String,
    /// Which releases of it are used.
    pub(crate) suites: Vec<String>,
    /// Which of its areas are used.
    pub(crate) components: Vec<String>,
}

/// Reads a file of apt's configuration; its name tells the style.
pub(crate) fn parse_sources(file_name: &str, text: &str) -> Vec<AptSource> {
    if has_extension(file_name, "sources") { parse_deb822(text) } else { parse_one_line(text) }
}

fn has_extension(file_name: &str, extension: &str) -> bool {
    std::path::Path::new(file_name).extension().is_some_and(|found| found == extension)
}

fn parse_deb822(text: &str) -> Vec<AptSource> {
    let words = |value: Option<&str>| -> Vec<String> {
        value.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    stanza::parse_stanzas(text)
        .iter()
        .filter(|entry| words(entry.field_value("Types")).iter().any(|kind| kind == "deb"))
        .filter(|entry| entry.field_value("Enabled") != Some("no"))
        .flat_map(|entry| {
            words(entry.field_value("URIs")).into_iter().map(|uri| AptSource {
                uri,
                suites: words(entry.field_value("Suites")),
                components: words(entry.field_value("Components")),
            })
        })
        .collect()
}

fn parse_one_line(text: &str) -> Vec<AptSource> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default().trim();
            let rest = line.strip_prefix("deb ")?.trim_start();
            let rest = match rest.strip_prefix('[') {
                Some(options) => options.split_once(']')?.1,
                None => rest,
            };
            let mut words = rest.split_whitespace().map(str::to_owned);
            let uri = words.next()?;
            let suites = vec![words.next()?];
            Some(AptSource { uri, suites, components: words.collect() })
        })
        .collect()
}

/// The URI that serves Debian's releases: it carries `main` of a suite with one of Debian's own names.
pub(crate) fn debian_mirror(sources: &[AptSource]) -> Option<&str> {
    const RELEASES: [&str; 10] = [
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "sid",
        "stable",
        "testing",
        "unstable",
        "oldstable",
    ];
    uri_of(sources, "debian", |suite| RELEASES.contains(&suite))
}

/// The URI that serves the security fixes of Debian's releases.
pub(crate) fn debian_security_mirror(sources: &[AptSource]) -> Option<&str> {
    // The archive of security fixes is one of its own, with its own host and path.
    uri_of(sources, "debian-security", |suite| suite.ends_with("-security"))
}

fn uri_of<'a>(sources: &'a [AptSource], path: &str, wanted: impl Fn(&str) -> bool) -> Option<&'a str> {
    sources
        .iter()
        .find(|source| {
            source.components.iter().any(|component| component == "main")
                && source.suites.iter().any(|suite| wanted(suite))
                // Third parties name their suites after Debian's, so the path of the archive must be
                // Debian's, too.
                && source.uri.trim_end_matches('/').ends_with(path)
        })
        .map(|source| source.uri.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_security_archive_is_not_taken_for_the_mirror() {
        let text = "Types: deb\nURIs: http://mirror.test/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
                    Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";

        let sources = parse_sources("debian.sources", text);

        assert_eq!(debian_mirror(&sources), Some("http://mirror.test/debian"));
        assert_eq!(debian_security_mirror(&sources), Some("http://mirror.test/debian-security"));
    }

    #[test]
    fn one_line_entries_may_carry_options_and_comments() {
        let sources = parse_sources(
            "sources.list",
            "# deb http://no.test x main\ndeb [arch=amd64 signed-by=/k] https://m.test/debian trixie main # yes\n",
        );

        assert_eq!(debian_mirror(&sources), Some("https://m.test/debian"));
    }

    #[test]
    fn a_host_without_debian_has_no_mirror() {
        let sources = parse_sources(
            "ubuntu.sources",
            "Types: deb\nURIs: http://a.test/ubuntu\nSuites: noble\nComponents: main\n",
        );

        assert_eq!(debian_mirror(&sources), None);
    }
}
