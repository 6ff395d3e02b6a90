//! What was written: each option that there is, and how its text is read.
//!
//! Knows names, defaults and forms. Refuses to know what is meant. Invariant: an option has one name, and
//! one that is not known is warned about and kept out.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::SettingsError;
use crate::{model::url::without_credentials, store::keys::DEFAULT_PREFIX};

/// Each option with its default. The first twenty are the original's.
const KNOWN: [(&str, &str); 40] = [
    ("verbosity", "0"),
    ("etcd_servers", "http://127.0.0.1:2379,http://127.0.0.1:4001"),
    ("etcd_request_timeout", "1.0"),
    ("etcd_cafile", ""),
    ("etcd_keyfile", ""),
    ("etcd_certfile", ""),
    ("etcd_username", ""),
    ("etcd_password", ""),
    ("etcd_key_prefix", DEFAULT_PREFIX),
    ("public_ip", ""),
    ("metadata", ""),
    ("agent_ttl", "30s"),
    ("engine_reconcile_interval", "2"),
    ("token_limit", "100"),
    ("disable_engine", "false"),
    ("disable_watches", "false"),
    ("enable_grpc", "false"),
    ("units_directory", "/run/fleet/units/"),
    ("systemd_user", "false"),
    ("verify_units", "false"),
    ("authorized_keys_file", ""),
    ("admin_group", ""),
    ("api_certfile", ""),
    ("api_client_cafile", ""),
    ("api_hosts", ""),
    ("api_keyfile", ""),
    ("api_lock_client_cafile", ""),
    ("api_readonly_client_cafile", ""),
    ("brake_percent", "50"),
    ("drain_on_lock", "false"),
    ("listen", ""),
    ("lock_group", ""),
    ("machine_id", ""),
    ("max_units", "0"),
    ("read_group", ""),
    ("reserve_cpu", "auto"),
    ("reserve_memory", "auto"),
    ("reserve_resources", "false"),
    ("runtime_directory", "/run/fleet"),
    ("stop_units_on_exit", "auto"),
];

/// Options of the original that no longer mean anything.
const RETIRED: [&str; 4] = ["authorized_keys_file", "disable_watches", "enable_grpc", "verify_units"];

/// What was written, by whom it does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    values: BTreeMap<&'static str, String>,
    /// Things to warn about.
    pub warnings: Vec<String>,
}

impl Options {
    /// Reads a file of `name=value` lines. Unknown options are warned about, as are those that no
    /// longer mean anything.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let mut options = Self::default();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with(['#', ';', '[']) {
                continue;
            }
            // The line is not shown: it may be a password that lacks the sign.
            let (name, value) = text.split_once('=').ok_or(SettingsError::Line { line })?;
            options.set_option(name.trim(), value.trim());
        }
        Ok(options)
    }

    /// Lets variables of the environment override the file.
    pub fn override_by(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in environment {
            if let Some(name) = name.strip_prefix("FLEET_") {
                self.set_option(&name.to_lowercase(), &value);
            }
        }
    }

    fn set_option(&mut self, name: &str, value: &str) {
        match KNOWN.iter().find(|(known, _)| *known == name) {
            Some((known, _)) => {
                if RETIRED.contains(known) {
                    self.warnings.push(format!("option {known} no longer means anything"));
                }
                self.values.insert(known, strip_quotes(value).to_owned());
            }
            None => self.warnings.push(format!("option {name} is not known")),
        }
    }

    pub(super) fn option_text(&self, name: &'static str) -> &str {
        let default = KNOWN.iter().find(|(known, _)| *known == name).map_or("", |(_, default)| default);
        self.values.get(name).map_or(default, String::as_str)
    }

    pub(super) fn optional_text(&self, name: &'static str) -> Option<String> {
        Some(self.option_text(name)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    pub(super) fn option_path(&self, name: &'static str) -> Option<PathBuf> {
        self.optional_text(name).map(PathBuf::from)
    }

    pub(super) fn option_list(&self, name: &'static str) -> Vec<String> {
        let text = self.option_text(name).trim_start_matches('[').trim_end_matches(']');
        text.split(',')
            .map(|item| strip_quotes(item.trim()).to_owned())
            .filter(|item| !item.is_empty())
            .collect()
    }

    pub(super) fn read<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, SettingsError> {
        let value = self.option_text(name);
        read(value).ok_or_else(|| SettingsError::Value { name, value: without_credentials(value), expected })
    }

    pub(super) fn option_flag(&self, name: &'static str) -> Result<bool, SettingsError> {
        self.read(name, "true or false", |text| match text.to_lowercase().as_str() {
            "true" | "1" | "yes" | "on" | "t" => Some(true),
            "false" | "0" | "no" | "off" | "f" | "" => Some(false),
            _ => None,
        })
    }

    pub(super) fn option_seconds(&self, name: &'static str) -> Result<Duration, SettingsError> {
        self.read(name, "number of seconds", |text| {
            text.parse()
                .ok()
                .filter(|seconds| (0.001..=86_400.0).contains(seconds))
                .map(Duration::from_secs_f64)
        })
    }

    pub(super) fn option_number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, SettingsError> {
        self.read(name, "whole number in range", |text| text.parse().ok())
    }
}

fn strip_quotes(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}
