//! What each key of a spec means, and what is wrong with a document that says something else.
//!
//! Pure: layers of YAML in, a [`ImageSpec`] and diagnostics out. A layer later in the list overrides an
//! earlier one's values and extends its lists. Invariant: an `ImageSpec` comes out only whole.

mod values;

use std::path::PathBuf;

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::spelling;
use document::yaml::{MappingEntry, Node, ScalarStyle, Value};
use image_format::bytes::Bytes;
use image_format::command_line::CommandLine;
use image_format::version::Version;

use super::{BootPackages, ContainerEngine, DebianSpec, ImageSpec, KernelSpec, ModulesSpec, PartitionSizes};
use crate::artefact::ArtefactKind;
use crate::rootfs::accounts::SystemAccount;
use values::{
    command_line, parse_absolute_path, parse_artefact, parse_engine, parse_epoch, parse_inner_path,
    parse_package, parse_size, parse_unit, parse_url, parse_version, parse_word, resolve_path, uid_number,
};

/// One file of a spec.
#[derive(Debug)]
pub(crate) struct SpecLayer {
    pub(crate) root: Node,
    /// Relative paths of the file start here.
    pub(crate) folder: PathBuf,
}

const KEYS: [&str; 24] = [
    "accounts",
    "boot",
    "channel",
    "components",
    "drop",
    "engine",
    "formats",
    "include",
    "initramfs",
    "kernel",
    "mirror",
    "name",
    "overlays",
    "packages",
    "partitions",
    "programs",
    "release_keys",
    "remove",
    "security_epoch",
    "security_mirror",
    "set_aside",
    "suite",
    "units",
    "version",
];

/// The file that a layer includes.
pub(crate) fn included_file(root: &Node) -> Option<(String, &Node)> {
    let Value::Mapping(entries) = &root.value else { return None };
    let entry = entries.iter().find(|entry| entry.key == "include")?;
    match &entry.value.value {
        Value::Scalar(scalar) => Some((scalar.text.clone(), &entry.value)),
        _ => None,
    }
}

/// Checks all layers together.
pub(crate) fn check_layers(layers: &[SpecLayer], found: &mut Diagnostics) -> Option<ImageSpec> {
    let mut draft = SpecDraft::default();
    for layer in layers {
        draft.read(layer, found);
    }
    let last = layers.last()?;
    draft.finish_spec(&last.root, found)
}

/// A spec while it is being gathered.
#[derive(Default)]
struct SpecDraft {
    name: Option<String>,
    version: Option<Version>,
    channel: Option<String>,
    suite: Option<String>,
    components: Vec<String>,
    mirror: Option<String>,
    security_mirror: Option<String>,
    engine: Option<ContainerEngine>,
    packages: Vec<String>,
    drop: Vec<String>,
    remove: Vec<String>,
    set_aside: Vec<String>,
    programs: Vec<String>,
    kernel_package: Option<String>,
    command_line: Option<CommandLine>,
    extra_words: Vec<CommandLine>,
    initramfs: ModulesSpec,
    shim: Option<String>,
    grub_efi: Option<String>,
    grub_bios: Option<String>,
    overlays: Vec<PathBuf>,
    accounts: Vec<SystemAccount>,
    units: Vec<String>,
    root_size: Option<Bytes>,
    state_size: Option<Bytes>,
    security_epoch: Option<u32>,
    release_keys: Vec<PathBuf>,
    formats: Vec<ArtefactKind>,
}

