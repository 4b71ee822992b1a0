//! `auth/token/lookup-self`.

use serde_json::{Value, json};

use super::{Call, System};
use crate::model::{Data, Fault, Response};

impl System {
    /// What is known of the caller's token. `id` is the accessor: the token itself is kept nowhere, and its bearer has it.
    /// `namespace_path` is that of the token, not of the request: every token belongs to the root namespace so far, and
    /// works in all.
    pub(super) fn lookup_self(&self, call: &Call) -> Result<Response, Fault> {
        let token = self.identity.token(&call.caller)?;
        let data = json!({
            "id": token.accessor,
            "accessor": token.accessor,
            "policies": token.policies,
            "path": "auth/token/root",
            "meta": null,
            "display_name": token.display_name,
            "num_uses": 0,
            "orphan": true,
            "creation_time": token.creation_time,
            "creation_ttl": 0,
            "expire_time": null,
            "explicit_max_ttl": 0,
            "ttl": 0,
            "renewable": false,
            "entity_id": "",
            "type": "service",
            "namespace_path": "",
        });
        let Value::Object(data) = data else { return Err(Fault::internal("an object is an object")) };
        Ok(Response::data(Data::from_iter(data)))
    }
}
