//! What is steered from outside, and the HTTP endpoint that steers it: quotas, times, faults, states of keys and of tokens.
//!
//! All of it is JSON over plain HTTP; `GET /` says how. One state for all clouds: a service asks it, and never changes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::counts::{Counts, End, Since};
use crate::faults::{Fault, Faults, Trouble};
use crate::quota::{Over, Quotas};
use crate::server::{self, Request, Response, Subject};

/// What `GET /` of the control endpoint answers.
const HELP: &str = include_str!("control.txt");

/// Everything that is steered, and what was counted.
pub(crate) struct Control {
    cloud: &'static str,
    since: Since,
    state: Mutex<State>,
    /// Counts up when connections are to be dropped.
    drops: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    quotas: Quotas,
    times: Vec<ServiceTime>,
    faults: Faults,
    keys: BTreeMap<String, KeyState>,
    tokens: Tokens,
    clock_ms: i64,
    counts: Counts,
}

/// How long the service works for one request, whatever its cryptography takes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ServiceTime {
    ms: f64,
    /// The operation it is for; all that have none of their own if absent.
    operation: Option<String>,
}

/// The state of a key as somebody else made it, over what the service itself knows.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyState {
    /// As the service knows it.
    #[default]
    Enabled,
    Disabled,
    PendingDeletion,
    Deleted,
    /// It is there, and the caller may not use it.
    Revoked,
}

