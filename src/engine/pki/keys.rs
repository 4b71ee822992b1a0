//! `keys`, `key/:ref` and `keys/generate/:type`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Pki;
use super::ca_key::CaKeyChoice;
use super::key::Key;
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Mount, Response};

impl Pki {
    /// `LIST keys`.
    pub(super) fn list_keys(&self) -> Result<Response, Fault> {
        let authority = self.authority.load();
        let keys = &authority.registry.keys;
        if keys.is_empty() {
            return Err(Fault::absent());
        }
        let mut info = Data::new();
        for (id, key) in keys {
            info.insert(
                id.clone(),
                json!({"key_name": key.record.name, "is_default": *id == authority.registry.keys_config.default}),
            );
        }
        let ids: Vec<&String> = keys.keys().collect();
        Ok(Response::data(object(json!({"keys": ids, "key_info": info}))))
    }

    /// `GET key/:ref`.
    pub(super) fn read_key(&self, mount: &Mount, reference: &str) -> Result<Response, Fault> {
        let authority = self.authority.load();
        Ok(Response::data(self.show_key(mount, authority.registry.key(reference)?)))
    }

    /// `POST key/:ref`: only its name can change.
    pub(super) async fn write_key(
        self: Arc<Self>,
        call: Call,
        reference: String,
        data: Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["key_ref"]);
        let name = fields.filled("key_name")?.unwrap_or_default();
        let warnings = fields.warnings();
        let rename = self.edit(&call, move |registry| {
            let id = registry.key(&reference)?.record.id.clone();
            registry.rename_key(&id, &name)?;
            registry.key(&id).cloned()
        });
        let key = rename.await?;
        Ok(Response::with_warnings(self.show_key(&call.mount, &key), warnings))
    }

    /// `DELETE key/:ref`. The managed key stays.
    pub(super) async fn delete_key(self: Arc<Self>, call: Call, reference: String) -> Result<Response, Fault> {
        let told = reference.clone();
        let remove = self.edit(&call, move |registry| {
            let id = registry.key(&reference)?.record.id.clone();
            Ok(registry.remove_key(&id)?.then_some(id))
        });
        Ok(match remove.await? {
            None => Response::Empty,
            Some(id) => Response::with_warnings(
                Data::new(),
                vec![format!(
                    "Deleted key {id} (via key_ref {told}); this was configured as the default key. Operations without an \
                     explicit key will not work until a new default is configured."
                )],
            ),
        })
    }

    /// `POST keys/generate/:type`: the key of a managed key, generated on its token if that is allowed and it is not there; or
    /// a key that the mount makes.
    pub(super) async fn generate_key(self: Arc<Self>, call: Call, kind: &str, data: &Data) -> Result<Response, Fault> {
        if kind == "existing" {
            return Err(Fault::NotFound { what: "unsupported path".into() });
        }
        let mut fields = Fields::new(data);
        let choice = CaKeyChoice::parse(kind, &mut fields)?;
        let name = fields.filled("key_name")?.unwrap_or_default();
        let warnings = fields.warnings();
        let key = self.ca_key(&call, &choice, name).await?;
        let add = self.edit(&call, move |registry| {
            let added = key.add_to(registry)?;
            // The key comes back, so that one just made is held until it is stored.
            Ok((registry.key(added.id()).cloned()?, key))
        });
        let (key, _) = add.await?;
        tracing::info!(
            key = key.record.id, mount = %call.mount.path, namespace = %call.mount.namespace, uid = call.caller.peer.uid,
            pid = call.caller.peer.pid, "key added to the mount"
        );
        let shown = json!({"key_id": key.record.id, "key_name": key.record.name, "key_type": key.kind()});
        Ok(Response::with_warnings(object(shown), warnings))
    }

    /// `POST keys/import`.
    pub(super) fn import_key() -> Result<Response, Fault> {
        Err(Fault::invalid(
            "Keyway holds no long-lived private keys: import the key into a token, register it as a managed key, and add it with \
             keys/generate/kms",
        ))
    }

    fn show_key(&self, mount: &Mount, key: &Key) -> Data {
        // A key the mount may no longer use has no name that concerns it.
        let managed = self.signing_key(mount, key).map(|key| key.name().to_owned()).unwrap_or_default();
        let identifier: Vec<String> = key.identifier.iter().map(|byte| format!("{byte:02x}")).collect();
        object(json!({
            "key_id": key.record.id,
            "key_name": key.record.name,
            "key_type": key.kind(),
            "managed_key_id": key.record.managed_key,
            "managed_key_name": managed,
            "subject_key_id": identifier.join(":"),
        }))
    }
}

fn object(value: Value) -> Data {
    value.as_object().cloned().unwrap_or_default()
}
