//! Who may do what: everything, look, or take reboot slots.
//!
//! A request's rights come from the connection it arrives on: the peer's credentials on a unix socket,
//! the authority that signed its certificate in TLS, a fixed right on plain TCP. Reading is `GET` and
//! `HEAD`; all else changes something.

use super::answer::ApiRefusal;
use axum::extract::Request;
use axum::extract::connect_info::ConnectInfo;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use nix::unistd::{Gid, Group, Uid, User};
use std::ffi::CString;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::server::ParsedCertificate;

/// The paths of the FleetLock protocol.
const FLEET_LOCK: [&str; 2] = ["/v1/pre-reboot", "/v1/steady-state"];

/// What a connection may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessRole {
    /// Everything.
    Admin,
    /// To acquire and release its own reboot slot.
    Lock,
    /// Nothing.
    None,
    /// To be told.
    Read,
}

/// Who is at the other end of a connection, as far as rights depend on it.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    access: AccessRole,
    name: Name,
}

/// Whose reboot slots a caller may take and give back.
#[derive(Debug, Clone)]
enum Name {
    /// Anybody's.
    Any,
    /// Those of the DNS names in the certificate.
    Certificate(CertificateDer<'static>),
    /// Those of this machine.
    Machine(String),
}

impl Caller {
    /// Somebody whose rights are bound to no name.
    pub(super) const fn with_role(access: AccessRole) -> Self {
        Self { access, name: Name::Any }
    }

    /// Who may take the reboot slots of the names in a certificate.
    pub(super) const fn with_certificate(certificate: CertificateDer<'static>) -> Self {
        Self { access: AccessRole::Lock, name: Name::Certificate(certificate) }
    }

    /// Whether the caller may take and give back the slot of `id`.
    pub(super) fn may_hold(&self, id: &str) -> bool {
        match &self.name {
            Name::Any => self.access == AccessRole::Admin,
            Name::Certificate(certificate) => is_named(certificate, id),
            Name::Machine(machine) => machine == id,
        }
    }
}

/// Whether a DNS name of the certificate is the id. A machine ID is one, a UUID too; what is no DNS name
/// can be in no certificate.
fn is_named(certificate: &CertificateDer<'_>, id: &str) -> bool {
    let (Ok(certificate), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(id))
    else {
        return false;
    };
    matches!(name, ServerName::DnsName(_)) && verify_server_name(&certificate, &name).is_ok()
}

/// Which users of a unix socket may do what. Root may do everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnixGroups {
    /// Members may do everything; without it, anybody who can open the socket may, as it always was.
    pub admin: Option<String>,
    /// Members may take the reboot slot of the machine with this ID, and nothing else unless they are in
    /// another group.
    pub lock: Option<(String, String)>,
    /// Members may look; without it, anybody who can open the socket may.
    pub read: Option<String>,
}

impl UnixGroups {
    /// The rights of a peer.
    #[must_use]
    pub fn access_of(&self, uid: u32, gid: u32) -> AccessRole {
        // Without a group anybody who can open the socket may do everything. So it was, and so the file's mode
        // is the only lock.
        let Some(admin) = &self.admin else { return AccessRole::Admin };
        if uid == 0 || is_member(admin, uid, gid) {
            return AccessRole::Admin;
        }
        if self.read.as_ref().is_some_and(|read| is_member(read, uid, gid)) {
            return AccessRole::Read;
        }
        if self.lock.as_ref().is_some_and(|(lock, _)| is_member(lock, uid, gid)) {
            return AccessRole::Lock;
        }
        // Only admins were named, so who can open the socket may look, as ever.
        if self.read.is_none() { AccessRole::Read } else { AccessRole::None }
    }

    /// A peer with its rights.
    pub(super) fn identify_peer(&self, uid: u32, gid: u32) -> Caller {
        let access = self.access_of(uid, gid);
        match &self.lock {
            Some((_, machine)) if access == AccessRole::Lock => {
                Caller { access, name: Name::Machine(machine.clone()) }
            }
            _ => Caller::with_role(access),
        }
    }
}

