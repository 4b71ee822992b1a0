//! Keys of a mount's own, on a token of software keys behind the real supervisor.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::managed_keys::KeyRef;
use crate::managed_keys::software_token::{SoftwareToken, no_mechanism, no_mounts, story};
use crate::model::Curve;
use crate::model::{Cipher, KeyOperation, MountConfig, SignatureScheme};

const P256: KeyKind = KeyKind::Ec(Curve::P256);

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn mount(uuid: &str) -> Mount {
    Mount {
        namespace: Namespace::root(),
        path: "transit/".into(),
        engine: "transit".into(),
        uuid: uuid.into(),
        accessor: "transit_1".into(),
        description: String::new(),
        options: options(&[("kms_library", "hsm"), ("token_label", "t")]),
        config: MountConfig::default(),
    }
}

async fn made(keys: &ManagedKeys, mount: &Mount) -> OwnKey {
    keys.make_for(mount, P256, Deadline::after(Duration::from_secs(30))).await.expect("a key")
}

async fn until_gone(keys: &ManagedKeys, name: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    while keys.find(&Namespace::root(), "pkcs11", name).is_ok() {
        assert!(Instant::now() < end, "{name} is still registered");
        tokio::task::yield_now().await;
    }
}

#[test]
fn options_name_a_library_that_carries_its_pin_with_a_token_or_a_pool() {
    story(|keys, _| async move {
        for (pairs, expected) in [
            (&[("kms_library", "none"), ("token_label", "t")][..], "there is no kms_library or kms_pool \"none\""),
            (&[("kms_pool", "none")], "there is no kms_library or kms_pool \"none\""),
            (&[("kms_pool", "hsm")], "\"hsm\" is a kms_library"),
            (&[("kms_library", "bare"), ("token_label", "t")], "carries no pin"),
            (&[("kms_library", "hsm")], "takes a token_label"),
            (&[("kms_library", "hsm"), ("kms_pool", "hsm"), ("token_label", "t")], "only one of"),
            (&[("kms_pool", "hsm"), ("token_label", "t")], "cannot be given with kms_pool"),
            (&[("token_label", "t")], "says nothing without kms_library"),
        ] {
            let told = keys.check_options(&Namespace::root(), &options(pairs)).unwrap_err();
            assert!(matches!(told, Fault::InvalidRequest { .. }), "{told:?}");
            assert!(told.to_string().contains(expected), "{pairs:?}: {told}");
        }
        for fine in [&[][..], &[("version", "2")], &[("kms_library", "HSM"), ("token_label", "t"), ("kms_pool", "")]] {
            keys.check_options(&Namespace::root(), &options(fine)).unwrap();
        }
        let bare = Mount { options: BTreeMap::new(), ..mount("a") };
        let told = keys.make_for(&bare, P256, Deadline::after(Duration::from_secs(30))).await.err().unwrap();
        assert!(told.to_string().contains("sys/mounts/transit/tune"), "{told}");
        assert!(keys.names(&Namespace::root(), "pkcs11").is_empty());
    });
}

#[test]
fn a_key_of_a_mounts_own_is_for_that_mount_alone() {
    story(|keys, token: SoftwareToken| async move {
        let (own, other) = (mount("11111111-2222"), mount("99999999-2222"));
        let root = Namespace::root();
        let key = made(&keys, &own).await;
        let (name, uuid) = (key.handle.name().to_owned(), key.handle.uuid().to_owned());
        assert_eq!((token.generated(), key.identity.kind()), (1, P256));
        assert_eq!(name, format!("mount-11111111-{uuid}"));
        keys.store_for_tests().commit_now(vec![keys.note_use(&own, &uuid, "key doc")]).unwrap();
        let shown = keys.show(&root, "pkcs11", &name).unwrap();
        assert_eq!((&shown["owner"], &shown["key_label"]), (&json!(own.uuid), &json!(name)));
        assert!(keys.resolve(&own, KeyRef::Uuid(&uuid)).is_ok());
        let listing = Mount {
            config: MountConfig { allowed_managed_keys: vec![name.clone()], ..MountConfig::default() },
            ..other.clone()
        };
        for stranger in [&other, &listing] {
            let told = keys.resolve(stranger, KeyRef::Uuid(&uuid)).err().unwrap().to_string();
            assert!(told.contains("made for another mount"), "{told}");
        }
        // What a read shows may be sent back; other mounts are not let in by that.
        keys.write(&root, "pkcs11", &name, &shown).await.unwrap();
        for (field, value) in [("owner", json!("99999999-2222")), ("any_mount", json!(true))] {
            let mut data = shown.clone();
            data.insert(field.into(), value);
            let told = keys.write(&root, "pkcs11", &name, &data).await.unwrap_err().to_string();
            assert!(told.contains("cannot be set"), "{told}");
        }
        let owner = Arc::new(own.clone());
        let told = keys.delete(&root, "pkcs11", &name, move || vec![owner]).await.unwrap_err().to_string();
        assert!(told.contains("which it was made for"), "{told}");
        drop(key);
        keys.load(std::slice::from_ref(&root), no_mounts()).unwrap();
        assert_eq!(keys.show(&root, "pkcs11", &name).unwrap()["owner"], json!(own.uuid));
        keys.delete(&root, "pkcs11", &name, Vec::new).await.unwrap();
        assert!(keys.find(&root, "pkcs11", &name).is_err());
    });
}

