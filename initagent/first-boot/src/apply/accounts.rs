//! Users, groups and passwords: all of a plan's in one change of the machine's own files.
//!
//! Knows what becomes of a user that is there. Refuses to hash: a password in plain text goes to
//! chpasswd, by stdin. Invariants: doing it twice is doing it once; a user that exists loses nothing; a
//! wish that can't be met costs the others nothing.

use std::collections::HashSet;
use std::fs;
use std::io::Read;

use user_data::plan::PlannedStep;
use user_data::plan::step::{GroupStep, Password, PlanStep, UserStep};

use super::{Done, Host, closing};
use crate::accounts::Database;
use crate::files::Change;
use crate::home;
use crate::programs::Call;
use crate::step_error::StepError;

/// As long as nobody guesses.
const RANDOM_LENGTH: usize = 20;
const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

type Fate = Result<Change, StepError>;

/// Does the steps of accounts among neighbours: first what is in the files, then what needs the users.
pub(crate) fn carry_out(
    batch: &[PlannedStep],
    host: &Host<'_>,
    other: impl Fn(&PlannedStep, &Host<'_>) -> Done,
) -> Vec<Done> {
    let steps: Vec<&PlanStep> = batch.iter().map(|planned| &planned.step).collect();
    let recorded = record(&steps, host);
    let mut fates = Vec::with_capacity(batch.len());
    for (planned, recorded) in batch.iter().zip(recorded) {
        fates.push(match recorded {
            Some(recorded) => Done::of(recorded.completed(&planned.step, host)),
            None => other(planned, host),
        });
    }
    fates
}

/// One such step alone.
pub(crate) fn one(step: &PlanStep, host: &Host<'_>) -> Fate {
    record(&[step], host).pop().flatten().map_or(Ok(Change::None), |recorded| recorded.completed(step, host))
}

/// What a step changed in the files.
struct Recorded {
    fate: Fate,
    /// Whether something is left that needs the files as they are now.
    is_open: bool,
}

impl Recorded {
    fn whole(fate: Fate) -> Self {
        Self { fate, is_open: false }
    }

    fn open(fate: Fate) -> Self {
        Self { fate, is_open: true }
    }

    fn completed(self, step: &PlanStep, host: &Host<'_>) -> Fate {
        if self.is_open { complete(step, self.fate?, host) } else { self.fate }
    }
}

/// What the steps change in the files, written at once; `None` for a step that changes nothing there.
fn record(steps: &[&PlanStep], host: &Host<'_>) -> Vec<Option<Recorded>> {
    let concerned = |step: &&PlanStep| {
        matches!(step, PlanStep::CreateGroup(_) | PlanStep::CreateUser(_) | PlanStep::SetPassword { .. })
    };
    if !steps.iter().any(concerned) {
        return steps.iter().map(|_| None).collect();
    }
    let failed = |error: &StepError| {
        let said = error.chain();
        let fate = |step| concerned(step).then(|| Recorded::whole(Err(StepError::Said(said.clone()))));
        steps.iter().map(fate).collect()
    };
    let mut database = match Database::open(host.root) {
        Ok(database) => database,
        Err(error) => return failed(&error),
    };
    // Whose password chpasswd will set; what comes after it in the plan comes after it here.
    let mut later = HashSet::new();
    let fates = steps.iter().map(|step| edit(step, &mut database, &mut later)).collect();
    match database.write() {
        Ok(()) => fates,
        Err(error) => failed(&error),
    }
}

fn edit<'a>(step: &'a PlanStep, database: &mut Database, later: &mut HashSet<&'a str>) -> Option<Recorded> {
    match step {
        PlanStep::CreateGroup(group) => Some(Recorded::whole(edit_group(group, database))),
        PlanStep::CreateUser(user) => {
            if matches!(user.password, Some(Password::Plain(_) | Password::Random)) {
                later.insert(&user.name);
            }
            Some(Recorded::open(edit_user(user, database)))
        }
        PlanStep::SetPassword { user, password: Password::Hash(hash), expire }
            if !later.contains(user.as_str()) =>
        {
            Some(Recorded::whole(edit_password(user, hash.reveal(), *expire, database)))
        }
        PlanStep::SetPassword { user, .. } => {
            later.insert(user);
            Some(Recorded::open(Ok(Change::None)))
        }
        _ => None,
    }
}

