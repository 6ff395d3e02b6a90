//! What may be typed after `locksmithctl`.
#![expect(clippy::doc_markdown, reason = "these comments are printed as help")]

use crate::ctl::endpoint::{ApiEndpoint, EndpointError};
use crate::lock::semaphore::{GroupName, GroupNameError};
use crate::store::keys::DEFAULT_PREFIX;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

const DEFAULT_ENDPOINTS: &str = "http://127.0.0.1:2379,http://127.0.0.1:4001";

/// Shows, takes and gives back the slots in which machines may reboot.
///
/// Each flag is also read from LOCKSMITHCTL_ and its name in capitals; the command line wins.
#[derive(Debug, Parser)]
#[command(name = "locksmithctl", disable_version_flag = true, max_term_width = 100)]
pub(super) struct LocksmithArguments {
    /// etcd's URLs, or unix:///PATH of a fleetd [default: http://127.0.0.1:2379,http://127.0.0.1:4001]
    #[arg(long, global = true, value_name = "URL")]
    endpoint: Vec<String>,
    /// Authority that signed etcd's certificates
    #[arg(long, global = true, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// Certificate to show to etcd
    #[arg(long, global = true, value_name = "FILE")]
    etcd_certfile: Option<PathBuf>,
    /// Where fleet's keys lie in etcd [default: /_coreos.com/fleet/]
    #[arg(long, global = true, value_name = "PREFIX")]
    etcd_key_prefix: Option<String>,
    /// Key that belongs to the certificate
    #[arg(long, global = true, value_name = "FILE")]
    etcd_keyfile: Option<PathBuf>,
    /// Password in etcd
    #[arg(long, global = true, value_name = "PASSWORD")]
    etcd_password: Option<String>,
    /// User in etcd
    #[arg(long, global = true, value_name = "USER")]
    etcd_username: Option<String>,
    /// Group of machines that share slots
    #[arg(long, global = true, value_name = "NAME")]
    group: Option<String>,
    /// Accepted and ignored: what goes wrong is always told
    #[arg(long, global = true, hide = true)]
    debug: bool,
    /// Print status as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print the version and exit
    #[arg(long)]
    pub(super) version: bool,
    #[command(subcommand)]
    pub(super) verb: Option<LocksmithVerb>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum LocksmithVerb {
    /// Take a slot, for this machine unless another holder is named
    Lock {
        /// Who holds it [default: this machine's id]
        id: Option<String>,
        /// What for
        #[arg(long, value_name = "TEXT", default_value = "locksmithctl lock")]
        reason: String,
    },
    /// Take a slot for this machine, then reboot it; the slot stays taken until unlock
    Reboot {
        /// What for
        #[arg(long, value_name = "TEXT", default_value = "locksmithctl reboot")]
        reason: String,
    },
    /// DEPRECATED: there is no update_engine
    #[command(hide = true)]
    SendNeedReboot,
    /// Set how many machines of the group may hold a slot at once
    SetMax {
        /// The number
        max: Option<String>,
    },
    /// Show how many slots there are, and who holds them
    Status {
        /// Show since when and what for, too
        #[arg(long)]
        long: bool,
    },
    /// Give back a slot, this machine's unless another holder is named
    Unlock {
        /// Who holds it [default: this machine's id]
        id: Option<String>,
    },
}

/// What the flags mean.
#[derive(Debug)]
pub(super) struct LocksmithSettings {
    pub(super) group: GroupName,
    pub(super) place: SlotPlace,
}

/// Where slots are kept.
#[derive(Debug)]
pub(super) enum SlotPlace {
    /// In etcd.
    Etcd(EtcdPlace),
    /// Behind a fleetd.
    Fleetd(ApiEndpoint),
}

/// How etcd is reached.
#[derive(Debug)]
pub(super) struct EtcdPlace {
    pub(super) endpoints: Vec<String>,
    pub(super) prefix: String,
    pub(super) ca: Option<PathBuf>,
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    pub(super) user: Option<(String, String)>,
}

/// Why the flags mean nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Group(#[from] GroupNameError),
    #[error("-etcd-certfile and -etcd-keyfile must be given together")]
    Pair,
    #[error("-etcd-username and -etcd-password must be given together")]
    User,
}

