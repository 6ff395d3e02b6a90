//! `ignition.config`: configurations that a configuration refers to, put into it.
//!
//! Knows Ignition's merging: a list of mappings is merged by the key that names its items, and what
//! is referred to wins over what refers to it. Refuses to fetch: that is done by a function it is
//! given. Invariant: depth, number and size of what is referred to are bounded.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::json;
use crate::plan::step::Fetch;
use crate::room::{self, Room};
use crate::secret::Secret;
use document::diagnostic::{Code, Diagnostic};
use document::source::Mark;

use super::resource;

const DEEPEST: usize = 8;
const MOST_REFERENCES: usize = 64;
/// Files, directories and links may not lie at the same path.
const PATHS: [&str; 3] = ["directories", "files", "links"];

/// Gets the bytes at an address.
pub type Getter<'a> = &'a mut dyn FnMut(&Fetch) -> Result<Vec<u8>, Diagnostic>;

/// The configuration with everything it refers to in it; `None` when it refers to nothing.
pub fn resolve(content: &[u8], get: Getter<'_>) -> Result<Option<Vec<u8>>, Diagnostic> {
    // A document that can't be read is reported by who reads it, with the place.
    let Ok(document) = parse(content) else { return Ok(None) };
    if document.pointer("/ignition/config").is_none_or(|config| !config.is_object()) {
        return Ok(None);
    }
    let mut resolver = Resolver { get, asked: 0 };
    let merged = resolver.resolve(document, 0)?;
    let bytes = serde_json::to_vec_pretty(&merged);
    bytes.map(Some).map_err(|_| problem(Code::Encoding, "the merged configuration can't be written"))
}

struct Resolver<'a> {
    get: Getter<'a>,
    asked: usize,
}

impl Resolver<'_> {
    fn resolve(&mut self, mut document: Value, depth: usize) -> Result<Value, Diagnostic> {
        let config = document
            .pointer_mut("/ignition")
            .and_then(Value::as_object_mut)
            .and_then(|ignition| ignition.remove("config"));
        let Some(config) = config else { return Ok(document) };
        if depth > DEEPEST {
            return Err(problem(Code::LimitExceeded, "configurations refer to one another more than 8 deep"));
        }
        if config.pointer("/replace/source").is_some_and(|source| !source.is_null()) {
            let other = self.fetch(&config["replace"])?;
            return self.resolve(other, depth + 1);
        }
        for reference in config.get("merge").and_then(Value::as_array).into_iter().flatten() {
            let other = self.fetch(reference)?;
            let other = self.resolve(other, depth + 1)?;
            merge(&mut document, other, "");
        }
        Ok(document)
    }

    fn fetch(&mut self, reference: &Value) -> Result<Value, Diagnostic> {
        self.asked += 1;
        if self.asked > MOST_REFERENCES {
            return Err(problem(Code::LimitExceeded, "more than 64 configurations are referred to"));
        }
        let source = reference.get("source").and_then(Value::as_str).unwrap_or_default();
        let gzip = reference.get("compression").and_then(Value::as_str) == Some("gzip");
        let hash = reference.pointer("/verification/hash").and_then(Value::as_str);
        if hash.is_some_and(|hash| !resource::is_hash(hash)) {
            return Err(problem(Code::BadValue, "the hash of a configuration this refers to is none"));
        }
        let bytes = if source.starts_with("http") {
            let hash = hash.map(str::to_owned);
            let fetch =
                Fetch { url: source.to_owned(), headers: headers(reference), hash, gzip, fallback: None };
            let packed = (self.get)(&fetch)?;
            let bytes = if gzip { unpack(&packed)? } else { packed };
            if fetch.hash.as_ref().is_some_and(|hash| !resource::matches(&bytes, hash)) {
                return Err(problem(
                    Code::Encoding,
                    "a configuration this refers to does not have the hash it must have",
                ));
            }
            bytes
        } else {
            let bytes = resource::inline(source, gzip, &mut Room::default(), hash);
            bytes.map_err(|(code, message)| {
                problem(code, &format!("a configuration this refers to: {message}"))
            })?
        };
        parse(&bytes)
            .map_err(|()| problem(Code::Syntax, "a configuration this refers to is no JSON document"))
    }
}

fn parse(content: &[u8]) -> Result<Value, ()> {
    if !json::is_bounded(content) {
        return Err(());
    }
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    serde_json::from_slice(content).ok().filter(Value::is_object).ok_or(())
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, Diagnostic> {
    let flawed = |flaw: &str| problem(Code::Encoding, &format!("a configuration this refers to {flaw}"));
    room::unpack(bytes).map_err(flawed)
}

fn headers(reference: &Value) -> Vec<(String, Secret<String>)> {
    let list = reference.get("httpHeaders").and_then(Value::as_array).into_iter().flatten();
    let text = |header: &Value, key: &str| header.get(key).and_then(Value::as_str).map(str::to_owned);
    list.filter_map(|header| Some((text(header, "name")?, Secret::new(text(header, "value")?)))).collect()
}

/// Puts `over` on top of `base`. `name` is the key both stand under.
fn merge(base: &mut Value, over: Value, name: &str) {
    match (base, over) {
        (_, Value::Null) => {}
        // The parts of one content belong together.
        (base, over) if name == "contents" => *base = over,
        (Value::Object(base), Value::Object(over)) => merge_maps(base, over),
        (Value::Array(base), Value::Array(over)) => merge_lists(base, over, name),
        (base, over) => *base = over,
    }
}

fn merge_maps(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for kind in PATHS {
        let taken: HashSet<String> = over
            .get(kind)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|item| item.get("path").map(ToString::to_string))
            .collect();
        for other in PATHS.iter().filter(|other| **other != kind) {
            if let Some(Value::Array(items)) = base.get_mut(*other) {
                items.retain(|item| item.get("path").is_none_or(|path| !taken.contains(&path.to_string())));
            }
        }
    }
    for (key, value) in over {
        match base.get_mut(&key) {
            Some(known) => merge(known, value, &key),
            None => {
                base.insert(key, value);
            }
        }
    }
}

