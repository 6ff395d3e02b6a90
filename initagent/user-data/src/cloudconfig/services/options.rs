//! The options of the services of `coreos`, each with its variable.
//!
//! Knows etcd 0.4, etcd 2 and what etcd 3.5 made of them. Invariant: every option that CoreOS
//! documented stands here, so that none is ever dropped in silence.

/// What a value must look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// true or false.
    Flag,
    /// A number.
    Float,
    /// A whole number.
    Integer,
    /// A length of time in Go's notation.
    Length,
    /// Text, or a list that is joined with commas.
    Text,
    /// locksmith's start of a window.
    Window,
    /// One of these.
    Words(&'static [&'static str]),
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// etcd 2's `ca-file`: a trusted authority, and client certificates asked for.
    Authority {
        /// The variable for the file.
        trusted: &'static str,
        /// The variable that asks for certificates.
        required: &'static str,
    },
    /// The service no longer has it, for this reason.
    Gone(&'static str),
    /// A flag that asks for this log level.
    Level(&'static str),
    /// `host:port` where the service wants a URL in this variable.
    Url(&'static str),
    /// Handed on in this variable.
    Variable(&'static str),
}

/// One option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opt {
    /// Its name, with underscores.
    pub name: &'static str,
    /// What its value must look like.
    pub kind: Type,
    /// What becomes of it.
    pub rule: Rule,
}

const fn text(name: &'static str, variable: &'static str) -> Opt {
    Opt { name, kind: Type::Text, rule: Rule::Variable(variable) }
}

const fn flag(name: &'static str, variable: &'static str) -> Opt {
    Opt { name, kind: Type::Flag, rule: Rule::Variable(variable) }
}

const fn integer(name: &'static str, variable: &'static str) -> Opt {
    Opt { name, kind: Type::Integer, rule: Rule::Variable(variable) }
}

const fn float(name: &'static str, variable: &'static str) -> Opt {
    Opt { name, kind: Type::Float, rule: Rule::Variable(variable) }
}

const fn words(name: &'static str, words: &'static [&'static str], variable: &'static str) -> Opt {
    Opt { name, kind: Type::Words(words), rule: Rule::Variable(variable) }
}

const fn gone(name: &'static str, because: &'static str) -> Opt {
    Opt { name, kind: Type::Text, rule: Rule::Gone(because) }
}

const CA_FILE: Opt = Opt {
    name: "ca_file",
    kind: Type::Text,
    rule: Rule::Authority { trusted: "ETCD_TRUSTED_CA_FILE", required: "ETCD_CLIENT_CERT_AUTH" },
};
const PEER_CA_FILE: Opt = Opt {
    name: "peer_ca_file",
    kind: Type::Text,
    rule: Rule::Authority { trusted: "ETCD_PEER_TRUSTED_CA_FILE", required: "ETCD_PEER_CLIENT_CERT_AUTH" },
};
const DEBUG: Opt = Opt { name: "debug", kind: Type::Flag, rule: Rule::Level("debug") };
const LOG_PACKAGE_LEVELS: Opt =
    gone("log_package_levels", "etcd 3.5 has one log level for all packages; set `debug: true` to raise it");

/// `coreos.etcd2`: the flags of etcd 2, which etcd 3.5 reads from the same variables.
pub const ETCD2: &[Opt] = &[
    text("advertise_client_urls", "ETCD_ADVERTISE_CLIENT_URLS"),
    CA_FILE,
    text("cert_file", "ETCD_CERT_FILE"),
    flag("client_cert_auth", "ETCD_CLIENT_CERT_AUTH"),
    text("cors", "ETCD_CORS"),
    text("data_dir", "ETCD_DATA_DIR"),
    DEBUG,
    text("discovery", "ETCD_DISCOVERY"),
    words("discovery_fallback", &["proxy", "exit"], "ETCD_DISCOVERY_FALLBACK"),
    text("discovery_srv", "ETCD_DISCOVERY_SRV"),
    text("discovery_proxy", "ETCD_DISCOVERY_PROXY"),
    integer("election_timeout", "ETCD_ELECTION_TIMEOUT"),
    flag("enable_pprof", "ETCD_ENABLE_PPROF"),
    flag("force_new_cluster", "ETCD_FORCE_NEW_CLUSTER"),
    integer("heartbeat_interval", "ETCD_HEARTBEAT_INTERVAL"),
    text("initial_advertise_peer_urls", "ETCD_INITIAL_ADVERTISE_PEER_URLS"),
    text("initial_cluster", "ETCD_INITIAL_CLUSTER"),
    words("initial_cluster_state", &["new", "existing"], "ETCD_INITIAL_CLUSTER_STATE"),
    text("initial_cluster_token", "ETCD_INITIAL_CLUSTER_TOKEN"),
    text("key_file", "ETCD_KEY_FILE"),
    text("listen_client_urls", "ETCD_LISTEN_CLIENT_URLS"),
    text("listen_peer_urls", "ETCD_LISTEN_PEER_URLS"),
    LOG_PACKAGE_LEVELS,
    integer("max_snapshots", "ETCD_MAX_SNAPSHOTS"),
    integer("max_wals", "ETCD_MAX_WALS"),
    text("name", "ETCD_NAME"),
    PEER_CA_FILE,
    text("peer_cert_file", "ETCD_PEER_CERT_FILE"),
    text("peer_key_file", "ETCD_PEER_KEY_FILE"),
    flag("peer_client_cert_auth", "ETCD_PEER_CLIENT_CERT_AUTH"),
    text("peer_trusted_ca_file", "ETCD_PEER_TRUSTED_CA_FILE"),
    words("proxy", &["on", "off", "readonly"], "ETCD_PROXY"),
    integer("proxy_dial_timeout", "ETCD_PROXY_DIAL_TIMEOUT"),
    integer("proxy_failure_wait", "ETCD_PROXY_FAILURE_WAIT"),
    integer("proxy_read_timeout", "ETCD_PROXY_READ_TIMEOUT"),
    integer("proxy_refresh_interval", "ETCD_PROXY_REFRESH_INTERVAL"),
    integer("proxy_write_timeout", "ETCD_PROXY_WRITE_TIMEOUT"),
    integer("snapshot_count", "ETCD_SNAPSHOT_COUNT"),
    flag("strict_reconfig_check", "ETCD_STRICT_RECONFIG_CHECK"),
    text("trusted_ca_file", "ETCD_TRUSTED_CA_FILE"),
    text("wal_dir", "ETCD_WAL_DIR"),
];

const ONLY_0_4: &str = "only etcd 0.4 had it";

/// The flags of etcd 0.4 that etcd 2 spells otherwise or does not have.
const ETCD_0_4: &[Opt] = &[
    Opt { name: "addr", kind: Type::Text, rule: Rule::Url("ETCD_ADVERTISE_CLIENT_URLS") },
    Opt { name: "bind_addr", kind: Type::Text, rule: Rule::Url("ETCD_LISTEN_CLIENT_URLS") },
    Opt { name: "peer_addr", kind: Type::Text, rule: Rule::Url("ETCD_INITIAL_ADVERTISE_PEER_URLS") },
    Opt { name: "peer_bind_addr", kind: Type::Text, rule: Rule::Url("ETCD_LISTEN_PEER_URLS") },
    integer("peer_election_timeout", "ETCD_ELECTION_TIMEOUT"),
    integer("peer_heartbeat_interval", "ETCD_HEARTBEAT_INTERVAL"),
    gone("cluster_active_size", "etcd sizes its cluster by `discovery` or `initial_cluster`"),
    gone("cluster_remove_delay", ONLY_0_4),
    gone("cluster_sync_interval", ONLY_0_4),
    gone("graphite_host", "etcd 3.5 serves Prometheus metrics at /metrics"),
    gone("http_read_timeout", ONLY_0_4),
    gone("http_write_timeout", ONLY_0_4),
    gone("max_result_buffer", ONLY_0_4),
    gone("max_retry_attempts", ONLY_0_4),
    gone("peers", "name each member in `initial_cluster`, like `name=http://10.0.0.1:2380`"),
    gone("peers_file", "name each member in `initial_cluster`"),
    gone("retry_interval", ONLY_0_4),
    gone("snapshot", "etcd 3.5 always takes snapshots"),
    gone("trace", ONLY_0_4),
    Opt { name: "verbose", kind: Type::Flag, rule: Rule::Level("debug") },
    Opt { name: "very_verbose", kind: Type::Flag, rule: Rule::Level("debug") },
    Opt { name: "very_very_verbose", kind: Type::Flag, rule: Rule::Level("debug") },
    text("cors_origins", "ETCD_CORS"),
];

/// `coreos.etcd`: the flags of etcd 0.4, and those of etcd 2 that people wrote there too.
pub const ETCD: &[Opt] = &joined::<{ ETCD_0_4.len() + ETCD2.len() }>(ETCD_0_4, ETCD2);

/// Two tables, one behind the other.
const fn joined<const LENGTH: usize>(one: &[Opt], other: &[Opt]) -> [Opt; LENGTH] {
    let mut all = [one[0]; LENGTH];
    let mut place = 0;
    while place < LENGTH {
        all[place] = if place < one.len() { one[place] } else { other[place - one.len()] };
        place += 1;
    }
    all
}

/// `coreos.fleet`.
pub const FLEET: &[Opt] = &[
    text("agent_ttl", "FLEET_AGENT_TTL"),
    text("authorized_keys_file", "FLEET_AUTHORIZED_KEYS_FILE"),
    flag("disable_engine", "FLEET_DISABLE_ENGINE"),
    float("engine_reconcile_interval", "FLEET_ENGINE_RECONCILE_INTERVAL"),
    text("etcd_cafile", "FLEET_ETCD_CAFILE"),
    text("etcd_certfile", "FLEET_ETCD_CERTFILE"),
    text("etcd_keyfile", "FLEET_ETCD_KEYFILE"),
    text("etcd_key_prefix", "FLEET_ETCD_KEY_PREFIX"),
    float("etcd_request_timeout", "FLEET_ETCD_REQUEST_TIMEOUT"),
    text("etcd_servers", "FLEET_ETCD_SERVERS"),
    text("etcd_username", "FLEET_ETCD_USERNAME"),
    text("etcd_password", "FLEET_ETCD_PASSWORD"),
    text("metadata", "FLEET_METADATA"),
    text("public_ip", "FLEET_PUBLIC_IP"),
    integer("token_limit", "FLEET_TOKEN_LIMIT"),
    integer("verbosity", "FLEET_VERBOSITY"),
    flag("verify_units", "FLEET_VERIFY_UNITS"),
];

/// `coreos.flannel`.
pub const FLANNEL: &[Opt] = &[
    text("etcd_endpoints", "FLANNELD_ETCD_ENDPOINTS"),
    text("etcd_cafile", "FLANNELD_ETCD_CAFILE"),
    text("etcd_certfile", "FLANNELD_ETCD_CERTFILE"),
    text("etcd_keyfile", "FLANNELD_ETCD_KEYFILE"),
    text("etcd_prefix", "FLANNELD_ETCD_PREFIX"),
    text("etcd_username", "FLANNELD_ETCD_USERNAME"),
    text("etcd_password", "FLANNELD_ETCD_PASSWORD"),
    text("ip_masq", "FLANNELD_IP_MASQ"),
    text("subnet_file", "FLANNELD_SUBNET_FILE"),
    text("interface", "FLANNELD_IFACE"),
    text("public_ip", "FLANNELD_PUBLIC_IP"),
];

/// `coreos.locksmith`.
pub const LOCKSMITH: &[Opt] = &[
    text("endpoint", "LOCKSMITHD_ENDPOINT"),
    text("etcd_cafile", "LOCKSMITHD_ETCD_CAFILE"),
    text("etcd_certfile", "LOCKSMITHD_ETCD_CERTFILE"),
    text("etcd_keyfile", "LOCKSMITHD_ETCD_KEYFILE"),
    text("etcd_username", "LOCKSMITHD_ETCD_USERNAME"),
    text("etcd_password", "LOCKSMITHD_ETCD_PASSWORD"),
    text("group", "LOCKSMITHD_GROUP"),
    Opt { name: "window_start", kind: Type::Window, rule: Rule::Variable("REBOOT_WINDOW_START") },
    Opt { name: "window_length", kind: Type::Length, rule: Rule::Variable("REBOOT_WINDOW_LENGTH") },
];
