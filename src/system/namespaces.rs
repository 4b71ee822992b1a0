//! `sys/namespaces`: the namespaces right below the one addressed.

use serde_json::{Value, json};

use super::{Call, System};
use crate::model::{Data, Fault, Fields, Response};
use crate::namespace::{MetadataChange, NamespaceInfo};

impl System {
    /// Those directly below, by their names there.
    pub(super) async fn list_namespaces(&self, call: &Call) -> Result<Response, Fault> {
        let (namespaces, above) = (self.namespaces.clone(), call.namespace.clone());
        let found = tokio::task::spawn_blocking(move || namespaces.children(&above)).await;
        let children = found.map_err(|_| Fault::Unavailable { what: "the daemon is going down; try again".into() })?;
        if children.is_empty() {
            return Err(Fault::absent());
        }
        let (mut names, mut infos) = (Vec::new(), Data::new());
        for child in children {
            let path = child.path.as_str();
            let name = path.strip_prefix(call.namespace.as_str()).unwrap_or(path).to_owned();
            names.push(Value::from(name.as_str()));
            infos.insert(name, Value::Object(show(&child)));
        }
        let mut data = Data::new();
        data.insert("keys".into(), names.into());
        data.insert("key_info".into(), infos.into());
        Ok(Response::data(data))
    }

    pub(super) fn read_namespace(&self, call: &Call, name: &str) -> Result<Response, Fault> {
        let found = self.namespaces.look_up(&call.namespace, name)?;
        found.map(|found| Response::data(show(&found))).ok_or_else(Fault::absent)
    }

    /// Makes one, or changes its notes where there is one.
    pub(super) async fn write_namespace(&self, call: &Call, name: &str, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, &["path"]);
        let change = match metadata(&mut fields)? {
            None => MetadataChange::Keep,
            Some(notes) => {
                let whole = notes.into_iter().map(|(name, value)| value.map(|value| (name, value)));
                MetadataChange::Replace(whole.collect::<Option<_>>().ok_or_else(not_text)?)
            }
        };
        let made = self.namespaces.make(&call.namespace, name, change).await?;
        tracing::info!(namespace = %made.path, id = made.id, uid = call.caller.peer.uid, "namespace written");
        Ok(Response::with_warnings(show(&made), fields.warnings()))
    }

    /// Changes some of its notes, by a merge patch (RFC 7396).
    pub(super) async fn patch_namespace(&self, call: &Call, name: &str, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, &["path"]);
        let change = match metadata(&mut fields)? {
            Some(notes) => MetadataChange::Merge(notes),
            None if data.get("custom_metadata").is_some_and(Value::is_null) => {
                MetadataChange::Replace(Default::default())
            }
            None => MetadataChange::Keep,
        };
        let patched = self.namespaces.patch(&call.namespace, name, change).await?;
        tracing::info!(namespace = %patched.path, id = patched.id, uid = call.caller.peer.uid, "namespace patched");
        Ok(Response::with_warnings(show(&patched), fields.warnings()))
    }
}

fn show(namespace: &NamespaceInfo) -> Data {
    let mut data = Data::new();
    data.insert("id".into(), namespace.id.as_str().into());
    data.insert("path".into(), namespace.path.as_str().into());
    data.insert("custom_metadata".into(), json!(namespace.custom_metadata));
    data
}

/// The notes a request brings; those without a value are null.
fn metadata(fields: &mut Fields<'_>) -> Result<Option<std::collections::BTreeMap<String, Option<String>>>, Fault> {
    let Some(given) = fields.object("custom_metadata")? else { return Ok(None) };
    let note = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Ok((name.clone(), Some(text.clone()))),
        Value::Null => Ok((name.clone(), None)),
        _ => Err(not_text()),
    };
    given.iter().map(note).collect::<Result<_, _>>().map(Some)
}

fn not_text() -> Fault {
    Fault::invalid("custom_metadata values must be strings")
}
