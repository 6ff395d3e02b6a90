//! The settings of fleetd: `fleet.conf`, overridden by `FLEET_*` in the environment.
//!
//! Knows every option's name, default and form; refuses to know what an option does. Three types, one
//! per stage: text becomes [`Options`] (what was written), which become [`DaemonSettings`] (what is meant).
//! Invariant: [`DaemonSettings`] exist only if all of them make sense.

mod options;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::model::{
    machine::{MachineMetadata, parse_metadata},
    requirements::parse_duration,
    url::without_credentials,
};

pub use options::Options;

/// Where fleetd looks for its configuration.
pub const DEFAULT_FILE: &str = "/etc/fleet/fleet.conf";

/// Why the configuration makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum SettingsError {
    #[error("line {line} of the configuration is no \"name=value\": it has no \"=\"")]
    Line { line: usize },
    #[error("option {name} is {value:?}, which is no {expected}")]
    Value { name: &'static str, value: String, expected: &'static str },
    #[error("option {name} needs {needs} too")]
    Needs { name: &'static str, needs: &'static str },
}

/// Whose units run on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemdInstance {
    /// The machine's.
    System,
    /// Those of the user that fleetd runs as.
    User,
}

/// Where the API is served, beside sockets that systemd passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// In the clear; everybody may do everything.
    Tcp(SocketAddr),
    /// With certificates on both sides.
    Tls(SocketAddr),
    /// On a unix socket.
    Unix(PathBuf),
}

/// How much of the machine units may reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceReserve {
    /// All there is.
    All,
    /// This much: MiB, or percent of a core.
    Amount(u64),
}

/// Whether a daemon that stops takes its units along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitsOnExit {
    /// When it is to stay down or the machine goes down, not when it is restarted.
    Auto,
    /// Never.
    Keep,
    /// Always, as the original did.
    Stop,
}

/// The certificate of the API, and whose clients may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTls {
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority whose clients may do everything.
    pub client_ca: PathBuf,
    /// The authority whose clients may look.
    pub readonly_client_ca: Option<PathBuf>,
    /// The authority whose clients may take reboot slots.
    pub lock_client_ca: Option<PathBuf>,
}

/// What is meant.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the options are documented where users read of them")]
pub struct DaemonSettings {
    pub verbosity: i64,
    pub etcd_servers: Vec<String>,
    pub etcd_request_timeout: Duration,
    pub etcd_cafile: Option<PathBuf>,
    pub etcd_identity: Option<(PathBuf, PathBuf)>,
    pub etcd_user: Option<(String, String)>,
    pub etcd_key_prefix: String,
    pub public_ip: Option<String>,
    pub metadata: MachineMetadata,
    pub agent_ttl: Duration,
    pub leader_ttl: Duration,
    pub token_limit: u16,
    pub disable_engine: bool,
    pub units_directory: PathBuf,
    pub systemd: SystemdInstance,
    pub admin_group: Option<String>,
    pub read_group: Option<String>,
    pub lock_group: Option<String>,
    pub api_hosts: Vec<String>,
    pub api_tls: Option<ApiTls>,
    pub brake_percent: u8,
    pub drain_on_lock: bool,
    pub listen: Vec<ListenAddress>,
    pub machine_id: Option<String>,
    pub max_units: Option<u32>,
    /// Memory and CPU that units may reserve; `None` when reservations are not enforced.
    pub reserve: Option<(ResourceReserve, ResourceReserve)>,
    pub runtime_directory: PathBuf,
    pub units_on_exit: UnitsOnExit,
}

impl DaemonSettings {
    /// Why etcd is open to others, if it is as far as the settings tell: who writes fleet's keys there
    /// has units of his run by root, whatever roles the API has.
    #[must_use]
    pub fn etcd_warning(&self) -> Option<String> {
        if self.etcd_user.is_some() || self.etcd_identity.is_some() {
            return None;
        }
        let servers = without_credentials(&self.etcd_servers.join(","));
        Some(format!(
            "etcd is reached without a certificate or a password: whoever reaches {servers} is admin of this cluster, \
             roles of the API notwithstanding; set etcd_certfile and etcd_keyfile, or etcd_username and etcd_password"
        ))
    }

