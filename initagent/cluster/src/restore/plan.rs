//! Chooses the way to restore, or says why none is open.
//!
//! Knows what is left of the cluster. Refuses to touch it. Invariant: a second cluster is made only where no quorum
//! lives, and a person has named each of the other voters as lost.

use std::net::IpAddr;

/// What is known before anything is restored.
#[derive(Debug, Clone, Default)]
pub struct RestoreFacts {
    /// Whether a quorum of the members lives.
    pub has_quorum: bool,
    /// Whether a backup was named.
    pub has_backup: bool,
    /// Whether this machine has a member's data.
    pub has_data: bool,
    /// The other voters.
    pub others: Vec<IpAddr>,
    /// Those of them that answer.
    pub answering: Vec<IpAddr>,
    /// Those that a person named as lost.
    pub lost: Vec<IpAddr>,
}

/// The way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreWay {
    /// Write the backup's keys to the living cluster.
    Import,
    /// Become the only member, from the backup.
    RebuildFromBackup,
    /// Become the only member, from this machine's data.
    RebuildFromOwnData,
}

/// Why no way is open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RestoreRefusal {
    #[error(
        "{} answers, and was named as lost; start etcd there and wait until a majority is back, or switch it off",
        join(answering)
    )]
    Answering { answering: Vec<IpAddr> },
    #[error(
        "the cluster has a quorum, so that nothing is to be rebuilt; a machine that lost its disk comes back by \
         itself, and a backup that is named brings its keys back"
    )]
    Living,
    #[error("there is no quorum, and this machine has no data of etcd; name a backup")]
    NoData,
    #[error(
        "there is no quorum, since {} do not answer; the data that only they have would be given up. If they are \
         lost, say so with --lost {}; they may come back later as new members, never with their old data",
        join(missing),
        join_commas(missing)
    )]
    Unnamed { missing: Vec<IpAddr> },
}

/// Chooses.
pub fn plan_restore(facts: &RestoreFacts) -> Result<RestoreWay, RestoreRefusal> {
    if facts.has_quorum {
        return if facts.has_backup { Ok(RestoreWay::Import) } else { Err(RestoreRefusal::Living) };
    }
    if !facts.has_backup && !facts.has_data {
        return Err(RestoreRefusal::NoData);
    }
    let is_lost = |address: &IpAddr| facts.lost.contains(address);
    let missing: Vec<IpAddr> = facts.others.iter().copied().filter(|other| !is_lost(other)).collect();
    if !missing.is_empty() {
        return Err(RestoreRefusal::Unnamed { missing });
    }
    if !facts.answering.is_empty() {
        return Err(RestoreRefusal::Answering { answering: facts.answering.clone() });
    }
    Ok(if facts.has_backup { RestoreWay::RebuildFromBackup } else { RestoreWay::RebuildFromOwnData })
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn join_commas(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> RestoreFacts {
        let others = ["10.0.0.2", "10.0.0.3"].map(|text| text.parse().unwrap()).to_vec();
        RestoreFacts { has_data: true, others, ..RestoreFacts::default() }
    }

    #[test]
    fn a_living_cluster_is_never_rebuilt() {
        let living = RestoreFacts { has_quorum: true, lost: facts().others, ..facts() };

        assert_eq!(plan_restore(&living), Err(RestoreRefusal::Living));
        let with_backup = RestoreFacts { has_backup: true, ..living };
        assert_eq!(plan_restore(&with_backup), Ok(RestoreWay::Import));
    }

    #[test]
    fn each_of_the_others_must_be_named_and_silent() {
        let named = RestoreFacts { lost: facts().others, ..facts() };
        let one = RestoreFacts { lost: facts().others[..1].to_vec(), ..facts() };
        let answering = RestoreFacts { answering: facts().others[1..].to_vec(), ..named.clone() };

        assert_eq!(plan_restore(&named), Ok(RestoreWay::RebuildFromOwnData));
        let error = plan_restore(&facts()).unwrap_err().to_string();
        assert!(error.contains("--lost 10.0.0.2,10.0.0.3"), "{error}");
        assert_eq!(
            plan_restore(&one),
            Err(RestoreRefusal::Unnamed { missing: facts().others[1..].to_vec() })
        );
        assert!(matches!(plan_restore(&answering), Err(RestoreRefusal::Answering { .. })));
    }

    #[test]
    fn without_data_a_backup_is_needed() {
        let empty = RestoreFacts { has_data: false, lost: facts().others, ..facts() };

        assert_eq!(plan_restore(&empty), Err(RestoreRefusal::NoData));
        let with_backup = RestoreFacts { has_backup: true, ..empty };
        assert_eq!(plan_restore(&with_backup), Ok(RestoreWay::RebuildFromBackup));
    }
}
