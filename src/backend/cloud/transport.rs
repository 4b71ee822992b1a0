//! Connections to one service and to whoever gives out credentials for it, but for Google's tokens, which a library fetches on its
//! own: kept and shared by all clients, counted, and no more of an answer read than there may be. This room must not know: any one service, or what is asked of it.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::http::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use reqwest::redirect::Policy;
use reqwest::{Certificate, NoProxy, Url};
use tower_layer::layer_fn;
use tower_service::Service;

use super::warm::Warm;
use super::{ANSWER_MAX, TIMEOUT, innermost};
use crate::config::KmsService;
use crate::telemetry::ConnectionMetrics;

/// Connections that are idle are kept so long, if the service does not end them before: a handshake takes longer than a call. What
/// keeps them open asks more often (`warm_interval`).
const IDLE: Duration = Duration::from_secs(300);
/// Where the environment may name a proxy: the first that does.
const PROXIES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// Why a proxy made no way to a service.
pub(super) type TunnelError = <Tunnel<HttpConnector> as Service<Uri>>::Error;

/// Connections to one service, shared by all its clients. Cheap to clone; clones are the same connections.
#[derive(Clone)]
pub(crate) struct Transport {
    client: reqwest::Client,
    /// What they go through, but for hosts that `NO_PROXY` names.
    proxy: Option<Arc<Proxy>>,
    /// The endpoint whose connections are kept as long as this lives, if any.
    warm: Option<Arc<Warm>>,
}

impl Transport {
    /// Connections by these settings. None is made.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings, the proxy or the system's certificates, in words.
    pub(crate) fn new(settings: &KmsService, connections: ConnectionMetrics) -> Result<Transport, String> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(settings.call)
            .connector_layer(layer_fn(move |inner| Counted { inner, connections: connections.clone() }))
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            // No service sends anybody elsewhere, and credentials are not to follow.
            .redirect(Policy::none())
            .no_proxy();
        let proxy = Proxy::of_environment(|name| std::env::var_os(name))?;
        if let Some(Proxy { variable, address, client }) = &proxy {
            let service = settings.service.title();
            tracing::info!(service, address, variable, "calls go through a proxy, but to hosts that NO_PROXY names");
            builder = builder.proxy(client.clone().no_proxy(NoProxy::from_env()));
        }
        if let Some(pem) = &settings.ca_certificates {
            let trusted =
                Certificate::from_pem_bundle(pem).map_err(|error| format!("ca_file: {}", innermost(&error)))?;
            builder = builder.tls_certs_merge(trusted);
        }
        let client = builder.build().map_err(|error| format!("TLS cannot be set up: {}", innermost(&error)))?;
        Ok(Transport { client, proxy: proxy.map(Arc::new), warm: None })
    }

    /// The same connections, for calls of this endpoint.
    pub(super) fn to(self, warm: Arc<Warm>) -> Transport {
        Transport { warm: Some(warm), ..self }
    }

    /// Makes one request, and reads the whole answer, whatever its status. No redirect is followed.
    ///
    /// # Errors
    ///
    /// [`Undelivered`]: there is no whole answer of at most [`ANSWER_MAX`] bytes.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Undelivered> {
        let request = reqwest::Request::try_from(request).map_err(|error| Undelivered::Unsent(error.without_url()))?;
        let under_way = self.warm.as_ref().map(|warm| warm.call());
        let to = request.url().host_str().unwrap_or_default().to_owned();
        let answer = self.client.execute(request).await.map_err(|error| self.undelivered(error.without_url(), &to))?;
        let (head, body) = Response::from(answer).into_parts();
        let read =
            Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
                true => Undelivered::TooLong,
                false => Undelivered::Broken(error),
            })?;
        if let Some(call) = under_way {
            call.is_answered();
        }
        Ok(Response::from_parts(head, read.to_bytes()))
    }

    /// Why nothing was answered by this host.
    fn undelivered(&self, error: reqwest::Error, to: &str) -> Undelivered {
        let tunnel = chain(&error).find_map(|error| error.downcast_ref());
        match (&self.proxy, tunnel) {
            (Some(proxy), Some(tunnel)) => Undelivered::NoTunnel(proxy.why(tunnel, to)),
            _ if error.is_connect() => Undelivered::Unconnected(error),
            _ => Undelivered::Broken(error.into()),
        }
    }
}

/// With the credentials of a proxy it would say too much.
impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

/// The proxy that the environment names for HTTPS. What is asked in plain HTTP is this host's own, an instance's or a container's
/// metadata, and no proxy's business.
struct Proxy {
    /// The variable that names it.
    variable: &'static str,
    /// Its host and port. Whatever else its URL has is a secret.
    address: String,
    client: reqwest::Proxy,
}

