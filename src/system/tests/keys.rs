//! Managed keys over the system's paths.

use super::*;

#[test]
fn a_managed_key_is_registered_tested_used_and_deleted() {
    story(|client| async move {
        let list = || client.ask(Verb::List, "sys/managed-keys/pkcs11", json!({}));
        assert_eq!(list().await, Err(Fault::absent()));
        client.write("sys/managed-keys/pkcs11/ca", ca()).await;
        assert_eq!(list().await, Ok(Response::keys(vec!["ca".into()])));
        let mut body = client.read("sys/managed-keys/pkcs11/ca").await;
        assert_eq!(body["UUID"].take().as_str().map(str::len), Some(36));
        let golden = json!({
            "UUID": null, "name": "ca", "type": "pkcs11", "library": "hsm", "slot": 0, "token_label": "t",
            "key_label": "ca", "key_id": "", "mechanism": 4161, "key_bits": 0, "curve": "P256", "pin": "",
            "allow_generate_key": true, "allow_replace_key": false, "allow_store_key": false, "any_mount": false,
            "allow_raw_signing": false, "force_rw_session": false, "usages": ["sign", "verify"],
        });
        assert_eq!(body, golden);
        assert_eq!(client.token.generated(), 0);
        for hash in ["sha2-256", "sha2-512", "sha3-256"] {
            client.write("sys/managed-keys/pkcs11/ca/test/sign", json!({"hash_algorithm": hash})).await;
        }
        assert_eq!(client.token.generated(), 1, "by the first test only");
        client.write("sys/mounts/pki", json!({"type": "pki", "config": {"allowed_managed_keys": ["ca"]}})).await;
        let listed = client.refused(Verb::Delete, "sys/managed-keys/pkcs11/ca", json!({})).await;
        let text =
            "managed key \"ca\" is in use by mount \"pki/\", which lists it in allowed_managed_keys: end that first";
        assert_eq!(listed, text);
        let mount = client.system.namespaces.mount(&Namespace::root(), "pki").unwrap();
        assert!(client.system.keys.resolve(&mount, KeyRef::Name("ca")).is_ok());
        client.write("sys/mounts/pki/tune", json!({"allowed_managed_keys": []})).await;
        for _ in 0..2 {
            let deleted = client.ask(Verb::Delete, "sys/managed-keys/pkcs11/ca", json!({})).await;
            assert_eq!(deleted, Ok(Response::Empty));
        }
        assert_eq!(client.ask(Verb::Read, "sys/managed-keys/pkcs11/ca", json!({})).await, Err(Fault::absent()));
    });
}

#[test]
fn a_mount_that_is_disabled_frees_the_keys_it_used() {
    story(|client| async move {
        client.write("sys/managed-keys/pkcs11/ca", ca()).await;
        client.write("sys/mounts/pki", json!({"type": "pki"})).await;
        let uuid = client.read("sys/managed-keys/pkcs11/ca").await["UUID"].as_str().unwrap().to_owned();
        let mount = client.system.namespaces.mount(&Namespace::root(), "pki").unwrap();
        let used = client.system.keys.note_use(&mount, &uuid, "issuer 0b7e");
        client.system.store.commit(vec![used]).await.unwrap();
        let text = client.refused(Verb::Delete, "sys/managed-keys/pkcs11/ca", json!({})).await;
        assert_eq!(text, "managed key \"ca\" is in use by issuer 0b7e of mount \"pki/\": end that first");
        assert_eq!(client.ask(Verb::Delete, "sys/mounts/pki", json!({})).await, Ok(Response::Empty));
        assert_eq!(client.ask(Verb::Delete, "sys/managed-keys/pkcs11/ca", json!({})).await, Ok(Response::Empty));
    });
}

#[test]
fn other_types_are_not_compiled_in() {
    story(|client| async move {
        for kind in ["vaultkms", "AWSKMS", "hsm"] {
            let text = format!("unsupported managed key type {kind:?}");
            let path = format!("sys/managed-keys/{kind}");
            assert_eq!(client.refused(Verb::List, &path, json!({})).await, text);
            let key = format!("{path}/ca");
            for verb in [Verb::Read, Verb::Write, Verb::Delete] {
                assert_eq!(client.refused(verb, &key, json!({})).await, text);
            }
            assert_eq!(client.refused(Verb::Write, &format!("{key}/test/sign"), json!({})).await, text);
        }
    });
}

#[test]
fn a_name_is_one_keys_whatever_its_type() {
    story(|client| async move {
        client.write("sys/managed-keys/pkcs11/ca", ca()).await;
        let cloud = json!({"kms_key": "alias/ca", "key_type": "ECDSA", "curve": "P256"});
        let told = client.refused(Verb::Write, "sys/managed-keys/awskms/ca", cloud.clone()).await;
        assert!(told.contains("is of type pkcs11") && told.contains("unique across all types"), "{told}");
        assert_eq!(client.ask(Verb::Read, "sys/managed-keys/awskms/ca", json!({})).await, Err(Fault::absent()));
        assert_eq!(client.ask(Verb::List, "sys/managed-keys/awskms", json!({})).await, Err(Fault::absent()));
        client.ask(Verb::Delete, "sys/managed-keys/awskms/ca", json!({})).await.unwrap();
        assert_eq!(client.read("sys/managed-keys/pkcs11/ca").await["type"], "pkcs11", "another type's deletion");
        client.write("sys/managed-keys/awskms/other", cloud).await;
        assert_eq!(client.read("sys/managed-keys/awskms/other").await["type"], "awskms");
    });
}