    /// Takes over what may change while the daemon runs; returns the names of the options that differ and
    /// may not.
    pub fn adopt_changes(&mut self, new: &Self) -> Vec<&'static str> {
        self.verbosity = new.verbosity;
        self.public_ip.clone_from(&new.public_ip);
        self.metadata.clone_from(&new.metadata);
        self.brake_percent = new.brake_percent;
        self.max_units = new.max_units;
        self.reserve = new.reserve;
        let fixed = [
            ("etcd_servers", self.etcd_servers != new.etcd_servers),
            ("etcd_request_timeout", self.etcd_request_timeout != new.etcd_request_timeout),
            ("etcd_cafile", self.etcd_cafile != new.etcd_cafile),
            ("etcd_certfile", self.etcd_identity != new.etcd_identity),
            ("etcd_username", self.etcd_user != new.etcd_user),
            ("etcd_key_prefix", self.etcd_key_prefix != new.etcd_key_prefix),
            ("agent_ttl", self.agent_ttl != new.agent_ttl),
            ("engine_reconcile_interval", self.leader_ttl != new.leader_ttl),
            ("token_limit", self.token_limit != new.token_limit),
            ("disable_engine", self.disable_engine != new.disable_engine),
            ("units_directory", self.units_directory != new.units_directory),
            ("systemd_user", self.systemd != new.systemd),
            ("admin_group", self.admin_group != new.admin_group),
            ("read_group", self.read_group != new.read_group),
            ("lock_group", self.lock_group != new.lock_group),
            ("api_hosts", self.api_hosts != new.api_hosts),
            ("api_certfile", self.api_tls != new.api_tls),
            ("drain_on_lock", self.drain_on_lock != new.drain_on_lock),
            ("listen", self.listen != new.listen),
            ("machine_id", self.machine_id != new.machine_id),
            ("runtime_directory", self.runtime_directory != new.runtime_directory),
            ("stop_units_on_exit", self.units_on_exit != new.units_on_exit),
        ];
        fixed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Makes sense of options.
    pub fn from_options(options: &Options) -> Result<Self, SettingsError> {
        let agent_ttl = options.read("agent_ttl", "span of at least 2 s, such as 30s", |text| {
            parse_duration(text).filter(|ttl| *ttl >= Duration::from_secs(2))
        })?;
        let interval = options.option_seconds("engine_reconcile_interval")?;
        Ok(Self {
            verbosity: options.option_number("verbosity")?,
            etcd_servers: etcd_servers(options)?,
            etcd_request_timeout: options.option_seconds("etcd_request_timeout")?,
            etcd_cafile: options.option_path("etcd_cafile"),
            etcd_identity: option_pair(options, "etcd_certfile", "etcd_keyfile")?
                .map(|(a, b)| (a.into(), b.into())),
            etcd_user: option_pair(options, "etcd_username", "etcd_password")?,
            etcd_key_prefix: options.option_text("etcd_key_prefix").to_owned(),
            public_ip: options.optional_text("public_ip"),
            metadata: parse_metadata(options.option_text("metadata")),
            agent_ttl,
            // The original's leader lease; a leader that is gone must be replaced before its machine is
            // given up.
            leader_ttl: (interval * 5).max(Duration::from_secs(2)).min(agent_ttl),
            token_limit: options.read("token_limit", "number from 1 to 65535", |text| {
                text.parse().ok().filter(|limit| *limit > 0)
            })?,
            disable_engine: options.option_flag("disable_engine")?,
            units_directory: options.option_text("units_directory").into(),
            systemd: if options.option_flag("systemd_user")? {
                SystemdInstance::User
            } else {
                SystemdInstance::System
            },
            admin_group: options.optional_text("admin_group"),
            read_group: options.optional_text("read_group"),
            lock_group: options.optional_text("lock_group"),
            api_hosts: options.option_list("api_hosts"),
            api_tls: api_tls(options)?,
            brake_percent: options.read("brake_percent", "percentage", |text| {
                text.parse().ok().filter(|percent| *percent <= 100)
            })?,
            drain_on_lock: options.option_flag("drain_on_lock")?,
            listen: listen_addresses(options)?,
            machine_id: options.optional_text("machine_id"),
            max_units: Some(options.option_number("max_units")?).filter(|most| *most > 0),
            reserve: resource_reserve(options)?,
            runtime_directory: options.option_text("runtime_directory").into(),
            units_on_exit: units_on_exit(options)?,
        })
    }
}

