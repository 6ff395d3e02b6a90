use super::*;

/// An element of DER, in its short or its long form.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82][..], &length, content].concat()
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

fn name(common: &str) -> Vec<u8> {
    let pair = |oid: &[u8], value: &str| {
        element(0x31, &sequence(&[element(0x06, oid), element(0x0c, value.as_bytes())]))
    };
    sequence(&[pair(&[0x55, 4, 6], "US"), pair(&[0x55, 4, 3], common)])
}

/// A signature over a digest, as far as it is read.
fn signature(issuer: &str, digest: Sha256) -> Vec<u8> {
    let (number, oid) = (element(2, &[1]), element(6, &[1]));
    let digest_info = sequence(&[sequence(std::slice::from_ref(&oid)), element(4, digest.as_bytes())]);
    let indirect = sequence(&[sequence(std::slice::from_ref(&oid)), digest_info]);
    let content = sequence(&[oid.clone(), element(0xa0, &indirect)]);
    let signer = sequence(&[number.clone(), sequence(&[name(issuer), number.clone()])]);
    let signed = sequence(&[number, element(0x31, &[]), content, element(0xa0, &[]), element(0x31, &signer)]);
    sequence(&[oid, element(0xa0, &signed)])
}

const CHECKSUM: usize = 0x40 + 24 + 64;
const CERTIFICATE_ENTRY: usize = 0x40 + 24 + 112 + 32;
const HEADERS: usize = 0x200;

/// A program with a section `.sbat`, signed by these.
fn program(sbat: &str, issuers: &[&str]) -> Vec<u8> {
    let mut bytes = vec![0; HEADERS];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let number = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    put(0, b"MZ");
    put(0x3c, &number(0x40));
    put(0x40, b"PE\0\0");
    put(0x46, &[1, 0]);
    put(0x54, &[240, 0]);
    put(0x58, &[0x0b, 0x02]);
    let section = 0x58 + 240;
    put(section, b".sbat\0");
    put(section + 8, &number(sbat.len()));
    put(section + 16, &number(512));
    put(section + 20, &number(HEADERS));
    bytes.extend(sbat.as_bytes());
    bytes.resize(HEADERS + 512, 0);
    let end = bytes.len();
    bytes[CERTIFICATE_ENTRY..CERTIFICATE_ENTRY + 4].copy_from_slice(&number(end));
    let digest = PeHeaders::read(&bytes).unwrap().authenticode_digest(&bytes).unwrap();
    for issuer in issuers {
        let signed = signature(issuer, digest);
        bytes.extend(number(8 + signed.len()));
        bytes.extend([0, 2, 2, 0]);
        bytes.extend(signed);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let length = number(bytes.len() - end);
    bytes[CERTIFICATE_ENTRY + 4..CERTIFICATE_ENTRY + 8].copy_from_slice(&length);
    bytes
}

const SBAT: &str = "sbat,1,SBAT Version,sbat,1,https://example\nshim,4,UEFI shim,shim,1,https://example\n\
                    shim.debian,1,Debian,shim,16.1,https://example\n";

#[test]
fn a_program_says_who_signed_it_and_its_levels() {
    let program = EfiProgram::parse(&program(SBAT, &[MICROSOFT_2011, MICROSOFT_2023])).unwrap();

    assert_eq!(program.missing_by_firmware(), [""; 0]);
    assert_eq!(
        program.to_string(),
        "signed by \"Microsoft Corporation UEFI CA 2011\" and signed by \"Microsoft UEFI CA 2023\"; \
         shim 4, shim.debian 1"
    );
}

#[test]
fn a_program_with_one_of_the_two_says_which_is_missing() {
    let one = EfiProgram::parse(&program(SBAT, &[MICROSOFT_2011])).unwrap();
    let none = EfiProgram::parse(&program("", &["Debian Secure Boot CA"])).unwrap();

    assert_eq!(one.missing_by_firmware(), [MICROSOFT_2023]);
    assert_eq!(none.missing_by_firmware().len(), 2);
    assert_eq!(none.to_string(), "signed by \"Debian Secure Boot CA\"; no SBAT level");
    assert_eq!(EfiProgram::parse(&program("", &[])).unwrap().to_string(), "unsigned; no SBAT level");
}

#[test]
fn a_program_that_was_changed_since_does_not_fit_and_the_checksum_is_not_signed() {
    let whole = program(SBAT, &[MICROSOFT_2023]);
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        EfiProgram::parse(&bytes).unwrap()
    };

    for at in [0x10, HEADERS + 9, HEADERS + 511] {
        let program = flipped(at);
        assert_eq!(program.missing_by_firmware().len(), 2, "{at}");
        assert!(program.to_string().contains("DOES NOT FIT"), "{program}");
    }
    assert!(flipped(CHECKSUM).is_signed_by(MICROSOFT_2023));
}

#[test]
fn what_is_cut_short_is_refused_and_never_panics() {
    let whole = program(SBAT, &[MICROSOFT_2011]);

    for length in 0..whole.len() - 8 {
        assert!(EfiProgram::parse(&whole[..length]).is_err(), "{length}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] = 0xff;
        // Whatever it says, it ends.
        let _ = EfiProgram::parse(&bytes);
    }
}

#[test]
fn a_program_with_a_lower_level_is_below_the_other() {
    let read = |sbat: &str| EfiProgram::parse(&program(sbat, &[MICROSOFT_2023])).unwrap();
    let (old, new) = (read("shim,3,x\nshim.debian,1,x\n"), read("shim,4,x\nshim.debian,1,x\n"));

    assert!(old.is_below(&new) && !new.is_below(&old) && !new.is_below(&new));
    assert!(read("").is_below(&old) && read("shim,9,x\n").is_below(&old));
    assert!(new.is_intact() && !EfiProgram::parse(&program("", &[])).unwrap().is_intact());
}
