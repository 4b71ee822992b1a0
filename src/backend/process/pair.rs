//! The socket pairs between the daemon and a worker.
//!
//! A worker has one control pair, of packets, and one pair of bytes for each session. So a session thread of the daemon
//! talks to the one thread of the worker that serves its session, and nothing stands between them: two switches of
//! threads make a signature, or a whole batch.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use zeroize::{Zeroize, Zeroizing};

/// Most bytes of one packet of the control pair.
pub(super) const PACKET_MAX: usize = 24 << 10;
/// Bytes a session reads at a time.
const READ_BYTES: usize = 16 << 10;
/// Bytes of its buffer that a session keeps after a long message.
const KEPT_BYTES: usize = 64 << 10;

/// The control pair: the daemon's end, and the worker's.
pub(super) fn control() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one packet, and a socket with it.
pub(super) fn send(control: impl AsFd, packet: &[u8], socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sockets = socket.as_slice();
    if !sockets.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(sockets));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(control.as_fd(), &[IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// One packet received, wiped when dropped: it may hold a PIN.
pub(super) struct Packet {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) socket: Option<OwnedFd>,
}

/// Waits for the next packet; `None` when the other end is closed.
pub(super) fn receive(control: impl AsFd) -> io::Result<Option<Packet>> {
    let mut bytes = Zeroizing::new(vec![0; PACKET_MAX]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let flags = RecvFlags::CMSG_CLOEXEC;
        rustix::net::recvmsg(control.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)
    })?;
    let mut socket = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = message {
            socket = sockets.last();
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet is too long"));
    }
    bytes[received.bytes..].zeroize();
    bytes.truncate(received.bytes);
    Ok(Some(Packet { bytes, socket }))
}

/// One end of a session's pair: frames of four bytes of length and so many bytes.
pub(super) struct Frames {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// What of the buffer was read from the stream, and not yet handed out.
    unread: std::ops::Range<usize>,
}

impl Frames {
    pub(super) fn new(stream: UnixStream) -> Frames {
        Frames { stream, buffer: Vec::new(), unread: 0..0 }
    }

    /// Waits for the next frame; `None` when the other end is closed. One read often brings many.
    ///
    /// # Errors
    ///
    /// The frame is longer than `max`, or the stream ends in its midst.
    pub(super) fn next(&mut self, max: usize) -> io::Result<Option<&mut [u8]>> {
        const PREFIX: usize = size_of::<u32>();
        let mut wanted = PREFIX;
        loop {
            if let Some((prefix, rest)) = self.buffer[self.unread.clone()].split_first_chunk::<PREFIX>() {
                let len = u32::from_le_bytes(*prefix) as usize;
                if len > max {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
                }
                if rest.len() >= len {
                    let begin = self.unread.start + PREFIX;
                    self.unread.start = begin + len;
                    return Ok(Some(&mut self.buffer[begin..begin + len]));
                }
                wanted = PREFIX + len;
            }
            self.make_room(wanted);
            // Whoever waits in a read is woken when the other end reads what was sent to it, too; in a poll, it is not.
            rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], None))?;
            match self.stream.read(&mut self.buffer[self.unread.end..]) {
                Ok(0) if self.unread.is_empty() => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.unread.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Room to read into, such that `wanted` bytes fit behind the first one unread.
    fn make_room(&mut self, wanted: usize) {
        let size = wanted.max(READ_BYTES);
        if self.unread.is_empty() {
            self.unread = 0..0;
            // One long message does not hold its memory for good.
            if self.buffer.len() > size.max(KEPT_BYTES) {
                self.buffer = Vec::new();
            }
        }
        if self.unread.start + wanted > self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        }
    }

    /// Sends frames made by [`put_frame`], many at once.
    pub(super) fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames)
    }
}

/// Appends one frame to `out`, its content made by `put`.
pub(super) fn put_frame(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let prefix = out.len();
    out.extend_from_slice(&[0; size_of::<u32>()]);
    let begin = out.len();
    put(out);
    let len = u32::try_from(out.len() - begin).unwrap_or(u32::MAX);
    out[prefix..begin].copy_from_slice(&len.to_le_bytes());
}
