//! Keys that people know from elsewhere and that an image which never changes can't honour.
//!
//! Knows each by name, and what to do instead. Invariant: a known key is never called unknown.

use super::fields::{Key, no_effect, refused};

const NO_PACKAGES: &str = "the image has no package manager: run it as a container, or put a static program into /opt/bin with `write_files`";
const WHOLE_IMAGE: &str = "the system is updated as a whole image";
const AS_CONTAINER: &str =
    "the image holds no such program: run it as a container from a unit in `coreos.units`";
const NOT_THIS_DISTRIBUTION: &str = "it belongs to another distribution; remove it";
const OWN_ORDER: &str = "stages and modules have one order here";

/// The keys.
pub const KEYS: &[Key] = &[
    refused("packages", NO_PACKAGES),
    no_effect("package_update", WHOLE_IMAGE),
    no_effect("package_upgrade", WHOLE_IMAGE),
    no_effect("package_reboot_if_required", WHOLE_IMAGE),
    refused("apt", NO_PACKAGES),
    no_effect("apt_update", WHOLE_IMAGE),
    no_effect("apt_upgrade", WHOLE_IMAGE),
    no_effect("apt_reboot_if_required", WHOLE_IMAGE),
    refused("apt_mirror", NO_PACKAGES),
    refused("apt_sources", NO_PACKAGES),
    refused("apt_pipelining", NO_PACKAGES),
    refused("apt_preserve_sources_list", NO_PACKAGES),
    refused("apt_proxy", NO_PACKAGES),
    refused("apk_repos", NO_PACKAGES),
    refused("yum_repos", NO_PACKAGES),
    refused("yum_repo_dir", NO_PACKAGES),
    refused("zypper", NO_PACKAGES),
    refused("snap", AS_CONTAINER),
    refused("snappy", AS_CONTAINER),
    refused("ansible", AS_CONTAINER),
    refused("chef", AS_CONTAINER),
    refused("puppet", AS_CONTAINER),
    refused("salt_minion", AS_CONTAINER),
    refused("mcollective", AS_CONTAINER),
    refused("landscape", AS_CONTAINER),
    refused("lxd", AS_CONTAINER),
    refused("fan", AS_CONTAINER),
    refused("rsyslog", "the journal keeps the logs; forward it from a unit in `coreos.units`"),
    refused("wireguard", "write a `.netdev` unit of kind wireguard in `coreos.units`"),
    refused(
        "network",
        "network configuration comes from the platform or as `network-config` beside user-data; here, write `.network` units in `coreos.units`",
    ),
    refused("ubuntu_advantage", NOT_THIS_DISTRIBUTION),
    refused("ubuntu_pro", NOT_THIS_DISTRIBUTION),
    refused("rh_subscription", NOT_THIS_DISTRIBUTION),
    refused("spacewalk", NOT_THIS_DISTRIBUTION),
    refused("autoinstall", "this is no installer; the image is on the disk already"),
    refused("drivers", "the kernel's modules are part of the image"),
    no_effect("byobu_by_default", "there is no byobu"),
    no_effect("grub_dpkg", "the boot loader is part of the image"),
    no_effect("grub_pc", "the boot loader is part of the image"),
    no_effect("disable_ec2_metadata", "a firewall rule in a unit does it"),
    no_effect("cloud_init_modules", OWN_ORDER),
    no_effect("cloud_config_modules", OWN_ORDER),
    no_effect("cloud_final_modules", OWN_ORDER),
    no_effect("system_info", "there is one distribution here"),
    no_effect("datasource", "the platform is found by its firmware"),
    no_effect("datasource_list", "the platform is found by its firmware"),
    no_effect("reporting", "results are in /run/catamaran/first-boot.json"),
    no_effect("output", "output goes to the journal"),
    no_effect("log_cfgs", "output goes to the journal"),
    no_effect("syslog_fix_perms", "output goes to the journal"),
    no_effect("def_log_file", "output goes to the journal"),
    no_effect("updates", "network configuration is applied at each boot"),
    no_effect("cleanup", "nothing is kept that would have to go"),
    no_effect("version", "there is one version of cloud-config"),
];
