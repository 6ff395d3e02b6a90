//! `cluster`: the same lines on every machine, from which one cluster forms.
//!
//! Knows what is missing or weak, and says where. Refuses to form anything. Invariant: half a definition is
//! none, since a machine that guessed the rest could form a cluster of its own.

use super::fields::{FieldKey, MappingFields, supported_key};
use crate::cluster::secret::{ClusterSecret, SecretFlaw};
use crate::cluster::{ClusterDefinition, FindFlaw, FindMethod, SIZES, is_cluster_name};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;

/// The key of the top level that this module reads.
pub const KEYS: &[FieldKey] = &[supported_key("cluster")];
/// The keys of `cluster`.
pub const CLUSTER_KEYS: &[FieldKey] =
    &[supported_key("name"), supported_key("size"), supported_key("secret"), supported_key("find")];

/// What a document says of its machine's cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterConfig {
    /// The definition, if it is whole.
    pub definition: Option<Located<ClusterDefinition>>,
}

impl ClusterConfig {
    pub(crate) fn read(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Self {
        Self { definition: read_definition(fields, found) }
    }
}

fn read_definition(
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> Option<Located<ClusterDefinition>> {
    let at = fields.key_at("cluster")?;
    let node = fields.field_node("cluster")?;
    let mut inner = MappingFields::read_mapping(node, CLUSTER_KEYS, fields.child_path("cluster"), found)?;
    // All four are read before any is missed, so that one run names every mistake.
    let name = read_name(&mut inner, found);
    let size = read_size(&mut inner, found);
    let secret = read_secret(&mut inner, found);
    let find = read_find(&mut inner, size, found);
    let value = ClusterDefinition { name: name?, size: size?, secret: secret?, find: find? };
    Some(Located { value, at })
}

/// Says that a key is missing, unless it was given and refused.
fn report_missing(fields: &mut MappingFields<'_>, name: &str, help: &str, found: &mut Diagnostics) {
    if fields.field_node(name).is_none() {
        let message = format!("`cluster` needs `{name}`; no cluster is formed");
        let diagnostic =
            Diagnostic::error(DiagnosticCode::MissingKey, fields.start_mark(), message).with_help(help);
        fields.refuse_field(name, diagnostic, found);
    }
}

fn read_name(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let Some(text) = fields.read_text("name", found) else {
        report_missing(fields, "name", "a name like `harbour` tells clusters of one secret apart", found);
        return None;
    };
    if is_cluster_name(&text.value) {
        return Some(text.value);
    }
    let message = "`name` must be letters, digits and hyphens, at most 48, like `harbour`";
    fields.refuse_field("name", Diagnostic::error(DiagnosticCode::BadValue, text.at, message), found);
    None
}

fn read_size(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<u8> {
    let help = "how many machines vote: 1, 3, 5 or 7; further machines are workers";
    let Some(size) = fields.read_number::<u8>("size", found) else {
        report_missing(fields, "size", help, found);
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
    fields.refuse_field(
        "size",
        Diagnostic::error(DiagnosticCode::BadValue, size.at, message).with_help(why),
        found,
    );
    None
}

fn read_secret(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<ClusterSecret> {
    let help = "make one with `initagent cluster secret`";
    let Some(text) = fields.read_text("secret", found) else {
        report_missing(fields, "secret", help, found);
        return None;
    };
    let flaw = match ClusterSecret::parse(&text.value) {
        Ok(secret) => return Some(secret),
        Err(flaw) => flaw,
    };
    let help = if flaw == SecretFlaw::Slip { "copy it again, whole" } else { help };
    let message = format!("`secret` {flaw}");
    fields.refuse_field(
        "secret",
        Diagnostic::error(DiagnosticCode::BadValue, text.at, message).with_help(help),
        found,
    );
    None
}

fn read_find(
    fields: &mut MappingFields<'_>,
    size: Option<u8>,
    found: &mut Diagnostics,
) -> Option<FindMethod> {
    const FORMS: &str =
        "`lan`, the addresses of the voters, one DNS name, `srv:DOMAIN`, or one discovery URL";
    let texts = fields.read_texts("find", found);
    if texts.is_empty() && size != Some(1) {
        report_missing(fields, "find", &format!("how the machines find each other: {FORMS}"), found);
        return None;
    }
    let words: Vec<String> = texts.iter().map(|text| text.value.clone()).collect();
    // Without a size, the forms are judged all the same, and no number is too small.
    let flaw = match FindMethod::read(&words, size.unwrap_or(0)) {
        Ok(method) => return Some(method).filter(|_| !fields.has_broken_field() || size.is_none()),
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
    let at = texts.get(index).map_or_else(|| fields.start_mark(), |text| text.at);
    fields.refuse_field(
        "find",
        Diagnostic::error(DiagnosticCode::BadValue, at, message).with_help(format!("give {FORMS}")),
        found,
    );
    None
}
