//! VMware's guest RPC: short texts to the hypervisor and back, four bytes at a time.
//!
//! Knows the messages of the low-bandwidth channel, which every version has. Refuses the faster
//! channel, which copies memory. Invariant: a reply is bounded before room is made for it.
//!
//! Documentation: open-vm-tools, `lib/include/backdoor_def.h`, `lib/message/message.c` and
//! `lib/rpcOut/rpcout.c`.

/// What marks a call as one to the hypervisor.
// The letters `VMXh`.
const MAGIC: u32 = 0x564d_5868;
// The letters `VX`.
const PORT: u32 = 0x5658;
const COMMAND_MESSAGE: u32 = 0x1e;
/// The protocol of requests from the guest, and that the channel is known by a cookie.
// The letters `RPCI`. Without the cookie any program of the machine could write into an open channel.
const RPCI_WITH_COOKIE: u32 = 0x4943_5052 | 0x8000_0000;

const OPEN: u32 = 0;
const SEND_SIZE: u32 = 1;
const SEND_PAYLOAD: u32 = 2;
const RECEIVE_SIZE: u32 = 3;
const RECEIVE_PAYLOAD: u32 = 4;
const RECEIVE_STATUS: u32 = 5;
const CLOSE: u32 = 6;

const SUCCESS: u32 = 1;
const HAS_REPLY: u32 = 2;

/// The largest reply read: user-data and its base64.
// 16 MiB of user-data are 21.4 MiB as base64. The rest is for line ends and for the metadata around it.
const MAX_REPLY: u32 = 24 << 20;

/// The registers of a call, going in and coming out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CallRegisters {
    pub(super) ax: u32,
    pub(super) bx: u32,
    pub(super) cx: u32,
    pub(super) dx: u32,
    pub(super) si: u32,
    pub(super) di: u32,
}

/// The way to the hypervisor.
pub(super) trait Hypervisor {
    /// Makes one call.
    fn call(&mut self, registers: CallRegisters) -> CallRegisters;
}

/// The value of a guestinfo variable, without the `guestinfo.` prefix.
pub(super) fn query_guestinfo(hypervisor: &mut dyn Hypervisor, key: &str) -> Option<Vec<u8>> {
    let mut channel = RpcChannel::open_channel(hypervisor)?;
    let reply = channel.send_question(format!("info-get guestinfo.{key}").as_bytes());
    channel.close_channel();
    // "1 value", or "0 No value found".
    reply?.strip_prefix(b"1 ").map(<[u8]>::to_vec)
}

/// An open channel; it carries one question and its answer.
struct RpcChannel<'h> {
    hypervisor: &'h mut dyn Hypervisor,
    number: u32,
    cookie: (u32, u32),
}

impl<'h> RpcChannel<'h> {
    fn open_channel(hypervisor: &'h mut dyn Hypervisor) -> Option<Self> {
        let registers = CallRegisters {
            ax: MAGIC,
            bx: RPCI_WITH_COOKIE,
            cx: COMMAND_MESSAGE | OPEN << 16,
            dx: PORT,
            ..CallRegisters::default()
        };
        let answer = hypervisor.call(registers);
        (answer_status(answer) & SUCCESS != 0).then_some(Self {
            hypervisor,
            number: answer.dx & 0xffff_0000,
            cookie: (answer.si, answer.di),
        })
    }

    fn send_question(&mut self, question: &[u8]) -> Option<Vec<u8>> {
        self.send_message(SEND_SIZE, u32::try_from(question.len()).ok()?)?;
        // One register holds four bytes. The faster channel moves memory, which needs `rep outs` and a second
        // port.
        for chunk in question.chunks(4) {
            let mut four = [0; 4];
            four[..chunk.len()].copy_from_slice(chunk);
            self.send_message(SEND_PAYLOAD, u32::from_le_bytes(four))?;
        }
        self.receive_answer()
    }

    fn receive_answer(&mut self) -> Option<Vec<u8>> {
        let answer = self.send_message(RECEIVE_SIZE, 0)?;
        if answer_status(answer) & HAS_REPLY == 0 || answer.bx > MAX_REPLY {
            return None;
        }
        let length = usize::try_from(answer.bx).ok()?;
        let mut reply = Vec::new();
        while reply.len() < length {
            let chunk = self.send_message(RECEIVE_PAYLOAD, SUCCESS)?.bx.to_le_bytes();
            reply.extend_from_slice(&chunk[..chunk.len().min(length - reply.len())]);
        }
        // The hypervisor keeps the reply until this confirms it.
        self.send_message(RECEIVE_STATUS, SUCCESS)?;
        Some(reply)
    }

    /// Sends one message and gives the answer if it was a success.
    fn send_message(&mut self, message: u32, value: u32) -> Option<CallRegisters> {
        let registers = CallRegisters {
            ax: MAGIC,
            bx: value,
            cx: COMMAND_MESSAGE | message << 16,
            dx: PORT | self.number,
            si: self.cookie.0,
            di: self.cookie.1,
        };
        let answer = self.hypervisor.call(registers);
        (answer_status(answer) & SUCCESS != 0).then_some(answer)
    }

