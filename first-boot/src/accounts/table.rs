//! One file of accounts in memory: lines of fields between colons, the first of them a name.
//!
//! Knows lines and where each name's is. Refuses a field that would end a field or a line. Invariant:
//! a line that nobody changed is written as it was read, comments and damaged ones included.
//!
//! Documentation: passwd(5), shadow(5), group(5), gshadow(5), subuid(5).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::edit_error::EditError;
use crate::files::{self, FileRights};
use crate::root::MachineRoot;
use crate::step_error::StepError;

/// A file. It holds hashes of passwords, so it cannot be printed.
pub(super) struct ColonTable {
    path: PathBuf,
    /// `None` if the machine does without this file.
    rights: Option<FileRights>,
    lines: Vec<String>,
    places: HashMap<String, usize>,
    is_changed: bool,
}

impl ColonTable {
    /// Reads a file.
    pub(super) fn read(root: &MachineRoot, path: &str) -> Result<Self, StepError> {
        let path = root.path_of(path);
        let failed = |source| StepError::Read { path: path.clone(), source };
        let rights = match fs::metadata(&path) {
            Ok(meta) => Some(FileRights { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() & 0o7777 }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let text = if rights.is_some() { fs::read_to_string(&path).map_err(failed)? } else { String::new() };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut places = HashMap::with_capacity(lines.len());
        for (place, line) in lines.iter().enumerate() {
            // Of two lines with a name, the first one counts for everybody who reads them.
            places.entry(name_of(line).to_owned()).or_insert(place);
        }
        Ok(Self { path, rights, lines, places, is_changed: false })
    }

    /// The fields of a name's line.
    pub(super) fn fields_of(&self, name: &str) -> Option<Vec<&str>> {
        Some(self.lines[*self.places.get(name)?].split(':').collect())
    }

    /// All lines, as fields.
    pub(super) fn rows(&self) -> impl Iterator<Item = Vec<&str>> {
        self.lines.iter().map(|line| line.split(':').collect())
    }

    /// Sets a name's line, in its place or at the end; a file that is not there stays away.
    pub(super) fn set_line(&mut self, fields: &[&str]) -> Result<(), EditError> {
        // These files have no escapes, so a field with a colon would be two and could make a second root.
        if let Some(bad) = fields.iter().find(|field| field.contains([':', '\n', '\r', '\0'])) {
            // It may be a password's hash.
            return Err(EditError::Field { length: bad.len() });
        }
        if self.rights.is_none() {
            return Ok(());
        }
        let line = fields.join(":");
        match self.places.get(fields[0]) {
            Some(place) if self.lines[*place] == line => return Ok(()),
            Some(place) => self.lines[*place] = line,
            None => {
                self.places.insert(fields[0].to_owned(), self.lines.len());
                self.lines.push(line);
            }
        }
        self.is_changed = true;
        Ok(())
    }

    /// Brings the file onto the disk, whole, with the owner and the mode that it has.
    pub(super) fn write(&mut self) -> Result<(), StepError> {
        let Some(rights) = self.rights.filter(|_| self.is_changed) else { return Ok(()) };
        let mut text = String::with_capacity(self.lines.iter().map(|line| line.len() + 1).sum());
        self.lines.iter().for_each(|line| text.extend([line.as_str(), "\n"]));
        // Rename and fsync: a half-written passwd is a machine that nobody can log in to.
        files::write_durably(&self.path, text.as_bytes(), rights)?;
        self.is_changed = false;
        Ok(())
    }
}

fn name_of(line: &str) -> &str {
    line.split(':').next().unwrap_or_default()
}
