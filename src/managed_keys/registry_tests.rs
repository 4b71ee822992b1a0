//! Stories about managed keys, on a token of software keys behind the real supervisor.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::*;
use crate::backend::{BackendError, Fate};
use crate::crypto;
use crate::managed_keys::software_token::{SoftwareToken, no_mounts, open_store, story};
use crate::model::{
    Class, Curve, Deadline, Hash, KeyKind, KeyOperation, MountConfig, PublicKey, SaltLength, SignInput,
    SignatureScheme, Terms,
};
use crate::store::Write;

const P256: KeyKind = KeyKind::Ec(Curve::P256);

fn data(value: Value) -> Data {
    value.as_object().expect("an object").clone()
}

/// A key on the token `t` of the library with a PIN, found by its name; `more` adds or replaces fields.
async fn write(keys: &ManagedKeys, name: &str, more: Value) -> Result<Vec<String>, Fault> {
    let mut fields = data(json!({"library": "hsm", "token_label": "t", "key_label": name, "mechanism": "0x1041"}));
    fields.extend(data(more));
    keys.write(&Namespace::root(), "pkcs11", name, &fields).await
}

fn shown(keys: &ManagedKeys, name: &str) -> Data {
    keys.show(&Namespace::root(), "pkcs11", name).expect("a key")
}

fn uuid(keys: &ManagedKeys, name: &str) -> String {
    shown(keys, name)["UUID"].as_str().unwrap().to_owned()
}

fn handle(keys: &ManagedKeys, name: &str) -> Handle {
    keys.find(&Namespace::root(), "pkcs11", name).expect("a key")
}