/// Whether the user is in the group, by its own group or by the lists of groups. A group that does not
/// exist has no members.
fn is_member(name: &str, uid: u32, gid: u32) -> bool {
    let Ok(Some(group)) = Group::from_name(name) else { return false };
    if group.gid == Gid::from_raw(gid) {
        return true;
    }
    // The kernel tells a peer's user and one group. The others are looked up by name, as login does.
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    let Ok(login) = CString::new(user.name) else { return false };
    nix::unistd::getgrouplist(&login, user.gid).is_ok_and(|groups| groups.contains(&group.gid))
}

/// Who sent a request.
pub(super) fn request_caller(request: &Request) -> Caller {
    let known = request.extensions().get::<ConnectInfo<Caller>>();
    known.map_or(Caller::with_role(AccessRole::None), |ConnectInfo(caller)| caller.clone())
}

/// What the connection of a request may ask for.
pub(super) fn request_role(request: &Request) -> AccessRole {
    request
        .extensions()
        .get::<ConnectInfo<Caller>>()
        .map_or(AccessRole::None, |ConnectInfo(caller)| caller.access)
}

/// Whether a request may do what it asks for, by its method and path alone; if not, why.
pub(super) fn check_access(request: &Request) -> Result<(), ApiRefusal> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let forbidden = |message: String| Err(ApiRefusal::new(StatusCode::FORBIDDEN, message));
    match request_role(request) {
        AccessRole::Admin => Ok(()),
        AccessRole::Read if reads => Ok(()),
        // Which slot it may be, the body says.
        AccessRole::Lock if FLEET_LOCK.contains(&request.uri().path()) => Ok(()),
        AccessRole::Read => {
            forbidden(format!("{} needs the admin role; this connection may only read", request.method()))
        }
        AccessRole::Lock => {
            forbidden("this connection may only acquire and release its own reboot slot".to_owned())
        }
        AccessRole::None => forbidden("this connection has no role".to_owned()),
    }
}

/// Lets a request through if its connection may ask for it.
pub(super) async fn authorize_request(request: Request, next: Next) -> Response {
    match check_access(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(admin: Option<&str>, read: Option<&str>) -> UnixGroups {
        UnixGroups { admin: admin.map(str::to_owned), lock: None, read: read.map(str::to_owned) }
    }

    #[test]
    fn without_groups_whoever_opens_the_socket_may_do_everything() {
        assert_eq!(groups(None, None).access_of(1000, 1000), AccessRole::Admin);
    }

    #[test]
    fn members_administer_and_others_look() {
        // Group 0 has this name on every system that tests run on.
        let groups = groups(Some("root"), None);

        assert_eq!(groups.access_of(0, 0), AccessRole::Admin);
        assert_eq!(groups.access_of(65534, 0), AccessRole::Admin);
        assert_eq!(groups.access_of(65534, 65534), AccessRole::Read);
    }

    #[test]
    fn who_is_in_neither_group_has_no_role() {
        let groups = groups(Some("no-such-group"), Some("root"));

        assert_eq!(groups.access_of(65534, 65534), AccessRole::None);
        assert_eq!(groups.access_of(65534, 0), AccessRole::Read);
        assert_eq!(groups.access_of(0, 0), AccessRole::Admin);
    }

    #[test]
    fn members_of_the_lock_group_hold_the_slot_of_their_machine() {
        let lock = Some(("root".to_owned(), "m1".to_owned()));
        let groups = UnixGroups { lock, ..groups(Some("no-such-group"), Some("no-such-group")) };

        let caller = groups.identify_peer(65534, 0);

        assert_eq!(caller.access, AccessRole::Lock);
        assert!(caller.may_hold("m1") && !caller.may_hold("m2"));
        assert!(groups.identify_peer(0, 0).may_hold("m2"), "an admin may hold any");
    }

    #[test]
    fn a_certificate_names_whose_slot_its_owner_may_hold() {
        let machine = "148a18ff6e95480a8ab53b17a3b4b4a1";
        let names = vec![machine.to_owned(), "978a225b-3d7b-40e9-acd7-ce9b62f68444".to_owned()];
        let signed = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        let caller = Caller::with_certificate(signed.cert.der().clone());

        assert!(names.iter().all(|name| caller.may_hold(name)));
        for other in ["248a18ff6e95480a8ab53b17a3b4b4a1", "", "127.0.0.1", "a b"] {
            assert!(!caller.may_hold(other), "{other}");
        }
    }
}
