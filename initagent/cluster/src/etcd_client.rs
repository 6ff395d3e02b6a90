//! Asks a member of etcd by the JSON gateway of version 3, and by the keys of version 2.
//!
//! Knows how a call is made and how its failure reads. Refuses to know what the calls mean. Invariants: an answer
//! is bounded; a member that the cluster's authority did not sign is not asked.
//!
//! The gateway (<https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/>) serves every call of gRPC on the port of the
//! clients. A gRPC client would bring an async runtime into the agent, which has none.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Body, http::Response};

use crate::site::{Site, SiteError};

/// A follower that still forwards to a dead leader answers after 7 seconds (5 s and two elections).
pub const CALL_PATIENCE: Duration = Duration::from_secs(8);
/// For calls that copy the store: 512 MiB, which is our quota, at 2 MiB a second.
pub const COPY_PATIENCE: Duration = Duration::from_mins(5);
/// A list of all keys of version 2 is one answer. That store is in memory, and of small machines.
const LARGEST_ANSWER: u64 = 256 << 20;

/// What a client shows, and whom it trusts; in PEM.
#[derive(Clone)]
pub struct ClientCredentials {
    /// The authority that signed the members' certificates.
    pub authority: String,
    /// The client's certificate.
    pub certificate: String,
    /// Its key.
    pub private_key: String,
}

impl std::fmt::Debug for ClientCredentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ClientCredentials").finish_non_exhaustive()
    }
}

impl ClientCredentials {
    /// Root's, of this boot; `None` before the first start of etcd or fleetd.
    pub fn of_machine(site: &Site) -> Result<Option<Self>, SiteError> {
        let read = |name: &str| site.read(&site.runtime_path(name));
        let parts = (read("client-ca.pem")?, read("client.pem")?, read("client.key")?);
        Ok(match parts {
            (Some(authority), Some(certificate), Some(private_key)) => {
                Some(Self { authority, certificate, private_key })
            }
            _ => None,
        })
    }
}

/// Why a call to etcd had no answer.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum CallError {
    #[error("cannot read the certificates for etcd")]
    Credentials { source: Box<ureq::Error> },
    #[error("the answer of etcd at {endpoint} to {call} is not what etcd 3.4 or 3.5 answers")]
    Form { endpoint: String, call: String },
    #[error("etcd at {endpoint} refused {call}: {said}")]
    Refused { endpoint: String, call: String, status: u16, said: String },
    #[error("etcd at {endpoint} did not answer {call}")]
    Unanswered { endpoint: String, call: String, source: Box<ureq::Error> },
    #[error("etcd at {endpoint} broke off its answer to {call}")]
    Unread { endpoint: String, call: String, source: std::io::Error },
}

/// A client of etcd's members.
#[derive(Debug, Clone)]
pub struct EtcdClient {
    agent: Agent,
}

impl EtcdClient {
    /// A client with these credentials, or without any for members in the clear.
    pub fn new(credentials: Option<&ClientCredentials>, patience: Duration) -> Result<Self, CallError> {
        // By name: rustls would panic where a program links two providers and none is the default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        if let Some(credentials) = credentials {
            let failed = |source| CallError::Credentials { source: Box::new(source) };
            let read = |pem: &str| Certificate::from_pem(pem.as_bytes()).map_err(failed);
            let key = PrivateKey::from_pem(credentials.private_key.as_bytes()).map_err(failed)?;
            tls = tls
                .root_certs(RootCerts::new_with_certs(&[read(&credentials.authority)?]))
                .client_cert(Some(ClientCert::new_with_certs(&[read(&credentials.certificate)?], key)));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .timeout_global(Some(patience))
            // A member whose machine is gone answers nothing; the others should not wait for it.
            .timeout_connect(Some(Duration::from_secs(2)))
            .http_status_as_error(false)
            // Proxies are for the world outside; members are next to each other.
            .proxy(None)
            .build();
        Ok(Self { agent: Agent::new_with_config(config) })
    }

    /// Calls version 3: `call` is such as `cluster/member/list`.
    pub fn call(&self, endpoint: &str, call: &str, arguments: &Value) -> Result<Value, CallError> {
        let body = arguments.to_string();
        let answer = self.agent.post(format!("{endpoint}/v3/{call}")).send(body.as_bytes());
        answer_of(endpoint, call, answer)
    }

    /// What a member measures of itself, in the form of Prometheus.
    pub fn metrics(&self, endpoint: &str) -> Result<String, CallError> {
        let call = "metrics";
        let answer = self.agent.get(format!("{endpoint}/metrics")).call();
        let mut answer = answer.map_err(|source| unanswered(endpoint, call, source))?;
        read_text(endpoint, call, &mut answer)
    }

