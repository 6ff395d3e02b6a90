//! `fd-forward`: stdin and stdout joined to a unix socket, for the far end of a tunnel.

use super::arguments::FdForwardArguments;
use super::session::{CommandError, CommandOutcome};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::channel;

/// Runs the verb; ends when either side does.
pub fn run_fd_forward(arguments: &FdForwardArguments) -> CommandOutcome {
    let [path] = arguments.sockets.as_slice() else {
        return Err(CommandError::new("Provide a single argument"));
    };
    let socket = UnixStream::connect(Path::new(path)).map_err(|error| {
        CommandError::new(format_args!(
            "Failed dialing remote address: {}: {error}",
            Path::new(path).display()
        ))
    })?;
    let copy_failed = |error| CommandError::new(format_args!("Encountered error during copy: {error}"));
    let (mut up, mut down) = (socket.try_clone().map_err(copy_failed)?, socket);
    let (sender, receiver) = channel();
    let upward = sender.clone();
    std::thread::spawn(move || {
        let outcome = copy_unbuffered(&mut io::stdin(), &mut up);
        // The far end may have hung up first, which ends us anyway.
        let _ = up.shutdown(Shutdown::Write);
        if outcome.is_err() {
            let _ = upward.send(outcome);
        }
    });
    std::thread::spawn(move || sender.send(copy_unbuffered(&mut down, &mut io::stdout())));
    let outcome = receiver.recv().unwrap_or(Ok(()));
    outcome.map(|()| 0).map_err(copy_failed)
}

/// Copies without holding back: the other end may wait for the first byte.
fn copy_unbuffered(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => outcome?,
        };
        to.write_all(&buffer[..length])?;
        to.flush()?;
    }
}