fn units_on_exit(options: &Options) -> Result<UnitsOnExit, SettingsError> {
    if options.option_text("stop_units_on_exit") == "auto" {
        return Ok(UnitsOnExit::Auto);
    }
    options
        .option_flag("stop_units_on_exit")
        .map(|stop| if stop { UnitsOnExit::Stop } else { UnitsOnExit::Keep })
        .map_err(|error| match error {
            SettingsError::Value { name, value, .. } => {
                SettingsError::Value { name, value, expected: "true, false or auto" }
            }
            other => other,
        })
}

fn etcd_servers(options: &Options) -> Result<Vec<String>, SettingsError> {
    options.read("etcd_servers", "list of http:// or https:// URLs", |_| {
        let servers = options.option_list("etcd_servers");
        let urls = servers.iter().all(|url| url.starts_with("http://") || url.starts_with("https://"));
        (urls && !servers.is_empty()).then_some(servers)
    })
}

fn option_pair(
    options: &Options,
    first: &'static str,
    second: &'static str,
) -> Result<Option<(String, String)>, SettingsError> {
    match (options.optional_text(first), options.optional_text(second)) {
        (Some(one), Some(other)) => Ok(Some((one, other))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(SettingsError::Needs { name: first, needs: second }),
        (None, Some(_)) => Err(SettingsError::Needs { name: second, needs: first }),
    }
}

fn api_tls(options: &Options) -> Result<Option<ApiTls>, SettingsError> {
    let Some((certificate, key)) = option_pair(options, "api_certfile", "api_keyfile")? else {
        return Ok(None);
    };
    let client_ca = options
        .option_path("api_client_cafile")
        .ok_or(SettingsError::Needs { name: "api_certfile", needs: "api_client_cafile" })?;
    Ok(Some(ApiTls {
        certificate: certificate.into(),
        key: key.into(),
        client_ca,
        readonly_client_ca: options.option_path("api_readonly_client_cafile"),
        lock_client_ca: options.option_path("api_lock_client_cafile"),
    }))
}

fn listen_addresses(options: &Options) -> Result<Vec<ListenAddress>, SettingsError> {
    let expected = "unix:///path, tcp://address:port or tls://address:port";
    let read = |text: String| {
        let listen = match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Some(ListenAddress::Unix(path.into())),
            Some(("tcp", address)) => address.parse().ok().map(ListenAddress::Tcp),
            Some(("tls", address)) => address.parse().ok().map(ListenAddress::Tls),
            _ => None,
        };
        listen.ok_or(SettingsError::Value { name: "listen", value: text, expected })
    };
    let all: Vec<ListenAddress> =
        options.option_list("listen").into_iter().map(read).collect::<Result<_, _>>()?;
    if all.iter().any(|listen| matches!(listen, ListenAddress::Tls(_)))
        && options.optional_text("api_certfile").is_none()
    {
        return Err(SettingsError::Needs { name: "listen", needs: "api_certfile" });
    }
    Ok(all)
}

