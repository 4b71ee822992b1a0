//! Stories of certificates brought in from elsewhere.

use super::*;

#[tokio::test]
async fn a_chain_is_imported_once_and_issues_nothing_without_its_key() {
    let desk = Desk::new(&[]);
    let (root, below) = desk.openssl_chain();
    let bundle = format!("{below}\n{root}");
    let answer = desk.write("issuers/import/cert", json!({ "pem_bundle": bundle })).await.unwrap();
    assert_eq!(answer["imported_issuers"].as_array().unwrap().len(), 2);
    assert_eq!((&answer["imported_keys"], &answer["existing_issuers"]), (&json!([]), &json!([])));
    let id = text(&answer["imported_issuers"][0]);
    assert_eq!(answer["mapping"][&id], "");
    let issuer = desk.read(&format!("issuer/{id}")).await.unwrap();
    let chain: Vec<String> = issuer["ca_chain"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(chain.iter().map(|link| link.trim()).collect::<Vec<_>>(), [below.trim(), root.trim()]);
    let again = desk.write("config/ca", json!({ "pem_bundle": bundle })).await.unwrap();
    assert_eq!((&again["imported_issuers"], &again["existing_issuers"]), (&json!([]), &answer["imported_issuers"]));

    desk.write("roles/any", json!({"allow_any_name": true, "key_type": "any"})).await.unwrap();
    let csr = desk.p256_csr("/CN=a.example", "");
    let refused = message(desk.write("sign/any", json!({ "csr": csr })).await);
    assert!(refused.contains("unable to fetch corresponding key for issuer"), "{refused}");
    // Without a key there is no CRL, and nothing waits for one.
    assert_eq!(desk.raw("crl").await.1, b"");
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
}

#[tokio::test]
async fn what_is_no_ca_certificate_is_refused() {
    let desk = Desk::with_root().await;
    let (leaf, _) = desk.leaf("a.example").await;
    let key = std::fs::read_to_string(desk.folder.path().join("key.pem")).unwrap();
    let (_, root) = desk.raw("ca/pem").await;
    let root = String::from_utf8(root).unwrap();
    for (bundle, expected) in [
        (leaf, "is not of a CA"),
        (format!("{root}\n{key}"), "Keyway holds no long-lived private keys"),
        (key, "Keyway holds no long-lived private keys"),
        ("hello".into(), "expected PEM"),
        (desk.p256_csr("/CN=x", ""), "CERTIFICATE REQUEST"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".into(), "malformed"),
        (String::new(), "is empty"),
    ] {
        for path in ["issuers/import/bundle", "issuers/import/cert", "config/ca"] {
            let refused = message(desk.write(path, json!({ "pem_bundle": bundle })).await);
            assert!(refused.contains(expected), "{bundle}: {refused}");
        }
    }
    assert_eq!(data(desk.send(Verb::List, "issuers", json!({})).await.unwrap())["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_issuer_deleted_and_imported_again_has_its_key_and_its_revocations() {
    let desk = Desk::with_root().await;
    let (_, serial) = desk.leaf("bad.example").await;
    desk.write("revoke", json!({ "serial_number": serial })).await.unwrap();
    let (_, root) = desk.raw("ca/pem").await;
    let deleted = data(desk.send(Verb::Delete, "issuer/default", json!({})).await.unwrap());
    assert!(deleted["warnings"].to_string().contains("configured as the default issuer"), "{deleted}");
    assert!(message(desk.read("issuer/default").await).contains("no default issuer"));
    let refused = message(desk.write("revoke", json!({ "serial_number": serial })).await);
    assert!(refused.contains("no default issuer"), "{refused}");

    let root = String::from_utf8(root).unwrap();
    let answer = desk.write("issuers/import/bundle", json!({ "pem_bundle": root })).await.unwrap();
    let id = text(&answer["imported_issuers"][0]);
    assert_eq!(answer["mapping"][&id], desk.read("config/keys").await.unwrap()["default"]);
    assert_eq!(desk.read("config/issuers").await.unwrap()["default"], json!(id));
    assert_eq!(desk.crl().crl.load().as_ref().unwrap().entries, 1);
    let (leaf, _) = desk.leaf("a.example").await;
    desk.verify(&leaf).await.unwrap();
}

#[tokio::test]
async fn crl_numbers_never_come_twice_whatever_comes_and_goes() {
    let desk = Desk::with_root().await;
    desk.read("crl/rotate").await.unwrap();
    let before = desk.crl().crl.load().as_ref().unwrap().number;
    let (_, root) = desk.raw("ca/pem").await;
    desk.send(Verb::Delete, "issuer/default", json!({})).await.unwrap();
    let after = desk.restarted();
    let bundle = json!({"pem_bundle": String::from_utf8(root).unwrap()});
    after.write("issuers/import/cert", bundle).await.unwrap();
    assert!(after.crl().crl.load().as_ref().unwrap().number > before);
}

#[tokio::test]
async fn an_issuer_does_only_what_its_certificate_allows() {
    let desk = Desk::new(&[("sub", P256)]);
    let asked = json!({"common_name": "Sub CA", "managed_key_name": "sub"});
    let asked = desk.write("intermediate/generate/kms", asked).await.unwrap();
    desk.put("sub.csr", &text(&asked["csr"]));
    let (_, below) = desk.openssl_signs_with("sub.csr", "keyCertSign");
    let imported = desk.write("intermediate/set-signed", json!({ "certificate": below })).await.unwrap();
    let id = text(&imported["imported_issuers"][0]);
    let issuer = desk.read(&format!("issuer/{id}")).await.unwrap();
    assert_eq!(issuer["usage"], "read-only,issuing-certificates,ocsp-signing");
    let refused = message(desk.write(&format!("issuer/{id}"), json!({"usage": "crl-signing"})).await);
    assert!(refused.contains("underlying certificate lacks"), "{refused}");
    assert_eq!(desk.write(&format!("issuer/{id}"), json!({})).await.unwrap()["usage"], issuer["usage"]);
    assert!(
        message(desk.write("keys/import", json!({"pem_bundle": "x"})).await).contains("no long-lived private keys")
    );
}
