//! Keys that a mount makes for itself, by Vault's own types.

use std::collections::HashMap;

use super::super::making::Turn;
use super::*;
use crate::managed_keys::KeyRef;
use crate::managed_keys::software_token::{no_mechanism, no_mounts};
use crate::model::{Cipher, KeyOperation};
use crate::store::Write;

/// A mount whose options name a token.
fn with_token<F: Future<Output = ()>>(run: impl FnOnce(Desk, SoftwareToken) -> F) {
    desk(|desk, token| {
        let mut mount = Mount::clone(&desk.mount);
        for (name, value) in [("kms_library", "hsm"), ("token_label", "t")] {
            mount.options.insert(name.into(), value.into());
        }
        run(Desk { mount: Arc::new(mount), ..desk }, token)
    });
}

fn registered(desk: &Desk) -> usize {
    desk.services.keys.names(&Namespace::root(), "pkcs11").len()
}

#[test]
fn each_type_is_told_and_does_as_in_vault() {
    with_token(|desk, token| async move {
        let input = STANDARD.encode("a contract");
        for (kind, more, named, signs) in [
            ("ecdsa-p256", json!({}), "P-256", true),
            ("ecdsa-p384", json!({}), "P-384", true),
            ("ecdsa-p521", json!({}), "P-521", true),
            ("ed25519", json!({}), "ed25519", true),
            ("aes128-gcm96", json!({}), "", false),
            ("aes256-gcm96", json!({}), "", false),
        ] {
            let mut asked = more;
            asked.as_object_mut().unwrap().insert("type".into(), kind.into());
            let path = format!("keys/{kind}");
            let (document, warnings) = desk.write(&path, asked).await.unwrap();
            assert!(warnings.is_empty(), "{warnings:?}");
            assert_eq!((&document["type"], &document["latest_version"]), (&json!(kind), &json!(1)));
            assert_eq!(document["supports_signing"], signs, "{kind}");
            assert_eq!(document["supports_encryption"], !signs, "{kind}");
            if signs {
                assert_eq!(document["keys"]["1"]["name"], named);
                let signed = desk.write(&format!("sign/{kind}"), json!({"input": input})).await.unwrap().0;
                let asked = json!({"input": input, "signature": signed["signature"]});
                assert_eq!(desk.write(&format!("verify/{kind}"), asked).await.unwrap().0["valid"], true, "{kind}");
            } else {
                assert!(document["keys"]["1"].as_i64().is_some_and(|created| created > 1_600_000_000), "{document:?}");
                let sealed = desk.write(&format!("encrypt/{kind}"), json!({"plaintext": input})).await.unwrap().0;
                let asked = json!({"ciphertext": sealed["ciphertext"]});
                assert_eq!(desk.write(&format!("decrypt/{kind}"), asked).await.unwrap().0["plaintext"], *input);
            }
        }
        assert_eq!((token.generated(), registered(&desk)), (6, 6));
        let (document, _) = desk.write("keys/default", json!({})).await.unwrap();
        assert_eq!(document["type"], "aes256-gcm96");
        let (document, _) = desk.write("keys/mac", json!({"type": "hmac", "key_size": 48})).await.unwrap();
        assert_eq!((&document["type"], &document["key_size"]), (&json!("hmac"), &json!(48)));
        assert!(
            text(&desk.write("hmac/mac", json!({"input": input})).await.unwrap().0, "hmac").starts_with("vault:v1:")
        );
    });
}

#[test]
fn what_no_key_in_a_token_can_be_is_refused_before_one_is_made() {
    with_token(|desk, token| async move {
        for (asked, expected) in [
            (json!({"type": "rsa-1024"}), "is not offered: use rsa-2048, rsa-3072, rsa-4096"),
            (json!({"type": "chacha20-poly1305"}), "is not offered"),
            (json!({"type": "hmac", "key_size": 16}), "use 32 to 512 bytes"),
            (json!({"type": "ed25519", "key_size": 32}), "key_size is for keys of type hmac"),
            (json!({"type": "ml-dsa"}), "takes 44, 65 or 87"),
            (json!({"type": "ed25519", "parameter_set": "65"}), "parameter_set is for keys of type ml-dsa"),
            (json!({"type": "ed25519", "derived": true}), "not supported for keys of type ed25519"),
            (json!({"convergent_encryption": true}), "not supported for keys of type aes256-gcm96"),
            (json!({"exportable": true}), "exportable is not supported here"),
            (json!({"allow_plaintext_backup": true}), "allow_plaintext_backup is not supported here"),
            (json!({"auto_rotate_period": "59m"}), "auto rotate period must be 0 to disable or at least an hour"),
            (json!({"auto_rotate_period": -1}), "expected a duration"),
            (json!({"type": "ed25519", "managed_key_name": "x"}), "are for keys of type managed_key"),
        ] {
            let told = desk.refused("keys/new", asked.clone()).await;
            assert!(told.contains(expected), "{asked}: {told}");
        }
        assert_eq!((token.generated(), registered(&desk)), (0, 0));
    });
}

