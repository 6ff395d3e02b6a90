//! An Ethernet switch in userspace: joins virtual machines into one network, without root.
//!
//! Each machine's QEMU offers its network card as a stream over a Unix socket; one process connects to all of them
//! and carries frames between them. The [`bridge`] decides, pure: frames and a clock in, frames out. [`process`]
//! moves the bytes, [`control`] is what a person may ask of it while it runs. Refuses to look above Ethernet:
//! there is no DHCP, no router and no name server, so IPv4, IPv6 and multicast pass alike. A Linux bridge with
//! `netem` does the same and needs root; `-netdev socket,mcast=` needs none, but cannot cut off one machine.

pub mod address_table;
pub mod bridge;
pub mod cable;
pub mod control;
pub mod frame_stream;
pub mod process;