impl Proxy {
    /// By the environment as it is read by this.
    fn of_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Proxy>, String> {
        let named = |name| Some((name, variable(name).filter(|value| !value.is_empty())?));
        let Some((variable, value)) = PROXIES.into_iter().find_map(named) else { return Ok(None) };
        let wrong = |what| format!("the environment's {variable} is {what}: correct it, and start Keyway again");
        let no_url = || wrong("no URL of a proxy");
        let value = value.to_str().ok_or_else(no_url)?;
        let url = if value.contains("://") { Url::parse(value) } else { Url::parse(&format!("http://{value}")) };
        let url = url.map_err(|_| no_url())?;
        // The client takes SOCKS for HTTP, and would fail each connection.
        if !["http", "https"].contains(&url.scheme()) {
            return Err(wrong("neither an http:// nor an https:// proxy, and no others are supported"));
        }
        let (host, port) = url.host_str().zip(url.port_or_known_default()).ok_or_else(no_url)?;
        let address = format!("{host}:{port}");
        let client = reqwest::Proxy::https(url).map_err(|_| no_url())?;
        Ok(Some(Proxy { variable, address, client }))
    }

    /// Why there is no way through it to this host, and what to do.
    fn why(&self, error: &TunnelError, to: &str) -> String {
        let Proxy { variable, address, .. } = self;
        let again = "and start Keyway again";
        match error {
            TunnelError::ProxyAuthRequired => {
                format!("the proxy {address} asks for a user and password (407): correct them in {variable}, {again}")
            }
            TunnelError::TunnelUnsuccessful => format!(
                "the proxy {address} refused to connect to {to}, or could not: allow it there, or name it in NO_PROXY, {again}"
            ),
            TunnelError::ConnectFailed(why) => {
                let why = innermost(&**why);
                format!("the proxy {address} cannot be reached: {why}: start it, or correct {variable}, {again}")
            }
            _ => format!("the proxy {address} broke off what connects to {to}: see its log"),
        }
    }
}

/// Why there is no whole answer.
#[derive(Debug)]
pub(crate) enum Undelivered {
    /// The request is none that can be sent.
    Unsent(reqwest::Error),
    /// There was no connection: name, TCP, TLS, or not in time.
    Unconnected(reqwest::Error),
    /// The connection broke off before the answer had ended.
    Broken(Box<dyn Error + Send + Sync>),
    /// The answer is longer than [`ANSWER_MAX`].
    TooLong,
    /// The proxy made no way to it: why, and what to do, in words.
    NoTunnel(String),
    /// What another was told, in words.
    Again { cause: &'static str, why: String },
}

impl Undelivered {
    /// The one that an error of a service's library comes from, if any.
    pub(crate) fn among<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Undelivered> {
        chain(error).find_map(|error| error.downcast_ref())
    }

    /// There was no answer within this limit.
    pub(super) fn late(limit: Duration) -> Undelivered {
        Undelivered::Again { cause: TIMEOUT, why: format!("no answer within {} ms", limit.as_millis()) }
    }

    /// The same for another who waits for the same.
    pub(crate) fn again(&self) -> Undelivered {
        Undelivered::Again { cause: self.cause(), why: innermost(self) }
    }

    /// Whether it took too long.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Undelivered::Unconnected(error) if error.is_timeout())
    }

    /// The cause in metrics.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Undelivered::Unsent(_) => "unsent",
            Undelivered::TooLong => "unreadable_answer",
            Undelivered::NoTunnel(_) => "proxy",
            Undelivered::Again { cause, .. } => cause,
            _ if self.is_late() => TIMEOUT,
            Undelivered::Unconnected(_) | Undelivered::Broken(_)
                if chain(self).any(|error| error.is::<rustls::Error>()) =>
            {
                "tls"
            }
            Undelivered::Unconnected(_) | Undelivered::Broken(_) => "connection",
        }
    }
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Undelivered::Unsent(_) => f.write_str("a request that cannot be sent"),
            Undelivered::Unconnected(_) => f.write_str("no connection"),
            Undelivered::Broken(_) => f.write_str("the connection broke off"),
            Undelivered::TooLong => write!(f, "an answer of more than {ANSWER_MAX} bytes"),
            Undelivered::NoTunnel(why) | Undelivered::Again { why, .. } => f.write_str(why),
        }
    }
}

impl Error for Undelivered {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Undelivered::Unsent(error) | Undelivered::Unconnected(error) => Some(error),
            Undelivered::Broken(error) => Some(&**error),
            Undelivered::NoTunnel(_) | Undelivered::TooLong | Undelivered::Again { .. } => None,
        }
    }
}

/// An error and all that it comes from.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<std::io::Error>() {
        // Its source is what its payload comes from, and not its payload.
        Some(error) => error.get_ref().map(|payload| payload as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// Makes connections, and counts them.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    connections: ConnectionMetrics,
}