impl SpecDraft {
    fn read(&mut self, layer: &SpecLayer, found: &mut Diagnostics) {
        let mut reader = NodeReader { found };
        for MappingEntry { key, key_at: _, value } in reader.read_mapping("", &layer.root, &KEYS) {
            match key.as_str() {
                "accounts" => self.accounts.extend(reader.read_accounts(value)),
                "boot" => self.read_boot(&mut reader, value),
                "channel" => reader.read_into(&mut self.channel, key, value, parse_word),
                "components" => reader.read_list(&mut self.components, key, value, parse_word),
                "drop" => reader.read_list(&mut self.drop, key, value, parse_package),
                "engine" => reader.read_into(&mut self.engine, key, value, parse_engine),
                "formats" => reader.read_list(&mut self.formats, key, value, parse_artefact),
                "initramfs" => self.read_initramfs(&mut reader, value),
                "kernel" => self.read_kernel(&mut reader, value),
                "mirror" => reader.read_into(&mut self.mirror, key, value, parse_url),
                "name" => reader.read_into(&mut self.name, key, value, parse_word),
                "overlays" => {
                    reader
                        .read_list(&mut self.overlays, key, value, |text| resolve_path(&layer.folder, text));
                }
                "packages" => reader.read_list(&mut self.packages, key, value, parse_package),
                "partitions" => self.read_partitions(&mut reader, value),
                "programs" => reader.read_list(&mut self.programs, key, value, parse_word),
                "release_keys" => {
                    reader.read_list(&mut self.release_keys, key, value, |text| {
                        resolve_path(&layer.folder, text)
                    });
                }
                "remove" => reader.read_list(&mut self.remove, key, value, parse_inner_path),
                "security_epoch" => reader.read_into(&mut self.security_epoch, key, value, parse_epoch),
                "security_mirror" => reader.read_into(&mut self.security_mirror, key, value, parse_url),
                "set_aside" => reader.read_list(&mut self.set_aside, key, value, parse_inner_path),
                "suite" => reader.read_into(&mut self.suite, key, value, parse_word),
                "units" => reader.read_list(&mut self.units, key, value, parse_unit),
                "version" => reader.read_into(&mut self.version, key, value, parse_version),
                _ => {}
            }
        }
    }

    fn read_boot(&mut self, reader: &mut NodeReader<'_>, node: &Node) {
        for MappingEntry { key, value, .. } in
            reader.read_mapping("boot", node, &["grub_bios", "grub_efi", "shim"])
        {
            match key.as_str() {
                "grub_bios" => reader.read_into(&mut self.grub_bios, "boot.grub_bios", value, parse_package),
                "grub_efi" => reader.read_into(&mut self.grub_efi, "boot.grub_efi", value, parse_package),
                _ => reader.read_into(&mut self.shim, "boot.shim", value, parse_package),
            }
        }
    }

    fn read_initramfs(&mut self, reader: &mut NodeReader<'_>, node: &Node) {
        for MappingEntry { key, value, .. } in
            reader.read_mapping("initramfs", node, &["always", "on_demand"])
        {
            match key.as_str() {
                "always" => {
                    reader.read_list(&mut self.initramfs.always, "initramfs.always", value, parse_word);
                }
                _ => {
                    reader.read_list(&mut self.initramfs.on_demand, "initramfs.on_demand", value, parse_word);
                }
            }
        }
    }

    fn read_kernel(&mut self, reader: &mut NodeReader<'_>, node: &Node) {
        for MappingEntry { key, value, .. } in
            reader.read_mapping("kernel", node, &["command_line", "extra_words", "package"])
        {
            match key.as_str() {
                "command_line" => {
                    reader.read_into(&mut self.command_line, "kernel.command_line", value, command_line);
                }
                "extra_words" => {
                    reader.read_list(&mut self.extra_words, "kernel.extra_words", value, command_line);
                }
                _ => reader.read_into(&mut self.kernel_package, "kernel.package", value, parse_package),
            }
        }
    }

    fn read_partitions(&mut self, reader: &mut NodeReader<'_>, node: &Node) {
        for MappingEntry { key, value, .. } in reader.read_mapping("partitions", node, &["root", "state"]) {
            match key.as_str() {
                "root" => reader.read_into(&mut self.root_size, "partitions.root", value, parse_size),
                _ => reader.read_into(&mut self.state_size, "partitions.state", value, parse_size),
            }
        }
    }

    /// The whole command line: the last one that was given, and what all layers add to it.
    fn whole_command_line(&self, root: &Node, found: &mut Diagnostics) -> Option<CommandLine> {
        let first = self.command_line.clone().unwrap_or_default();
        match self.extra_words.iter().try_fold(first, |line, more| line.append_line(more)) {
            Ok(line) => Some(line),
            Err(error) => {
                let message = format!("`kernel.command_line` and `kernel.extra_words` together: {error}");
                found.push(
                    Diagnostic::error(DiagnosticCode::BadValue, root.at, message)
                        .with_key("kernel.extra_words"),
                );
                None
            }
        }
    }

