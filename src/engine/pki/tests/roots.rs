//! Stories of roots.

use std::sync::atomic::Ordering;

use super::*;
use crate::managed_keys::ManagedKeys;
use crate::managed_keys::software_token::{SoftwareToken, no_mounts, open_store};

fn root(key: &str) -> Value {
    json!({"common_name": "Test Root", "managed_key_name": key, "ttl": "8760h"})
}

#[tokio::test]
async fn roots_of_every_kind_of_key_verify() {
    for (kind, extra, algorithm) in [
        (P256, json!({}), "ecdsa-with-SHA256"),
        (KeyKind::Ec(Curve::P384), json!({}), "ecdsa-with-SHA384"),
        (KeyKind::Ec(Curve::P521), json!({}), "ecdsa-with-SHA512"),
        (KeyKind::Rsa { bits: 2048 }, json!({}), "sha256WithRSAEncryption"),
        (KeyKind::Rsa { bits: 2048 }, json!({"signature_bits": 384, "use_pss": true}), "rsassaPss"),
        (KeyKind::Ed25519, json!({}), "ED25519"),
    ] {
        let desk = Desk::new(&[("k", kind)]);
        let mut body = root("k");
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let answer = desk.write("root/generate/kms", body).await.unwrap();
        let certificate = text(&answer["certificate"]);
        let shown = desk.text(&certificate);
        assert!(shown.contains(&format!("Signature Algorithm: {algorithm}")), "{shown}");
        desk.verify(&certificate).await.unwrap();

        // Leaves and CRLs are signed the same way and verify, too.
        desk.write("roles/r", json!({"allow_any_name": true, "key_type": "any", "use_pss": extra.get("use_pss")}))
            .await
            .unwrap();
        let csr = desk.p256_csr("/CN=leaf.example", "");
        let leaf = desk.write("sign/r", json!({"csr": csr, "ttl": "1h"})).await.unwrap();
        desk.verify(&text(&leaf["certificate"])).await.unwrap();
        desk.put("crl.pem", &String::from_utf8(desk.raw("crl/pem").await.1).unwrap());
        let verified = desk.openssl(&["crl", "-in", "crl.pem", "-CAfile", "root.pem", "-noout", "-text"]);
        assert!(verified.contains("No Revoked Certificates") && verified.contains("CRL Number"), "{verified}");
    }
}

