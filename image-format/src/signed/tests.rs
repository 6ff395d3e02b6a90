//! Facts about envelopes, keys and thresholds.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Note(String);

impl SignedPayload for Note {
    const ROLE: &'static str = "note";
    type Error = std::str::Utf8Error;

    fn from_bytes(bytes: &[u8]) -> Result<Self, Self::Error> {
        str::from_utf8(bytes).map(|text| Self(text.to_owned()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Order;

impl SignedPayload for Order {
    const ROLE: &'static str = "order";
    type Error = std::convert::Infallible;

    fn from_bytes(_: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self)
    }
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn ring(seeds: &[u8], threshold: usize) -> Keyring {
    Keyring::new(seeds.iter().map(|seed| key(*seed).public_key("test")), threshold).unwrap()
}

fn note(signers: &[u8]) -> Signed<Note> {
    let keys: Vec<SecretKey> = signers.iter().map(|seed| key(*seed)).collect();
    Signed::sign_payload(b"hello".to_vec(), &keys)
}

#[test]
fn what_enough_trusted_keys_signed_is_read() {
    let verified = ring(&[1, 2, 3], 2).verify_signed(&note(&[3, 1])).unwrap();

    assert_eq!(*verified, Note("hello".into()));
    assert_eq!(verified.trusted_signers(), [key(3).public_key("").key_id(), key(1).public_key("").key_id()]);
}

#[test]
fn an_envelope_is_text_and_survives_its_bytes() {
    let signed = note(&[1]);
    let envelope = signed.to_envelope();

    let text = String::from_utf8(envelope.clone()).unwrap();
    assert!(text.starts_with("catamaran-signed-v1 note 5\ned25519 "), "{text}");
    assert!(text.ends_with("\n\nhello"), "{text}");
    assert_eq!(Signed::from_envelope(&envelope), Ok(signed));
}

#[test]
fn one_key_that_signs_twice_counts_once() {
    let refused = ring(&[1, 2], 2).verify_signed(&note(&[1, 1])).unwrap_err();

    assert_eq!(refused.to_string(), "1 trusted keys signed the note, but 2 must");
}

#[test]
fn a_key_that_is_trusted_twice_counts_once() {
    let keys = [key(1).public_key("one"), key(1).public_key("the same")];

    let refused = Keyring::new(keys, 2).unwrap_err();

    assert_eq!(refused.to_string(), "2 of 1 keys are to agree, which is not possible");
    assert!(Keyring::new([key(1).public_key("")], 0).is_err());
}

#[test]
fn strangers_signatures_are_worth_nothing_and_harm_nothing() {
    assert!(ring(&[1], 1).verify_signed(&note(&[9, 1])).is_ok());
    assert!(matches!(ring(&[1], 1).verify_signed(&note(&[9])), Err(VerifyError::Threshold { found: 0, .. })));
    assert!(matches!(ring(&[1], 1).verify_signed(&note(&[])), Err(VerifyError::Threshold { found: 0, .. })));
}

#[test]
fn a_changed_payload_or_signature_is_refused() {
    let mut payload = note(&[1]);
    payload.payload[0] ^= 1;
    let mut signature = note(&[1]);
    signature.signatures[0].1[0] ^= 1;
    for forged in [payload, signature] {
        assert!(matches!(ring(&[1], 1).verify_signed(&forged), Err(VerifyError::Signature { .. })));
    }
}

#[test]
fn a_signature_for_one_role_is_worthless_for_another() {
    let order =
        Signed::<Order> { signatures: note(&[1]).signatures, payload: b"hello".to_vec(), of: PhantomData };

    assert!(matches!(ring(&[1], 1).verify_signed(&order), Err(VerifyError::Signature { .. })));
    assert_eq!(
        Signed::<Order>::from_envelope(&note(&[1]).to_envelope()).unwrap_err().to_string(),
        "the envelope is for the role \"note\", not \"order\""
    );
}

#[test]
fn a_key_for_which_anything_seems_signed_is_refused() {
    let identity = format!("{PUBLIC_KEY} 01{}\n", "00".repeat(31));

    assert_eq!(identity.parse::<PublicKey>(), Err(ParseKeyError::Weak));
}

#[test]
fn keys_survive_their_texts() {
    let public = key(7).public_key("release key of the hull");

    assert_eq!(public.to_text().parse(), Ok(public.clone()));
    assert_eq!(public.comment(), "release key of the hull");
    let bare = key(7).public_key("");
    assert_eq!(bare.to_text().parse(), Ok(bare));
    let again: SecretKey = key(7).to_text().parse().unwrap();
    assert_eq!(again.public_key("").key_id(), public.key_id());
}

#[test]
fn texts_that_are_no_keys_are_refused_and_secrets_are_not_repeated() {
    let good = key(7).public_key("x").to_text();
    assert_eq!("".parse::<PublicKey>(), Err(ParseKeyError::Kind { expected: PUBLIC_KEY }));
    assert_eq!(format!("{good}{good}").parse::<PublicKey>(), Err(ParseKeyError::Line));
    assert_eq!(key(7).to_text().parse::<PublicKey>(), Err(ParseKeyError::Kind { expected: PUBLIC_KEY }));
    assert_eq!(good.parse::<SecretKey>().unwrap_err(), ParseKeyError::Kind { expected: SECRET_KEY });
    assert!(matches!(format!("{PUBLIC_KEY} 00").parse::<PublicKey>(), Err(ParseKeyError::Hex(_))));
    assert_eq!(format!("{SECRET_KEY} hunter2").parse::<SecretKey>().unwrap_err(), ParseKeyError::Secret);
    assert!(!format!("{:?}", key(7)).contains("0707"));
}

#[test]
fn what_is_not_exactly_an_envelope_is_refused() {
    let good = String::from_utf8(note(&[1]).to_envelope()).unwrap();
    let line = good.lines().nth(1).unwrap();
    let cases = [
        (String::new(), ParseEnvelopeError::Lines),
        ("catamaran-signed-v2 note 5\n\nhello".into(), ParseEnvelopeError::Head),
        ("catamaran-signed-v1 note +5\n\nhello".into(), ParseEnvelopeError::Head),
        ("catamaran-signed-v1 note 99999999999999999999999\n\nhello".into(), ParseEnvelopeError::Head),
        ("catamaran-signed-v1 note 5\nhello".into(), ParseEnvelopeError::Lines),
        ("catamaran-signed-v1 note 5\nRSA! 00 00\n\nhello".into(), ParseEnvelopeError::Signature),
        (format!("{good}!"), ParseEnvelopeError::Length { promised: 5, given: 6 }),
        (good[..good.len() - 1].into(), ParseEnvelopeError::Length { promised: 5, given: 4 }),
        (good.replace(line, &format!("{line}\n").repeat(17)), ParseEnvelopeError::TooManySignatures),
        ("x".repeat(MAX_ENVELOPE + 1), ParseEnvelopeError::TooLarge { given: MAX_ENVELOPE + 1 }),
    ];
    for (text, expected) in cases {
        assert_eq!(Signed::<Note>::from_envelope(text.as_bytes()), Err(expected));
    }
}

proptest! {
    #[test]
    fn the_parser_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Signed::<Note>::from_envelope(&bytes);
        let _ = Signed::<Note>::from_envelope(&[b"catamaran-signed-v1 note 5\n", bytes.as_slice()].concat());
        let _ = String::from_utf8_lossy(&bytes).parse::<PublicKey>();
    }
}

#[test]
fn a_signature_of_a_later_kind_counts_for_nothing_and_harms_nothing() {
    let envelope = String::from_utf8(note(&[1]).to_envelope()).unwrap();
    let both = envelope.replacen("\ned25519 ", "\nml-dsa-65 0011 00ff\ned25519 ", 1);
    let alone = envelope.replace("\ned25519 ", "\ned448 ");

    assert!(ring(&[1], 1).verify_signed(&Signed::<Note>::from_envelope(both.as_bytes()).unwrap()).is_ok());
    let refused = ring(&[1], 1).verify_signed(&Signed::<Note>::from_envelope(alone.as_bytes()).unwrap());
    assert!(matches!(refused, Err(VerifyError::Threshold { found: 0, .. })));
    assert!(PublicKey::is_known_kind(&key(1).public_key("Ann").to_text()));
    assert!(!PublicKey::is_known_kind("catamaran-public-key-v2 00 Ann"));
}

#[test]
fn a_document_gathers_signatures_from_several_places() {
    let signed = note(&[1]).signed_also(&[key(2)]).signed_also(&[key(1)]);

    assert_eq!(signed.claimed_signers().count(), 2);
    assert!(ring(&[1, 2, 3], 2).verify_signed(&signed).is_ok());
    assert_eq!(signed.payload_digest(), Sha256::digest_of(b"hello"));
}
