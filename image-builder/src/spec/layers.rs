//! Reads a spec and the specs it includes, and gathers every complaint before it gives up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use document::caret::{self, Excerpts};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics, Severity};
use document::source::SourceTexts;
use document::yaml::{self, Node};

use super::ImageSpec;
use super::check::{self, SpecLayer};

/// Includes deeper than this are taken for a circle.
const DEEPEST: usize = 8;

/// Reads a spec file.
pub(crate) fn read(path: &Path) -> Result<ImageSpec, SpecError> {
    read_by(|path| fs::read_to_string(path), path)
}

/// Checks a spec that stands alone.
pub(crate) fn check_text(text: &str) -> Result<ImageSpec, SpecError> {
    const NAME: &str = "spec.yaml";
    let open = |path: &Path| {
        if path == Path::new(NAME) { Ok(text.to_owned()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    read_by(open, Path::new(NAME))
}

fn read_by(open: impl Fn(&Path) -> io::Result<String>, path: &Path) -> Result<ImageSpec, SpecError> {
    let mut reading = LayerReader {
        open,
        sources: SourceTexts::default(),
        layers: Vec::new(),
        found: Diagnostics::default(),
    };
    reading.file(path, 0)?;
    let LayerReader { sources, layers, mut found, .. } = reading;
    match check::check_layers(&layers, &mut found) {
        Some(spec) if found.worst_severity() < Some(Severity::Error) => Ok(spec),
        _ => {
            found.sort_by_place();
            let report = caret::render_diagnostics(&found, &sources, Excerpts::Shown);
            Err(SpecError::Invalid { path: path.to_owned(), report })
        }
    }
}

/// The files read so far, the included ones first.
struct LayerReader<Open> {
    open: Open,
    sources: SourceTexts,
    layers: Vec<SpecLayer>,
    found: Diagnostics,
}

impl<Open: Fn(&Path) -> io::Result<String>> LayerReader<Open> {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), SpecError> {
        let text = (self.open)(path).map_err(|source| SpecError::Read { path: path.to_owned(), source })?;
        let part = self.sources.add(path.display().to_string(), text.clone());
        let Some(root) = yaml::parse_yaml(&text, part, &mut self.found) else { return Ok(()) };
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        if let Some((included, node)) = check::included_file(&root) {
            if depth == DEEPEST {
                let message =
                    format!("`include` goes deeper than {DEEPEST} files; do they include each other?");
                self.found.push(Diagnostic::error(DiagnosticCode::LimitExceeded, node.at, message));
            } else {
                self.included(&folder.join(included), node, depth)?;
            }
        }
        // After what it includes: the later layer wins.
        self.layers.push(SpecLayer { root, folder });
        Ok(())
    }

    fn included(&mut self, path: &Path, node: &Node, depth: usize) -> Result<(), SpecError> {
        match self.file(path, depth + 1) {
            Err(SpecError::Read { source, .. }) => {
                let message = format!("cannot read the included {}: {source}", path.display());
                self.found.push(Diagnostic::error(DiagnosticCode::BadValue, node.at, message));
                Ok(())
            }
            other => other,
        }
    }
}

/// Why a spec is no spec.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("cannot read the spec {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{report}\ncannot use the spec {path}: nothing was built")]
    Invalid { path: PathBuf, report: String },
}
