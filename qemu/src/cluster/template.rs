//! Makes each machine's user-data from the one document that a person wrote.
//!
//! Knows some words between `@`, as autoconf has them: no format of user-data gives them a meaning, so cloud-config,
//! Ignition and scripts can all have them. Refuses conditions and loops: what differs more is another document, and
//! cloud-config has its own templates. Invariant: every byte that is not such a word stays.

use std::fmt::Write as _;

use super::plan::{ClusterMember, MemberRole};

/// What etcd's peers listen on; the port of the guides since etcd 2.
const ETCD_PEER_PORT: u16 = 2380;

/// What the words stand for.
#[derive(Debug, Clone)]
pub struct TemplateValues<'a> {
    /// The machine that gets the document
    pub member: &'a ClusterMember,
    /// All machines
    pub cluster: &'a [ClusterMember],
    /// Where the guests reach the update server, if there is one
    pub update_server: Option<&'a str>,
}

/// Why a document cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the user-data asks for @UPDATE_SERVER@ in line {line}, but there is none; add --update-server DIR")]
pub struct TemplateError {
    line: usize,
}

/// The document of one machine. What is not text (a compressed document) is nobody's template and stays as it is.
pub fn expand_user_data(document: &[u8], values: &TemplateValues<'_>) -> Result<Vec<u8>, TemplateError> {
    let Ok(text) = std::str::from_utf8(document) else { return Ok(document.to_vec()) };
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('@') {
        expanded.push_str(before);
        let word = after.split_once('@').map_or("", |(word, _)| word);
        match values.value_of(word) {
            WordValue::Text(value) => {
                expanded.push_str(&value);
                rest = &after[word.len() + 1..];
            }
            WordValue::NoUpdateServer => {
                let line = text[..text.len() - after.len()].matches('\n').count() + 1;
                return Err(TemplateError { line });
            }
            WordValue::NotOurs => {
                expanded.push('@');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    Ok(expanded.into_bytes())
}

/// What a word between two `@` is.
enum WordValue {
    NotOurs,
    NoUpdateServer,
    Text(String),
}

impl TemplateValues<'_> {
    fn value_of(&self, word: &str) -> WordValue {
        let members = || self.cluster.iter().filter(|one| one.role == MemberRole::Member);
        WordValue::Text(match word {
            "ADDRESS" => self.member.address.to_string(),
            "ADDRESSES" => join_words(members().map(|one| one.address.to_string())),
            "COUNT" => self.cluster.len().to_string(),
            "INITIAL_CLUSTER" => join_words(members().map(|one| {
                let mut text = String::new();
                // Writing to a String cannot fail.
                let _ = write!(text, "{}=http://{}:{ETCD_PEER_PORT}", one.name, one.address);
                text
            })),
            "NAME" => self.member.name.clone(),
            "NUMBER" => self.member.number.to_string(),
            "PROXY" => if self.member.role == MemberRole::Proxy { "on" } else { "off" }.to_owned(),
            "ROLE" => self.member.role.role_word().to_owned(),
            "UPDATE_SERVER" => match self.update_server {
                Some(address) => address.to_owned(),
                None => return WordValue::NoUpdateServer,
            },
            _ => return WordValue::NotOurs,
        })
    }
}

fn join_words(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::plan::plan_cluster;

    fn expand(document: &str, index: usize) -> Result<String, TemplateError> {
        let cluster = plan_cluster(2, 1).unwrap();
        let values = TemplateValues { member: &cluster[index], cluster: &cluster, update_server: None };
        expand_user_data(document.as_bytes(), &values).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn each_machine_gets_its_own_document() {
        let document =
            "name: @NAME@\naddr: @ADDRESS@:2380\nnumber: @NUMBER@/@COUNT@ @ROLE@\nproxy: @PROXY@\n";

        assert_eq!(
            expand(document, 1).unwrap(),
            "name: core-02\naddr: 10.23.0.12:2380\nnumber: 2/3 member\nproxy: off\n"
        );
        assert_eq!(
            expand(document, 2).unwrap(),
            "name: core-03\naddr: 10.23.0.13:2380\nnumber: 3/3 proxy\nproxy: on\n"
        );
    }

    #[test]
    fn all_machines_know_the_members() {
        let text = expand("@INITIAL_CLUSTER@ @ADDRESSES@", 2).unwrap();

        assert_eq!(
            text,
            "core-01=http://10.23.0.11:2380,core-02=http://10.23.0.12:2380 10.23.0.11,10.23.0.12"
        );
    }

    #[test]
    fn what_is_no_word_of_ours_stays() {
        for text in
            ["web@1.service web@2.service", "me@example.org", "@", "@@", "@name@", "@NAMES@", "@NAME", "ä@ö@"]
        {
            assert_eq!(expand(text, 0).unwrap(), text);
        }
        assert_eq!(expand("a@@NAME@@b", 0).unwrap(), "a@core-01@b");
        assert_eq!(expand("web@@NUMBER@.service", 0).unwrap(), "web@1.service");
    }

    #[test]
    fn a_compressed_document_stays() {
        let cluster = plan_cluster(1, 0).unwrap();
        let values = TemplateValues { member: &cluster[0], cluster: &cluster, update_server: None };
        let document = b"\x1f\x8b\x08@NAME@";

        assert_eq!(expand_user_data(document, &values).unwrap(), document);
    }

    #[test]
    fn an_update_server_that_is_not_there_is_named_with_its_line() {
        let error = expand("#cloud-config\nserver: @UPDATE_SERVER@\n", 0).unwrap_err();

        assert_eq!(
            error.to_string(),
            "the user-data asks for @UPDATE_SERVER@ in line 2, but there is none; add --update-server DIR"
        );
    }
}
