//! A cluster that lives in memory only: for tests and simulations of what stands on a registry.
//!
//! Knows what each command does to the picture, as the real store does it; refuses to last. Invariant:
//! every command raises the revision by one, even when it fails.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::{
    model::{state::DesiredState, unit_file::UnitFile, unit_name::UnitName},
    store::{
        cluster::{Cluster, SubmittedUnit},
        registry::{ClusterChange, CommandError, DrainChange, Registry, RegistryCommand, StoreHealth},
    },
};

/// A registry without a store behind it.
#[derive(Debug)]
pub struct MemoryRegistry {
    cluster: Mutex<Cluster>,
    changes: broadcast::Sender<ClusterChange>,
    health: Mutex<StoreHealth>,
}

impl MemoryRegistry {
    /// Starts from this picture.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        let (changes, _) = broadcast::channel(1024);
        Self { cluster: Mutex::new(cluster), changes, health: Mutex::new(StoreHealth::Serving) }
    }

    /// Changes the picture directly, as engine and agents would.
    pub fn edit_cluster(&self, change: &ClusterChange, edit: impl FnOnce(&mut Cluster)) {
        let mut cluster = self.lock_cluster();
        edit(&mut cluster);
        cluster.revision = cluster.revision.next();
        self.send_change(change.clone());
    }

    /// Pretends another health.
    pub fn set_health(&self, health: StoreHealth) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    fn lock_cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_change(&self, change: ClusterChange) {
        // Nobody listening is fine.
        let _ = self.changes.send(change);
    }
}

// The twin of the real store, for tests of the API: same commands, same errors, no etcd.
impl Registry for MemoryRegistry {
    fn read<T>(&self, read: impl FnOnce(&Cluster) -> T) -> T {
        read(&self.lock_cluster())
    }

    async fn execute_command(&self, command: RegistryCommand) -> Result<(), CommandError> {
        let change = apply_command(&mut self.lock_cluster(), command)?;
        self.send_change(change);
        Ok(())
    }

    fn subscribe_changes(&self) -> broadcast::Receiver<ClusterChange> {
        self.changes.subscribe()
    }

    fn health(&self) -> StoreHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn apply_command(cluster: &mut Cluster, command: RegistryCommand) -> Result<ClusterChange, CommandError> {
    cluster.revision = cluster.revision.next();
    match command {
        RegistryCommand::Create { name, file, desired } => create_unit(cluster, name, file, desired),
        RegistryCommand::Destroy { name } => destroy_unit(cluster, name),
        RegistryCommand::Drain { machine, drain } => {
            if let Some(machine) = cluster.machines.get_mut(&machine) {
                machine.draining = drain == DrainChange::Begin;
            }
            Ok(ClusterChange::Machine(machine))
        }
        RegistryCommand::Rebalance { .. } | RegistryCommand::ReleaseBrake => Ok(ClusterChange::Everything),
        RegistryCommand::Replace { name, file, desired } => change_unit(cluster, name, |unit| {
            let previous = Some(unit.file.hash());
            let restarts = unit.restarts;
            *unit =
                SubmittedUnit { restarts, previous, ..SubmittedUnit::new(unit.name.clone(), file, desired) };
        }),
        RegistryCommand::Restart { name } => change_unit(cluster, name, |unit| unit.restarts += 1),
        RegistryCommand::SetDesired { name, desired } => {
            change_unit(cluster, name, |unit| unit.desired = desired)
        }
        RegistryCommand::SetMetadata { machine, key, value } => {
            if let Some(machine) = cluster.machines.get_mut(&machine) {
                match value {
                    Some(value) => machine.metadata.insert(key, value),
                    None => machine.metadata.remove(&key),
                };
            }
            Ok(ClusterChange::Machine(machine))
        }
    }
}

fn create_unit(
    cluster: &mut Cluster,
    name: UnitName,
    file: UnitFile,
    desired: DesiredState,
) -> Result<ClusterChange, CommandError> {
    if cluster.units.contains_key(&name) {
        return Err(CommandError::Exists(name));
    }
    let unit =
        SubmittedUnit { revision: cluster.revision, ..SubmittedUnit::new(name.clone(), file, desired) };
    cluster.units.insert(name.clone(), unit);
    Ok(ClusterChange::Unit(name))
}

fn destroy_unit(cluster: &mut Cluster, name: UnitName) -> Result<ClusterChange, CommandError> {
    if cluster.units.remove(&name).is_none() {
        return Err(CommandError::NotFound(name));
    }
    cluster.assignments.remove(&name);
    Ok(ClusterChange::Unit(name))
}

fn change_unit(
    cluster: &mut Cluster,
    name: UnitName,
    change: impl FnOnce(&mut SubmittedUnit),
) -> Result<ClusterChange, CommandError> {
    let revision = cluster.revision;
    let Some(unit) = cluster.units.get_mut(&name) else { return Err(CommandError::NotFound(name)) };
    change(unit);
    unit.revision = revision;
    Ok(ClusterChange::Unit(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::state::JobState;

    #[tokio::test]
    async fn commands_show_in_the_picture_and_are_announced() {
        let registry = MemoryRegistry::new(Cluster::default());
        let mut changes = registry.subscribe_changes();
        let name = UnitName::parse("a.service").unwrap();
        let file = UnitFile::parse("[Service]\nExecStart=/bin/true\n").unwrap();

        let create = RegistryCommand::Create { name: name.clone(), file, desired: JobState::Inactive };
        registry.execute_command(create.clone()).await.unwrap();
        let again = registry.execute_command(create).await;
        registry
            .execute_command(RegistryCommand::SetDesired { name: name.clone(), desired: JobState::Launched })
            .await
            .unwrap();

        assert!(matches!(again, Err(CommandError::Exists(_))));
        assert_eq!(registry.read(|cluster| cluster.units[&name].desired), JobState::Launched);
        assert_eq!(changes.try_recv(), Ok(ClusterChange::Unit(name)));
    }
}
