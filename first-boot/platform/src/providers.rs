//! The platforms, one module each, all of one shape: `detect` looks at this machine only, `fetch` asks that one
//! platform, and a pure `facts` turns its answer into metadata.

pub(crate) mod akamai;
pub(crate) mod azure;
pub(crate) mod command_line;
pub(crate) mod config_drive;
pub(crate) mod digitalocean;
pub(crate) mod ec2;
pub(crate) mod equinix;
pub(crate) mod exoscale;
pub(crate) mod gce;
pub(crate) mod hetzner;
pub(crate) mod nocloud;
pub(crate) mod openstack;
pub(crate) mod oracle;
pub(crate) mod qemu;
pub(crate) mod scaleway;
pub(crate) mod upcloud;
pub(crate) mod vmware;
pub(crate) mod vultr;
