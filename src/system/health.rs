//! Health, seal, leadership, initialisation, and the status of the members.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Call, System, VAULT_VERSION};
use crate::model::{ConfigurationStatus, Data, Fault, Fields, KeySetStatus, MemberStatus, Response, Status};

const KEYWAY_VERSION: &str = env!("CARGO_PKG_VERSION");
/// Key sets shown: a namespace may have very many keys.
const KEY_SETS_MAX: usize = 1_000;

impl System {
    pub(super) fn health(&self, query: &Data) -> Response {
        let initialized = self.identity.is_initialized();
        let mut fields = Fields::new(query);
        let mut code = |name, default: u16| {
            let asked = fields.integer(name).ok().flatten();
            asked.and_then(|code| u16::try_from(code).ok()).filter(|code| (200..600).contains(code)).unwrap_or(default)
        };
        let status = if initialized { code("activecode", 200) } else { code("uninitcode", 501) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Response::Bare {
            status,
            body: json!({
                "initialized": initialized,
                "sealed": !initialized,
                "standby": false,
                "performance_standby": false,
                "replication_performance_mode": "disabled",
                "replication_dr_mode": "disabled",
                "server_time_utc": now.as_secs(),
                "version": VAULT_VERSION,
                "keyway_version": KEYWAY_VERSION,
                "enterprise": true,
                "cluster_name": "keyway",
                "cluster_id": "",
                "clock_skew_ms": 0,
                "echo_duration_ms": 0,
            }),
        }
    }

    pub(super) fn seal_status(&self) -> Response {
        let initialized = self.identity.is_initialized();
        Response::Bare {
            status: 200,
            body: json!({
                "type": self.store.seal_kind(),
                "initialized": initialized,
                "sealed": !initialized,
                "t": 0,
                "n": 0,
                "progress": 0,
                "nonce": "",
                "version": VAULT_VERSION,
                "keyway_version": KEYWAY_VERSION,
                "build_date": "",
                "migration": false,
                "cluster_name": "keyway",
                "cluster_id": "",
                "recovery_seal": true,
                "storage_type": self.store.storage_kind(),
                "removed_from_cluster": false,
            }),
        }
    }

    pub(super) fn leader(&self) -> Response {
        Response::Bare {
            status: 200,
            body: json!({
                "ha_enabled": false,
                "is_self": true,
                "active_time": "0001-01-01T00:00:00Z",
                "leader_address": "",
                "leader_cluster_address": "",
                "performance_standby": false,
                "performance_standby_last_remote_wal": 0,
            }),
        }
    }

    pub(super) fn init_status(&self) -> Response {
        Response::Bare { status: 200, body: json!({ "initialized": self.identity.is_initialized() }) }
    }

    /// Makes the root key and the root token, once. The seal opens by itself at every start, so there are no shares to
    /// hand out: the lists of keys are empty.
    pub(super) async fn init(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        if !call.namespace.is_root() {
            return Err(Fault::invalid("operation unavailable in namespaces"));
        }
        let own = rustix::process::geteuid().as_raw();
        if call.caller.peer.uid != own && call.caller.peer.uid != 0 {
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
