//! `sys/quotas`: how much may be asked below a path. The root namespace makes them, for all.

use std::time::Duration;

use serde_json::json;

use super::{Call, System};
use crate::model::{Data, Fault, Fields, Response};
use crate::namespace::{Allowance, Quota, QuotaKind};

/// Longest name in bytes.
const NAME_BYTES: usize = 128;
/// Largest rate, and most requests at once.
const REQUESTS_MAX: f64 = 1e9;
/// Longest interval and block, in milliseconds: ten years, beyond which nobody waits.
const SPAN_MS_MAX: u128 = 10 * 366 * 24 * 3600 * 1000;

impl System {
    pub(super) fn list_quotas(&self, call: &Call, kind: QuotaKind) -> Result<Response, Fault> {
        of_the_root(call)?;
        let names = self.quotas.names(kind);
        if names.is_empty() {
            return Err(Fault::absent());
        }
        Ok(Response::data(Data::from_iter([("keys".into(), json!(names))])))
    }

    pub(super) fn read_quota(&self, call: &Call, kind: QuotaKind, name: &str) -> Result<Response, Fault> {
        of_the_root(call)?;
        let quota = self.quotas.get(kind, name).ok_or_else(Fault::absent)?;
        let mut shown = json!({
            "type": kind.label(),
            "name": name,
            "path": quota.path,
            "role": "",
            "inheritable": quota.is_inheritable,
        });
        match quota.allowance {
            Allowance::Rate { requests, interval_ms, block_ms } => {
                shown["rate"] = requests.into();
                shown["interval"] = (interval_ms / 1000).into();
                shown["block_interval"] = (block_ms / 1000).into();
                shown["group_by"] = "none".into();
            }
            Allowance::AtOnce { requests } => shown["requests"] = requests.into(),
        }
        Ok(Response::data(shown.as_object().cloned().unwrap_or_default()))
    }

    pub(super) async fn write_quota(
        &self,
        call: &Call,
        kind: QuotaKind,
        name: &str,
        data: &Data,
    ) -> Result<Response, Fault> {
        of_the_root(call)?;
        let mut fields = Fields::below(data, &["name"]);
        let given = Given::read(&mut fields, kind)?;
        if name.len() > NAME_BYTES || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            let what = format!("a quota's name is letters, digits, '-', '_' and '.', at most {NAME_BYTES} bytes");
            return Err(Fault::invalid(what));
        }
        let warnings = fields.warnings();
        self.quotas.put(kind, name.to_owned(), move |known| given.quota(kind, known)).await?;
        tracing::info!(quota = name, kind = kind.label(), uid = call.caller.peer.uid, "quota written");
        Ok(if warnings.is_empty() { Response::Empty } else { Response::with_warnings(Data::new(), warnings) })
    }

    pub(super) async fn delete_quota(&self, call: &Call, kind: QuotaKind, name: &str) -> Result<Response, Fault> {
        of_the_root(call)?;
        if self.quotas.get(kind, name).is_some() {
            self.quotas.delete(kind, name.to_owned()).await?;
            tracing::info!(quota = name, kind = kind.label(), uid = call.caller.peer.uid, "quota deleted");
        }
        Ok(Response::Empty)
    }
}

/// What a request says of a quota.
struct Given {
    path: Option<String>,
    is_inheritable: Option<bool>,
    rate: Option<f64>,
    interval_ms: Option<u64>,
    block_ms: Option<u64>,
    requests: Option<i64>,
}