#[test]
fn a_test_signs_as_it_is_asked_or_says_why_not() {
    story(|client| async move {
        let pss = json!({"key_label": "rsa", "mechanism": "0x000D", "key_bits": "2048"});
        let pkcs1 = json!({"key_label": "rsa1", "mechanism": "0x0001", "key_bits": 2048});
        let eddsa = json!({"key_label": "ed", "mechanism": "0x1057"});
        for (name, fields) in [("pss", pss), ("pkcs1", pkcs1), ("ed", eddsa)] {
            let mut new = ca();
            new.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            client.write(&format!("sys/managed-keys/pkcs11/{name}"), new).await;
        }
        client
            .write("sys/managed-keys/pkcs11/pss/test/sign", json!({"use_pss": "true", "hash_algorithm": "sha2-384"}))
            .await;
        client.write("sys/managed-keys/pkcs11/pss/test/sign", json!({})).await;
        client.write("sys/managed-keys/pkcs11/pkcs1/test/sign", json!({"use_pss": false})).await;
        client.write("sys/managed-keys/pkcs11/ed/test/sign", json!({})).await;
        let test = async |name: &str, data| {
            client.refused(Verb::Write, &format!("sys/managed-keys/pkcs11/{name}/test/sign"), data).await
        };
        assert_eq!(
            test("pkcs1", json!({"use_pss": true})).await,
            "managed key \"pkcs1\" is registered for mechanism CKM_RSA_PKCS (0x0001), which makes no RSA PSS signatures"
        );
        assert!(test("ed", json!({"use_pss": true})).await.ends_with("makes no RSA PSS signatures"));
        assert_eq!(test("ed", json!({"hash_algorithm": "md5"})).await, "unsupported hash algorithm \"md5\"");
        assert_eq!(test("nobody", json!({})).await, "no managed key found with name \"nobody\"");
        let odd = client.warnings("sys/managed-keys/pkcs11/ed/test/sign", json!({"colour": 1})).await;
        assert_eq!(odd, ["Endpoint ignored these unrecognized parameters: [colour]"]);
    });
}

#[test]
fn a_key_that_cannot_sign_is_not_generated_by_a_test() {
    story(|client| async move {
        let mut oaep = ca();
        oaep["mechanism"] = json!("0x0009");
        oaep["key_bits"] = json!(2048);
        oaep["usages"] = json!("sign,decrypt");
        client.write("sys/managed-keys/pkcs11/oaep", oaep).await;
        let mut verify = ca();
        verify["usages"] = json!("verify");
        client.write("sys/managed-keys/pkcs11/verify", verify).await;
        let answer = client.ask(Verb::Write, "sys/managed-keys/pkcs11/oaep/test/sign", json!({})).await;
        let what = "signing with managed key \"oaep\", whose mechanism is CKM_RSA_PKCS_OAEP (0x0009)".into();
        assert_eq!(answer, Err(Fault::NotSupported { what }));
        let usage = client.refused(Verb::Write, "sys/managed-keys/pkcs11/verify/test/sign", json!({})).await;
        assert_eq!(usage, "managed key \"verify\" does not allow usage \"sign\": add it to the key's usages");
        assert_eq!(client.token.generated(), 0);
    });
}

#[test]
fn a_pin_never_comes_back_and_status_tells_where_it_was_refused() {
    story(|client| async move {
        client.token.make("ca", b"", P256);
        let mut own = ca();
        own["library"] = json!("bare");
        own["pin"] = json!("0000-wrong");
        client.write("sys/managed-keys/pkcs11/ca", own.clone()).await;
        assert_eq!(client.read("sys/managed-keys/pkcs11/ca").await["pin"], json!("redacted"));
        let fault = client.ask(Verb::Write, "sys/managed-keys/pkcs11/ca/test/sign", json!({})).await.unwrap_err();
        assert!(!fault.to_string().contains("0000"), "{fault}");
        let status = client.read("sys/keyway/status").await;
        assert_eq!(status["kms_libraries"], json!(["hsm", "bare"]));
        let member = &status["members"][0];
        assert_eq!(
            (&member["library"], &member["token"], &member["state"]),
            (&json!("bare"), &json!("t"), &json!("refused"))
        );
        assert!(member["reason"].as_str().is_some_and(|reason| !reason.contains("0000")));
        assert_eq!(status["keyway_version"], json!(env!("CARGO_PKG_VERSION")));
        assert!(status["uptime_seconds"].is_u64());
    });
}
