//! The names that a template may use, as cloud-init has them.
//!
//! Knows `v1.*`, their short forms without `v1.`, and `ds.meta_data.*`, each name also with underscores in the
//! place of hyphens, since Jinja takes a hyphen for a minus. Refuses to find values out. Invariant: what the
//! machine does not know has no name here; nothing is null or empty in its place.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/explanation/instancedata.html>.

use std::fmt;

use serde_json::{Map, Value, json};

/// So many names are listed in a help.
// A platform's document may have hundreds of names. More than a screen of them helps nobody.
const MOST_LISTED: usize = 24;

/// What is known of a machine.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct InstanceData {
    tree: Map<String, Value>,
    knowledge: Knowledge,
}

/// Of which machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Knowledge {
    /// Of none: examples stand for what only a machine can know.
    Examples,
    /// Of this one.
    #[default]
    Machine,
}

impl InstanceData {
    /// By cloud-init's standard names, and by what the platform says in names of its own.
    #[must_use]
    pub fn new(standard: Map<String, Value>, meta_data: Map<String, Value>) -> Self {
        let standard = with_underscores(Value::Object(standard));
        let mut tree = match &standard {
            Value::Object(names) => names.clone(),
            _ => Map::new(),
        };
        tree.insert("v1".to_owned(), standard);
        tree.insert("ds".to_owned(), json!({ "meta_data": with_underscores(Value::Object(meta_data)) }));
        Self { tree, knowledge: Knowledge::Machine }
    }

    /// Of a machine that does not exist, so that templates can be checked anywhere.
    #[must_use]
    pub fn example_names() -> Self {
        let standard = json!({
            "availability-zone": "region-1a",
            "cloud-name": "aws",
            "cloud_id": "aws",
            "distro": "debian",
            "distro_release": "trixie",
            "distro_version": "13",
            "instance-id": "i-0123456789abcdef0",
            "kernel_release": "6.12.0",
            "local-hostname": "machine",
            "machine": "x86_64",
            "platform": "ec2",
            // Example values look like real ones, so that a document that uses them is judged as it would be
            // there.
            "public_ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEIDxYdJCsyOUBHTlVcY2pxeH+GjZSboqmwt77FzNPa"],
            "region": "region-1",
            "subplatform": "metadata",
            "system_platform": "Linux-6.12.0-x86_64",
            "variant": "debian",
        });
        let meta_data = json!({
            "availability-zone": "region-1a",
            "hostname": "machine.example.net",
            "instance-id": "i-0123456789abcdef0",
            "instance-type": "type-1",
            "local-hostname": "machine.example.net",
            "local-ipv4": "198.51.100.1",
            "placement": {"availability-zone": "region-1a", "region": "region-1"},
            "public-ipv4": "192.0.2.1",
            "region": "region-1",
        });
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        Self { knowledge: Knowledge::Examples, ..Self::new(map(standard), map(meta_data)) }
    }

    /// Gives a name of the platform's an example; false if it is known well enough that there is none.
    pub(super) fn add_example(&mut self, name: &str) -> bool {
        let Some(path) = name.strip_prefix("ds.meta_data.").filter(|_| self.knowledge == Knowledge::Examples)
        else {
            return false;
        };
        let meta_data = self.tree.get_mut("ds").and_then(|ds| ds.get_mut("meta_data"));
        let Some(mut place) = meta_data else { return false };
        let names: Vec<&str> = path.split('.').collect();
        for (index, name) in names.iter().enumerate() {
            if index > 0 && !place.is_object() {
                // It was given an example of its own before it turned out to hold others.
                *place = json!({});
            }
            let Value::Object(names) = place else { return false };
            place = names.entry(*name).or_insert_with(|| json!("example"));
        }
        true
    }

    /// Of which machine this is.
    pub(super) fn machine_words(&self) -> &'static str {
        match self.knowledge {
            Knowledge::Examples => "any",
            Knowledge::Machine => "this",
        }
    }

    /// What could have been meant in the place of a name.
    pub(super) fn suggest_name(&self, name: &str) -> String {
        let parent = name.rsplit_once('.').map_or("", |(parent, _)| parent);
        let pointer = format!("/{}", parent.replace('.', "/"));
        let tree = Value::Object(self.tree.clone());
        let place = if parent.is_empty() { Some(&tree) } else { tree.pointer(&pointer) };
        let prefix = if parent.is_empty() { String::new() } else { format!("{parent}.") };
        let known = place.and_then(Value::as_object).map(|names| {
            let plain = names.keys().filter(|name| !name.contains('-')).take(MOST_LISTED);
            plain.map(|name| format!("{prefix}{name}")).collect::<Vec<_>>().join(", ")
        });
        let other = format!("`{{{{ {name} | default('…') }}}}` gives another value");
        match known.filter(|known| !known.is_empty()) {
            Some(known) => format!("{other}; known are {known}"),
            None => other,
        }
    }

    pub(super) fn template_context(&self) -> minijinja::Value {
        jinja_map(&self.tree)
    }
}

fn jinja_map(names: &Map<String, Value>) -> minijinja::Value {
    minijinja::Value::from_pairs(names.iter().map(|(name, value)| (name.clone(), jinja_value(value))))
}

fn jinja_value(value: &Value) -> minijinja::Value {
    match value {
        Value::Array(items) => items.iter().map(jinja_value).collect(),
        Value::Bool(value) => (*value).into(),
        Value::Null => ().into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(float)) => float.into(),
            // A number beyond what Jinja counts with keeps its digits.
            (None, None) => number.to_string().into(),
        },
        Value::Object(names) => jinja_map(names),
        Value::String(text) => text.as_str().into(),
    }
}

/// Says how much is known only: metadata may hold secrets.
impl fmt::Debug for InstanceData {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "InstanceData({} names, {:?})", self.tree.len(), self.knowledge)
    }
}

/// Each name also as Jinja can read it; one that is there already stays.
fn with_underscores(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(with_underscores).collect()),
        Value::Object(names) => {
            let mut both: Map<String, Value> =
                names.into_iter().map(|(name, value)| (name, with_underscores(value))).collect();
            let hyphened: Vec<String> = both.keys().filter(|name| name.contains('-')).cloned().collect();
            for name in hyphened {
                let value = both.get(&name).cloned().unwrap_or_default();
                both.entry(name.replace('-', "_")).or_insert(value);
            }
            Value::Object(both)
        }
        other => other,
    }
}
