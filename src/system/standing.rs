//! Whether the daemon serves: what is told of it to anyone, and all that a sealed one answers.
//!
//! A sealed daemon has no store, so nothing here looks at one.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::paths::{Deed, Found, find};
use super::{System, VAULT_VERSION};
use crate::model::{Caller, Data, Fault, Fields, Request, Response};

pub(super) const KEYWAY_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Who may unseal.
const NOT_THE_OPERATOR: Fault = Fault::TokenRefused {
    reason: Cow::Borrowed(
        "permission denied: only root and the user that Keyway runs as may unseal it, on this host; ask the operator",
    ),
};

/// How the daemon stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether there is a root token.
    pub is_initialized: bool,
    /// Whether the keys of the store are not in memory.
    pub is_sealed: bool,
    /// The kind of seal.
    pub seal: &'static str,
    /// The kind of storage.
    pub storage: &'static str,
}

/// What a sealed daemon does for a request.
#[derive(Debug)]
pub enum WhileSealed {
    /// It answers.
    Answer(Response),
    /// It is to be unsealed; then the answer is [`Standing::seal_status`], with these warnings.
    Unseal(Vec<String>),
}

impl Standing {
    /// What a sealed daemon does for a request; nearly everything is [`Fault::Sealed`].
    pub fn while_sealed(&self, caller: &Caller, request: &Request) -> Result<WhileSealed, Fault> {
        let Found::Row(row, _) = find(request.verb, &request.path) else { return Err(Fault::Sealed) };
        Ok(match row.deed {
            Deed::ReadHealth => WhileSealed::Answer(self.health(&request.data)),
            Deed::ReadSealStatus => WhileSealed::Answer(self.seal_status(Vec::new())),
            Deed::ReadLeader => WhileSealed::Answer(leader()),
            Deed::ReadInit => WhileSealed::Answer(self.init_status()),
            Deed::Unseal => WhileSealed::Unseal(read_unseal(caller, &request.data)?),
            _ => return Err(Fault::Sealed),
        })
    }

    pub(super) fn health(&self, query: &Data) -> Response {
        let mut fields = Fields::new(query);
        let mut code = |name, default: u16| {
            let asked = fields.integer(name).ok().flatten();
            asked.and_then(|code| u16::try_from(code).ok()).filter(|code| (200..600).contains(code)).unwrap_or(default)
        };
        let (active, sealed, uninitialized) =
            (code("activecode", 200), code("sealedcode", 503), code("uninitcode", 501));
        let status = match (self.is_initialized, self.is_sealed) {
            (false, _) => uninitialized,
            (true, true) => sealed,
            (true, false) => active,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Response::Bare {
            status,
            body: json!({
                "initialized": self.is_initialized,
                "sealed": self.is_sealed,
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

    /// The state of the seal, and what is to be said beside it.
    pub fn seal_status(&self, warnings: Vec<String>) -> Response {
        let mut body = json!({
            "type": self.seal,
            "initialized": self.is_initialized,
            "sealed": self.is_sealed,
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
            "storage_type": self.storage,
            "removed_from_cluster": false,
        });
        if let Value::Object(fields) = &mut body
            && !warnings.is_empty()
        {
            fields.insert("warnings".into(), warnings.into());
        }
        Response::Bare { status: 200, body }
    }

    pub(super) fn init_status(&self) -> Response {
        Response::Bare { status: 200, body: json!({ "initialized": self.is_initialized }) }
    }
}

impl System {
    pub(super) fn standing(&self) -> Standing {
        let is_initialized = self.identity.is_initialized();
        Standing {
            is_initialized,
            is_sealed: !is_initialized,
            seal: self.store.seal_kind(),
            storage: self.store.storage_kind(),
        }
    }
}

pub(super) fn leader() -> Response {
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

/// Whether the caller's process is the operator's, says the kernel: for what nobody has a token for.
pub(super) fn is_operator(caller: &Caller) -> bool {
    caller.peer.uid == 0 || caller.peer.uid == rustix::process::geteuid().as_raw()
}

/// Reads a request to unseal, which has nothing to say: the seal gives the root key by itself. Answers warnings. Since it takes
/// no key, it is not for everyone who reaches the socket: else anyone could undo the operator's seal.
pub(super) fn read_unseal(caller: &Caller, data: &Data) -> Result<Vec<String>, Fault> {
    if !is_operator(caller) {
        return Err(NOT_THE_OPERATOR);
    }
    let mut fields = Fields::new(data);
    let key = fields.text("key")?;
    fields.boolean("reset")?;
    fields.boolean("migrate")?;
    let ignored = "key is ignored: the seal gives the root key by itself, and there are no key shares";
    Ok(if key.is_some_and(|key| !key.is_empty()) { vec![ignored.to_owned()] } else { Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PeerCredentials, Verb, Wire};

    const SEALED: Standing = Standing { is_initialized: true, is_sealed: true, seal: "file", storage: "redb" };

    fn ask(uid: u32, verb: Verb, path: &str, data: Value) -> Result<WhileSealed, Fault> {
        let peer = PeerCredentials { uid, gid: 0, pid: None };
        let data = data.as_object().cloned().unwrap_or_default();
        let request = Request { verb, path: path.to_owned(), data, raw: bytes::Bytes::new(), if_modified_since: None };
        SEALED.while_sealed(&Caller::new(peer, Wire::Http), &request)
    }

    #[test]
    fn only_root_and_the_daemons_own_user_unseal() {
        let own = rustix::process::geteuid().as_raw();
        for uid in [0, own] {
            let asked = ask(uid, Verb::Write, "sys/unseal", json!({})).unwrap();
            assert!(matches!(asked, WhileSealed::Unseal(warnings) if warnings.is_empty()));
        }
        let asked = ask(own, Verb::Write, "sys/unseal", json!({"key": "x"})).unwrap();
        assert!(matches!(asked, WhileSealed::Unseal(warnings) if warnings.len() == 1));
        let stranger = if own == 65_534 { 65_533 } else { 65_534 };
        let refused = ask(stranger, Verb::Write, "sys/unseal", json!({"key": "x"})).unwrap_err();
        assert_eq!(refused, NOT_THE_OPERATOR);
    }

    #[test]
    fn a_sealed_daemon_tells_how_it_stands_and_nothing_else() {
        for path in ["sys/health", "sys/seal-status", "sys/leader", "sys/init"] {
            assert!(matches!(ask(65_534, Verb::Read, path, json!({})), Ok(WhileSealed::Answer(_))), "{path}");
        }
        for (verb, path) in [
            (Verb::Read, "sys/unseal"),
            (Verb::Write, "sys/seal"),
            (Verb::Write, "sys/init"),
            (Verb::Write, "sys/wrapping/unwrap"),
            (Verb::Read, "sys/internal/ui/mounts"),
            (Verb::Read, "sys/unheard-of"),
            (Verb::Read, "pki/ca/pem"),
        ] {
            assert_eq!(ask(0, verb, path, json!({})).unwrap_err(), Fault::Sealed, "{verb:?} {path}");
        }
    }
}
