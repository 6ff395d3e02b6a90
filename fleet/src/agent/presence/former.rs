//! The registration that an earlier process of this machine left, in a file that lasts until a reboot.
//!
//! Knows which lease it was, of which machine, and in which tree of etcd. A lease alone would not do: who
//! changes the machine ID or the prefix would keep the old name alive by renewing the old lease, and that
//! ghost would be given units. Refuses to talk to the store.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{agent::replace_file, model::machine::MachineId, store::revision::LeaseId};

/// A registration as the file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerRegistration {
    /// The lease by which it lives.
    pub lease: LeaseId,
    /// Which machine it is of.
    pub machine: MachineId,
    /// The prefix of the keys it is in.
    pub prefix: String,
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseFile {
    /// Nothing that can be read: as if the machine was never registered in this boot.
    Empty,
    /// A registration.
    Named(FormerRegistration),
    /// A number and no name, as the file was before it held names.
    Unnamed(LeaseId),
}

impl LeaseFile {
    /// Reads the file.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        // One that is missing or unreadable costs a restart that the cluster notices, nothing worse.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        match (serde_json::from_str(&text), text.trim().parse().map(LeaseId)) {
            (Ok(former), _) => Self::Named(former),
            (_, Ok(lease)) => Self::Unnamed(lease),
            _ => Self::Empty,
        }
    }

    /// The registration of another machine ID or prefix, which nobody wants any more.
    #[must_use]
    pub fn of_another(self, machine: &MachineId, prefix: &str) -> Option<FormerRegistration> {
        match self {
            Self::Named(former) if former.machine != *machine || former.prefix != prefix => Some(former),
            _ => None,
        }
    }

    /// The lease of this machine in this tree, as far as the file knows.
    #[must_use]
    pub fn lease_of(&self, machine: &MachineId, prefix: &str) -> Option<LeaseId> {
        match self {
            Self::Named(former) if former.machine == *machine && former.prefix == prefix => {
                Some(former.lease)
            }
            // The store decides whether that lease is ours: see `Condition::LivesBy`.
            Self::Unnamed(lease) => Some(*lease).filter(|lease| *lease != LeaseId::NONE),
            _ => None,
        }
    }
}

impl FormerRegistration {
    /// Writes the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        replace_file(path, &serde_json::to_vec(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: &str) -> MachineId {
        MachineId::parse(id).unwrap()
    }

    #[test]
    fn a_registration_is_read_back_by_the_machine_that_left_it_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let former = FormerRegistration { lease: LeaseId(7), machine: machine("m1"), prefix: "/a/".into() };

        former.write(&path).unwrap();

        let file = LeaseFile::read(&path);
        assert_eq!(file.lease_of(&machine("m1"), "/a/"), Some(LeaseId(7)));
        for (id, prefix) in [("m2", "/a/"), ("m1", "/b/")] {
            assert_eq!(file.lease_of(&machine(id), prefix), None);
            assert_eq!(file.clone().of_another(&machine(id), prefix), Some(former.clone()));
        }
        assert_eq!(file.of_another(&machine("m1"), "/a/"), None);
    }

    #[test]
    fn the_file_of_an_older_fleetd_names_a_lease() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        std::fs::write(&path, "-12\n").unwrap();

        assert_eq!(LeaseFile::read(&path), LeaseFile::Unnamed(LeaseId(-12)));
    }

    #[test]
    fn a_broken_file_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        assert_eq!(LeaseFile::read(&path), LeaseFile::Empty);
        for text in ["", "{", "x", "{\"lease\":1}"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(LeaseFile::read(&path), LeaseFile::Empty, "{text}");
        }
    }
}
