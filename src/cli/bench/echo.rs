//! A server that answers every call at once with bytes like a signature: what the framed wire, its sockets and the client
//! cost by themselves. One thread of this process, over the same kind of socket.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{Failure, runtime};
use crate::socket::Socket;
use crate::wire::proto::{self, call::Operation, reply::Result as Answer};
use crate::wire::{PROTOCOL_VERSION, frame};

/// Bytes read at a time, as the daemon reads.
const READ_BYTES: usize = 16 << 10;
/// Largest frame taken.
const FRAME_BYTES: usize = 1 << 20;

/// A running server; it ends with the process.
pub(super) struct Echo {
    pub(super) socket: PathBuf,
    /// Where the kernel keeps its thread's times.
    pub(super) thread: PathBuf,
}

impl Echo {
    /// Starts it; its answers carry `signature`.
    pub(super) fn start(home: &Path, signature: Bytes) -> Result<Echo, Failure> {
        let socket = home.join("echo.sock");
        let (ready, started) = std::sync::mpsc::channel();
        let path = socket.clone();
        std::thread::spawn(move || {
            let begin = || -> Result<_, Failure> {
                let runtime = runtime()?;
                let listener = runtime.block_on(async { UnixListener::bind(&path) })?;
                let thread = Path::new("/proc").join(std::fs::read_link("/proc/thread-self")?);
                Ok((runtime, listener, thread))
            };
            match begin() {
                // Who started it waits for this.
                Err(failure) => drop(ready.send(Err(failure))),
                Ok((runtime, listener, thread)) => {
                    drop(ready.send(Ok(thread)));
                    runtime.block_on(accept(listener, signature));
                }
            }
        });
        let thread = started.recv().map_err(|_| Failure::new("the echo server died"))??;
        Ok(Echo { socket, thread })
    }
}

async fn accept(listener: UnixListener, signature: Bytes) {
    while let Ok((stream, _)) = listener.accept().await {
        let signature = signature.clone();
        tokio::spawn(async move {
            // A client that leaves, or sends what is no call, ends its connection.
            let _ = serve(stream, signature).await;
        });
    }
}

async fn serve(stream: UnixStream, signature: Bytes) -> Result<(), Failure> {
    let mut stream = Socket::new(stream.into_std()?)?;
    let (mut inbox, mut outbox) = (BytesMut::new(), BytesMut::new());
    loop {
        inbox.reserve(READ_BYTES);
        if stream.read_buf(&mut inbox).await? == 0 {
            return Ok(());
        }
        while let Some(bytes) = frame::next_frame(&mut inbox, FRAME_BYTES)? {
            let call = proto::Call::decode(bytes)?;
            frame::put_frame(&mut outbox, &proto::Reply { id: call.id, result: Some(answer(&call, &signature)) });
        }
        stream.write_all(&outbox).await?;
        outbox.clear();
    }
}

fn answer(call: &proto::Call, signature: &Bytes) -> Answer {
    match call.operation {
        Some(Operation::Hello(_)) => {
            Answer::Welcome(proto::Welcome { version: PROTOCOL_VERSION, ..proto::Welcome::default() })
        }
        _ => Answer::Signature(proto::Signature { signature: signature.clone(), key_version: 1 }),
    }
}