#[test]
fn a_registration_goes_when_nothing_uses_the_key() {
    story(|keys, token: SoftwareToken| async move {
        let own = mount("11111111-2222");
        let root = Namespace::root();
        // The engine could not store its own record.
        let key = made(&keys, &own).await;
        let name = key.handle.name().to_owned();
        drop(key);
        until_gone(&keys, &name).await;
        // The token failed.
        token.fail_next_for_good(Fault::internal("the device is on fire"));
        assert!(keys.make_for(&own, P256, Deadline::after(Duration::from_secs(30))).await.is_err());
        let end = Instant::now() + Duration::from_secs(30);
        while !keys.names(&root, "pkcs11").is_empty() {
            assert!(Instant::now() < end);
            tokio::task::yield_now().await;
        }
        // The mount is disabled, with all that used keys.
        let key = made(&keys, &own).await;
        let uuid = key.handle.uuid().to_owned();
        let store = keys.store_for_tests();
        store.commit_now(vec![keys.note_use(&own, &uuid, "key doc")]).unwrap();
        keys.end_mount(&own).await;
        assert_eq!(keys.names(&root, "pkcs11").len(), 1);
        store.commit_now(vec![keys.drop_use(&own, &uuid, "key doc")]).unwrap();
        keys.end_mount(&own).await;
        assert!(keys.names(&root, "pkcs11").is_empty());
        // The daemon ended in between.
        let key = made(&keys, &own).await;
        keys.load(std::slice::from_ref(&root), no_mounts()).unwrap();
        assert!(keys.names(&root, "pkcs11").is_empty(), "{}", key.handle.name());
    });
}

#[test]
fn what_the_token_showed_of_a_key_is_kept_and_not_to_be_changed() {
    story(|keys, token: SoftwareToken| async move {
        let (own, root) = (mount("11111111-2222"), Namespace::root());
        let soon = || Deadline::after(Duration::from_secs(30));
        token.backend().refuse(|operation| {
            matches!(operation, KeyOperation::Sign { scheme: SignatureScheme::RsaPss { .. }, .. }).then(no_mechanism)
        });
        let key = keys.make_able_for(&own, KeyKind::Rsa { bits: 2048 }, soon()).await.unwrap();
        let (name, uuid) = (key.handle.name().to_owned(), key.handle.uuid().to_owned());
        keys.store_for_tests().commit_now(vec![keys.note_use(&own, &uuid, "key doc")]).unwrap();
        let warnings = key.handle.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("no RSA PSS signatures"), "{warnings:?}");
        let shown = keys.show(&root, "pkcs11", &name).unwrap();
        let expected = json!(["sign-pkcs1v15", "decrypt-oaep-sha256", "decrypt-pkcs1v15"]);
        assert_eq!(shown["abilities"], expected);
        // An operator may send back what was read, and narrow what the key is used for, and no more.
        let mut signs_only = shown.clone();
        signs_only.insert("usages".into(), json!("sign,verify"));
        keys.write(&root, "pkcs11", &name, &signs_only).await.unwrap();
        for (field, value, told) in [
            ("abilities", json!(["sign-pss"]), "abilities cannot be set"),
            ("mechanism", json!("0x000d"), "cannot change"),
        ] {
            let mut data = shown.clone();
            data.insert(field.into(), value);
            let refused = keys.write(&root, "pkcs11", &name, &data).await.unwrap_err().to_string();
            assert!(refused.contains(told), "{refused}");
        }
        drop(key);
        keys.load(std::slice::from_ref(&root), no_mounts()).unwrap();
        assert_eq!(keys.show(&root, "pkcs11", &name).unwrap()["abilities"], expected);
        let handle = keys.resolve(&own, KeyRef::Uuid(&uuid)).unwrap();
        assert!(handle.default_scheme(32).is_err() && handle.require_scheme(SignatureScheme::RsaPkcs1).is_ok());
        let ciphertext = bytes::Bytes::from(vec![1; 256]);
        let decrypt = KeyOperation::Decrypt { cipher: Cipher::RsaPkcs1, ciphertext };
        let refused = handle.submit(decrypt, Terms { class: Class::Interactive, deadline: soon() }).err().unwrap();
        assert!(refused.to_string().contains("does not allow usage \"decrypt\""), "{refused}");
        // No operator registers a key with abilities of its own.
        let mut data = shown.clone();
        data.remove("owner");
        let refused = keys.write(&root, "pkcs11", "other", &data).await.unwrap_err().to_string();
        assert!(refused.contains("abilities cannot be set"), "{refused}");
    });
}

#[test]
fn a_key_is_not_kept_whose_trial_ends_in_trouble() {
    story(|keys, token: SoftwareToken| async move {
        let own = mount("11111111-2222");
        let deadline = Deadline::after(Duration::from_secs(30));
        token.backend().refuse(|operation| {
            matches!(operation, KeyOperation::Decrypt { .. }).then(|| Fault::internal("the device is on fire"))
        });
        let told = keys.make_able_for(&own, KeyKind::Rsa { bits: 2048 }, deadline).await.err().unwrap().to_string();
        assert!(told.contains("on fire"), "{told}");
        let end = Instant::now() + Duration::from_secs(30);
        while !keys.names(&Namespace::root(), "pkcs11").is_empty() {
            assert!(Instant::now() < end);
            tokio::task::yield_now().await;
        }
    });
}
