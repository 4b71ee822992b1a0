//! Stories about the system's paths, as a client tells them: what is asked, and the body of the answer.

mod headers;
mod keys;
mod mounts;
mod namespaces;
mod openapi;
mod policies;

use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::config::{Limits, Storage};
use crate::managed_keys::KeyRef;
use crate::managed_keys::software_token::SoftwareToken;
use crate::model::recorder::{self, Reading};
use crate::model::{Curve, FaultLabel, KeyKind, PeerCredentials, Verb, Wire};
use crate::store::{Ephemeral, RecordKey};
use crate::supervisor::Supervisor;
use crate::telemetry::Telemetry;

const P256: KeyKind = KeyKind::Ec(Curve::P256);

/// A system, and what a client needs to speak to it.
struct Client {
    system: Arc<System>,
    token: SoftwareToken,
    root: Mutex<Option<Secret>>,
    /// Whose process it is.
    uid: u32,
    /// Every field that was read, with the verb and the pattern it was read for.
    readings: Mutex<Vec<(Verb, &'static str, Reading)>>,
}

/// Runs a story on a daemon that is not initialised yet.
fn uninitialized<F: Future<Output = ()>>(run: impl FnOnce(Client) -> F) {
    actix::System::new().block_on(async {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
        let token = SoftwareToken::default();
        let system = system(store, token.supervisor());
        let uid = rustix::process::geteuid().as_raw();
        run(Client { system, token, root: Mutex::default(), uid, readings: Mutex::default() }).await;
    });
}

/// Runs a story on a daemon that is initialised, with its root token.
fn story<F: Future<Output = ()>>(run: impl FnOnce(Client) -> F) {
    uninitialized(|client| async {
        let root = Secret::from(client.ok(Verb::Write, "sys/init", json!({})).await["root_token"].as_str().unwrap());
        *client.root.lock() = Some(root);
        run(client).await;
    });
}

fn system(store: Store, supervisor: Supervisor) -> Arc<System> {
    let namespaces = Namespaces::new(store.clone(), &[Namespace::from_path("team/ci")], &Limits::default());
    let quotas = Quotas::new(store.clone(), namespaces.clone());
    let identity = Identity::new(store.clone(), &Limits::default());
    let audit = Audit::new(store.clone(), &Limits::default(), Telemetry::new());
    let keys = ManagedKeys::new(store.clone(), supervisor, &Limits::default());
    let rooms = (namespaces.clone(), identity.clone(), keys.clone());
    let records = store.clone();
    Arc::new(System {
        store,
        namespaces,
        quotas,
        identity,
        audit,
        keys,
        engines: vec![openapi::engine("pki"), openapi::engine("transit")],
        load: Arc::new(move || {
            rooms.0.load()?;
            rooms.1.load()?;
            let mounts = rooms.0.clone();
            rooms.2.load(&rooms.0.all(), Arc::new(move |namespace| mounts.mounts(namespace)))
        }),
        removal: Arc::new(move |mount| {
            let collection = format!("{}/cert", mount.uuid);
            let key = |name| RecordKey::new(&mount.namespace, collection.clone(), name);
            let names = records.list(&mount.namespace, &collection, None, 100)?;
            Ok(names.into_iter().map(|name| Write::Delete { key: key(name) }).collect())
        }),
        leases: Arc::new(|_| Box::pin(std::future::ready(Err(Fault::absent())))),
        retire: Arc::new(|_, _| Box::pin(std::future::ready(Ok(())))),
        rotated: Arc::default(),
        seal: Arc::new(|| Box::pin(std::future::ready(Ok(())))),
        snapshots: Snapshots {
            replace: Arc::new(|_| Box::pin(std::future::ready(Ok(())))),
            most: 1 << 30,
            known: |_| 1,
            kept: Vec::new(),
            turn: Arc::new(tokio::sync::Semaphore::new(1)),
        },
        deletions: Arc::default(),
        root_token: None,
        started: SystemTime::now(),
        configuration: Arc::new(ArcSwap::from_pointee(ConfigurationStatus {
            loaded: SystemTime::now(),
            refused: false,
            needs_restart: Vec::new(),
        })),
        unix_logins: UnixLogins::new(Telemetry::new()),
    })
}

impl Client {
    fn call(&self, namespace: &str) -> Call {
        let peer = PeerCredentials { uid: self.uid, gid: 0, pid: None };
        let token = self.root.lock().as_ref().map(|token| self.system.identity.identify(token));
        let deadline = Deadline::after(Duration::from_secs(30));
        let caller = Caller { token, ..Caller::new(peer, Wire::Http) };
        Call { namespace: Namespace::from_path(namespace), caller, deadline, is_wrapped: false }
    }