    fn finish_spec(self, root: &Node, found: &mut Diagnostics) -> Option<ImageSpec> {
        let command_line = self.whole_command_line(root, found);
        let mut missing = |key: &str| {
            // A key that was given wrongly has been told; that it is missing too would be no news.
            if found.list().iter().any(|diagnostic| diagnostic.key == key) {
                return;
            }
            let message = format!("`{key}` is given neither here nor in an included spec");
            found.push(Diagnostic::error(DiagnosticCode::MissingKey, root.at, message).with_key(key));
        };
        let mut need = |value: Option<String>, key: &str| {
            value.or_else(|| {
                missing(key);
                None
            })
        };
        let name = need(self.name, "name");
        let kernel_package = need(self.kernel_package, "kernel.package");
        let shim = need(self.shim, "boot.shim");
        let grub_efi = need(self.grub_efi, "boot.grub_efi");
        let grub_bios = need(self.grub_bios, "boot.grub_bios");
        let suite = need(self.suite, "suite");
        if self.version.is_none() {
            missing("version");
        }
        if self.root_size.is_none() {
            missing("partitions.root");
        }
        let engine = self.engine.unwrap_or(ContainerEngine::None);
        let kernel_package = kernel_package?;
        let mut packages = self.packages;
        packages.extend(engine.engine_packages().iter().map(|name| (*name).to_owned()));
        packages.push(kernel_package.clone());
        // Their order must not change the image.
        packages.sort();
        packages.dedup();
        Some(ImageSpec {
            name: name?,
            version: self.version?,
            channel: self.channel.unwrap_or_else(|| "development".to_owned()),
            debian: DebianSpec {
                suite: suite?,
                components: if self.components.is_empty() {
                    vec!["main".to_owned()]
                } else {
                    self.components
                },
                mirror: self.mirror,
                security_mirror: self.security_mirror,
            },
            packages,
            drop: self.drop,
            remove: self.remove,
            set_aside: self.set_aside,
            programs: self.programs,
            kernel: KernelSpec { package: kernel_package, command_line: command_line? },
            initramfs: self.initramfs,
            boot: BootPackages { shim: shim?, grub_efi: grub_efi?, grub_bios: grub_bios? },
            overlays: self.overlays,
            accounts: self.accounts,
            units: self.units,
            partitions: PartitionSizes {
                root: self.root_size?,
                // It grows to the end of the disk at the first boot, so it need only hold what that boot
                // writes before.
                state: self.state_size.unwrap_or(Bytes::from_mib(64)),
            },
            security_epoch: self.security_epoch.unwrap_or_default(),
            release_keys: self.release_keys,
            formats: distinct_kinds(self.formats),
        })
    }
}

/// Each kind once: a layer may ask for what another one asked for already, and a file is published by a move.
fn distinct_kinds(mut kinds: Vec<ArtefactKind>) -> Vec<ArtefactKind> {
    kinds.sort_by_key(|kind| kind.kind_name());
    kinds.dedup();
    kinds
}

/// Reads nodes and reports what they should have been.
struct NodeReader<'a> {
    found: &'a mut Diagnostics,
}

