//! For tests that hold what endpoints say of their fields to what handlers read. A request carries a mark, and whoever reads
//! a field of data with a mark has it noted, on whatever thread and however many requests are under way.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

use super::fields::Read;
use super::{Data, Endpoint, Field, FieldDefault, FieldKind, Verb};

/// The member of data that is its mark.
pub(super) const MARK: &str = "#mark";

/// One read of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reading {
    /// The field, or `field.member` of an object inside one.
    pub(crate) path: String,
    /// How it was read.
    pub(crate) how: Read,
}

static READINGS: LazyLock<Mutex<HashMap<u64, Vec<Reading>>>> = LazyLock::new(Mutex::default);
static LAST: AtomicU64 = AtomicU64::new(0);

/// Marks a request's data, with the objects and lists of objects in it that endpoints list.
pub(crate) fn mark(endpoint: &Endpoint, data: &mut Data) -> u64 {
    let mark = LAST.fetch_add(1, Ordering::Relaxed);
    data.insert(MARK.into(), mark.into());
    for field in endpoint.fields.iter().copied().flatten() {
        match (field.kind, data.get_mut(field.name)) {
            (FieldKind::Object(_), Some(Value::Object(inside))) => drop(inside.insert(MARK.into(), mark.into())),
            (FieldKind::Objects(_), Some(Value::Array(items))) => {
                for inside in items.iter_mut().filter_map(Value::as_object_mut) {
                    inside.insert(MARK.into(), mark.into());
                }
            }
            _ => {}
        }
    }
    mark
}

/// What was read of data with this mark so far, of a request to this endpoint. Panics where the endpoint says otherwise.
pub(crate) fn judged(endpoint: &Endpoint, mark: u64) -> Vec<(Verb, &'static str, Reading)> {
    let readings = READINGS.lock().remove(&mark).unwrap_or_default();
    let wrong = contradictions(endpoint, &readings);
    assert!(wrong.is_empty(), "{:?} {}: {}", endpoint.verb, endpoint.pattern, wrong.join("; "));
    readings.into_iter().map(|reading| (endpoint.verb, endpoint.pattern, reading)).collect()
}

pub(super) fn note(data: &Data, within: &str, name: &str, how: Read) {
    let Some(mark) = data.get(MARK).and_then(Value::as_u64) else { return };
    let path = if within.is_empty() { name.to_owned() } else { format!("{within}.{name}") };
    READINGS.lock().entry(mark).or_default().push(Reading { path, how });
}

/// What an endpoint says of its fields that these reads of its handler do not bear out: fields that were read and are not
/// listed, and fields that are read otherwise than is said.
fn contradictions(endpoint: &Endpoint, readings: &[Reading]) -> Vec<String> {
    let listed = listed(endpoint);
    let in_path: Vec<&str> = endpoint.open_parts().collect();
    let mut wrong = Vec::new();
    for Reading { path, how } in readings {
        // The query that makes a list of a read is no field.
        if *how == Read::Refused || path == "list" || in_path.contains(&path.as_str()) {
            continue;
        }
        match listed.iter().find(|(known, _)| known == path) {
            None => wrong.push(format!("{path} is read as {how:?} and not listed")),
            Some((_, kind)) if !fits(kind, *how) => {
                wrong.push(format!("{path} is read as {how:?} and listed as {kind:?}"))
            }
            Some(_) => {}
        }
    }
    wrong
}

/// The fields that endpoints list and none of these reads is of.
pub(crate) fn unread(endpoints: &[Endpoint], readings: &[(Verb, &'static str, Reading)]) -> Vec<String> {
    let mut found = Vec::new();
    for endpoint in endpoints {
        let is_read = |path: &str| {
            readings.iter().any(|(verb, pattern, reading)| {
                let same = *verb == endpoint.verb && *pattern == endpoint.pattern;
                same && reading.path == path && reading.how != Read::Refused
            })
        };
        let lacking = listed(endpoint).into_iter().map(|(path, _)| path).filter(|path| !is_read(path));
        found.extend(lacking.map(|path| format!("{:?} {} does not read {path}", endpoint.verb, endpoint.pattern)));
    }
    found
}

/// Panics where what a field is when absent is no value that it could have.
pub(crate) fn check_defaults(endpoint: &Endpoint) {
    for field in endpoint.fields.iter().copied().flatten() {
        let fits = match field.default {
            None => true,
            Some(FieldDefault::Text(text)) => {
                matches!(field.kind, FieldKind::Text) && (field.one_of.is_empty() || field.one_of.contains(&text))
            }
            Some(FieldDefault::Boolean(_)) => matches!(field.kind, FieldKind::Boolean),
            Some(FieldDefault::Number(_)) => matches!(field.kind, FieldKind::Integer | FieldKind::Duration),
        };
        assert!(fits, "{:?} {}: {:?}", endpoint.verb, endpoint.pattern, field);
    }
}

fn listed(endpoint: &Endpoint) -> Vec<(String, FieldKind)> {
    let mut found = Vec::new();
    for field in endpoint.fields.iter().copied().flatten() {
        found.push((field.name.to_owned(), field.kind));
        if let FieldKind::Object(members) | FieldKind::Objects(members) = field.kind {
            found.extend(members.iter().map(|member: &Field| (format!("{}.{}", field.name, member.name), member.kind)));
        }
    }
    found
}

fn fits(kind: &FieldKind, how: Read) -> bool {
    match how {
        Read::Value => true,
        Read::Text => matches!(kind, FieldKind::Text),
        Read::Boolean => matches!(kind, FieldKind::Boolean),
        Read::Integer => matches!(kind, FieldKind::Integer),
        Read::Number => matches!(kind, FieldKind::Number),
        Read::List => matches!(kind, FieldKind::List),
        Read::Duration => matches!(kind, FieldKind::Duration),
        Read::Object => matches!(kind, FieldKind::Map | FieldKind::Object(_)),
        Read::Refused => true,
    }
}
