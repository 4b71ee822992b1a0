//! Stories of leaves whose keys are made here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

#[tokio::test]
async fn keys_of_every_kind_are_handed_out_with_their_certificates() {
    let desk = Desk::with_root().await;
    for (kind, bits, label) in [
        ("rsa", 2048, "RSA PRIVATE KEY"),
        ("ec", 256, "EC PRIVATE KEY"),
        ("ec", 384, "EC PRIVATE KEY"),
        ("ec", 521, "EC PRIVATE KEY"),
        ("ed25519", 0, "PRIVATE KEY"),
    ] {
        let role =
            json!({"allowed_domains": "example.com", "allow_subdomains": true, "key_type": kind, "key_bits": bits});
        desk.write("roles/web", role).await.unwrap();
        let asked = |format: &str, key_format: &str| {
            json!({"common_name": "www.example.com", "alt_names": "b.example.com", "ip_sans": "10.0.0.1", "ttl": "1h",
                "format": format, "private_key_format": key_format})
        };
        for (key_format, label) in [("der", label), ("pem", label), ("pkcs8", "PRIVATE KEY")] {
            let issued = desk.write("issue/web", asked("pem", key_format)).await.unwrap();
            assert_eq!((&issued["private_key_type"], &issued["warnings"]), (&json!(kind), &json!([])));
            let key = text(&issued["private_key"]);
            assert!(key.starts_with(&format!("-----BEGIN {label}-----\n")), "{kind} {key_format}: {key}");
            desk.put("key.pem", &key);
            desk.verify(&text(&issued["certificate"])).await.unwrap();
            let certified = desk.openssl(&["x509", "-in", "leaf.pem", "-noout", "-pubkey"]);
            assert_eq!(certified, desk.openssl(&["pkey", "-in", "key.pem", "-pubout"]), "{kind} {bits}");
            let shown = desk.text(&text(&issued["certificate"]));
            assert!(shown.contains("DNS:b.example.com, DNS:www.example.com, IP Address:10.0.0.1"), "{shown}");
        }
        let issued = desk.write("issuer/default/issue/web", asked("der", "pkcs8")).await.unwrap();
        std::fs::write(desk.folder.path().join("key.der"), STANDARD.decode(text(&issued["private_key"])).unwrap())
            .unwrap();
        desk.openssl(&["pkey", "-in", "key.der", "-inform", "DER", "-noout"]);
        let bundle = desk.write("issue/web", asked("pem_bundle", "der")).await.unwrap();
        let whole = text(&bundle["certificate"]);
        assert!(whole.starts_with(&text(&bundle["private_key"])));
        assert_eq!(whole.matches("BEGIN CERTIFICATE").count(), 2);
    }
}

#[tokio::test]
async fn a_request_is_judged_before_a_key_is_made() {
    let desk = Desk::with_root().await;
    let role = json!({"allowed_domains": "example.com", "allow_subdomains": true, "key_bits": 8192, "max_ttl": "720h"});
    desk.write("roles/slow", role).await.unwrap();
    for (path, body, expected) in [
        (
            "issue/any",
            json!({"common_name": "a.example"}),
            "role key type \"any\" not allowed for issuing certificates",
        ),
        ("issue/none", json!({"common_name": "a.example"}), "unknown role: none"),
        ("issue/slow", json!({"common_name": "evil.org"}), "common name evil.org not allowed by this role"),
        ("issue/slow", json!({}), "the common_name field is required"),
        ("issue/slow", json!({"common_name": "a.example.com", "private_key_format": "jks"}), "private_key_format"),
        ("issuer/none/issue/slow", json!({"common_name": "a.example.com"}), "for reference: none"),
    ] {
        let refused = message(desk.write(path, body).await);
        assert!(refused.contains(expected), "{path}: {refused}");
    }
}

#[tokio::test]
async fn nothing_of_a_private_key_is_kept() {
    let desk = Desk::with_root().await;
    desk.write("roles/web", json!({"allow_any_name": true, "key_type": "ec"})).await.unwrap();
    let issued = desk.write("issue/web", json!({"common_name": "a.example", "format": "der"})).await.unwrap();
    let key = STANDARD.decode(text(&issued["private_key"])).unwrap();
    // The 32 bytes of the secret number, after the ECPrivateKey's header and version.
    let secret = &key[7..39];
    let records = super::super::records::Records::new(&desk.mount);
    for kind in ["config", "issuers", "keys", "roles", "certs", "revoked", "crls"] {
        let stored = desk.store.scan(records.namespace(), &records.collection(kind), None, 100).unwrap();
        for (name, record) in stored {
            assert!(!record.value.windows(secret.len()).any(|window| window == secret), "{kind} {name}");
        }
    }
    assert!(desk.read(&format!("cert/{}", text(&issued["serial_number"]))).await.unwrap().get("private_key").is_none());
}
