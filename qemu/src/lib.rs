//! Runs disk images as virtual machines: QEMU without root, a console to expect words on, ssh into the guest,
//! a mains switch that can be pulled.
//!
//! A machine is off ([`Machine`]) or on ([`RunningMachine`]); switching consumes the one and returns the other, so a
//! disk can only be edited while nothing runs on it. The library knows QEMU, firmware files, NoCloud seeds and
//! OpenSSH; it knows nothing of the image it runs, but for [`update_replay`], which judges by the slot table. Invariant: the base image is never written, and no QEMU
//! outlives the process that started it.

pub mod acceleration;
pub mod arguments;
pub mod bench;
pub mod builder;
pub mod cluster;
pub mod console;
mod description;
pub mod disk;
pub mod file_server;
pub mod firmware;
pub mod machine;
pub mod options;
pub mod process;
pub mod qmp;
pub mod registry;
pub mod running;
pub mod seed;
pub mod seeded_random;
pub mod ssh;
pub mod switch;
pub mod terminal;
pub mod update_replay;
pub mod write_log;

pub use machine::Machine;
pub use running::RunningMachine;
