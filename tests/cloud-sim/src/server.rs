//! The server: connections, TLS, and what happens to a request before and after a cloud's service has it.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Method;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::control::Control;
use crate::counts::End;
use crate::faults::Trouble;
use crate::line::{Cut, Line};
use crate::tls::Tls;

/// A request with its whole body.
pub(crate) type Request = hyper::http::Request<Bytes>;
/// An answer with its whole body.
pub(crate) type Response = hyper::http::Response<Bytes>;

/// The largest body that is read.
const BODY: usize = 8 * 1024 * 1024;
/// How long requests under way are waited for at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// What a request is about: what faults, quotas and counts go by.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Subject {
    /// The cloud's own word for the operation.
    pub(crate) operation: String,
    /// What is metered together with it; none where no quota is for it, as for tokens.
    pub(crate) bucket: Option<String>,
    /// The key it uses, named as [`Control::key_state`] is to know it.
    pub(crate) key: Option<String>,
}

/// Why a request is refused before the service has it. The service says it in its cloud's words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// Its quota is used up.
    Throttled { retry_after: Option<Duration> },
    /// A fault was ordered: this status, and this word for it if one was given.
    Failed { status: u16, code: Option<String>, retry_after: Option<Duration> },
}

/// What the service is to do wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Orders {
    /// One bit of the signature, MAC, ciphertext or plaintext that it makes.
    pub(crate) wrong_signature: bool,
    /// The key: it takes another of the same kind.
    pub(crate) other_key: bool,
    /// Its checksum, where it sends one; and it says that the request's was wrong.
    pub(crate) wrong_checksum: bool,
}

/// A cloud's key service. It does cryptography and judges requests as the cloud would; faults, quotas and time are not its
/// business.
pub(crate) trait Service: Send + Sync + 'static {
    /// The cloud's name.
    const CLOUD: &'static str;

    /// What a request is about. It must not fail: what is not understood gets a subject all the same.
    fn subject(&self, request: &Request) -> Subject;

    /// Answers it. States of keys and of tokens are asked of `control`.
    fn serve(
        &self,
        request: Request,
        subject: &Subject,
        orders: Orders,
        control: &Control,
    ) -> impl Future<Output = Response> + Send;

    /// An answer to a request that the service never had.
    fn refuse(&self, subject: &Subject, refusal: &Refusal) -> Response;
}

/// A service at an address.
pub(crate) struct Site<S> {
    service: S,
    control: Arc<Control>,
    tls: Option<Tls>,
}

impl<S: Service> Site<S> {
    pub(crate) fn new(service: S, control: Arc<Control>, tls: Option<Tls>) -> Site<S> {
        Site { service, control, tls }
    }
}

/// Serves until `stopped` says so, then waits for what is under way.
pub(crate) async fn serve<S: Service>(listener: TcpListener, site: Arc<Site<S>>, stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let end = told(stopped.clone());
    tokio::pin!(end);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(Line::new(stream), Arc::clone(&site), stopped.clone()));
                }
                // No more files, most likely. Without a pause this would spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = end.as_mut() => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
}

/// Waits until everything is to stop.
async fn told(mut stopped: watch::Receiver<bool>) {
    // Nobody left to tell is as good as told.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn connection<S: Service>(line: Line, site: Arc<Site<S>>, stopped: watch::Receiver<bool>) {
    let cut = line.cutter();
    let trouble = site.control.begin_connection();
    let acceptor = match (&site.tls, trouble) {
        (_, Some(Trouble::Refuse | Trouble::TlsAbort)) => return cut.cut(),
        (None, Some(_)) => return cut.cut(),
        (None, None) => return exchange(line, cut, site, stopped).await,
        (Some(tls), Some(_)) => tls.strange.clone(),
        (Some(tls), None) => tls.own.clone(),
    };
    match acceptor.accept(line).await {
        Ok(stream) => exchange(stream, cut, site, stopped).await,
        Err(_) => site.control.failed_handshake(),
    }
}

/// Answers the requests of a connection until its end, or until connections are to be dropped.
async fn exchange<S: Service>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    cut: Cut,
    site: Arc<Site<S>>,
    stopped: watch::Receiver<bool>,
) {
    let mut dropped = site.control.dropping();
    let answers = service_fn(|request| {
        let (site, cut) = (Arc::clone(&site), cut.clone());
        async move { answer(&site, request, &cut).await }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let connection = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answers);
    tokio::pin!(connection);
    tokio::select! {
        // Whoever resets a connection does not ask how it went.
        _ = connection.as_mut() => return,
        () = told(stopped) => {}
        _ = dropped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// The connection is to be reset.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a reset was ordered")
    }
}

impl std::error::Error for Broken {}

async fn answer<S: Service>(
    site: &Site<S>,
    request: hyper::http::Request<Incoming>,
    cut: &Cut,
) -> Result<hyper::http::Response<Full<Bytes>>, Broken> {
    let began = Instant::now();
    let since = site.control.since();
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY).collect().await else {
        cut.cut();
        return Err(Broken);
    };
    if head.method == Method::HEAD {
        site.control.note_head();
        return Ok(nothing());
    }
    let request = Request::from_parts(head, body.to_bytes());
    let subject = site.service.subject(&request);
    let (response, end) = outcome(site, request, &subject, began).await;
    site.control.note(&subject, since, end);
    match response {
        Some(response) => Ok(response.map(Full::new)),
        None => {
            cut.cut();
            Err(Broken)
        }
    }
}

