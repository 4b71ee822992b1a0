//! Initialisation, and the status of the members.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::standing::{self, KEYWAY_VERSION};
use super::{Call, System};
use crate::model::{ConfigurationStatus, Data, Fault, Fields, KeySetStatus, MemberStatus, Response, Status};

/// Key sets shown: a namespace may have very many keys.
const KEY_SETS_MAX: usize = 1_000;

impl System {
    /// Makes the root key and the root token, once. The seal opens by itself at every start, so there are no shares to
    /// hand out: the lists of keys are empty.
    pub(super) async fn init(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        if !call.namespace.is_root() {
            return Err(Fault::invalid("operation unavailable in namespaces"));
        }
        if !standing::is_operator(&call.caller) {
            return Err(Fault::PermissionDenied);
        }
        let mut fields = Fields::new(data);
        for name in ["secret_shares", "secret_threshold", "recovery_shares", "recovery_threshold", "stored_shares"] {
            fields.integer(name)?;
        }
        let encrypted = ["pgp_keys", "recovery_pgp_keys", "root_token_pgp_key"];
        fields.refuse(&encrypted)?;
        if self.identity.is_initialized() {
            return Err(Fault::invalid("Vault is already initialized"));
        }
        let (store, load) = (self.store.clone(), Arc::clone(&self.load));
        let opened = tokio::task::spawn_blocking(move || {
            // One that was cut short has its root key already, and no root token: it is taken up again.
            if !store.is_initialized() {
                store.initialize()?;
            }
            load()
        });
        opened.await.map_err(|_| Fault::Unavailable { what: "the daemon is going down; try again".into() })??;
        // Refuses whoever comes second by itself.
        let token = self.identity.create_root(self.root_token.clone()).await?;
        tracing::info!(uid = call.caller.peer.uid, "initialised: the root token was handed out");
        let token = token.expose_str().unwrap_or_default();
        let body = json!({
            "keys": [], "keys_base64": [], "recovery_keys": [], "recovery_keys_base64": [], "root_token": token,
        });
        Ok(Response::Bare { status: 200, body })
    }

    /// Keyway's own: what `keyway status` shows. A namespace sees what concerns its own keys, the root everything.
    pub(super) async fn status(&self, call: &Call) -> Result<Response, Fault> {
        let (keys, namespace) = (self.keys.clone(), call.namespace.clone());
        let seen = tokio::task::spawn_blocking(move || {
            let mut status = keys.status(&namespace);
            // Those that lack a member are what somebody looks for.
            let rank = |set: &KeySetStatus| (set.holders >= set.members, set.namespace.to_string(), set.key.clone());
            status.key_sets.sort_by_cached_key(rank);
            let left_off = status.key_sets.len().saturating_sub(KEY_SETS_MAX);
            status.key_sets.truncate(KEY_SETS_MAX);
            (status, left_off)
        });
        let (Status { members, libraries, key_sets }, left_off) =
            seen.await.map_err(|_| Fault::Unavailable { what: "the daemon is going down; try again".into() })?;
        let whole = call.namespace.is_root();
        let mut data = Data::new();
        data.insert("keyway_version".into(), KEYWAY_VERSION.into());
        data.insert("uptime_seconds".into(), self.started.elapsed().unwrap_or_default().as_secs().into());
        data.insert("members".into(), members.iter().map(|member| show_member(member, whole)).collect());
        data.insert("kms_libraries".into(), libraries.into());
        data.insert("key_sets".into(), key_sets.iter().map(show_key_set).collect());
        data.insert("key_sets_left_off".into(), left_off.into());
        if whole {
            data.insert("configuration".into(), show_configuration(&self.configuration.load()));
        }
        Ok(Response::data(data))
    }
}

fn show_configuration(configuration: &ConfigurationStatus) -> Value {
    json!({
        "loaded": configuration.loaded.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        "refused": configuration.refused,
        "needs_restart": configuration.needs_restart,
    })
}

fn show_member(member: &MemberStatus, whole: bool) -> Value {
    let reason = |fault: &Fault| match fault {
        // It may be a key of another namespace.
        Fault::KeyMismatch { reason, .. } | Fault::KeyUnavailable { reason, .. } if !whole => reason.clone(),
        fault => fault.to_string(),
    };
    json!({
        "library": member.library,
        "token": member.token,
        "pool": member.pool,
        "worker": member.worker,
        "serial": member.serial,
        "state": member.state.label(),
        "reason": member.reason.as_ref().map(reason),
        "sessions": member.sessions,
        "keys": member.keys,
    })
}

fn show_key_set(set: &KeySetStatus) -> Value {
    json!({
        "namespace": set.namespace.to_string(),
        "key": set.key,
        "members": set.members,
        "holders": set.holders,
    })
}
