//! The engine as a whole, on a token of software keys behind the real supervisor.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::config::Limits;
use crate::engine::{BatchRooms, CpuPool};
use crate::managed_keys::software_token::{SoftwareToken, story};
use crate::model::recorder::{self, Reading};
use crate::model::{
    Caller, Class, Data, Deadline, Hash, Marshaling, MountConfig, Namespace, PeerCredentials, Response, SaltLength,
    Verb, Wire,
};
use crate::telemetry::Telemetry;

mod ciphers;
mod described;
mod own;
mod versions;

/// One mount whose managed keys are its own to use.
struct Desk {
    transit: Arc<Transit>,
    mount: Arc<Mount>,
    services: Services,
    /// Every field that a handler read, with the verb and the pattern it answered.
    readings: Mutex<Vec<(Verb, &'static str, Reading)>>,
}

impl Desk {
    fn new(keys: &ManagedKeys) -> Desk {
        let mount = Mount {
            namespace: Namespace::root(),
            path: "transit/".into(),
            engine: "transit".into(),
            uuid: "11111111-2222-3333-4444-555555555555".into(),
            accessor: "transit_1".into(),
            description: String::new(),
            options: Default::default(),
            config: MountConfig::default(),
        };
        let services = Services {
            store: keys.store_for_tests(),
            keys: keys.clone(),
            telemetry: Telemetry::new(),
            limits: Limits { batch_items: 100, ..Limits::default() },
            cpu: CpuPool::new(1),
            batches: BatchRooms::new(&Limits::default()),
            publish_dir: None,
        };
        Desk {
            transit: Transit::load(&mount, &services).unwrap(),
            mount: Arc::new(mount),
            services,
            readings: Mutex::default(),
        }
    }

    fn call(&self) -> Call {
        let peer = PeerCredentials { uid: 0, gid: 0, pid: None };
        Call {
            mount: Arc::clone(&self.mount),
            caller: Caller::new(peer, Wire::Http),
            deadline: Deadline::after(Duration::from_secs(30)),
            class: Class::Interactive,
        }
    }

    async fn ask(&self, verb: Verb, path: &str, data: Value) -> Result<Response, Fault> {
        let mut data = data.as_object().cloned().unwrap();
        let endpoint = table::endpoint(paths::TABLE, verb, path);
        let mark = endpoint.map(|endpoint| recorder::mark(&endpoint, &mut data));
        let request = Request { verb, path: path.into(), data, raw: Default::default(), if_modified_since: None };
        let answer = Arc::clone(&self.transit).handle(self.call(), request).await;
        if let (Some(endpoint), Some(mark)) = (endpoint, mark) {
            self.readings.lock().extend(recorder::judged(&endpoint, mark));
        }
        match answer? {
            Outcome::Response(response) => Ok(response),
            other => panic!("{other:?}"),
        }
    }

    async fn write(&self, path: &str, data: Value) -> Result<(Data, Vec<String>), Fault> {
        match self.ask(Verb::Write, path, data).await? {
            Response::Data { data, warnings, .. } => Ok((data, warnings)),
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&self, path: &str, data: Value) -> String {
        self.write(path, data).await.unwrap_err().to_string()
    }

    /// A Transit key `name` on a managed key of this mechanism.
    async fn key(&self, name: &str, mechanism: &str, more: Value) {
        let mut settings = json!({
            "library": "hsm", "token_label": "t", "key_label": name, "mechanism": mechanism,
            "allow_generate_key": true, "any_mount": true,
        });
        settings.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        let settings = settings.as_object().cloned().unwrap();
        self.services.keys.write(&Namespace::root(), "pkcs11", name, &settings).await.unwrap();
        self.write(&format!("keys/{name}"), json!({"type": "managed_key", "managed_key_name": name})).await.unwrap();
    }

    async fn ec(&self) {
        self.key("doc", "0x1041", json!({"curve": "P256"})).await;
    }
}

fn desk<F: Future<Output = ()>>(run: impl FnOnce(Desk, SoftwareToken) -> F) {
    story(|keys, token| run(Desk::new(&keys), token));
}

fn text<'d>(data: &'d Data, name: &str) -> &'d str {
    data[name].as_str().unwrap()
}

