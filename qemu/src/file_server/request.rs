//! Reads a request for a file.
//!
//! Pure. Knows the part of HTTP/1.1 that clients of static files use: the request line, ranges (RFC 9110, 14) and
//! `If-Range`. Refuses bodies, and every path that could mean anything but a name beneath the root. Invariant: a
//! path that came through has no empty, `.` or `..` segment and no NUL, and does not begin with a slash.

use std::ops::Range;

/// What is wanted of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Its bytes
    Get,
    /// Only what would be said of them
    Head,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is wanted
    pub method: Method,
    /// The file, relative to the root
    pub path: String,
    /// The value of `Range`
    pub range: Option<String>,
    /// The value of `If-Range`
    pub if_range: Option<String>,
    /// Whether another request may follow
    pub keeps_connection: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RequestError {
    #[error("this is no HTTP/1 request, or its head is longer than 8 KiB")]
    Syntax,
    #[error("only GET and HEAD are answered here")]
    Method,
    #[error("this path does not name a file beneath the root")]
    Path,
    #[error("a request for a file has no body")]
    Body,
}

impl RequestError {
    /// The status line's code and reason.
    #[must_use]
    pub fn status(self) -> &'static str {
        match self {
            Self::Syntax | Self::Path | Self::Body => "400 Bad Request",
            Self::Method => "405 Method Not Allowed",
        }
    }
}

/// Which bytes of a file to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedRange {
    /// These
    Part(Range<u64>),
    /// The file has none of the bytes that were asked for
    Unsatisfiable,
    /// All
    Whole,
}

/// Reads a request's head.
pub fn parse_request(head: &[u8]) -> Result<Request, RequestError> {
    let text = std::str::from_utf8(head).map_err(|_| RequestError::Syntax)?;
    let (first, rest) = text.split_once('\n').ok_or(RequestError::Syntax)?;
    let words: Vec<&str> = first.trim_end().split(' ').collect();
    let [method, target, version @ ("HTTP/1.0" | "HTTP/1.1")] = words[..] else {
        return Err(RequestError::Syntax);
    };
    if !rest.ends_with('\n') {
        return Err(RequestError::Syntax);
    }
    let header = |name: &str| {
        rest.lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned()))
    };
    if header("transfer-encoding").is_some() || header("content-length").is_some_and(|length| length != "0") {
        return Err(RequestError::Body);
    }
    let connection = header("connection").unwrap_or_default().to_ascii_lowercase();
    Ok(Request {
        method: match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            _ => return Err(RequestError::Method),
        },
        path: parse_path(target)?,
        range: header("range"),
        if_range: header("if-range"),
        keeps_connection: version == "HTTP/1.1" && connection != "close",
    })
}

/// The path beneath the root that a request's target names. Segments are checked after decoding, since `%2e%2e` and
/// `%2f` are what a check before it would miss.
fn parse_path(target: &str) -> Result<String, RequestError> {
    // A proxy's form names the server too.
    let local =
        target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let path = local.split(['?', '#']).next().unwrap_or_default();
    let decoded = decode_percent(path.strip_prefix('/').ok_or(RequestError::Path)?)?;
    let is_name = |segment: &str| !matches!(segment, "" | "." | "..");
    if decoded.split('/').all(is_name) && !decoded.contains('\0') {
        Ok(decoded)
    } else {
        Err(RequestError::Path)
    }
}

fn decode_percent(text: &str) -> Result<String, RequestError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let digits = digits.ok_or(RequestError::Path)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| RequestError::Path)?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| RequestError::Path)
}

