//! Users, groups and passwords: all of a plan's in one change of the machine's own files.
//!
//! Knows what becomes of a user that is there. Refuses to hash: a password in plain text goes to
//! chpasswd, by stdin. Invariants: doing it twice is doing it once; a user that exists loses nothing; a
//! wish that cannot be met costs the others nothing.
//!
//! Documentation: chpasswd(8), crypt(5).

use std::collections::HashSet;
use std::fs;
use std::io::Read;

use user_data::plan::PlannedStep;
use user_data::plan::step::{GroupStep, Password, PlanStep, UserStep};

use super::{ApplyContext, closing};
use crate::accounts::AccountDatabase;
use crate::files::FileChange;
use crate::home;
use crate::programs::ProgramCall;
use crate::step_error::StepError;
use crate::step_result::StepResult;

/// As long as nobody guesses.
// cloud-init's length. Of 57 letters these are 116 bits.
const RANDOM_LENGTH: usize = 20;
// Without l, I, O, 0 and 1, since it is read from a console and typed. cloud-init leaves such letters out,
// too.
const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

type EditResult = Result<FileChange, StepError>;

/// Does the steps of accounts among neighbours: first what is in the files, then what needs the users.
pub(crate) fn carry_out(
    batch: &[PlannedStep],
    host: &ApplyContext<'_>,
    other: impl Fn(&PlannedStep, &ApplyContext<'_>) -> StepResult,
) -> Vec<StepResult> {
    let steps: Vec<&PlanStep> = batch.iter().map(|planned| &planned.step).collect();
    let recorded = record_edits(&steps, host);
    let mut fates = Vec::with_capacity(batch.len());
    for (planned, recorded) in batch.iter().zip(recorded) {
        fates.push(match recorded {
            Some(recorded) => StepResult::from_result(recorded.finish_edit(&planned.step, host)),
            None => other(planned, host),
        });
    }
    fates
}

/// One such step alone.
pub(crate) fn run_account_step(step: &PlanStep, host: &ApplyContext<'_>) -> EditResult {
    record_edits(&[step], host)
        .pop()
        .flatten()
        .map_or(Ok(FileChange::None), |recorded| recorded.finish_edit(step, host))
}

/// What a step changed in the files.
struct RecordedEdit {
    fate: EditResult,
    /// Whether something is left that needs the files as they are now.
    is_open: bool,
}

impl RecordedEdit {
    fn complete_edit(fate: EditResult) -> Self {
        Self { fate, is_open: false }
    }

    fn partial_edit(fate: EditResult) -> Self {
        Self { fate, is_open: true }
    }

    fn finish_edit(self, step: &PlanStep, host: &ApplyContext<'_>) -> EditResult {
        if self.is_open { complete_step(step, self.fate?, host) } else { self.fate }
    }
}

/// What the steps change in the files, written at once; `None` for a step that changes nothing there.
fn record_edits(steps: &[&PlanStep], host: &ApplyContext<'_>) -> Vec<Option<RecordedEdit>> {
    let concerned = |step: &&PlanStep| {
        matches!(step, PlanStep::CreateGroup(_) | PlanStep::CreateUser(_) | PlanStep::SetPassword { .. })
    };
    if !steps.iter().any(concerned) {
        return steps.iter().map(|_| None).collect();
    }
    let failed = |error: &StepError| {
        let said = error.error_chain();
        let fate =
            |step| concerned(step).then(|| RecordedEdit::complete_edit(Err(StepError::Said(said.clone()))));
        steps.iter().map(fate).collect()
    };
    let mut database = match AccountDatabase::open_locked(host.root) {
        Ok(database) => database,
        Err(error) => return failed(&error),
    };
    // Whose password chpasswd will set; what comes after it in the plan comes after it here.
    let mut later = HashSet::new();
    let fates = steps.iter().map(|step| edit_database(step, &mut database, &mut later)).collect();
    match database.write() {
        Ok(()) => fates,
        Err(error) => failed(&error),
    }
}

fn edit_database<'a>(
    step: &'a PlanStep,
    database: &mut AccountDatabase,
    later: &mut HashSet<&'a str>,
) -> Option<RecordedEdit> {
    match step {
        PlanStep::CreateGroup(group) => Some(RecordedEdit::complete_edit(edit_group(group, database))),
        PlanStep::CreateUser(user) => {
            if matches!(user.password, Some(Password::Plain(_) | Password::Random)) {
                later.insert(&user.name);
            }
            Some(RecordedEdit::partial_edit(edit_user(user, database)))
        }
        // A hash goes straight into the file. To hand it to `chpasswd --encrypted` would be one more program
        // for each user.
        PlanStep::SetPassword { user, password: Password::Hash(hash), expire }
            if !later.contains(user.as_str()) =>
        {
            Some(RecordedEdit::complete_edit(edit_password(user, hash.reveal(), *expire, database)))
        }
        PlanStep::SetPassword { user, .. } => {
            later.insert(user);
            Some(RecordedEdit::partial_edit(Ok(FileChange::None)))
        }
        _ => None,
    }
}

fn change_from(is_new: bool) -> FileChange {
    if is_new { FileChange::Made } else { FileChange::None }
}

