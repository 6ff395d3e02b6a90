//! Answers etcd's discovery protocol of version 2 from a folder, so that nobody depends on discovery.etcd.io.
//!
//! Knows tokens, machines and their order. Refuses to know sockets: [`http`] serves it, and another server may mount
//! it below a path of its own. Invariants: who came first stays first, over restarts too; what is on the disk was
//! answered, and what was answered is on the disk; a stranger fills neither the disk nor the memory.
//!
//! | request | answer |
//! |---|---|
//! | `GET /new?size=3` | the URL of a new token, for people |
//! | `GET /TOKEN/_config/size` | how many vote |
//! | `GET /TOKEN` | who is registered, in order |
//! | `PUT /TOKEN/ID?prevExist=false`, form `value=` | register; 412 if it is |
//! | `GET /TOKEN[/ID]?wait=true&waitIndex=N` | the first registration from that number on |
//!
//! That is all that etcd 3.5 sends, seen on the wire, besides `GET /TOKEN/ID`. The keys in answers repeat the whole
//! path that was asked: etcd looks for itself by it.

pub mod http;
mod store;

use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

pub use store::DiscoveryToken;
use store::{FormingCluster, RegisterError, TokenStore};

/// etcd asks again at once. Proxies close what is silent for a minute.
pub const WAIT_PATIENCE: Duration = Duration::from_secs(50);
/// Sizes that etcd clusters have; a size beyond is a mistake.
const SIZES: std::ops::RangeInclusive<u32> = 1..=99;

/// One request, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiscoveryRequest<'a> {
    /// `GET`, `PUT`.
    pub method: &'a str,
    /// The path as the client knows it.
    pub path: &'a str,
    /// What stands before the token in it, such as `/discovery`.
    pub prefix: &'a str,
    /// What stands behind the question mark.
    pub query: &'a str,
    /// A form.
    pub body: &'a str,
    /// How clients come here, such as `http://10.0.0.1:8087`; for `/new`.
    pub origin: &'a str,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryAnswer {
    /// The status of HTTP.
    pub status: u16,
    /// `X-Etcd-Index`.
    pub index: u64,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

/// The service.
#[derive(Debug)]
pub struct DiscoveryService {
    store: Mutex<TokenStore>,
    /// Wakes those who wait.
    changed: Condvar,
    patience: Duration,
}

/// What is asked of one token.
enum TokenQuestion<'a> {
    Machines,
    Machine(&'a str),
    Size,
}

impl DiscoveryService {
    /// Serves the tokens of a folder, which is made if it is not there.
    pub fn open_folder(folder: &Path) -> io::Result<Self> {
        let store = Mutex::new(TokenStore::open_folder(folder)?);
        Ok(Self { store, changed: Condvar::new(), patience: WAIT_PATIENCE })
    }

    /// The same, for clients that wait no longer than this.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Makes a token for so many voters.
    pub fn create_token(&self, size: u32) -> io::Result<DiscoveryToken> {
        self.lock().create_token(size)
    }

    /// Answers one request. One that waits holds its thread for [`WAIT_PATIENCE`] at most.
    pub fn answer_request(&self, request: &DiscoveryRequest<'_>) -> DiscoveryAnswer {
        let Some(path) = request.path.strip_prefix(request.prefix) else { return not_found(request.path, 0) };
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (token, question) = match parts[..] {
            ["new"] => return self.answer_new(request),
            [token] => (token, TokenQuestion::Machines),
            [token, "_config", "size"] => (token, TokenQuestion::Size),
            [token, machine] => (token, TokenQuestion::Machine(machine)),
            _ => return not_found(request.path, 0),
        };
        let Some(token) = DiscoveryToken::parse(token) else { return not_found(request.path, 0) };
        match (request.method, question) {
            ("GET", question) if field(request.query, "wait").as_deref() == Some("true") => {
                self.answer_wait(request, &token, &question)
            }
            ("GET", question) => self.answer_get(request, &token, &question),
            ("PUT", TokenQuestion::Machine(machine)) => self.answer_put(request, &token, machine),
            _ => refusal(405, 0, 0, "Method Not Allowed", request.method),
        }
    }

    fn answer_new(&self, request: &DiscoveryRequest<'_>) -> DiscoveryAnswer {
        // The default of discovery.etcd.io.
        let size = field(request.query, "size").map_or(Some(3), |text| text.parse().ok());
        let Some(size) = size.filter(|size| SIZES.contains(size)) else {
            return refusal(400, 0, 209, "Invalid size", "give ?size= a number from 1 to 99");
        };
        match self.create_token(size) {
            Ok(token) => DiscoveryAnswer {
                status: 200,
                index: 0,
                content_type: "text/plain; charset=utf-8",
                body: format!("{}{}/{}", request.origin, request.prefix, token.as_text()),
            },
            Err(error) => refusal(507, 0, 300, "cannot keep a new token", &error.to_string()),
        }
    }

