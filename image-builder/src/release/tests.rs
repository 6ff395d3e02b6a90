//! Facts about a repository: published into, cut off, verified, collected, and given other keys.

mod collecting;
mod cut_off;
mod rotating;
pub(crate) mod site;
mod verifying;