fn made(is_new: bool) -> Change {
    if is_new { Change::Made } else { Change::None }
}

fn edit_group(group: &GroupStep, database: &mut Database) -> Fate {
    let mut change = Change::None;
    if database.group(&group.name).is_none() {
        database.add_group(group)?;
        change = Change::Made;
    }
    for member in &group.members {
        change = change.and(made(database.join(member, &group.name)?));
    }
    Ok(change)
}

fn edit_user(user: &UserStep, database: &mut Database) -> Fate {
    let is_new = database.user(&user.name).is_none();
    let mut change = made(is_new);
    if is_new {
        database.add_user(user)?;
    }
    for group in user.groups.iter().filter(|group| database.group(group).is_some()).collect::<Vec<_>>() {
        change = change.and(made(database.join(&user.name, group)?));
    }
    match &user.password {
        Some(Password::Hash(hash)) => {
            change = change.and(made(database.set_password(&user.name, hash.reveal())?));
        }
        // It is locked after it was set.
        Some(Password::Plain(_) | Password::Random) => return Ok(change),
        None => {}
    }
    // A new user has no password that could be locked.
    if let Some(lock) = user.lock.filter(|lock| !(is_new && *lock && user.password.is_none())) {
        change = change.and(made(database.lock(&user.name, lock)?));
    }
    Ok(change)
}

fn edit_password(user: &str, hash: &str, expire: bool, database: &mut Database) -> Fate {
    let change = made(database.set_password(user, hash)?);
    Ok(if expire { change.and(made(database.expire(user)?)) } else { change })
}

/// What is left to do once the user is in the files.
fn complete(step: &PlanStep, change: Change, host: &Host<'_>) -> Fate {
    match step {
        PlanStep::CreateUser(user) => complete_user(user, change, host),
        PlanStep::SetPassword { user, password, expire } => {
            let set = set_password(user, password, host)?;
            let and =
                if *expire { edited(host, |database| Ok(database.expire(user)?))? } else { Change::None };
            Ok(change.and(set).and(and))
        }
        _ => Ok(change),
    }
}

fn complete_user(user: &UserStep, change: Change, host: &Host<'_>) -> Fate {
    let mut change = change;
    if let (Change::Made, false) = (change, user.no_create_home)
        && let Some(login) = crate::accounts::user(host.root, &user.name)
    {
        home::make(host.root, &login)?;
    }
    if let Some(password @ (Password::Plain(_) | Password::Random)) = &user.password {
        change = change.and(set_password(&user.name, password, host)?);
        if let Some(lock) = user.lock {
            change = change.and(edited(host, |database| Ok(database.lock(&user.name, lock)?))?);
        }
    }
    missing_groups(user, host)?;
    Ok(change)
}

/// One more change of the files.
fn edited(host: &Host<'_>, edit: impl Fn(&mut Database) -> Result<bool, StepError>) -> Fate {
    let mut database = Database::open(host.root)?;
    let is_new = edit(&mut database)?;
    database.write()?;
    Ok(made(is_new))
}

/// A group that is not there is told, but the user is made.
fn missing_groups(user: &UserStep, host: &Host<'_>) -> Result<(), StepError> {
    let missing = |group: &&String| crate::accounts::group(host.root, group).is_none();
    let missing: Vec<&str> = user.groups.iter().filter(missing).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(", ");
    Err(StepError::Said(format!("the user was made, but some of its groups ({names}) are not there")))
}

fn set_password(user: &str, password: &Password, host: &Host<'_>) -> Fate {
    let text = match password {
        Password::Hash(hash) => {
            return edited(host, |database| Ok(database.set_password(user, hash.reveal())?));
        }
        Password::Plain(text) => text.reveal().clone(),
        Password::Random => random(host)?,
    };
    host.programs.run(&Call::new("chpasswd", [""; 0]).input(format!("{user}:{text}\n")))?;
    if matches!(password, Password::Random) {
        // The console is the one place where only the owner of the machine reads.
        closing::say_on_console(&format!("the password of {user} is {text}\n"), host)?;
    }
    Ok(Change::Made)
}

fn random(host: &Host<'_>) -> Result<String, StepError> {
    let path = host.root.path("/dev/urandom");
    let mut bytes = [0_u8; RANDOM_LENGTH];
    let read = fs::File::open(&path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| StepError::Read { path, source })?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect())
}
