//! Connects from a source port below 1024, which proves to Scaleway that root asks.
//!
//! Knows how to find a free one. Refuses to insist: where the kernel does not allow it, the
//! connection is made from any port, and the service may refuse it.
//!
//! Documentation: ip(7) for the ports, and socket(7) for `SO_SNDTIMEO`.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
};

use nix::sys::{
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    },
    time::TimeVal,
};
use ureq::{
    Error,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
};

/// Tried from the top; the lowest ports belong to well-known services.
// rresvport(3) takes the same range.
const PORTS: std::ops::RangeInclusive<u16> = 512..=1023;

/// The first link of a chain that makes plain TCP connections.
#[derive(Debug)]
pub(super) struct PrivilegedPort;

impl<In: Transport> Connector<In> for PrivilegedPort {
    type Out = PrivilegedStream;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<In>,
    ) -> Result<Option<PrivilegedStream>, Error> {
        let mut failure = Error::HostNotFound;
        for address in &details.addrs {
            match connect_from_low_port(*address, *details.timeout.after) {
                Ok(stream) => {
                    let config = details.config;
                    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(PrivilegedStream { stream, buffers }));
                }
                Err(error) => failure = Error::Io(error),
            }
        }
        Err(failure)
    }
}

/// One connection, for one request.
#[derive(Debug)]
pub(super) struct PrivilegedStream {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for PrivilegedStream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(timeout.not_zero().map(|left| *left))?;
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output).map_err(|error| in_time(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(timeout.not_zero().map(|left| *left))?;
        let input = self.buffers.input_append_buf();
        let count = self.stream.read(input).map_err(|error| in_time(error, timeout))?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// Never kept for a second request, so that ports are free again at once.
    fn is_open(&mut self) -> bool {
        false
    }
}

fn in_time(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

fn connect_from_low_port(to: SocketAddr, patience: std::time::Duration) -> io::Result<TcpStream> {
    for port in PORTS.rev() {
        match connected_from(port, to, patience) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            // CAP_NET_BIND_SERVICE is missing, so no other low port can be had either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            outcome => return outcome,
        }
    }
    TcpStream::connect_timeout(&to, patience)
}

fn connected_from(port: u16, to: SocketAddr, patience: std::time::Duration) -> io::Result<TcpStream> {
    let (family, any) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, SocketAddr::from(([0, 0, 0, 0], port))),
        SocketAddr::V6(_) => (AddressFamily::Inet6, SocketAddr::from(([0_u16; 8], port))),
    };
    let handle = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(handle.as_raw_fd(), &SockaddrStorage::from(any))?;
    // The send timeout bounds connect() too.
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    // A timeout of zero would mean none at all.
    let timeout = TimeVal::new(seconds, i64::from(patience.subsec_micros()).max(1));
    setsockopt(&handle, sockopt::SendTimeout, &timeout)?;
    connect(handle.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(handle))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, time::Duration};

    use super::*;

    #[test]
    fn the_source_port_is_below_1024_where_that_is_allowed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();

        let stream = connect_from_low_port(listener.local_addr().unwrap(), Duration::from_secs(1)).unwrap();

        let may = TcpListener::bind("127.0.0.1:1000").is_ok_and(|_| true);
        assert!(!may || stream.local_addr().unwrap().port() < 1024);
    }
}
