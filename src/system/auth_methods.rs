//! `sys/auth`: the two ways to get a token that every namespace has. None is mounted, none taken away.

use serde_json::json;

use super::{Call, System};
use crate::model::{Data, Response};

impl System {
    /// Lists them as Vault does. They have no records of their own that an accessor would name: it is made of the path.
    pub(super) fn list_auth_methods(&self, call: &Call) -> Response {
        let method = |kind: &str, description: &str| {
            json!({
                "type": kind,
                "description": description,
                "accessor": format!("auth_{kind}_{}", call.namespace.as_str().trim_end_matches('/').replace('/', "_")),
                "config": { "default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": false, "token_type": "service" },
                "options": null,
                "local": false,
                "seal_wrap": false,
                "external_entropy_access": false,
            })
        };
        let data = Data::from_iter([
            ("token/".to_owned(), method("token", "token based credentials")),
            ("unix/".to_owned(), method("unix", "logins by the kernel's word on a process")),
        ]);
        Response::Data { data, warnings: Vec::new(), mirrored: true }
    }
}
