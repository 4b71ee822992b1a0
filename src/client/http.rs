//! One HTTP connection over a Unix socket.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::ClientError;
use crate::model::{Data, Secret, Verb};
use crate::socket::Socket;

/// What must be encoded in a path.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

/// So much of a file is read at a time.
const PIECE: usize = 256 << 10;

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `null` where there is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The answer if it is a success, else the daemon's words as an error.
    pub fn success(self) -> Result<Answer, ClientError> {
        if self.status < 400 {
            return Ok(self);
        }
        let body = self.json();
        let errors = body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let texts: Vec<&str> = errors.iter().filter_map(Value::as_str).map(str::trim).collect();
        let message = match (texts.is_empty(), self.status) {
            (true, 404) => "there is nothing there".to_owned(),
            (true, _) => "no reason given".to_owned(),
            (false, _) => texts.join("; ").replace("1 error occurred:\n\t* ", ""),
        };
        let retryable = matches!(self.status, 429 | 503 | 504);
        Err(ClientError::Refused { label: format!("HTTP {}", self.status), message, retryable })
    }
}

/// A client of the HTTP wire. Connects at the first request, and anew when the daemon has closed the connection.
pub struct Http {
    path: PathBuf,
    /// Sent as `X-Vault-Token`.
    pub token: Option<Secret>,
    /// Sent as `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// Sent as `Keyway-Deadline-Ms`.
    pub deadline: Option<Duration>,
    /// Sent as `X-Vault-Wrap-TTL`: how long the answer is kept behind a token, such as `60s`.
    pub wrap_ttl: Option<String>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    /// A client of the daemon at this socket.
    pub fn new(path: &Path) -> Http {
        Http { path: path.to_owned(), token: None, namespace: None, deadline: None, wrap_ttl: None, connection: None }
    }

    /// Asks for one thing. `path` is below `/v1/`. Must run inside a tokio runtime.
    pub async fn request(&mut self, verb: Verb, path: &str, data: &Data) -> Result<Answer, ClientError> {
        let request = self.build(verb, path, data)?;
        let mut connection = self.connect().await?;
        let response = connection.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        self.connection = Some(connection);
        Ok(Answer { status, body })
    }

    /// Reads what is at `path` into `to`, however long it is; answers its length. Blocks for the disk.
    pub async fn download(&self, path: &str, to: &mut File) -> Result<u64, ClientError> {
        let request = self.build(Verb::Read, path, &Data::new())?;
        let response = self.open().await?.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        if status >= 400 {
            let body = body.collect().await.map_err(broken)?.to_bytes();
            return Answer { status, body }.success().map(|_| 0);
        }
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
            bytes += piece.len() as u64;
            to.write_all(&piece).map_err(|error| ClientError::Broken { what: error.to_string() })?;
        }
        Ok(bytes)
    }

    /// Writes what is in the file `from` to `path`, however long it is. Blocks for the disk.
    pub async fn upload(&self, path: &str, from: File) -> Result<Answer, ClientError> {
        let bytes = from.metadata().map_err(|error| ClientError::Broken { what: error.to_string() })?.len();
        let (mut head, _) = self.build(Verb::Write, path, &Data::new())?.into_parts();
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
        let pieces = stream::try_unfold(from, |mut from| async move {
            let mut piece = Vec::with_capacity(PIECE);
            Read::take(&mut from, PIECE as u64).read_to_end(&mut piece)?;
            Ok::<_, std::io::Error>((!piece.is_empty()).then(|| (Frame::data(Bytes::from(piece)), from)))
        });
        let request = Request::from_parts(head, StreamBody::new(Box::pin(pieces)));
        let response = self.open().await?.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        Ok(Answer { status, body })
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        if let Some(mut connection) = self.connection.take()
            && connection.ready().await.is_ok()
        {
            return Ok(connection);
        }
        self.open().await
    }

    async fn open<B>(&self) -> Result<SendRequest<B>, ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let failed = |error| ClientError::Connect { path: self.path.clone(), error };
        let stream = Socket::connect(&self.path).await.map_err(failed)?;
        let (connection, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Its error is seen by the request that it breaks.
        tokio::spawn(async move { drop(driver.await) });
        Ok(connection)
    }

    fn build(&self, verb: Verb, path: &str, data: &Data) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut uri = format!("/v1/{}", utf8_percent_encode(path.trim_matches('/'), PATH));
        let (method, body) = match verb {
            Verb::Read | Verb::Delete | Verb::List => {
                if !data.is_empty() {
                    let pairs = data.iter().map(|(name, value)| (name, plain(value)));
                    uri.push('?');
                    uri.push_str(&form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish());
                }
                let list = || Method::from_bytes(b"LIST").unwrap_or(Method::GET);
                let method = match verb {
                    Verb::Read => Method::GET,
                    Verb::Delete => Method::DELETE,
                    _ => list(),
                };
                (method, Bytes::new())
            }
            Verb::Write | Verb::Patch => {
                let body = serde_json::to_vec(data).map_err(|error| ClientError::Broken { what: error.to_string() })?;
                (if verb == Verb::Write { Method::PUT } else { Method::PATCH }, Bytes::from(body))
            }
        };
        let kind = if verb == Verb::Patch { "application/merge-patch+json" } else { "application/json" };
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "localhost")
            .header("x-vault-request", "true")
            .header("content-type", kind);
        if let Some(token) = &self.token {
            request = request.header("x-vault-token", token.expose());
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(deadline) = self.deadline {
            request = request.header("keyway-deadline-ms", deadline.as_millis().to_string());
        }
        if let Some(wrap_ttl) = &self.wrap_ttl {
            request = request.header("x-vault-wrap-ttl", wrap_ttl);
        }
        request.body(Full::new(body)).map_err(|error| ClientError::Refused {
            label: "invalid_request".into(),
            message: format!("this is no request: {error}"),
            retryable: false,
        })
    }
}

fn broken(error: hyper::Error) -> ClientError {
    ClientError::Broken { what: error.to_string() }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
