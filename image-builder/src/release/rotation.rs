//! Root metadata, made and changed: who may sign from the next number on.
//!
//! Pure: a root and a wish in, the next root out. Refuses to know files and the clock.
//! Invariants: the number grows by exactly one; a root key has no other role, since it then could not stay offline.

use std::time::Duration;

use image_format::release::root::{self, Role, RoleKeys, Roles, RootError, RootMetadata};
use image_format::release::time::UnixTime;
use image_format::signed::{KeyId, PublicKey};

/// What is to be different in the next root.
#[derive(Debug, Clone, Default)]
pub(super) struct RotationWish {
    /// Keys that come.
    pub(super) add: Vec<(Role, PublicKey)>,
    /// Keys that go; of every role, if none is named.
    pub(super) remove: Vec<(Option<Role>, KeyId)>,
    /// How many must agree.
    pub(super) thresholds: Vec<(Role, usize)>,
}

/// The first root of a repository.
pub(super) fn first_root(
    wish: RotationWish,
    now: UnixTime,
    lifetime: Duration,
) -> Result<RootMetadata, RotateError> {
    let none = || RoleKeys { threshold: 1, keys: Vec::new() };
    let roles = Roles { channel: none(), release: none(), root: none() };
    let before = RootMetadata { format: root::FORMAT, number: 0, written: now, expires: now, roles };
    next_root(&before, wish, now, lifetime)
}

/// The root that follows.
pub(super) fn next_root(
    before: &RootMetadata,
    wish: RotationWish,
    now: UnixTime,
    lifetime: Duration,
) -> Result<RootMetadata, RotateError> {
    let mut next = before.clone();
    next.number = before.number.checked_add(1).ok_or(RotateError::NumberEnds)?;
    // Computers that are kept offline often have no clock that runs: what they sign would have expired on arrival.
    if now < before.written {
        return Err(RotateError::ClockBehind { now, before: before.written });
    }
    next.written = now;
    next.expires = next.written.saturating_add(lifetime);
    for (role, id) in wish.remove {
        remove_key(&mut next, role, id)?;
    }
    for (role, key) in wish.add {
        let keys = role_mut(&mut next.roles, role);
        if keys.known_keys().unwrap_or_default().iter().all(|known| known.key_id() != key.key_id()) {
            keys.keys.push(key.to_text().trim_end().to_owned());
        }
    }
    for (role, threshold) in wish.thresholds {
        role_mut(&mut next.roles, role).threshold = threshold;
    }
    check_root_keys(&next)?;
    next.to_bytes()?;
    Ok(next)
}

fn role_mut(roles: &mut Roles, role: Role) -> &mut RoleKeys {
    match role {
        Role::Channel => &mut roles.channel,
        Role::Release => &mut roles.release,
        Role::Root => &mut roles.root,
    }
}

fn remove_key(next: &mut RootMetadata, role: Option<Role>, id: KeyId) -> Result<(), RotateError> {
    let is_key = |line: &String| line.parse::<PublicKey>().is_ok_and(|key| key.key_id() == id);
    let mut found = false;
    for candidate in Role::ALL.into_iter().filter(|candidate| role.is_none_or(|role| role == *candidate)) {
        let keys = role_mut(&mut next.roles, candidate);
        found |= keys.keys.iter().any(is_key);
        keys.keys.retain(|line| !is_key(line));
    }
    if found { Ok(()) } else { Err(RotateError::UnknownKey { id, role: role.map_or("any", Role::name) }) }
}

fn check_root_keys(next: &RootMetadata) -> Result<(), RotateError> {
    let of = |role| next.role_keys(role).known_keys().unwrap_or_default();
    for role in [Role::Channel, Role::Release] {
        let shared =
            of(role).into_iter().find(|key| of(Role::Root).iter().any(|root| root.key_id() == key.key_id()));
        if let Some(key) = shared {
            return Err(RotateError::RootKeyOnline { id: key.key_id(), role: role.name() });
        }
    }
    Ok(())
}

