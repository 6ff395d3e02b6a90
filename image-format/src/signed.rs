//! Who said it: signed bytes, the keys that may sign them, and the type of what was verified.
//!
//! Knows the text envelope, ed25519 keys and the m-of-n rule. Refuses to know what a payload means
//! (see [`SignedPayload`]) and where keys are kept.
//! Invariant: a [`Verified`] value exists only if enough different trusted keys signed its bytes
//! for its role; nothing of a payload is parsed before that.
//!
//! The envelope is text, so that a person can read it in an editor:
//! `catamaran-signed-v1 ROLE LENGTH`, then a line `ed25519 KEYID SIGNATURE` for each signature, an
//! empty line, then LENGTH bytes of payload and nothing else. A signature covers
//! `catamaran-signed-v1 ROLE`, a line break, and the payload: one for a role is worthless for another.
//!
//! Documentation: RFC 8032 for ed25519, and ed25519-dalek's `VerifyingKey::verify_strict`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::digest::{ParseHexError, Sha256, fixed_from_hex, to_hex};

/// Bytes of the largest envelope that is read.
// It must fit into a trailer, which has 64 KiB.
pub const MAX_ENVELOPE: usize = 48 << 10;
/// Signatures that an envelope may carry.
// Each costs a verification, and nobody has signed the number of them.
pub const MAX_SIGNATURES: usize = 16;
/// Bytes of the longest key text that is read.
pub const MAX_KEY_TEXT: usize = 512;

const MAGIC: &str = "catamaran-signed-v1";
const ALGORITHM: &str = "ed25519";
const PUBLIC_KEY: &str = "catamaran-public-key-v1";
const SECRET_KEY: &str = "catamaran-secret-key-v1";

/// Something that is only believed when it is signed.
pub trait SignedPayload: Sized {
    /// What its signatures are for.
    const ROLE: &'static str;
    /// Why bytes are not such a thing.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Reads it from bytes whose signatures hold.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Self::Error>;
}

/// The short name of a public key: the first half of its SHA-256.
// 128 bits: as hard to forge as an ed25519 signature is, and short enough to be compared by eye.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = ParseHexError;

    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        fixed_from_hex(text).map(Self)
    }
}

/// A key that verifies, with a comment that says whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    comment: String,
}

impl PublicKey {
    /// Its short name.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        let digest = Sha256::digest_of(self.key.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_bytes()[..16]);
        KeyId(id)
    }

    /// Whether a key's line is of the kind that this program reads. One that is not may be of a later one.
    #[must_use]
    pub fn is_known_kind(line: &str) -> bool {
        line.split(' ').next() == Some(PUBLIC_KEY)
    }

    /// Whose key it is, as the file says.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// The one line of its file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let line = format!("{PUBLIC_KEY} {} {}", to_hex(self.key.as_bytes()), self.comment);
        format!("{}\n", line.trim_end())
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let line = one_line(text)?;
        let rest = line.strip_prefix(PUBLIC_KEY).and_then(|rest| rest.strip_prefix(' '));
        let rest = rest.ok_or(ParseKeyError::Kind { expected: PUBLIC_KEY })?;
        let (hex, comment) = rest.split_once(' ').unwrap_or((rest, ""));
        let key = VerifyingKey::from_bytes(&fixed_from_hex(hex)?).map_err(|_| ParseKeyError::Curve)?;
        // A key of small order, for which one signature fits almost any message.
        if key.is_weak() {
            return Err(ParseKeyError::Weak);
        }
        if comment.chars().any(char::is_control) {
            return Err(ParseKeyError::Comment);
        }
        Ok(Self { key, comment: comment.to_owned() })
    }
}

/// A key that signs. Its text is a secret; `Debug` does not show it.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key of a seed, which must be 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub fn public_key(&self, comment: &str) -> PublicKey {
        // The text is one line, and its length is bounded when it is read.
        let comment = comment.chars().filter(|c| !c.is_control()).take(128).collect();
        PublicKey { key: self.0.verifying_key(), comment }
    }

    /// The one line of its file.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{SECRET_KEY} {}\n", to_hex(self.0.as_bytes()))
    }
}

impl FromStr for SecretKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let hex = one_line(text)?.strip_prefix(SECRET_KEY).and_then(|rest| rest.strip_prefix(' '));
        let hex = hex.ok_or(ParseKeyError::Kind { expected: SECRET_KEY })?;
        // The cause would quote a character of the secret.
        let seed = fixed_from_hex(hex).map_err(|_| ParseKeyError::Secret)?;
        Ok(Self::from_seed(&seed))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public_key("").key_id())
    }
}

