//! What an OpenStack machine's metadata refer to by `content_path`: files, and an older description of the
//! network.
//!
//! Knows where the contents lie, on the drive and in the service. Refuses every path that leads elsewhere.
//! Invariant: one content that cannot be had is reported by the file that it is for, and costs no other.
//!
//! Documentation: Nova's "personality" files, and `nova/api/metadata/base.py` for the keys.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{InstanceMetadata, Payload, json::DocumentTree, web::MAX_USER_DATA};

/// Gives the content at a path below the folder `openstack`.
pub(crate) type ReadContent<'r> = &'r mut dyn FnMut(&str) -> Result<Option<Vec<u8>>, String>;

/// Nova gives five files at most, unless its operator allows more.
const MAX_FILES: usize = 64;
/// What cloud-init gives them: they may hold secrets, and their group may have to read them.
const PERMISSIONS: &str = "0660";
/// Files of the user-data of the same path come later, so they win.
const MERGE_HOW: &str = "dict(recurse_array)+list(prepend)+str()";

/// Adds what `meta_data.json` refers to. The network's newer description goes before the older one.
pub(super) fn add_contents(provision: &mut InstanceMetadata, tree: &DocumentTree, read: ReadContent<'_>) {
    if let Some(path) = tree.text_at("/network_config/content_path").filter(|_| !has_links(provision)) {
        let config = file_content(provision, "network-config", &path, read);
        provision.network_config = config.and_then(Payload::from_bytes);
    }
    provision.files = cloud_config_of_files(provision, tree, read).and_then(Payload::from_bytes);
}

/// Whether there is a `network_data.json` that describes anything.
fn has_links(provision: &InstanceMetadata) -> bool {
    let config = provision.network_config.as_ref();
    config.is_some_and(|config| match DocumentTree::from_json(config.as_bytes()) {
        Ok(tree) => !tree.list_at("/links").is_empty(),
        // What cannot be read is reported where it is read.
        Err(_) => true,
    })
}

/// The files as a cloud-config, so that what protects this machine from others' files holds for them too.
fn cloud_config_of_files(
    provision: &mut InstanceMetadata,
    tree: &DocumentTree,
    read: ReadContent<'_>,
) -> Option<Vec<u8>> {
    let listed = tree.list_at("/files");
    if listed.len() > MAX_FILES {
        provision
            .report_problem("files", &format!("there are more than {MAX_FILES}; the others were left out"));
    }
    // Each file may be as large as user-data, so 64 of them would be one GiB. The limit is for all together.
    let mut room = usize::try_from(MAX_USER_DATA).unwrap_or(usize::MAX);
    let mut entries: Vec<Value> = Vec::new();
    for file in listed.iter().take(MAX_FILES) {
        let (Some(path), Some(source)) = (file.text_at("/path"), file.text_at("/content_path")) else {
            provision.report_problem("files", &"one has no `path` or no `content_path`");
            continue;
        };
        let Some(bytes) = file_content(provision, &format!("file {path}"), &source, read) else { continue };
        let Some(left) = room.checked_sub(bytes.len()) else {
            provision
                .report_problem("files", &format!("together they are larger than {MAX_USER_DATA} bytes"));
            break;
        };
        room = left;
        let encoded = BASE64_STANDARD.encode(&bytes);
        entries
            .push(json!({"path": path, "encoding": "b64", "permissions": PERMISSIONS, "content": encoded}));
    }
    // JSON is YAML.
    let document = json!({"merge_how": MERGE_HOW, "write_files": entries});
    (!entries.is_empty()).then(|| format!("#cloud-config\n{document}\n").into_bytes())
}

fn file_content(
    provision: &mut InstanceMetadata,
    item: &str,
    path: &str,
    read: ReadContent<'_>,
) -> Option<Vec<u8>> {
    // Nova numbers the contents: `/content/0000`. Any other path could lead to user-data, or up the tree of a
    // mirror.
    let name = path.trim_start_matches('/').strip_prefix("content/").filter(|name| is_plain(name));
    let Some(name) = name else {
        provision.report_problem(item, &"its content_path leads out of the folder `content`");
        return None;
    };
    let content = provision.value_or_report(item, read(&format!("content/{name}")));
    if content.is_none() && !provision.lacks_item(item) {
        provision.report_problem(item, &"its content is not there");
    }
    content
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Platform;

    fn provision_of(meta_data: &str, network_data: Option<&str>) -> InstanceMetadata {
        let mut provision = InstanceMetadata::new(Platform::ConfigDrive);
        provision.network_config = network_data.and_then(|text| Payload::from_bytes(text.into()));
        let tree = DocumentTree::from_json(meta_data.as_bytes()).unwrap();
        add_contents(&mut provision, &tree, &mut |path| match path {
            "content/0000" => Ok(Some(b"auto eth0\n".to_vec())),
            "content/0001" => Ok(Some(b"one".to_vec())),
            "content/bad" => Err("a bad sector".to_owned()),
            _ => Ok(None),
        });
        provision
    }

    fn text(payload: Option<&Payload>) -> &str {
        std::str::from_utf8(payload.map_or(b"".as_slice(), Payload::as_bytes)).unwrap()
    }

    #[test]
    fn the_older_description_counts_when_the_newer_says_nothing() {
        let meta_data = r#"{"network_config": {"name": "network_config", "content_path": "/content/0000"}}"#;
        let newer = r#"{"links": [{"id": "a"}]}"#;

        assert_eq!(text(provision_of(meta_data, None).network_config.as_ref()), "auto eth0\n");
        assert_eq!(
            text(provision_of(meta_data, Some("{\"links\": []}")).network_config.as_ref()),
            "auto eth0\n"
        );
        assert_eq!(text(provision_of(meta_data, Some(newer)).network_config.as_ref()), newer);
    }

    #[test]
    fn files_become_a_cloud_config() {
        let provision =
            provision_of(r#"{"files": [{"path": "/etc/one", "content_path": "/content/0001"}]}"#, None);

        assert_eq!(
            text(provision.files.as_ref()),
            "#cloud-config\n{\"merge_how\":\"dict(recurse_array)+list(prepend)+str()\",\"write_files\":\
             [{\"content\":\"b25l\",\"encoding\":\"b64\",\"path\":\"/etc/one\",\"permissions\":\"0660\"}]}\n"
        );
        assert_eq!(provision.problems, []);
    }

    #[test]
    fn what_cannot_be_had_is_reported_by_its_file() {
        let provision = provision_of(
            r#"{"network_config": {"content_path": "/content/9"}, "files": [
                {"path": "/a", "content_path": "/content/bad"}, {"path": "/b", "content_path": "../user_data"},
                {"path": "/c", "content_path": "/content/../../x"}, {"path": "/d"},
                {"path": "/e", "content_path": "/content/0001"}]}"#,
            None,
        );

        let items: Vec<&str> = provision.problems.iter().map(|problem| problem.item.as_str()).collect();
        assert_eq!(items, ["network-config", "file /a", "file /b", "file /c", "files"]);
        assert!(text(provision.files.as_ref()).contains("\"/e\""));
    }
}
