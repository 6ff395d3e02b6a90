//! Keys that people know from elsewhere and that an image which never changes cannot honour.
//!
//! Knows each by name, and what to do instead. Invariant: a known key is never called unknown.
//!
//! Documentation: the list is that of <https://docs.cloud-init.io/en/latest/reference/modules.html> and of
//! cloud-init's JSON schema, with keys of older releases.

use super::fields::{FieldKey, no_effect, refused_key};

const NO_PACKAGES: &str = "the image has no package manager: run it as a container, or put a static program into /opt/bin with `write_files`";
// No effect rather than refused: who asks for updates gets them, by other means.
const WHOLE_IMAGE: &str = "the system is updated as a whole image";
const AS_CONTAINER: &str =
    "the image holds no such program: run it as a container from a unit in `coreos.units`";
const NOT_THIS_DISTRIBUTION: &str = "it belongs to another distribution; remove it";
const OWN_ORDER: &str = "stages and modules have one order here";

/// The keys.
pub const KEYS: &[FieldKey] = &[
    refused_key("packages", NO_PACKAGES),
    no_effect("package_update", WHOLE_IMAGE),
    no_effect("package_upgrade", WHOLE_IMAGE),
    no_effect("package_reboot_if_required", WHOLE_IMAGE),
    refused_key("apt", NO_PACKAGES),
    no_effect("apt_update", WHOLE_IMAGE),
    no_effect("apt_upgrade", WHOLE_IMAGE),
    no_effect("apt_reboot_if_required", WHOLE_IMAGE),
    refused_key("apt_mirror", NO_PACKAGES),
    refused_key("apt_sources", NO_PACKAGES),
    refused_key("apt_pipelining", NO_PACKAGES),
    refused_key("apt_preserve_sources_list", NO_PACKAGES),
    refused_key("apt_proxy", NO_PACKAGES),
    refused_key("apk_repos", NO_PACKAGES),
    refused_key("yum_repos", NO_PACKAGES),
    refused_key("yum_repo_dir", NO_PACKAGES),
    refused_key("zypper", NO_PACKAGES),
    refused_key("snap", AS_CONTAINER),
    refused_key("snappy", AS_CONTAINER),
    refused_key("ansible", AS_CONTAINER),
    refused_key("chef", AS_CONTAINER),
    refused_key("puppet", AS_CONTAINER),
    refused_key("salt_minion", AS_CONTAINER),
    refused_key("mcollective", AS_CONTAINER),
    refused_key("landscape", AS_CONTAINER),
    refused_key("lxd", AS_CONTAINER),
    refused_key("fan", AS_CONTAINER),
    refused_key("rsyslog", "the journal keeps the logs; forward it from a unit in `coreos.units`"),
    refused_key("wireguard", "write a `.netdev` unit of kind wireguard in `coreos.units`"),
    refused_key(
        "network",
        "network configuration comes from the platform or as `network-config` beside user-data; here, write `.network` units in `coreos.units`",
    ),
    refused_key("ubuntu_advantage", NOT_THIS_DISTRIBUTION),
    refused_key("ubuntu_pro", NOT_THIS_DISTRIBUTION),
    refused_key("rh_subscription", NOT_THIS_DISTRIBUTION),
    refused_key("spacewalk", NOT_THIS_DISTRIBUTION),
    refused_key("autoinstall", "this is no installer; the image is on the disk already"),
    refused_key("drivers", "the kernel's modules are part of the image"),
    no_effect("byobu_by_default", "there is no byobu"),
    no_effect("grub_dpkg", "the boot loader is part of the image"),
    no_effect("grub_pc", "the boot loader is part of the image"),
    // A note, since the key protects something: nobody may believe that it is done.
    no_effect("disable_ec2_metadata", "a firewall rule in a unit does it"),
    no_effect("cloud_init_modules", OWN_ORDER),
    no_effect("cloud_config_modules", OWN_ORDER),
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
    no_effect("authkey_hash", "no fingerprints are printed"),
    no_effect("manual_cache_clean", "each instance-id is configured once"),
    no_effect("migrate", "there is nothing of an older release"),
    no_effect("preserve_sources_list", "there is no package manager"),
    no_effect("repo_update", WHOLE_IMAGE),
    no_effect("repo_upgrade", WHOLE_IMAGE),
    no_effect("repo_upgrade_exclude", WHOLE_IMAGE),
    no_effect("resize_rootfs_tmp", "the root is verified and read-only"),
    no_effect("unverified_modules", OWN_ORDER),
    no_effect("disable_vmware_customization", "VMware's customization scripts are not run"),
    no_effect("vmware_cust_file_max_wait", "VMware's customization scripts are not run"),
    no_effect("allow_userdata", "user-data is always read"),
    no_effect("hotplug", "networkd configures cards that come later"),
    no_effect("cc_ready_cmd", "use `runcmd`"),
    no_effect("byobu", "there is no byobu"),
    refused_key("apt_conf", NO_PACKAGES),
    refused_key("apt_custom_sources_list", NO_PACKAGES),
    refused_key("apt_ftp_proxy", NO_PACKAGES),
    refused_key("apt_get_command", NO_PACKAGES),
    refused_key("apt_get_upgrade_subcommand", NO_PACKAGES),
    refused_key("apt_get_wrapper", NO_PACKAGES),
    refused_key("apt_http_proxy", NO_PACKAGES),
    refused_key("apt_https_proxy", NO_PACKAGES),
    refused_key("apt_key", NO_PACKAGES),
    refused_key("debconf_selections", NO_PACKAGES),
    refused_key("rpi", "it is for another kind of machine; remove it"),
    refused_key("vendor_data2", "it is the platform operator's; `vendor_data` is the user's word on it"),
    no_effect("version", "there is one version of cloud-config"),
];