    /// Calls version 2: `path` begins behind `/v2/`.
    pub fn classic_get(&self, endpoint: &str, path: &str) -> Result<Value, CallError> {
        let answer = self.agent.get(format!("{endpoint}/v2/{path}")).call();
        answer_of(endpoint, path, answer)
    }

    /// Writes a key of version 2, with the fields of its form.
    pub fn classic_put(
        &self,
        endpoint: &str,
        path: &str,
        form: &[(&str, String)],
    ) -> Result<Value, CallError> {
        let form = form.iter().map(|(name, value)| (*name, value.as_str()));
        let answer = self.agent.put(format!("{endpoint}/v2/{path}")).send_form(form);
        answer_of(endpoint, path, answer)
    }

    /// Reads the snapshot that a member makes of its store of version 3. `sink` gets it piece by piece.
    pub fn read_snapshot(
        &self,
        endpoint: &str,
        sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), CallError> {
        let call = "maintenance/snapshot";
        let answer = self.agent.post(format!("{endpoint}/v3/{call}")).send(&b"{}"[..]);
        let answer = answer.map_err(|source| unanswered(endpoint, call, source))?;
        let reader = answer.into_body().into_reader();
        let broken =
            |source| CallError::Unread { endpoint: endpoint.to_owned(), call: call.to_owned(), source };
        let form = || CallError::Form { endpoint: endpoint.to_owned(), call: call.to_owned() };
        // A stream of JSON documents; how they are parted is the gateway's affair.
        for piece in serde_json::Deserializer::from_reader(reader).into_iter::<Value>() {
            let piece = piece.map_err(|error| broken(std::io::Error::from(error)))?;
            if let Some(said) = piece["error"]["message"].as_str() {
                return Err(refused(endpoint, call, 500, said));
            }
            // The last one may be empty, and an empty field is left out.
            let Some(text) = piece["result"]["blob"].as_str() else { continue };
            sink(&STANDARD.decode(text).map_err(|_| form())?).map_err(broken)?;
        }
        Ok(())
    }
}

/// Bytes as the gateway writes them.
#[must_use]
pub fn encode_bytes(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads what the gateway wrote; what is none of its texts is empty.
#[must_use]
pub fn decode_bytes(value: &Value) -> Vec<u8> {
    value.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default()
}

/// Reads a number, which the gateway writes as a text if it has 64 bits. Zero is left out.
#[must_use]
pub fn decode_number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok())).unwrap_or(0)
}

fn answer_of(
    endpoint: &str,
    call: &str,
    answer: Result<Response<Body>, ureq::Error>,
) -> Result<Value, CallError> {
    let mut answer = answer.map_err(|source| unanswered(endpoint, call, source))?;
    let status = answer.status();
    let text = read_text(endpoint, call, &mut answer)?;
    let value: Option<Value> = serde_json::from_str(&text).ok();
    if !status.is_success() {
        let message = value.as_ref().and_then(|value| {
            let field = ["message", "error"].into_iter().find_map(|name| value[name].as_str())?;
            let cause = value["cause"].as_str().map(|cause| format!(" ({cause})"));
            Some([field, &cause.unwrap_or_default()].concat())
        });
        let said = message.unwrap_or_else(|| text.trim().chars().take(200).collect());
        return Err(refused(endpoint, call, status.as_u16(), &said));
    }
    value.ok_or_else(|| CallError::Form { endpoint: endpoint.to_owned(), call: call.to_owned() })
}

fn read_text(endpoint: &str, call: &str, answer: &mut Response<Body>) -> Result<String, CallError> {
    let mut text = String::new();
    let read = answer.body_mut().with_config().limit(LARGEST_ANSWER).reader().read_to_string(&mut text);
    read.map_err(|source| CallError::Unread {
        endpoint: endpoint.to_owned(),
        call: call.to_owned(),
        source,
    })?;
    Ok(text)
}

fn refused(endpoint: &str, call: &str, status: u16, said: &str) -> CallError {
    let said = said.chars().filter(|letter| !letter.is_control()).collect();
    CallError::Refused { endpoint: endpoint.to_owned(), call: call.to_owned(), status, said }
}

fn unanswered(endpoint: &str, call: &str, source: ureq::Error) -> CallError {
    CallError::Unanswered { endpoint: endpoint.to_owned(), call: call.to_owned(), source: Box::new(source) }
}