#[test]
fn every_kind_of_key_signs_and_verifies_in_its_own_way() {
    desk(|desk, _| async move {
        desk.ec().await;
        desk.key("p521", "0x1041", json!({"curve": "P521"})).await;
        desk.key("ed", "0x1057", json!({})).await;
        desk.key("rsa", "0x0001", json!({"key_bits": 2048})).await;
        desk.key("pss", "0x000d", json!({"key_bits": 2048})).await;
        let input = STANDARD.encode("a contract");
        for (name, options) in [
            ("doc", json!({})),
            ("doc", json!({"marshaling_algorithm": "jws"})),
            ("doc", json!({"hash_algorithm": "sha3-512"})),
            ("p521", json!({"hash_algorithm": "sha2-512", "marshaling_algorithm": "jws"})),
            ("ed", json!({})),
            ("rsa", json!({})),
            ("rsa", json!({"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha2-384"})),
            ("pss", json!({})),
            ("pss", json!({"signature_algorithm": "pss", "salt_length": "hash"})),
        ] {
            let with = |more: Value| {
                let mut all = options.clone();
                all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
                all
            };
            let (signed, _) = desk.write(&format!("sign/{name}"), with(json!({"input": input}))).await.unwrap();
            assert_eq!(signed["key_version"], 1);
            let verify = format!("verify/{name}");
            let asked = with(json!({"input": input, "signature": signed["signature"]}));
            assert_eq!(desk.write(&verify, asked).await.unwrap().0["valid"], true, "{name} {options}");
            let other = STANDARD.encode("another contract");
            let asked = with(json!({"input": other, "signature": signed["signature"]}));
            assert_eq!(desk.write(&verify, asked).await.unwrap().0["valid"], false, "{name} {options}");
        }
    });
}

#[test]
fn a_digest_made_by_the_client_gives_the_same_as_its_message() {
    desk(|desk, _| async move {
        desk.key("rsa", "0x0001", json!({"key_bits": 2048})).await;
        let digest = crate::crypto::digest(Hash::Sha2_512, b"abc").unwrap();
        let whole = desk.write("sign/rsa/sha2-512", json!({"input": STANDARD.encode("abc")})).await.unwrap().0;
        let asked =
            json!({"input": STANDARD.encode(digest.as_bytes()), "prehashed": true, "hash_algorithm": "sha2-512"});
        // PKCS#1 v1.5 has one signature only.
        assert_eq!(desk.write("sign/rsa", asked.clone()).await.unwrap().0["signature"], whole["signature"]);
        let told = desk.refused("sign/rsa/sha2-256", asked).await;
        assert_eq!(told, "input has 64 bytes, but a prehashed input is a sha2-256 digest of 32 bytes");
    });
}

#[test]
fn a_batch_is_answered_in_order_each_item_with_its_own_end() {
    desk(|desk, _| async move {
        desk.ec().await;
        let batch = json!({"hash_algorithm": "sha2-384", "input": "ignored", "batch_input": [
            {"input": STANDARD.encode("one"), "reference": "a"},
            {"reference": "b"},
            {"input": "!!"},
            {"input": ""},
        ]});
        let (signed, warnings) = desk.write("sign/doc", batch).await.unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let results = signed["batch_results"].as_array().unwrap();
        assert_eq!(results[0]["reference"], "a");
        assert_eq!(results[1], json!({"error": "missing input", "key_version": 0, "reference": "b"}));
        let told = "unable to decode input as base64: illegal base64 data at input byte 0";
        assert_eq!(results[2], json!({"error": told, "key_version": 0, "reference": ""}));
        assert!(results[3]["signature"].as_str().unwrap().starts_with("vault:v1:"));
        let batch = json!({"hash_algorithm": "sha2-384", "batch_input": [
            {"input": STANDARD.encode("one"), "signature": results[0]["signature"], "reference": "x"},
            {"input": STANDARD.encode("two"), "signature": results[0]["signature"]},
            {"input": STANDARD.encode("two"), "signature": "vault:v2:AAAA"},
        ]});
        let verified = desk.write("verify/doc", batch).await.unwrap().0;
        let expected = json!([
            {"valid": true, "reference": "x"},
            {"valid": false, "reference": ""},
            {"error": "invalid signature: version is too new", "valid": false, "reference": ""},
        ]);
        assert_eq!(verified["batch_results"], expected);
        assert_eq!(desk.refused("sign/doc", json!({"batch_input": []})).await, "missing batch input to process");
        let many = json!({"batch_input": vec![json!({"input": ""}); 101]});
        let told = desk.refused("sign/doc", many).await;
        assert!(told.contains("batch_input has 101 items; at most 100 are taken"), "{told}");
        let mixed = json!({"batch_input": [{"input": "", "signature": "x"}, {"input": ""}]});
        assert!(desk.refused("verify/doc", mixed).await.contains("must all provide"));
    });
}

