//! The calls that are made over D-Bus: what goes into each, and what comes out.
//!
//! The manager's methods and signals are described in org.freedesktop.systemd1(5), the bus's in the D-Bus
//! specification. Refuses to know why anybody calls. Invariant: every call that this crate sends and every
//! signal that it reads is in [`used_members`], with the very types that are sent and read, so that a test on
//! a real systemd compares all of them.

use serde::{Serialize, de::DeserializeOwned};
use zbus::{OwnedObjectPath, Type};

pub(super) const SERVICE: &str = "org.freedesktop.systemd1";
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(super) const BUS: &str = "org.freedesktop.DBus";
pub(super) const BUS_PATH: &str = "/org/freedesktop/DBus";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// One call: where it goes, its name, and its types.
pub(super) trait Call {
    const SERVICE: &'static str;
    const PATH: &'static str;
    const INTERFACE: &'static str;
    const NAME: &'static str;
    type Body<'a>: Serialize + Type;
    type Answer: DeserializeOwned + Type;
}

/// A member of a D-Bus interface as this crate uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The interface.
    pub interface: &'static str,
    /// The name.
    pub name: &'static str,
    /// The signature of what is sent to it; empty for signals and properties.
    pub takes: String,
    /// The signature of what comes from it.
    pub gives: String,
}

impl Member {
    fn of_call<C: Call>() -> Self {
        let takes = C::Body::SIGNATURE.to_string_no_parens();
        Self { interface: C::INTERFACE, name: C::NAME, takes, gives: body_signature::<C::Answer>() }
    }

    fn read<T: Type>(interface: &'static str, name: &'static str) -> Self {
        Self { interface, name, takes: String::new(), gives: body_signature::<T>() }
    }
}

/// A body of several values has no parentheses around them.
fn body_signature<T: Type>() -> String {
    T::SIGNATURE.to_string_no_parens()
}

/// Makes a type of each call, and one list of all of them: a call that is not in the list cannot be made.
macro_rules! calls {
    ($life:lifetime $($service:ident $path:ident $interface:ident {
        $($name:ident($($body:ty),*) -> $answer:ty;)*
    })*) => {
        $($(
            pub(super) struct $name;

            impl Call for $name {
                const SERVICE: &'static str = $service;
                const PATH: &'static str = $path;
                const INTERFACE: &'static str = $interface;
                const NAME: &'static str = stringify!($name);
                type Body<$life> = ($($body,)*);
                type Answer = $answer;
            }
        )*)*

        fn called_methods() -> Vec<Member> {
            vec![$($(Member::of_call::<$name>()),*),*]
        }
    };
}

/// What systemd changed in its directories: a kind, a link and where it leads.
pub(super) type FileChanges = Vec<(String, String, String)>;
/// One row of `ListUnitsByNames`.
pub(super) type ListedUnit =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
/// A job, its path, its unit and how it ended.
pub(super) type JobRemoved = (u32, OwnedObjectPath, String, String);
/// A name, who had it, and who has it.
pub(super) type NameOwnerChanged = (String, String, String);

calls! { 'a
    SERVICE MANAGER_PATH MANAGER {
        // systemd takes an array here (`as`). A Rust array of fixed length would become a struct (`(s)`),
        // which systemd refuses.
        DisableUnitFiles(&'a [&'a str], bool) -> FileChanges;
        EnableUnitFiles(&'a [&'a str], bool, bool) -> (bool, FileChanges);
        GetUnit(&'a str) -> OwnedObjectPath;
        KillUnit(&'a str, &'a str, i32) -> ();
        ListUnitsByNames(&'a [&'a str]) -> Vec<ListedUnit>;
        Reload() -> ();
        ResetFailedUnit(&'a str) -> ();
        RestartUnit(&'a str, &'a str) -> OwnedObjectPath;
        StartUnit(&'a str, &'a str) -> OwnedObjectPath;
        StopUnit(&'a str, &'a str) -> OwnedObjectPath;
        Subscribe() -> ();
    }
    BUS BUS_PATH BUS {
        AddMatch(&'a str) -> ();
    }
}

/// Every method that is called, every signal and every property that is read.
#[must_use]
pub fn used_members() -> Vec<Member> {
    let mut members = called_methods();
    members.extend([
        Member::read::<NameOwnerChanged>(BUS, "NameOwnerChanged"),
        Member::read::<JobRemoved>(MANAGER, "JobRemoved"),
        Member::read::<String>(UNIT, "ActiveState"),
        Member::read::<String>(UNIT, "SubState"),
    ]);
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_become_the_signatures_that_manuals_print() {
        let shown: Vec<String> = used_members()
            .iter()
            .map(|member| format!("{} {}>{}", member.name, member.takes, member.gives))
            .collect();

        for expected in [
            "AddMatch s>",
            "DisableUnitFiles asb>a(sss)",
            "EnableUnitFiles asbb>ba(sss)",
            "ListUnitsByNames as>a(ssssssouso)",
            "Reload >",
            "StartUnit ss>o",
        ] {
            assert!(shown.contains(&expected.to_owned()), "{expected} in {shown:?}");
        }
    }
}