#[test]
fn encrypting_makes_the_key_that_is_not_there_unless_that_is_forbidden() {
    with_token(|desk, token| async move {
        let asked = json!({"plaintext": STANDARD.encode("a secret")});
        let sealed = desk.write("encrypt/new", asked.clone()).await.unwrap().0;
        let read = desk.write("decrypt/new", json!({"ciphertext": sealed["ciphertext"]})).await.unwrap().0;
        assert_eq!(read["plaintext"], asked["plaintext"]);
        let batch = json!({"batch_input": [asked, asked], "type": "aes128-gcm96"});
        desk.write("encrypt/several", batch).await.unwrap();
        let Response::Data { data, .. } = desk.ask(Verb::Read, "keys/several", json!({})).await.unwrap() else {
            panic!("no document")
        };
        assert_eq!((text(&data, "type"), token.generated()), ("aes128-gcm96", 2));
        let mut curve = asked.clone();
        curve["type"] = json!("ecdsa-p256");
        assert!(desk.refused("encrypt/curve", curve).await.contains("no key of type ecdsa-p256 encrypts"));
        desk.write("config/keys", json!({"disable_upsert": true})).await.unwrap();
        assert_eq!(desk.refused("encrypt/another", asked).await, "encryption key not found");
        assert_eq!((token.generated(), registered(&desk)), (2, 2));
    });
}

#[test]
fn a_client_chooses_no_nonce_for_a_key_that_the_mount_made() {
    with_token(|desk, _| async move {
        let told = "provided nonce not allowed for this key";
        let [plaintext, nonce] = [STANDARD.encode("attack at dawn"), STANDARD.encode([7; 12])];
        for kind in ["aes128-gcm96", "aes256-gcm96"] {
            let path = |verb: &str| format!("{verb}/{kind}");
            desk.write(&path("keys"), json!({"type": kind})).await.unwrap();
            for field in ["nonce", "iv"] {
                let asked = json!({"plaintext": plaintext, field: nonce});
                assert_eq!(desk.refused(&path("encrypt"), asked).await, told, "{field}");
                for form in ["datakey/plaintext", "datakey/wrapped"] {
                    assert_eq!(desk.refused(&path(form), json!({field: nonce})).await, told, "{form} {field}");
                }
            }
            let items = json!([{"plaintext": plaintext, "nonce": nonce}, {"plaintext": plaintext}]);
            let asked = json!({"batch_input": items, "partial_failure_response_code": 200});
            let answer = desk.ask(Verb::Write, &path("encrypt"), asked).await.unwrap();
            let Response::Failed { data, .. } = answer else { panic!("{answer:?}") };
            assert_eq!(data["batch_results"][0]["error"], told);
            let sealed = data["batch_results"][1]["ciphertext"].clone();
            let asked = json!({"ciphertext": sealed, "nonce": nonce});
            assert_eq!(desk.refused(&path("rewrap"), asked).await, told);
            let read = desk.write(&path("decrypt"), json!({"ciphertext": sealed})).await.unwrap().0;
            assert_eq!(read["plaintext"], *plaintext);
        }
    });
}

