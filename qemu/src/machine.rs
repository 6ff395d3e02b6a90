//! A machine that is off: it owns its folder (keys, firmware variables, logs) and can be switched on.
//!
//! Switching on consumes the [`Machine`] and gives a [`RunningMachine`]; switching off gives it back. Knows how
//! QEMU is started and how a start fails. Invariant: while a [`Machine`] exists nothing writes to its disk.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::acceleration::Acceleration;
use crate::arguments::{self, CONSOLE_LOG, CONSOLE_SOCKET, FRAME_SOCKET, QMP_SOCKET};
use crate::console::Console;
use crate::description::{DESCRIPTION, MachineDescription, WRITE_LOG};
use crate::disk::{DiskEditor, DiskError, MachineDisk};
use crate::firmware::Firmware;
use crate::process::OwnedChild;
use crate::qmp::{self, QmpError};
use crate::running::RunningMachine;
use crate::ssh::{ForwardedPorts, SshAccess};

const QEMU_LOG: &str = "qemu.log";

/// A machine that is off.
#[derive(Debug)]
pub struct Machine {
    pub(crate) folder: MachineFolder,
    pub(crate) description: MachineDescription,
}

/// Why a machine could not be switched on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum StartError {
    #[error("cannot prepare {path}")]
    Prepare { path: PathBuf, source: io::Error },
    #[error("cannot run qemu-system-x86_64; install it with: apt-get install qemu-system-x86")]
    NoQemu(#[source] io::Error),
    #[error("QEMU ended at once ({status}): {message}")]
    Ended { status: ExitStatus, message: String },
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Qmp(#[from] QmpError),
}

/// A machine's description that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the machine's description {path}")]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// Where a machine's things are, and for how long.
#[derive(Debug)]
pub(crate) enum MachineFolder {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl MachineFolder {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

impl Machine {
    /// The machine that an earlier process made in `folder`. The caller knows that it is off.
    pub fn open_folder(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(DESCRIPTION);
        let description = MachineDescription::read(&path).map_err(|source| OpenError { path, source })?;
        Ok(Self { description, folder: MachineFolder::Kept(folder.into()) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// Its firmware.
    #[must_use]
    pub fn firmware(&self) -> Firmware {
        self.description.options.hardware.firmware
    }

    /// What runs its instructions.
    #[must_use]
    pub fn acceleration(&self) -> Acceleration {
        self.description.acceleration
    }

    /// Why it is that.
    #[must_use]
    pub fn acceleration_reason(&self) -> &str {
        &self.description.because
    }

    /// Where all of it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its disk's file.
    #[must_use]
    pub fn disk_path(&self) -> &Path {
        self.description.disk.path()
    }

    /// Its raw disk, for edits.
    pub fn edit_disk(&self) -> Result<DiskEditor, DiskError> {
        DiskEditor::open_disk(self.disk_path())
    }

    /// The record of its writes, if one was asked for.
    #[must_use]
    pub fn write_log(&self) -> Option<PathBuf> {
        self.description.options.log_writes.then(|| self.folder().join(WRITE_LOG))
    }

    /// QEMU's arguments, to show them.
    #[must_use]
    pub fn qemu_arguments(&self) -> Vec<OsString> {
        arguments::qemu_arguments(&self.description.to_hardware())
    }

    /// The way in, when these ports of this host lead into the guest.
    #[must_use]
    pub fn ssh_through(&self, ports: ForwardedPorts) -> SshAccess {
        SshAccess {
            user: self.description.user.clone(),
            ports,
            key: self.description.key.clone(),
            known_hosts: self.folder().join("known_hosts"),
        }
    }

    /// Switches it on.
    pub fn start_machine(self) -> Result<RunningMachine, StartError> {
        self.prepare_start()?;
        let console = Console::start_reading(&self.folder().join(CONSOLE_LOG));
        let since = Instant::now();
        let mut child = OwnedChild::start_command(self.qemu_command()?).map_err(StartError::NoQemu)?;
        let connected = qmp::connect_soon(self.folder(), Duration::from_mins(1), || {
            child.try_wait().is_ok_and(|status| status.is_some())
        });
        let ports = match connected.and_then(|mut qmp| qmp.forwarded_ports()) {
            Ok(ports) => ports,
            Err(error) => return Err(self.failed_start(&mut child, error)),
        };
        Ok(RunningMachine::new(self, child, console, ports, since))
    }

    /// QEMU opens its control socket before it has read all its arguments, so a broken conversation often
    /// means that it is about to end.
    fn failed_start(&self, child: &mut OwnedChild, error: QmpError) -> StartError {
        // Two seconds: it ends as soon as it comes to the argument that it does not like.
        match child.wait_within(Duration::from_secs(2)) {
            Ok(Some(status)) => StartError::Ended { status, message: self.qemu_log() },
            _ => error.into(),
        }
    }

    fn prepare_start(&self) -> Result<(), StartError> {
        if let MachineDisk::Overlay(_, image) = &self.description.disk {
            // A mixture of two builds fails in the guest, as a panic of dm-verity that explains nothing.
            image.check_unchanged()?;
        }
        for socket in [QMP_SOCKET, CONSOLE_SOCKET, FRAME_SOCKET] {
            let path = self.folder().join(socket);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StartError::Prepare { path, source });
                }
                _ => {}
            }
        }
        // QEMU opens the record but does not create it.
        if let Some(path) = self.write_log() {
            File::create(&path).map_err(|source| StartError::Prepare { path, source })?;
        }
        Ok(())
    }

    fn qemu_command(&self) -> Result<Command, StartError> {
        let path = self.folder().join(QEMU_LOG);
        let log = || {
            let log = File::create(&path)?;
            Ok((log.try_clone()?, log))
        };
        let (stdout, stderr) = log().map_err(|source| StartError::Prepare { path: path.clone(), source })?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args(self.qemu_arguments()).current_dir(self.folder());
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        Ok(command)
    }

    /// What QEMU itself had to say.
    pub(crate) fn qemu_log(&self) -> String {
        let log = fs::read(self.folder().join(QEMU_LOG)).unwrap_or_default();
        String::from_utf8_lossy(&log).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceleration::AccelerationChoice;

    #[test]
    fn a_machine_can_be_opened_again_from_its_folder() {
        if !crate::process::tests::can_run("ssh-keygen") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web");
        let disk = MachineDisk::Raw(folder.path().join("disk.raw"));
        let built = Machine::builder(disk)
            .name("web")
            .folder(&path)
            .acceleration(AccelerationChoice::Tcg)
            .build()
            .unwrap();

        let opened = Machine::open_folder(&path).unwrap();

        assert_eq!(built.qemu_arguments(), opened.qemu_arguments());
        assert_eq!(opened.name(), "web");
    }
}