/// Signed bytes, of which nothing is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    signatures: Vec<(KeyId, [u8; 64])>,
    payload: Vec<u8>,
    of: PhantomData<T>,
}

impl<T: SignedPayload> Signed<T> {
    /// Signs a payload with each of these keys.
    #[must_use]
    pub fn sign_payload(payload: Vec<u8>, keys: &[SecretKey]) -> Self {
        let message = signed_message(T::ROLE, &payload);
        let sign = |key: &SecretKey| (key.public_key("").key_id(), key.0.sign(&message).to_bytes());
        Self { signatures: keys.iter().map(sign).collect(), payload, of: PhantomData }
    }

    /// Takes an envelope apart without believing any of it.
    pub fn from_envelope(bytes: &[u8]) -> Result<Self, ParseEnvelopeError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(ParseEnvelopeError::TooLarge { given: bytes.len() });
        }
        let mut rest = bytes;
        let length = read_head(next_line(&mut rest)?, T::ROLE)?;
        let (mut signatures, mut lines) = (Vec::new(), 0);
        loop {
            let line = next_line(&mut rest)?;
            if line.is_empty() {
                break;
            }
            lines += 1;
            if lines > MAX_SIGNATURES {
                return Err(ParseEnvelopeError::TooManySignatures);
            }
            signatures.extend(read_signature(line)?);
        }
        if rest.len() != length {
            return Err(ParseEnvelopeError::Length { promised: length, given: rest.len() });
        }
        Ok(Self { signatures, payload: rest.to_vec(), of: PhantomData })
    }

    /// The digest of what is signed: the same whoever signed it.
    #[must_use]
    pub fn payload_digest(&self) -> Sha256 {
        Sha256::digest_of(&self.payload)
    }

    /// The bytes that are signed, before anybody verified that: for a document that names its own keys.
    pub(crate) fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// Adds the signatures of more keys: for a threshold whose keys are not in one place. A key that has signed
    /// already signs anew.
    #[must_use]
    pub fn signed_also(mut self, keys: &[SecretKey]) -> Self {
        let more = Self::sign_payload(self.payload.clone(), keys).signatures;
        self.signatures.retain(|(id, _)| more.iter().all(|(other, _)| other != id));
        self.signatures.extend(more);
        self
    }

    /// The keys that claim to have signed.
    pub fn claimed_signers(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.signatures.iter().map(|(id, _)| *id)
    }

    /// The envelope as bytes.
    #[must_use]
    pub fn to_envelope(&self) -> Vec<u8> {
        let mut head = format!("{MAGIC} {} {}\n", T::ROLE, self.payload.len());
        for (id, signature) in &self.signatures {
            head.extend([ALGORITHM, " ", &id.to_string(), " ", &to_hex(signature), "\n"]);
        }
        head.push('\n');
        [head.as_bytes(), &self.payload].concat()
    }
}

/// The keys that are trusted, and how many of them must agree.
#[derive(Debug, Clone)]
pub struct Keyring {
    keys: BTreeMap<KeyId, PublicKey>,
    threshold: usize,
}

impl Keyring {
    /// A keyring of these keys, of which `threshold` different ones must have signed.
    pub fn new(
        keys: impl IntoIterator<Item = PublicKey>,
        threshold: usize,
    ) -> Result<Self, MakeKeyringError> {
        let keys: BTreeMap<KeyId, PublicKey> = keys.into_iter().map(|key| (key.key_id(), key)).collect();
        if threshold == 0 || threshold > keys.len() {
            return Err(MakeKeyringError { keys: keys.len(), threshold });
        }
        Ok(Self { keys, threshold })
    }

    /// Verifies the signatures, and only then reads the payload.
    pub fn verify_signed<T: SignedPayload>(
        &self,
        signed: &Signed<T>,
    ) -> Result<Verified<T>, VerifyError<T::Error>> {
        let message = signed_message(T::ROLE, &signed.payload);
        let mut signers: Vec<KeyId> = Vec::new();
        for (id, signature) in &signed.signatures {
            // A signature by a stranger is no crime: the next release may carry a new key's too.
            let Some(trusted) = self.keys.get(id) else { continue };
            let signature = Signature::from_bytes(signature);
            // Plain `verify` takes signatures that other programs refuse, since RFC 8032 leaves the check of
            // small orders open.
            let holds = trusted.key.verify_strict(&message, &signature);
            holds.map_err(|_| VerifyError::Signature { key: *id })?;
            // Two signatures by one key are one person's word.
            if !signers.contains(id) {
                signers.push(*id);
            }
        }
        if signers.len() < self.threshold {
            let (found, needed) = (signers.len(), self.threshold);
            return Err(VerifyError::Threshold { role: T::ROLE, found, needed });
        }
        // Only now. A parser is the largest thing here that could be attacked.
        let value = T::from_bytes(&signed.payload).map_err(|source| VerifyError::Payload { source })?;
        Ok(Verified { value, signers })
    }
}