    /// A channel that cannot be closed is closed by the hypervisor in time.
    fn close_channel(&mut self) {
        let _ = self.send_message(CLOSE, 0);
    }
}

fn answer_status(answer: CallRegisters) -> u32 {
    answer.cx >> 16
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A hypervisor that knows some variables, and fails from its call number `fails_at` on.
    struct Fake {
        variables: BTreeMap<&'static str, &'static str>,
        question: Vec<u8>,
        expected: usize,
        reply: Vec<u8>,
        sent: usize,
        calls: usize,
        fails_at: usize,
        open: bool,
    }

    impl Fake {
        fn knowing(variables: &[(&'static str, &'static str)]) -> Self {
            Self {
                variables: variables.iter().copied().collect(),
                question: Vec::new(),
                expected: 0,
                reply: Vec::new(),
                sent: 0,
                calls: 0,
                fails_at: usize::MAX,
                open: false,
            }
        }

        fn answer(&self) -> Vec<u8> {
            let question = String::from_utf8(self.question.clone()).unwrap();
            let key = question.strip_prefix("info-get guestinfo.").unwrap();
            let found = self.variables.get(key).map(|value| format!("1 {value}"));
            found.unwrap_or_else(|| "0 No value found".to_owned()).into_bytes()
        }
    }

    impl Hypervisor for Fake {
        fn call(&mut self, registers: CallRegisters) -> CallRegisters {
            assert_eq!(
                (registers.ax, registers.dx & 0xffff, registers.cx & 0xffff),
                (MAGIC, PORT, COMMAND_MESSAGE)
            );
            self.calls += 1;
            let mut answer = CallRegisters { cx: SUCCESS << 16, ..registers };
            if self.calls >= self.fails_at {
                return CallRegisters { cx: 0, ..registers };
            }
            match registers.cx >> 16 {
                OPEN => {
                    assert_eq!(registers.bx, RPCI_WITH_COOKIE);
                    self.open = true;
                    return CallRegisters { dx: 7 << 16, si: 0xaa, di: 0xbb, ..answer };
                }
                _ => assert_eq!((registers.dx >> 16, registers.si, registers.di), (7, 0xaa, 0xbb)),
            }
            match registers.cx >> 16 {
                SEND_SIZE => self.expected = registers.bx as usize,
                SEND_PAYLOAD => {
                    self.question.extend_from_slice(&registers.bx.to_le_bytes());
                    self.question.truncate(self.expected);
                }
                RECEIVE_SIZE => {
                    self.reply = self.answer();
                    answer.cx = (SUCCESS | HAS_REPLY) << 16;
                    answer.bx = u32::try_from(self.reply.len()).unwrap();
                }
                RECEIVE_PAYLOAD => {
                    let mut four = [0; 4];
                    let left = &self.reply[self.sent..];
                    let count = left.len().min(4);
                    four[..count].copy_from_slice(&left[..count]);
                    self.sent += count;
                    answer.bx = u32::from_le_bytes(four);
                }
                RECEIVE_STATUS => assert_eq!(self.sent, self.reply.len()),
                CLOSE => self.open = false,
                other => panic!("message {other}"),
            }
            answer
        }
    }

    #[test]
    fn a_variable_comes_back_whole_whatever_its_length() {
        for value in ["", "a", "ab", "abc", "abcd", "abcde", "#cloud-config\nhostname: n7\n"] {
            let mut fake = Fake::knowing(&[("userdata", value)]);

            assert_eq!(query_guestinfo(&mut fake, "userdata").unwrap(), value.as_bytes(), "{value:?}");
            assert!(!fake.open, "the channel is closed");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_none() {
        assert_eq!(query_guestinfo(&mut Fake::knowing(&[]), "metadata"), None);
    }

    #[test]
    fn a_hypervisor_that_refuses_any_call_but_the_last_gives_nothing() {
        // One call opens, one sends the size, seven the question, one asks for the reply's size, three
        // for the reply, one confirms it and one closes.
        for fails_at in 1..=14 {
            let mut fake = Fake { fails_at, ..Fake::knowing(&[("userdata", "a value")]) };

            assert_eq!(query_guestinfo(&mut fake, "userdata"), None, "{fails_at}");
        }
        let mut fake = Fake { fails_at: 15, ..Fake::knowing(&[("userdata", "a value")]) };
        assert_eq!(query_guestinfo(&mut fake, "userdata").unwrap(), b"a value");
    }

    #[test]
    fn a_reply_larger_than_any_user_data_is_refused() {
        struct Endless;
        impl Hypervisor for Endless {
            fn call(&mut self, registers: CallRegisters) -> CallRegisters {
                CallRegisters { cx: (SUCCESS | HAS_REPLY) << 16, bx: u32::MAX, ..registers }
            }
        }

        assert_eq!(query_guestinfo(&mut Endless, "userdata"), None);
    }
}
