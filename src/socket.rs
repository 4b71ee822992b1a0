//! A Unix stream socket of a runtime, on either side: watched for what comes, and for room to send only once there was none.
//!
//! The kernel tells whoever watches for room each time the other side has read something. A runtime's own sockets watch for
//! both from the start: so who sends a request and waits for its answer is woken twice, first by the reading of the request,
//! and who answered is woken once more when the answer is read. Must not know what is said over it.

use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// What is read at a time, at least and at most: the room for it is cleared first, so that it is more only while much comes.
const READ_BYTES: [usize; 2] = [2 << 10, 64 << 10];

/// See the module. It can be read by one task and written to by another.
pub struct Socket {
    /// None once the kernel would not watch it for room, which ends it.
    watched: Option<AsyncFd<UnixStream>>,
    watches_for_room: bool,
    /// Who waits for something to come.
    reader: Option<Waker>,
    /// What is read next.
    read_bytes: usize,
}

impl Socket {
    /// Has the runtime that this runs in watch `stream`.
    pub fn new(stream: UnixStream) -> io::Result<Socket> {
        stream.set_nonblocking(true)?;
        let watched = Some(watch(stream, Interest::READABLE)?);
        Ok(Socket { watched, watches_for_room: false, reader: None, read_bytes: READ_BYTES[0] })
    }

    /// Connects to the socket at `path`.
    pub async fn connect(path: &Path) -> io::Result<Socket> {
        Socket::new(tokio::net::UnixStream::connect(path).await?.into_std()?)
    }

    /// Sends by `send`, once there is room.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        mut send: impl FnMut(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        while !self.watches_for_room {
            match send(watched(&self.watched)?.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.watch_for_room()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return Poll::Ready(sent),
            }
        }
        loop {
            let mut room = ready!(watched(&self.watched)?.poll_write_ready(context))?;
            match room.try_io(|socket| send(socket.get_ref())) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(sent) => return Poll::Ready(sent),
                Err(_would_block) => {}
            }
        }
    }

    /// From now on, for good: the other side is slow, and will be so again.
    fn watch_for_room(&mut self) -> io::Result<()> {
        let stream = self.watched.take().ok_or(io::ErrorKind::NotConnected)?.into_inner();
        self.watched = Some(watch(stream, Interest::READABLE | Interest::WRITABLE)?);
        self.watches_for_room = true;
        // It waited with the watch that is no more.
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Ok(())
    }
}

#[expect(deprecated, reason = "it is unsound of descriptors that change; a stream keeps its own as long as it lives")]
fn watch(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

fn watched(socket: &Option<AsyncFd<UnixStream>>) -> io::Result<&AsyncFd<UnixStream>> {
    socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Socket { watched: socket, reader, read_bytes, .. } = self.get_mut();
        let socket = watched(socket)?;
        let wanted = buffer.remaining().min(*read_bytes);
        loop {
            let Poll::Ready(readable) = socket.poll_read_ready(context) else {
                match reader {
                    Some(reader) => reader.clone_from(context.waker()),
                    None => *reader = Some(context.waker().clone()),
                }
                return Poll::Pending;
            };
            let mut readable = readable?;
            let read = |socket: &AsyncFd<UnixStream>| {
                let mut stream = socket.get_ref();
                stream.read(buffer.initialize_unfilled_to(wanted))
            };
            match readable.try_io(read) {
                Ok(Ok(read)) => {
                    if read == wanted {
                        *read_bytes = (2 * wanted).clamp(READ_BYTES[0], READ_BYTES[1]);
                    } else if read > 0 {
                        // Nothing is left after less than was asked for: the next poll need not ask.
                        readable.clear_ready();
                        *read_bytes = READ_BYTES[0];
                    }
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(context, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(context, |mut socket| socket.write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(watched(&self.watched)?.get_ref().shutdown(std::net::Shutdown::Write))
    }
}