impl LocksmithArguments {
    /// The flags, then the environment, then the defaults.
    pub(super) fn locksmith_settings(
        &self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<LocksmithSettings, SettingsError> {
        let variable =
            |name: &str| environment(&format!("LOCKSMITHCTL_{name}")).filter(|text| !text.is_empty());
        let file =
            |typed: &Option<PathBuf>, name| typed.clone().or_else(|| variable(name).map(PathBuf::from));
        let text = |typed: &Option<String>, name| {
            typed.clone().or_else(|| variable(name)).filter(|text| !text.is_empty())
        };
        let group =
            text(&self.group, "GROUP").map(|name| GroupName::parse(&name)).transpose()?.unwrap_or_default();
        let typed = if self.endpoint.is_empty() {
            variable("ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINTS.to_owned())
        } else {
            self.endpoint.join(",")
        };
        let endpoints: Vec<String> = typed.split(',').map(|each| each.trim().to_owned()).collect();
        let parsed: Result<Vec<ApiEndpoint>, _> =
            endpoints.iter().map(|each| ApiEndpoint::parse(each)).collect();
        if let Some(endpoint @ ApiEndpoint::Unix(_)) = parsed?.into_iter().next() {
            return Ok(LocksmithSettings { group, place: SlotPlace::Fleetd(endpoint) });
        }
        let identity = (file(&self.etcd_certfile, "ETCD_CERTFILE"), file(&self.etcd_keyfile, "ETCD_KEYFILE"));
        let user = (text(&self.etcd_username, "ETCD_USERNAME"), text(&self.etcd_password, "ETCD_PASSWORD"));
        Ok(LocksmithSettings {
            group,
            place: SlotPlace::Etcd(EtcdPlace {
                endpoints,
                prefix: text(&self.etcd_key_prefix, "ETCD_KEY_PREFIX")
                    .unwrap_or_else(|| DEFAULT_PREFIX.to_owned()),
                ca: file(&self.etcd_cafile, "ETCD_CAFILE"),
                identity: both_or_neither(identity, SettingsError::Pair)?,
                user: both_or_neither(user, SettingsError::User)?,
            }),
        })
    }
}

/// Both or neither.
fn both_or_neither<T>(
    pair: (Option<T>, Option<T>),
    one: SettingsError,
) -> Result<Option<(T, T)>, SettingsError> {
    match pair {
        (Some(first), Some(second)) => Ok(Some((first, second))),
        (None, None) => Ok(None),
        _ => Err(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::single_dash::with_double_dashes;
    use clap::CommandFactory;
    use std::ffi::OsString;

    fn settings(line: &str, environment: &[(&str, &str)]) -> Result<LocksmithSettings, String> {
        let words = line.split(' ').map(OsString::from).collect();
        let words = with_double_dashes(words, &LocksmithArguments::command(), None);
        let arguments = LocksmithArguments::try_parse_from(words).unwrap();
        let find = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        arguments.locksmith_settings(&find).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        LocksmithArguments::command().debug_assert();
    }

    #[test]
    fn flags_take_one_dash_or_two_before_the_verb_or_after() {
        for line in [
            "locksmithctl -group=web status",
            "locksmithctl --group web status",
            "locksmithctl status -group web",
        ] {
            assert_eq!(settings(line, &[]).unwrap().group.as_str(), "web", "{line}");
        }
    }

    #[test]
    fn endpoints_are_etcds_unless_they_are_sockets() {
        let SlotPlace::Etcd(place) = settings("locksmithctl status", &[]).unwrap().place else {
            panic!("not etcd")
        };
        assert_eq!(place.endpoints, ["http://127.0.0.1:2379", "http://127.0.0.1:4001"]);

        let line = "locksmithctl -endpoint http://a:1 -endpoint http://b:1,http://c:1 status";
        let SlotPlace::Etcd(place) = settings(line, &[]).unwrap().place else { panic!("not etcd") };
        assert_eq!(place.endpoints, ["http://a:1", "http://b:1", "http://c:1"]);

        let environment = [("LOCKSMITHCTL_ENDPOINT", "unix:///run/fleet.sock")];
        assert!(matches!(settings("locksmithctl status", &environment).unwrap().place, SlotPlace::Fleetd(_)));
    }

    #[test]
    fn half_an_identity_is_none() {
        let refused = |line: &str| settings(line, &[]).unwrap_err();

        assert_eq!(
            refused("l -etcd-certfile=/c status"),
            "-etcd-certfile and -etcd-keyfile must be given together"
        );
        assert_eq!(
            refused("l -etcd-username=u status"),
            "-etcd-username and -etcd-password must be given together"
        );
        assert!(refused("l -group=a/b status").contains("letters, digits, dots or hyphens"));
    }
}
