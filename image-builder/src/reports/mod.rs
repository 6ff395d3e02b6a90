//! What is in an image, for people and machines who must know.

pub(crate) mod crates;
pub(crate) mod sbom;
pub(crate) mod sizes;
