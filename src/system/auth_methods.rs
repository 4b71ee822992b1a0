//! `sys/auth`: the two ways to get a token that every namespace has. None is mounted, none taken away.

use serde_json::json;

use super::{Call, System};
use crate::model::{Fault, MountConfig, Response};

/// The methods there are: their types, which their paths are made of, and a text for people.
const METHODS: [(&str, &str); 2] =
    [("token", "token based credentials"), ("unix", "logins by the kernel's word on a process")];

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
        let data = METHODS.iter().map(|(kind, description)| (format!("{kind}/"), method(kind, description))).collect();
        Response::Data { data, warnings: Vec::new(), mirrored: true }
    }

    /// The settings of one: those there are by default, which cannot be changed.
    pub(super) fn read_auth_tuning(path: &str) -> Result<Response, Fault> {
        let method = METHODS.iter().find(|(kind, _)| *kind == path);
        let (_, description) = method.ok_or_else(|| Fault::invalid(format!("No auth engine at {path}/")))?;
        let defaults = MountConfig::default();
        let shown = json!({
            "default_lease_ttl": defaults.effective_default_ttl().as_secs(),
            "max_lease_ttl": defaults.effective_max_ttl().as_secs(),
            "force_no_cache": false,
            "token_type": "service",
            "description": description,
        });
        let data = shown.as_object().cloned().unwrap_or_default();
        Ok(Response::Data { data, warnings: Vec::new(), mirrored: true })
    }
}