impl NodeReader<'_> {
    /// The entries of a mapping whose keys are known; the others are reported.
    fn read_mapping<'n>(&mut self, key: &str, node: &'n Node, known: &[&str]) -> Vec<&'n MappingEntry> {
        let Value::Mapping(entries) = &node.value else {
            self.wrong_shape(key, node, "a mapping of keys to values");
            return Vec::new();
        };
        let (good, unknown): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| known.contains(&entry.key.as_str()));
        for entry in unknown {
            let message =
                format!("`{}` is no key of {}", entry.key, if key.is_empty() { "a spec" } else { key });
            let diagnostic = Diagnostic::error(DiagnosticCode::UnknownKey, entry.key_at, message);
            self.found.push(match spelling::nearest_name(&entry.key, known.iter().copied()) {
                Some(near) => diagnostic.with_help(format!("did you mean `{near}`?")),
                None => diagnostic.with_help(format!("known keys: {}", known.join(", "))),
            });
        }
        good
    }

    /// Reads a scalar into its place, or reports it.
    fn read_into<T>(
        &mut self,
        place: &mut Option<T>,
        key: &str,
        node: &Node,
        read: impl Fn(&str) -> Result<T, String>,
    ) {
        if let Some(value) = self.read_scalar(key, node, read) {
            *place = Some(value);
        }
    }

    /// Reads a list of scalars into its place; each bad one is reported.
    fn read_list<T>(
        &mut self,
        place: &mut Vec<T>,
        key: &str,
        node: &Node,
        read: impl Fn(&str) -> Result<T, String>,
    ) {
        let Value::Sequence(items) = &node.value else {
            self.wrong_shape(key, node, "a list, with a `- ` before each item");
            return;
        };
        place.extend(items.iter().filter_map(|item| self.read_scalar(key, item, &read)));
    }

    fn read_scalar<T>(
        &mut self,
        key: &str,
        node: &Node,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match &node.value {
            Value::Scalar(scalar) if !(scalar.style == ScalarStyle::Plain && node.is_null()) => {
                match read(&scalar.text) {
                    Ok(value) => Some(value),
                    Err(message) => {
                        self.found.push(
                            Diagnostic::error(
                                DiagnosticCode::BadValue,
                                node.at,
                                format!("`{key}`: {message}"),
                            )
                            .with_key(key),
                        );
                        None
                    }
                }
            }
            Value::Unreadable => None,
            _ => {
                self.wrong_shape(key, node, "one word or text");
                None
            }
        }
    }

    fn wrong_shape(&mut self, key: &str, node: &Node, wanted: &str) {
        let what = if key.is_empty() { "a spec" } else { key };
        let message = format!("`{what}` is {wanted}, but this is {}", node.shape_name());
        self.found.push(Diagnostic::error(DiagnosticCode::WrongType, node.at, message).with_key(key));
    }

    fn read_accounts(&mut self, node: &Node) -> Vec<SystemAccount> {
        let Value::Sequence(items) = &node.value else {
            self.wrong_shape("accounts", node, "a list of accounts, with a `- ` before each");
            return Vec::new();
        };
        items.iter().filter_map(|item| self.read_account(item)).collect()
    }

    fn read_account(&mut self, node: &Node) -> Option<SystemAccount> {
        let (mut name, mut uid, mut shell, mut groups) = (None, None, None, Vec::new());
        for MappingEntry { key, value, .. } in
            self.read_mapping("accounts", node, &["groups", "name", "shell", "uid"])
        {
            match key.as_str() {
                "groups" => self.read_list(&mut groups, "accounts.groups", value, parse_word),
                "name" => self.read_into(&mut name, "accounts.name", value, parse_word),
                "shell" => self.read_into(&mut shell, "accounts.shell", value, parse_absolute_path),
                _ => self.read_into(&mut uid, "accounts.uid", value, uid_number),
            }
        }
        if name.is_none() || uid.is_none() {
            let message = "an account has a `name` and a `uid`";
            self.found
                .push(Diagnostic::error(DiagnosticCode::MissingKey, node.at, message).with_key("accounts"));
        }
        Some(SystemAccount {
            name: name?,
            uid: uid?,
            shell: shell.unwrap_or_else(|| "/bin/bash".to_owned()),
            groups,
        })
    }
}

#[cfg(test)]
mod tests {
    use document::yaml;

    use super::*;

    const WHOLE: &str = "\
name: test
version: 1.2.3
suite: trixie
packages: [systemd]
kernel: {package: linux-image-cloud-amd64}
boot: {shim: shim-signed, grub_efi: grub-efi-amd64-signed, grub_bios: grub-pc-bin}
partitions: {root: 1 GiB}
";

    fn checked(texts: &[&str]) -> (Option<ImageSpec>, Vec<String>) {
        let mut found = Diagnostics::default();
        let layers: Vec<SpecLayer> = (0..)
            .zip(texts)
            .map(|(part, text)| SpecLayer {
                root: yaml::parse_yaml(text, part, &mut found).unwrap(),
                folder: PathBuf::new(),
            })
            .collect();
        let spec = check_layers(&layers, &mut found);
        let messages = found
            .list()
            .iter()
            .map(|found| {
                let help = found.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
                format!("{}:{} {}{help}", found.at.line, found.at.column, found.message)
            })
            .collect();
        (spec, messages)
    }

    #[test]
    fn all_releases_of_an_image_have_one_file_system_identifier() {
        let uuid = |change: &str| crate::plan::root_uuid(&checked(&[WHOLE, change]).0.unwrap());

        let (first, second, other) =
            (uuid("version: 1.0.0\n"), uuid("version: 2.0.0\n"), uuid("name: other\n"));

        assert_eq!(first, second);
        assert_ne!(first, other);
    }

