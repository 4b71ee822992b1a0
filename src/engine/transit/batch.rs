//! `batch_input`: many inputs in one request, answered in their order, each with a result or an error of its own.

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::Value;

use crate::engine::batch_room::BatchRoom;
use crate::model::{Class, Data, Deadline, Fault, FaultLabel, Fields, Response};

/// The items of one batch; at least one.
pub(super) struct Batch {
    items: Vec<Data>,
}

/// The field that a batch stands in.
pub(super) const FIELD: &str = "batch_input";
/// What `partial_failure_response_code` may be. Below are no statuses that end an answer: a client would wait for another.
const STATUSES: std::ops::RangeInclusive<i64> = 200..=599;

/// Which of Vault's status rules for batches holds where items fail: as for encryption and decryption.
pub(super) struct Failures {
    /// The status where some items went well.
    partial: Option<i64>,
}

impl Failures {
    /// The rule of a request.
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Failures, Fault> {
        Ok(Failures { partial: fields.integer("partial_failure_response_code")? })
    }

    /// The status of the whole, and a warning: a user's error counts before one of ours.
    pub(super) fn status<T>(&self, results: &[Result<T, Fault>]) -> Option<(u16, Option<String>)> {
        let mut failed = results.iter().filter_map(|result| result.as_ref().err()).peekable();
        failed.peek()?;
        let status = if failed.any(is_users) { 400 } else { 500 };
        match self.partial.filter(|_| results.iter().any(Result::is_ok)) {
            None => Some((status, None)),
            Some(asked) if STATUSES.contains(&asked) => Some((u16::try_from(asked).unwrap_or(status), None)),
            Some(_) => {
                let what = "invalid HTTP response code override from partial_failure_response_code, reverting to";
                Some((status, Some(format!("{what} {status}"))))
            }
        }
    }
}

/// Whether the request is at fault, so that it would fail again unchanged.
pub(super) fn is_users(fault: &Fault) -> bool {
    matches!(
        fault.label(),
        FaultLabel::InvalidRequest | FaultLabel::NotSupported | FaultLabel::PermissionDenied | FaultLabel::NotFound
    )
}

impl Batch {
    /// The batch of a request, if it has one.
    pub(super) fn parse(fields: &mut Fields<'_>, most: usize) -> Result<Option<Batch>, Fault> {
        let Some(value) = fields.value(FIELD) else { return Ok(None) };
        let wrong = || Fault::invalid("failed to parse batch input: expected a list of objects");
        let items = value.as_array().ok_or_else(wrong)?;
        if items.is_empty() {
            return Err(Fault::invalid("missing batch input to process"));
        }
        if items.len() > most {
            return Err(Fault::TooLarge {
                what: format!("batch_input has {} items; at most {most} are taken", items.len()),
            });
        }
        let items = items.iter().map(|item| item.as_object().cloned()).collect::<Option<_>>().ok_or_else(wrong)?;
        Ok(Some(Batch { items }))
    }

    /// Its items.
    pub(super) fn items(&self) -> &[Data] {
        &self.items
    }

    /// One of them.
    pub(super) fn item(&self, item: usize) -> Result<&Data, Fault> {
        self.items.get(item).ok_or_else(|| Fault::internal("a batch has no such item"))
    }

    /// A string member of an item, if it is there.
    pub(super) fn text(&self, item: usize, name: &'static str) -> Result<Option<&str>, Fault> {
        match Fields::inside(FIELD, self.item(item)?).value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Fault::invalid(format!("field {name:?}: expected a string"))),
        }
    }

    /// Runs `work` on every item, by its number, one after the other: what no token does.
    pub(super) async fn one_by_one<T, F>(&self, work: impl Fn(usize) -> F) -> Vec<Result<T, Fault>>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        stream::iter(0..self.items.len()).then(work).collect().await
    }

    /// Runs `work` on every item, by its number, as there is room; answers the results in the items' order.
    pub(super) async fn run<T, F>(
        &self,
        room: &BatchRoom,
        deadline: Deadline,
        work: impl Fn(usize) -> F,
    ) -> Vec<Result<T, Fault>>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        run(self.items.len(), room, deadline, work).await
    }

    /// Refuses where only some of the items have a `context`, which only derived keys have a use for.
    pub(super) fn check_contexts(&self) -> Result<(), Fault> {
        let has = |item: &Data| {
            Fields::inside(FIELD, item).value("context").is_some_and(|context| context.as_str() != Some(""))
        };
        let with = self.items.iter().filter(|item| has(item)).count();
        if with == 0 || with == self.items.len() {
            return Ok(());
        }
        Err(Fault::invalid("context should be set either in all the request blocks or in none"))
    }

    /// Refuses where an item lacks `member`.
    pub(super) fn require(&self, member: &str, what: &str) -> Result<(), Fault> {
        match self.items.iter().position(|item| !item.contains_key(member)) {
            None => Ok(()),
            Some(place) => {
                Err(Fault::invalid(format!("failed to parse batch input: '[{place}].{member}' missing {what}")))
            }
        }
    }

    /// The same as [`Batch::response`], with the status that Vault gives a batch of which items failed.
    pub(super) fn response_by<T>(
        &self,
        results: Vec<Result<T, Fault>>,
        failures: &Failures,
        show: impl Fn(Result<T, Fault>) -> Data,
        mut warnings: Vec<String>,
    ) -> Response {
        let Some((status, warning)) = failures.status(&results) else {
            return self.response(results.into_iter().map(show), warnings);
        };
        warnings.extend(warning);
        let data = self.data(results.into_iter().map(show));
        Response::Failed { status, data, warnings }
    }

    /// The whole answer. Every result carries its item's `reference`.
    pub(super) fn response(&self, results: impl Iterator<Item = Data>, warnings: Vec<String>) -> Response {
        Response::with_warnings(self.data(results), warnings)
    }

    fn data(&self, results: impl Iterator<Item = Data>) -> Data {
        let with_reference = |(item, mut result): (&Data, Data)| {
            let reference = Fields::inside(FIELD, item).value("reference").and_then(Value::as_str).unwrap_or_default();
            result.insert("reference".into(), reference.into());
            Value::Object(result)
        };
        let results: Vec<Value> = self.items.iter().zip(results).map(with_reference).collect();
        let mut data = Data::new();
        data.insert("batch_results".into(), results.into());
        data
    }
}

/// Runs `work` for each number below `count`, as there is room; answers the results in their order.
pub(super) async fn run<T, F>(
    count: usize,
    room: &BatchRoom,
    deadline: Deadline,
    work: impl Fn(usize) -> F,
) -> Vec<Result<T, Fault>>
where
    F: Future<Output = Result<T, Fault>>,
{
    let work = &work;
    let enter = |item| async move {
        let _place = room.enter(1, deadline).await?;
        work(item).await
    };
    stream::iter(0..count).map(enter).buffered(room.window()).collect().await
}

/// Batches are bulk, unless they are of a lower class already.
pub(super) fn class(asked: Class) -> Class {
    match asked {
        Class::Interactive => Class::Bulk,
        other => other,
    }
}

/// The result of an item that failed.
pub(super) fn error(fault: &Fault) -> Data {
    let mut data = Data::new();
    data.insert("error".into(), fault.to_string().into());
    data
}

/// The result of an item that failed; `member` keeps its empty value.
pub(super) fn failed(fault: &Fault, member: &str, empty: Value) -> Data {
    let mut data = error(fault);
    data.insert(member.into(), empty);
    data
}
