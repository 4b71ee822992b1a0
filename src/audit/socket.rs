//! A socket that records are sent to: one line each over a stream, one datagram each over UDP.

use std::io::{ErrorKind, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::options::Network;
use super::queue::Line;
use super::sink::{Sink, Written, write_lines, write_twice};

/// The socket of a device.
pub(super) struct Socket {
    network: Network,
    address: String,
    timeout: Duration,
    connection: Option<Connection>,
}

enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Socket {
    pub(super) fn new(network: Network, address: String, timeout: Duration) -> Socket {
        Socket { network, address, timeout, connection: None }
    }

    fn try_to_write(&mut self, lines: &[Line]) -> Written {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => match connect(self.network, &self.address, self.timeout) {
                Ok(connection) => connection,
                Err(error) => return Written { lines: 0, failure: Some(error.to_string()), is_of_line: false },
            },
        };
        let mut connection = connection;
        let written = match &mut connection {
            Connection::Unix(stream) => write_stream(stream, lines),
            Connection::Tcp(stream) => write_stream(stream, lines),
            Connection::Udp(socket) => write_datagrams(lines, |bytes| socket.send(bytes)),
        };
        if written.failure.is_none() {
            self.connection = Some(connection);
        }
        written
    }
}

impl Sink for Socket {
    fn write(&mut self, lines: &[Line]) -> Written {
        self.connection = self.connection.take().filter(Connection::is_open);
        let was_open = self.connection.is_some();
        write_twice(lines, was_open, |lines| self.try_to_write(lines))
    }

    fn reopen(&mut self) -> Result<(), String> {
        let connected = connect(self.network, &self.address, self.timeout).map_err(|error| error.to_string())?;
        self.connection = Some(connected);
        Ok(())
    }
}

impl Connection {
    /// Whether the other side has not closed it. Of bytes sent to one that has, some would be lost without a word.
    fn is_open(&self) -> bool {
        let stream: BorrowedFd<'_> = match self {
            Connection::Unix(stream) => stream.as_fd(),
            Connection::Tcp(stream) => stream.as_fd(),
            Connection::Udp(_) => return true,
        };
        let peeked = rustix::net::recv(stream, &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        match peeked {
            Ok((_, read)) => read > 0,
            Err(error) => error == rustix::io::Errno::AGAIN,
        }
    }
}

fn connect(network: Network, address: &str, timeout: Duration) -> std::io::Result<Connection> {
    match network {
        Network::Unix => {
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            // It bounds the connecting, too.
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout))?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(address)?)?;
            Ok(Connection::Unix(socket.into()))
        }
        Network::Tcp => {
            let mut last = ErrorKind::AddrNotAvailable.into();
            for address in address.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, timeout) {
                    Ok(stream) => {
                        stream.set_write_timeout(Some(timeout))?;
                        stream.set_nodelay(true)?;
                        return Ok(Connection::Tcp(stream));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        Network::Udp => {
            let address = address.to_socket_addrs()?.next().ok_or(ErrorKind::AddrNotAvailable)?;
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_write_timeout(Some(timeout))?;
            socket.connect(address)?;
            Ok(Connection::Udp(socket))
        }
    }
}

fn write_stream(stream: &mut impl Write, lines: &[Line]) -> Written {
    write_lines(stream, lines, |_| {})
}

/// Sends each record by itself.
pub(super) fn write_datagrams(lines: &[Line], mut send: impl FnMut(&[u8]) -> std::io::Result<usize>) -> Written {
    for (done, line) in lines.iter().enumerate() {
        let sent = loop {
            match send(&line.bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                sent => break sent,
            }
        };
        if let Err(error) = sent {
            let is_of_line = error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error());
            return Written { lines: done, failure: Some(error.to_string()), is_of_line };
        }
    }
    Written { lines: lines.len(), failure: None, is_of_line: false }
}
