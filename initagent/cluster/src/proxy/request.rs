//! Judges one request: what is handed on, and how.
//!
//! Knows the paths of etcd's API of version 2 that change keys, and no other that changes anything. Refuses to
//! know sockets. Invariants: what is handed on is written anew from what was understood, so that etcd cannot
//! read it otherwise; whatever is not known is refused.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// A longer head is no request of an etcd client.
const LARGEST_HEAD: usize = 16 << 10;
/// What etcd or its clients look at. The rest stays here, `Connection` and its kin above all.
const FORWARDED: [&str; 8] = [
    "accept",
    "access-control-request-method",
    "authorization",
    "content-type",
    "if-match",
    "if-none-match",
    "origin",
    "user-agent",
];

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    method: String,
    /// With its query.
    target: String,
    headers: Vec<(String, String)>,
    /// How long the body is.
    pub body_bytes: usize,
    /// Whether the client waits for a word before it sends the body, as curl does with long ones.
    pub expects_continue: bool,
}

impl Head {
    /// The method.
    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    /// The target, with its query.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to etcd.
    Forward,
    /// It goes to etcd, and the addresses in the answer are changed.
    ForwardMembers,
    /// It goes nowhere.
    Refuse(Refusal),
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No HTTP that is understood.
    Broken,
    /// No member answers.
    NoMember,
    /// It would change the cluster, or it is no path of version 2.
    NotOffered,
    /// Its body has no length.
    NoLength,
    /// It is too long.
    TooLarge,
}

