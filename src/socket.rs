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
        // It waits with the watch that is no more; if there is no other, it is to hear of that.
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.watched = Some(watch(stream, Interest::READABLE | Interest::WRITABLE)?);
        self.watches_for_room = true;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// More than a socket's buffer holds.
    const MUCH: usize = 4 << 20;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Socket::new(ours).unwrap(), theirs)
    }

    fn pattern() -> Vec<u8> {
        (0..MUCH).map(|place| u8::try_from(place % 251).unwrap()).collect()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn two_that_connect_hear_each_other_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (ours, theirs) = tokio::join!(Socket::connect(&path), listener.accept());
        let (mut ours, mut theirs) = (ours.unwrap(), Socket::new(theirs.unwrap().0.into_std().unwrap()).unwrap());
        ours.write_all(b"how are you?").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"how are you?");
        theirs.write_all(b"well").await.unwrap();
        drop(theirs);
        let mut heard = String::new();
        ours.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "well");
        assert!(Socket::connect(&folder.path().join("none")).await.is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_sends_much_waits_for_room_and_who_reads_meanwhile_still_hears() {
        let (ours, mut theirs) = pair();
        let (mut reader, mut writer) = tokio::io::split(ours);
        // Waits from before there is no room.
        let hears = tokio::spawn(async move {
            let mut heard = [0; 4];
            reader.read_exact(&mut heard).await.map(|_| heard)
        });
        tokio::task::yield_now().await;
        let sends = tokio::spawn(async move {
            writer.write_all(&pattern()).await.unwrap();
            writer
        });
        tokio::task::yield_now().await;
        let other = tokio::task::spawn_blocking(move || {
            theirs.write_all(b"stop").unwrap();
            let mut heard = vec![0; MUCH];
            theirs.read_exact(&mut heard).unwrap();
            (theirs, heard)
        });
        assert_eq!(hears.await.unwrap().unwrap(), *b"stop");
        let (theirs, heard) = other.await.unwrap();
        assert!(heard == pattern());
        let mut writer = sends.await.unwrap();
        drop(theirs);
        assert_eq!(writer.write_all(b"gone").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_comes_in_any_pieces_is_read_whole() {
        let (mut ours, mut theirs) = pair();
        let sends = tokio::task::spawn_blocking(move || {
            let all = pattern();
            // Those that fill what is read at a time, and one more or less.
            let sizes = READ_BYTES.into_iter().flat_map(|size| [size - 1, size, size + 1]).cycle();
            let mut rest = &all[..];
            for size in sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                theirs.write_all(piece).unwrap();
                rest = after;
                if rest.is_empty() {
                    return;
                }
            }
        });
        let mut heard = Vec::new();
        ours.read_to_end(&mut heard).await.unwrap();
        assert!(heard == pattern());
        sends.await.unwrap();
    }

    /// Waits until a thread of this process sleeps.
    fn until_asleep(thread: rustix::thread::Pid) {
        let path = format!("/proc/self/task/{thread}/stat");
        let end = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&path).unwrap().rsplit_once(") ").unwrap().1.as_bytes()[0] != b'S' {
            assert!(Instant::now() < end, "it does not fall asleep");
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_waits_for_an_answer_sleeps_on_when_the_question_is_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let woken = Arc::new(AtomicUsize::new(0));
        let (tell, told) = std::sync::mpsc::channel();
        let count = Arc::clone(&woken);
        let asks = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_io().on_thread_unpark(move || {
                count.fetch_add(1, Ordering::Relaxed);
            });
            runtime.build().unwrap().block_on(async {
                let mut ours = Socket::new(ours).unwrap();
                ours.write_all(b"question").await.unwrap();
                tell.send(rustix::thread::gettid()).unwrap();
                let mut answer = [0; 6];
                ours.read_exact(&mut answer).await.unwrap();
                answer
            })
        });
        let thread = told.recv().unwrap();
        until_asleep(thread);
        theirs.read_exact(&mut [0; 8]).unwrap();
        // Who was woken by that is not asleep again before it has counted it.
        until_asleep(thread);
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        theirs.write_all(b"answer").unwrap();
        assert_eq!(asks.join().unwrap(), *b"answer");
        assert_eq!(woken.load(Ordering::Relaxed), 1);
    }
}