    fn answer_get(
        &self,
        request: &DiscoveryRequest<'_>,
        token: &DiscoveryToken,
        question: &TokenQuestion<'_>,
    ) -> DiscoveryAnswer {
        let mut store = self.lock();
        let Some(cluster) = store.find_token(token) else { return not_found(request.path, 0) };
        let path = request.path.trim_end_matches('/');
        let node = match question {
            TokenQuestion::Size => json!({
                "key": path, "value": cluster.size.to_string(), "modifiedIndex": 1, "createdIndex": 1,
            }),
            TokenQuestion::Machines => {
                let all = (2..).zip(&cluster.machines);
                let nodes: Vec<Value> =
                    all.map(|(index, (id, value))| node(&format!("{path}/{id}"), value, index)).collect();
                json!({ "key": path, "dir": true, "nodes": nodes, "modifiedIndex": 1, "createdIndex": 1 })
            }
            TokenQuestion::Machine(machine) => {
                let found = (2..).zip(&cluster.machines).find(|(_, (id, _))| id == machine);
                match found {
                    Some((index, (_, value))) => node(path, value, index),
                    None => return not_found(path, cluster.index()),
                }
            }
        };
        success(200, cluster.index(), &json!({ "action": "get", "node": node }))
    }

    fn answer_put(
        &self,
        request: &DiscoveryRequest<'_>,
        token: &DiscoveryToken,
        machine: &str,
    ) -> DiscoveryAnswer {
        let value =
            field(request.body, "value").or_else(|| field(request.query, "value")).unwrap_or_default();
        let mut store = self.lock();
        let outcome = store.register_machine(token, machine, &value);
        let index = store.find_token(token).map_or(0, FormingCluster::index);
        drop(store);
        match outcome {
            Ok(created) => {
                self.changed.notify_all();
                let node = node(request.path, &value, created);
                success(201, index, &json!({ "action": "create", "node": node }))
            }
            Err(RegisterError::Known) => refusal(412, index, 105, "Key already exists", request.path),
            Err(RegisterError::NoToken) => not_found(request.path, 0),
            Err(RegisterError::Value) => {
                refusal(400, index, 209, "Invalid value", "a machine is name=http://address:port")
            }
            Err(RegisterError::Full) => refusal(507, index, 300, "too many machines", request.path),
            Err(RegisterError::Keep(error)) => {
                refusal(500, index, 300, "cannot keep the machine", &error.to_string())
            }
        }
    }

