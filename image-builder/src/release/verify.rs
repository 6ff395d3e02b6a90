//! Proves a whole repository, as a mirror's operator would who has no key.
//!
//! Knows what machines will ask for: the chain of roots, every channel, every release it offers, every object of
//! that, and whether the objects give the root back. Refuses to change anything, and goes on after a fault, so
//! that one run names them all.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use error_text::error_chain;
use image_format::manifest::Manifest;
use image_format::release::channel::{ChannelMetadata, FileReference, OfferedRelease};
use image_format::release::paths::{self, ChannelName};
use image_format::release::time::UnixTime;
use image_format::release::trust::{TrustState, verify_channel, verify_manifest};
use image_format::signed::{MAX_ENVELOPE, Verified};
use serde::Serialize;

use super::objects::{PayloadFormat, PayloadObject};
use super::repository::Repository;
use super::roots::RootChain;
use super::stored::MAX_FILE;
use crate::process::InterruptFlag;

/// What is left of a channel's time when one is warned: enough for somebody who is back on Monday.
const CHANNEL_WARNING: Duration = Duration::from_hours(7 * 24);
/// What is left of a root's time when one is warned: root keys lie in safes.
const ROOT_WARNING: Duration = Duration::from_hours(90 * 24);
/// Bytes of the largest object that is read: `payload` makes none of more than 4 MiB.
const MAX_OBJECT: usize = 64 << 20;

/// How much is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VerifyDepth {
    /// Signatures, and every file by its digest.
    Files,
    /// Every root too, put together from its chunks.
    Roots,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FindingLevel {
    /// Machines cannot use it.
    Fault,
    /// Machines can, but somebody should do something.
    Warning,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct VerifyFinding {
    pub(super) level: FindingLevel,
    /// Which part of the repository.
    pub(super) subject: String,
    pub(super) message: String,
}

impl fmt::Display for VerifyFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            FindingLevel::Fault => "FAULT  ",
            FindingLevel::Warning => "warning",
        };
        write!(f, "{level} {}: {}", self.subject, self.message)
    }
}

/// What was looked at, and what was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct VerifyReport {
    pub(super) roots: u64,
    pub(super) channels: Vec<ChannelName>,
    pub(super) releases: BTreeSet<String>,
    pub(super) objects: usize,
    pub(super) bytes: u64,
    pub(super) findings: Vec<VerifyFinding>,
    pub(super) interrupted: bool,
}

impl VerifyReport {
    /// Whether machines can use all of it.
    pub(super) fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.level == FindingLevel::Warning)
    }

    fn add(&mut self, level: FindingLevel, subject: &str, message: impl fmt::Display) {
        self.findings.push(VerifyFinding {
            level,
            subject: subject.to_owned(),
            message: message.to_string(),
        });
    }

    fn report_fault(&mut self, subject: &str, error: &(dyn std::error::Error + 'static)) {
        self.add(FindingLevel::Fault, subject, error_chain(error));
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        let Self { roots, channels, releases, objects, bytes, .. } = self;
        let verdict = if self.is_sound() { "sound" } else { "NOT SOUND" };
        writeln!(
            f,
            "{verdict}: {roots} roots, {} channels, {} releases, {objects} objects of {} MB",
            channels.len(),
            releases.len(),
            bytes / 1_000_000
        )
    }
}

/// Who verifies what, and how deep.
pub(super) struct Verifier<'a> {
    pub(super) repository: &'a Repository,
    pub(super) format: &'a dyn PayloadFormat,
    pub(super) interrupt: &'a InterruptFlag,
    pub(super) depth: VerifyDepth,
    pub(super) now: UnixTime,
}

