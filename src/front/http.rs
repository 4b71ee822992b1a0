//! The HTTP wire: Vault's verbs, headers, envelope and errors. Knows no engine's fields.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response as HttpResponse, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio_io_timeout::TimeoutStream;

use super::bodies::{self, Held, Whole};
use super::due;
use super::streams::{self, Sent};
use super::usher::Seat;
use super::{Shared, path};
use crate::apart;
use crate::model::{
    Body, Caller, Class, Data, Deadline, Fault, Namespace, Operation, Outcome, Request, RequestId, Secret, Verb, Wire,
    parse_duration,
};
use crate::socket::Socket;
use crate::wire::envelope::{self, Rendered};

/// How long an answer is of use, in milliseconds.
const DEADLINE: HeaderName = HeaderName::from_static("keyway-deadline-ms");
/// `bulk` lowers a request's class.
const CLASS: HeaderName = HeaderName::from_static("keyway-class");
const VAULT_TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
/// How long an answer is kept behind a token of its own.
const VAULT_WRAP_TTL: HeaderName = HeaderName::from_static("x-vault-wrap-ttl");
const VAULT_NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// The media type of a PATCH (RFC 7396).
const MERGE_PATCH: &str = "application/merge-patch+json";
const PATCH_IS_OF: &str = "PATCH requires Content-Type: application/merge-patch+json";
/// The media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";
/// The media type of a request that is handed on as it is (RFC 6960, A.1).
const OCSP_REQUEST: &str = "application/ocsp-request";
/// Parameters of one query. No path has more than a few; each takes far more memory than its text.
const PARAMETERS: usize = 256;
/// Bodies beyond this are read apart.
const LARGE_BODY: usize = 128 << 10;
/// The first second (Unix) that HTTP has no date for: the year 10000.
const DATES_END: u64 = 253_402_300_800;
/// hyper wants room for at least this much of a head.
const HEAD_MIN: usize = 8 << 10;

/// What is sent to a connection that is turned away.
pub(super) fn farewell(fault: &Fault) -> Vec<u8> {
    let rendered = envelope::render_fault(fault);
    let status = StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
        rendered.body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&rendered.body);
    bytes
}

/// Serves one connection to its end.
pub(super) async fn serve(stream: Socket, caller: Caller, shared: &Shared, seat: &Seat) {
    // A client that reads no answers must not hold its connection for ever.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(shared.limits.client_io));
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(respond(request, caller.clone(), shared, seat).await) });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.client_io)
        .max_buf_size(shared.limits.http_head_bytes.max(HEAD_MIN))
        .half_close(true)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shared.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if ended.is_err_and(|error| error.is_parse()) {
        shared.telemetry.malformed(Wire::Http);
    }
}

async fn respond(request: HttpRequest<Incoming>, caller: Caller, shared: &Shared, seat: &Seat) -> HttpResponse<Sent> {
    let id = super::new_request_id();
    let mut changed = None;
    let rendered = match operation(request, id, caller, shared, seat).await {
        Ok((operation, held)) => match due::by(operation.deadline, shared.door.run(operation)).await {
            Ok(Outcome::Response(response)) => {
                let (response, told) = response.undated();
                changed = told;
                envelope::render(response, id)
            }
            Ok(Outcome::Download(download)) => match streams::download(download).await {
                Ok(response) => return response,
                Err(fault) => envelope::render_fault(&fault),
            },
            Ok(Outcome::Upload(upload)) => match held {
                Kept::Unread(body) => match streams::upload(upload, body, shared.limits.client_io).await {
                    Ok(response) => envelope::render(response, id),
                    Err(fault) => envelope::render_fault(&fault),
                },
                Kept::Nothing | Kept::Room(_) => envelope::render_fault(&Fault::internal("a body was read too early")),
            },
            Ok(_) => envelope::render_fault(&Fault::internal("a generic request had a typed outcome")),
            Err(fault) => envelope::render_fault(&fault),
        },
        Err(Refused::Fault(fault)) => {
            if matches!(fault, Fault::InvalidRequest { .. } | Fault::TooLarge { .. }) {
                shared.telemetry.malformed(Wire::Http);
            }
            envelope::render_fault(&fault)
        }
        Err(Refused::MediaType) => Rendered {
            status: 415,
            content_type: envelope::JSON,
            body: Bytes::from(format!("{{\"errors\":[\"{PATCH_IS_OF}\"]}}")),
            retry_after: None,
        },
    };
    let mut response = answer(rendered);
    if let Some(date) = changed.and_then(http_date) {
        response.headers_mut().insert(header::LAST_MODIFIED, date);
    }
    response
}

