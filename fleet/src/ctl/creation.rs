//! Sees to it that units exist before something is done with them.
//!
//! For each name, in order: the unit is in the registry; a unit file lies at the given path; the name is
//! an instance and its template is in the registry; the template lies beside the given path. With
//! `--replace`, a submitted unit that differs from its file is replaced where it runs, if the verb may.

use super::arguments::CreateArguments;
use super::parallel::map_parallel;
use super::session::{CommandError, CommandSession, printable_chain, unit_file, unit_name};
use super::waiting::{WaitLimit, lookup, unit_state};
use crate::api::schema::{self, ApiUnit};
use crate::model::requirements::{UnitRequirements, unknown_keys};
use crate::model::unit_file::{DecodedText, MAX_SIZE, ParseUnitError, UnitFile};
use crate::model::unit_name::UnitName;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The verbs that create units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatingVerb {
    /// `load`
    Load,
    /// `restart`, which never replaces.
    Restart,
    /// `start`
    Start,
    /// `submit`
    Submit,
}

impl CreatingVerb {
    /// The wanted states in which this verb may replace a unit.
    const fn replaceable_states(self) -> &'static [&'static str] {
        match self {
            Self::Load => &["", "inactive", "loaded"],
            Self::Restart => &[],
            Self::Start => &["", "inactive", "loaded", "launched"],
            Self::Submit => &["", "inactive"],
        }
    }

    /// What is wanted of a unit that this verb replaces.
    const fn desired_state(self) -> &'static str {
        match self {
            Self::Load => "loaded",
            Self::Restart | Self::Start => "launched",
            Self::Submit => "inactive",
        }
    }
}

/// What happens to a unit that is there already with another text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateMode {
    /// It stays, and a warning says so.
    KeepExisting,
    /// It is replaced (`--replace`).
    Replace,
}

impl From<CreateArguments> for CreateMode {
    fn from(arguments: CreateArguments) -> Self {
        if arguments.replace { Self::Replace } else { Self::KeepExisting }
    }
}

/// Creates what is missing, and replaces what differs if that is asked for; the names of the replaced.
/// Everything is found and looked at before the first unit is sent.
pub fn ensure_units(
    session: &mut CommandSession<'_>,
    creator: CreatingVerb,
    arguments: &[String],
    mode: CreateMode,
    limit: WaitLimit,
) -> Result<Vec<String>, CommandError> {
    let names: Vec<String> = arguments.iter().map(|argument| unit_name(argument)).collect();
    let known = known_units(session, &names)?;
    let mut templates = BTreeMap::new();
    let (mut created, mut replaced, mut orders) = (Vec::new(), Vec::new(), Vec::new());
    for (argument, name) in arguments.iter().zip(&names) {
        let path = with_suffix(argument);
        match known.get(name) {
            None if created.contains(name) => {}
            None => {
                let file = find_unit_file(session, name, &path, &mut templates)?;
                orders.push(unit_request(session, name, &file, "")?);
                created.push(name.clone());
            }
            Some(unit) if mode == CreateMode::Replace => {
                if let Some(file) = find_replacement(session, creator, unit, &path)? {
                    orders.push(unit_request(session, name, &file, creator.desired_state())?);
                    replaced.push(name.clone());
                }
            }
            Some(unit) => warn_if_different(session, unit, &path),
        }
    }
    let client = &session.client;
    for (unit, outcome) in orders.iter().zip(map_parallel(&orders, |unit| client.put_unit(unit))) {
        outcome.map_err(|error| {
            CommandError::new(format_args!("failed creating unit {}: {}", unit.name, printable_chain(&error)))
        })?;
    }
    let limit = if limit == WaitLimit::None { WaitLimit::Endless } else { limit };
    unit_state::for_creation(session, &created, limit).map_err(|complaint| {
        CommandError::new(format_args!("Error waiting on unit creation: {}", complaint.text))
    })?;
    Ok(replaced)
}

/// The named units that are in the registry.
fn known_units(
    session: &CommandSession<'_>,
    names: &[String],
) -> Result<BTreeMap<String, ApiUnit>, CommandError> {
    let units = lookup::current_units(&session.client, names).map_err(|error| {
        let name = names.first().map_or("", String::as_str);
        CommandError::new(format_args!(
            "error retrieving Unit({name}) from Registry: {}",
            printable_chain(&error)
        ))
    })?;
    Ok(units.into_iter().map(|unit| (unit.name.clone(), unit)).collect())
}

/// The path as typed, with the suffix that the name gets.
fn with_suffix(argument: &str) -> PathBuf {
    let name = unit_name(argument);
    Path::new(argument).with_file_name(name)
}

/// What is sent to create or replace a unit, once it is known to make sense.
fn unit_request(
    session: &mut CommandSession<'_>,
    name: &str,
    file: &UnitFile,
    desired: &str,
) -> Result<ApiUnit, CommandError> {
    let parsed = UnitName::parse(name).map_err(CommandError::new)?;
    UnitRequirements::of_unit(&parsed, file).check_rules().map_err(CommandError::new)?;
    for key in unknown_keys(file) {
        session.print_warning(format_args!(
            "Unit {name}: unrecognized requirement in [X-Fleet] section: {key:?}"
        ));
    }
    Ok(ApiUnit {
        name: name.to_owned(),
        desired_state: desired.to_owned(),
        options: file.options().iter().map(schema::UnitOption::from).collect(),
        ..ApiUnit::default()
    })
}

