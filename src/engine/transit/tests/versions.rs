//! Rotation, trimming, which versions may be used, and public keys.

use super::*;

impl Desk {
    /// A managed key of this mechanism, generated at its first use.
    async fn managed(&self, name: &str, mechanism: &str, more: Value) {
        let mut settings = json!({
            "library": "hsm", "token_label": "t", "key_label": name, "mechanism": mechanism,
            "allow_generate_key": true, "any_mount": true,
        });
        settings.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        let settings = settings.as_object().cloned().unwrap();
        self.services.keys.write(&Namespace::root(), "pkcs11", name, &settings).await.unwrap();
    }

    async fn rotate(&self, name: &str, managed: &str) -> Data {
        self.write(&format!("keys/{name}/rotate"), json!({"managed_key_name": managed})).await.unwrap().0
    }

    async fn configure(&self, name: &str, data: Value) {
        self.write(&format!("keys/{name}/config"), data).await.unwrap();
    }
}

const AES: &str = "0x1087";

fn both() -> Value {
    json!({"key_bits": 256, "usages": "encrypt,decrypt"})
}

#[test]
fn a_key_is_rotated_by_naming_the_next_managed_key_and_old_versions_go_on() {
    desk(|desk, _| async move {
        desk.key("doc", AES, both()).await;
        desk.managed("doc2", AES, both()).await;
        let (old, _) = desk.write("encrypt/doc", json!({"plaintext": "eA=="})).await.unwrap();
        let shown = desk.rotate("doc", "doc2").await;
        assert_eq!((&shown["latest_version"], &shown["keys"]["2"]["name"]), (&json!(2), &json!("aes-256")));
        let (new, _) = desk.write("encrypt/doc", json!({"plaintext": "eA=="})).await.unwrap();
        assert_eq!(new["key_version"], 2);
        for made in [&old, &new] {
            let read = desk.write("decrypt/doc", json!({"ciphertext": made["ciphertext"]})).await.unwrap().0;
            assert_eq!(read["plaintext"], "eA==");
        }
        let (again, _) = desk.write("rewrap/doc", json!({"ciphertext": old["ciphertext"]})).await.unwrap();
        assert_eq!(again["key_version"], 2);
        let (first, _) =
            desk.write("rewrap/doc", json!({"ciphertext": new["ciphertext"], "key_version": 1})).await.unwrap();
        assert!(text(&first, "ciphertext").starts_with("vault:v1:"));
        for (path, asked, told) in [
            ("keys/absent/rotate", json!({"managed_key_name": "doc2"}), "key not found"),
            ("keys/doc/rotate", json!({}), "missing argument managed_key_name or managed_key_id"),
            ("keys/doc/rotate", json!({"managed_key_name": "none"}), "no managed key found with name \"none\""),
            (
                "keys/doc/rotate",
                json!({"managed_key_name": "doc2"}),
                "managed key \"doc2\" is the latest version of the key already",
            ),
        ] {
            assert_eq!(desk.refused(path, asked).await, told);
        }
        // Both are in use now, and a daemon that starts on this knows both.
        for name in ["doc", "doc2"] {
            let mounts = vec![Arc::clone(&desk.mount)];
            assert!(desk.services.keys.delete(&Namespace::root(), "pkcs11", name, move || mounts).await.is_err());
        }
        let later = Transit::load(&desk.mount, &desk.services).unwrap();
        assert_eq!(later.key("doc").unwrap().latest(), 2);
    });
}

#[test]
fn versions_below_the_bounds_are_refused_and_trimmed_ones_are_gone() {
    desk(|desk, _| async move {
        desk.key("doc", AES, both()).await;
        let (old, _) = desk.write("encrypt/doc", json!({"plaintext": "eA=="})).await.unwrap();
        for (number, name) in [(2, "two"), (3, "three")] {
            desk.managed(name, AES, both()).await;
            assert_eq!(desk.rotate("doc", name).await["latest_version"], number);
        }
        let trim = async |least: Value| desk.refused("keys/doc/trim", json!({"min_available_version": least})).await;
        let not_set = "minimum available version cannot be set when minimum encryption version is not set";
        assert_eq!(trim(json!(2)).await, not_set);
        assert_eq!(desk.refused("keys/doc/trim", json!({})).await, "missing min_available_version");
        assert_eq!(desk.refused("keys/none/trim", json!({"min_available_version": 1})).await, "invalid key name");
        desk.configure("doc", json!({"min_encryption_version": 3, "min_decryption_version": 2})).await;
        let told = desk.refused("encrypt/doc", json!({"plaintext": "eA==", "key_version": 2})).await;
        assert_eq!(told, "requested version for encryption is less than the minimum encryption key version");
        let too_old = "ciphertext or signature version is disallowed by policy (too old)";
        assert_eq!(desk.refused("decrypt/doc", json!({"ciphertext": old["ciphertext"]})).await, too_old);
        let greater = |than: &str| format!("minimum available version cannot be greater than {than}");
        assert_eq!(trim(json!(4)).await, greater("minmum encryption version"));
        assert_eq!(trim(json!(3)).await, greater("minimum decryption version"));
        let (shown, _) = desk.write("keys/doc/trim", json!({"min_available_version": 2})).await.unwrap();
        assert_eq!((&shown["min_available_version"], &shown["latest_version"]), (&json!(2), &json!(3)));
        assert_eq!(shown["keys"].as_object().unwrap().keys().collect::<Vec<_>>(), ["2", "3"]);
        assert_eq!(trim(json!(1)).await, "minimum available version cannot be decremented");
        let told = desk.refused("keys/doc/config", json!({"min_decryption_version": 1})).await;
        assert_eq!(told, "min decryption version should not be less than min available version");
        // The managed key of the version that is gone is free again; what is left is found where it was.
        let mounts = vec![Arc::clone(&desk.mount)];
        desk.services.keys.delete(&Namespace::root(), "pkcs11", "doc", move || mounts).await.unwrap();
        let later = Transit::load(&desk.mount, &desk.services).unwrap();
        let key = later.key("doc").unwrap();
        assert_eq!((key.latest(), key.version(1).is_none(), key.version(2).is_some()), (3, true, true));
        assert_eq!(desk.write("encrypt/doc", json!({"plaintext": "eA=="})).await.unwrap().0["key_version"], 3);
    });
}