#[tokio::test]
async fn secp256k1_is_neither_a_ca_s_nor_certified() {
    let desk = Desk::new(&[("k", KeyKind::Ec(Curve::Secp256k1)), ("ca", P256)]);
    for path in ["root/generate/kms", "intermediate/generate/kms"] {
        let told = message(desk.write(path, root("k")).await);
        assert!(told.contains("the curve secp256k1 has no certificates"), "{told}");
    }
    desk.write("root/generate/kms", root("ca")).await.unwrap();
    desk.write("roles/r", json!({"allow_any_name": true, "key_type": "any"})).await.unwrap();
    let csr = desk.csr(&["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "/CN=leaf.example", "");
    let told = message(desk.write("sign/r", json!({ "csr": csr })).await);
    assert!(told.contains("key is not acceptable") && told.contains("secp256k1"), "{told}");
}

#[tokio::test]
async fn a_root_says_what_was_asked_for() {
    let desk = Desk::new(&[("ca", P256)]);
    let body = json!({
        "common_name": "Corp Root", "managed_key_id": "ca", "organization": "Corp", "ou": ["A", "B"], "country": "DE",
        "serial_number": "S-1", "alt_names": "ca.corp.example,admin@corp.example", "ip_sans": "10.0.0.1",
        "uri_sans": "https://corp.example/ca", "other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:root@corp",
        "max_path_length": 0, "permitted_dns_domains": ".corp.example", "excluded_ip_ranges": "192.168.0.0/16",
        "key_usage": "DigitalSignature", "not_after": "2055-01-02T03:04:05Z", "not_before_duration": "60s",
        "issuer_name": "root-1", "key_name": "hsm-1",
    });
    let answer = desk.write("root/generate/kms", body).await.unwrap();
    assert_eq!((&answer["issuer_name"], &answer["key_name"]), (&json!("root-1"), &json!("hsm-1")));
    assert_eq!(answer["certificate"], answer["issuing_ca"]);
    assert_eq!(answer["expiration"], json!(2_682_471_845_u64));
    let warnings = answer["warnings"].to_string();
    assert!(warnings.contains("path length") && warnings.contains("AIA"), "{warnings}");
    let shown = desk.text(&text(&answer["certificate"]));
    for expected in [
        "Subject: C = DE, O = Corp, OU = A + OU = B, CN = Corp Root, serialNumber = S-1",
        "CA:TRUE, pathlen:0",
        "Digital Signature, Certificate Sign, CRL Sign",
        "DNS:ca.corp.example",
        "email:admin@corp.example",
        "IP Address:10.0.0.1",
        "URI:https://corp.example/ca",
        "othername",
        "DNS:.corp.example",
        "IP:192.168.0.0/255.255.0.0",
        "Not After : Jan  2 03:04:05 2055 GMT",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    for reference in ["default", "root-1", answer["issuer_id"].as_str().unwrap()] {
        let issuer = desk.read(&format!("issuer/{reference}")).await.unwrap();
        assert_eq!(issuer["revocation_signature_algorithm"], "ECDSAWithSHA256");
        assert_eq!(issuer["leaf_not_after_behavior"], "err");
        assert_eq!(issuer["key_id"], answer["key_id"]);
    }
    assert!(desk.read("issuer/other").await.is_err());
}

#[tokio::test]
async fn bad_root_requests_get_vaults_words() {
    let desk = Desk::new(&[("ca", P256)]);
    for (body, expected) in [
        (json!({"common_name": "x"}), "missing argument managed_key_name or managed_key_id"),
        (
            json!({"common_name": "x", "managed_key_name": "ca", "managed_key_id": "ca"}),
            "only one argument of managed_key_name or managed_key_id should be specified",
        ),
        (
            json!({"common_name": "x", "managed_key_name": "ca", "key_type": "rsa"}),
            "key_type nor key_bits arguments can be set in this mode",
        ),
        (json!({"common_name": "x", "managed_key_name": "none"}), "no managed key found with name"),
        (json!({"managed_key_name": "ca"}), "common_name field is required"),
        (json!({"common_name": "x", "managed_key_name": "ca", "max_path_length": 300}), "max_path_length"),
        (json!({"common_name": "x", "managed_key_name": "ca", "key_usage": "KeyAgreement"}), "key_usage"),
        (json!({"common_name": "x", "managed_key_name": "ca", "issuer_name": "default"}), "issuer_name"),
        (json!({"common_name": "x", "managed_key_name": "ca", "ip_sans": "nowhere"}), "not a valid IP address"),
        (json!({"common_name": "x", "managed_key_name": "ca", "format": "jks"}), "format"),
    ] {
        let refused = message(desk.write("root/generate/kms", body.clone()).await);
        assert!(refused.contains(expected), "{body}: {refused}");
    }
    // Nothing came of any of them.
    assert_eq!(desk.raw("ca/pem").await.1, b"");
    assert_eq!(desk.raw("crl").await.1, b"");
    assert!(message(desk.read("cert/ca").await).contains("not found"));
}

#[tokio::test]
async fn a_device_that_signs_wrongly_makes_no_root() {
    let desk = Desk::new(&[("ca", P256)]);
    desk.keys.get("ca").record.lies.store(true, Ordering::Relaxed);
    let refused = desk.write("root/generate/kms", root("ca")).await.unwrap_err();
    assert!(matches!(refused, Fault::DeviceError { .. }), "{refused}");
    assert_eq!(desk.raw("ca").await.1, b"");
    desk.keys.get("ca").record.lies.store(false, Ordering::Relaxed);
    assert!(desk.write("root/generate/kms", root("ca")).await.is_ok());
}

#[tokio::test]
async fn what_a_root_is_survives_a_restart() {
    let desk = Desk::with_root().await;
    desk.write("config/urls", json!({"issuing_certificates": "http://ca.example/ca.der"})).await.unwrap();
    let (before, role) = (desk.read("issuer/default").await.unwrap(), desk.read("roles/any").await.unwrap());
    let after = desk.restarted();
    assert_eq!(after.read("issuer/default").await.unwrap(), before);
    assert_eq!(after.read("roles/any").await.unwrap(), role);
    assert_eq!(after.raw("crl").await, desk.raw("crl").await);
    let (leaf, _) = after.leaf("a.example").await;
    after.verify(&leaf).await.unwrap();
}

#[tokio::test]
async fn the_root_and_its_crl_are_published() {
    let desk = Desk::with_root().await;
    assert_eq!(desk.published("ca.der"), desk.raw("ca").await.1);
    assert_eq!(desk.published("crl.der"), desk.raw("crl").await.1);
    assert!(desk.published("ca.pem").starts_with(b"-----BEGIN CERTIFICATE-----\n"));
    assert!(desk.published("crl.pem").ends_with(b"-----END X509 CRL-----\n"));
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_stops_nothing() {
    let desk = Desk::new(&[("ca", P256)]);
    desk.put("published", "a file where a folder should be");
    assert!(desk.write("root/generate/kms", root("ca")).await.is_ok());
    assert!(!exists(&desk.folder.path().join("published/root")));
    // Once it can be written, the next look at the clock catches up.
    std::fs::remove_file(desk.folder.path().join("published")).unwrap();
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    assert_eq!(desk.published("ca.der"), desk.raw("ca").await.1);
    assert_eq!(desk.published("crl.der"), desk.raw("crl").await.1);
}

#[tokio::test]
async fn removing_a_mount_removes_every_record() {
    let desk = Desk::with_root().await;
    let (_, serial) = desk.leaf("a.example").await;
    desk.write("revoke", json!({ "serial_number": serial })).await.unwrap();
    let writes = desk.pki.removal(&desk.mount).unwrap();
    desk.store.commit(writes).await.unwrap();
    assert_eq!(desk.store.collections(&Namespace::root(), "pki/", 10).unwrap(), Vec::<String>::new());
}

#[test]
fn a_managed_key_signs_where_it_may_and_stays_while_it_is_needed() {
    actix::System::new().block_on(async {
        let (token, store) = (SoftwareToken::default(), open_store());
        token.make("ca", &[1], P256);
        let keys = ManagedKeys::new(store.clone(), token.supervisor(), &Limits::default());
        keys.load(&[Namespace::root()], no_mounts()).unwrap();
        let key = json!({"library": "hsm", "token_label": "t", "key_label": "ca", "mechanism": "0x1041"});
        keys.write(&Namespace::root(), "pkcs11", "ca", key.as_object().unwrap()).await.unwrap();

        let source = KeySource::Managed(keys.clone());
        let limits = Limits::default();
        let shared = (CpuPool::new(1), BatchRooms::new(&limits).of(&Namespace::root()));
        let pki = Pki::load(&mount(), source, store.clone(), Telemetry::new(), shared, None, &limits).unwrap();
        let ring = Arc::new(Keyring::new(&[]));
        let mut desk = Desk {
            pki,
            mount: Arc::new(mount()),
            keys: ring,
            store,
            folder: tempfile::tempdir().unwrap(),
            readings: Default::default(),
        };
        // The mount does not list the key.
        assert!(desk.write("root/generate/kms", root("ca")).await.is_err());
        let mut allowed = mount();
        allowed.config.allowed_managed_keys = vec!["ca".into()];
        desk.mount = Arc::new(allowed);
        desk.write("root/generate/kms", root("ca")).await.unwrap();
        desk.write("roles/any", json!({"allow_any_name": true, "key_type": "any"})).await.unwrap();
        let (leaf, _) = desk.leaf("a.example").await;
        desk.verify(&leaf).await.unwrap();

        // The issuer holds the key until its mount is gone.
        let mounts = || vec![Arc::new(mount())];
        let refused = keys.delete(&Namespace::root(), "pkcs11", "ca", mounts).await.unwrap_err().to_string();
        assert!(refused.contains("key "), "{refused}");
        desk.store.commit(desk.pki.removal(&desk.mount).unwrap()).await.unwrap();
        keys.delete(&Namespace::root(), "pkcs11", "ca", mounts).await.unwrap();
    });
}