impl Refusal {
    /// The whole answer. In etcd's form of an error, so that its clients show the message.
    #[must_use]
    pub fn format_answer(self) -> String {
        let (status, message) = match self {
            Self::Broken => ("400 Bad Request", "this is no request of an etcd client"),
            Self::NoMember => {
                ("503 Service Unavailable", "no member of etcd answers; 'systemctl status etcd' says more")
            }
            Self::NotOffered => (
                "403 Forbidden",
                "here are the keys of version 2 only; for the cluster itself and version 3 use 'sudo etcdctl', which \
                 has a certificate",
            ),
            Self::NoLength => ("411 Length Required", "a body must say its length"),
            Self::TooLarge => ("413 Content Too Large", "the request is too long"),
        };
        // 300 and up are etcd's codes of the server itself.
        let body = json!({ "errorCode": 300, "message": message, "cause": "", "index": 0 }).to_string();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

impl Head {
    /// The request as etcd gets it.
    #[must_use]
    pub fn forwarded_request(&self) -> String {
        // HTTP/1.1 for chunks, which watches with `stream=true` are.
        let mut text =
            format!("{} {} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n", self.method, self.target);
        for (name, value) in self.headers.iter().filter(|(name, _)| FORWARDED.contains(&name.as_str())) {
            // Writing into a text does not fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if self.body_bytes > 0 || matches!(self.method.as_str(), "POST" | "PUT") {
            let _ = write!(text, "Content-Length: {}\r\n", self.body_bytes);
        }
        text + "\r\n"
    }

    pub(crate) fn header_value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The head at the start of `bytes` and what is behind it, once it is whole.
#[must_use]
pub fn split_head(bytes: &[u8]) -> Option<Result<(Head, Vec<u8>), Refusal>> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    match end {
        Some(end) if end <= LARGEST_HEAD => {
            let read = parse_head(&bytes[..end]).map(|head| (head, bytes[end + 4..].to_vec()));
            Some(read)
        }
        None if bytes.len() <= LARGEST_HEAD => None,
        _ => Some(Err(Refusal::TooLarge)),
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Broken)?;
    let mut lines = text.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = first[..] else { return Err(Refusal::Broken) };
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain(target) || !target.starts_with('/') {
        return Err(Refusal::Broken);
    }
    let headers: Option<Vec<(String, String)>> = lines.map(split_header).collect();
    let mut head = Head {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.ok_or(Refusal::Broken)?,
        body_bytes: 0,
        expects_continue: false,
    };
    head.body_bytes = body_bytes(&head)?;
    head.expects_continue =
        head.header_value("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    Ok(head)
}

fn split_header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let value = value.trim();
    // A bare line end inside a value would be a second header for etcd.
    (!name.is_empty() && name.chars().all(is_name) && !value.contains(char::is_control))
        .then(|| (name.to_ascii_lowercase(), value.to_owned()))
}

fn body_bytes(head: &Head) -> Result<usize, Refusal> {
    if head.header_value("transfer-encoding").is_some() {
        return Err(Refusal::NoLength);
    }
    let lengths: Vec<&str> = head
        .headers
        .iter()
        .filter(|(name, _)| name == "content-length")
        .map(|(_, value)| value.as_str())
        .collect();
    match lengths[..] {
        [] => Ok(0),
        [length] if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            length.parse().map_err(|_| Refusal::Broken)
        }
        _ => Err(Refusal::Broken),
    }
}

/// What is done with a request.
#[must_use]
pub fn judge_request(head: &Head) -> Verdict {
    let path = head.target.split(['?', '#']).next().unwrap_or_default();
    // etcd cleans a path and sends the client to the clean one; here it is the clean one or none. Escapes in
    // keys stay, those that make other paths do not.
    let lower = path.to_ascii_lowercase();
    let is_clean = !path.contains("//")
        && !path.split('/').any(|part| part == "." || part == "..")
        && !["%2e", "%2f", "%00"].iter().any(|escape| lower.contains(escape));
    let is_read = matches!(head.method.as_str(), "GET" | "HEAD" | "OPTIONS");
    let is_write = matches!(head.method.as_str(), "PUT" | "POST" | "DELETE");
    let is_keys = path == "/v2/keys" || path.starts_with("/v2/keys/");
    match path {
        _ if !is_clean => Verdict::Refuse(Refusal::NotOffered),
        _ if is_keys && (is_read || is_write) => Verdict::Forward,
        "/v2/machines" | "/v2/members" if head.method == "GET" => Verdict::ForwardMembers,
        "/health" | "/version" | "/v2/members/leader" | "/v2/stats/leader" | "/v2/stats/self"
        | "/v2/stats/store"
            if is_read =>
        {
            Verdict::Forward
        }
        _ => Verdict::Refuse(Refusal::NotOffered),
    }
}

/// An answer about members with the proxy's address in place of theirs.
#[must_use]
pub fn with_addresses(answer: &[u8], advertised: &str) -> Vec<u8> {
    rewrite_members(answer, advertised).unwrap_or_else(|| answer.to_vec())
}

fn rewrite_members(answer: &[u8], advertised: &str) -> Option<Vec<u8>> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    if !head.split(' ').nth(1)?.starts_with('2') {
        return None;
    }
    let mut lines = head.split("\r\n");
    let status = lines.next()?;
    // Chunks would have to be joined; Go answers what is short with its length.
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding:");
    let body = if is_chunked { return None } else { member_list(&answer[end + 4..], advertised)? };
    let mut text = format!("{status}\r\n");
    for line in lines.filter(|line| !line.to_ascii_lowercase().starts_with("content-length:")) {
        let _ = write!(text, "{line}\r\n");
    }
    let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
    Some(text.into_bytes())
}