/// A time in Unix seconds as headers have it. None beyond the year 9999.
fn http_date(seconds: u64) -> Option<HeaderValue> {
    let time =
        Some(seconds).filter(|seconds| *seconds < DATES_END).map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    HeaderValue::try_from(httpdate::fmt_http_date(time?)).ok()
}

/// What the asker has is from then, in Unix seconds. Only a read can ask so, and what is no date is passed over (RFC 9110,
/// 13.1.3), as is what comes in twice.
fn if_modified_since(headers: &HeaderMap, verb: Verb) -> Option<u64> {
    let mut given = headers.get_all(header::IF_MODIFIED_SINCE).iter();
    let value = given.next().filter(|_| verb == Verb::Read)?;
    let is_only = given.next().is_none() && !headers.contains_key(header::IF_NONE_MATCH);
    let time = httpdate::parse_http_date(value.to_str().ok().filter(|_| is_only)?).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn answer(rendered: Rendered) -> HttpResponse<Sent> {
    let mut response = HttpResponse::new(Sent::Left(Full::new(rendered.body)));
    *response.status_mut() = StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !rendered.content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(rendered.content_type));
    }
    if let Some(seconds) = rendered.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Why a request is no operation.
enum Refused {
    Fault(Fault),
    MediaType,
}

impl Refused {
    /// As its record tells it.
    fn fault(&self) -> Fault {
        match self {
            Refused::Fault(fault) => fault.clone(),
            Refused::MediaType => Fault::invalid(PATCH_IS_OF),
        }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        Refused::Fault(fault)
    }
}

