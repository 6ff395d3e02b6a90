//! `cluster`: the same lines on every machine, from which one cluster forms.
//!
//! Knows what is missing or weak, and says where. Refuses to form anything. Invariant: half a definition is
//! none, since a machine that guessed the rest could form a cluster of its own.

use super::fields::{Fields, Key, key};
use crate::cluster::secret::{ClusterSecret, SecretFlaw};
use crate::cluster::{ClusterDefinition, FindFlaw, FindMethod, SIZES, is_cluster_name};
use document::diagnostic::{Code, Diagnostic, Diagnostics};
use document::source::At;

/// The key of the top level that this module reads.
pub const KEYS: &[Key] = &[key("cluster")];
/// The keys of `cluster`.
pub const CLUSTER_KEYS: &[Key] = &[key("name"), key("size"), key("secret"), key("find")];

/// What a document says of its machine's cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cluster {
    /// The definition, if it is whole.
    pub definition: Option<At<ClusterDefinition>>,
}

impl Cluster {
    pub(crate) fn read(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Self {
        Self { definition: definition(fields, found) }
    }
}

fn definition(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<At<ClusterDefinition>> {
    let at = fields.key_at("cluster")?;
    let node = fields.node("cluster")?;
    let mut inner = Fields::open(node, CLUSTER_KEYS, fields.child("cluster"), found)?;
    // All four are read before any is missed, so that one run names every mistake.
    let name = name(&mut inner, found);
    let size = size(&mut inner, found);
    let secret = secret(&mut inner, found);
    let find = find(&mut inner, size, found);
    let value = ClusterDefinition { name: name?, size: size?, secret: secret?, find: find? };
    Some(At { value, at })
}

/// Says that a key is missing, unless it was given and refused.
fn miss(fields: &mut Fields<'_>, name: &str, help: &str, found: &mut Diagnostics) {
    if fields.node(name).is_none() {
        let message = format!("`cluster` needs `{name}`; no cluster is formed");
        let diagnostic = Diagnostic::error(Code::MissingKey, fields.at(), message).help(help);
        fields.refuse(name, diagnostic, found);
    }
}

fn name(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<String> {
    let Some(text) = fields.text("name", found) else {
        miss(fields, "name", "a name like `harbour` tells clusters of one secret apart", found);
        return None;
    };
    if is_cluster_name(&text.value) {
        return Some(text.value);
    }
    let message = "`name` must be letters, digits and hyphens, at most 48, like `harbour`";
    fields.refuse("name", Diagnostic::error(Code::BadValue, text.at, message), found);
    None
}

fn size(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<u8> {
    let help = "how many machines vote: 1, 3, 5 or 7; further machines are workers";
    let Some(size) = fields.number::<u8>("size", found) else {
        miss(fields, "size", help, found);
        return None;
    };
    if SIZES.contains(&size.value) {
        return Some(size.value);
    }
    let why = if size.value.is_multiple_of(2) && size.value > 0 {
        "an even number of voters survives no more losses than one voter less"
    } else {
        help
    };
    let message = "`size` must be 1, 3, 5 or 7";
    fields.refuse("size", Diagnostic::error(Code::BadValue, size.at, message).help(why), found);
    None
}

fn secret(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<ClusterSecret> {
    let help = "make one with `initagent cluster secret`";
    let Some(text) = fields.text("secret", found) else {
        miss(fields, "secret", help, found);
        return None;
    };
    let flaw = match ClusterSecret::parse(&text.value) {
        Ok(secret) => return Some(secret),
        Err(flaw) => flaw,
    };
    let help = if flaw == SecretFlaw::Slip { "copy it again, whole" } else { help };
    let message = format!("`secret` {flaw}");
    fields.refuse("secret", Diagnostic::error(Code::BadValue, text.at, message).help(help), found);
    None
}

fn find(fields: &mut Fields<'_>, size: Option<u8>, found: &mut Diagnostics) -> Option<FindMethod> {
    const FORMS: &str = "`lan`, the addresses of the voters, one DNS name, or one discovery URL";
    let texts = fields.texts("find", found);
    if texts.is_empty() && size != Some(1) {
        miss(fields, "find", &format!("how the machines find each other: {FORMS}"), found);
        return None;
    }
    let words: Vec<String> = texts.iter().map(|text| text.value.clone()).collect();
    // Without a size, the forms are judged all the same, and no number is too small.
    let flaw = match FindMethod::read(&words, size.unwrap_or(0)) {
        Ok(method) => return Some(method).filter(|_| !fields.broken() || size.is_none()),
        Err(flaw) => flaw,
    };
    let (index, message) = match flaw {
        FindFlaw::Few { given } => {
            let wanted = size.unwrap_or_default();
            (0, format!("`find` names {given} machines, but `size` wants {wanted} that vote"))
        }
        FindFlaw::Mixed => (1, "`find` mixes two ways to find the others".to_owned()),
        FindFlaw::Unknown { index } => (index, "this is no way to find other machines".to_owned()),
    };
    let at = texts.get(index).map_or_else(|| fields.at(), |text| text.at);
    fields.refuse(
        "find",
        Diagnostic::error(Code::BadValue, at, message).help(format!("give {FORMS}")),
        found,
    );
    None
}