fn edit_group(group: &GroupStep, database: &mut AccountDatabase) -> EditResult {
    let mut change = FileChange::None;
    if database.find_group(&group.name).is_none() {
        database.add_group(group)?;
        change = FileChange::Made;
    }
    for member in &group.members {
        change = change.combine_with(change_from(database.add_to_group(member, &group.name)?));
    }
    Ok(change)
}

fn edit_user(user: &UserStep, database: &mut AccountDatabase) -> EditResult {
    let is_new = database.find_user(&user.name).is_none();
    let mut change = change_from(is_new);
    if is_new {
        database.add_user(user)?;
    }
    // The others are told at the end: useradd makes no user at all if one group is missing, and so nobody
    // would get in.
    for group in user.groups.iter().filter(|group| database.find_group(group).is_some()).collect::<Vec<_>>() {
        change = change.combine_with(change_from(database.add_to_group(&user.name, group)?));
    }
    match &user.password {
        Some(Password::Hash(hash)) => {
            change = change.combine_with(change_from(database.set_password(&user.name, hash.reveal())?));
        }
        // It is locked after it was set.
        Some(Password::Plain(_) | Password::Random) => return Ok(change),
        None => {}
    }
    // A new user has no password that could be locked.
    if let Some(lock) = user.lock.filter(|lock| !(is_new && *lock && user.password.is_none())) {
        change = change.combine_with(change_from(database.set_lock(&user.name, lock)?));
    }
    Ok(change)
}

fn edit_password(user: &str, hash: &str, expire: bool, database: &mut AccountDatabase) -> EditResult {
    let change = change_from(database.set_password(user, hash)?);
    Ok(if expire { change.combine_with(change_from(database.expire_password(user)?)) } else { change })
}

/// What is left to do once the user is in the files.
fn complete_step(step: &PlanStep, change: FileChange, host: &ApplyContext<'_>) -> EditResult {
    match step {
        PlanStep::CreateUser(user) => complete_user(user, change, host),
        PlanStep::SetPassword { user, password, expire } => {
            let set = set_password(user, password, host)?;
            let and = if *expire {
                apply_edit(host, |database| Ok(database.expire_password(user)?))?
            } else {
                FileChange::None
            };
            Ok(change.combine_with(set).combine_with(and))
        }
        _ => Ok(change),
    }
}

fn complete_user(user: &UserStep, change: FileChange, host: &ApplyContext<'_>) -> EditResult {
    let mut change = change;
    if let (FileChange::Made, false) = (change, user.no_create_home)
        && let Some(login) = crate::accounts::find_user(host.root, &user.name)
    {
        home::make_home(host.root, &login)?;
    }
    if let Some(password @ (Password::Plain(_) | Password::Random)) = &user.password {
        change = change.combine_with(set_password(&user.name, password, host)?);
        if let Some(lock) = user.lock {
            change =
                change.combine_with(apply_edit(host, |database| Ok(database.set_lock(&user.name, lock)?))?);
        }
    }
    missing_groups(user, host)?;
    Ok(change)
}

/// One more change of the files.
fn apply_edit(
    host: &ApplyContext<'_>,
    edit: impl Fn(&mut AccountDatabase) -> Result<bool, StepError>,
) -> EditResult {
    let mut database = AccountDatabase::open_locked(host.root)?;
    let is_new = edit(&mut database)?;
    database.write()?;
    Ok(change_from(is_new))
}

/// A group that is not there is told, but the user is made.
fn missing_groups(user: &UserStep, host: &ApplyContext<'_>) -> Result<(), StepError> {
    let missing = |group: &&String| crate::accounts::find_group(host.root, group).is_none();
    let missing: Vec<&str> = user.groups.iter().filter(missing).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(", ");
    Err(StepError::Said(format!("the user was made, but some of its groups ({names}) are not there")))
}

fn set_password(user: &str, password: &Password, host: &ApplyContext<'_>) -> EditResult {
    let text = match password {
        Password::Hash(hash) => {
            return apply_edit(host, |database| Ok(database.set_password(user, hash.reveal())?));
        }
        Password::Plain(text) => text.reveal().clone(),
        Password::Random => random_password(host)?,
    };
    host.programs
        // chpasswd(8) hashes as this image's PAM is set up. A hash of ours would be a second place that says
        // how. Its stdin, since all users can read arguments in /proc.
        .run_program(&ProgramCall::new("chpasswd", [""; 0]).with_input(format!("{user}:{text}\n")))?;
    if matches!(password, Password::Random) {
        // The console is the one place where only the owner of the machine reads.
        closing::say_on_console(&format!("the password of {user} is {text}\n"), host)?;
    }
    Ok(FileChange::Made)
}

fn random_password(host: &ApplyContext<'_>) -> Result<String, StepError> {
    // random(4): reading this never blocks, so a machine without entropy still boots.
    let path = host.root.path_of("/dev/urandom");
    let mut bytes = [0_u8; RANDOM_LENGTH];
    let read = fs::File::open(&path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| StepError::Read { path, source })?;
    // 256 is no multiple of 57, so some letters come a little more often. It costs two bits of 116.
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect())
}