    async fn ask_in(&self, namespace: &str, verb: Verb, path: &str, data: Value) -> Result<Response, Fault> {
        let mut data = data.as_object().unwrap().clone();
        let asked = openapi::mark(verb, path, &mut data);
        let request = Request { verb, path: path.into(), data, raw: Default::default(), if_modified_since: None };
        let answer = Arc::clone(&self.system).handle(self.call(namespace), request).await;
        self.readings.lock().extend(asked.into_iter().flat_map(openapi::readings));
        match answer? {
            Outcome::Response(response) => Ok(response),
            other => panic!("{other:?} is no response"),
        }
    }

    async fn ask(&self, verb: Verb, path: &str, data: Value) -> Result<Response, Fault> {
        self.ask_in("", verb, path, data).await
    }

    /// The data, or the whole body where there is no envelope.
    async fn ok(&self, verb: Verb, path: &str, data: Value) -> Value {
        match self.ask(verb, path, data).await {
            Ok(Response::Data { data, .. }) => Value::Object(data),
            Ok(Response::Bare { body, .. }) => body,
            other => panic!("{path}: expected data, got {other:?}"),
        }
    }

    async fn read(&self, path: &str) -> Value {
        self.ok(Verb::Read, path, json!({})).await
    }

    /// Writes, and expects nothing to be said about it.
    async fn write(&self, path: &str, data: Value) {
        assert_eq!(self.ask(Verb::Write, path, data).await, Ok(Response::Empty), "{path}");
    }

    async fn warnings(&self, path: &str, data: Value) -> Vec<String> {
        match self.ask(Verb::Write, path, data).await {
            Ok(Response::Data { data, warnings, .. }) if data.is_empty() => warnings,
            other => panic!("{path}: expected warnings, got {other:?}"),
        }
    }

    async fn refused(&self, verb: Verb, path: &str, data: Value) -> String {
        match self.ask(verb, path, data).await {
            Err(Fault::InvalidRequest { reason }) => reason,
            other => panic!("{path}: expected a refusal, got {other:?}"),
        }
    }

