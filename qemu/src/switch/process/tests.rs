//! The switch between sockets, with threads that play QEMU.

use std::thread::{self, JoinHandle};

use super::*;
use crate::switch::cable::LinkState;
use crate::switch::control::{CONTROL_SOCKET, ControlError, ControlRequest, PortStatus, send_request};

const PATIENCE: Duration = Duration::from_secs(20);

/// A switch in a thread, and the folders of its machines.
struct Network {
    folder: tempfile::TempDir,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Network {
    fn start(machines: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machines: Vec<PathBuf> = (0..machines).map(|port| folder.path().join(port.to_string())).collect();
        for machine in &machines {
            std::fs::create_dir(machine).unwrap();
        }
        let listener = UnixListener::bind(folder.path().join(CONTROL_SOCKET)).unwrap();
        let mut process = SwitchProcess::new(folder.path(), &machines, listener, 1).unwrap();
        Self { folder, thread: Some(thread::spawn(move || process.run_switch())) }
    }

    /// The socket of a machine's QEMU, once the switch has connected to it.
    fn power_on(&self, port: usize) -> UnixStream {
        let path = self.folder.path().join(port.to_string()).join(FRAME_SOCKET);
        let _ = std::fs::remove_file(&path);
        let (stream, _) = UnixListener::bind(path).unwrap().accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, request: &ControlRequest) -> Result<Vec<PortStatus>, ControlError> {
        send_request(self.folder.path(), request)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.ask(&ControlRequest::Quit {}).unwrap();
            thread.join().unwrap().unwrap();
        }
    }
}

/// A broadcast, so that no switch has to know where the others are.
fn broadcast(from: u8, payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &[0x52, 0x54, 0, 0, 0, from], &[0x08, 0x00], payload].concat()
}

fn send(mut stream: &UnixStream, frame: &[u8]) {
    stream.write_all(&encode_frame(frame)).unwrap();
}

fn receive(mut stream: &UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn frames_pass_between_machines_that_start_in_any_order() {
    let network = Network::start(3);
    let (two, zero) = (network.power_on(2), network.power_on(0));

    send(&zero, &broadcast(0, b"hello"));
    send(&two, &broadcast(2, &[7; 9000]));

    assert_eq!(receive(&two), broadcast(0, b"hello"));
    assert_eq!(receive(&zero), broadcast(2, &[7; 9000]));
}

#[test]
fn a_machine_that_starts_again_is_connected_again_and_gets_nothing_old() {
    let network = Network::start(2);
    let zero = network.power_on(0);
    drop(network.power_on(1));
    send(&zero, &broadcast(0, b"to nobody"));
    // The answer proves that the switch has seen the frame.
    while network.ask(&ControlRequest::Status {}).unwrap()[0].statistics.sent_frames == 0 {}

    let one = network.power_on(1);
    send(&zero, &broadcast(0, b"to somebody"));

    assert_eq!(receive(&one), broadcast(0, b"to somebody"));
}

#[test]
fn cutting_and_healing_work_while_frames_pass() {
    let network = Network::start(2);
    let (zero, one) = (network.power_on(0), network.power_on(1));

    let ports = network.ask(&ControlRequest::Cut { port: PortIndex(1) }).unwrap();
    assert_eq!((ports[1].link, ports[1].connected), (LinkState::Cut, true));
    send(&zero, &broadcast(0, b"lost"));
    while network.ask(&ControlRequest::Status {}).unwrap()[1].statistics.lost_by_cut == 0 {}
    network.ask(&ControlRequest::Heal { port: PortIndex(1) }).unwrap();
    send(&zero, &broadcast(0, b"found"));

    assert_eq!(receive(&one), broadcast(0, b"found"));
}

#[test]
fn a_delay_is_kept() {
    let network = Network::start(2);
    let (zero, one) = (network.power_on(0), network.power_on(1));
    let delay = ControlRequest::Shape {
        port: PortIndex(0),
        delay_ms: Some(150),
        loss_percent: None,
        drop_next: None,
    };
    network.ask(&delay).unwrap();
    let since = Instant::now();

    send(&zero, &broadcast(0, b"slow"));

    assert_eq!(receive(&one), broadcast(0, b"slow"));
    assert!(since.elapsed() >= Duration::from_millis(150), "{:?}", since.elapsed());
}

#[test]
fn a_machine_that_does_not_read_holds_up_nobody() {
    let network = Network::start(3);
    let (zero, _deaf, two) = (network.power_on(0), network.power_on(1), network.power_on(2));
    let reader = thread::spawn(move || (0..3000).for_each(|_| drop(receive(&two))));

    for number in 0..3000_u32 {
        send(&zero, &broadcast(0, &[number.to_be_bytes().as_slice(), &[0; 1400]].concat()));
        // Without a pause the reader's own queue would overflow, which is not what is asked here.
        while number % 500 == 499 && pending(&network, number + 1) {}
    }

    reader.join().unwrap();
    assert!(network.ask(&ControlRequest::Status {}).unwrap()[1].statistics.lost_by_overflow > 0);
}

/// Whether the third machine has not got all of so many frames.
fn pending(network: &Network, frames: u32) -> bool {
    network.ask(&ControlRequest::Status {}).unwrap()[2].statistics.received_frames < u64::from(frames)
}

#[test]
fn a_broken_stream_ends_alone_and_begins_anew() {
    let network = Network::start(2);
    let (zero, mut one) = (network.power_on(0), network.power_on(1));

    one.write_all(&[0xff; 4096]).unwrap();
    assert_eq!(one.read(&mut [0]).unwrap(), 0, "the switch hangs up");
    let one = network.power_on(1);
    send(&one, &broadcast(1, b"again"));

    assert_eq!(receive(&zero), broadcast(1, b"again"));
}

#[test]
fn clients_that_say_nothing_too_much_or_nonsense_cost_nobody_else() {
    let network = Network::start(1);
    let connect = || connect_in(network.folder.path(), CONTROL_SOCKET).unwrap();
    let _silent: Vec<UnixStream> = (0..2 * MAX_CLIENTS).map(|_| connect()).collect();
    let mut endless = connect();
    // The switch may hang up in the middle, which is right.
    let _ = endless.write_all(&[b'x'; 4 * MAX_REQUEST]);

    assert!(matches!(
        network.ask(&ControlRequest::Cut { port: PortIndex(7) }),
        Err(ControlError::Refused(reason)) if reason == "there is no port 7; the switch has 1, counted from 0"
    ));
    assert_eq!(network.ask(&ControlRequest::Status {}).unwrap().len(), 1);
}

#[test]
fn a_switch_ends_with_its_folder() {
    let mut network = Network::start(1);
    let folder = std::mem::replace(&mut network.folder, tempfile::tempdir().unwrap());

    folder.close().unwrap();

    network.thread.take().unwrap().join().unwrap().unwrap();
}
