//! `swap`: a file to swap to, and sizes as people write them.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;

use super::super::fields::{MappingFields, text_of};
use super::SWAP_KEYS;
use crate::plan::step::SwapSize;
use crate::protected::{self};

// cloud-init's is /swap.img, on the root, which is read-only here.
pub(super) const DEFAULT_SWAP: &str = "/var/swap.img";

pub(super) fn read_swap(
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> Option<Located<(String, SwapSize)>> {
    let node = fields.field_node("swap")?;
    let mut inner = MappingFields::read_mapping(node, SWAP_KEYS, fields.child_path("swap"), found)?;
    let path = inner.read_text("filename", found);
    let most = read_size(&mut inner, "maxsize", found);
    let automatic = SwapSize::Automatic { most };
    let wanted = match inner.field_node("size").and_then(text_of) {
        Some(text) if text.value == "auto" => automatic,
        Some(_) => SwapSize::Bytes(read_size(&mut inner, "size", found)?),
        None => return None,
    };
    if inner.has_broken_field() || wanted == SwapSize::Bytes(0) {
        return None;
    }
    let path = path.map_or_else(|| Ok(DEFAULT_SWAP.to_owned()), |text| swap_path(&text, &inner, found));
    Some(Located { value: (path.ok()?, wanted), at: node.at })
}

/// The root of this system cannot be written, so a file directly below it goes to /var.
pub(super) fn swap_path(
    text: &Located<String>,
    fields: &MappingFields<'_>,
    found: &mut Diagnostics,
) -> Result<String, ()> {
    let report = |diagnostic: Diagnostic, found: &mut Diagnostics| {
        found.push(diagnostic.with_key(fields.child_path("filename")));
    };
    let path = crate::cloudconfig::files::clean_path(&text.value).map_err(|flaw| {
        report(Diagnostic::error(DiagnosticCode::BadValue, text.at, format!("`filename` {flaw}")), found);
    })?;
    // /swapfile and /swap.img are what most documents say.
    if path.rfind('/') == Some(0) {
        let moved = format!("/var{path}");
        report(
            Diagnostic::note(
                DiagnosticCode::Translated,
                text.at,
                format!("the root is read-only; {moved} is used"),
            ),
            found,
        );
        return Ok(moved);
    }
    // The file is cut to its size and filled, so that whatever lies there would be lost.
    if protected::mounts::mount_objection(&path).is_some() {
        let message = format!("{path} cannot be a swap file");
        let diagnostic = Diagnostic::error(DiagnosticCode::Protected, text.at, message);
        report(diagnostic.with_help("use a file below /var or /srv"), found);
        return Err(());
    }
    Ok(path)
}

pub(super) fn read_size(fields: &mut MappingFields<'_>, name: &str, found: &mut Diagnostics) -> Option<u64> {
    let text = fields.read_text(name, found)?;
    let bytes = parse_size(&text.value);
    if bytes.is_none() {
        let message = format!("`{name}` must be a size like 512M or 4G");
        fields.refuse_field(name, Diagnostic::error(DiagnosticCode::BadValue, text.at, message), found);
    }
    bytes
}

/// Bytes, with K, M, G or T for powers of 1024.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    // cloud-init takes `B`, `K`, `M`, `G` and `T`. People write `GiB` and `GB`, too.
    let text = text.trim().trim_end_matches(['B', 'b']).trim_end_matches('i');
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" | "k" => 1 << 10,
        "M" | "m" => 1 << 20,
        "G" | "g" => 1 << 30,
        "T" | "t" => 1_u64 << 40,
        _ => return None,
    };
    let (whole, fraction) = digits.trim().split_once('.').unwrap_or_else(|| (digits.trim(), ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { parse_digits(whole)? };
    whole.checked_mul(unit)?.checked_add(part_of(unit, fraction)?)
}

pub(super) fn parse_digits(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// `5` of a GiB is half of it. More digits than nine are less than a byte of a GiB.
pub(super) fn part_of(unit: u64, fraction: &str) -> Option<u64> {
    // Before it is cut: a text of other letters has other places to cut at.
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = &fraction[..fraction.len().min(9)];
    // Whole numbers: a fraction of bytes in binary floating point would be another size on another day.
    let part = u128::from(if digits.is_empty() { 0 } else { parse_digits(digits)? });
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    u64::try_from(u128::from(unit) * part / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("4G"), Some(4 << 30));
        assert_eq!(parse_size("512MiB"), Some(512 << 20));
        assert_eq!(parse_size("1.5G"), Some(3 << 29));
        assert_eq!(parse_size(".5T"), Some(1 << 39));
        assert_eq!(parse_size("2.G"), Some(2 << 30));
        assert_eq!(parse_size("0.123456789012345K"), Some(126));
        for bad in [".", ".G", "1.\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", "1.5.2G", "1,5G", "-1G", "1.xG", "+1G"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert_eq!(parse_size("1024"), Some(1024));
        assert_eq!(parse_size("four"), None);
        assert_eq!(parse_size("99999999999T"), None);
    }
}