#[test]
fn a_rotation_makes_the_next_key_and_a_deletion_unregisters_them_all() {
    with_token(|desk, token| async move {
        desk.write("keys/doc", json!({"type": "aes256-gcm96"})).await.unwrap();
        let old = desk.write("encrypt/doc", json!({"plaintext": STANDARD.encode("old")})).await.unwrap().0;
        let told = desk.refused("keys/doc/rotate", json!({"managed_key_name": "x"})).await;
        assert!(told.contains("are for keys of type managed_key"), "{told}");
        let (document, _) = desk.write("keys/doc/rotate", json!({})).await.unwrap();
        assert_eq!((&document["latest_version"], &document["type"]), (&json!(2), &json!("aes256-gcm96")));
        let new = desk.write("encrypt/doc", json!({"plaintext": STANDARD.encode("new")})).await.unwrap().0;
        assert!(text(&new, "ciphertext").starts_with("vault:v2:"));
        // And so after a restart.
        let desk = Desk { transit: Transit::load(&desk.mount, &desk.services).unwrap(), ..desk };
        for (sealed, expected) in [(&old, "old"), (&new, "new")] {
            let read = desk.write("decrypt/doc", json!({"ciphertext": sealed["ciphertext"]})).await.unwrap().0;
            assert_eq!(read["plaintext"], *STANDARD.encode(expected));
        }
        assert_eq!((token.generated(), registered(&desk)), (2, 2));
        desk.write("keys/doc/config", json!({"min_decryption_version": 2, "min_encryption_version": 2})).await.unwrap();
        desk.write("keys/doc/trim", json!({"min_available_version": 2})).await.unwrap();
        assert_eq!(registered(&desk), 1);
        let key = desk.transit.key("doc").unwrap();
        let uuid = key.version(2).unwrap().managed_key.to_owned();
        assert!(desk.services.keys.resolve(&desk.mount, KeyRef::Uuid(&uuid)).is_ok());
        desk.write("keys/doc/config", json!({"deletion_allowed": true})).await.unwrap();
        assert_eq!(desk.ask(Verb::Delete, "keys/doc", json!({})).await, Ok(Response::Empty));
        assert_eq!(registered(&desk), 0);
        assert!(desk.services.keys.resolve(&desk.mount, KeyRef::Uuid(&uuid)).is_err());
    });
}

/// What the token of these stories does not do.
fn sha_256_oaep(operation: &KeyOperation) -> Option<Fault> {
    matches!(operation, KeyOperation::Decrypt { cipher: Cipher::RsaOaep { hash: Hash::Sha2_256 }, .. })
        .then(no_mechanism)
}

async fn decrypted(desk: &Desk, name: &str, asked: Value) -> Value {
    desk.write(&format!("decrypt/{name}"), asked).await.unwrap().0["plaintext"].clone()
}

#[test]
fn an_rsa_key_signs_and_decrypts_by_each_of_vaults_ways() {
    with_token(|desk, token| async move {
        let (document, warnings) = desk.write("keys/doc", json!({"type": "rsa-2048"})).await.unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!((&document["supports_signing"], &document["supports_encryption"]), (&json!(true), &json!(true)));
        let version = &document["keys"]["1"];
        assert_eq!((&version["name"], &version["rsa_oaep_hash"]), (&json!("rsa-2048"), &json!("sha256")));
        let input = STANDARD.encode("a contract");
        let (pss, pkcs1) = (json!({"signature_algorithm": "pss"}), json!({"signature_algorithm": "pkcs1v15"}));
        for (signing, others) in [(json!({}), &pkcs1), (pss.clone(), &pkcs1), (pkcs1.clone(), &pss)] {
            let with = |options: &Value, more: Value| {
                let mut all = options.clone();
                all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
                all
            };
            let signed = desk.write("sign/doc/sha2-512", with(&signing, json!({"input": input}))).await.unwrap().0;
            let check = json!({"input": input, "signature": signed["signature"]});
            for (options, valid) in [(&signing, true), (others, false)] {
                let asked = with(options, check.clone());
                assert_eq!(desk.write("verify/doc/sha2-512", asked).await.unwrap().0["valid"], valid, "{signing}");
            }
        }
        for (padding, other) in [("", "pkcs1v15"), ("oaep", "pkcs1v15"), ("pkcs1v15", "oaep")] {
            let sealed = desk.write("encrypt/doc", json!({"plaintext": input, "padding_scheme": padding})).await;
            let sealed = sealed.unwrap().0["ciphertext"].clone();
            let asked = json!({"ciphertext": sealed, "padding_scheme": padding});
            assert_eq!(decrypted(&desk, "doc", asked).await, *input, "{padding}");
            // One block of OAEP in some 400 has the look of PKCS#1 v1.5, around bytes by chance.
            match desk.write("decrypt/doc", json!({"ciphertext": sealed, "padding_scheme": other})).await {
                Ok((chance, _)) => assert!(other == "pkcs1v15" && chance["plaintext"] != *input, "{padding}"),
                Err(told) => assert_eq!(told.to_string(), "the ciphertext does not decrypt with this key and padding"),
            }
            let asked = json!({
                "ciphertext": sealed, "decrypt_padding_scheme": padding, "encrypt_padding_scheme": other,
            });
            let again = desk.write("rewrap/doc", asked).await.unwrap().0["ciphertext"].clone();
            let asked = json!({"ciphertext": again, "padding_scheme": other});
            assert_eq!(decrypted(&desk, "doc", asked).await, *input, "{padding}");
        }
        // A rewrapping that does not fit tells nothing of the plaintext.
        let long = json!({"plaintext": STANDARD.encode([7; 245]), "padding_scheme": "pkcs1v15"});
        let sealed = desk.write("encrypt/doc", long).await.unwrap().0["ciphertext"].clone();
        let asked = json!({"ciphertext": sealed, "decrypt_padding_scheme": "pkcs1v15"});
        let told = desk.refused("rewrap/doc", asked).await;
        assert_eq!(told, "plaintext is too long: a key of kind rsa-2048 encrypts at most 190 bytes so");
        let made = desk.write("datakey/plaintext/doc", json!({"bits": 512})).await.unwrap().0;
        assert_eq!(decrypted(&desk, "doc", json!({"ciphertext": made["ciphertext"]})).await, made["plaintext"]);
        let asked = json!({"plaintext": input, "associated_data": input});
        assert!(desk.refused("encrypt/doc", asked).await.contains("non-AEAD cipher suite rsa-2048"));
        let told = desk.refused("hmac/doc", json!({"input": input})).await;
        assert!(told.contains("HMACs with a key of type rsa-2048") && told.contains("of type hmac"), "{told}");
        let told = desk.refused("verify/doc", json!({"input": input, "hmac": "vault:v1:AA=="})).await;
        assert!(told.contains("HMACs with a key of type rsa-2048"), "{told}");
        assert_eq!(token.generated(), 1);
    });
}