    fn answer_wait(
        &self,
        request: &DiscoveryRequest<'_>,
        token: &DiscoveryToken,
        question: &TokenQuestion<'_>,
    ) -> DiscoveryAnswer {
        let mut store = self.lock();
        let first = field(request.query, "waitIndex").and_then(|text| text.parse::<u64>().ok());
        let Some(cluster) = store.find_token(token) else { return not_found(request.path, 0) };
        // Without a number, what comes from now on.
        let first = first.unwrap_or_else(|| cluster.index() + 1);
        let path = request.path.trim_end_matches('/').to_owned();
        let event = |store: &mut TokenStore| {
            let cluster = store.find_token(token)?;
            let (index, (id, value)) = (2..).zip(&cluster.machines).find(|(index, (id, _))| {
                *index >= first && !matches!(question, TokenQuestion::Machine(machine) if machine != id)
            })?;
            let key = match question {
                TokenQuestion::Machine(_) => path.clone(),
                _ => format!("{path}/{id}"),
            };
            Some(success(
                200,
                cluster.index(),
                &json!({ "action": "create", "node": node(&key, value, index) }),
            ))
        };
        let deadline = self.patience;
        let waited = self.changed.wait_timeout_while(store, deadline, |store| event(store).is_none());
        let (mut store, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // etcd ends a wait that came to nothing with an empty answer, after which its clients ask again.
        event(&mut store).unwrap_or_else(|| {
            let index = store.find_token(token).map_or(0, FormingCluster::index);
            DiscoveryAnswer { status: 200, index, content_type: "application/json", body: String::new() }
        })
    }

    /// A thread that panicked left the tokens as they were before or after its change.
    fn lock(&self) -> MutexGuard<'_, TokenStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn node(key: &str, value: &str, index: u64) -> Value {
    json!({ "key": key, "value": value, "modifiedIndex": index, "createdIndex": index })
}

fn success(status: u16, index: u64, body: &Value) -> DiscoveryAnswer {
    DiscoveryAnswer { status, index, content_type: "application/json", body: format!("{body}\n") }
}

fn not_found(path: &str, index: u64) -> DiscoveryAnswer {
    refusal(404, index, 100, "Key not found", path)
}

/// In etcd's form of an error (<https://etcd.io/docs/v2.3/errorcode/>).
fn refusal(status: u16, index: u64, code: u16, message: &str, cause: &str) -> DiscoveryAnswer {
    let cause: String = cause.chars().take(200).collect();
    success(status, index, &json!({ "errorCode": code, "message": message, "cause": cause, "index": index }))
}

/// A field of a form or query (WHATWG's application/x-www-form-urlencoded).
fn field(form: &str, name: &str) -> Option<String> {
    let (_, value) = form
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)?;
    let mut decoded = Vec::new();
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(method: &'a str, path: &'a str, query: &'a str, body: &'a str) -> DiscoveryRequest<'a> {
        DiscoveryRequest { method, path, prefix: "/d", query, body, origin: "http://10.0.0.1:8087" }
    }

    fn value(answer: &DiscoveryAnswer) -> Value {
        serde_json::from_str(&answer.body).unwrap()
    }

    #[test]
    fn machines_register_once_and_in_order_and_stay_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let service = DiscoveryService::open_folder(folder.path()).unwrap();
        let new = service.answer_request(&request("GET", "/d/new", "size=2", ""));
        let path = new.body.strip_prefix("http://10.0.0.1:8087").unwrap().to_owned();
        let put = |service: &DiscoveryService, id: &str, body: &str| {
            service.answer_request(&request("PUT", &format!("{path}/{id}"), "prevExist=false", body)).status
        };

        assert_eq!(put(&service, "b1", "value=b%3Dhttp%3A%2F%2F10.0.0.2%3A2380"), 201);
        assert_eq!(put(&service, "a0", "value=a%3Dhttp%3A%2F%2F10.0.0.1%3A2380"), 201);
        assert_eq!(put(&service, "b1", "value=b%3Dhttp%3A%2F%2F10.0.0.9%3A2380"), 412);
        assert_eq!(put(&service, "c2", "value=nonsense"), 400);
        let again = DiscoveryService::open_folder(folder.path()).unwrap();
        let all = value(&again.answer_request(&request("GET", &path, "", "")));
        let size = value(&again.answer_request(&request("GET", &format!("{path}/_config/size"), "", "")));

        assert_eq!(size["node"]["value"], "2");
        let nodes = all["node"]["nodes"].as_array().unwrap();
        assert_eq!(nodes[0]["key"], format!("{path}/b1"));
        assert_eq!(nodes[0]["value"], "b=http://10.0.0.2:2380");
        assert!(nodes[0]["createdIndex"].as_u64() < nodes[1]["createdIndex"].as_u64());
    }

    #[test]
    fn who_waits_gets_the_first_registration_from_a_number_on() {
        let folder = tempfile::tempdir().unwrap();
        let service =
            DiscoveryService::open_folder(folder.path()).unwrap().with_patience(Duration::from_secs(20));
        let path = format!("/d/{}", service.create_token(3).unwrap().as_text());
        let machine = format!("{path}/a");
        let register = || {
            service.answer_request(&request("PUT", &machine, "", "value=a%3Dhttp%3A%2F%2F10.0.0.1%3A2380"))
        };

        let event = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                service.answer_request(&request("GET", &path, "recursive=true&wait=true&waitIndex=2", ""))
            });
            register();
            waiting.join().unwrap()
        });
        let missed = service.answer_request(&request("GET", &machine, "wait=true&waitIndex=2", ""));
        let hasty = DiscoveryService { patience: Duration::ZERO, ..service };
        let nothing = hasty.answer_request(&request("GET", &path, "wait=true&waitIndex=3", ""));

        assert_eq!(value(&event)["node"]["key"], machine);
        assert_eq!(value(&missed)["node"]["key"], machine);
        assert_eq!((nothing.status, nothing.body.as_str()), (200, ""));
    }

    #[test]
    fn what_is_no_request_of_the_protocol_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let service = DiscoveryService::open_folder(folder.path()).unwrap();
        let token = service.create_token(3).unwrap();
        let path = format!("/d/{}", token.as_text());
        let status = |method: &str, path: &str, query: &str| {
            service.answer_request(&request(method, path, query, "value=a%3Dhttp%3A%2F%2F1%3A1")).status
        };

        assert_eq!(status("GET", "/d/new", "size=0"), 400);
        assert_eq!(status("GET", "/d/new", "size=x"), 400);
        assert_eq!(status("GET", "/d/0123456789abcdef0123456789abcdef", ""), 404);
        assert_eq!(status("GET", "/d/../../etc/passwd", ""), 404);
        assert_eq!(status("DELETE", &path, ""), 405);
        assert_eq!(status("PUT", &format!("{path}/{}", "f".repeat(99)), ""), 400);
        assert_eq!(status("PUT", &format!("{path}/_config/size"), ""), 405);
        assert_eq!(status("GET", "/elsewhere", ""), 404);
    }
}
