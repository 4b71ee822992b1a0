//! Google's interface of its key service over the daemon's own connections, whose trust, length of answers and number are thus
//! those of every cloud. Each call is sent as Google's own transport sends it (REST, by the API's `google.api.http`), and its
//! errors have the shapes that Google's client gives them.
//!
//! This room must not know: keys, or what becomes of an error.

use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::Status;
use google_cloud_gax::options::RequestOptions;
use google_cloud_gax::response::Response;
use google_cloud_kms_v1::model::{
    AsymmetricDecryptRequest, AsymmetricDecryptResponse, AsymmetricSignRequest, AsymmetricSignResponse,
    CreateCryptoKeyRequest, CryptoKey, CryptoKeyVersion, DecryptRequest, DecryptResponse, EncryptRequest,
    EncryptResponse, GetCryptoKeyVersionRequest, GetPublicKeyRequest, MacSignRequest, MacSignResponse, PublicKey,
    RawDecryptRequest, RawDecryptResponse, RawEncryptRequest, RawEncryptResponse,
};
use google_cloud_kms_v1::stub::KeyManagementService;
use hyper::http::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::{HeaderMap, Method, Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::credentials::{self, Source};
use crate::backend::cloud::{Keeper, Service, Transport, Undelivered};
use crate::model::WipedBuffer;

/// The service, as the names of its hosts have it.
const SERVICE: &str = "cloudkms";
/// The domain of Google's public cloud.
const PUBLIC: &str = "googleapis.com";
/// Google's variable for clouds that are not its public one.
const UNIVERSE: &str = "GOOGLE_CLOUD_UNIVERSE_DOMAIN";
/// By what Google counts its clients.
const CLIENT: &str = concat!("gl-rust/", env!("CARGO_PKG_RUST_VERSION"), " keyway/", env!("CARGO_PKG_VERSION"));
/// What stands in a resource's name as it is.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b':').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

type Answer<T> = google_cloud_gax::Result<Response<T>>;

/// The calls that this backend makes, with what it fills of their requests. (Those it does not make are Google's default, which
/// is not to be called.) Each is tried once.
#[derive(Debug)]
pub(super) struct Rest {
    site: Site,
    keeper: Arc<Keeper<Source>>,
}

impl Rest {
    /// The service at `endpoint`, or at its own address.
    ///
    /// # Errors
    ///
    /// The endpoint is no address, or the settings are none to connect by.
    pub(super) fn new(endpoint: Option<&str>, service: &Service, keeper: Arc<Keeper<Source>>) -> Result<Rest, String> {
        let universe = std::env::var(UNIVERSE).ok().filter(|domain| !domain.is_empty());
        let universe = universe.as_deref().unwrap_or(PUBLIC);
        let base = base(endpoint, universe);
        let transport = service.transport_to(&base)?;
        let site = Site::new(base, universe, transport, service.settings.call)?;
        Ok(Rest { site, keeper })
    }

    async fn get<A: DeserializeOwned>(&self, name: &str, part: &str) -> Answer<A> {
        let credentials = credentials::headers(&self.keeper).await.map_err(Error::authentication)?;
        self.site.ask(credentials, Method::GET, &self.site.url(name, part, &[])?, Bytes::new()).await
    }

    /// `verb` is what follows the name in the path.
    async fn post<A: DeserializeOwned>(
        &self,
        name: &str,
        verb: &str,
        query: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Answer<A> {
        // It may hold a plaintext. (What base64 Google's models make of that, and what the HTTP library reads and sends by, is not ours
        // to wipe.)
        let mut written = WipedBuffer::default();
        serde_json::to_writer(&mut written, body).map_err(Error::ser)?;
        let body = written.into_bytes();
        let credentials = credentials::headers(&self.keeper).await.map_err(Error::authentication)?;
        self.site.ask(credentials, Method::POST, &self.site.url(name, verb, query)?, body).await
    }
}

/// What is in the path is not in the body.
impl KeyManagementService for Rest {
    async fn get_crypto_key_version(
        &self,
        asked: GetCryptoKeyVersionRequest,
        _: RequestOptions,
    ) -> Answer<CryptoKeyVersion> {
        self.get(&asked.name, "").await
    }

    async fn get_public_key(&self, asked: GetPublicKeyRequest, _: RequestOptions) -> Answer<PublicKey> {
        self.get(&asked.name, "/publicKey").await
    }

    async fn create_crypto_key(&self, asked: CreateCryptoKeyRequest, _: RequestOptions) -> Answer<CryptoKey> {
        let query = [("cryptoKeyId", asked.crypto_key_id.as_str())];
        self.post(&asked.parent, "/cryptoKeys", &query, &asked.crypto_key.unwrap_or_default()).await
    }

    async fn asymmetric_sign(
        &self,
        mut asked: AsymmetricSignRequest,
        _: RequestOptions,
    ) -> Answer<AsymmetricSignResponse> {
        self.post(&take(&mut asked.name), ":asymmetricSign", &[], &asked).await
    }

    async fn asymmetric_decrypt(
        &self,
        mut asked: AsymmetricDecryptRequest,
        _: RequestOptions,
    ) -> Answer<AsymmetricDecryptResponse> {
        self.post(&take(&mut asked.name), ":asymmetricDecrypt", &[], &asked).await
    }

    async fn encrypt(&self, mut asked: EncryptRequest, _: RequestOptions) -> Answer<EncryptResponse> {
        self.post(&take(&mut asked.name), ":encrypt", &[], &asked).await
    }

    async fn decrypt(&self, mut asked: DecryptRequest, _: RequestOptions) -> Answer<DecryptResponse> {
        self.post(&take(&mut asked.name), ":decrypt", &[], &asked).await
    }

    async fn raw_encrypt(&self, mut asked: RawEncryptRequest, _: RequestOptions) -> Answer<RawEncryptResponse> {
        self.post(&take(&mut asked.name), ":rawEncrypt", &[], &asked).await
    }

    async fn raw_decrypt(&self, mut asked: RawDecryptRequest, _: RequestOptions) -> Answer<RawDecryptResponse> {
        self.post(&take(&mut asked.name), ":rawDecrypt", &[], &asked).await
    }

    async fn mac_sign(&self, mut asked: MacSignRequest, _: RequestOptions) -> Answer<MacSignResponse> {
        self.post(&take(&mut asked.name), ":macSign", &[], &asked).await
    }
}

/// Where the service is.
#[derive(Debug)]
struct Site {
    /// See [`base()`].
    base: String,
    /// The `Host` of requests, where it is not that of the URL.
    host: Option<HeaderValue>,
    transport: Transport,
    limit: Duration,
}

impl Site {
    fn new(base: String, universe: &str, transport: Transport, limit: Duration) -> Result<Site, String> {
        let url: Uri = base.parse().map_err(|error| format!("{base:?} is no address: {error}"))?;
        let host = url.host().ok_or_else(|| format!("{base:?} names no host"))?;
        let host = behind(host, universe).and_then(|host| HeaderValue::try_from(host).ok());
        Ok(Site { base, host, transport, limit })
    }

    /// The URL of the resource `name`, with what follows it.
    fn url(&self, name: &str, after: &str, query: &[(&str, &str)]) -> Result<String, Error> {
        // Some of these would lead elsewhere.
        if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Error::binding(format!("{name:?} is no name of a resource")));
        }
        let mut asked = form_urlencoded::Serializer::new(String::new());
        let query = asked.extend_pairs(query).append_pair("$alt", "json;enum-encoding=int").finish();
        Ok(format!("{}/v1/{}{after}?{query}", self.base, utf8_percent_encode(name, NAME)))
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        credentials: HeaderMap,
        method: Method,
        url: &str,
        body: Bytes,
    ) -> Answer<A> {
        let mut request = Request::builder().method(method).uri(url).header("x-goog-api-client", CLIENT);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let mut request = request.body(body).map_err(Error::ser)?;
        request.headers_mut().extend(credentials);
        if let Some(host) = &self.host {
            request.headers_mut().insert(HOST, host.clone());
        }
        let answer = tokio::time::timeout(self.limit, self.transport.send(request)).await;
        let (head, body) = answer.map_err(Error::timeout)?.map_err(undelivered)?.into_parts();
        if head.status.is_success() {
            return serde_json::from_slice(&body).map(Response::from).map_err(Error::deser);
        }
        let status = head.status.as_u16();
        Err(match Status::try_from(&body) {
            Ok(said) => Error::service_with_http_metadata(said, Some(status), Some(head.headers)),
            Err(_) => Error::http(status, head.headers, body),
        })
    }
}