    #[test]
    fn a_later_layer_overrides_values_and_extends_lists() {
        let (spec, messages) = checked(&[WHOLE, "name: cloud\npackages: [sudo]\nengine: docker\n"]);

        let spec = spec.unwrap();
        assert_eq!(messages, [""; 0]);
        assert_eq!(spec.name, "cloud");
        assert_eq!(
            spec.packages,
            ["docker-cli", "docker.io", "iptables", "linux-image-cloud-amd64", "sudo", "systemd"]
        );
        assert_eq!(spec.partitions, PartitionSizes { root: Bytes::GIB, state: Bytes::from_mib(64) });
    }

    #[test]
    fn all_mistakes_are_found_at_once_with_their_places() {
        let (_, messages) = checked(&[&WHOLE
            .replace("packages: [systemd]", "pakages: [systemd]")
            .replace("1 GiB", "1024")
            .replace("version: 1.2.3", "version: [1]")]);

        assert_eq!(
            messages,
            [
                "4:1 `pakages` is no key of a spec (did you mean `packages`?)",
                "2:10 `version` is one word or text, but this is a list",
                "7:20 `partitions.root`: a size needs its unit: 1024 MiB, or 1024 GiB?",
            ]
        );
    }

    #[test]
    fn a_layer_replaces_the_command_line_or_adds_words_to_it() {
        let line = |layer: &str| {
            let first = "kernel: {command_line: console=ttyS0 quiet, extra_words: [panic=10]}\n";
            let (spec, messages) = checked(&[WHOLE, first, layer]);
            assert_eq!(messages, [""; 0]);
            spec.unwrap().kernel.command_line.to_string()
        };

        assert_eq!(line("kernel: {}\n"), "console=ttyS0 quiet panic=10");
        assert_eq!(
            line("kernel: {extra_words: [catamaran.platform=ec2, quiet debug]}\n"),
            "console=ttyS0 quiet panic=10 catamaran.platform=ec2 quiet debug"
        );
        assert_eq!(line("kernel: {command_line: debug}\n"), "debug panic=10");
    }

    #[test]
    fn a_command_line_that_no_machine_would_start_with_is_a_mistake_of_the_spec() {
        let half = "x".repeat(600);
        let (spec, messages) = checked(&[
            WHOLE,
            &format!("kernel: {{command_line: \"a$b\", extra_words: [catamaran.slot=a, {half}, {half}]}}\n"),
        ]);

        assert_eq!(spec, None);
        assert_eq!(
            messages,
            [
                "1:24 `kernel.command_line`: the command line has '$'; words of printable ASCII are allowed, \
                 without quotes, `$` and backslashes",
                "1:45 `kernel.extra_words`: the word \"catamaran.slot=a\" of the command line is the boot \
                 loader's own",
                "1:1 `kernel.command_line` and `kernel.extra_words` together: the command line has 1201 bytes, at \
                 most 900 are allowed",
            ]
        );
    }

    #[test]
    fn a_word_is_neither_an_option_nor_a_way_out_of_a_folder() {
        for text in ["suite: ..", "suite: -oX", "packages: [-y]", "components: [--]", "name: .hidden"] {
            let (_, messages) = checked(&[WHOLE, &format!("{text}\n")]);
            assert_eq!(messages.len(), 1, "{text}: {messages:?}");
        }
    }

    #[test]
    fn layers_together_ask_for_each_format_once() {
        let (spec, messages) =
            checked(&[WHOLE, "formats: [qcow2, ova]\n", "formats: [vhdx, ova, vagrant-libvirt, qcow2]\n"]);

        let names: Vec<&str> = spec.unwrap().formats.iter().map(|kind| kind.kind_name()).collect();
        assert_eq!(messages, [""; 0]);
        assert_eq!(names, ["ova", "qcow2", "vagrant-libvirt", "vhdx"]);
    }

    #[test]
    fn a_format_that_is_none_is_shown_with_the_nearest_one() {
        let (_, messages) = checked(&[WHOLE, "formats: [qcow, raw]\n"]);

        assert_eq!(
            messages,
            [
                "1:11 `formats`: no format is called `qcow`; did you mean `qcow2`?",
                "1:17 `formats`: disk.raw is always written"
            ]
        );
    }

    #[test]
    fn a_path_may_not_leave_the_root() {
        let (_, messages) = checked(&[WHOLE, "remove: [usr/share/doc, /etc, a/../b]\n"]);

        assert_eq!(messages.len(), 2);
    }
}
