//! `status`: what this machine is in its cluster, how etcd is, and what a person can do.
//!
//! Knows the columns and the fields. Refuses to look: the caller brings what was seen. Invariant: the JSON has
//! whatever the text has.

use jiff::Timestamp;
use serde_json::json;

use super::{ClusterAnswer, StatusFormat};
use crate::condition::advice::advise;
use crate::condition::{ClusterHealth, EtcdCondition, MemberCondition, MemberRole};
use crate::prepare::ServedCluster;

/// What is known of etcd beside this machine's own part.
#[derive(Debug)]
pub(super) enum EtcdView {
    /// All that its members say.
    Condition(EtcdCondition),
    /// Nothing: root alone may ask.
    Hidden,
}

/// The answer to `status`.
pub(super) fn describe_status(
    served: Option<ServedCluster>,
    etcd: &EtcdView,
    (quota_bytes, now): (u64, Timestamp),
    format: StatusFormat,
) -> ClusterAnswer {
    let Some(served) = served else {
        let text = match format {
            StatusFormat::Json => json!({ "place": "none" }).to_string(),
            StatusFormat::Text => {
                "etcd was not started since the last boot; 'systemctl start etcd' does it".to_owned()
            }
        };
        return ClusterAnswer { text, exit_code: 1 };
    };
    let advice = match etcd {
        EtcdView::Condition(condition) => advise(condition, quota_bytes, now),
        EtcdView::Hidden => Vec::new(),
    };
    let text = match format {
        StatusFormat::Json => json_status(&served, etcd, &advice),
        StatusFormat::Text => text_status(&served, etcd, &advice),
    };
    ClusterAnswer { text, exit_code: 0 }
}

fn json_status(served: &ServedCluster, etcd: &EtcdView, advice: &[String]) -> String {
    let ServedCluster { name, place, voters, classic, members, exposures, ignored, .. } = served;
    let etcd = match etcd {
        EtcdView::Condition(condition) => json!(condition),
        EtcdView::Hidden => json!(null),
    };
    format!(
        "{:#}",
        json!({
            "name": name, "place": place, "voters": voters, "classic": classic, "members": members,
            "exposures": exposures, "ignored": ignored, "etcd": etcd, "advice": advice,
        })
    )
}

fn text_status(served: &ServedCluster, etcd: &EtcdView, advice: &[String]) -> String {
    let name = served.name.as_deref().unwrap_or("of this machine alone");
    let joined =
        |addresses: Vec<String>| if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") };
    let mut lines = vec![
        format!("cluster   {name}"),
        format!("place     {}", served.place),
        format!("voters    {}", joined(served.voters.iter().map(ToString::to_string).collect())),
        format!(
            "members   {} (with a certificate)",
            joined(served.members.iter().map(ToString::to_string).collect())
        ),
        format!(
            "classic   {} (keys of version 2, for everybody)",
            joined(served.classic.iter().map(ToString::to_string).collect())
        ),
    ];
    lines.extend(served.exposures.iter().map(|sentence| format!("open      {sentence}")));
    lines.extend(served.ignored.iter().map(|name| format!("ignored   {name}")));
    match etcd {
        EtcdView::Condition(condition) => lines.extend(condition_lines(condition)),
        EtcdView::Hidden => {
            lines.push("etcd      root may ask its members: 'sudo initagent cluster status'".to_owned());
        }
    }
    lines.extend(advice.iter().map(|sentence| format!("do        {sentence}")));
    lines.join("\n")
}

fn condition_lines(condition: &EtcdCondition) -> Vec<String> {
    let health = match condition.health {
        ClusterHealth::Degraded => "degraded",
        ClusterHealth::Healthy => "healthy",
        ClusterHealth::NoQuorum => "no quorum",
    };
    let backup = condition.last_backup.map_or_else(|| "none".to_owned(), |taken| taken.to_string());
    let mut lines = vec![
        format!("etcd      {health}, {} voters to spare", condition.voters_to_spare),
        format!("backup    {backup} (the last one on this machine)"),
    ];
    lines.extend(condition.members.iter().map(member_line));
    lines
}

fn member_line(member: &MemberCondition) -> String {
    let MemberCondition { id, role, version, revision, store_bytes, used_bytes, .. } = member;
    let at = member.address.map_or_else(|| member.name.clone(), |address| address.to_string());
    let role = match role {
        MemberRole::Follower => "follower",
        MemberRole::Leader => "leader",
        MemberRole::Learner => "learner",
        MemberRole::Silent => return format!("  {at:<15} does not answer (member {id})"),
    };
    let alarms = [&[String::new()], &member.alarms[..]].concat().join(", ");
    // A mebibyte has a decimal: stores of fleet are small.
    let mebibytes = |bytes: &u64| format!("{}.{}", bytes >> 20, ((bytes & ((1 << 20) - 1)) * 10) >> 20);
    format!(
        "  {at:<15} {role:<8} etcd {version}, revision {revision}, {} of {} MiB used{alarms} (member {id})",
        mebibytes(used_bytes),
        mebibytes(store_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::tests::condition;

    fn described(served: Option<ServedCluster>, etcd: &EtcdView, format: StatusFormat) -> ClusterAnswer {
        describe_status(served, etcd, (512 << 20, Timestamp::UNIX_EPOCH), format)
    }

    #[test]
    fn status_names_what_is_open() {
        let served = ServedCluster {
            place: "alone".to_owned(),
            exposures: vec!["etcd answers every client at http://0.0.0.0:2379".to_owned()],
            ..ServedCluster::default()
        };

        let text = described(Some(served.clone()), &EtcdView::Hidden, StatusFormat::Text).text;
        let json = described(Some(served), &EtcdView::Hidden, StatusFormat::Json).text;

        assert!(text.contains("open      etcd answers every client"), "{text}");
        assert!(json.contains("\"exposures\": [\n    \"etcd answers"), "{json}");
        assert_eq!(described(None, &EtcdView::Hidden, StatusFormat::Text).exit_code, 1);
    }

    #[test]
    fn each_member_has_a_line_and_each_accident_its_advice() {
        use MemberRole::{Follower, Leader, Silent};
        let etcd = EtcdView::Condition(condition(&[Leader, Follower, Silent], true));
        let served = ServedCluster { place: "voter".to_owned(), ..ServedCluster::default() };

        let text = described(Some(served.clone()), &etcd, StatusFormat::Text).text;
        let json = described(Some(served), &etcd, StatusFormat::Json).text;

        let expected = "\
etcd      degraded, 0 voters to spare
backup    none (the last one on this machine)
  10.0.0.1        leader   etcd 3.5.16, revision 7, 0.5 of 1.0 MiB used (member 1)
  10.0.0.2        follower etcd 3.5.16, revision 7, 0.5 of 1.0 MiB used (member 2)
  10.0.0.3        does not answer (member 3)
do        10.0.0.3 does not answer: start it";
        assert!(text.contains(expected), "{text}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["etcd"]["members"][0]["role"], "leader");
        assert_eq!(value["etcd"]["health"], "degraded");
        assert!(value["advice"][0].as_str().unwrap().contains("replace 10.0.0.3"));
    }
}
