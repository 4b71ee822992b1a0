//! `sys/quotas`: how much may be asked below a path. Each namespace makes its own, on itself and what is below it.

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
        let names = self.quotas.names(kind, &call.namespace);
        if names.is_empty() {
            return Err(Fault::absent());
        }
        Ok(Response::data(Data::from_iter([("keys".into(), json!(names))])))
    }

    pub(super) fn read_quota(&self, call: &Call, kind: QuotaKind, name: &str) -> Result<Response, Fault> {
        let quota = self.quotas.get(kind, &call.namespace, name).ok_or_else(Fault::absent)?;
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
        let known = self.quotas.get(kind, &call.namespace, name);
        let mut fields = Fields::below(data, &["name"]);
        let path = fields.text("path")?.or_else(|| known.as_ref().map(|known| known.path.clone())).unwrap_or_default();
        let is_root = call.namespace.is_root() && path.trim_matches('/').is_empty();
        let is_inheritable = match fields.boolean("inheritable")? {
            Some(false) if is_root => return Err(Fault::invalid("a quota on everything is inheritable")),
            Some(given) => given,
            None => known.as_ref().map_or(is_root, |known| known.is_inheritable) || is_root,
        };
        fields.refuse(&["role"])?;
        let allowance = match kind {
            QuotaKind::RateLimit => rate(&mut fields, known.map(|known| known.allowance))?,
            QuotaKind::Concurrency => at_once(&mut fields, known.map(|known| known.allowance))?,
        };
        if fields.text("type")?.is_some_and(|given| given != kind.label()) {
            return Err(Fault::invalid(format!("the type of a quota made here is {:?}", kind.label())));
        }
        if name.len() > NAME_BYTES || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            let what = format!("a quota's name is letters, digits, '-', '_' and '.', at most {NAME_BYTES} bytes");
            return Err(Fault::invalid(what));
        }
        let warnings = fields.warnings();
        let quota = Quota { path, is_inheritable, allowance };
        self.quotas.put(kind, &call.namespace, name.to_owned(), quota).await?;
        tracing::info!(namespace = %call.namespace, quota = name, kind = kind.label(), uid = call.caller.peer.uid, "quota written");
        Ok(if warnings.is_empty() { Response::Empty } else { Response::with_warnings(Data::new(), warnings) })
    }

    pub(super) async fn delete_quota(&self, call: &Call, kind: QuotaKind, name: &str) -> Result<Response, Fault> {
        if self.quotas.get(kind, &call.namespace, name).is_some() {
            self.quotas.delete(kind, &call.namespace, name.to_owned()).await?;
            tracing::info!(
                namespace = %call.namespace, quota = name, kind = kind.label(), uid = call.caller.peer.uid, "quota deleted"
            );
        }
        Ok(Response::Empty)
    }
}

/// How many in a time; what is not given stays as `known`.
fn rate(fields: &mut Fields<'_>, known: Option<Allowance>) -> Result<Allowance, Fault> {
    let (mut requests, mut interval_ms, mut block_ms) = match known {
        Some(Allowance::Rate { requests, interval_ms, block_ms }) => (Some(requests), interval_ms, block_ms),
        _ => (None, 1000, 0),
    };
    requests = fields.number("rate")?.or(requests);
    if let Some(given) = fields.duration("interval")? {
        interval_ms = span(given, "interval")?;
    }
    if let Some(given) = fields.duration("block_interval")? {
        block_ms = span(given, "block_interval")?;
    }
    if fields.text("group_by")?.is_some_and(|given| given != "none") {
        return Err(Fault::invalid("group_by can only be \"none\": a quota counts the requests of all its clients"));
    }
    let requests = requests.filter(|rate| *rate > 0.0 && *rate <= REQUESTS_MAX);
    let requests = requests.ok_or_else(|| Fault::invalid("'rate' is invalid: a number above 0, at most 1000000000"))?;
    if interval_ms == 0 {
        return Err(Fault::invalid("'interval' is invalid: at least a second"));
    }
    Ok(Allowance::Rate { requests, interval_ms, block_ms })
}

/// How many at once.
fn at_once(fields: &mut Fields<'_>, known: Option<Allowance>) -> Result<Allowance, Fault> {
    let known = match known {
        Some(Allowance::AtOnce { requests }) => i64::try_from(requests).ok(),
        _ => None,
    };
    let given = fields.integer("requests")?.or(known);
    let requests = given.filter(|requests| *requests > 0 && *requests <= REQUESTS_MAX as i64);
    let requests = requests.and_then(|requests| usize::try_from(requests).ok());
    let requests =
        requests.ok_or_else(|| Fault::invalid("'requests' is invalid: a number above 0, at most 1000000000"))?;
    Ok(Allowance::AtOnce { requests })
}

fn span(given: std::time::Duration, name: &str) -> Result<u64, Fault> {
    let within = Some(given.as_millis()).filter(|ms| *ms <= SPAN_MS_MAX).and_then(|ms| u64::try_from(ms).ok());
    within.ok_or_else(|| Fault::invalid(format!("'{name}' is invalid: at most ten years")))
}