impl<S, R> Service<R> for Counted<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, to: R) -> Self::Future {
        let mut attempt = Attempt { begun: Instant::now(), made: false, connections: self.connections.clone() };
        let connection = self.inner.call(to);
        Box::pin(async move {
            let connection = connection.await;
            attempt.made = connection.is_ok();
            drop(attempt);
            connection
        })
    }
}

/// A connection that is being made. Whoever gives up waiting for it drops it.
struct Attempt {
    begun: Instant,
    made: bool,
    connections: ConnectionMetrics,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        match self.made {
            true => self.connections.made(self.begun.elapsed()),
            false => self.connections.failed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::model::CloudService;
    use crate::telemetry::Telemetry;

    fn transport(telemetry: &Telemetry) -> Transport {
        Transport::new(&KmsService::new(CloudService::AwsKms), telemetry.connections_of("awskms")).unwrap()
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn get(url: &str) -> Request<Bytes> {
        Request::get(url).body(Bytes::new()).unwrap()
    }

    #[test]
    fn a_proxy_is_an_http_proxy_or_refused() {
        let proxy = |name: &'static str, value: &str| {
            let proxy = Proxy::of_environment(|asked| (asked == name).then(|| value.into()))?;
            Ok::<_, String>(proxy.map_or_else(String::new, |proxy| format!("{} {}", proxy.variable, proxy.address)))
        };
        for name in PROXIES {
            for (url, address) in [
                ("http://one:8080", "one:8080"),
                ("http://one", "one:80"),
                ("HTTPS://user:secret@one", "one:443"),
                ("one.example:8080", "one.example:8080"),
                ("user:secret@[::1]:8080/path", "[::1]:8080"),
            ] {
                assert_eq!(proxy(name, url), Ok(format!("{name} {address}")), "{name}={url}");
            }
            assert_eq!(proxy(name, ""), Ok(String::new()), "{name}");
            for url in ["socks5://user:secret@one:1080", "socks5h://one", "http://", "ftp://one"] {
                let told = proxy(name, url).unwrap_err();
                assert!(told.contains(name) && !told.contains("secret"), "{told}");
            }
        }
        assert_eq!(proxy("HTTP_PROXY", "http://one:8080"), Ok(String::new()));
        let first =
            Proxy::of_environment(|name| Some(if name == PROXIES[0] { "http://one" } else { "socks5://one" }.into()));
        assert!(first.unwrap().is_some());
        use std::os::unix::ffi::OsStringExt;
        assert!(Proxy::of_environment(|_| Some(OsString::from_vec(vec![0xff]))).is_err(), "no UTF-8");
    }

    /// The length of what is read of an answer that has so many bytes.
    fn read(bytes: usize) -> Result<usize, Undelivered> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let head = format!("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: {bytes}\r\n\r\n");
            // Whoever has read enough hangs up.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![7; bytes]));
        });
        let client = transport(&Telemetry::new());
        let answer = run(client.send(get(&url)));
        drop(client);
        server.join().unwrap();
        answer.map(|answer| {
            assert_eq!(answer.status(), 302, "nobody goes where a redirect leads");
            answer.body().len()
        })
    }

    #[test]
    fn no_more_of_an_answer_is_read_than_there_may_be() {
        assert_eq!(read(ANSWER_MAX).unwrap(), ANSWER_MAX);
        let long = read(ANSWER_MAX * 8).unwrap_err();
        assert!(matches!(long, Undelivered::TooLong) && long.cause() == "unreadable_answer", "{long}");
    }

    #[test]
    fn connections_are_counted_and_why_there_is_none_is_told() {
        let telemetry = Telemetry::new();
        let client = transport(&telemetry);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            // Hangs up without a word, and then speaks no TLS.
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            drop(stream);
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            // What it was sent is read, or it would be reset.
            let _ = stream.read(&mut [0; 4096]);
        });
        let told = |url: &str| {
            let error = run(client.send(get(url))).unwrap_err();
            assert_eq!((error.again().cause(), error.again().to_string()), (error.cause(), innermost(&error)));
            let wrapped = Undelivered::Broken(error.into());
            let Undelivered::Broken(within) = &wrapped else { panic!("{wrapped}") };
            Undelivered::among(&**within).map(|found| (found.cause(), innermost(&wrapped))).unwrap()
        };
        let (broken, plain) = (told(&format!("http://{address}/")), told(&format!("https://{address}/")));
        server.join().unwrap();
        let refused = told(&format!("http://{address}/"));
        assert_eq!((broken.0, refused.0), ("connection", "connection"), "{broken:?} {refused:?}");
        assert!(refused.1.contains("refused"), "{refused:?}");
        assert_eq!(plain.0, "tls", "{plain:?}");
        let text = telemetry.render();
        for line in [
            r#"keyway_service_connections_total{service="awskms",result="ok"} 1"#,
            r#"keyway_service_connections_total{service="awskms",result="failed"} 2"#,
            r#"keyway_service_connect_duration_seconds_count{service="awskms"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing from\n{text}");
        }
    }
}
