//! What etcd is told on every machine, and which variables are whose.
//!
//! Knows names and values. Refuses to decide which of them hold. Invariant: each list is of variables that
//! etcd 3.5 knows; it takes each of its flags as a variable.

/// How large the store of version 3 may be, as etcd takes it.
const QUOTA: &str = "536870912";

/// Unless a person sets them.
pub(super) const DEFAULTS: [(&str, &str); 6] = [
    // Each hour: watchers that were away for longer read everything anew, which fleetd does anyway.
    ("ETCD_AUTO_COMPACTION_MODE", "periodic"),
    ("ETCD_AUTO_COMPACTION_RETENTION", "1h"),
    // The old clients' keys. Their store is apart from fleet's.
    ("ETCD_ENABLE_V2", "true"),
    // Of five, which is etcd's own number: each log is preallocated with 64 MB.
    ("ETCD_MAX_WALS", "2"),
    ("ETCD_MAX_SNAPSHOTS", "2"),
    // A small disk is full before etcd's own limit of 2 GiB. fleet's records of 1000 units take 5 MiB.
    ("ETCD_QUOTA_BACKEND_BYTES", QUOTA),
];

/// Certificates for clients. Files are named from the folder of the keys.
pub(super) const CLIENT_TLS: [(&str, &str); 4] = [
    ("ETCD_CERT_FILE", "etcd/server.pem"),
    ("ETCD_CLIENT_CERT_AUTH", "true"),
    ("ETCD_KEY_FILE", "etcd/server.key"),
    ("ETCD_TRUSTED_CA_FILE", "client-ca.pem"),
];

/// Certificates for members.
pub(super) const PEER_TLS: [(&str, &str); 5] = [
    // A machine may come from another of its addresses than the one it is known by. Its certificate is proof
    // enough.
    ("ETCD_EXPERIMENTAL_PEER_SKIP_CLIENT_SAN_VERIFICATION", "true"),
    ("ETCD_PEER_CERT_FILE", "etcd/peer.pem"),
    ("ETCD_PEER_CLIENT_CERT_AUTH", "true"),
    ("ETCD_PEER_KEY_FILE", "etcd/peer.key"),
    ("ETCD_PEER_TRUSTED_CA_FILE", "peer-ca.pem"),
];

/// Who sets one of these has certificates of his own, or a file in which he may have set anything.
pub(super) const CLIENT_TLS_NAMES: [&str; 7] = [
    "ETCD_AUTO_TLS",
    "ETCD_CERT_FILE",
    "ETCD_CLIENT_CERT_AUTH",
    "ETCD_CONFIG_FILE",
    "ETCD_KEY_FILE",
    "ETCD_LISTEN_CLIENT_HTTP_URLS",
    "ETCD_TRUSTED_CA_FILE",
];

/// The same for members.
pub(super) const PEER_TLS_NAMES: [&str; 6] = [
    "ETCD_CONFIG_FILE",
    "ETCD_PEER_AUTO_TLS",
    "ETCD_PEER_CERT_FILE",
    "ETCD_PEER_CLIENT_CERT_AUTH",
    "ETCD_PEER_KEY_FILE",
    "ETCD_PEER_TRUSTED_CA_FILE",
];

/// What would form another cluster than `cluster` says, or open it.
pub(super) const FORMING: [&str; 15] = [
    "ETCD_ADVERTISE_CLIENT_URLS",
    "ETCD_CONFIG_FILE",
    "ETCD_DISCOVERY",
    "ETCD_DISCOVERY_FALLBACK",
    "ETCD_DISCOVERY_SRV",
    "ETCD_INITIAL_ADVERTISE_PEER_URLS",
    "ETCD_INITIAL_CLUSTER",
    "ETCD_INITIAL_CLUSTER_STATE",
    "ETCD_INITIAL_CLUSTER_TOKEN",
    "ETCD_LISTEN_CLIENT_HTTP_URLS",
    "ETCD_LISTEN_CLIENT_URLS",
    "ETCD_LISTEN_PEER_URLS",
    "ETCD_NAME",
    "ETCD_PROXY",
    "ETCD_TRUSTED_CA_FILE",
];