/// The file a new unit gets.
fn find_unit_file(
    session: &mut CommandSession<'_>,
    name: &str,
    path: &Path,
    templates: &mut BTreeMap<UnitName, Option<ApiUnit>>,
) -> Result<UnitFile, CommandError> {
    let shown = path.display();
    if let Some(file) = read_local(path)
        .map_err(|error| CommandError::new(format_args!("failed getting Unit({shown}) from file: {error}")))?
    {
        return Ok(accept_file(session, file));
    }
    let template = UnitName::parse(name).ok().filter(UnitName::is_instance).and_then(|name| name.template());
    let Some(template) = template else {
        return Err(CommandError::new(format_args!(
            "unable to find Unit({name}) in Registry or on filesystem"
        )));
    };
    let from_template = |cause: String| {
        CommandError::new(format_args!("failed getting Unit({shown}) from template: {cause}"))
    };
    if !templates.contains_key(&template) {
        let submitted = session.client.find_unit(template.as_str()).map_err(|error| {
            from_template(format!(
                "error retrieving template Unit({template}) from Registry: {}",
                printable_chain(&error)
            ))
        })?;
        templates.insert(template.clone(), submitted);
    }
    if let Some(Some(unit)) = templates.get(&template) {
        warn_if_different(session, unit, path);
        return unit_file(unit);
    }
    let beside = path.with_file_name(template.as_str());
    match read_local(&beside) {
        Ok(Some(file)) => Ok(accept_file(session, file)),
        Ok(None) => Err(from_template(format!(
            "unable to find template Unit({template}) in Registry or on filesystem"
        ))),
        Err(error) => {
            Err(from_template(format!("unable to load template Unit({template}) from file: {error}")))
        }
    }
}

/// The file, with a warning if its text is not what its author wrote.
fn accept_file(session: &mut CommandSession<'_>, local: LocalFile) -> UnitFile {
    if let Some(foreign) = local.foreign {
        session.print_warning(foreign);
    }
    local.file
}

/// What a submitted unit is to be replaced by, if it differs and the verb may.
fn find_replacement(
    session: &mut CommandSession<'_>,
    creator: CreatingVerb,
    unit: &ApiUnit,
    path: &Path,
) -> Result<Option<UnitFile>, CommandError> {
    let missing = || format!("open {}: no such file or directory", path.display());
    let (_, local) = local_candidate(unit, path)
        .map_err(CommandError::new)?
        .ok_or_else(|| CommandError::new(missing()))?;
    let name = &unit.name;
    if local.file.canonical_text() == unit_file(unit)?.canonical_text() {
        session.print_line(format_args!("Found same Unit({name}) in Registry, nothing to do"))?;
        return Ok(None);
    }
    if !creator.replaceable_states().contains(&unit.desired_state.as_str()) {
        let state = &unit.desired_state;
        session.print_warning(format_args!(
            "Warning: can not replace Unit({name}) in state '{state}', use the appropriate command"
        ));
        return Ok(None);
    }
    Ok(Some(accept_file(session, local)))
}

fn warn_if_different(session: &mut CommandSession<'_>, unit: &ApiUnit, path: &Path) {
    let (Ok(Some((kind, local))), Ok(submitted)) = (local_candidate(unit, path), unit_file(unit)) else {
        return;
    };
    if local.file.canonical_text() != submitted.canonical_text() {
        session.print_warning(format_args!(
            "WARNING: Unit {} in registry differs from local {} {}. Add --replace to override.",
            unit.name,
            kind.place_word(),
            path.display()
        ));
    }
}

/// Where a unit's text was found on this machine.
#[derive(Clone, Copy)]
enum FoundAt {
    File,
    Template,
}

impl FoundAt {
    const fn place_word(self) -> &'static str {
        match self {
            Self::File => "unit file",
            Self::Template => "template unit file",
        }
    }
}

/// The local text that belongs to a submitted unit: at the path, or the template beside it.
fn local_candidate(unit: &ApiUnit, path: &Path) -> io::Result<Option<(FoundAt, LocalFile)>> {
    if let Some(file) = read_local(path)? {
        return Ok(Some((FoundAt::File, file)));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(&unit.name);
    let template = UnitName::parse(name).ok().filter(UnitName::is_instance).and_then(|name| name.template());
    let Some(template) = template else { return Ok(None) };
    let beside = path.with_file_name(template.as_str());
    Ok(read_local(&beside)?.map(|file| (FoundAt::Template, file)))
}

/// A unit file of this machine, and what is to be said about its bytes.
#[derive(Debug)]
pub struct LocalFile {
    /// The file.
    pub file: UnitFile,
    /// Where its text is not what its author wrote.
    pub foreign: Option<String>,
}

/// Reads a unit file, if there is one. Its size is bounded before it is parsed.
pub fn read_local(path: &Path) -> io::Result<Option<LocalFile>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_SIZE).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    // A pipe has no size to speak of; what was read of it is more than there may be.
    let size = usize::try_from(size).unwrap_or(usize::MAX).max(bytes.len());
    if bytes.len() > MAX_SIZE {
        return Err(io::Error::other(ParseUnitError::TooLarge(size)));
    }
    let decoded = DecodedText::decode_bytes(&bytes);
    let foreign = decoded.first_foreign.map(|(line, column, byte)| {
        format!(
            "WARNING: {}, line {line}, column {column}: byte 0x{byte:02x} is no UTF-8; it is stored as U+FFFD. Save the \
             file as UTF-8 to keep the character.",
            path.display()
        )
    });
    let file = UnitFile::parse(&decoded.text).map_err(io::Error::other)?;
    Ok(Some(LocalFile { file, foreign }))
}