/// Why there is no next root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    #[error(
        "this computer's clock says {now}, but the newest root metadata was written at {before}: set the clock first"
    )]
    ClockBehind { now: UnixTime, before: UnixTime },
    #[error("the chain of roots has come to its last number")]
    NumberEnds,
    #[error("the next root metadata would not be believed")]
    Root(#[from] RootError),
    #[error(
        "key {id} is to be a root key and a {role} key, but a root key must stay offline, and a {role} key cannot: \
         make one key for each with `keys new`"
    )]
    RootKeyOnline { id: KeyId, role: &'static str },
    #[error("the newest root metadata has no key {id} in {role} role: `keys list` shows those it has")]
    UnknownKey { id: KeyId, role: &'static str },
}

#[cfg(test)]
mod tests {
    use image_format::release::root::TrustedRoot;
    use image_format::signed::{SecretKey, Signed};

    use super::*;

    const NOW: UnixTime = UnixTime::from_seconds(1_795_825_359);
    const YEAR: Duration = Duration::from_hours(365 * 24);

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn public(seed: u8) -> PublicKey {
        key(seed).public_key("test")
    }

    fn first() -> RootMetadata {
        let add = vec![
            (Role::Root, public(1)),
            (Role::Root, public(2)),
            (Role::Channel, public(20)),
            (Role::Release, public(30)),
        ];
        let thresholds = vec![(Role::Root, 2)];
        first_root(RotationWish { add, thresholds, ..RotationWish::default() }, NOW, YEAR).unwrap()
    }

    fn signed(root: &RootMetadata, seeds: &[u8]) -> Vec<u8> {
        let keys: Vec<SecretKey> = seeds.iter().map(|seed| key(*seed)).collect();
        Signed::<RootMetadata>::sign_payload(root.to_bytes().unwrap(), &keys).to_envelope()
    }

    #[test]
    fn a_lost_release_key_is_replaced_and_machines_follow() {
        let trusted = TrustedRoot::anchor_chain(&signed(&first(), &[1, 2])).unwrap();
        let wish = RotationWish {
            add: vec![(Role::Release, public(31))],
            remove: vec![(Some(Role::Release), public(30).key_id())],
            thresholds: Vec::new(),
        };

        let second = next_root(&first(), wish, NOW, YEAR).unwrap();

        let trusted = trusted.next(&signed(&second, &[1, 2])).unwrap();
        assert_eq!((trusted.number(), trusted.metadata().expires), (2, NOW.saturating_add(YEAR)));
        assert_eq!(trusted.metadata().role_keys(Role::Release).known_keys().unwrap(), [public(31)]);
    }

    #[test]
    fn a_revoked_key_leaves_every_role() {
        let wish =
            |remove| RotationWish { remove, add: vec![(Role::Root, public(3))], ..RotationWish::default() };

        let second = next_root(&first(), wish(vec![(None, public(1).key_id())]), NOW, YEAR).unwrap();

        assert_eq!(second.role_keys(Role::Root).known_keys().unwrap(), [public(2), public(3)]);
        let unknown = next_root(&first(), wish(vec![(None, public(9).key_id())]), NOW, YEAR).unwrap_err();
        assert!(matches!(unknown, RotateError::UnknownKey { role: "any", .. }));
    }

    #[test]
    fn no_role_is_left_without_enough_keys() {
        let wish = RotationWish { remove: vec![(None, public(30).key_id())], ..RotationWish::default() };

        let refused = next_root(&first(), wish, NOW, YEAR).unwrap_err();

        assert!(
            matches!(refused, RotateError::Root(RootError::Threshold { role: "release", .. })),
            "{refused}"
        );
    }

    #[test]
    fn an_offline_computer_without_a_clock_signs_nothing() {
        let refused =
            next_root(&first(), RotationWish::default(), UnixTime::from_seconds(60), YEAR).unwrap_err();

        assert!(
            refused.to_string().starts_with("this computer's clock says 1970-01-01T00:01:00Z"),
            "{refused}"
        );
    }

    #[test]
    fn a_root_key_stays_offline() {
        let wish = RotationWish { add: vec![(Role::Release, public(1))], ..RotationWish::default() };

        assert!(matches!(
            next_root(&first(), wish, NOW, YEAR),
            Err(RotateError::RootKeyOnline { role: "release", .. })
        ));
    }
}
