//! The keys of version 2, as a list that can be written again.
//!
//! Knows etcd's answers of version 2. Refuses to know files. Invariant: a folder stands before what is in it.
//!
//! etcd lists no name that begins with `_` and can ask for one only by name. The two that programs of CoreOS's time
//! had at the top are asked for; others are not found.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::etcd_client::{CallError, EtcdClient};

/// Hidden folders at the top: fleet's, and those of etcd's discovery service.
const HIDDEN: [&str; 2] = ["_coreos.com", "_etcd"];

/// One key or folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassicEntry {
    /// Its path, from the slash on.
    pub key: String,
    /// Its value; none of a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// How many seconds it had to live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
}

/// What became of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryOutcome {
    /// It was there with this value.
    Same,
    /// It is written.
    Written,
}

/// Reads all keys; `None` where etcd does not serve version 2.
pub fn read_classic(client: &EtcdClient, endpoint: &str) -> Result<Option<Vec<ClassicEntry>>, CallError> {
    let path = |name: &str| format!("keys/{name}?recursive=true&sorted=true&quorum=true");
    let all = match client.classic_get(endpoint, &path("")) {
        Err(CallError::Refused { status: 404, .. }) => return Ok(None),
        all => all?,
    };
    let mut entries = Vec::new();
    collect_entries(&all["node"], &mut entries);
    for name in HIDDEN {
        match client.classic_get(endpoint, &path(name)) {
            Err(CallError::Refused { status: 404, .. }) => {}
            hidden => collect_entries(&hidden?["node"], &mut entries),
        }
    }
    Ok(Some(entries))
}

fn collect_entries(node: &Value, entries: &mut Vec<ClassicEntry>) {
    if let Some(key) = node["key"].as_str() {
        let value = match node["dir"].as_bool() {
            Some(true) => None,
            _ => Some(node["value"].as_str().unwrap_or_default().to_owned()),
        };
        entries.push(ClassicEntry { key: key.to_owned(), value, ttl: node["ttl"].as_u64() });
    }
    for child in node["nodes"].as_array().into_iter().flatten() {
        collect_entries(child, entries);
    }
}

/// Writes one entry. A folder that is there is left as it is: etcd 3.5 cannot renew one that has an end.
pub fn write_entry(
    client: &EtcdClient,
    endpoint: &str,
    entry: &ClassicEntry,
) -> Result<EntryOutcome, CallError> {
    let path = format!("keys{}", encoded_path(&entry.key));
    let mut form = Vec::new();
    match &entry.value {
        Some(value) => {
            if client
                .classic_get(endpoint, &path)
                .is_ok_and(|now| now["node"]["value"].as_str() == Some(value))
            {
                return Ok(EntryOutcome::Same);
            }
            form.push(("value", value.clone()));
        }
        None => form.extend([("dir", "true".to_owned()), ("prevExist", "false".to_owned())]),
    }
    form.extend(entry.ttl.map(|seconds| ("ttl", seconds.to_string())));
    match client.classic_put(endpoint, &path, &form) {
        Err(CallError::Refused { status: 412, .. }) if entry.value.is_none() => Ok(EntryOutcome::Same),
        written => written.map(|_| EntryOutcome::Written),
    }
}

/// A path as URLs have it (RFC 3986, section 3.3).
fn encoded_path(key: &str) -> String {
    let mut path = String::new();
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing into a text does not fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn folders_stand_before_what_is_in_them_and_ends_are_kept() {
        let node = json!({"dir": true, "nodes": [
            {"key": "/a", "dir": true, "nodes": [{"key": "/a/b", "value": "1", "ttl": 90}, {"key": "/a/c", "value": ""}]},
            {"key": "/empty", "dir": true, "ttl": 7},
        ]});
        let mut entries = Vec::new();

        collect_entries(&node, &mut entries);

        let read: Vec<_> =
            entries.iter().map(|one| (one.key.as_str(), one.value.as_deref(), one.ttl)).collect();
        let expected = [
            ("/a", None, None),
            ("/a/b", Some("1"), Some(90)),
            ("/a/c", Some(""), None),
            ("/empty", None, Some(7)),
        ];
        assert_eq!(read, expected);
        let text = serde_json::to_string(&entries).unwrap();
        assert_eq!(serde_json::from_str::<Vec<ClassicEntry>>(&text).unwrap(), entries);
    }

    #[test]
    fn a_path_says_what_the_key_says() {
        assert_eq!(encoded_path("/a b/100%/ü?"), "/a%20b/100%25/%C3%BC%3F");
    }
}
