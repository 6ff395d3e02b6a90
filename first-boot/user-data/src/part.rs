//! One part of what was handed over, unpacked.

use crate::ignition::reference::Resolved;
use crate::payload::{self, PayloadKind};
use document::diagnostic::Diagnostic;

/// Bytes of one format, as a container held them or as they came.
#[derive(Clone, PartialEq, Eq)]
pub struct PayloadPart {
    /// What people call it: `user-data`, `user-data part 2 (web.yaml)`.
    pub name: String,
    /// The bytes.
    pub content: Vec<u8>,
    /// The line of the file that people edit on which it begins.
    pub first_line: u32,
    /// What its container says it is, where that cannot be seen from the bytes.
    pub kind: Option<PayloadKind>,
    /// For which of several machines that were started together its container says it is.
    pub launch_index: Option<u32>,
    /// How its container says it is merged.
    pub merge_how: Option<String>,
    /// What went wrong when it was unpacked; the places are those of the whole part.
    pub flaws: Vec<Diagnostic>,
    /// An Ignition configuration with what it refers to; `None` if it refers to nothing.
    pub resolved: Option<Box<Resolved>>,
}

impl PayloadPart {
    /// A payload that came without a container.
    pub fn whole(name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            content: content.into(),
            first_line: 1,
            kind: None,
            launch_index: None,
            merge_how: None,
            flaws: Vec::new(),
            resolved: None,
        }
    }

    /// What it is: by its bytes, else by what its container says. How often a script runs, and that a text is a
    /// template, only the container knows.
    #[must_use]
    pub fn payload_kind(&self) -> PayloadKind {
        match (payload::detect_kind(&self.content), self.kind) {
            (PayloadKind::Unknown, Some(told))
            | (
                PayloadKind::Script,
                Some(
                    told @ (PayloadKind::Boothook | PayloadKind::ScriptPerBoot | PayloadKind::ScriptPerOnce),
                ),
            ) => told,
            (
                PayloadKind::CloudConfig | PayloadKind::Script | PayloadKind::Boothook,
                Some(PayloadKind::Jinja),
            ) => PayloadKind::Jinja,
            (seen, _) => seen,
        }
    }
}

/// Says only name and size: the content may hold secrets.
impl std::fmt::Debug for PayloadPart {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Part({}, {} bytes)", self.name, self.content.len())
    }
}