    async fn status(&self, path: &str, query: Value) -> u16 {
        match self.ask(Verb::Read, path, query).await {
            Ok(Response::Bare { status, .. }) => status,
            other => panic!("{path}: expected a bare answer, got {other:?}"),
        }
    }
}

fn ca() -> Value {
    json!({"library": "hsm", "token_label": "t", "key_label": "ca", "mechanism": "0x1041", "allow_generate_key": "true",
           "curve": "P256", "name": "ca", "usages": "sign,verify"})
}

// === initialisation and health ===

#[test]
fn initialisation_happens_once_and_for_the_daemons_own_user_only() {
    uninitialized(|mut client| async move {
        assert_eq!(client.read("sys/init").await, json!({"initialized": false}));
        let own = client.uid;
        client.uid = own.wrapping_add(4242);
        assert_eq!(client.ask(Verb::Write, "sys/init", json!({})).await, Err(Fault::PermissionDenied));
        client.uid = own;
        let pgp = client.refused(Verb::Write, "sys/init", json!({"pgp_keys": ["x"]})).await;
        assert_eq!(pgp, "pgp_keys is not supported here: leave it out");
        assert_eq!(client.read("sys/init").await, json!({"initialized": false}));
        let body = client.ok(Verb::Write, "sys/init", json!({"secret_shares": 5, "secret_threshold": 3})).await;
        let token = body["root_token"].as_str().unwrap().to_owned();
        let golden = json!({
            "keys": [], "keys_base64": [], "recovery_keys": [], "recovery_keys_base64": [], "root_token": token,
        });
        assert_eq!(body, golden);
        assert_eq!(client.refused(Verb::Write, "sys/init", json!({})).await, "Vault is already initialized");
        assert_eq!(client.read("sys/init").await, json!({"initialized": true}));
        *client.root.lock() = Some(Secret::from(token.as_str()));
        client.read("auth/token/lookup-self").await;
    });
}

#[test]
fn an_initialisation_that_was_cut_short_is_taken_up_again() {
    uninitialized(|client| async move {
        // The root key is there; the process ended before there was a token.
        client.system.store.initialize().unwrap();
        assert_eq!(client.status("sys/health", json!({})).await, 501);
        let body = client.ok(Verb::Write, "sys/init", json!({})).await;
        assert!(body["root_token"].as_str().unwrap().starts_with("hvs."));
        assert_eq!(client.refused(Verb::Write, "sys/init", json!({})).await, "Vault is already initialized");
    });
}

#[test]
fn two_who_initialise_at_once_get_one_root_token() {
    uninitialized(|client| async move {
        let init = || client.ask(Verb::Write, "sys/init", json!({}));
        let (one, other) = futures_util::future::join(init(), init()).await;
        let won = [&one, &other].into_iter().filter(|answer| answer.is_ok()).count();
        let refused = [one, other].into_iter().find_map(Result::err);
        assert_eq!((won, refused), (1, Some(Fault::invalid("Vault is already initialized"))));
    });
}

#[test]
fn health_speaks_through_its_code() {
    uninitialized(|client| async move {
        assert_eq!(client.status("sys/health", json!({})).await, 501);
        assert_eq!(client.status("sys/health", json!({"uninitcode": "299"})).await, 299);
        assert_eq!(client.status("sys/health", json!({"uninitcode": "9999"})).await, 501);
        client.ok(Verb::Write, "sys/init", json!({})).await;
        let query = json!({"standbyok": "true", "sealedcode": "204", "perfstandbyok": ""});
        assert_eq!(client.status("sys/health", query).await, 200);
        assert_eq!(client.status("sys/health", json!({"activecode": 204})).await, 204);
        let mut body = client.read("sys/health").await;
        assert!(body["server_time_utc"].take().as_u64().is_some_and(|now| now > 1_700_000_000));
        let golden = json!({
            "initialized": true, "sealed": false, "standby": false, "performance_standby": false,
            "replication_performance_mode": "disabled", "replication_dr_mode": "disabled", "server_time_utc": null,
            "version": "1.21.0+ent.keyway", "keyway_version": env!("CARGO_PKG_VERSION"), "enterprise": true,
            "cluster_name": "keyway", "cluster_id": "", "clock_skew_ms": 0, "echo_duration_ms": 0,
        });
        assert_eq!(body, golden);
    });
}

#[test]
fn seal_status_and_leader_are_what_clients_parse() {
    story(|client| async move {
        let golden = json!({
            "type": "ephemeral", "initialized": true, "sealed": false, "t": 0, "n": 0, "progress": 0, "nonce": "",
            "version": "1.21.0+ent.keyway", "keyway_version": env!("CARGO_PKG_VERSION"), "build_date": "",
            "migration": false, "cluster_name": "keyway", "cluster_id": "", "recovery_seal": true,
            "storage_type": "inmem", "removed_from_cluster": false,
        });
        assert_eq!(client.read("sys/seal-status").await, golden);
        let golden = json!({
            "ha_enabled": false, "is_self": true, "active_time": "0001-01-01T00:00:00Z", "leader_address": "",
            "leader_cluster_address": "", "performance_standby": false, "performance_standby_last_remote_wal": 0,
        });
        assert_eq!(client.read("sys/leader").await, golden);
    });
}

#[test]
fn only_these_are_answered_without_a_token() {
    let public = |verb, path: &str| {
        System::is_public(&Request {
            verb,
            path: path.into(),
            data: Default::default(),
            raw: Default::default(),
            if_modified_since: None,
        })
    };
    for path in ["sys/health", "sys/seal-status", "sys/leader", "sys/init", "sys/internal/ui/mounts"] {
        assert!(public(Verb::Read, path), "{path}");
    }
    assert!(public(Verb::Write, "sys/init"));
    for path in [
        "sys/mounts",
        "sys/mounts/pki",
        "sys/mounts/pki/tune",
        "sys/managed-keys/pkcs11",
        "sys/managed-keys/pkcs11/ca",
        "sys/keyway/status",
        "sys/namespaces",
        "sys/internal/ui/mounts/pki",
        "auth/token/lookup-self",
        "sys/unheard-of",
    ] {
        assert!([Verb::Read, Verb::Write, Verb::Delete, Verb::List].iter().all(|verb| !public(*verb, path)), "{path}");
    }
    assert!(!public(Verb::Write, "sys/health"));
    assert!(
        System::owns("sys/x") && System::owns("auth/token/x") && !System::owns("system/x") && !System::owns("pki/sys/")
    );
}

#[test]
fn what_there_is_not_and_what_makes_no_sense_are_told_apart() {
    story(|client| async move {
        let unknown = client.ask(Verb::Read, "sys/unheard-of", json!({})).await;
        assert_eq!(unknown, Err(Fault::NotFound { what: "unsupported path".into() }));
        for (verb, path) in [(Verb::Delete, "sys/health"), (Verb::List, "sys/mounts"), (Verb::Patch, "sys/mounts/pki")]
        {
            assert_eq!(client.ask(verb, path, json!({})).await, Err(Fault::UnsupportedOperation), "{path}");
        }
    });
}

#[test]
fn another_namespace_does_not_exist_but_health_is_everybodys() {
    story(|client| async move {
        let what =
            "namespace \"a/\" does not exist: make it at sys/namespaces, or by a stanza of the configuration".into();
        let absent = Fault::NotFound { what };
        for path in ["sys/mounts", "sys/managed-keys/pkcs11/ca", "auth/token/lookup-self", "sys/keyway/status"] {
            assert_eq!(client.ask_in("a", Verb::Read, path, json!({})).await, Err(absent.clone()), "{path}");
        }
        assert_eq!(client.ask_in("a", Verb::Write, "sys/managed-keys/pkcs11/ca", ca()).await, Err(absent));
        // What strangers may ask is answered as in any namespace without mounts that they see.
        for path in ["sys/seal-status", "sys/internal/ui/mounts"] {
            assert!(client.ask_in("a", Verb::Read, path, json!({})).await.is_ok(), "{path}");
        }
    });
}

#[test]
fn a_token_learns_about_itself_but_not_its_own_text() {
    story(|client| async move {
        let mut body = client.read("auth/token/lookup-self").await;
        let accessor = body["accessor"].as_str().unwrap().to_owned();
        assert!(body["creation_time"].take().as_u64().is_some_and(|made| made > 1_700_000_000));
        let golden = json!({
            "id": accessor, "accessor": accessor, "policies": ["root"], "path": "auth/token/root", "meta": null,
            "display_name": "root", "num_uses": 0, "orphan": true, "creation_time": null, "creation_ttl": 0,
            "expire_time": null, "explicit_max_ttl": 0, "ttl": 0, "renewable": false, "entity_id": "", "type": "service",
            "namespace_path": "",
        });
        assert_eq!(body, golden);
        *client.root.lock() = Some(Secret::from("hvs.wrong"));
        let denied = client.ask(Verb::Read, "auth/token/lookup-self", json!({})).await;
        assert_eq!(denied, Err(Fault::PermissionDenied));
    });
}

// === mounts ===

#[test]
fn a_mount_is_enabled_listed_read_tuned_and_disabled() {
    story(|client| async move {
        let new = json!({
            "type": "pki", "description": "the CA", "config": {"max_lease_ttl": "87600h", "force_no_cache": false},
        });
        client.write("sys/mounts/pki", new.clone()).await;
        let taken = client.refused(Verb::Write, "sys/mounts/pki", new).await;
        assert_eq!(taken, "path is already in use at pki/");
        client.write("sys/mounts/pki/tune", json!({"allowed_managed_keys": ["ca", "cb"], "token_type": ""})).await;
        let mut listed = client.read("sys/mounts").await;
        let (uuid, accessor) = (listed["pki/"]["uuid"].take(), listed["pki/"]["accessor"].take());
        let golden = json!({"pki/": {
            "type": "pki", "description": "the CA", "accessor": null, "uuid": null,
            "config": {
                "default_lease_ttl": 0, "max_lease_ttl": 315_360_000, "force_no_cache": false,
                "allowed_managed_keys": ["ca", "cb"],
            },
            "options": null, "local": false, "seal_wrap": false, "external_entropy_access": false,
            "plugin_version": "", "running_plugin_version": "", "running_sha256": "", "deprecation_status": "supported",
        }});
        assert_eq!(listed, golden);
        assert!(accessor.as_str().unwrap().starts_with("pki_"));
        assert_eq!(client.read("sys/mounts/pki").await["uuid"], uuid);
        let tuned = json!({
            "default_lease_ttl": 2_764_800, "max_lease_ttl": 315_360_000, "force_no_cache": false,
            "allowed_managed_keys": ["ca", "cb"], "description": "the CA",
        });
        assert_eq!(client.read("sys/mounts/pki/tune").await, tuned);
        for _ in 0..2 {
            // Also when it is absent.
            assert_eq!(client.ask(Verb::Delete, "sys/mounts/pki", json!({})).await, Ok(Response::Empty));
        }
        assert_eq!(client.read("sys/mounts").await, json!({}));
    });
}

#[test]
fn vault_repeats_mounts_at_the_top_level() {
    story(|client| async move {
        client.write("sys/mounts/pki", json!({"type": "pki"})).await;
        for path in ["sys/mounts", "sys/mounts/pki", "sys/mounts/pki/tune"] {
            let answer = client.ask(Verb::Read, path, json!({})).await;
            assert!(matches!(answer, Ok(Response::Data { mirrored: true, .. })), "{path}");
        }
    });
}

#[test]
fn what_a_mount_cannot_be_is_refused_and_what_has_no_effect_is_said() {
    story(|client| async move {
        let enable = async |data| client.refused(Verb::Write, "sys/mounts/kv", data).await;
        assert_eq!(enable(json!({})).await, "backend type must be specified as a string");
        assert_eq!(enable(json!({"type": "kv"})).await, "plugin not found in the catalog: kv; there are: pki, transit");
        assert_eq!(
            enable(json!({"type": "pki", "seal_wrap": true})).await,
            "seal_wrap is not supported here: leave it out"
        );
        assert_eq!(
            enable(json!({"type": "pki", "config": {"default_lease_ttl": "2h", "max_lease_ttl": "1h"}})).await,
            "default_lease_ttl is longer than max_lease_ttl"
        );
        assert_eq!(
            client.refused(Verb::Write, "sys/mounts/sys", json!({"type": "pki"})).await,
            "path \"sys\" is reserved"
        );
        let odd = json!({"type": "pki", "colour": 1, "config": {"force_no_cache": true, "options": {"a": "b"}}});
        let warnings = [
            "These parameters have no effect here: [force_no_cache]",
            "Endpoint ignored these unrecognized parameters: [options]",
            "Endpoint ignored these unrecognized parameters: [colour]",
        ];
        assert_eq!(client.warnings("sys/mounts/pki", odd).await, warnings);
        let tune =
            json!({"plugin_version": "v1", "options": {"a": "b"}, "what": 1, "audit_non_hmac_request_keys": "n"});
        let warnings = [
            "These parameters have no effect here: [plugin_version]",
            "Endpoint ignored these unrecognized parameters: [what]",
        ];
        assert_eq!(client.warnings("sys/mounts/pki/tune", tune).await, warnings);
        assert_eq!(client.read("sys/mounts/pki").await["options"], json!({"a": "b"}));
        assert_eq!(client.read("sys/mounts/pki/tune").await["audit_non_hmac_request_keys"], json!(["n"]));
        assert_eq!(client.refused(Verb::Read, "sys/mounts/x", json!({})).await, "No secret engine mount at x/");
        let absent = client.refused(Verb::Write, "sys/mounts/x/tune", json!({"description": "d"})).await;
        assert_eq!(absent, "no mount at x/: enable one first");
    });
}

#[test]
fn a_disabled_mounts_records_go_with_it() {
    story(|client| async move {
        client.write("sys/mounts/pki", json!({"type": "pki"})).await;
        let root = Namespace::root();
        let mount = client.system.namespaces.mount(&root, "pki").unwrap();
        let key = RecordKey::new(&root, format!("{}/cert", mount.uuid), "1");
        client.system.store.commit(vec![Write::Put { key: key.clone(), version: 1, value: vec![1] }]).await.unwrap();
        assert_eq!(client.ask(Verb::Delete, "sys/mounts/pki", json!({})).await, Ok(Response::Empty));
        assert_eq!(client.system.store.get(&key), Ok(None));
    });
}

#[test]
fn the_preflight_finds_the_mount_below_any_path_and_guesses_are_forbidden() {
    story(|client| async move {
        client.write("sys/mounts/teams/ca", json!({"type": "pki"})).await;
        for path in ["teams/ca", "teams/ca/issue/web"] {
            let found = client.read(&format!("sys/internal/ui/mounts/{path}")).await;
            assert_eq!((&found["path"], &found["type"]), (&json!("teams/ca/"), &json!("pki")), "{path}");
        }
        let guess = client.ask(Verb::Read, "sys/internal/ui/mounts/teams", json!({})).await;
        let told = guess.unwrap_err();
        assert_eq!(told.label(), FaultLabel::PermissionDenied);
        let expected =
            "preflight capability check returned 403, please ensure client's policies grant access to path \"teams/\"";
        assert_eq!(told.to_string(), expected);
        let listed = client.read("sys/internal/ui/mounts").await;
        assert_eq!((&listed["auth"], listed["secret"].as_object().unwrap().len()), (&json!({}), 1));
        *client.root.lock() = None;
        assert_eq!(client.read("sys/internal/ui/mounts").await, json!({"auth": {}, "secret": {}}));
    });
}

#[test]
fn a_mount_is_listed_to_whom_its_visibility_says() {
    story(|client| async move {
        let open = json!({
            "type": "pki", "description": "for all", "local": true, "options": {"a": "b"},
            "config": {"listing_visibility": "unauth"},
        });
        client.write("sys/mounts/open", open).await;
        client.write("sys/mounts/plain", json!({"type": "pki", "config": {"listing_visibility": ""}})).await;
        client.write("sys/mounts/later", json!({"type": "transit"})).await;
        client.write("sys/mounts/later/tune", json!({"listing_visibility": "unauth"})).await;
        let mount = client.read("sys/mounts/open").await;
        assert_eq!((&mount["local"], &mount["config"]["listing_visibility"]), (&json!(true), &json!("unauth")));
        assert_eq!(client.read("sys/mounts/later/tune").await["listing_visibility"], "unauth");
        assert!(client.read("sys/mounts/plain/tune").await.get("listing_visibility").is_none());
        let odd = json!({"listing_visibility": "everyone"});
        let told = client.refused(Verb::Write, "sys/mounts/plain/tune", odd.clone()).await;
        assert!(told.contains("invalid listing_visibility"), "{told}");
        assert!(
            client
                .refused(Verb::Write, "sys/mounts/x", json!({"type": "pki", "config": odd}))
                .await
                .contains("invalid")
        );
        assert_eq!(client.read("sys/internal/ui/mounts").await["secret"].as_object().unwrap().len(), 3);
        let token = client.root.lock().take();
        let shown = |engine: &str, text: &str| json!({"type": engine, "description": text, "options": null});
        let listed = json!({"later/": shown("transit", ""), "open/": shown("pki", "for all")});
        assert_eq!(client.read("sys/internal/ui/mounts").await, json!({"auth": {}, "secret": listed}));
        *client.root.lock() = token;
        for (name, visibility) in [("open", "hidden"), ("later", "")] {
            let tune = json!({"listing_visibility": visibility});
            client.write(&format!("sys/mounts/{name}/tune"), tune).await;
        }
        assert_eq!(client.read("sys/mounts/open/tune").await["listing_visibility"], "hidden");
        *client.root.lock() = None;
        assert_eq!(client.read("sys/internal/ui/mounts").await["secret"], json!({}));
    });
}

#[test]
fn the_settings_of_the_ways_to_get_a_token_are_read() {
    story(|client| async move {
        let expected = json!({
            "default_lease_ttl": 2_764_800, "max_lease_ttl": 2_764_800, "force_no_cache": false,
            "token_type": "service", "description": "token based credentials",
        });
        assert_eq!(client.read("sys/auth/token/tune").await, expected);
        assert_eq!(client.read("sys/auth/unix/tune").await["token_type"], "service");
        assert_eq!(
            client.refused(Verb::Read, "sys/auth/userpass/tune", json!({})).await,
            "No auth engine at userpass/"
        );
    });
}

// === managed keys ===