fn member_list(body: &[u8], advertised: &str) -> Option<String> {
    if body.first() != Some(&b'{') {
        // `/v2/machines` is URLs with commas.
        return std::str::from_utf8(body).ok()?.contains("://").then(|| advertised.to_owned());
    }
    let mut value: Value = serde_json::from_slice(body).ok()?;
    for member in value.get_mut("members")?.as_array_mut()? {
        *member.get_mut("clientURLs")? = json!([advertised]);
    }
    Some(format!("{value}\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(request: &str) -> Verdict {
        let text = format!("{request} HTTP/1.1\r\nHost: 127.0.0.1:2379\r\n\r\n");
        match split_head(text.as_bytes()) {
            Some(Ok((head, _))) => judge_request(&head),
            Some(Err(refusal)) => Verdict::Refuse(refusal),
            None => panic!("{request}: not whole"),
        }
    }

    #[test]
    fn keys_are_read_and_written() {
        for request in [
            "GET /v2/keys",
            "GET /v2/keys/coreos.com/network/config?wait=true&waitIndex=7",
            "PUT /v2/keys/a%20b?ttl=5",
            "POST /v2/keys/queue",
            "DELETE /v2/keys/a?recursive=true",
            "GET /health",
            "GET /version",
            "GET /v2/stats/self",
        ] {
            assert_eq!(judged(request), Verdict::Forward, "{request}");
        }
        assert_eq!(judged("GET /v2/members"), Verdict::ForwardMembers);
    }

    #[test]
    fn nothing_else_gets_through() {
        for request in [
            "POST /v2/members",
            "DELETE /v2/members/8e9e05c52164694d",
            "PUT /v2/members/8e9e05c52164694d",
            "PUT /v2/auth/enable",
            "PUT /v2/auth/users/root",
            "GET /v2/auth/users",
            "POST /v3/kv/put",
            "POST /v3beta/kv/put",
            "POST /etcdserverpb.KV/Put",
            "PRI *",
            "CONNECT 127.0.0.1:2378",
            "GET http://127.0.0.1:2378/v2/keys",
            "POST /v2/keys/../members",
            "POST /v2/keys/%2e%2e/members",
            "POST /v2/keys/%2E./members",
            "POST /v2/keys%2f..%2fmembers",
            "POST //v2/members",
            "POST /v2/keysx",
            "GET /debug/pprof/heap",
            "GET /metrics",
            "PATCH /v2/keys/a",
            "GET /",
        ] {
            assert!(matches!(judged(request), Verdict::Refuse(_)), "{request}");
        }
    }

    #[test]
    fn a_request_that_two_readers_could_read_differently_is_refused() {
        for headers in [
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: +1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked",
            "X: a\rPOST /v2/members HTTP/1.1",
            "X: a\nPOST /v2/members HTTP/1.1",
            " folded: a",
            "X",
        ] {
            let text = format!("PUT /v2/keys/a HTTP/1.1\r\n{headers}\r\n\r\n");

            assert!(matches!(split_head(text.as_bytes()), Some(Err(_))), "{headers:?}");
        }
    }

    #[test]
    fn what_etcd_gets_is_written_anew() {
        let text = "PUT /v2/keys/a?ttl=5 HTTP/1.1\r\nhost: evil\r\nConnection: keep-alive, X\r\nX: 1\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nvalue=1GET /";
        let (head, rest) = split_head(text.as_bytes()).unwrap().unwrap();

        assert_eq!(
            head.forwarded_request(),
            "PUT /v2/keys/a?ttl=5 HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\
             content-type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\n"
        );
        assert_eq!((head.body_bytes, rest.as_slice()), (7, &b"value=1GET /"[..]));
    }

    #[test]
    fn members_are_at_the_proxy_for_those_without_a_certificate() {
        let body = r#"{"members":[{"id":"1","name":"a","peerURLs":["https://10.0.0.1:2380"],"clientURLs":["https://10.0.0.1:2379"]}]}"#;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());

        let text = String::from_utf8(with_addresses(answer.as_bytes(), "http://127.0.0.1:2379")).unwrap();

        assert!(text.contains(r#""clientURLs":["http://127.0.0.1:2379"]"#), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{text}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_pass_a_second_request_on(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let request = [b"GET /v2/keys/", &bytes[..], b"\r\n\r\n"].concat();
            if let Some(Ok((head, _))) = split_head(&request) {
                let _ = judge_request(&head);
                prop_assert_eq!(head.forwarded_request().matches("\r\n\r\n").count(), 1);
                prop_assert_eq!(head.forwarded_request().matches(" HTTP/1.1").count(), 1);
            }
        }
    }
}
