//! What firmware and shim go by in a signed EFI program: who signed it, whether it is what they signed, and its
//! SBAT levels, by which a revoked program is refused.
//!
//! Knows the places of these things in a PE file. Refuses to check the signatures' arithmetic: firmware does, with
//! certificates that it has and this program has not. But each signature is over a digest of the program, and that
//! is compared: a program that was damaged or changed since is found out. Everything read may be forged, so nothing
//! is believed about its lengths. Pure.
//!
//! Documentation: Microsoft's "PE Format" and "Windows Authenticode Portable Executable Signature Format"; RFC 2315
//! for PKCS #7; <https://github.com/rhboot/shim/blob/main/SBAT.md>.

use std::fmt;

use serde::Serialize;

use crate::digest::Sha256;
use der::Element;

/// The elements of a signature.
mod der;

/// Of the two keys with which Microsoft signs shim, the older: what machines before 2023 know. It expires in 2026,
/// from when on Microsoft signs with the other one only.
pub const MICROSOFT_2011: &str = "Microsoft Corporation UEFI CA 2011";
/// The newer: what some machines since 2025 know alone.
pub const MICROSOFT_2023: &str = "Microsoft UEFI CA 2023";

/// `WIN_CERT_TYPE_PKCS_SIGNED_DATA`.
const PKCS_SIGNED_DATA: u16 = 2;
/// Rounded up to this, one certificate follows the other.
const CERTIFICATE_ALIGNMENT: usize = 8;
/// Longer tables are not SBAT: shim's has three lines, GRUB's five.
const MOST_SBAT: usize = 64 << 10;

/// One line of the table `.sbat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SbatLevel {
    /// A name that revocations go by, as `shim` or `grub.debian`.
    pub component: String,
    /// The generation: what is below the machine's level is refused.
    pub level: u32,
}

/// A signature of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgramSignature {
    /// The common name of who issued the signer's certificate; firmware knows that one.
    pub issuer: String,
    /// Whether the digest that was signed is that of this program.
    pub fits: bool,
}

/// What is to be known of an EFI program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EfiProgram {
    /// In the order of the file.
    pub signatures: Vec<ProgramSignature>,
    /// Its levels; none if it is too old to have any.
    pub sbat: Vec<SbatLevel>,
}

/// Why bytes are no EFI program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no EFI program that can be read: {what}")]
pub struct ReadProgramError {
    what: &'static str,
}

impl EfiProgram {
    /// Reads a program.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadProgramError> {
        let headers = PeHeaders::read(bytes)?;
        let digest = headers.authenticode_digest(bytes)?;
        let signatures = certificates(bytes, &headers)?
            .into_iter()
            .map(|signed| {
                read_signature(signed, digest).ok_or(ReadProgramError { what: "a signature is cut short" })
            })
            .collect::<Result<_, _>>()?;
        let sbat = headers.section(bytes, b".sbat").map(read_sbat).unwrap_or_default();
        Ok(Self { signatures, sbat })
    }

    /// Whether a signature by this issuer is over these bytes.
    #[must_use]
    pub fn is_signed_by(&self, issuer: &str) -> bool {
        self.signatures.iter().any(|signature| signature.issuer == issuer && signature.fits)
    }

    /// What is wrong with a program that firmware has to start, in which case some machines do not.
    #[must_use]
    pub fn missing_by_firmware(&self) -> Vec<&'static str> {
        [MICROSOFT_2011, MICROSOFT_2023].into_iter().filter(|issuer| !self.is_signed_by(issuer)).collect()
    }
}

impl EfiProgram {
    /// Whether it is what somebody signed.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.signatures.iter().any(|signature| signature.fits)
    }

    /// Whether a revocation could refuse this one and not the other: a level of it is lower, or it has none.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        let own = |component: &str| self.sbat.iter().find(|line| line.component == component);
        other.sbat.iter().any(|line| own(&line.component).is_none_or(|own| own.level < line.level))
    }
}

impl fmt::Display for EfiProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signatures: Vec<String> = self.signatures.iter().map(ToString::to_string).collect();
        let signed = if signatures.is_empty() { "unsigned".to_owned() } else { signatures.join(" and ") };
        let levels: Vec<String> =
            self.sbat.iter().map(|line| format!("{} {}", line.component, line.level)).collect();
        let sbat = if levels.is_empty() { "no SBAT level".to_owned() } else { levels.join(", ") };
        write!(f, "{signed}; {sbat}")
    }
}

impl fmt::Display for ProgramSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = if self.fits { "" } else { ", which DOES NOT FIT" };
        write!(f, "signed by {:?}{fits}", self.issuer)
    }
}

/// The parts of a PE file's headers that matter here.
struct PeHeaders {
    checksum_at: usize,
    /// The entry of the certificate table in the data directories.
    certificate_entry_at: usize,
    certificates_at: usize,
    certificates_length: usize,
    sections_at: usize,
    section_count: usize,
}