/// What is kept of a body until its request is answered.
enum Kept {
    Nothing,
    /// The room it takes.
    Room(#[expect(dead_code, reason = "given back when dropped")] Held),
    /// All of it: it goes where the answer says.
    Unread(Incoming),
}

/// Who asks for what, as the head of a request says it.
struct Asked {
    namespace: Namespace,
    caller: Caller,
    token: Option<Arc<Secret>>,
    verb: Verb,
    path: String,
}

/// What it says beside that.
struct Said {
    data: Data,
    raw: Bytes,
    deadline: Option<Duration>,
    class: Class,
    wrap_ttl: Option<Duration>,
    if_modified_since: Option<u64>,
}

/// The operation a request asks for, and what is kept of its body.
async fn operation(
    request: HttpRequest<Incoming>,
    id: RequestId,
    caller: Caller,
    shared: &Shared,
    seat: &Seat,
) -> Result<(Operation, Kept), Refused> {
    let (head, body) = request.into_parts();
    let query = parameters(head.uri.query())?;
    let asked = asked(&head, &query, caller, shared)?;
    seat.serve_for(Some(&asked.namespace).filter(|namespace| shared.door.knows(&asked.caller, namespace)));
    match said(&asked, &head.headers, query, body, shared).await {
        Ok((said, kept)) => Ok((asked.operation(id, said, shared), kept)),
        Err(refused) => {
            shared.door.note(asked.operation(id, Said::nothing(), shared), &refused.fault());
            Err(refused)
        }
    }
}

fn asked(head: &Parts, query: &Data, caller: Caller, shared: &Shared) -> Result<Asked, Fault> {
    let raw = head.uri.path();
    let Some(path) = path::below_v1(raw)? else {
        return Err(Fault::NotFound { what: format!("there is nothing at {raw}: the API is below /v1/") });
    };
    let below = Namespace::from_client(text(&head.headers, &VAULT_NAMESPACE)?.unwrap_or_default());
    let (namespace, rest) = shared.door.locate(&below, &path);
    let verb = verb(&head.method, query)?;
    let token = token(&head.headers)?.map(Arc::new);
    let caller = Caller { token: token.as_ref().map(|token| shared.door.identify(token)), ..caller };
    Ok(Asked { namespace, caller, token, verb, path: rest.to_owned() })
}

async fn said(
    asked: &Asked,
    headers: &HeaderMap,
    query: Data,
    body: Incoming,
    shared: &Shared,
) -> Result<(Said, Kept), Refused> {
    let verb = asked.verb;
    if verb == Verb::Patch && media_type(headers) != Some(MERGE_PATCH) {
        return Err(Refused::MediaType);
    }
    let (data, raw, kept) = match verb {
        Verb::Read | Verb::List | Verb::Delete => (query, Bytes::new(), Kept::Nothing),
        verb if shared.door.takes_stream(verb, &asked.path) => (Data::new(), Bytes::new(), Kept::Unread(body)),
        Verb::Write if media_type(headers) == Some(OCSP_REQUEST) => {
            (Data::new(), bodies::read_small(body, shared).await?, Kept::Nothing)
        }
        Verb::Write | Verb::Patch => {
            let may_be_form = media_type(headers) == Some(FORM);
            let read = bodies::read(body, may_be_form, &asked.caller, &asked.namespace, shared);
            let Whole { text, is_form, held } = read.await?;
            (body_data(text, is_form, &asked.namespace).await?, Bytes::new(), Kept::Room(held))
        }
    };
    let deadline = match text(headers, &DEADLINE)? {
        None => None,
        Some(ms) => Some(
            ms.parse()
                .map(Duration::from_millis)
                .map_err(|_| Fault::invalid(format!("{DEADLINE}: {ms:?} is not a number of milliseconds")))?,
        ),
    };
    let class = match text(headers, &CLASS)? {
        None | Some("interactive") => Class::Interactive,
        Some("bulk") => Class::Bulk,
        Some(other) => return Err(Fault::invalid(format!("{CLASS}: {other:?} is neither interactive nor bulk")).into()),
    };
    let wrap_ttl = wrap_ttl(headers)?;
    // What is kept behind a token is wanted whole.
    let if_modified_since = if_modified_since(headers, verb).filter(|_| wrap_ttl.is_none());
    Ok((Said { data, raw, deadline, class, wrap_ttl, if_modified_since }, kept))
}

impl Asked {
    fn operation(self, id: RequestId, said: Said, shared: &Shared) -> Operation {
        let Asked { namespace, caller, token, verb, path } = self;
        let Said { data, raw, deadline, class, wrap_ttl, if_modified_since } = said;
        let arrived = Instant::now();
        Operation {
            namespace,
            caller,
            token,
            id: Some(id),
            arrived,
            deadline: Deadline::at(arrived + shared.door.deadline(deadline)),
            class,
            wrap_ttl,
            body: Body::Request(Request { verb, path, data, raw, if_modified_since }),
        }
    }
}

impl Said {
    /// What could not be read.
    fn nothing() -> Said {
        Said {
            data: Data::new(),
            raw: Bytes::new(),
            deadline: None,
            class: Class::Interactive,
            wrap_ttl: None,
            if_modified_since: None,
        }
    }
}

fn verb(method: &Method, query: &Data) -> Result<Verb, Fault> {
    Ok(match method.as_str() {
        "GET" if asks_to_list(query)? => Verb::List,
        "GET" | "HEAD" => Verb::Read,
        "LIST" => Verb::List,
        "POST" | "PUT" => Verb::Write,
        "PATCH" => Verb::Patch,
        "DELETE" => Verb::Delete,
        _ => return Err(Fault::UnsupportedOperation),
    })
}

/// Whether `?list=` says so, in any of the ways Go's `strconv.ParseBool` reads.
fn asks_to_list(query: &Data) -> Result<bool, Fault> {
    match query.get("list").and_then(Value::as_str) {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        None | Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(Fault::invalid(format!("list={other}: expected true or false"))),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Fault> {
    let value = headers.get(name).map(HeaderValue::to_str).transpose();
    value.map_err(|_| Fault::invalid(format!("header {name} is not plain text")))
}

fn token(headers: &HeaderMap) -> Result<Option<Secret>, Fault> {
    // An empty one is none, as in Vault.
    if let Some(token) = headers.get(VAULT_TOKEN).filter(|token| !token.is_empty()) {
        return Ok(Some(Secret::new(token.as_bytes())));
    }
    let bearer = text(headers, &header::AUTHORIZATION)?.and_then(|value| value.strip_prefix("Bearer "));
    Ok(bearer.map(str::trim).filter(|token| !token.is_empty()).map(Secret::from))
}

/// None is asked for by zero, too.
fn wrap_ttl(headers: &HeaderMap) -> Result<Option<Duration>, Fault> {
    let Some(wanted) = text(headers, &VAULT_WRAP_TTL)?.filter(|wanted| !wanted.is_empty()) else { return Ok(None) };
    let expected = || Fault::invalid(format!("{VAULT_WRAP_TTL}: {wanted:?} is no duration, such as 60 or \"5m\""));
    parse_duration(wanted).ok_or_else(expected).map(|ttl| Some(ttl).filter(|ttl| !ttl.is_zero()))
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

pub(super) fn parameters(text: Option<&str>) -> Result<Data, Fault> {
    if text.is_some_and(|text| text.split('&').count() > PARAMETERS) {
        return Err(Fault::invalid(format!("the query has more than {PARAMETERS} parameters")));
    }
    Ok(query(text))
}

fn query(query: Option<&str>) -> Data {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect()
}

/// A JSON object, or a form. No body is an empty one. A large one, which only those have who may come into the namespace, is
/// read apart, so that it holds up nobody.
async fn body_data(body: Bytes, is_form: bool, namespace: &Namespace) -> Result<Data, Fault> {
    if body.len() <= LARGE_BODY {
        return parse_body(&body, is_form);
    }
    apart::run(namespace, move || parse_body(&body, is_form)).await?
}

pub(super) fn parse_body(body: &[u8], is_form: bool) -> Result<Data, Fault> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Data::new());
    }
    if is_form {
        let text = std::str::from_utf8(body).map_err(|_| Fault::invalid("the form is not UTF-8"))?;
        return Ok(query(Some(text)));
    }
    serde_json::from_slice(body).map_err(|error| Fault::invalid(format!("failed to parse JSON input: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::weight::Scales;
    use super::*;

    #[test]
    fn json_is_read_as_json_whatever_it_is_called() {
        let read = |body: &'static [u8]| {
            let mut scales = Scales::new(true);
            scales.add(body);
            parse_body(body, scales.is_form())
        };
        for body in [&b"{\"a\": \"b\"}"[..], b" \n\t{\"a\": \"b\"}", b"a=b"] {
            assert_eq!(read(body).unwrap()["a"], "b");
        }
        for body in [&b" []"[..], b"[{\"a\": 1}]", b"{", b"a=\xff"] {
            assert!(read(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_query_has_few_parameters() {
        let ask = |count: usize| parameters(Some(&vec!["a=b"; count].join("&"))).map(|data| data.len());
        assert_eq!(ask(PARAMETERS).unwrap(), 1);
        assert!(ask(PARAMETERS + 1).unwrap_err().to_string().contains("256"));
        assert!(parameters(None).unwrap().is_empty());
    }

    #[test]
    fn a_date_is_read_in_every_form_and_nothing_else_is() {
        let asked = |values: &[&str], verb| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MODIFIED_SINCE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            if_modified_since(&headers, verb)
        };
        let forms = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];
        for form in forms {
            assert_eq!(asked(&[form], Verb::Read), Some(784_111_777), "{form}");
            assert_eq!((asked(&[form], Verb::Write), asked(&[form], Verb::List)), (None, None));
            assert_eq!(asked(&[form, form], Verb::Read), None);
        }
        for odd in ["", "yesterday", "784111777", "\u{e9}", "Sun, 06 Nov 1960 08:49:37 GMT"] {
            assert_eq!(asked(&[odd], Verb::Read), None, "{odd}");
        }
        assert_eq!(http_date(784_111_777).unwrap(), forms[0]);
        assert_eq!(http_date(DATES_END), None);
        assert!(http_date(DATES_END - 1).is_some());
    }

    #[test]
    fn every_client_lists_its_own_way() {
        let verb = |method: &str, asked: &str| {
            verb(&Method::from_bytes(method.as_bytes()).unwrap(), &query(Some(asked)))
                .map_err(|fault| fault.to_string())
        };
        for asked in ["list=true", "list=True", "list=1"] {
            assert_eq!(verb("GET", asked), Ok(Verb::List), "{asked}");
        }
        assert_eq!(verb("LIST", ""), Ok(Verb::List));
        assert_eq!(verb("GET", "list=false"), Ok(Verb::Read));
        assert_eq!(verb("GET", ""), Ok(Verb::Read));
        assert!(verb("GET", "list=perhaps").unwrap_err().contains("perhaps"));
        assert!(verb("SING", "").is_err());
    }
}