fn merge_lists(base: &mut Vec<Value>, over: Vec<Value>, name: &str) {
    let mut places: HashMap<String, usize> =
        base.iter().enumerate().map(|(place, item)| (identity(item, name), place)).collect();
    for item in over {
        let key = identity(&item, name);
        let known = places.get(&key).filter(|_| name != "append").and_then(|place| base.get_mut(*place));
        if let Some(known) = known {
            merge(known, item, "");
        } else {
            places.insert(key, base.len());
            base.push(item);
        }
    }
}

/// What names an item of a list, by the list's own name; an item without a name is its own.
fn identity(item: &Value, list: &str) -> String {
    let name = match list {
        "directories" | "files" | "links" => item.get("path"),
        "disks" | "filesystems" => item.get("device"),
        "dropins" | "groups" | "httpHeaders" | "luks" | "raid" | "units" | "users" => item.get("name"),
        "partitions" => {
            let number = item.get("number").filter(|number| number.as_u64().is_some_and(|number| number > 0));
            number.or_else(|| item.get("label"))
        }
        _ => None,
    };
    name.unwrap_or(item).to_string()
}

fn problem(code: Code, message: &str) -> Diagnostic {
    Diagnostic::error(code, Mark::default(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, pages: &[(&str, &str)]) -> Result<Value, String> {
        let mut get = |fetch: &Fetch| {
            let page =
                pages.iter().find(|(url, _)| *url == fetch.url).map(|(_, page)| page.as_bytes().to_vec());
            page.ok_or_else(|| problem(Code::BadValue, "no such page"))
        };
        let bytes = resolve(text.as_bytes(), &mut get).map_err(|flaw| flaw.message)?;
        Ok(serde_json::from_slice(&bytes.unwrap_or_else(|| text.as_bytes().to_vec())).unwrap())
    }

    #[test]
    fn what_is_referred_to_wins_item_by_item() {
        let merged = resolved(
            r#"{"ignition": {"version": "3.4.0", "config": {"merge": [{"source": "http://h/a"}]}},
                "storage": {"files": [{"path": "/a", "mode": 420, "contents": {"source": "data:,1", "compression": "gzip"}},
                                      {"path": "/b"}, {"path": "/l"}]},
                "passwd": {"users": [{"name": "core", "sshAuthorizedKeys": ["k1"]}]}}"#,
            &[(
                "http://h/a",
                r#"{"ignition": {"version": "3.5.0"},
                    "storage": {"files": [{"path": "/a", "contents": {"source": "data:,2"}}], "links": [{"path": "/l", "target": "/a"}]},
                    "passwd": {"users": [{"name": "core", "sshAuthorizedKeys": ["k1", "k2"]}]}}"#,
            )],
        )
        .unwrap();

        assert_eq!(
            merged,
            serde_json::json!({
                "ignition": {"version": "3.5.0"},
                "storage": {
                    "files": [{"path": "/a", "mode": 420, "contents": {"source": "data:,2"}}, {"path": "/b"}],
                    "links": [{"path": "/l", "target": "/a"}],
                },
                "passwd": {"users": [{"name": "core", "sshAuthorizedKeys": ["k1", "k2"]}]},
            })
        );
    }

    #[test]
    fn a_replacement_replaces_everything() {
        let text = r#"{"ignition": {"version": "3.0.0", "config": {"replace": {"source":
            "data:,%7B%22ignition%22%3A%7B%22version%22%3A%223.1.0%22%7D%7D"}}}, "systemd": {}}"#;

        assert_eq!(resolved(text, &[]).unwrap(), serde_json::json!({"ignition": {"version": "3.1.0"}}));
    }

    #[test]
    fn a_configuration_that_has_another_hash_is_refused() {
        let text = format!(
            r#"{{"ignition": {{"config": {{"merge": [{{"source": "http://h/a", "verification": {{"hash": "sha256-{}"}}}}]}}}}}}"#,
            "0".repeat(64)
        );

        assert!(resolved(&text, &[("http://h/a", "{}")]).unwrap_err().contains("hash"));
    }

    #[test]
    fn configurations_that_refer_to_themselves_end() {
        let text =
            r#"{"ignition": {"config": {"merge": [{"source": "http://h/a"}, {"source": "http://h/a"}]}}}"#;

        assert!(resolved(text, &[("http://h/a", text)]).is_err());
    }
}