#[test]
fn mistakes_are_answered_in_vaults_words() {
    desk(|desk, _| async move {
        desk.ec().await;
        desk.key("rsa", "0x0001", json!({"key_bits": 2048})).await;
        let none = "hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15";
        for (path, data, expected) in [
            ("sign/other", json!({"input": ""}), "signing key not found"),
            ("verify/other", json!({"input": "", "signature": "x"}), "signature verification key not found"),
            ("verify/doc", json!({"input": ""}), "neither a 'signature' nor an 'hmac' were given to verify"),
            ("verify/doc", json!({"signature": "a", "hmac": "b"}), "provide one of 'signature' or 'hmac'"),
            ("verify/doc", json!({"input": "", "signature": "x"}), "invalid signature: no prefix"),
            ("sign/doc", json!({"input": "", "hash_algorithm": "md5"}), "invalid hash algorithm \"md5\""),
            ("sign/doc/none", json!({"input": ""}), none),
            ("sign/doc", json!({"marshaling_algorithm": "x"}), "invalid marshaling type \"x\""),
            (
                "sign/doc",
                json!({"key_version": 2}),
                "requested version for signing is higher than the latest key version",
            ),
            ("sign/doc", json!({"key_version": -1}), "requested version for signing is negative"),
            ("sign/rsa", json!({"signature_algorithm": "pss"}), "which makes no RSA PSS signatures"),
            ("keys/new", json!({}), "has no token in which it could make keys of its own"),
            ("keys/new", json!({"type": "managed_key"}), "missing argument managed_key_name or managed_key_id"),
            (
                "keys/new",
                json!({"type": "managed_key", "managed_key_name": "x"}),
                "no managed key found with name \"x\"",
            ),
            ("keys/new", json!({"type": "managed_key", "derived": true}), "key derivation and convergent encryption"),
            ("keys/doc/config", json!({"auto_rotate_period": "24h"}), "Auto rotation can not be set for managed keys"),
            ("keys/doc/config", json!({"min_decryption_version": 2}), "latest key version is 1"),
            ("keys/none/config", json!({}), "no existing key named none could be found"),
        ] {
            let told = desk.refused(path, data).await;
            assert!(told.contains(expected), "{path}: {told}");
        }
        assert_eq!(desk.ask(Verb::Read, "keys/other", json!({})).await, Err(Fault::absent()));
    });
}

#[test]
fn a_key_lives_from_creation_to_deletion_and_over_a_restart() {
    desk(|desk, token| async move {
        assert_eq!(desk.ask(Verb::List, "keys", json!({})).await, Err(Fault::absent()));
        desk.ec().await;
        assert_eq!(token.generated(), 1);
        let again = json!({"type": "managed_key", "managed_key_name": "doc"});
        let (document, warnings) = desk.write("keys/doc", again).await.unwrap();
        assert_eq!(warnings, ["key doc already existed"]);
        assert_eq!(document["keys"]["1"]["name"], "P-256");
        assert!(
            text(document["keys"]["1"].as_object().unwrap(), "public_key").starts_with("-----BEGIN PUBLIC KEY-----")
        );
        let signed = desk.write("sign/doc", json!({"input": ""})).await.unwrap().0;

        let desk = Desk { transit: Transit::load(&desk.mount, &desk.services).unwrap(), ..desk };
        let asked = json!({"input": "", "signature": signed["signature"]});
        assert_eq!(desk.write("verify/doc", asked).await.unwrap().0["valid"], true);
        let root = Namespace::root();
        let told = desk
            .services
            .keys
            .delete(&root, "pkcs11", "doc", {
                let m = desk.mount.clone();
                move || vec![m]
            })
            .await
            .unwrap_err();
        assert!(told.to_string().contains("transit key doc version 1 of mount \"transit/\""), "{told}");

        let told = desk.ask(Verb::Delete, "keys/doc", json!({})).await.unwrap_err().to_string();
        assert_eq!(told, "error deleting policy doc: deletion is not allowed for this policy");
        let (document, _) = desk.write("keys/doc/config", json!({"deletion_allowed": true})).await.unwrap();
        assert_eq!(document["deletion_allowed"], true);
        assert_eq!(desk.ask(Verb::Delete, "keys/doc", json!({})).await, Ok(Response::Empty));
        assert_eq!(desk.refused("sign/doc", json!({"input": ""})).await, "signing key not found");
        desk.services
            .keys
            .delete(&root, "pkcs11", "doc", {
                let m = desk.mount.clone();
                move || vec![m]
            })
            .await
            .unwrap();
        assert!(Transit::load(&desk.mount, &desk.services).unwrap().key("doc").is_none());
    });
}

#[test]
fn the_hot_operations_do_what_the_paths_do() {
    desk(|desk, _| async move {
        desk.ec().await;
        let sign = SignRequest {
            mount: "transit".into(),
            key: "doc".into(),
            key_version: 0,
            input: "a contract".into(),
            prehashed: false,
            hash: None,
            scheme: None,
            salt: SaltLength::Auto,
            marshaling: Marshaling::Jws,
        };
        let Ok(Outcome::Signature { signature, key_version: 1 }) =
            Arc::clone(&desk.transit).sign(desk.call(), sign.clone()).await
        else {
            panic!("no signature")
        };
        let text = format!("vault:v1:{}", URL_SAFE_NO_PAD.encode(&signature));
        let asked = json!({"input": STANDARD.encode("a contract"), "signature": text, "marshaling_algorithm": "jws"});
        assert_eq!(desk.write("verify/doc", asked).await.unwrap().0["valid"], true);
        for (input, expected) in [("a contract", true), ("another", false)] {
            let signed = SignRequest { input: input.into(), key_version: 1, ..sign.clone() };
            let request = VerifyRequest { signed, signature: signature.clone() };
            let verdict = Arc::clone(&desk.transit).verify(desk.call(), request).await;
            assert!(matches!(verdict, Ok(Outcome::Verdict { valid }) if valid == expected), "{verdict:?}");
        }
    });
}
