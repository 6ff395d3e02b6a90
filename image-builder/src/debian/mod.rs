//! Debian's side of an image: mirrors, package resolution, locks and the inside of packages.
//!
//! Knows apt's and dpkg's formats. Refuses to know what an image is made of: it is handed package
//! names and gives back packages whose bytes match the archive's signed index.

pub(crate) mod archive;
pub(crate) mod bootstrap;
pub(crate) mod deb;
pub(crate) mod lock;
pub(crate) mod mirror;
pub(crate) mod stanza;
pub(crate) mod status;
pub(crate) mod tools;
