//! Messages of D-Bus, as far as calls of the manager need them.
//!
//! Knows the little-endian wire form of texts, lists of texts and flags. Refuses answers that are too
//! long, and to look into one further than whether it is an error. Invariant: no length from the other
//! side is believed before it is bounded.
//!
//! Documentation: <https://dbus.freedesktop.org/doc/dbus-specification.html>, "Message Protocol".

use std::io::{self, Read};

/// Answers to our calls are short; the longest is the list of a unit's links.
const MOST: usize = 1 << 20;
const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
/// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// The arguments of a call, and what kinds they are of.
#[derive(Debug, Default)]
pub(super) struct MessageBody {
    bytes: Vec<u8>,
    signature: String,
}

impl MessageBody {
    pub(super) fn push_string(&mut self, text: &str) -> &mut Self {
        self.signature += "s";
        put_text(&mut self.bytes, text);
        self
    }

    pub(super) fn push_strings(&mut self, texts: &[&str]) -> &mut Self {
        self.signature += "as";
        let mut list = Vec::new();
        for text in texts {
            put_text(&mut list, text);
        }
        put_number(&mut self.bytes, length_of(&list));
        self.bytes.extend(list);
        self
    }

    pub(super) fn push_bool(&mut self, flag: bool) -> &mut Self {
        self.signature += "b";
        put_number(&mut self.bytes, u32::from(flag));
        self
    }
}

/// The bytes of a call of a method of the manager.
pub(super) fn call(serial: u32, method: &str, body: &MessageBody) -> Vec<u8> {
    let mut fields = Vec::new();
    put_field(&mut fields, PATH, 'o', "/org/freedesktop/systemd1");
    put_field(&mut fields, INTERFACE, 's', "org.freedesktop.systemd1.Manager");
    put_field(&mut fields, MEMBER, 's', method);
    put_field(&mut fields, DESTINATION, 's', "org.freedesktop.systemd1");
    if !body.signature.is_empty() {
        put_signature(&mut fields, &body.signature);
    }
    // Little endian, the kind, no flags, version 1.
    let mut message = vec![b'l', CALL, 0, 1];
    put_number(&mut message, length_of(&body.bytes));
    put_number(&mut message, serial);
    put_number(&mut message, length_of(&fields));
    message.extend(fields);
    pad_to(&mut message, 8);
    message.extend(&body.bytes);
    message
}

/// What came from the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BusAnswer {
    Done { to: u32 },
    Other,
    Refused { to: u32, complaint: String },
}

/// Reads one message.
pub(super) fn read(mut from: impl Read) -> io::Result<BusAnswer> {
    let mut head = [0_u8; 16];
    from.read_exact(&mut head)?;
    let number = |at: usize| read_u32(&head, at).unwrap_or(u32::MAX) as usize;
    let fields_end = 16_usize.saturating_add(number(12));
    let body_start = fields_end.saturating_add(7) & !7;
    let whole = body_start.saturating_add(number(4));
    if head[0] != b'l' || whole > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer is no message, or too long"));
    }
    let mut message = head.to_vec();
    message.resize(whole, 0);
    from.read_exact(&mut message[16..])?;
    Ok(parse_fields(&message, fields_end, body_start).unwrap_or(BusAnswer::Other))
}

fn parse_fields(message: &[u8], fields_end: usize, body_start: usize) -> Option<BusAnswer> {
    let (mut to, mut signature) = (None, String::new());
    let mut at = 16;
    while at < fields_end {
        let (code, kind) = (*message.get(at)?, *message.get(at + 2)?);
        // The signature of the value: its length, one letter, and a zero.
        at += 4;
        match kind {
            b'u' => {
                to = if code == REPLY_SERIAL { Some(read_u32(message, at)?) } else { to };
                at += 4;
            }
            b's' | b'o' => at += 5 + read_u32(message, at)? as usize,
            b'g' => {
                let end = at + 1 + usize::from(*message.get(at)?);
                if code == SIGNATURE {
                    signature = String::from_utf8_lossy(message.get(at + 1..end)?).into_owned();
                }
                at = end + 1;
            }
            _ => return None,
        }
        // Header fields are structs, which D-Bus aligns to eight bytes.
        at = at.checked_add(7)? & !7;
    }
    match message[1] {
        RETURN => Some(BusAnswer::Done { to: to? }),
        ERROR => {
            let said = if signature.starts_with('s') { message_text(message, body_start) } else { None };
            let complaint = said.unwrap_or_else(|| "it did not say why".to_owned());
            Some(BusAnswer::Refused { to: to?, complaint })
        }
        _ => Some(BusAnswer::Other),
    }
}