/// The URL before the version of the API, without a slash at its end.
fn base(endpoint: Option<&str>, universe: &str) -> String {
    let own = || format!("https://{SERVICE}.{universe}");
    endpoint.map_or_else(own, |endpoint| endpoint.trim_end_matches('/').to_owned())
}

/// The service that is meant by a name of Google's for the way to many of its services, such as those of Private Service Connect
/// and VPC Service Controls, which tell them apart by `Host`. The service's own regional names, and hosts that are not Google's,
/// are called as they are.
fn behind(host: &str, universe: &str) -> Option<String> {
    let of = |domain| Some((host.strip_suffix(domain)?.strip_suffix('.')?, domain));
    let (name, domain) = [universe, PUBLIC].into_iter().find_map(of)?;
    let is_own = match name.split('.').collect::<Vec<_>>()[..] {
        [SERVICE, _, "rep"] => true,
        [name] => name.strip_suffix(SERVICE).is_some_and(|location| location.len() > 1 && location.ends_with('-')),
        _ => false,
    };
    (!is_own).then(|| format!("{SERVICE}.{domain}"))
}

fn undelivered(why: Undelivered) -> Error {
    match why {
        Undelivered::Unsent(_) => Error::ser(why),
        Undelivered::TooLong => Error::deser(why),
        Undelivered::Unconnected(_) | Undelivered::NoTunnel(_) | Undelivered::Broken(_) | Undelivered::Again { .. } => {
            Error::io(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use hyper::http::header::AUTHORIZATION;
    use serde_json::json;

    use super::*;
    use crate::backend::cloud::ANSWER_MAX;
    use crate::backend::gcp::fault;
    use crate::backend::{BackendError, Fate};
    use crate::config::KmsService;
    use crate::model::{CloudService, Fault};
    use crate::telemetry::Telemetry;

    const KEY: &str = "projects/example.com:p/locations/l/keyRings/r/cryptoKeys/k";

    fn site(endpoint: Option<&str>, universe: &str) -> Site {
        let connections = Telemetry::new().connections_of("gcpckms");
        let transport = Transport::new(&KmsService::new(CloudService::GcpCkms), connections).unwrap();
        Site::new(base(endpoint, universe), universe, transport, Duration::from_secs(30)).unwrap()
    }

    /// Asks a server that answers this; answers with what it was sent, too.
    fn asked(answer: &[u8], body: &'static str) -> (String, Result<MacSignResponse, BackendError>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = site(Some(&format!("http://{}/front/", listener.local_addr().unwrap())), PUBLIC);
        let answer = answer.to_vec();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut heard, mut room) = (Vec::new(), [0; 4096]);
            while !heard.ends_with(body.as_bytes()) || !heard.windows(4).any(|end| end == b"\r\n\r\n") {
                let read = stream.read(&mut room).unwrap();
                assert_ne!(read, 0, "{}", String::from_utf8_lossy(&heard));
                heard.extend_from_slice(&room[..read]);
            }
            // Whoever has read enough hangs up.
            let _ = stream.write_all(&answer);
            String::from_utf8(heard).unwrap()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let credentials = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer t"))]);
        let url = site.url(KEY, ":macSign", &[("a b", "c&d")]).unwrap();
        let answered = runtime.block_on(site.ask(credentials, Method::POST, &url, Bytes::from_static(body.as_bytes())));
        drop((site, runtime));
        let answered = answered.map(Response::into_body).map_err(|error| fault::of("MacSign", "key k", &error));
        (server.join().unwrap(), answered)
    }

    fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn a_call_is_sent_as_googles_own_client_sends_it() {
        let right = answer("200 OK", "", "{\"name\": \"n\", \"mac\": \"AQI=\", \"macCrc32c\": \"5\"}");
        let (heard, answered) = asked(&right, "{\"data\":\"AQ==\"}");
        let answered = answered.unwrap();
        assert_eq!((&*answered.name, &*answered.mac, answered.mac_crc32c), ("n", &b"\x01\x02"[..], Some(5)));
        let (line, _) = heard.split_once("\r\n").unwrap();
        let path = format!("/front/v1/{KEY}:macSign?a+b=c%26d&%24alt=json%3Benum-encoding%3Dint");
        assert_eq!(line, format!("POST {path} HTTP/1.1"));
        for header in ["authorization: Bearer t", "content-type: application/json", "host: 127.0.0.1:"] {
            assert!(heard.contains(&format!("\r\n{header}")), "{heard}");
        }
        assert!(heard.contains("x-goog-api-client: gl-rust/"), "{heard}");
        for name in ["", "projects//p", "projects/../p", "./p", "projects/p/"] {
            assert!(site(None, PUBLIC).url(name, "", &[]).is_err_and(|error| error.is_binding()), "{name:?}");
        }
        assert!(site(None, PUBLIC).url("a/b?c#%2e", "", &[]).unwrap().contains("/v1/a/b%3Fc%23%252e?"));
    }

    #[test]
    fn errors_are_those_of_googles_own_client() {
        let said = |status: u16, code: &str, details: serde_json::Value| {
            json!({"error": {"code": status, "message": "It is so.", "status": code, "details": details}}).to_string()
        };
        let disabled = json!([{
            "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
            "violations": [{"type": "KEY_DISABLED", "subject": KEY, "description": "d"}],
        }]);
        let retry = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]);
        let throttled = said(429, "RESOURCE_EXHAUSTED", json!([]));
        for (answer, cause, fate, told) in [
            (answer("429 T", "Retry-After: 7\r\n", &throttled), "throttled", Fate::Throttled, "RESOURCE_EXHAUSTED"),
            (answer("429 T", "Retry-After: 7\r\n", "slow down"), "throttled", Fate::Throttled, "429"),
            (answer("503 U", "", &said(503, "UNAVAILABLE", retry)), "service_error", Fate::BackOff, "It is so"),
            (answer("502 B", "", "<html>"), "service_error", Fate::BackOff, "(HTTP 502) that is not the service's"),
            (answer("503 B", "Retry-After: 7\r\n", "<html>"), "throttled", Fate::Throttled, "HTTP 503"),
            // What is not the service's says nothing of the key, the credentials or the caller.
            (answer("400 B", "", "<html>"), "unreadable_answer", Fate::BackOff, "HTTP 400"),
            (answer("401 U", "", "{}"), "unreadable_answer", Fate::BackOff, "HTTP 401"),
            (answer("403 F", "", "<html>"), "unreadable_answer", Fate::BackOff, "HTTP 403"),
            (answer("404 N", "", "<html>"), "unreadable_answer", Fate::BackOff, "HTTP 404"),
            (
                answer("400 P", "", &said(400, "FAILED_PRECONDITION", disabled)),
                "key_state",
                Fate::FindAgain,
                "enable the key's version",
            ),
            (answer("401 U", "", &said(401, "UNAUTHENTICATED", json!([]))), "credentials_refused", Fate::FindAgain, ""),
            (answer("307 R", "Location: http://127.0.0.1:1/\r\n", ""), "unreadable_answer", Fate::BackOff, "HTTP 307"),
            (answer("200 OK", "", "no JSON"), "unreadable_answer", Fate::BackOff, "cannot be read"),
            (answer("200 OK", "", ""), "unreadable_answer", Fate::BackOff, "cannot be read"),
            (answer("204 N", "", ""), "unreadable_answer", Fate::BackOff, "cannot be read"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec(), "connection", Fate::BackOff, "be reached"),
            (Vec::new(), "connection", Fate::BackOff, "be reached"),
        ] {
            let error = asked(&answer, "{}").1.unwrap_err();
            let (found, answer) = (error.fault.to_string(), String::from_utf8_lossy(&answer));
            assert_eq!((error.cause, error.fate), (cause, fate), "{answer}: {found}");
            assert!(found.contains(told), "{answer}: {found}");
            if cause == "throttled" {
                let Fault::QuotaExceeded { retry_after, .. } = error.fault else { panic!("{found}") };
                assert_eq!(retry_after, Duration::from_secs(7));
            }
        }
    }

    #[test]
    fn no_more_of_an_answer_is_read_than_there_may_be() {
        let padded = |bytes: usize| answer("200 OK", "", &format!("{{\"name\": \"n\"}}{}", " ".repeat(bytes)));
        assert_eq!(asked(&padded(ANSWER_MAX - 100), "{}").1.unwrap().name, "n");
        let error = asked(&padded(ANSWER_MAX), "{}").1.unwrap_err();
        let told = error.fault.to_string();
        assert!(error.cause == "unreadable_answer" && told.contains("more than 1048576 bytes"), "{told}");
    }

    #[test]
    fn a_service_that_cannot_be_reached_in_time_or_at_all_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = |site: &Site| {
            let url = site.url(KEY, "", &[]).unwrap();
            let asked = site.ask::<CryptoKeyVersion>(HeaderMap::new(), Method::GET, &url, Bytes::new());
            runtime.block_on(asked).map_err(|error| fault::of("GetCryptoKeyVersion", "key k", &error).cause)
        };
        let silent = Site { limit: Duration::from_millis(100), ..site(Some(&endpoint), PUBLIC) };
        assert_eq!(told(&silent).unwrap_err(), "timeout");
        drop(listener);
        assert_eq!(told(&site(Some(&endpoint), PUBLIC)).unwrap_err(), "connection");
    }

    #[test]
    fn the_address_is_the_clouds_or_the_one_that_is_given() {
        let of = |endpoint: Option<&str>, universe: &str| {
            let site = site(endpoint, universe);
            let url = site.url("projects/p", "", &[]).unwrap();
            let (url, _) = url.split_once('?').unwrap();
            (url.to_owned(), site.host.map(|host| host.to_str().unwrap().to_owned()))
        };
        let own = Some("cloudkms.googleapis.com".to_owned());
        let elsewhere = Some("cloudkms.my-universe.com".to_owned());
        assert_eq!(of(None, PUBLIC), ("https://cloudkms.googleapis.com/v1/projects/p".into(), own.clone()));
        assert_eq!(of(None, "my-universe.com").0, "https://cloudkms.my-universe.com/v1/projects/p");
        for (endpoint, host) in [
            ("https://private.googleapis.com", own.clone()),
            ("https://restricted.googleapis.com", own.clone()),
            ("https://cloudkms-mine.p.googleapis.com", own.clone()),
            ("https://europe-west3-wrong.googleapis.com", own.clone()),
            ("https://-cloudkms.googleapis.com", own),
            ("https://europe-west3-cloudkms.googleapis.com", None),
            ("https://cloudkms.europe-west3.rep.googleapis.com", None),
            ("https://cloudkms.europe-west3.rep.my-universe.com", None),
            ("https://private.my-universe.com", elsewhere),
            ("http://localhost:5678", None),
            ("https://kms.example.com/a/b", None),
        ] {
            let expected = (format!("{endpoint}/v1/projects/p"), host);
            assert_eq!(of(Some(endpoint), "my-universe.com"), expected, "{endpoint}");
            assert_eq!(of(Some(&format!("{endpoint}/")), "my-universe.com"), expected, "{endpoint}");
        }
        for endpoint in ["no address", "/only/a/path"] {
            let transport = site(None, PUBLIC).transport;
            assert!(Site::new(base(Some(endpoint), PUBLIC), PUBLIC, transport, Duration::ZERO).is_err(), "{endpoint}");
        }
    }
}