/// A value whose signatures held. Only [`Keyring::verify_signed`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    signers: Vec<KeyId>,
}

impl<T> Verified<T> {
    /// The trusted keys that signed it, each once.
    #[must_use]
    pub fn trusted_signers(&self) -> &[KeyId] {
        &self.signers
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParseKeyError {
    #[error("the key's comment has control characters")]
    Comment,
    #[error("the number is not a point of the curve")]
    Curve,
    #[error("the key is not written in hexadecimal")]
    Hex(#[from] ParseHexError),
    #[error("the text does not begin with {expected:?}")]
    Kind { expected: &'static str },
    #[error("a key is one line of at most {MAX_KEY_TEXT} bytes")]
    Line,
    #[error("the secret is not 64 hexadecimal digits")]
    Secret,
    #[error("the key is weak: any message would seem signed by it")]
    Weak,
}

/// Why bytes are not an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParseEnvelopeError {
    #[error("the first line is not {MAGIC:?}, a role and a length")]
    Head,
    #[error("the envelope promises {promised} bytes of payload, but has {given}")]
    Length { promised: usize, given: usize },
    #[error("the envelope ends in the middle of its lines")]
    Lines,
    #[error("the envelope is for the role {given:?}, not {expected:?}")]
    Role { given: String, expected: &'static str },
    #[error("a signature line is not its kind, a key id and a signature")]
    Signature,
    #[error("the envelope has {given} bytes, at most {MAX_ENVELOPE} are read")]
    TooLarge { given: usize },
    #[error("the envelope has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
}

/// A keyring must have at least as many keys as must agree, and at least one must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{threshold} of {keys} keys are to agree, which is not possible")]
pub struct MakeKeyringError {
    keys: usize,
    threshold: usize,
}

/// Why signed bytes are not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum VerifyError<E: std::error::Error + 'static> {
    #[error("the signatures hold, but the payload cannot be read")]
    Payload { source: E },
    #[error("the signature by trusted key {key} does not match")]
    Signature { key: KeyId },
    #[error("{found} trusted keys signed the {role}, but {needed} must")]
    Threshold { role: &'static str, found: usize, needed: usize },
}

fn signed_message(role: &str, payload: &[u8]) -> Vec<u8> {
    // A role has no line break, so no payload can make the beginning of another role's message.
    [format!("{MAGIC} {role}\n").as_bytes(), payload].concat()
}

fn one_line(text: &str) -> Result<&str, ParseKeyError> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    if text.len() > MAX_KEY_TEXT || line.contains('\n') { Err(ParseKeyError::Line) } else { Ok(line) }
}

fn next_line<'a>(rest: &mut &'a [u8]) -> Result<&'a str, ParseEnvelopeError> {
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(ParseEnvelopeError::Lines)?;
    let (line, after) = rest.split_at(end);
    *rest = &after[1..];
    str::from_utf8(line).map_err(|_| ParseEnvelopeError::Lines)
}

fn read_head(line: &str, expected: &'static str) -> Result<usize, ParseEnvelopeError> {
    let words: Vec<&str> = line.split(' ').collect();
    let [MAGIC, role, length] = words[..] else { return Err(ParseEnvelopeError::Head) };
    if role != expected {
        let given = role.chars().take(32).collect();
        return Err(ParseEnvelopeError::Role { given, expected });
    }
    // Rust's `parse` would take a `+`, too.
    let canonical = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    length.parse().ok().filter(|_| canonical).ok_or(ParseEnvelopeError::Head)
}

/// A signature, or nothing if it is of a kind that a later program may know: a document that is signed by old keys
/// and by such ones is believed by old programs for the old keys.
fn read_signature(line: &str) -> Result<Option<(KeyId, [u8; 64])>, ParseEnvelopeError> {
    let words: Vec<&str> = line.split(' ').collect();
    let [algorithm, id, signature] = words[..] else { return Err(ParseEnvelopeError::Signature) };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if algorithm.is_empty() || !algorithm.bytes().all(plain) {
        return Err(ParseEnvelopeError::Signature);
    }
    if algorithm != ALGORITHM {
        return Ok(None);
    }
    let id = fixed_from_hex(id).map_err(|_| ParseEnvelopeError::Signature)?;
    let signature = fixed_from_hex(signature).map_err(|_| ParseEnvelopeError::Signature)?;
    Ok(Some((KeyId(id), signature)))
}

#[cfg(test)]
mod tests;
