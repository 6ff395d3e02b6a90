//! A cluster that lives in memory only: for tests and simulations of what stands on a registry.
//!
//! Knows what each command does to the picture, as the real store does it; refuses to last. Invariant:
//! every command raises the revision by one, even when it fails.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::{
    model::{state::DesiredState, unit_file::UnitFile, unit_name::UnitName},
    store::{
        cluster::{Cluster, Unit},
        registry::{Change, Command, CommandError, Health, Registry},
    },
};

/// A registry without a store behind it.
#[derive(Debug)]
pub struct MemoryRegistry {
    cluster: Mutex<Cluster>,
    changes: broadcast::Sender<Change>,
    health: Mutex<Health>,
}

impl MemoryRegistry {
    /// Starts from this picture.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        let (changes, _) = broadcast::channel(1024);
        Self { cluster: Mutex::new(cluster), changes, health: Mutex::new(Health::Serving) }
    }

    /// Changes the picture directly, as engine and agents would.
    pub fn edit(&self, change: &Change, edit: impl FnOnce(&mut Cluster)) {
        let mut cluster = self.cluster();
        edit(&mut cluster);
        cluster.revision += 1;
        self.announce(change.clone());
    }

    /// Pretends another health.
    pub fn set_health(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, change: Change) {
        // Nobody listening is fine.
        let _ = self.changes.send(change);
    }
}

impl Registry for MemoryRegistry {
    fn read<T>(&self, read: impl FnOnce(&Cluster) -> T) -> T {
        read(&self.cluster())
    }

    async fn execute(&self, command: Command) -> Result<(), CommandError> {
        let change = apply(&mut self.cluster(), command)?;
        self.announce(change);
        Ok(())
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn apply(cluster: &mut Cluster, command: Command) -> Result<Change, CommandError> {
    cluster.revision += 1;
    match command {
        Command::Create { name, file, desired } => create(cluster, name, file, desired),
        Command::Destroy { name } => destroy(cluster, name),
        Command::Drain { machine, draining } => {
            if let Some(machine) = cluster.machines.get_mut(&machine) {
                machine.draining = draining;
            }
            Ok(Change::Machine(machine))
        }
        Command::Rebalance { .. } | Command::ReleaseBrake => Ok(Change::Everything),
        Command::Replace { name, file, desired } => change_unit(cluster, name, |unit| {
            let previous = Some(unit.file.hash());
            let restarts = unit.restarts;
            *unit = Unit { restarts, previous, ..Unit::new(unit.name.clone(), file, desired) };
        }),
        Command::Restart { name } => change_unit(cluster, name, |unit| unit.restarts += 1),
        Command::SetDesired { name, desired } => change_unit(cluster, name, |unit| unit.desired = desired),
        Command::SetMetadata { machine, key, value } => {
            if let Some(machine) = cluster.machines.get_mut(&machine) {
                match value {
                    Some(value) => machine.metadata.insert(key, value),
                    None => machine.metadata.remove(&key),
                };
            }
            Ok(Change::Machine(machine))
        }
    }
}

fn create(
    cluster: &mut Cluster,
    name: UnitName,
    file: UnitFile,
    desired: DesiredState,
) -> Result<Change, CommandError> {
    if cluster.units.contains_key(&name) {
        return Err(CommandError::Exists(name));
    }
    let unit = Unit { revision: cluster.revision, ..Unit::new(name.clone(), file, desired) };
    cluster.units.insert(name.clone(), unit);
    Ok(Change::Unit(name))
}

fn destroy(cluster: &mut Cluster, name: UnitName) -> Result<Change, CommandError> {
    if cluster.units.remove(&name).is_none() {
        return Err(CommandError::NotFound(name));
    }
    cluster.assignments.remove(&name);
    Ok(Change::Unit(name))
}

fn change_unit(
    cluster: &mut Cluster,
    name: UnitName,
    change: impl FnOnce(&mut Unit),
) -> Result<Change, CommandError> {
    let revision = cluster.revision;
    let Some(unit) = cluster.units.get_mut(&name) else { return Err(CommandError::NotFound(name)) };
    change(unit);
    unit.revision = revision;
    Ok(Change::Unit(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::state::JobState;

    #[tokio::test]
    async fn commands_show_in_the_picture_and_are_announced() {
        let registry = MemoryRegistry::new(Cluster::default());
        let mut changes = registry.changes();
        let name = UnitName::parse("a.service").unwrap();
        let file = UnitFile::parse("[Service]\nExecStart=/bin/true\n").unwrap();

        let create = Command::Create { name: name.clone(), file, desired: JobState::Inactive };
        registry.execute(create.clone()).await.unwrap();
        let again = registry.execute(create).await;
        registry
            .execute(Command::SetDesired { name: name.clone(), desired: JobState::Launched })
            .await
            .unwrap();

        assert!(matches!(again, Err(CommandError::Exists(_))));
        assert_eq!(registry.read(|cluster| cluster.units[&name].desired), JobState::Launched);
        assert_eq!(changes.try_recv(), Ok(Change::Unit(name)));
    }
}
