//! Reaches metadata services at `fe80::a9fe:a9fe`, which exists once on every link.
//!
//! Knows that such an address needs the number of an interface, for which URLs have no place: a
//! base such as `http://3.link-local` stands for it on interface 3. Refuses to answer for names.
//!
//! Documentation: RFC 4291, section 2.5.6, and RFC 6874 for zones in addresses.

use std::net::{SocketAddr, SocketAddrV6};

use ureq::{
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

use crate::Host;

const SUFFIX: &str = ".link-local";
// The last two groups are 169.254.169.254 in hexadecimal digits.
const ADDRESS: [u16; 8] = [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe];

/// The bases of a metadata service on every link of this machine but the loop.
pub(crate) fn link_local_bases(host: &Host) -> Vec<String> {
    let Ok(entries) = host.path_of("/sys/class/net").read_dir() else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    // The loop has no link-local address.
    names.retain(|name| name != "lo");
    names.sort();
    let index = |name: &String| host.read_text(&format!("/sys/class/net/{name}/ifindex")).parse::<u32>().ok();
    names.iter().filter_map(index).map(|index| format!("http://{index}{SUFFIX}")).collect()
}

/// The system's resolver, and the names that [`link_local_bases`] makes.
#[derive(Debug, Default)]
pub(super) struct LinkLocalResolver {
    system: DefaultResolver,
}

impl Resolver for LinkLocalResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let Some(address) = uri.host().and_then(|host| on_link(host, uri.port_u16().unwrap_or(80))) else {
            return self.system.resolve(uri, config, timeout);
        };
        let mut addresses = self.empty();
        addresses.push(address);
        Ok(addresses)
    }
}

fn on_link(host: &str, port: u16) -> Option<SocketAddr> {
    let interface = host.strip_suffix(SUFFIX)?.parse().ok()?;
    Some(SocketAddrV6::new(ADDRESS.into(), port, 0, interface).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::twin;

    #[test]
    fn every_link_but_the_loop_has_a_service_address() {
        let machine = twin(&[
            ("sys/class/net/lo/ifindex", "1"),
            ("sys/class/net/eth0/ifindex", "2\n"),
            ("sys/class/net/eth1/ifindex", "3\n"),
        ]);

        assert_eq!(link_local_bases(&machine.host), ["http://2.link-local", "http://3.link-local"]);
        assert_eq!(on_link("2.link-local", 80).unwrap().to_string(), "[fe80::a9fe:a9fe%2]:80");
        assert_eq!(on_link("example.com", 80), None);
    }
}
