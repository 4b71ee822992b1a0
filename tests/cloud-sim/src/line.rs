//! A TCP connection that can be broken off: its end is then a reset (RST), not a polite FIN.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The connection, below TLS if there is any.
pub(crate) struct Line {
    stream: TcpStream,
    cut: Cut,
}

/// Says that the line is to end in a reset. It ends when it is dropped.
#[derive(Clone, Default)]
pub(crate) struct Cut(Arc<AtomicBool>);

impl Cut {
    pub(crate) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Line {
    pub(crate) fn new(stream: TcpStream) -> Line {
        // Small answers must not wait for acknowledgements; where it cannot be set, they do.
        let _ = stream.set_nodelay(true);
        Line { stream, cut: Cut::default() }
    }

    pub(crate) fn cutter(&self) -> Cut {
        self.cut.clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.cut.0.load(Ordering::Acquire) {
            // Without it the peer sees an end instead of a reset.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