fn resource_reserve(options: &Options) -> Result<Option<(ResourceReserve, ResourceReserve)>, SettingsError> {
    let read = |name, expected| {
        options.read(name, expected, |text| match text {
            "auto" => Some(ResourceReserve::All),
            amount => amount.parse().ok().map(ResourceReserve::Amount),
        })
    };
    let memory = read("reserve_memory", "number of MiB, or auto")?;
    let cpu = read("reserve_cpu", "percentage of a core, or auto")?;
    Ok(options.option_flag("reserve_resources")?.then_some((memory, cpu)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<DaemonSettings, SettingsError> {
        DaemonSettings::from_options(&Options::parse(text).unwrap())
    }

    #[test]
    fn defaults_are_those_of_the_original() {
        let settings = settings("").unwrap();

        assert_eq!(settings.etcd_servers, ["http://127.0.0.1:2379", "http://127.0.0.1:4001"]);
        assert_eq!(settings.agent_ttl, Duration::from_secs(30));
        assert_eq!(settings.leader_ttl, Duration::from_secs(10));
        assert_eq!((settings.token_limit, settings.disable_engine), (100, false));
        assert_eq!(settings.units_directory, PathBuf::from("/run/fleet/units/"));
    }

    #[test]
    fn lists_and_quotes_are_read_in_both_forms() {
        for text in [
            "etcd_servers=[\"http://a:1\",\"http://b:2\"]\nmetadata=\"zone=a,disk=x=y\"",
            "# comment\n etcd_servers = http://a:1, http://b:2 \nmetadata=zone=a, disk=x=y\n",
        ] {
            let settings = settings(text).unwrap();

            assert_eq!(settings.etcd_servers, ["http://a:1", "http://b:2"]);
            assert_eq!(settings.metadata["disk"], "x=y");
        }
    }

    #[test]
    fn the_environment_wins() {
        let mut options = Options::parse("public_ip=1.1.1.1\nfoo=1\nenable_grpc=true").unwrap();
        options.override_by([
            ("FLEET_PUBLIC_IP".to_owned(), "2.2.2.2".to_owned()),
            ("HOME".to_owned(), "/".to_owned()),
        ]);

        assert_eq!(DaemonSettings::from_options(&options).unwrap().public_ip.as_deref(), Some("2.2.2.2"));
        assert_eq!(
            options.warnings,
            ["option foo is not known", "option enable_grpc no longer means anything"]
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, message) in [
            ("agent_ttl=soon", "option agent_ttl is \"soon\", which is no span of at least 2 s, such as 30s"),
            (
                "etcd_servers=127.0.0.1",
                "option etcd_servers is \"127.0.0.1\", which is no list of http:// or https:// URLs",
            ),
            ("etcd_certfile=x", "option etcd_certfile needs etcd_keyfile too"),
            ("listen=tls://0.0.0.0:1", "option listen needs api_certfile too"),
            (
                "listen=foo",
                "option listen is \"foo\", which is no unix:///path, tcp://address:port or tls://address:port",
            ),
            ("token_limit=0", "option token_limit is \"0\", which is no number from 1 to 65535"),
            (
                "stop_units_on_exit=maybe",
                "option stop_units_on_exit is \"maybe\", which is no true, false or auto",
            ),
        ] {
            assert_eq!(settings(text).unwrap_err().to_string(), message);
        }
        assert_eq!(
            Options::parse("a=b\nnonsense").unwrap_err().to_string(),
            "line 2 of the configuration is no \"name=value\": it has no \"=\""
        );
        let secret = Options::parse("etcd_password hunter2").unwrap_err().to_string();
        assert!(!secret.contains("hunter2"), "{secret}");
        let secret = settings("etcd_servers=ftp://root:hunter2@a:1").unwrap_err().to_string();
        assert!(!secret.contains("hunter2") && secret.contains("ftp://***@a:1"), "{secret}");
    }

    #[test]
    fn an_etcd_that_knows_nobody_is_warned_of() {
        let warning = |text: &str| settings(text).unwrap().etcd_warning();

        assert!(
            warning("")
                .unwrap()
                .contains("whoever reaches http://127.0.0.1:2379,http://127.0.0.1:4001 is admin")
        );
        assert!(
            warning("etcd_servers=https://a:1\netcd_cafile=/ca").is_some(),
            "an authority proves etcd, not us"
        );
        assert_eq!(warning("etcd_username=u\netcd_password=p"), None);
        assert_eq!(warning("etcd_servers=https://a:1\netcd_certfile=/c\netcd_keyfile=/k"), None);
    }

    #[test]
    fn a_short_ttl_shortens_the_leadership() {
        assert_eq!(settings("agent_ttl=5s").unwrap().leader_ttl, Duration::from_secs(5));
        assert_eq!(
            settings("engine_reconcile_interval=0.5").unwrap().leader_ttl,
            Duration::from_millis(2500)
        );
    }

    #[test]
    fn a_running_daemon_adopts_what_it_can_and_names_the_rest() {
        let mut running = settings("metadata=zone=a\nbrake_percent=50\nagent_ttl=30s").unwrap();
        let new =
            settings("metadata=zone=b\nbrake_percent=20\nverbosity=1\nagent_ttl=5s\nlisten=tcp://[::1]:1")
                .unwrap();

        // The leadership never lasts longer than the TTL, so it differs with it.
        assert_eq!(running.adopt_changes(&new), ["agent_ttl", "engine_reconcile_interval", "listen"]);
        assert_eq!((running.brake_percent, running.verbosity), (20, 1));
        assert_eq!(running.metadata, new.metadata);
        assert_eq!(running.agent_ttl, Duration::from_secs(30));
    }
}