#[test]
fn oaep_is_done_with_the_hash_that_the_token_had_when_the_version_was_made() {
    with_token(|desk, token| async move {
        token.backend().refuse(sha_256_oaep);
        let (document, warnings) = desk.write("keys/doc", json!({"type": "rsa-2048"})).await.unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("decrypts OAEP with sha1"), "{warnings:?}");
        assert_eq!(document["keys"]["1"]["rsa_oaep_hash"], "sha1");
        let secret = STANDARD.encode("a secret");
        let old = desk.write("encrypt/doc", json!({"plaintext": secret})).await.unwrap().0["ciphertext"].clone();
        assert_eq!(decrypted(&desk, "doc", json!({"ciphertext": old})).await, *secret);
        // Encrypting makes such a key, too, and says so.
        let (_, warnings) = desk.write("encrypt/new", json!({"plaintext": secret, "type": "rsa-2048"})).await.unwrap();
        assert!(warnings[0].contains("decrypts OAEP with sha1"), "{warnings:?}");
        // The module was renewed: what was made before stays as it was.
        token.backend().refuse(|_| None);
        let (document, warnings) = desk.write("keys/doc/rotate", json!({})).await.unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let hashes = ["1", "2"].map(|version| document["keys"][version]["rsa_oaep_hash"].clone());
        assert_eq!(hashes, ["sha1", "sha256"]);
        // And so after a restart.
        desk.services.keys.load(&[Namespace::root()], no_mounts()).unwrap();
        let desk = Desk { transit: Transit::load(&desk.mount, &desk.services).unwrap(), ..desk };
        let new = desk.write("encrypt/doc", json!({"plaintext": secret})).await.unwrap().0["ciphertext"].clone();
        let again = desk.write("encrypt/doc", json!({"plaintext": secret, "key_version": 1})).await.unwrap().0;
        assert!(new.as_str().unwrap().starts_with("vault:v2:"));
        for sealed in [&old, &new, &again["ciphertext"]] {
            assert_eq!(decrypted(&desk, "doc", json!({"ciphertext": sealed})).await, *secret);
        }
    });
}

