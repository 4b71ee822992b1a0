//! `sys/audit` and `sys/audit-hash`: the devices that record what is asked. The root namespace's alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::quotas::of_the_root;
use super::{Call, System};
use crate::audit::{NewDevice, ShownDevice};
use crate::model::{Data, Fault, Fields, Response};

impl System {
    pub(super) fn list_audit(&self, call: &Call) -> Result<Response, Fault> {
        of_the_root(call)?;
        let data = self.audit.list().into_iter().map(|device| (device.path.clone(), show(&device))).collect();
        Ok(Response::Data { data, warnings: Vec::new(), mirrored: true })
    }

    pub(super) async fn enable_audit(&self, call: &Call, path: &str, data: &Data) -> Result<Response, Fault> {
        of_the_root(call)?;
        let mut fields = Fields::below(data, &["path"]);
        let kind = fields.filled("type")?.ok_or_else(|| Fault::invalid("the type of the device is required"))?;
        let description = fields.text("description")?.unwrap_or_default();
        let options = options(&mut fields)?;
        let local = fields.boolean("local")?.unwrap_or_default();
        let warnings = fields.warnings();
        let new = NewDevice { path: path.to_owned(), kind, description, options, local };
        let kind = new.kind.clone();
        self.audit.enable(new).await?;
        tracing::info!(device = path, kind, uid = call.caller.peer.uid, "audit device enabled");
        Ok(if warnings.is_empty() { Response::Empty } else { Response::with_warnings(Data::new(), warnings) })
    }

    pub(super) async fn disable_audit(&self, call: &Call, path: &str) -> Result<Response, Fault> {
        of_the_root(call)?;
        if self.audit.disable(path).await? {
            tracing::warn!(device = path, uid = call.caller.peer.uid, "audit device disabled");
        }
        Ok(Response::Empty)
    }

    pub(super) fn audit_hash(&self, call: &Call, path: &str, data: &Data) -> Result<Response, Fault> {
        of_the_root(call)?;
        let mut fields = Fields::below(data, &["path"]);
        let input = fields.filled("input")?.ok_or_else(|| Fault::invalid("the \"input\" parameter is empty"))?;
        let warnings = fields.warnings();
        let hash = self.audit.hash(path, input.as_bytes());
        let hash = hash.ok_or_else(|| Fault::invalid(format!("unknown audit backend {:?}", path.trim_matches('/'))))?;
        let data = Data::from_iter([("hash".to_owned(), Value::from(hash))]);
        Ok(Response::Data { data, warnings, mirrored: true })
    }
}

fn options(fields: &mut Fields<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let Some(options) = fields.object("options")? else { return Ok(BTreeMap::new()) };
    let text = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Ok((name.clone(), text.clone())),
        Value::Bool(_) | Value::Number(_) => Ok((name.clone(), value.to_string())),
        _ => Err(Fault::invalid(format!("option {name:?}: expected text"))),
    };
    options.iter().map(text).collect()
}

fn show(device: &ShownDevice) -> Value {
    json!({
        "type": device.kind,
        "description": device.description,
        "options": device.options,
        "local": device.local,
        "path": device.path,
    })
}