impl Verifier<'_> {
    /// Verifies all of it.
    pub(super) fn verify_repository(&self) -> VerifyReport {
        let mut report = VerifyReport::default();
        let chain = match RootChain::read(self.repository) {
            Ok(chain) => chain,
            Err(error) => {
                report.report_fault("root", &error);
                return report;
            }
        };
        let root = chain.newest_root().metadata();
        report.roots = root.number;
        self.warn_of_end(&mut report, &format!("root {}", root.number), root.expires, ROOT_WARNING);
        self.check_gap(&mut report, root.number);
        match self.repository.list_channels() {
            Ok(names) => names.iter().for_each(|name| self.verify_one(&mut report, &chain, name)),
            Err(error) => report.report_fault("channel", &error),
        }
        report
    }

    /// A root behind a gap is one that no machine will find.
    fn check_gap(&self, report: &mut VerifyReport, newest: u64) {
        let names = self.repository.list_names("root").unwrap_or_default();
        let beyond =
            names.iter().filter_map(|name| name.parse::<u64>().ok()).filter(|number| *number > newest);
        for number in beyond {
            report.add(
                FindingLevel::Fault,
                &format!("root {number}"),
                format!("root {} is missing before it", newest + 1),
            );
        }
    }

    fn verify_one(&self, report: &mut VerifyReport, chain: &RootChain, name: &ChannelName) {
        let subject = format!("channel {name}");
        report.channels.push(name.clone());
        let envelope = match self.repository.read_bounded(&paths::channel_path(name), MAX_ENVELOPE) {
            Ok(envelope) => envelope.unwrap_or_default(),
            Err(error) => return report.report_fault(&subject, &error),
        };
        let fresh = TrustState::default();
        match verify_channel(&envelope, name, chain.newest_root(), &fresh, self.now) {
            Ok(accepted) => {
                let channel = &accepted.metadata;
                self.warn_of_end(report, &subject, channel.expires, CHANNEL_WARNING);
                for release in &channel.releases {
                    self.verify_release(report, chain, channel, release);
                }
            }
            Err(error) => report.report_fault(&subject, &error),
        }
    }

    fn warn_of_end(&self, report: &mut VerifyReport, subject: &str, expires: UnixTime, before: Duration) {
        if expires < self.now {
            report.add(FindingLevel::Fault, subject, format!("it expired at {expires}"));
        } else if self.now.duration_until(expires) < before {
            report.add(
                FindingLevel::Warning,
                subject,
                format!("it expires at {expires}: sign it anew before"),
            );
        }
    }

    fn verify_release(
        &self,
        report: &mut VerifyReport,
        chain: &RootChain,
        channel: &ChannelMetadata,
        release: &OfferedRelease,
    ) {
        let subject = format!("release {} of channel {}", release.version, channel.channel);
        let Some(manifest) = self.verify_manifest(report, chain, channel, release, &subject) else { return };
        self.read_promised(report, &subject, &paths::sbom_path(&release.version), release.sbom);
        let Some(index) =
            self.read_promised(report, &subject, &paths::index(&release.version), release.index)
        else {
            return;
        };
        // Two channels that offer one release need one proof.
        if !report.releases.insert(format!("{} {}", release.version, release.index.sha256)) {
            return;
        }
        let objects = match self.format.objects(&index) {
            Ok(objects) => objects,
            Err(error) => return report.report_fault(&subject, error.as_ref()),
        };
        // All are looked at, whatever the first ones are: one run names every fault.
        let sound = objects.iter().filter(|object| self.verify_object(report, &subject, object)).count();
        if sound == objects.len() && self.depth == VerifyDepth::Roots {
            let proven = self.format.prove(self.repository.folder(), &manifest, &index);
            proven.unwrap_or_else(|error| report.report_fault(&subject, error.as_ref()));
        }
    }

    fn verify_manifest(
        &self,
        report: &mut VerifyReport,
        chain: &RootChain,
        channel: &ChannelMetadata,
        release: &OfferedRelease,
        subject: &str,
    ) -> Option<Verified<Manifest>> {
        let envelope =
            match self.repository.read_bounded(&paths::manifest_path(&release.version), MAX_ENVELOPE) {
                Ok(envelope) => envelope.unwrap_or_default(),
                Err(error) => {
                    report.report_fault(subject, &error);
                    return None;
                }
            };
        let verified = verify_manifest(&envelope, release, channel, chain.newest_root());
        verified.map_err(|error| report.report_fault(subject, &error)).ok()
    }

    fn read_promised(
        &self,
        report: &mut VerifyReport,
        subject: &str,
        relative: &str,
        promised: FileReference,
    ) -> Option<Vec<u8>> {
        let bytes = match self.repository.read_bounded(relative, MAX_FILE) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                report.add(FindingLevel::Fault, subject, format!("{relative} is missing"));
                return None;
            }
            Err(error) => {
                report.report_fault(subject, &error);
                return None;
            }
        };
        let checked = promised.check_bytes(&bytes);
        checked
            .map_err(|error| report.add(FindingLevel::Fault, subject, format!("{relative}: {error}")))
            .ok()?;
        Some(bytes)
    }

    fn verify_object(&self, report: &mut VerifyReport, subject: &str, object: &PayloadObject) -> bool {
        if self.interrupt.check_interrupted().is_err() {
            if !std::mem::replace(&mut report.interrupted, true) {
                report.add(FindingLevel::Fault, subject, "interrupted: what follows was not looked at");
            }
            return false;
        }
        let fault = match self.repository.read_bounded(&object.path, MAX_OBJECT) {
            Ok(None) => "it is missing".to_owned(),
            Ok(Some(bytes)) => match object.file.check_bytes(&bytes) {
                Ok(()) => {
                    report.objects += 1;
                    report.bytes += object.file.bytes;
                    return true;
                }
                Err(error) => error.to_string(),
            },
            Err(error) => error_chain(&error),
        };
        report.add(FindingLevel::Fault, subject, format!("{}: {fault}", object.path));
        false
    }
}