#[test]
fn a_key_does_what_its_token_has_mechanisms_for() {
    with_token(|desk, token| async move {
        token.backend().refuse(|operation| (!matches!(operation, KeyOperation::Sign { .. })).then(no_mechanism));
        let (document, warnings) = desk.write("keys/doc", json!({"type": "rsa-2048"})).await.unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("only signs"), "{warnings:?}");
        assert_eq!(document["keys"]["1"].get("rsa_oaep_hash"), None);
        let told = desk.refused("encrypt/doc", json!({"plaintext": ""})).await;
        assert!(told.contains("not supported: encryption"), "{told}");
        // Fewer hashes than there are for HMACs.
        token.backend().refuse(|operation| {
            matches!(operation, KeyOperation::Mac { hash: Hash::Sha2_384 | Hash::Sha2_512, .. }).then(no_mechanism)
        });
        let (_, warnings) = desk.write("keys/mac", json!({"type": "hmac"})).await.unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("sha2-384, sha2-512"), "{warnings:?}");
        let made = desk.write("hmac/mac/sha2-224", json!({"input": ""})).await.unwrap().0;
        let asked = json!({"input": "", "hmac": made["hmac"]});
        assert_eq!(desk.write("verify/mac/sha2-224", asked.clone()).await.unwrap().0["valid"], true);
        assert_eq!(desk.write("verify/mac", asked).await.unwrap().0["valid"], false);
        let told = desk.refused("hmac/mac/sha2-512", json!({"input": ""})).await;
        assert!(told.contains("makes HMACs with sha2-256, sha2-224, and not with sha2-512"), "{told}");
    });
}

/// Makes the newest version of a key as old as that.
fn age(desk: &Desk, name: &str, by: Duration) {
    let mut table = HashMap::clone(&desk.transit.table.load());
    let mut record = table[name].record.clone();
    record.versions.last_mut().unwrap().created -= i64::try_from(by.as_secs()).unwrap();
    let write = Write::put_record(desk.transit.records.key(name), &record).unwrap();
    desk.services.store.commit_now(vec![write]).unwrap();
    table.insert(name.to_owned(), Arc::new(TransitKey::open(record).unwrap()));
    desk.transit.table.store(Arc::new(table));
}

/// A look at the clock, and the end of what it began.
async fn look(desk: &Desk, name: &str) -> u32 {
    let call = Call { class: Class::Control, ..desk.call() };
    Arc::clone(&desk.transit).maintain(call).await.unwrap();
    if let Ok(Turn::Others(attempt)) = desk.transit.making.turn(name, || async { Ok(Response::Empty) }) {
        let _ = attempt.await;
    }
    desk.transit.key(name).unwrap().latest()
}

#[test]
fn a_key_is_rotated_when_its_newest_version_is_as_old_as_its_period() {
    with_token(|desk, token| async move {
        let (document, _) =
            desk.write("keys/doc", json!({"type": "ed25519", "auto_rotate_period": "2h"})).await.unwrap();
        assert_eq!(document["auto_rotate_period"], 7200);
        desk.write("keys/still", json!({"type": "ed25519"})).await.unwrap();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        age(&desk, "still", hours(1000));
        assert_eq!(look(&desk, "doc").await, 1);
        age(&desk, "doc", hours(1));
        assert_eq!(look(&desk, "doc").await, 1);
        age(&desk, "doc", hours(1));
        // The daemon was not there when it was due.
        let desk = Desk { transit: Transit::load(&desk.mount, &desk.services).unwrap(), ..desk };
        assert_eq!((look(&desk, "doc").await, look(&desk, "still").await, token.generated()), (2, 1, 3));
        // Once, and not for each period that was missed.
        age(&desk, "doc", hours(20));
        assert_eq!((look(&desk, "doc").await, look(&desk, "doc").await), (3, 3));
        // Another period, and none.
        desk.write("keys/doc/config", json!({"auto_rotate_period": "30h"})).await.unwrap();
        age(&desk, "doc", hours(29));
        assert_eq!(look(&desk, "doc").await, 3);
        desk.write("keys/doc/config", json!({"auto_rotate_period": 0})).await.unwrap();
        age(&desk, "doc", hours(1000));
        assert_eq!((look(&desk, "doc").await, token.generated()), (3, 4));
        let told = desk.refused("keys/doc/config", json!({"auto_rotate_period": "1s"})).await;
        assert_eq!(told, "auto rotate period must be 0 to disable or at least an hour");
    });
}

#[test]
fn a_rotation_by_the_clock_that_fails_waits_for_its_next_try() {
    with_token(|desk, token| async move {
        desk.write("keys/doc", json!({"type": "ed25519", "auto_rotate_period": 3600})).await.unwrap();
        age(&desk, "doc", Duration::from_secs(3600));
        token.fail_next_for_good(Fault::internal("the device is on fire"));
        assert_eq!(look(&desk, "doc").await, 1);
        let generated = token.generated();
        assert_eq!((look(&desk, "doc").await, token.generated()), (1, generated), "not at once");
        // A client's rotation is its own affair.
        desk.write("keys/doc/rotate", json!({})).await.unwrap();
        assert_eq!(look(&desk, "doc").await, 2);
    });
}