/// Which bytes of a file with this length and entity tag a request asks for.
///
/// Several ranges, other units and what is no range get the whole file, as RFC 9110, 14.2 allows: a server may
/// ignore the header, and a client has to cope.
#[must_use]
pub fn choose_range(request: &Request, length: u64, tag: &str) -> RequestedRange {
    // Of another version of the file a part is worthless.
    if request.if_range.as_deref().is_some_and(|wanted| wanted != tag) {
        return RequestedRange::Whole;
    }
    let range = request.range.as_deref().and_then(|value| value.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return RequestedRange::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number too big for us is beyond every file.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let part = match (number(first.trim()), number(last.trim()), last.trim()) {
        (Some(first), Some(last), _) if first > last => return RequestedRange::Whole,
        (Some(first), Some(last), _) => first..last.saturating_add(1).min(length),
        (Some(first), None, "") => first..length,
        (None, Some(count), _) if first.trim().is_empty() => length.saturating_sub(count)..length,
        _ => return RequestedRange::Whole,
    };
    if part.is_empty() { RequestedRange::Unsatisfiable } else { RequestedRange::Part(part) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded_random::SeededRandom;

    fn path_of(target: &str) -> Result<String, RequestError> {
        parse_request(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .map(|request| request.path)
    }

    fn range(value: &str, length: u64) -> RequestedRange {
        let head = format!("GET /x HTTP/1.1\r\nrange: {value}\r\n\r\n");
        choose_range(&parse_request(head.as_bytes()).unwrap(), length, "\"tag\"")
    }

    #[test]
    fn a_path_is_decoded_and_relative() {
        assert_eq!(path_of("/channel/stable").unwrap(), "channel/stable");
        assert_eq!(path_of("/a%20b/%C3%A4?x=..#y").unwrap(), "a b/ä");
        assert_eq!(path_of("http://10.0.2.2:80/root/1").unwrap(), "root/1");
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for target in [
            "/../x",
            "/x/..",
            "/x/../../y",
            "/%2e%2e/x",
            "/x%2f..%2fy",
            "/./x",
            "//x",
            "/x//y",
            "/x/",
            "/",
            "x",
            "*",
            "/x%00y",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/%ff",
            "http://host",
        ] {
            assert_eq!(path_of(target), Err(RequestError::Path), "{target}");
        }
    }

    #[test]
    fn what_is_no_request_for_a_file_is_refused() {
        for (head, error) in [
            ("", RequestError::Syntax),
            ("GET /x HTTP/1.1", RequestError::Syntax),
            ("GET /x\r\n\r\n", RequestError::Syntax),
            ("GET /x HTTP/2\r\n\r\n", RequestError::Syntax),
            ("GET /x y HTTP/1.1\r\n\r\n", RequestError::Syntax),
            ("GET /x HTTP/1.1\r\nHost: cut off", RequestError::Syntax),
            ("PUT /x HTTP/1.1\r\n\r\n", RequestError::Method),
            ("GET /x HTTP/1.1\r\nContent-Length: 3\r\n\r\n", RequestError::Body),
            ("GET /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", RequestError::Body),
        ] {
            assert_eq!(parse_request(head.as_bytes()), Err(error), "{head:?}");
        }
        assert_eq!(parse_request(b"GET /\xff HTTP/1.1\r\n\r\n"), Err(RequestError::Syntax));
    }

    #[test]
    fn no_mutation_of_a_request_leads_out_of_the_root() {
        let good = b"GET /a/%2e%2ec/b HTTP/1.1\r\nRange: bytes=1-2\r\n\r\n";
        let mut random = SeededRandom::from_seed(3);
        let mut below = |limit: usize| usize::try_from(random.number_below(limit as u64)).unwrap();
        let mut accepted = 0;
        for _ in 0..100_000 {
            let mut head = good.to_vec();
            for _ in 0..=below(4) {
                let at = below(head.len());
                match below(3) {
                    0 => drop(head.remove(at)),
                    1 => head.insert(at, b"/.%2e5f\0 \n"[below(10)]),
                    _ => head[at] = u8::try_from(below(256)).unwrap(),
                }
            }
            let Ok(request) = parse_request(&head) else { continue };
            accepted += 1;
            let bad = |segment: &str| matches!(segment, "" | "." | "..");
            assert!(!request.path.split('/').any(bad) && !request.path.contains('\0'), "{:?}", request.path);
            let _ = choose_range(&request, 10, "\"tag\"");
        }
        assert!(accepted > 1000, "{accepted} requests were tried to their end");
    }

    #[test]
    fn a_connection_stays_unless_one_side_says_otherwise() {
        let keeps = |head: &str| parse_request(head.as_bytes()).unwrap().keeps_connection;

        assert!(keeps("GET /x HTTP/1.1\r\n\r\n"));
        assert!(!keeps("GET /x HTTP/1.1\r\nConnection: Close\r\n\r\n"));
        assert!(!keeps("GET /x HTTP/1.0\r\n\r\n"));
    }

    #[test]
    fn ranges_are_those_of_the_rfc() {
        assert_eq!(range("bytes=0-0", 10), RequestedRange::Part(0..1));
        assert_eq!(range("bytes=2-5", 10), RequestedRange::Part(2..6));
        assert_eq!(range("bytes=2-", 10), RequestedRange::Part(2..10));
        assert_eq!(range("bytes=-3", 10), RequestedRange::Part(7..10));
        assert_eq!(range("bytes=-30", 10), RequestedRange::Part(0..10));
        assert_eq!(range("bytes=5-99999999999999999999999", 10), RequestedRange::Part(5..10));
        for beyond in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(range(beyond, 10), RequestedRange::Unsatisfiable, "{beyond}");
        }
        assert_eq!(range("bytes=0-", 0), RequestedRange::Unsatisfiable);
        for ignored in
            ["bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=", "bytes=-", "bytes=+1-2", "bytes=a-b"]
        {
            assert_eq!(range(ignored, 10), RequestedRange::Whole, "{ignored}");
        }
    }

    #[test]
    fn a_part_of_another_version_is_not_sent() {
        let request = |if_range: &str| Request {
            method: Method::Get,
            path: "x".into(),
            range: Some("bytes=1-2".into()),
            if_range: Some(if_range.into()),
            keeps_connection: true,
        };

        assert_eq!(choose_range(&request("\"old\""), 10, "\"new\""), RequestedRange::Whole);
        assert_eq!(choose_range(&request("\"new\""), 10, "\"new\""), RequestedRange::Part(1..3));
    }
}
