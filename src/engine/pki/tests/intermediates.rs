//! Stories of CAs below other CAs.

use super::*;

#[tokio::test]
async fn requests_of_every_kind_of_key_are_good_and_a_signed_one_issues() {
    for (kind, more) in [
        (P256, json!({"add_basic_constraints": true, "key_usage": "CertSign,CRLSign"})),
        (KeyKind::Ec(Curve::P384), json!({})),
        (KeyKind::Rsa { bits: 2048 }, json!({"signature_bits": 384})),
        (KeyKind::Rsa { bits: 2048 }, json!({"use_pss": true})),
        (KeyKind::Ed25519, json!({})),
    ] {
        let desk = Desk::new(&[("sub", kind)]);
        let mut body = json!({"common_name": "Sub CA", "organization": "Corp", "managed_key_name": "sub"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = desk.write("intermediate/generate/kms", body).await.unwrap();
        let (csr, key) = (text(&answer["csr"]), text(&answer["key_id"]));
        // No issuer yet, but a key, which is the default.
        assert!(desk.send(Verb::List, "issuers", json!({})).await.is_err());
        assert_eq!(desk.read("config/keys").await.unwrap()["default"], json!(key));
        desk.put("sub.csr", &csr);
        let shown = desk.openssl(&["req", "-in", "sub.csr", "-verify", "-noout", "-text"]);
        assert!(shown.contains("O = Corp, CN = Sub CA"), "{shown}");
        if more.get("add_basic_constraints").is_some() {
            assert!(shown.contains("CA:TRUE") && shown.contains("Certificate Sign, CRL Sign"), "{shown}");
        }

        let (root, below) = desk.openssl_signs("sub.csr");
        let imported = desk.write("intermediate/set-signed", json!({"certificate": format!("{below}\n{root}")})).await;
        let imported = imported.unwrap();
        let id = text(&imported["imported_issuers"][0]);
        assert_eq!(imported["mapping"][&id], json!(key));
        // The one with a key is the default, wherever it stands in the bundle.
        assert_eq!(desk.read("config/issuers").await.unwrap()["default"], json!(id));
        desk.write("roles/any", json!({"allow_any_name": true, "key_type": "any"})).await.unwrap();
        let csr = desk.p256_csr("/CN=a.example", "");
        let answer = desk.write("sign/any", json!({"csr": csr, "ttl": "1h"})).await.unwrap();
        assert_eq!(answer["ca_chain"], json!([below.trim(), root.trim()]), "{answer}");
        assert_eq!(answer["issuing_ca"], json!(below.trim()));
        desk.verify_chain(&root, &below, &text(&answer["certificate"]), &[]).unwrap();
        let bare =
            desk.write("sign/any", json!({"csr": csr, "ttl": "1h", "remove_roots_from_chain": true})).await.unwrap();
        assert_eq!(bare["ca_chain"], json!([below.trim()]));
        let bundle = json!({"csr": csr, "ttl": "1h", "format": "pem_bundle"});
        let bundle = text(&desk.write("sign/any", bundle).await.unwrap()["certificate"]);
        assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 3);
        let whole = String::from_utf8(desk.raw("ca_chain").await.1).unwrap();
        assert_eq!(whole, format!("{}\n{}", below.trim(), root.trim()));
        assert_eq!(desk.read("cert/ca_chain").await.unwrap()["ca_chain"], json!(whole));
        // Its CRL is its own.
        desk.put("crl.pem", &String::from_utf8(desk.raw("crl/pem").await.1).unwrap());
        let checked = desk.openssl(&["crl", "-in", "crl.pem", "-CAfile", "below.pem", "-noout", "-text"]);
        assert!(checked.contains("CN = Sub CA"), "{checked}");
    }
}

#[tokio::test]
async fn a_key_of_the_mount_makes_requests_and_roots_again() {
    let desk = Desk::with_root().await;
    let key = text(&desk.read("config/keys").await.unwrap()["default"]);
    desk.write("key/default", json!({"key_name": "hsm"})).await.unwrap();
    for (path, body) in [
        ("intermediate/cross-sign", json!({"common_name": "Test Root", "key_ref": "hsm"})),
        ("issuers/generate/intermediate/existing", json!({"common_name": "Other"})),
    ] {
        let answer = desk.write(path, body).await.unwrap();
        assert_eq!(answer["key_id"], json!(key));
        desk.put("x.csr", &text(&answer["csr"]));
        desk.openssl(&["req", "-in", "x.csr", "-verify", "-noout"]);
    }
    let again = json!({"common_name": "Second Root", "key_ref": key, "issuer_name": "second", "ttl": "1h"});
    let again = desk.write("issuers/generate/root/existing", again).await.unwrap();
    assert_eq!((&again["key_id"], &again["key_name"]), (&json!(key), &json!("hsm")));
    for (kind, expected) in [("internal", "no token"), ("exported", "holds no long-lived private keys")] {
        for path in ["root/generate", "intermediate/generate", "root/rotate", "keys/generate"] {
            let refused = desk.write(&format!("{path}/{kind}"), json!({"common_name": "x"})).await.unwrap_err();
            assert!(matches!(&refused, Fault::InvalidRequest { reason } if reason.contains(expected)), "{refused}");
        }
    }
    for path in ["root/generate/odd", "keys/generate/existing", "intermediate/generate/odd"] {
        assert!(matches!(desk.write(path, json!({"common_name": "x"})).await, Err(Fault::NotFound { .. })), "{path}");
    }
}