fn mount(path: &str, uuid: &str, allowed: &[&str]) -> Arc<Mount> {
    Arc::new(Mount {
        namespace: Namespace::root(),
        path: path.into(),
        engine: "pki".into(),
        uuid: uuid.into(),
        accessor: "pki_1".into(),
        description: String::new(),
        options: Default::default(),
        config: MountConfig {
            allowed_managed_keys: allowed.iter().map(|name| (*name).into()).collect(),
            ..MountConfig::default()
        },
    })
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// Signs with the key and checks the signature.
async fn sign(handle: &Handle) -> Result<bool, Fault> {
    let scheme = handle.default_scheme(32)?;
    let (hash, input) = if scheme == SignatureScheme::Ed25519 {
        (Hash::None, SignInput::Message(Bytes::from_static(b"message")))
    } else {
        (Hash::Sha2_256, SignInput::Digest(crypto::digest(Hash::Sha2_256, b"message")?))
    };
    let operation = KeyOperation::Sign { scheme, hash, input: input.clone() };
    let terms = Terms { class: Class::Interactive, deadline: soon() };
    let signature = handle.submit(operation, terms)?.await?;
    let public = handle.public_key().expect("a public key");
    crypto::verify(public, scheme, SaltLength::Hash, hash, &input, &signature)
}

async fn delete(keys: &ManagedKeys, name: &str, mounts: Vec<Arc<Mount>>) -> Result<(), Fault> {
    keys.delete(&Namespace::root(), "pkcs11", name, move || mounts).await
}

fn refused(text: &str) -> Fault {
    Fault::invalid(text)
}

#[test]
fn a_name_is_lowercase_and_a_library_is_configured() {
    story(|keys, _| async move {
        for bad in ["CA", "", "-ca", "ca.", "c/a", "ca root", "é"] {
            assert!(write(&keys, bad, json!({})).await.unwrap_err().to_string().contains("lowercase"), "{bad}");
        }
        let unknown = write(&keys, "ca", json!({"library": "luna"})).await.unwrap_err();
        assert_eq!(
            unknown,
            refused("there is no kms_library or kms_pool \"luna\" in the configuration; there are: hsm, bare")
        );
        let no_pin = write(&keys, "ca", json!({"library": "bare"})).await.unwrap_err();
        assert_eq!(no_pin, refused("pin is required: kms_library \"bare\" has none"));
        assert!(keys.names(&Namespace::root(), "pkcs11").is_empty());
        write(&keys, "ca_2.x-1", json!({"library": "BARE", "pin": "1234"})).await.unwrap();
        assert_eq!(keys.names(&Namespace::root(), "pkcs11"), ["ca_2.x-1"]);
    });
}

#[test]
fn an_update_replaces_all_but_the_pin_and_what_names_the_key() {
    story(|keys, _| async move {
        let full = json!({"library": "bare", "pin": "1234", "any_mount": true, "max_parallel": 4, "usages": "sign"});
        assert_eq!(write(&keys, "ca", full).await, Ok(Vec::new()));
        let first = uuid(&keys, "ca");
        let warnings = write(&keys, "ca", json!({"library": "bare", "name": "x", "colour": "red"})).await.unwrap();
        assert_eq!(warnings, ["Endpoint ignored these unrecognized parameters: [colour]"]);
        let now = shown(&keys, "ca");
        assert_eq!((&now["UUID"], &now["name"], &now["type"]), (&json!(first), &json!("ca"), &json!("pkcs11")));
        assert_eq!((&now["pin"], &now["any_mount"]), (&json!("redacted"), &json!(false)));
        assert_eq!((now.get("max_parallel"), &now["usages"]), (None, &json!(["sign", "verify"])));
        delete(&keys, "ca", Vec::new()).await.unwrap();
        assert!(keys.show(&Namespace::root(), "pkcs11", "ca").is_err());
        assert_eq!(delete(&keys, "ca", Vec::new()).await, Ok(()), "absent is fine");
        write(&keys, "ca", json!({})).await.unwrap();
        assert_ne!(uuid(&keys, "ca"), first, "a new key is another key");
    });
}

#[test]
fn many_first_users_generate_one_key() {
    story(|keys, token| async move {
        write(&keys, "ca", json!({"allow_generate_key": true, "curve": "P256"})).await.unwrap();
        assert_eq!(token.generated(), 0, "registering touches no token");
        let handle = handle(&keys, "ca");
        assert!(handle.public_key().is_none());
        let all = join_all((0..8).map(|_| handle.ready(soon()))).await;
        let publics: Vec<PublicKey> = all.into_iter().map(|ready| ready.unwrap().1).collect();
        assert!(publics.iter().all(|public| public.kind == P256 && *public == publics[0]));
        assert_eq!(token.generated(), 1);
    });
}

#[test]
fn a_key_signs_after_its_first_use_and_after_a_restart() {
    story(|keys, token| async move {
        token.make("doc", b"\x01", KeyKind::Ed25519);
        write(&keys, "doc", json!({"mechanism": "0x1057", "key_id": "0x01"})).await.unwrap();
        let unused = sign(&handle(&keys, "doc")).await.unwrap_err();
        assert!(matches!(unused, Fault::KeyUnavailable { .. }), "{unused}");
        let (used, public) = handle(&keys, "doc").ready(soon()).await.unwrap();
        assert_eq!(sign(&used).await, Ok(true));
        // A new process: another supervisor, the same store and token.
        let again = ManagedKeys::new(keys.0.store.clone(), token.supervisor(), &Limits::default());
        again.load(&[Namespace::root()], no_mounts()).unwrap();
        let loaded = handle(&again, "doc");
        assert_eq!(loaded.public_key(), Some(&public));
        let until = Instant::now() + Duration::from_secs(30);
        while sign(&loaded).await != Ok(true) {
            assert!(Instant::now() < until, "it is served again");
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn an_asker_that_cannot_wait_leaves_and_the_key_is_recorded_all_the_same() {
    story(|keys, token| async move {
        write(&keys, "ca", json!({"allow_generate_key": true, "curve": "P256"})).await.unwrap();
        let hurried = handle(&keys, "ca").ready(Deadline::after(Duration::ZERO)).await.map(|(_, public)| public);
        assert!(matches!(hurried, Err(Fault::DeadlineExceeded { .. })), "{hurried:?}");
        let until = Instant::now() + Duration::from_secs(30);
        while handle(&keys, "ca").public_key().is_none() {
            assert!(Instant::now() < until, "the first use goes on");
            tokio::task::yield_now().await;
        }
        assert_eq!(token.generated(), 1);
    });
}

#[test]
fn what_is_absent_and_may_not_be_generated_is_refused_with_the_reason() {
    story(|keys, token| async move {
        let cases = [
            (json!({}), "allow_generate_key is false: make the key on the token, or allow its generation"),
            (json!({"allow_generate_key": true, "mechanism": 0}), "cannot generate a key for mechanism 0"),
            (
                json!({"allow_generate_key": true, "key_label": "", "key_id": "01"}),
                "a key with a key_id cannot be generated, since the token gives ids: make it there, or leave key_id out",
            ),
            (
                json!({"allow_generate_key": true, "mechanism": 1}),
                "key_bits is required to generate an RSA key: 2048, 3072 or 4096",
            ),
        ];
        for (fields, why) in cases {
            write(&keys, "ca", fields).await.unwrap();
            let fault = handle(&keys, "ca").ready(soon()).await.map(|_| ()).unwrap_err();
            assert_eq!(
                fault,
                refused(&format!("managed key \"ca\": token t holds no such key for this namespace, and {why}"))
            );
        }
        assert_eq!(token.generated(), 0);
        // What is there is found, whatever could be generated.
        token.make("ca", b"", P256);
        write(&keys, "ca", json!({"allow_generate_key": true})).await.unwrap();
        handle(&keys, "ca").ready(soon()).await.map(|_| ()).unwrap();
    });
}

#[test]
fn a_key_that_does_not_fit_its_mechanism_is_not_recorded() {
    story(|keys, token| async move {
        token.make("ca", b"", P256);
        write(&keys, "ca", json!({"mechanism": "0x0001"})).await.unwrap();
        let fault = handle(&keys, "ca").ready(soon()).await.map(|_| ()).unwrap_err();
        let text = "managed key \"ca\" has mechanism CKM_RSA_PKCS (0x0001), but the key on the token is P-256: correct the \
                    mechanism or the key's label";
        assert_eq!(fault, refused(text));
        assert!(handle(&keys, "ca").public_key().is_none());
        write(&keys, "ca", json!({})).await.unwrap();
        let (used, _) = handle(&keys, "ca").ready(soon()).await.unwrap();
        assert_eq!(sign(&used).await, Ok(true));
    });
}

#[test]
fn a_used_key_keeps_naming_the_same_key() {
    story(|keys, token| async move {
        token.make("ca", b"", P256);
        write(&keys, "ca", json!({"token_label": "elsewhere"})).await.unwrap();
        write(&keys, "ca", json!({})).await.unwrap();
        handle(&keys, "ca").ready(soon()).await.map(|_| ()).unwrap();
        for other in [
            json!({"key_label": "other"}),
            json!({"key_id": "01"}),
            json!({"token_label": "elsewhere"}),
            json!({"library": "bare", "pin": "1234"}),
            json!({"mechanism": 1}),
        ] {
            let text = "managed key \"ca\" has been used: its library, token, label, id and mechanism cannot change; \
                        register a new one";
            assert_eq!(write(&keys, "ca", other).await, Err(refused(text)));
        }
        write(&keys, "ca", json!({"usages": "sign", "max_parallel": 2})).await.unwrap();
        assert_eq!(sign(&handle(&keys, "ca")).await, Ok(true), "it is still the key recorded, and served");
    });
}

#[test]
fn a_key_changed_during_its_first_use_is_not_recorded_as_the_other() {
    story(|keys, _| async move {
        write(&keys, "ca", json!({"key_label": "old"})).await.unwrap();
        let begun = handle(&keys, "ca").entry;
        let public = crypto::SoftwareKey::generate(P256).unwrap().public().clone();
        let found = PreparedKey { identity: public.clone().into(), generated: false, at: Vec::new() };
        write(&keys, "ca", json!({"key_label": "new"})).await.unwrap();
        let fault = keys.record_now(&begun.uuid, &begun.settings, &found).unwrap_err();
        let what = "managed key \"ca\" was changed while it was being found; try again".into();
        assert_eq!(fault, Fault::Unavailable { what });
        assert!(handle(&keys, "ca").public_key().is_none());
        let now = handle(&keys, "ca").entry;
        keys.record_now(&now.uuid, &now.settings, &found).unwrap();
        assert_eq!(handle(&keys, "ca").public_key(), Some(&public));
    });
}

#[test]
fn usages_bind_whoever_holds_the_key() {
    story(|keys, token| async move {
        token.make("ca", b"", P256);
        write(&keys, "ca", json!({"usages": "verify"})).await.unwrap();
        let (used, _) = handle(&keys, "ca").ready(soon()).await.unwrap();
        let text = "managed key \"ca\" does not allow usage \"sign\": add it to the key's usages";
        assert_eq!(sign(&used).await, Err(refused(text)));
        assert_eq!(used.require(crate::model::KeyUsage::Verify), Ok(()));
    });
}

#[test]
fn a_mount_uses_what_it_lists_and_what_any_mount_may_use() {
    story(|keys, _| async move {
        write(&keys, "ca", json!({})).await.unwrap();
        let id = uuid(&keys, "ca");
        let name = |mount: &Mount, name: &str| keys.resolve(mount, KeyRef::Name(name)).map(|key| key.uuid().to_owned());
        let listed = mount("pki/", "m1", &["ca"]);
        let other = mount("pki2/", "m2", &[&id]);
        assert_eq!(name(&listed, "ca"), Ok(id.clone()));
        assert_eq!(keys.resolve(&listed, KeyRef::Uuid(&id)).map(|key| key.name().to_owned()), Ok("ca".into()));
        let text = "mount \"pki2/\" may not use managed key \"ca\": add it to the mount's allowed_managed_keys, or set any_mount";
        assert_eq!(name(&other, "ca"), Err(refused(text)), "names are listed, not UUIDs");
        assert_eq!(name(&listed, "cb"), Err(refused("no managed key found with name \"cb\"")));
        let unknown = keys.resolve(&listed, KeyRef::Uuid("0")).map(|_| ());
        assert_eq!(unknown, Err(refused("no managed key found with uuid \"0\"")));
        let mut elsewhere = Mount::clone(&listed);
        elsewhere.namespace = Namespace::from_path("team-a");
        assert_eq!(name(&elsewhere, "ca"), Err(refused("no managed key found with name \"ca\"")));
        assert!(keys.resolve(&elsewhere, KeyRef::Uuid(&id)).is_err());
        write(&keys, "ca", json!({"any_mount": true})).await.unwrap();
        assert_eq!(name(&other, "ca"), Ok(id));
    });
}

#[test]
fn a_key_in_use_is_not_deleted_and_whose_it_is_is_named() {
    story(|keys, _| async move {
        write(&keys, "ca", json!({})).await.unwrap();
        let id = uuid(&keys, "ca");
        let listing = mount("pki/", "m1", &["ca"]);
        let using = mount("int/", "m2", &[]);
        let text =
            "managed key \"ca\" is in use by mount \"pki/\", which lists it in allowed_managed_keys: end that first";
        assert_eq!(delete(&keys, "ca", vec![listing.clone()]).await, Err(refused(text)));
        keys.0.store.commit_now(vec![keys.note_use(&using, &id, "issuer 0b7e")]).unwrap();
        let text = "managed key \"ca\" is in use by issuer 0b7e of mount \"int/\": end that first";
        assert_eq!(delete(&keys, "ca", vec![using.clone()]).await, Err(refused(text)));
        assert!(keys.show(&Namespace::root(), "pkcs11", "ca").is_ok());
        keys.0.store.commit_now(vec![keys.drop_use(&using, &id, "issuer 0b7e")]).unwrap();
        assert_eq!(delete(&keys, "ca", vec![using]).await, Ok(()));
    });
}

#[test]
fn what_a_disabled_mount_noted_holds_no_key() {
    story(|keys, _| async move {
        write(&keys, "ca", json!({})).await.unwrap();
        let id = uuid(&keys, "ca");
        let gone = mount("pki/", "m1", &[]);
        let late: Vec<Write> = (0..3).map(|n| keys.note_use(&gone, &id, &format!("issuer {n}"))).collect();
        keys.0.store.commit_now(late).unwrap();
        // Another mount at the same path is another mount.
        assert_eq!(delete(&keys, "ca", vec![mount("pki/", "m2", &[])]).await, Ok(()));
        assert!(keys.0.store.collections(&Namespace::root(), "managed-key", 10).unwrap().is_empty());
    });
}

#[test]
fn a_deleted_key_is_gone_for_those_who_hold_it_too() {
    story(|keys, token: SoftwareToken| async move {
        token.make("ca", b"", P256);
        write(&keys, "ca", json!({})).await.unwrap();
        let held = handle(&keys, "ca");
        delete(&keys, "ca", Vec::new()).await.unwrap();
        let fault = held.ready(soon()).await.map(|_| ()).unwrap_err();
        assert_eq!(fault, refused(&format!("no managed key found with uuid {:?}", held.uuid())));
        assert!(keys.names(&Namespace::root(), "pkcs11").is_empty());
    });
}

#[test]
fn the_last_try_of_a_pin_is_made_only_at_an_operators_word() {
    for forced in [false, true] {
        actix::System::new().block_on(async {
            let token = SoftwareToken::default();
            token.backend().leave_one_pin_try();
            let keys = ManagedKeys::new(open_store(), token.supervisor_forced(forced), &Limits::default());
            write(&keys, "ca", json!({"allow_generate_key": true, "curve": "P256"})).await.unwrap();
            let ready = handle(&keys, "ca").ready(soon()).await;
            assert_eq!((ready.is_ok(), token.backend().logins()), (forced, usize::from(forced)));
            if let Err(fault) = ready {
                assert!(fault.to_string().contains("-force-final-pin-try"), "{fault}");
            }
        });
    }
}

#[test]
fn an_operation_whose_session_failed_runs_once_more_and_one_that_cannot_succeed_does_not() {
    story(|keys, token| async move {
        write(&keys, "ca", json!({"allow_generate_key": true, "curve": "P256"})).await.unwrap();
        let (ca, _) = handle(&keys, "ca").ready(soon()).await.unwrap();
        let backend = token.backend();
        for (fate, runs, good) in [(Fate::Reopen, 2, true), (Fate::Keep, 1, false)] {
            let before = backend.performed();
            backend.fail_next(BackendError::new(fate, Fault::DeviceError { what: "ordered".into() }));
            assert_eq!((sign(&ca).await.is_ok(), backend.performed() - before), (good, runs), "{fate:?}");
        }
        assert_eq!(sign(&ca).await, Ok(true));
    });
}

#[test]
fn a_key_belongs_to_the_namespace_that_recorded_it_first() {
    story(|keys, token| async move {
        token.make("ca", b"\x07", P256);
        let teams = ["", "a", "b"].map(Namespace::from_path);
        let by_label = json!({"library": "hsm", "token_label": "t", "key_label": "ca", "mechanism": "0x1041"});
        let by_id =
            json!({"library": "bare", "pin": "1234", "token_label": "t", "key_id": "07", "mechanism": "0x1041"});
        for (team, name, fields) in [
            (1, "first", &by_label),
            (1, "again", &by_id),
            (2, "label", &by_label),
            (2, "id", &by_id),
            (0, "root", &by_label),
        ] {
            keys.write(&teams[team], "pkcs11", name, &data(fields.clone())).await.unwrap();
        }
        let ready = async |keys: &ManagedKeys, team: usize, name: &str| {
            keys.find(&teams[team], "pkcs11", name).unwrap().ready(soon()).await.map(|_| ())
        };
        // In the words of one that is not there.
        let others = |name: &str| {
            Err(refused(&format!(
                "managed key {name:?}: token t holds no such key for this namespace, and allow_generate_key is false: make the \
                 key on the token, or allow its generation"
            )))
        };
        assert_eq!(ready(&keys, 1, "first").await, Ok(()));
        assert_eq!(ready(&keys, 1, "again").await, Ok(()), "a namespace may have two entries for one key");
        for (team, name) in [(2, "label"), (2, "id"), (0, "root")] {
            assert_eq!(ready(&keys, team, name).await, others(name));
            assert!(keys.find(&teams[team], "pkcs11", name).unwrap().public_key().is_none());
        }
        // The claim outlives a restart, whether the namespace is served or not, and ends with the last entry.
        for served in [&teams[..], &[teams[0].clone(), teams[2].clone()]] {
            let again = ManagedKeys::new(keys.0.store.clone(), token.supervisor(), &Limits::default());
            again.load(served, no_mounts()).unwrap();
            assert_eq!(again.names(&teams[1], "pkcs11").len(), if served.len() == 3 { 2 } else { 0 });
            assert_eq!(ready(&again, 2, "label").await, others("label"));
        }
        keys.delete(&teams[1], "pkcs11", "first", Vec::new).await.unwrap();
        assert_eq!(ready(&keys, 2, "id").await, others("id"));
        keys.delete(&teams[1], "pkcs11", "again", Vec::new).await.unwrap();
        assert_eq!(ready(&keys, 2, "id").await, Ok(()));
        assert_eq!(ready(&keys, 0, "root").await, others("root"));
    });
}

#[test]
fn a_key_that_nobody_used_yet_is_whose_managed_key_named_it_first() {
    story(|keys, token| async move {
        token.make("ca", b"\x07", P256);
        let teams = ["", "a", "b"].map(Namespace::from_path);
        let by_label = json!({"library": "hsm", "token_label": "t", "key_label": "ca", "mechanism": "0x1041"});
        let by_id =
            json!({"library": "bare", "pin": "1234", "token_label": "t", "key_id": "07", "mechanism": "0x1041"});
        let write = async |team: usize, name: &str, fields: &Value| {
            keys.write(&teams[team], "pkcs11", name, &data(fields.clone())).await.unwrap();
        };
        let ready = async |keys: &ManagedKeys, team: usize, name: &str| {
            let used = keys.find(&teams[team], "pkcs11", name).unwrap().ready(soon()).await;
            used.map(|_| ()).map_err(|fault| fault.to_string())
        };
        for (team, name, fields) in [(0, "root", &by_label), (1, "id", &by_id), (2, "label", &by_label)] {
            write(team, name, fields).await;
        }
        // The same words as of a key that is not there, also where its kind is another.
        let mut elsewhere = by_id.clone();
        elsewhere["key_id"] = json!("08");
        write(1, "absent", &elsewhere).await;
        elsewhere = by_id.clone();
        elsewhere["mechanism"] = json!("0x0001");
        write(1, "other-kind", &elsewhere).await;
        let absent = ready(&keys, 1, "absent").await.unwrap_err();
        for (team, name) in [(1, "id"), (1, "other-kind"), (2, "label")] {
            assert_eq!(ready(&keys, team, name).await, Err(absent.replace("absent", name)));
        }
        // Whoever may generate is told that the label is taken, and makes no key of it, whatever else it is called by.
        let mut generating = by_label.clone();
        generating["allow_generate_key"] = json!(true);
        generating["curve"] = json!("P256");
        write(2, "label", &generating).await;
        assert!(ready(&keys, 2, "label").await.unwrap_err().contains("is taken on its token"));
        generating["key_label"] = json!("planned");
        write(0, "planned", &generating).await;
        for (name, more) in
            [("planted", json!({"curve": "P384"})), ("elsewhere", json!({"library": "bare", "pin": "1234"}))]
        {
            let mut planted = generating.clone();
            planted.as_object_mut().unwrap().extend(data(more));
            write(2, name, &planted).await;
            assert!(ready(&keys, 2, name).await.unwrap_err().contains("is taken on its token"), "{name}");
        }
        assert_eq!(ready(&keys, 0, "planned").await, Ok(()));
        // It outlives a restart, and names that are changed come last.
        let again = ManagedKeys::new(keys.0.store.clone(), token.supervisor(), &Limits::default());
        again.load(&teams[1..], no_mounts()).unwrap();
        assert!(ready(&again, 1, "id").await.is_err());
        let mut renamed = by_label.clone();
        renamed["key_label"] = json!("other");
        write(0, "root", &renamed).await;
        write(0, "root", &by_label).await;
        assert!(ready(&keys, 0, "root").await.is_err());
        assert_eq!(ready(&keys, 1, "id").await, Ok(()));
    });
}

#[test]
fn what_names_a_key_of_one_namespace_names_nothing_in_another() {
    story(|keys, token| async move {
        token.make("ca", b"", P256);
        let teams = ["a", "a/b"].map(Namespace::from_path);
        let fields =
            json!({"library": "hsm", "token_label": "t", "key_label": "ca", "mechanism": "0x1041", "any_mount": true});
        keys.write(&teams[0], "pkcs11", "ca", &data(fields)).await.unwrap();
        let id = keys.show(&teams[0], "pkcs11", "ca").unwrap()["UUID"].as_str().unwrap().to_owned();
        for elsewhere in [&Namespace::root(), &teams[1]] {
            let mut mount = Mount::clone(&mount("pki/", "m1", &["ca"]));
            mount.namespace = elsewhere.clone();
            assert!(
                keys.resolve(&mount, KeyRef::Name("ca")).is_err() && keys.resolve(&mount, KeyRef::Uuid(&id)).is_err()
            );
            assert!(keys.show(elsewhere, "pkcs11", "ca").is_err() && keys.find(elsewhere, "pkcs11", "ca").is_err());
            assert!(keys.names(elsewhere, "pkcs11").is_empty());
            assert_eq!(keys.delete(elsewhere, "pkcs11", "ca", Vec::new).await, Ok(()));
        }
        assert_eq!(keys.names(&teams[0], "pkcs11"), ["ca"], "nobody else's deletion reached it");
    });
}

#[test]
fn a_namespace_and_those_below_it_have_so_many_keys_and_name_so_many_tokens_together() {
    actix::System::new().block_on(async {
        let token = SoftwareToken::default();
        let limits = Limits { managed_keys_per_namespace: 3, ..Limits::default() };
        let (store, supervisor) = (open_store(), token.supervisor());
        let [root, a, b, other] = ["", "a", "a/b", "c"].map(Namespace::from_path);
        let load = || {
            let keys = ManagedKeys::new(store.clone(), supervisor.clone(), &limits);
            keys.load(&[root.clone(), a.clone(), b.clone(), other.clone()], no_mounts()).unwrap();
            keys
        };
        let put = async |keys: &ManagedKeys, namespace: &Namespace, name: &str, token: &str| {
            let fields = json!({"library": "hsm", "token_label": token, "key_label": name, "mechanism": "0x1041"});
            keys.write(namespace, "pkcs11", name, &data(fields)).await.map_err(|fault| fault.to_string())
        };
        let keys = load();
        for (namespace, name) in [(&root, "one"), (&a, "one"), (&b, "one"), (&b, "two"), (&b, "two")] {
            put(&keys, namespace, name, "t").await.unwrap();
        }
        for keys in [&keys, &load()] {
            for namespace in [&a, &b] {
                let told = put(keys, namespace, "more", "t").await.unwrap_err();
                assert!(told.contains("namespace a/ and those below it have 3 managed keys together"), "{told}");
            }
        }
        put(&keys, &other, "one", "t").await.unwrap();
        keys.delete(&b, "pkcs11", "two", Vec::new).await.unwrap();
        put(&keys, &a, "more", "t").await.unwrap();
        keys.end_namespace(&b).await.unwrap();
        put(&keys, &a, "again", "t").await.unwrap();
        assert!(put(&keys, &a, "too many", "t").await.is_err() && put(&keys, &a, "many", "t").await.is_err());

        // Of the tokens likewise: 64 are named above, and below one is too many; one of those is not.
        let keys = ManagedKeys::new(open_store(), supervisor.clone(), &Limits::default());
        keys.load(&[root.clone(), a.clone(), b.clone(), other.clone()], no_mounts()).unwrap();
        for number in 0..64 {
            put(&keys, &a, &format!("key-{number}"), &format!("t{number}")).await.unwrap();
        }
        let told = put(&keys, &b, "one", "t64").await.unwrap_err();
        assert!(told.contains("namespace a/ and those below it name 64 tokens"), "{told}");
        put(&keys, &b, "one", "t7").await.unwrap();
        put(&keys, &other, "one", "t64").await.unwrap();
    });
}
