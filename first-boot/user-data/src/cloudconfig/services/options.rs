//! The options of the services of `coreos`, each with its variable.
//!
//! Knows etcd 0.4, etcd 2 and what etcd 3.5 made of them. Invariant: every option that CoreOS
//! documented stands here, so that none is ever dropped in silence.
//!
//! Documentation: etcd 2's `Documentation/configuration.md`,
//! <https://etcd.io/docs/v3.5/op-guide/configuration/>, fleet's
//! `Documentation/deployment-and-configuration.md`, flannel's and locksmith's README.

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionType {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionRule {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceOption {
    /// Its name, with underscores.
    pub name: &'static str,
    /// What its value must look like.
    pub kind: OptionType,
    /// What becomes of it.
    pub rule: OptionRule,
}

const fn text_option(name: &'static str, variable: &'static str) -> ServiceOption {
    ServiceOption { name, kind: OptionType::Text, rule: OptionRule::Variable(variable) }
}

const fn flag_option(name: &'static str, variable: &'static str) -> ServiceOption {
    ServiceOption { name, kind: OptionType::Flag, rule: OptionRule::Variable(variable) }
}

const fn integer_option(name: &'static str, variable: &'static str) -> ServiceOption {
    ServiceOption { name, kind: OptionType::Integer, rule: OptionRule::Variable(variable) }
}

const fn float_option(name: &'static str, variable: &'static str) -> ServiceOption {
    ServiceOption { name, kind: OptionType::Float, rule: OptionRule::Variable(variable) }
}

const fn words_option(
    name: &'static str,
    words: &'static [&'static str],
    variable: &'static str,
) -> ServiceOption {
    ServiceOption { name, kind: OptionType::Words(words), rule: OptionRule::Variable(variable) }
}

const fn removed_option(name: &'static str, because: &'static str) -> ServiceOption {
    ServiceOption { name, kind: OptionType::Text, rule: OptionRule::Gone(because) }
}

const CA_FILE: ServiceOption = ServiceOption {
    name: "ca_file",
    kind: OptionType::Text,
    rule: OptionRule::Authority { trusted: "ETCD_TRUSTED_CA_FILE", required: "ETCD_CLIENT_CERT_AUTH" },
};
const PEER_CA_FILE: ServiceOption = ServiceOption {
    name: "peer_ca_file",
    kind: OptionType::Text,
    rule: OptionRule::Authority {
        trusted: "ETCD_PEER_TRUSTED_CA_FILE",
        required: "ETCD_PEER_CLIENT_CERT_AUTH",
    },
};
// etcd 3.5 took the flag away, and its log level does the work.
const DEBUG: ServiceOption =
    ServiceOption { name: "debug", kind: OptionType::Flag, rule: OptionRule::Level("debug") };
const LOG_PACKAGE_LEVELS: ServiceOption = removed_option(
    "log_package_levels",
    "etcd 3.5 has one log level for all packages; set `debug: true` to raise it",
);

/// `coreos.etcd2`: the flags of etcd 2, which etcd 3.5 reads from the same variables.
pub const ETCD2: &[ServiceOption] = &[
    text_option("advertise_client_urls", "ETCD_ADVERTISE_CLIENT_URLS"),
    CA_FILE,
    text_option("cert_file", "ETCD_CERT_FILE"),
    flag_option("client_cert_auth", "ETCD_CLIENT_CERT_AUTH"),
    text_option("cors", "ETCD_CORS"),
    text_option("data_dir", "ETCD_DATA_DIR"),
    DEBUG,
    text_option("discovery", "ETCD_DISCOVERY"),
    words_option("discovery_fallback", &["proxy", "exit"], "ETCD_DISCOVERY_FALLBACK"),
    text_option("discovery_srv", "ETCD_DISCOVERY_SRV"),
    text_option("discovery_proxy", "ETCD_DISCOVERY_PROXY"),
    integer_option("election_timeout", "ETCD_ELECTION_TIMEOUT"),
    flag_option("enable_pprof", "ETCD_ENABLE_PPROF"),
    flag_option("force_new_cluster", "ETCD_FORCE_NEW_CLUSTER"),
    integer_option("heartbeat_interval", "ETCD_HEARTBEAT_INTERVAL"),
    text_option("initial_advertise_peer_urls", "ETCD_INITIAL_ADVERTISE_PEER_URLS"),
    text_option("initial_cluster", "ETCD_INITIAL_CLUSTER"),
    words_option("initial_cluster_state", &["new", "existing"], "ETCD_INITIAL_CLUSTER_STATE"),
    text_option("initial_cluster_token", "ETCD_INITIAL_CLUSTER_TOKEN"),
    text_option("key_file", "ETCD_KEY_FILE"),
    text_option("listen_client_urls", "ETCD_LISTEN_CLIENT_URLS"),
    text_option("listen_peer_urls", "ETCD_LISTEN_PEER_URLS"),
    LOG_PACKAGE_LEVELS,
    integer_option("max_snapshots", "ETCD_MAX_SNAPSHOTS"),
    integer_option("max_wals", "ETCD_MAX_WALS"),
    text_option("name", "ETCD_NAME"),
    PEER_CA_FILE,
    text_option("peer_cert_file", "ETCD_PEER_CERT_FILE"),
    text_option("peer_key_file", "ETCD_PEER_KEY_FILE"),
    flag_option("peer_client_cert_auth", "ETCD_PEER_CLIENT_CERT_AUTH"),
    text_option("peer_trusted_ca_file", "ETCD_PEER_TRUSTED_CA_FILE"),
    words_option("proxy", &["on", "off", "readonly"], "ETCD_PROXY"),
    integer_option("proxy_dial_timeout", "ETCD_PROXY_DIAL_TIMEOUT"),
    integer_option("proxy_failure_wait", "ETCD_PROXY_FAILURE_WAIT"),
    integer_option("proxy_read_timeout", "ETCD_PROXY_READ_TIMEOUT"),
    integer_option("proxy_refresh_interval", "ETCD_PROXY_REFRESH_INTERVAL"),
    integer_option("proxy_write_timeout", "ETCD_PROXY_WRITE_TIMEOUT"),
    integer_option("snapshot_count", "ETCD_SNAPSHOT_COUNT"),
    flag_option("strict_reconfig_check", "ETCD_STRICT_RECONFIG_CHECK"),
    text_option("trusted_ca_file", "ETCD_TRUSTED_CA_FILE"),
    text_option("wal_dir", "ETCD_WAL_DIR"),
];

const ONLY_0_4: &str = "only etcd 0.4 had it";

/// The flags of etcd 0.4 that etcd 2 spells otherwise or does not have.
// etcd 2 wants URLs where 0.4 had `host:port`, so these four are translated and not handed on.
const ETCD_0_4: &[ServiceOption] = &[
    ServiceOption {
        name: "addr",
        kind: OptionType::Text,
        rule: OptionRule::Url("ETCD_ADVERTISE_CLIENT_URLS"),
    },
    ServiceOption {
        name: "bind_addr",
        kind: OptionType::Text,
        rule: OptionRule::Url("ETCD_LISTEN_CLIENT_URLS"),
    },
    ServiceOption {
        name: "peer_addr",
        kind: OptionType::Text,
        rule: OptionRule::Url("ETCD_INITIAL_ADVERTISE_PEER_URLS"),
    },
    ServiceOption {
        name: "peer_bind_addr",
        kind: OptionType::Text,
        rule: OptionRule::Url("ETCD_LISTEN_PEER_URLS"),
    },
    integer_option("peer_election_timeout", "ETCD_ELECTION_TIMEOUT"),
    integer_option("peer_heartbeat_interval", "ETCD_HEARTBEAT_INTERVAL"),
    removed_option("cluster_active_size", "etcd sizes its cluster by `discovery` or `initial_cluster`"),
    removed_option("cluster_remove_delay", ONLY_0_4),
    removed_option("cluster_sync_interval", ONLY_0_4),
    removed_option("graphite_host", "etcd 3.5 serves Prometheus metrics at /metrics"),
    removed_option("http_read_timeout", ONLY_0_4),
    removed_option("http_write_timeout", ONLY_0_4),
    removed_option("max_result_buffer", ONLY_0_4),
    removed_option("max_retry_attempts", ONLY_0_4),
    removed_option("peers", "name each member in `initial_cluster`, like `name=http://10.0.0.1:2380`"),
    removed_option("peers_file", "name each member in `initial_cluster`"),
    removed_option("retry_interval", ONLY_0_4),
    removed_option("snapshot", "etcd 3.5 always takes snapshots"),
    removed_option("trace", ONLY_0_4),
    ServiceOption { name: "verbose", kind: OptionType::Flag, rule: OptionRule::Level("debug") },
    ServiceOption { name: "very_verbose", kind: OptionType::Flag, rule: OptionRule::Level("debug") },
    ServiceOption { name: "very_very_verbose", kind: OptionType::Flag, rule: OptionRule::Level("debug") },
    text_option("cors_origins", "ETCD_CORS"),
];

/// `coreos.etcd`: the flags of etcd 0.4, and those of etcd 2 that people wrote there too.
pub const ETCD: &[ServiceOption] = &join_tables::<{ ETCD_0_4.len() + ETCD2.len() }>(ETCD_0_4, ETCD2);

/// Two tables, one behind the other.
// Rust has no other way to join slices in a constant.
const fn join_tables<const LENGTH: usize>(
    one: &[ServiceOption],
    other: &[ServiceOption],
) -> [ServiceOption; LENGTH] {
    let mut all = [one[0]; LENGTH];
    let mut place = 0;
    while place < LENGTH {
        all[place] = if place < one.len() { one[place] } else { other[place - one.len()] };
        place += 1;
    }
    all
}

/// `coreos.fleet`.
pub const FLEET: &[ServiceOption] = &[
    text_option("agent_ttl", "FLEET_AGENT_TTL"),
    text_option("authorized_keys_file", "FLEET_AUTHORIZED_KEYS_FILE"),
    flag_option("disable_engine", "FLEET_DISABLE_ENGINE"),
    float_option("engine_reconcile_interval", "FLEET_ENGINE_RECONCILE_INTERVAL"),
    text_option("etcd_cafile", "FLEET_ETCD_CAFILE"),
    text_option("etcd_certfile", "FLEET_ETCD_CERTFILE"),
    text_option("etcd_keyfile", "FLEET_ETCD_KEYFILE"),
    text_option("etcd_key_prefix", "FLEET_ETCD_KEY_PREFIX"),
    float_option("etcd_request_timeout", "FLEET_ETCD_REQUEST_TIMEOUT"),
    text_option("etcd_servers", "FLEET_ETCD_SERVERS"),
    text_option("etcd_username", "FLEET_ETCD_USERNAME"),
    text_option("etcd_password", "FLEET_ETCD_PASSWORD"),
    text_option("metadata", "FLEET_METADATA"),
    text_option("public_ip", "FLEET_PUBLIC_IP"),
    integer_option("token_limit", "FLEET_TOKEN_LIMIT"),
    integer_option("verbosity", "FLEET_VERBOSITY"),
    flag_option("verify_units", "FLEET_VERIFY_UNITS"),
];

/// `coreos.flannel`.
pub const FLANNEL: &[ServiceOption] = &[
    text_option("etcd_endpoints", "FLANNELD_ETCD_ENDPOINTS"),
    text_option("etcd_cafile", "FLANNELD_ETCD_CAFILE"),
    text_option("etcd_certfile", "FLANNELD_ETCD_CERTFILE"),
    text_option("etcd_keyfile", "FLANNELD_ETCD_KEYFILE"),
    text_option("etcd_prefix", "FLANNELD_ETCD_PREFIX"),
    text_option("etcd_username", "FLANNELD_ETCD_USERNAME"),
    text_option("etcd_password", "FLANNELD_ETCD_PASSWORD"),
    text_option("ip_masq", "FLANNELD_IP_MASQ"),
    text_option("subnet_file", "FLANNELD_SUBNET_FILE"),
    // flannel's flag is `iface`. coreos-cloudinit called the key otherwise.
    text_option("interface", "FLANNELD_IFACE"),
    text_option("public_ip", "FLANNELD_PUBLIC_IP"),
];

/// `coreos.locksmith`.
pub const LOCKSMITH: &[ServiceOption] = &[
    text_option("endpoint", "LOCKSMITHD_ENDPOINT"),
    text_option("etcd_cafile", "LOCKSMITHD_ETCD_CAFILE"),
    text_option("etcd_certfile", "LOCKSMITHD_ETCD_CERTFILE"),
    text_option("etcd_keyfile", "LOCKSMITHD_ETCD_KEYFILE"),
    text_option("etcd_username", "LOCKSMITHD_ETCD_USERNAME"),
    text_option("etcd_password", "LOCKSMITHD_ETCD_PASSWORD"),
    text_option("group", "LOCKSMITHD_GROUP"),
    ServiceOption {
        name: "window_start",
        kind: OptionType::Window,
        rule: OptionRule::Variable("REBOOT_WINDOW_START"),
    },
    ServiceOption {
        name: "window_length",
        kind: OptionType::Length,
        rule: OptionRule::Variable("REBOOT_WINDOW_LENGTH"),
    },
];
