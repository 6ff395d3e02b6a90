//! What a person can do about the state of etcd.
//!
//! Knows each accident and its way out. Refuses to do anything. Invariant: whatever is not healthy has a sentence,
//! and each sentence has a command or says that there is nothing to do.

use jiff::{SignedDuration, Timestamp};

use super::{ClusterHealth, EtcdCondition, MemberCondition, MemberRole};

/// A day and a half: the timer comes once a day, at some minute.
const OLD_BACKUP: SignedDuration = SignedDuration::from_hours(36);

/// Sentences, the most urgent first.
#[must_use]
pub fn advise(condition: &EtcdCondition, quota_bytes: u64, now: Timestamp) -> Vec<String> {
    let silent = addresses(condition, MemberRole::Silent);
    let mut sentences = Vec::new();
    match condition.health {
        ClusterHealth::NoQuorum if condition.members.is_empty() => sentences.push(
            "no member of etcd answers: 'journalctl -u etcd' says why this machine's does not".to_owned(),
        ),
        ClusterHealth::NoQuorum => sentences.push(format!(
            "no majority answers, so that nothing is written; what runs goes on. Start the machines {}. If their \
             disks are lost: sudo initagent cluster restore --dry-run --lost {}",
            silent.join(", "),
            silent.join(",")
        )),
        ClusterHealth::Degraded if !silent.is_empty() => sentences.extend(silent.iter().map(|address| {
            format!(
                "{address} does not answer: start it, with its disk or a new one. If it is gone for good, start \
                 another machine with the same cloud-config, and there: sudo initagent cluster replace {address}"
            )
        })),
        ClusterHealth::Degraded | ClusterHealth::Healthy => {}
    }
    sentences.extend(condition.members.iter().filter_map(|member| advise_on_member(member, quota_bytes)));
    let learners = addresses(condition, MemberRole::Learner);
    sentences.extend(learners.iter().map(|address| format!("{address} gets the data, and votes after that")));
    let is_old = condition.last_backup.is_none_or(|taken| now.duration_since(taken) > OLD_BACKUP);
    if is_old && condition.health != ClusterHealth::NoQuorum {
        sentences
            .push("this machine has no backup of the last day: sudo initagent cluster backup".to_owned());
    }
    sentences
}

fn advise_on_member(member: &MemberCondition, quota_bytes: u64) -> Option<String> {
    let name = &member.name;
    if member.alarms.iter().any(|alarm| alarm == "NOSPACE") {
        return Some(format!(
            "the store of {name} is full, so that nothing is written. Delete keys that nobody needs, then: sudo \
             initagent cluster maintain"
        ));
    }
    if member.alarms.iter().any(|alarm| alarm == "CORRUPT") {
        return Some(format!(
            "the store of {name} differs from the others'. Stop etcd there, remove its data folder, and start etcd: \
             it comes back as a new member"
        ));
    }
    // At four fifths there are days to find out who writes so much.
    (quota_bytes > 0 && member.used_bytes > quota_bytes / 5 * 4).then(|| {
        format!(
            "the store of {name} is nearly full: {} of {} MiB",
            member.used_bytes >> 20,
            quota_bytes >> 20
        )
    })
}

fn addresses(condition: &EtcdCondition, role: MemberRole) -> Vec<String> {
    let members = condition.members.iter().filter(|member| member.role == role);
    members.map(|member| member.address.map_or_else(|| member.name.clone(), |at| at.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::condition;
    use super::*;

    fn advice(condition: &EtcdCondition) -> String {
        advise(condition, 512 << 20, Timestamp::UNIX_EPOCH).join("\n")
    }

    #[test]
    fn each_accident_has_its_command() {
        use MemberRole::{Follower, Leader, Learner, Silent};

        let lost = advice(&condition(&[Follower, Silent, Silent], false));
        assert!(lost.contains("restore --dry-run --lost 10.0.0.2,10.0.0.3"), "{lost}");
        let one = advice(&condition(&[Leader, Follower, Silent], true));
        assert!(one.contains("initagent cluster replace 10.0.0.3"), "{one}");
        assert!(advice(&condition(&[Leader, Follower, Learner], true)).contains("10.0.0.3 gets the data"));
        let mut full = condition(&[Leader], true);
        full.members[0].alarms = vec!["NOSPACE".to_owned()];
        assert!(advice(&full).contains("cluster maintain"));
        full.members[0].alarms = Vec::new();
        full.members[0].used_bytes = 500 << 20;
        assert!(advice(&full).contains("nearly full: 500 of 512 MiB"));
    }

    #[test]
    fn a_healthy_cluster_with_a_fresh_backup_needs_nothing() {
        let mut healthy = condition(&[MemberRole::Leader], true);
        assert!(advice(&healthy).contains("initagent cluster backup"));
        healthy.last_backup = Some(Timestamp::UNIX_EPOCH);

        assert_eq!(advice(&healthy), "");
    }
}
