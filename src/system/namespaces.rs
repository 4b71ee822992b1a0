//! `sys/namespaces`: the namespaces below the one addressed. They are made by the configuration.

use serde_json::json;

use super::{Call, System};
use crate::model::{Data, Fault, Response};

impl System {
    /// Those directly below, by their names there.
    pub(super) fn list_namespaces(&self, call: &Call) -> Result<Response, Fault> {
        let children = self.namespaces.children(&call.namespace);
        if children.is_empty() {
            return Err(Fault::absent());
        }
        let (mut names, mut infos) = (Vec::new(), Data::new());
        for child in &children {
            let path = child.as_str();
            let name = path.strip_prefix(call.namespace.as_str()).unwrap_or(path);
            names.push(name);
            infos.insert(name.to_owned(), json!({ "path": path, "custom_metadata": {} }));
        }
        let mut data = Data::new();
        data.insert("keys".into(), json!(names));
        data.insert("key_info".into(), infos.into());
        Ok(Response::data(data))
    }
}
