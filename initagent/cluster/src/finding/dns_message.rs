//! Questions to a name server for SRV records, and what is read of its answers.
//!
//! Knows the form of messages (RFC 1035, section 4) and of SRV (RFC 2782). Refuses to know sockets. Invariants: no
//! answer makes this loop or read beyond it; an answer to another question is none.
//!
//! A resolver crate would bring an async runtime; the C library's needs `unsafe` and has no SRV.

/// The type of SRV records.
const SRV: u16 = 33;
/// The class of the internet.
const INTERNET: u16 = 1;
const HEADER_BYTES: usize = 12;
/// A name has 255 bytes at most, so that it has fewer parts than this.
const MOST_PARTS: usize = 128;

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServiceRecord {
    /// Lower ones come first.
    pub(super) priority: u16,
    /// The host.
    pub(super) target: String,
    /// The port.
    pub(super) port: u16,
}

/// What an answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DnsAnswer {
    /// These records.
    Records(Vec<ServiceRecord>),
    /// No such name, or none of its records is one.
    None,
    /// Too long for a datagram: ask again by TCP.
    Truncated,
    /// The server could not answer, by its code.
    Failed(u8),
}

/// A question for the SRV records of a name.
pub(super) fn format_question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut message = Vec::from(id.to_be_bytes());
    // Recursion desired; one question.
    message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        message.push(length);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(SRV.to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    (message.len() <= HEADER_BYTES + 255 + 4).then_some(message)
}

/// Reads an answer to that question; `None` if it is none.
pub(super) fn parse_answer(id: u16, name: &str, message: &[u8]) -> Option<DnsAnswer> {
    let flags = number(message, 2)?;
    let is_answer = flags & 0x8000 != 0;
    if number(message, 0)? != id || !is_answer || number(message, 4)? != 1 {
        return None;
    }
    let (asked, mut at) = read_name(message, HEADER_BYTES)?;
    if !asked.eq_ignore_ascii_case(name.trim_end_matches('.')) {
        return None;
    }
    at += 4;
    if flags & 0x0200 != 0 {
        return Some(DnsAnswer::Truncated);
    }
    match flags & 0x000f {
        0 => {}
        // NXDOMAIN (RFC 1035, 4.1.1).
        3 => return Some(DnsAnswer::None),
        code => return Some(DnsAnswer::Failed(u8::try_from(code).unwrap_or(u8::MAX))),
    }
    let mut records = Vec::new();
    for _ in 0..number(message, 6)? {
        let (_, end) = read_name(message, at)?;
        let (kind, length) = (number(message, end)?, usize::from(number(message, end + 8)?));
        let data = end + 10;
        if kind == SRV && length > 6 {
            let (target, _) = read_name(message, data + 6)?;
            let record =
                ServiceRecord { priority: number(message, data)?, target, port: number(message, data + 4)? };
            // A target of "." says that the service is not there (RFC 2782).
            records.extend(Some(record).filter(|record| !record.target.is_empty()));
        }
        at = data + length;
    }
    Some(if records.is_empty() { DnsAnswer::None } else { DnsAnswer::Records(records) })
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// A name, and where what follows it begins. Compressed names point back (RFC 1035, 4.1.4).
fn read_name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut at, mut end, mut labels) = (start, None, Vec::new());
    for _ in 0..MOST_PARTS {
        let length = *message.get(at)?;
        match length {
            0 => return Some((labels.join("."), end.unwrap_or(at + 1))),
            1..=63 => {
                let label = message.get(at + 1..at + 1 + usize::from(length))?;
                labels.push(String::from_utf8(label.to_vec()).ok()?);
                at += 1 + usize::from(length);
            }
            0xc0.. => {
                end.get_or_insert(at + 2);
                at = usize::from(number(message, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer with these records, whose targets point back to the question's domain.
    pub(in super::super) fn answer(question: &[u8], targets: &[(&str, u16)]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2] = 0x81;
        message[7] = u8::try_from(targets.len()).unwrap();
        // Behind `_etcd-server-ssl._tcp`, which has 17 and 5 bytes with their lengths.
        let domain = HEADER_BYTES + 17 + 5;
        for (host, port) in targets {
            message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
            let length = u16::try_from(6 + 1 + host.len() + 2).unwrap();
            message.extend(length.to_be_bytes());
            message.extend([0, 10, 0, 0]);
            message.extend(port.to_be_bytes());
            message.push(u8::try_from(host.len()).unwrap());
            message.extend(host.bytes());
            message.extend([0xc0, u8::try_from(domain).unwrap()]);
        }
        message
    }

    const NAME: &str = "_etcd-server-ssl._tcp.core.test";

    #[test]
    fn records_are_read_with_names_that_point_back() {
        let question = format_question(7, NAME).unwrap();
        let message = answer(&question, &[("a", 2380), ("b", 2381)]);

        let record = |target: &str, port| ServiceRecord { priority: 10, target: target.to_owned(), port };
        let expected = DnsAnswer::Records(vec![record("a.core.test", 2380), record("b.core.test", 2381)]);
        assert_eq!(parse_answer(7, NAME, &message), Some(expected));
        assert_eq!(parse_answer(8, NAME, &message), None, "another question's number");
        assert_eq!(parse_answer(7, "_etcd-server._tcp.core.test", &message), None, "another question");
        assert_eq!(parse_answer(7, NAME, &question), None, "a question is no answer");
    }

    #[test]
    fn what_a_server_says_instead_of_records_is_told_apart() {
        let question = format_question(7, NAME).unwrap();
        let with = |second: u8, third: u8| {
            let mut message = answer(&question, &[]);
            (message[2], message[3]) = (second, third);
            parse_answer(7, NAME, &message)
        };

        assert_eq!(with(0x81, 0x83), Some(DnsAnswer::None));
        assert_eq!(with(0x81, 0x80), Some(DnsAnswer::None));
        assert_eq!(with(0x83, 0x80), Some(DnsAnswer::Truncated));
        assert_eq!(with(0x81, 0x82), Some(DnsAnswer::Failed(2)));
    }

    #[test]
    fn a_name_that_points_to_itself_ends() {
        let mut message = answer(&format_question(7, NAME).unwrap(), &[("a", 2380)]);
        let last = message.len() - 2;
        let itself = 0xc000 | u16::try_from(last).unwrap();
        message[last..].copy_from_slice(&itself.to_be_bytes());

        assert_eq!(parse_answer(7, NAME, &message), None);
    }

    #[test]
    fn a_name_that_no_message_can_carry_is_no_question() {
        assert_eq!(format_question(7, "a..b"), None);
        assert_eq!(format_question(7, &"a".repeat(64)), None);
        assert_eq!(format_question(7, &"abc.".repeat(80)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_fall(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut message = format_question(7, NAME).unwrap();
            message[2] = 0x81;
            message[7] = 9;
            message.extend(bytes);
            let _ = parse_answer(7, NAME, &message);
        }
    }
}
