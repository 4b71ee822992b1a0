//! Serves the metrics to Prometheus over HTTP, on TCP or a Unix socket.

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::Telemetry;
use crate::config::PrometheusListener;

/// Scrapes served at once. Prometheus needs one.
const SCRAPES: usize = 16;
/// How long a scraper may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why metrics cannot be served.
#[derive(Debug)]
pub struct ExpositionError {
    /// The address.
    pub address: String,
    /// The system's word.
    pub error: std::io::Error,
}

impl std::fmt::Display for ExpositionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "prometheus_listener {}: {}; choose another address, or stop who has it", self.address, self.error)
    }
}

impl std::error::Error for ExpositionError {}

/// A bound exposition endpoint.
pub struct Exposition {
    listener: Listener,
    telemetry: Telemetry,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Exposition {
    /// Binds the address. A Unix socket left behind is replaced.
    pub async fn bind(address: &PrometheusListener, telemetry: Telemetry) -> Result<Exposition, ExpositionError> {
        let listener = match address {
            PrometheusListener::Tcp(address) => TcpListener::bind(address)
                .await
                .map(Listener::Tcp)
                .map_err(|error| ExpositionError { address: address.to_string(), error })?,
            PrometheusListener::Unix(path) => {
                let failed = |error| ExpositionError { address: path.display().to_string(), error };
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(failed(std::io::ErrorKind::AddrInUse.into()));
                }
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
                UnixListener::bind(path).map(|listener| Listener::Unix(listener, path.clone())).map_err(failed)?
            }
        };
        Ok(Exposition { listener, telemetry })
    }

    /// The address it is bound to: `127.0.0.1:9464`, or the socket's path.
    pub fn address(&self) -> String {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().map(|address| address.to_string()).unwrap_or_default(),
            Listener::Unix(_, path) => path.display().to_string(),
        }
    }

    /// Serves until `stop` is ready.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(SCRAPES));
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.accept() => match accepted {
                    Ok(stream) => {
                        // Beyond the bound a scraper is dropped; it comes again.
                        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                            let telemetry = self.telemetry.clone();
                            tokio::spawn(async move {
                                let _place = place;
                                answer(stream, telemetry).await;
                            });
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a scrape");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        if let Listener::Unix(_, path) = &self.listener {
            let _ = std::fs::remove_file(path);
        }
    }

    async fn accept(&self) -> std::io::Result<Box<dyn Stream>> {
        match &self.listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
            Listener::Unix(listener, _) => {
                listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>)
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn answer(stream: Box<dyn Stream>, telemetry: Telemetry) {
    let service = service_fn(move |request: Request<Incoming>| {
        let telemetry = telemetry.clone();
        async move { Ok::<_, Infallible>(respond(&request, telemetry).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A scraper that is slow or breaks off is its own loss.
    let _ = tokio::time::timeout(10 * TIMEOUT, connection).await;
}

async fn respond(request: &Request<Incoming>, telemetry: Telemetry) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        // With many pools that takes a while, and this thread has more to do.
        (&Method::GET, "/metrics") => match tokio::task::spawn_blocking(move || telemetry.render()).await {
            Ok(text) => (StatusCode::OK, text),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be rendered\n".to_owned()),
        },
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, text);
    response
}