impl PeHeaders {
    fn read(bytes: &[u8]) -> Result<Self, ReadProgramError> {
        let fault = |what| move || ReadProgramError { what };
        let short = fault("its headers are cut short");
        if !bytes.starts_with(b"MZ") {
            return Err(fault("it does not begin as one")());
        }
        let at = read_u32(bytes, 0x3c).ok_or_else(short)?;
        if bytes.get(at..at.saturating_add(4)) != Some(b"PE\0\0") {
            return Err(fault("it has no PE header")());
        }
        let section_count = read_u16(bytes, at + 6).ok_or_else(short)?;
        let optional_length = read_u16(bytes, at + 20).ok_or_else(short)?;
        let optional = at + 24;
        // PE32+: all EFI programs of 64 bits.
        if read_u16(bytes, optional).ok_or_else(short)? != 0x20b {
            return Err(fault("it is not of 64 bits")());
        }
        // The fifth directory, of eight bytes each.
        let certificate_entry_at = optional + 112 + 4 * 8;
        Ok(Self {
            checksum_at: optional + 64,
            certificate_entry_at,
            certificates_at: read_u32(bytes, certificate_entry_at).ok_or_else(short)?,
            certificates_length: read_u32(bytes, certificate_entry_at + 4).ok_or_else(short)?,
            sections_at: optional + optional_length,
            section_count,
        })
    }

    /// The digest that is signed: of everything but the checksum, the place of the certificates and themselves.
    fn authenticode_digest(&self, bytes: &[u8]) -> Result<Sha256, ReadProgramError> {
        let end = if self.certificates_at == 0 { bytes.len() } else { self.certificates_at };
        let parts = [
            0..self.checksum_at,
            self.checksum_at + 4..self.certificate_entry_at,
            self.certificate_entry_at + 8..end,
        ];
        let parts: Option<Vec<&[u8]>> = parts.into_iter().map(|part| bytes.get(part)).collect();
        let parts = parts.ok_or(ReadProgramError { what: "its certificates lie within its headers" })?;
        Ok(Sha256::digest_of(&parts.concat()))
    }

    /// The bytes of a section.
    fn section<'a>(&self, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        let headers = bytes.get(self.sections_at..)?.chunks_exact(40).take(self.section_count);
        let header =
            { headers }.find(|header| header.starts_with(name) && header.get(name.len()) == Some(&0))?;
        let (size, raw, at) = (read_u32(header, 8)?, read_u32(header, 16)?, read_u32(header, 20)?);
        bytes.get(at..at.checked_add(size.min(raw))?)
    }
}

/// The signatures of a program, each by itself.
fn certificates<'a>(bytes: &'a [u8], headers: &PeHeaders) -> Result<Vec<&'a [u8]>, ReadProgramError> {
    let fault = ReadProgramError { what: "its certificates are cut short" };
    let end = headers.certificates_at.saturating_add(headers.certificates_length);
    let mut rest = bytes.get(headers.certificates_at..end).ok_or_else(|| fault.clone())?;
    let mut found = Vec::new();
    while headers.certificates_length > 0 && !rest.is_empty() {
        let length = read_u32(rest, 0).filter(|length| *length > 8).ok_or_else(|| fault.clone())?;
        let kind = read_u16(rest, 6).ok_or_else(|| fault.clone())?;
        let content = rest.get(8..length).ok_or_else(|| fault.clone())?;
        if usize::from(PKCS_SIGNED_DATA) == kind {
            found.push(content);
        }
        rest = rest.get(length.next_multiple_of(CERTIFICATE_ALIGNMENT)..).unwrap_or_default();
    }
    Ok(found)
}

/// Reads PKCS #7's `SignedData`: what was signed, and by whom.
fn read_signature(bytes: &[u8], digest: Sha256) -> Option<ProgramSignature> {
    let content_info = Element::read(bytes)?.0;
    // The type, and then the content, in a wrapping of its own.
    let signed = content_info.children().nth(1)?.children().next()?;
    let parts: Vec<Element<'_>> = signed.children().collect();
    // version, digestAlgorithms, contentInfo; certificates and revocations may follow; signerInfos are last.
    let content = parts.get(2)?;
    let signer = parts.last()?.children().next()?;
    // version, issuerAndSerialNumber.
    let issuer = signer.children().nth(1)?.children().next()?;
    let signed_digest = content.children().nth(1).and_then(|content| last_octets(&content));
    Some(ProgramSignature {
        issuer: common_name(&issuer).unwrap_or_else(|| "nobody by name".to_owned()),
        fits: signed_digest == Some(digest.as_bytes().as_slice()),
    })
}

/// `SpcIndirectDataContent` ends with the digest of the program.
fn last_octets<'a>(content: &Element<'a>) -> Option<&'a [u8]> {
    let indirect = content.children().next()?;
    let digest_info = indirect.children().last()?;
    digest_info.children().last().map(|octets| octets.content)
}

/// The last common name of a name: X.501 has it behind country and organization.
fn common_name(name: &Element<'_>) -> Option<String> {
    /// `id-at-commonName`, 2.5.4.3.
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let pairs = name.children().flat_map(|set| set.children().collect::<Vec<_>>());
    let value = pairs.filter_map(|pair| {
        let mut parts = pair.children();
        (parts.next()?.content == COMMON_NAME).then(|| parts.next()).flatten()
    });
    value.last().map(|value| String::from_utf8_lossy(value.content).into_owned())
}

/// The lines of the table, but for the first, which is the table's own level.
fn read_sbat(section: &[u8]) -> Vec<SbatLevel> {
    let text = section.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(MOST_SBAT)]);
    let level = |line: &str| {
        let mut fields = line.split(',');
        Some(SbatLevel { component: fields.next()?.to_owned(), level: fields.next()?.trim().parse().ok()? })
    };
    text.lines().filter_map(level).filter(|line| line.component != "sbat").collect()
}

fn read_u16(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn read_u32(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

#[cfg(test)]
mod tests;
