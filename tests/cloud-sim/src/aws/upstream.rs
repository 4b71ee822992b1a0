//! Another emulator, which does the work.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::server::{Request, Response};

/// Connections that are kept for the next request.
const IDLE_MAX: usize = 64;

/// Where it is, and connections to it.
pub(super) struct Upstream {
    /// Host and port.
    address: String,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Upstream {
    pub(super) fn new(url: &str) -> Result<Upstream, String> {
        let address = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').to_owned());
        let address = address.ok_or_else(|| format!("{url:?} is not the URL of an emulator: http://HOST:PORT"))?;
        Ok(Upstream { address, idle: Mutex::default() })
    }

    /// Passes a request on. A kept connection that turns out to have ended is replaced, once.
    pub(super) async fn pass(&self, request: &Request) -> Result<Response, String> {
        let kept = self.idle.lock().pop();
        if let Some(kept) = kept
            && let Ok(response) = self.send(kept, request).await
        {
            return Ok(response);
        }
        let sender = self.connect().await.map_err(|error| format!("{} is not there: {error}", self.address))?;
        self.send(sender, request).await.map_err(|error| format!("{} did not answer: {error}", self.address))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| error.to_string())?;
        // Small requests must not wait; where it cannot be set, they do.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // Whoever sends sees how it ended.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn send(&self, mut sender: SendRequest<Full<Bytes>>, request: &Request) -> Result<Response, hyper::Error> {
        sender.ready().await?;
        let answer = sender.send_request(request.clone().map(Full::new)).await?;
        let (mut head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        // Its length is known anew, and its connection is not ours.
        for name in ["transfer-encoding", "content-length", "connection", "date"] {
            head.headers.remove(name);
        }
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
        Ok(Response::from_parts(head, body))
    }
}