fn read_u32(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn message_text(message: &[u8], at: usize) -> Option<String> {
    let start = at.checked_add(4)?;
    let bytes = message.get(start..start.checked_add(read_u32(message, at)? as usize)?)?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn length_of(bytes: &[u8]) -> u32 {
    // Names of units are bounded; what is longer than this is refused by the other side.
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn pad_to(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_number(bytes: &mut Vec<u8>, number: u32) {
    pad_to(bytes, 4);
    bytes.extend(number.to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, length_of(text.as_bytes()));
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

fn put_field(bytes: &mut Vec<u8>, code: u8, kind: char, text: &str) {
    pad_to(bytes, 8);
    bytes.extend([code, 1]);
    bytes.extend(kind.to_string().into_bytes());
    bytes.push(0);
    put_text(bytes, text);
}

fn put_signature(bytes: &mut Vec<u8>, signature: &str) {
    pad_to(bytes, 8);
    bytes.extend([SIGNATURE, 1, b'g', 0]);
    bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
    bytes.extend(signature.as_bytes());
    bytes.push(0);
}

/// An answer as a manager gives it.
#[cfg(test)]
pub(super) fn answer(kind: u8, to: u32, complaint: Option<&str>) -> Vec<u8> {
    let mut fields = Vec::new();
    if complaint.is_some() {
        put_field(&mut fields, 4, 's', "org.freedesktop.systemd1.NoSuchUnit");
        put_signature(&mut fields, "s");
    }
    pad_to(&mut fields, 8);
    fields.extend([REPLY_SERIAL, 1, b'u', 0]);
    put_number(&mut fields, to);
    let mut body = Vec::new();
    if let Some(text) = complaint {
        put_text(&mut body, text);
    }
    let mut message = vec![b'l', kind, 1, 1];
    put_number(&mut message, length_of(&body));
    put_number(&mut message, 77);
    put_number(&mut message, length_of(&fields));
    message.extend(fields);
    pad_to(&mut message, 8);
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_to_which_call_they_belong_and_what_went_wrong() {
        assert_eq!(read(answer(RETURN, 5, None).as_slice()).unwrap(), BusAnswer::Done { to: 5 });
        assert_eq!(
            read(answer(ERROR, 6, Some("Unit a.service not found.")).as_slice()).unwrap(),
            BusAnswer::Refused { to: 6, complaint: "Unit a.service not found.".to_owned() }
        );
        assert_eq!(read(answer(4, 6, None).as_slice()).unwrap(), BusAnswer::Other);
    }

    #[test]
    fn every_damaged_answer_is_an_error_or_means_nothing() {
        let good = answer(ERROR, 6, Some("Unit a.service not found."));
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = good.clone();
                damaged[at] = byte;
                // Must neither panic nor take much memory.
                let _ = read(damaged.as_slice());
            }
            assert!(read(&good[..at]).is_err());
        }
    }

    #[test]
    fn a_call_is_aligned_as_the_wire_wants_it() {
        let mut body = MessageBody::default();
        body.push_strings(&["a.service"]).push_bool(true);

        let message = call(1, "EnableUnitFiles", &body);

        let fields = read_u32(&message, 12).unwrap() as usize;
        assert_eq!((16 + fields).next_multiple_of(8) + body.bytes.len(), message.len());
        assert_eq!(body.signature, "asb");
        assert_eq!(body.bytes.len(), 24, "the flag after the text is aligned");
    }
}
