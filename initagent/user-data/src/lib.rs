//! What a user may hand a machine on its first boot: read, checked and planned.
//!
//! Knows formats and what they mean. Refuses to act: nothing here touches a disk, a network, a clock
//! or another program. Invariants: bytes are bounded before they are parsed; every finding has a
//! place; no value of a content, password or key is ever printed.

pub mod address;
pub mod cloudconfig;
pub mod cluster;
pub mod container;
pub mod ignition;
pub mod image_units;
pub mod json;
pub mod network;
pub mod part;
pub mod payload;
pub mod plan;
pub mod protected;
pub mod reading;
pub mod room;
pub mod secret;
pub mod ssh_key;
pub mod systemd;
pub mod template;
pub mod tokens;
mod unit_text;
pub mod unread;