#[test]
fn public_keys_are_exported_and_nothing_else() {
    desk(|desk, _| async move {
        desk.ec().await;
        desk.key("ed", "0x1057", json!({})).await;
        desk.key("aes", AES, both()).await;
        let export = async |path: &str, data: Value| match desk.ask(Verb::Read, &format!("export/{path}"), data).await {
            Ok(Response::Data { data, .. }) => Ok(data),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => Err(fault.to_string()),
        };
        let all = export("public-key/doc", json!({})).await.unwrap();
        assert_eq!((&all["name"], &all["type"]), (&json!("doc"), &json!("managed_key")));
        let pem = all["keys"]["1"].as_str().unwrap();
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"));
        for version in ["1", "latest", "v1"] {
            assert_eq!(export(&format!("public-key/doc/{version}"), json!({})).await.unwrap()["keys"]["1"], pem);
        }
        let der = export("public-key/doc", json!({"format": "der"})).await.unwrap()["keys"]["1"].clone();
        assert!(crate::crypto::parse_spki(&STANDARD.decode(der.as_str().unwrap()).unwrap()).is_ok());
        let raw = export("public-key/ed", json!({"format": "raw"})).await.unwrap()["keys"]["1"].clone();
        assert_eq!(STANDARD.decode(raw.as_str().unwrap()).unwrap().len(), 32);
        assert!(export("public-key/aes", json!({})).await.unwrap()["keys"].as_object().unwrap().is_empty());
        for (path, data, told) in [
            ("public-key/none", json!({}), "not found"),
            ("public-key/doc/2", json!({}), "version does not exist or cannot be found"),
            ("public-key/doc/x", json!({}), "invalid key version"),
            ("public-key/doc", json!({"format": "x"}), "invalid format: x"),
            ("signing-key/doc", json!({}), "private key material is not exportable"),
            ("certificate-chain/none", json!({}), "not found"),
            ("certificate-chain/doc", json!({}), "selected key version does not have a certificate chain available"),
            ("soul/doc", json!({}), "invalid export type: soul"),
        ] {
            assert_eq!(export(path, data).await, Err(told.to_owned()), "{path}");
        }
    });
}

#[test]
fn the_size_of_a_cache_is_told_back_and_means_nothing() {
    desk(|desk, _| async move {
        let read = async |desk: &Desk| match desk.ask(Verb::Read, "cache-config", json!({})).await.unwrap() {
            Response::Data { data, .. } => data["size"].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(read(&desk).await, 0);
        let (data, warnings) = desk.write("cache-config", json!({"size": 500})).await.unwrap();
        assert_eq!(data["size"], 500);
        assert!(warnings[0].contains("nothing is cached"), "{warnings:?}");
        for size in [json!(9), json!(-1)] {
            let told = desk.refused("cache-config", json!({"size": size})).await;
            assert_eq!(told, "size must be 0 or a value greater or equal to 10");
        }
        let desk = Desk { transit: Transit::load(&desk.mount, &desk.services).unwrap(), ..desk };
        assert_eq!(read(&desk).await, 500);
        desk.write("cache-config", json!({})).await.unwrap();
        assert_eq!(read(&desk).await, 0);
    });
}

#[test]
fn whether_encryption_makes_keys_is_kept_as_a_setting() {
    desk(|desk, _| async move {
        let read = async || match desk.ask(Verb::Read, "config/keys", json!({})).await.unwrap() {
            Response::Data { data, .. } => data["disable_upsert"].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(read().await, false);
        desk.write("config/keys", json!({"disable_upsert": true})).await.unwrap();
        assert_eq!(read().await, true);
    });
}
