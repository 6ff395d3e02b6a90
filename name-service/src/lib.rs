//! Which name services a static program asks for users, groups and hosts.
//!
//! glibc opens the libraries that `/etc/nsswitch.conf` names (nsswitch.conf(5)), in a static program too. They want
//! the system's C library, which is another one than was linked: `hosts: files myhostname dns` and
//! `passwd: files systemd`, as Debian has them, end the program with SIGFPE at the first name that files do not know.
//! What is built into every program since glibc 2.34 is `files` and `dns`, so a static one asks no others.
//!
//! A dynamic program cannot be had here: it runs only where the C library is at least as new as the builder's.

#![cfg_attr(
    all(target_feature = "crt-static", target_env = "gnu"),
    expect(unsafe_code, reason = "glibc's call has no safe binding")
)]

/// Keeps this program to the name services that are built into it; call it before the first lookup. In a dynamic
/// program it does nothing.
pub fn use_built_in_services() {
    #[cfg(all(target_feature = "crt-static", target_env = "gnu"))]
    for (database, services) in
        [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files"), (c"initgroups", c"files")]
    {
        // SAFETY: both are strings that live for ever, and no other thread looks names up yet. What it returns is
        // -1 for a database or a text that it does not know, and these are constants.
        unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
    }
}

#[cfg(all(target_feature = "crt-static", target_env = "gnu"))]
unsafe extern "C" {
    /// Of `<nss.h>`.
    fn __nss_configure_lookup(
        database: *const std::ffi::c_char,
        services: *const std::ffi::c_char,
    ) -> std::ffi::c_int;
}