/// The answer to who asks for nothing, as clients do on connections that they want to keep: it is no operation, so neither a quota
/// nor a fault is for it, and it counts as none.
fn nothing() -> hyper::http::Response<Full<Bytes>> {
    let mut response = hyper::http::Response::new(Full::default());
    *response.status_mut() = hyper::StatusCode::NOT_FOUND;
    response
}

/// The answer to a request, none where the connection is to be reset, and what it counts as.
async fn outcome<S: Service>(
    site: &Site<S>,
    request: Request,
    subject: &Subject,
    began: Instant,
) -> (Option<Response>, End) {
    let mut orders = Orders::default();
    let (mut reset_after, mut blanks) = (false, 0);
    let mut due = began + site.control.service_time(subject);
    for trouble in site.control.troubles(subject) {
        let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
        match trouble {
            Trouble::Status { status, code, retry_after_ms } => {
                let refusal = Refusal::Failed { status, code, retry_after: ms(retry_after_ms) };
                let response = site.service.refuse(subject, &refusal);
                let end = End::Faulted(response.status().as_u16());
                return (Some(response), end);
            }
            Trouble::Throttle { retry_after_ms } => return throttled(site, subject, ms(retry_after_ms)),
            Trouble::Reset => return (None, End::Reset),
            Trouble::ResetAfter => reset_after = true,
            Trouble::Slow { ms } => due += Duration::from_millis(ms),
            Trouble::WrongSignature => orders.wrong_signature = true,
            Trouble::OtherKey => orders.other_key = true,
            Trouble::Long { bytes } => blanks += bytes,
            Trouble::Answer { status, body, location } => {
                let response = instead(status, body, location.as_deref());
                let end = End::Faulted(response.status().as_u16());
                return (Some(response), end);
            }
            Trouble::WrongChecksum => orders.wrong_checksum = true,
            Trouble::Refuse | Trouble::TlsAbort | Trouble::TlsStranger => {}
        }
    }
    if let Err(over) = site.control.take(subject) {
        return throttled(site, subject, over.retry_after);
    }
    let response = site.service.serve(request, subject, orders, &site.control).await;
    tokio::time::sleep_until(due.into()).await;
    if reset_after {
        return (None, End::Reset);
    }
    let end = End::Answered(response.status().as_u16());
    (Some(if blanks > 0 { lengthened(response, blanks) } else { response }), end)
}

fn throttled<S: Service>(site: &Site<S>, subject: &Subject, retry_after: Option<Duration>) -> (Option<Response>, End) {
    let response = site.service.refuse(subject, &Refusal::Throttled { retry_after });
    let end = End::Throttled(response.status().as_u16());
    (Some(response), end)
}

/// What was ordered in the place of an answer.
fn instead(status: u16, body: String, location: Option<&str>) -> Response {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(location) = location.and_then(|location| hyper::header::HeaderValue::from_str(location).ok()) {
        response.headers_mut().insert(hyper::header::LOCATION, location);
    }
    response
}

/// The same answer with blanks behind it.
fn lengthened(response: Response, blanks: usize) -> Response {
    let mut response = response.map(|body| [&body[..], &vec![b' '; blanks]].concat().into());
    response.headers_mut().remove(hyper::header::CONTENT_LENGTH);
    response
}

/// An answer of JSON.
pub(crate) fn json(status: u16, body: &serde_json::Value) -> Response {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let kind = hyper::header::HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}

/// Serves plain HTTP without faults, each connection in a task of its own, until `stopped`.
pub(crate) async fn plain<F>(
    listener: TcpListener,
    stopped: watch::Receiver<bool>,
    answer: impl Fn(Request) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Response> + Send,
{
    let end = told(stopped);
    tokio::pin!(end);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
            () = end.as_mut() => return,
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let answers = service_fn(move |request: hyper::http::Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = Limited::new(body, BODY).collect().await.map(|body| body.to_bytes());
                    let request = Request::from_parts(head, body.unwrap_or_default());
                    Ok::<_, Infallible>(answer(request).await.map(Full::new))
                }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            // Whoever steers may hang up.
            let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answers).await;
        });
    }
}
