//! The OVF environment: an XML document on a CD that VMware and Azure attach.
//!
//! Knows how to find a property or an element by its name, whatever its namespace. Refuses
//! document type definitions, and with them entities. Invariant: a crafted document costs a
//! bounded number of nodes.
//!
//! Documentation: DMTF's DSP0243, "Open Virtualization Format", section "OVF environment".

use std::collections::BTreeMap;

// A document of one MiB may hold 260 000 empty elements. Real ones have fewer than a hundred.
const MAX_NODES: u32 = 20_000;

/// What an `ovf-env.xml` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OvfEnvironment {
    /// VMware's `<Property oe:key="k" oe:value="v"/>`.
    pub(crate) properties: BTreeMap<String, String>,
    /// The texts of elements that hold nothing but text, in the document's order.
    elements: Vec<(String, String)>,
}

impl OvfEnvironment {
    /// Reads a document; a message says where it breaks, and never shows a value.
    pub(crate) fn parse_environment(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("it is no UTF-8 text: {error}"))?;
        // Azure's wire server puts a byte order mark before the text, which XML allows and the parser does
        // not expect.
        let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\0', '\n', '\r', ' ']);
        // The parser's default refuses a document type, and with it entities that grow without end.
        let options =
            roxmltree::ParsingOptions { nodes_limit: MAX_NODES, ..roxmltree::ParsingOptions::default() };
        let document = roxmltree::Document::parse_with_options(text, options).map_err(|error| {
            let at = error.pos();
            format!("line {}, column {}: it is no valid XML", at.row, at.col)
        })?;
        let mut environment = Self::default();
        for node in document.descendants().filter(roxmltree::Node::is_element) {
            environment.add(node);
        }
        Ok(environment)
    }

    fn add(&mut self, node: roxmltree::Node<'_, '_>) {
        let name = node.tag_name().name();
        let attribute =
            |name: &str| node.attributes().find(|one| one.name() == name).map(|one| one.value().to_owned());
        if name == "Property"
            && let (Some(key), Some(value)) = (attribute("key"), attribute("value"))
        {
            self.properties.insert(key, value);
        } else if let Some(text) = node.text().map(str::trim).filter(|text| !text.is_empty()) {
            self.elements.push((name.to_owned(), text.to_owned()));
        }
    }

    /// The text of the first element of this name.
    pub(crate) fn element_text(&self, name: &str) -> Option<&str> {
        self.element_texts(name).next()
    }

    /// The texts of all elements of this name.
    pub(crate) fn element_texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.elements.iter().filter(move |(known, _)| known == name).map(|(_, text)| text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_and_elements_are_found_whatever_their_namespace() {
        let environment = OvfEnvironment::parse_environment(
            br#"<?xml version="1.0"?><e:Environment xmlns:e="urn:x" xmlns:oe="urn:y"><e:PropertySection>
                <e:Property oe:key="guestinfo.hostname" oe:value="n1"/></e:PropertySection>
                <ns1:HostName xmlns:ns1="urn:z"> n2 </ns1:HostName></e:Environment>"#,
        )
        .unwrap();

        assert_eq!(environment.properties["guestinfo.hostname"], "n1");
        assert_eq!(environment.element_text("HostName"), Some("n2"));
        assert_eq!(environment.element_text("UserName"), None);
    }

    #[test]
    fn entity_bombs_and_endless_documents_are_refused() {
        let bomb = br#"<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>"#;
        assert_eq!(
            OvfEnvironment::parse_environment(bomb).unwrap_err(),
            "line 1, column 1: it is no valid XML"
        );

        let endless = format!("<x>{}</x>", "<a/>".repeat(30_000));
        assert!(OvfEnvironment::parse_environment(endless.as_bytes()).is_err());
    }
}
