//! `batch_input`: many inputs in one request, answered in their order, each with a result or an error of its own.

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::Value;

use crate::model::{Class, Data, Fault, Fields, Response};

/// The items of one batch; at least one.
pub(super) struct Batch {
    items: Vec<Data>,
}

impl Batch {
    /// The batch of a request, if it has one.
    pub(super) fn parse(fields: &mut Fields<'_>, most: usize) -> Result<Option<Batch>, Fault> {
        let Some(value) = fields.value("batch_input") else { return Ok(None) };
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

    /// A string member of an item, if it is there.
    pub(super) fn text(&self, item: usize, name: &str) -> Result<Option<&str>, Fault> {
        match self.items.get(item).and_then(|item| item.get(name)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Fault::invalid(format!("field {name:?}: expected a string"))),
        }
    }

    /// Runs `work` on every item, by its number, at most `window` at once; answers the results in the items' order.
    pub(super) async fn run<T, F>(&self, window: usize, work: impl Fn(usize) -> F) -> Vec<Result<T, Fault>>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        stream::iter(0..self.items.len()).map(work).buffered(window).collect().await
    }

    /// The whole answer. Every result carries its item's `reference`.
    pub(super) fn response(&self, results: impl Iterator<Item = Data>, warnings: Vec<String>) -> Response {
        let with_reference = |(item, mut result): (&Data, Data)| {
            let reference = item.get("reference").and_then(Value::as_str).unwrap_or_default();
            result.insert("reference".into(), reference.into());
            Value::Object(result)
        };
        let results: Vec<Value> = self.items.iter().zip(results).map(with_reference).collect();
        let mut data = Data::new();
        data.insert("batch_results".into(), results.into());
        Response::with_warnings(data, warnings)
    }
}

/// Batches are bulk, unless they are of a lower class already.
pub(super) fn class(asked: Class) -> Class {
    match asked {
        Class::Interactive => Class::Bulk,
        other => other,
    }
}

/// The result of an item that failed; `member` keeps its empty value.
pub(super) fn failed(fault: &Fault, member: &str, empty: Value) -> Data {
    let mut data = Data::new();
    data.insert("error".into(), fault.to_string().into());
    data.insert(member.into(), empty);
    data
}
