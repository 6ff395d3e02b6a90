//! `ignition.timeouts`: how long a server may take.
//!
//! Knows two numbers of seconds. Refuses to wait: the plan carries them to who fetches.
//!
//! Documentation: `timeouts` in <https://coreos.github.io/ignition/configuration-v3_5/>.

use document::yaml::Node;

use super::tree;
pub(super) use crate::plan::step::Timeouts;

/// What a document asks for; what it does not say stays as it is by default.
pub(super) fn read(document: &Node) -> Timeouts {
    let seconds = |key| {
        let node = tree::find_below(document, &["ignition", "timeouts", key])?;
        tree::scalar_text(node)?.parse().ok()
    };
    Timeouts { headers: seconds("httpResponseHeaders"), total: seconds("httpTotal") }
}
