//! Who may do what: everything, or look.
//!
//! A request's rights come from the connection it arrives on: the peer's credentials on a unix socket,
//! the authority that signed its certificate in TLS, a fixed right on plain TCP. Reading is `GET` and
//! `HEAD`; all else changes something.

use super::answer::Refusal;
use axum::extract::Request;
use axum::extract::connect_info::ConnectInfo;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use nix::unistd::{Gid, Group, Uid, User};
use std::ffi::CString;

/// What a connection may ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Everything.
    Admin,
    /// Nothing.
    None,
    /// To be told.
    Read,
}

/// Which users of a unix socket may do what. Root may do everything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UnixGroups {
    /// Members may do everything; without it, whoever can open the socket may, as it always was.
    pub admin: Option<String>,
    /// Members may look; without it, whoever can open the socket may.
    pub read: Option<String>,
}

impl UnixGroups {
    /// The rights of a peer.
    #[must_use]
    pub fn access(&self, uid: u32, gid: u32) -> Access {
        let Some(admin) = &self.admin else { return Access::Admin };
        if uid == 0 || is_member(admin, uid, gid) {
            return Access::Admin;
        }
        match &self.read {
            Some(read) if !is_member(read, uid, gid) => Access::None,
            _ => Access::Read,
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
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    let Ok(login) = CString::new(user.name) else { return false };
    nix::unistd::getgrouplist(&login, user.gid).is_ok_and(|groups| groups.contains(&group.gid))
}

/// What the connection of a request may ask for.
pub(super) fn of(request: &Request) -> Access {
    request.extensions().get::<ConnectInfo<Access>>().map_or(Access::None, |ConnectInfo(access)| *access)
}

/// Lets a request through if its connection may ask for it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let access = of(&request);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match access {
        Access::Admin => next.run(request).await,
        Access::Read if reads => next.run(request).await,
        Access::Read => {
            let message = format!("{} needs the admin role; this connection may only read", request.method());
            Refusal::new(StatusCode::FORBIDDEN, message).into_response()
        }
        Access::None => Refusal::new(StatusCode::FORBIDDEN, "this connection has no role").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(admin: Option<&str>, read: Option<&str>) -> UnixGroups {
        UnixGroups { admin: admin.map(str::to_owned), read: read.map(str::to_owned) }
    }

    #[test]
    fn without_groups_whoever_opens_the_socket_may_do_everything() {
        assert_eq!(groups(None, None).access(1000, 1000), Access::Admin);
    }

    #[test]
    fn members_administer_and_others_look() {
        // Group 0 has this name on every system that tests run on.
        let groups = groups(Some("root"), None);

        assert_eq!(groups.access(0, 0), Access::Admin);
        assert_eq!(groups.access(65534, 0), Access::Admin);
        assert_eq!(groups.access(65534, 65534), Access::Read);
    }

    #[test]
    fn who_is_in_neither_group_has_no_role() {
        let groups = groups(Some("no-such-group"), Some("root"));

        assert_eq!(groups.access(65534, 65534), Access::None);
        assert_eq!(groups.access(65534, 0), Access::Read);
        assert_eq!(groups.access(0, 0), Access::Admin);
    }
}