/// What holds for tokens that callers prove themselves with.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tokens {
    /// How long a new one is valid.
    pub(crate) lifetime_s: u64,
    /// No new ones are given out.
    pub(crate) refuse: bool,
    /// Counts up when all that were given out expire. A service keeps it in its tokens.
    #[serde(skip_deserializing)]
    pub(crate) epoch: u64,
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens { lifetime_s: 3600, refuse: false, epoch: 0 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetState {
    state: KeyState,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetClock {
    offset_ms: i64,
}

impl Control {
    pub(crate) fn new(cloud: &'static str) -> Control {
        Control { cloud, since: Since::now(), state: Mutex::default(), drops: watch::channel(0).0 }
    }

    /// What somebody else did to a key.
    pub(crate) fn key_state(&self, key: &str) -> KeyState {
        self.state.lock().keys.get(key).copied().unwrap_or_default()
    }

    /// What holds for tokens now.
    pub(crate) fn tokens(&self) -> Tokens {
        self.state.lock().tokens
    }

    /// The service's clock, which may be wrong, in milliseconds of Unix time.
    pub(crate) fn now_ms(&self) -> i64 {
        let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        i64::try_from(now).unwrap_or(i64::MAX).saturating_add(self.state.lock().clock_ms)
    }

    pub(crate) fn since(&self) -> Duration {
        self.since.elapsed()
    }

    pub(crate) fn note(&self, subject: &Subject, since: Duration, end: End) {
        self.state.lock().counts.note(subject, since, end);
    }

    pub(crate) fn begin_connection(&self) -> Option<Trouble> {
        let mut state = self.state.lock();
        state.counts.note_connection();
        state.faults.of_connection()
    }

    pub(crate) fn failed_handshake(&self) {
        self.state.lock().counts.note_failed_handshake();
    }

    pub(crate) fn note_head(&self) {
        self.state.lock().counts.note_head();
    }

    pub(crate) fn dropping(&self) -> watch::Receiver<u64> {
        self.drops.subscribe()
    }

    pub(crate) fn troubles(&self, subject: &Subject) -> Vec<Trouble> {
        self.state.lock().faults.of_request(subject)
    }

    pub(crate) fn service_time(&self, subject: &Subject) -> Duration {
        let state = self.state.lock();
        let of = |operation: Option<&str>| state.times.iter().find(|time| time.operation.as_deref() == operation);
        let ms = of(Some(&subject.operation)).or_else(|| of(None)).map_or(0.0, |time| time.ms);
        Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default()
    }

    pub(crate) fn take(&self, subject: &Subject) -> Result<(), Over> {
        let Some(bucket) = &subject.bucket else { return Ok(()) };
        self.state.lock().quotas.take(bucket, Instant::now())
    }

    /// Does what a request to the control endpoint says.
    fn steer(&self, request: &Request) -> Result<Value, String> {
        let path = request.uri().path();
        let path = percent_encoding::percent_decode_str(path).decode_utf8().map_err(|error| error.to_string())?;
        let body = request.body();
        let mut state = self.state.lock();
        match (request.method(), path.trim_start_matches('/')) {
            (&Method::GET, "report") => return Ok(self.report(&state)),
            (&Method::PUT, "quota") => state.quotas.set(parse(body)?),
            (&Method::PUT, "service") => state.set_time(parse(body)?),
            (&Method::POST, "faults") => {
                return Ok(self.stamped(json!({"id": state.faults.add(parse::<Fault>(body)?)})));
            }
            (&Method::DELETE, "faults") => state.faults.remove(None),
            (&Method::PUT, "tokens") => state.tokens = Tokens { epoch: state.tokens.epoch, ..parse(body)? },
            (&Method::POST, "tokens/expire") => state.tokens.epoch += 1,
            (&Method::PUT, "clock") => state.clock_ms = parse::<SetClock>(body)?.offset_ms,
            (&Method::POST, "connections/drop") => self.drops.send_modify(|drops| *drops += 1),
            (&Method::POST, "reset") => state.reset(),
            (method, path) => state.steer_one(method, path, body)?,
        }
        Ok(self.stamped(json!({})))
    }

    fn report(&self, state: &State) -> Value {
        self.stamped(json!({
            "cloud": self.cloud,
            "quotas": state.quotas.all(),
            "service": state.times,
            "faults": state.faults.all(),
            "keys": state.keys,
            "tokens": state.tokens,
            "clock_offset_ms": state.clock_ms,
            "counts": state.counts.report(),
        }))
    }

    /// With the time on the clock of the counts, so that "two seconds after the change" can be found in them.
    fn stamped(&self, mut answer: Value) -> Value {
        answer["since_start_ms"] = self.since.ms().into();
        answer
    }
}

impl State {
    /// What is about one thing that the path names.
    fn steer_one(&mut self, method: &Method, path: &str, body: &[u8]) -> Result<(), String> {
        match (method, path.split_once('/')) {
            (&Method::DELETE, Some(("faults", id))) => {
                self.faults.remove(Some(id.parse().map_err(|_| format!("{id:?} is not a fault's number"))?));
            }
            (&Method::PUT, Some(("keys", key))) => match parse::<SetState>(body)?.state {
                KeyState::Enabled => drop(self.keys.remove(key)),
                state => drop(self.keys.insert(key.to_owned(), state)),
            },
            _ => return Err(format!("{method} /{path} is nothing that can be asked; GET / says what can")),
        }
        Ok(())
    }

    fn set_time(&mut self, time: ServiceTime) {
        self.times.retain(|other| other.operation != time.operation);
        self.times.push(time);
    }

    /// As at the start. Counts and tokens given out stay.
    fn reset(&mut self) {
        let tokens = Tokens { epoch: self.tokens.epoch, ..Tokens::default() };
        *self = State { tokens, counts: std::mem::take(&mut self.counts), ..State::default() };
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Serves the control endpoint until `stopped`.
pub(crate) async fn serve(listener: TcpListener, control: Arc<Control>, stopped: watch::Receiver<bool>) {
    let answer = move |request: Request| {
        let control = Arc::clone(&control);
        async move { control_answer(&control, &request) }
    };
    server::plain(listener, stopped, answer).await;
}

#[cfg(test)]
impl Control {
    /// Steers as from outside.
    pub(crate) fn order(&self, method: Method, path: &str, body: &str) {
        let request = hyper::http::Request::builder().method(method).uri(path);
        self.steer(&request.body(bytes::Bytes::copy_from_slice(body.as_bytes())).unwrap()).unwrap();
    }
}

fn control_answer(control: &Control, request: &Request) -> Response {
    if request.method() == Method::GET && request.uri().path() == "/" {
        return Response::new(HELP.into());
    }
    match control.steer(request) {
        Ok(answer) => server::json(200, &answer),
        Err(error) => server::json(400, &json!({"error": error})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steer(control: &Control, method: Method, path: &str, body: &str) -> Result<Value, String> {
        let request = Request::new(bytes::Bytes::copy_from_slice(body.as_bytes()));
        let (mut head, body) = request.into_parts();
        head.method = method;
        head.uri = path.parse().unwrap();
        control.steer(&Request::from_parts(head, body))
    }

    #[test]
    fn what_is_ordered_holds_until_it_is_taken_back() {
        let control = Control::new("none");
        let subject = Subject { operation: "sign".into(), bucket: Some("v".into()), key: Some("v/k".into()) };
        steer(&control, Method::PUT, "/quota", r#"{"per_second": 1, "burst": 1}"#).unwrap();
        assert!(control.take(&subject).is_ok());
        assert!(control.take(&subject).is_err());
        steer(&control, Method::PUT, "/keys/v/k", r#"{"state": "pending-deletion"}"#).unwrap();
        assert_eq!(control.key_state("v/k"), KeyState::PendingDeletion);
        steer(&control, Method::PUT, "/service", r#"{"ms": 2.5, "operation": "sign"}"#).unwrap();
        assert_eq!(control.service_time(&subject), Duration::from_micros(2500));
        let added = steer(&control, Method::POST, "/faults", r#"{"trouble": {"kind": "reset"}}"#).unwrap();
        assert_eq!(control.troubles(&subject), [Trouble::Reset]);
        steer(&control, Method::DELETE, &format!("/faults/{}", added["id"]), "").unwrap();
        assert_eq!(control.troubles(&subject), []);
        steer(&control, Method::POST, "/tokens/expire", "").unwrap();
        steer(&control, Method::PUT, "/tokens", r#"{"lifetime_s": 5}"#).unwrap();
        assert_eq!(control.tokens(), Tokens { lifetime_s: 5, refuse: false, epoch: 1 });
        steer(&control, Method::POST, "/reset", "").unwrap();
        assert_eq!(control.key_state("v/k"), KeyState::Enabled);
        assert_eq!(control.tokens(), Tokens { epoch: 1, ..Tokens::default() });
        assert!(control.take(&subject).is_ok());
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let control = Control::new("none");
        assert!(steer(&control, Method::PUT, "/quota", r#"{"per_minute": 1}"#).is_err());
        assert!(steer(&control, Method::PUT, "/keys/v/k", r#"{"state": "gone"}"#).is_err());
        assert!(steer(&control, Method::DELETE, "/faults/one", "").is_err());
        assert!(steer(&control, Method::GET, "/nothing", "").is_err());
    }
}
