//! Messages as they go over the link: a code that only members can make, and then the text.
//!
//! Knows the form. Refuses to judge what is said, and how old it is. Invariant: no byte is parsed before its
//! code was found right, and none beyond [`LARGEST_PACKET`].

use ring::hmac;

use super::LinkMessage;
use crate::derive::KEY_BYTES;

/// Room for 128 machines that were heard, and three lists of voters.
pub const LARGEST_PACKET: usize = 16 << 10;
const CODE_BYTES: usize = 32;

/// The key of one cluster's messages.
#[derive(Debug, Clone)]
pub struct LinkKey(hmac::Key);

impl LinkKey {
    /// The key of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The packet of a message; `None` if it were too large.
    #[must_use]
    pub fn seal_message(&self, message: &LinkMessage) -> Option<Vec<u8>> {
        let text = serde_json::to_vec(message).ok()?;
        let code = hmac::sign(&self.0, &text);
        let packet = [code.as_ref(), &text].concat();
        (packet.len() <= LARGEST_PACKET).then_some(packet)
    }

    /// The message of a packet, if a member of this cluster made it.
    #[must_use]
    pub fn open_packet(&self, packet: &[u8]) -> Option<LinkMessage> {
        let (code, text) = packet.split_at_checked(CODE_BYTES)?;
        hmac::verify(&self.0, text, code).ok()?;
        serde_json::from_slice(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{DurableBallots, LinkNode, Moment};

    fn packet(key: &LinkKey) -> Vec<u8> {
        let mut node = LinkNode::new((1, 2), "10.0.0.1".parse().unwrap(), 3, DurableBallots::default());
        key.seal_message(&node.run_tick(Moment::ZERO).send.unwrap()).unwrap()
    }

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let key = LinkKey::new(&[7; 32]);

        let message = key.open_packet(&packet(&key)).unwrap();

        assert_eq!((message.from, message.session, message.count), (1, 2, 1));
    }

    #[test]
    fn whatever_was_changed_or_made_elsewhere_is_nothing() {
        let key = LinkKey::new(&[7; 32]);
        let packet = packet(&key);

        assert_eq!(LinkKey::new(&[8; 32]).open_packet(&packet), None);
        assert_eq!(key.open_packet(&[]), None);
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert_eq!(key.open_packet(&changed), None, "byte {at}");
        }
    }
}