impl Given {
    fn read(fields: &mut Fields<'_>, kind: QuotaKind) -> Result<Given, Fault> {
        fields.refuse(&["role"])?;
        if fields.text("type")?.is_some_and(|given| given != kind.label()) {
            return Err(Fault::invalid(format!("the type of a quota made here is {:?}", kind.label())));
        }
        let mut given = Given {
            path: fields.text("path")?,
            is_inheritable: fields.boolean("inheritable")?,
            rate: None,
            interval_ms: None,
            block_ms: None,
            requests: None,
        };
        match kind {
            QuotaKind::RateLimit => {
                given.rate = fields.number("rate")?;
                given.interval_ms = fields.duration("interval")?.map(|span| ms(span, "interval")).transpose()?;
                given.block_ms =
                    fields.duration("block_interval")?.map(|span| ms(span, "block_interval")).transpose()?;
                if fields.text("group_by")?.is_some_and(|given| given != "none") {
                    let what = "group_by can only be \"none\": a quota counts the requests of all its clients";
                    return Err(Fault::invalid(what));
                }
            }
            QuotaKind::Concurrency => given.requests = fields.integer("requests")?,
        }
        Ok(given)
    }

    /// The quota that comes of it; what is not given stays as `known`.
    fn quota(self, kind: QuotaKind, known: Option<Quota>) -> Result<Quota, Fault> {
        let path = self.path.or_else(|| known.as_ref().map(|known| known.path.clone())).unwrap_or_default();
        let is_on_all = path.trim_matches('/').is_empty();
        if is_on_all && self.is_inheritable == Some(false) {
            return Err(Fault::invalid("a quota on everything is inheritable"));
        }
        let was_inheritable = known.as_ref().is_some_and(|known| known.is_inheritable);
        let is_inheritable = is_on_all || self.is_inheritable.unwrap_or(was_inheritable);
        let known = known.map(|known| known.allowance);
        let allowance = match kind {
            QuotaKind::RateLimit => rate(self.rate, self.interval_ms, self.block_ms, known)?,
            QuotaKind::Concurrency => at_once(self.requests, known)?,
        };
        Ok(Quota { path, is_inheritable, allowance })
    }
}

fn rate(
    requests: Option<f64>,
    interval_ms: Option<u64>,
    block_ms: Option<u64>,
    known: Option<Allowance>,
) -> Result<Allowance, Fault> {
    let (known, known_interval, known_block) = match known {
        Some(Allowance::Rate { requests, interval_ms, block_ms }) => (Some(requests), interval_ms, block_ms),
        _ => (None, 1000, 0),
    };
    let requests = requests.or(known).filter(|rate| *rate > 0.0 && *rate <= REQUESTS_MAX);
    let requests = requests.ok_or_else(|| Fault::invalid("'rate' is invalid: a number above 0, at most 1000000000"))?;
    let interval_ms = interval_ms.unwrap_or(known_interval);
    if interval_ms == 0 {
        return Err(Fault::invalid("'interval' is invalid: at least a second"));
    }
    Ok(Allowance::Rate { requests, interval_ms, block_ms: block_ms.unwrap_or(known_block) })
}

fn at_once(requests: Option<i64>, known: Option<Allowance>) -> Result<Allowance, Fault> {
    let known = match known {
        Some(Allowance::AtOnce { requests }) => i64::try_from(requests).ok(),
        _ => None,
    };
    let requests = requests.or(known).filter(|requests| *requests > 0 && *requests <= REQUESTS_MAX as i64);
    let requests = requests.and_then(|requests| usize::try_from(requests).ok());
    let requests =
        requests.ok_or_else(|| Fault::invalid("'requests' is invalid: a number above 0, at most 1000000000"))?;
    Ok(Allowance::AtOnce { requests })
}

fn ms(span: Duration, name: &str) -> Result<u64, Fault> {
    let within = Some(span.as_millis()).filter(|ms| *ms <= SPAN_MS_MAX).and_then(|ms| u64::try_from(ms).ok());
    within.ok_or_else(|| Fault::invalid(format!("'{name}' is invalid: at most ten years")))
}

/// Refuses what tenants ask: who sets their bounds is the operator of the daemon.
pub(super) fn of_the_root(call: &Call) -> Result<(), Fault> {
    if call.namespace.is_root() { Ok(()) } else { Err(Fault::invalid("operation unavailable in namespaces")) }
}
