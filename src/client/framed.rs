//! One framed connection with many calls in flight.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};

use super::ClientError;
use crate::model::Secret;
use crate::socket::Socket;
use crate::wire::proto::{self, call::Operation, reply::Result as Answer};
use crate::wire::{PROTOCOL_VERSION, frame};

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Largest answer taken.
const FRAME_BYTES: usize = 64 << 20;

/// Who asks.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The token.
    pub token: Secret,
    /// The namespace; empty for the root namespace.
    pub namespace: String,
}

/// A client of the framed wire. Cheap to clone: clones share the connection, which ends with the last of them.
#[derive(Clone)]
pub struct Framed(Arc<Owner>);

/// What the clones hold, and the tasks that serve the connection do not.
struct Owner(Arc<Inner>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Inner {
    next: AtomicU64,
    state: Mutex<State>,
    /// Tells the writing task that there is something to write, or that nobody asks any more.
    work: Notify,
    class: proto::Class,
    deadline: Option<Duration>,
}

#[derive(Default)]
struct State {
    outbox: BytesMut,
    waiting: HashMap<u64, oneshot::Sender<Result<Answer, ClientError>>>,
    broken: Option<String>,
    closed: bool,
    unasked: u64,
}

impl Framed {
    /// Connects and says Hello. Must run inside a tokio runtime, whose tasks then serve the connection. `deadline` goes
    /// with every call; `class` may lower it to bulk.
    pub async fn connect(
        path: &Path,
        identity: &Identity,
        class: proto::Class,
        deadline: Option<Duration>,
    ) -> Result<Framed, ClientError> {
        let failed = |error| ClientError::Connect { path: path.to_owned(), error };
        let (reader, writer) = tokio::io::split(Socket::connect(path).await.map_err(failed)?);
        let inner =
            Arc::new(Inner { next: AtomicU64::new(1), state: Mutex::default(), work: Notify::new(), class, deadline });
        tokio::spawn(write(Arc::clone(&inner), writer));
        tokio::spawn(read(Arc::clone(&inner), reader));
        let client = Framed(Arc::new(Owner(inner)));
        let hello = proto::Hello {
            version: PROTOCOL_VERSION,
            token: identity.token.expose_str().unwrap_or_default().to_owned(),
            namespace: identity.namespace.clone(),
        };
        match client.call(Operation::Hello(hello)).await? {
            Answer::Welcome(_) => Ok(client),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends one call and waits for its answer. A fault is an error.
    pub fn call(&self, operation: Operation) -> impl Future<Output = Result<Answer, ClientError>> + use<> {
        let inner = &self.0.0;
        let id = inner.next.fetch_add(1, Ordering::Relaxed);
        let deadline_ms = inner.deadline.map_or(0, |span| u32::try_from(span.as_millis()).unwrap_or(u32::MAX));
        let call = proto::Call { id, deadline_ms, class: inner.class.into(), operation: Some(operation) };
        let (sender, answer) = oneshot::channel();
        let wake = {
            let mut state = inner.state.lock();
            if let Some(what) = &state.broken {
                // The receiver is ours: it cannot be gone.
                let _ = sender.send(Err(ClientError::Broken { what: what.clone() }));
                false
            } else {
                let idle = state.outbox.is_empty();
                frame::put_frame(&mut state.outbox, &call);
                state.waiting.insert(id, sender);
                idle
            }
        };
        if wake {
            inner.work.notify_one();
        }
        async move {
            match answer.await {
                Ok(Ok(Answer::Fault(fault))) => {
                    Err(ClientError::Refused { label: fault.label, message: fault.message, retryable: fault.retryable })
                }
                Ok(result) => result,
                Err(_) => Err(ClientError::Broken { what: "the connection was closed".into() }),
            }
        }
    }

    /// Signs with a Transit key.
    pub async fn sign(&self, sign: proto::Sign) -> Result<proto::Signature, ClientError> {
        match self.call(Operation::Sign(sign)).await? {
            Answer::Signature(signature) => Ok(signature),
            other => Err(unexpected(&other)),
        }
    }

    /// Checks a signature with a Transit key.
    pub async fn verify(&self, verify: proto::Verify) -> Result<bool, ClientError> {
        match self.call(Operation::Verify(verify)).await? {
            Answer::Verdict(verdict) => Ok(verdict.valid),
            other => Err(unexpected(&other)),
        }
    }

    /// Encrypts with a Transit key.
    pub async fn encrypt(&self, encrypt: proto::Encrypt) -> Result<proto::Ciphertext, ClientError> {
        match self.call(Operation::Encrypt(encrypt)).await? {
            Answer::Ciphertext(ciphertext) => Ok(ciphertext),
            other => Err(unexpected(&other)),
        }
    }

    /// Decrypts with a Transit key.
    pub async fn decrypt(&self, decrypt: proto::Decrypt) -> Result<Bytes, ClientError> {
        match self.call(Operation::Decrypt(decrypt)).await? {
            Answer::Plaintext(plaintext) => Ok(plaintext.plaintext),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a MAC with a Transit key.
    pub async fn mac(&self, mac: proto::Mac) -> Result<proto::MacValue, ClientError> {
        match self.call(Operation::Mac(mac)).await? {
            Answer::Mac(mac) => Ok(mac),
            other => Err(unexpected(&other)),
        }
    }

    /// Has a certificate issued for a DER request.
    pub async fn sign_certificate(&self, request: proto::SignCertificate) -> Result<proto::Certificate, ClientError> {
        match self.call(Operation::SignCertificate(request)).await? {
            Answer::Certificate(certificate) => Ok(certificate),
            other => Err(unexpected(&other)),
        }
    }

    /// Has certificates issued for many DER requests at once. One that is refused is a fault among the results.
    pub async fn sign_certificates(&self, batch: proto::SignCertificates) -> Result<proto::Certificates, ClientError> {
        match self.call(Operation::SignCertificates(batch)).await? {
            Answer::Certificates(certificates) => Ok(certificates),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs any operation of the HTTP API.
    pub async fn request(&self, request: proto::Request) -> Result<proto::Response, ClientError> {
        match self.call(Operation::Request(request)).await? {
            Answer::Response(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends bytes there and back.
    pub async fn ping(&self, payload: Bytes) -> Result<Bytes, ClientError> {
        match self.call(Operation::Ping(proto::Ping { payload })).await? {
            Answer::Pong(pong) => Ok(pong.payload),
            other => Err(unexpected(&other)),
        }
    }

    /// Answers so far that belonged to no call in flight: a call that was answered twice, or never asked. The daemon promises
    /// that there are none.
    pub fn unasked(&self) -> u64 {
        self.0.0.state.lock().unasked
    }

    /// Ends the connection: calls in flight are answered as broken.
    pub fn close(&self) {
        self.0.0.close();
    }
}

impl Inner {
    fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
    }
}

fn unexpected(answer: &Answer) -> ClientError {
    let name = match answer {
        Answer::Welcome(_) => "Welcome",
        Answer::Pong(_) => "Pong",
        Answer::Signature(_) => "Signature",
        Answer::Verdict(_) => "Verdict",
        Answer::Ciphertext(_) => "Ciphertext",
        Answer::Plaintext(_) => "Plaintext",
        Answer::Mac(_) => "Mac",
        Answer::Certificate(_) => "Certificate",
        Answer::Certificates(_) => "Certificates",
        Answer::Response(_) => "Response",
        Answer::Fault(_) => "Fault",
    };
    ClientError::Broken { what: format!("the daemon answered with a {name} that does not belong to the call") }
}

async fn write(inner: Arc<Inner>, mut writer: WriteHalf<Socket>) {
    loop {
        inner.work.notified().await;
        let (bytes, closed) = {
            let mut state = inner.state.lock();
            (state.outbox.split(), state.closed || state.broken.is_some())
        };
        if closed || (!bytes.is_empty() && writer.write_all(&bytes).await.is_err()) {
            // That tells the daemon; the reading task tells those who wait.
            let _ = writer.shutdown().await;
            return;
        }
    }
}

async fn read(inner: Arc<Inner>, mut reader: ReadHalf<Socket>) {
    let mut inbox = BytesMut::new();
    let what = loop {
        inbox.reserve(READ_BYTES);
        match reader.read_buf(&mut inbox).await {
            Ok(0) => break "the daemon closed it".to_owned(),
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
        if let Err(what) = deliver(&inner, &mut inbox) {
            break what;
        }
    };
    let mut state = inner.state.lock();
    let waiting = std::mem::take(&mut state.waiting);
    state.broken = Some(what.clone());
    drop(state);
    for (_, asker) in waiting {
        let _ = asker.send(Err(ClientError::Broken { what: what.clone() }));
    }
    inner.work.notify_one();
}

/// Hands every whole reply in `inbox` to who waits for it, with the lock taken once.
fn deliver(inner: &Inner, inbox: &mut BytesMut) -> Result<(), String> {
    let mut state = inner.state.lock();
    while let Some(bytes) = frame::next_frame(inbox, FRAME_BYTES).map_err(|error| error.to_string())? {
        let reply = proto::Reply::decode(bytes).map_err(|error| format!("a reply cannot be read: {error}"))?;
        let Some(answer) = reply.result else { return Err("a reply has no result".into()) };
        match (reply.id, answer) {
            // The daemon speaks to the connection, not to a call: it is about to close it.
            (0, Answer::Fault(fault)) => return Err(fault.message),
            (id, answer) => match state.waiting.remove(&id) {
                Some(asker) => drop(asker.send(Ok(answer))),
                None => state.unasked += 1,
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_comes_twice_is_counted_and_reaches_nobody() {
        let (work, state, next) = (Notify::new(), Mutex::<State>::default(), AtomicU64::new(8));
        let inner = Inner { next, state, work, class: proto::Class::Interactive, deadline: None };
        let (sender, mut answer) = oneshot::channel();
        inner.state.lock().waiting.insert(7, sender);
        let pong = || Some(Answer::Pong(proto::Pong { payload: Bytes::from_static(b"x") }));
        let mut inbox = BytesMut::new();
        for id in [7, 7, 9] {
            frame::put_frame(&mut inbox, &proto::Reply { id, result: pong() });
        }
        deliver(&inner, &mut inbox).unwrap();
        assert!(matches!(answer.try_recv(), Ok(Ok(Answer::Pong(_)))));
        assert_eq!(inner.state.lock().unasked, 2);
    }
}
