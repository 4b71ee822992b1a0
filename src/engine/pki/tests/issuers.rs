//! Stories of several issuers and keys on one mount.

use super::*;

/// A desk with two roots on keys of their own: `one`, the default, and `two`.
async fn with_two_roots() -> Desk {
    let desk = Desk::new(&[("ca1", P256), ("ca2", KeyKind::Rsa { bits: 2048 })]);
    for (name, key) in [("one", "ca1"), ("two", "ca2")] {
        let body = json!({"common_name": format!("Root {name}"), "managed_key_name": key, "ttl": "8760h",
            "issuer_name": name, "key_name": format!("key-{name}")});
        desk.write("root/generate/kms", body).await.unwrap();
    }
    desk.write("roles/any", json!({"allow_any_name": true, "key_type": "any", "ttl": "1h"})).await.unwrap();
    desk
}

impl Desk {
    async fn list(&self, path: &str) -> Value {
        data(self.send(Verb::List, path, json!({})).await.unwrap())
    }

    /// What openssl says of a certificate's issuer.
    fn issuer_of(&self, certificate: &Value) -> String {
        self.put("shown.pem", &text(certificate));
        self.openssl(&["x509", "-in", "shown.pem", "-noout", "-issuer"]).trim().to_owned()
    }
}

#[tokio::test]
async fn issuers_and_keys_are_listed_and_read_by_id_and_name() {
    let desk = with_two_roots().await;
    let listed = desk.list("issuers").await;
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    let two = desk.read("issuer/two").await.unwrap();
    let id = text(&two["issuer_id"]);
    let info = &listed["key_info"][&id];
    assert_eq!((&info["issuer_name"], &info["is_default"]), (&json!("two"), &json!(false)));
    assert_eq!(info["key_id"], two["key_id"]);
    assert!(info["serial_number"].as_str().unwrap().contains(':'));
    assert_eq!(desk.read(&format!("issuer/{id}")).await.unwrap(), two);
    assert_eq!(desk.read("issuer/default").await.unwrap()["issuer_name"], "one");
    let keys = desk.list("keys").await;
    assert_eq!(keys["key_info"][text(&two["key_id"])]["key_name"], "key-two");
    let key = desk.read("key/key-two").await.unwrap();
    assert_eq!((&key["key_type"], &key["managed_key_name"]), (&json!("rsa"), &json!("ca2")));
    // The certificate in each form.
    assert_eq!(desk.read("issuer/two/json").await.unwrap()["certificate"], two["certificate"]);
    let (kind, pem) = desk.raw("issuer/two/pem").await;
    assert_eq!(
        (kind, String::from_utf8(pem).unwrap() + "\n"),
        ("application/pem-certificate-chain", text(&two["certificate"]))
    );
    let (kind, der) = desk.raw("issuer/two/der").await;
    assert_eq!(kind, "application/pkix-cert");
    assert_ne!(der, desk.raw("ca").await.1);
    let serial = text(&info["serial_number"]);
    assert_eq!(desk.raw(&format!("cert/{serial}/raw")).await, ("application/pkix-cert", der));
    assert_eq!(desk.raw(&format!("cert/{serial}/raw/pem")).await.1, desk.raw("issuer/two/pem").await.1);
    for path in ["issuer/none", "key/none", "issuer/none/json", "issuer/none/crl"] {
        let refused = message(desk.read(path).await);
        assert!(refused.contains("for reference: none"), "{path}: {refused}");
    }
}

#[tokio::test]
async fn a_role_and_a_path_say_who_signs() {
    let desk = with_two_roots().await;
    let written =
        desk.write("roles/second", json!({"allow_any_name": true, "key_type": "any", "issuer_ref": "two"})).await;
    assert_eq!(written.unwrap()["warnings"], json!([]));
    let none = desk.write("roles/none", json!({"allow_any_name": true, "key_type": "any", "issuer_ref": "none"})).await;
    assert!(none.unwrap()["warnings"].to_string().contains("no issuing certificate currently has that name"));
    let csr = desk.p256_csr("/CN=a.example", "");
    for (path, expected) in [
        ("sign/any", "issuer=CN = Root one"),
        ("sign/second", "issuer=CN = Root two"),
        ("issuer/two/sign/any", "issuer=CN = Root two"),
        ("issuer/default/sign/second", "issuer=CN = Root one"),
    ] {
        let answer = desk.write(path, json!({"csr": csr, "ttl": "1h"})).await.unwrap();
        assert_eq!(desk.issuer_of(&answer["certificate"]), expected, "{path}");
        assert_eq!(answer["ca_chain"], json!([answer["issuing_ca"]]));
        desk.put("ca.pem", &text(&answer["issuing_ca"]));
        desk.put("leaf.pem", &text(&answer["certificate"]));
        desk.openssl(&["verify", "-x509_strict", "-CAfile", "ca.pem", "leaf.pem"]);
    }
    let refused = message(desk.write("sign/none", json!({ "csr": csr })).await);
    assert!(refused.contains("unable to find PKI issuer for reference: none"), "{refused}");
    let elsewhere = message(desk.write("sign/any", json!({"csr": csr, "issuer_ref": "two"})).await);
    assert!(elsewhere.contains("issuer_ref"), "{elsewhere}");
}

#[tokio::test]
async fn an_update_replaces_and_a_patch_changes_a_part() {
    let desk = with_two_roots().await;
    let body = json!({"issuer_name": "zwei", "leaf_not_after_behavior": "truncate", "usage": "issuing-certificates",
        "issuing_certificates": "http://two.example/ca", "revocation_signature_algorithm": "sha384withrsa"});
    let written = desk.write("issuer/two", body).await.unwrap();
    assert_eq!(written["usage"], "read-only,issuing-certificates");
    assert_eq!(written["revocation_signature_algorithm"], "SHA384WithRSA");
    assert!(desk.read("issuer/two").await.is_err());
    let patch = desk.send(Verb::Patch, "issuer/zwei", json!({"usage": "crl-signing,issuing-certificates"})).await;
    let patched = data(patch.unwrap());
    assert_eq!(patched["usage"], "read-only,issuing-certificates,crl-signing");
    assert_eq!((&patched["issuer_name"], &patched["leaf_not_after_behavior"]), (&json!("zwei"), &json!("truncate")));
    assert_eq!(patched["issuing_certificates"], json!(["http://two.example/ca"]));
    let replaced = desk.write("issuer/zwei", json!({})).await.unwrap();
    assert_eq!((&replaced["issuer_name"], &replaced["leaf_not_after_behavior"]), (&json!(""), &json!("err")));
    assert_eq!(replaced["issuing_certificates"], json!([]));
    for (body, expected) in [
        (json!({"issuer_name": "default"}), "reserved word"),
        (json!({"issuer_name": "two words"}), "characters other than"),
        (json!({"leaf_not_after_behavior": "explode"}), "leaf_not_after_behavior"),
        (json!({"usage": "everything"}), "unknown issuer usage name"),
        (json!({"revocation_signature_algorithm": "SHA256WithRSA"}), "signature algorithm"),
        (json!({"manual_chain": "none"}), "for reference: none"),
        (json!({"manual_chain": text(&replaced["issuer_id"])}), "first link must be the issuer itself"),
        (json!({"ocsp_servers": "nowhere"}), "invalid URL"),
        (json!({"disable_name_checks": true}), "not supported here"),
    ] {
        let refused = message(desk.write("issuer/one", body.clone()).await);
        assert!(refused.contains(expected), "{body}: {refused}");
    }
    desk.write(
        "issuer/one",
        json!({"issuer_name": "one", "manual_chain": format!("one,{}", text(&replaced["issuer_id"]))}),
    )
    .await
    .unwrap();
    let chain = desk.read("issuer/one").await.unwrap();
    assert_eq!((chain["ca_chain"].as_array().unwrap().len(), chain["manual_chain"].as_array().unwrap().len()), (2, 2));
    let taken =
        message(desk.write(&format!("issuer/{}", text(&replaced["issuer_id"])), json!({"issuer_name": "one"})).await);
    assert!(taken.contains("issuer name already in use"), "{taken}");
}

#[tokio::test]
async fn usages_are_enforced() {
    let desk = with_two_roots().await;
    let csr = desk.p256_csr("/CN=a.example", "");
    let signed = desk.write("issuer/two/sign/any", json!({ "csr": csr })).await.unwrap();
    desk.send(Verb::Patch, "issuer/two", json!({"usage": "read-only"})).await.unwrap();
    let refused = message(desk.write("issuer/two/sign/any", json!({ "csr": csr })).await);
    assert!(refused.contains("requested usage issuing-certificates for issuer"), "{refused}");
    let before = desk.raw("issuer/two/crl/der").await;
    let answer = desk.write("revoke", json!({"serial_number": signed["serial_number"]})).await.unwrap();
    assert!(answer["warnings"].to_string().contains("crl-signing"), "{answer}");
    assert_eq!(desk.raw("issuer/two/crl/der").await, before);
    // It is put on its CRL as soon as there may be one.
    desk.send(Verb::Patch, "issuer/two", json!({"usage": "read-only,crl-signing"})).await.unwrap();
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    assert_ne!(desk.raw("issuer/two/crl/der").await, before);
}

#[tokio::test]
async fn every_issuer_has_a_crl_of_its_own() {
    let desk = with_two_roots().await;
    let csr = desk.p256_csr("/CN=a.example", "");
    let one = desk.write("issuer/one/sign/any", json!({ "csr": csr })).await.unwrap();
    let two = desk.write("issuer/two/sign/any", json!({ "csr": csr })).await.unwrap();
    let before = desk.raw("issuer/one/crl/der").await;
    desk.write("revoke", json!({"serial_number": two["serial_number"]})).await.unwrap();
    assert_eq!(desk.raw("issuer/one/crl/der").await, before);
    assert_eq!(desk.raw("crl").await, before);
    let shown = |reference: &'static str| {
        let desk = &desk;
        async move {
            desk.put("crl.pem", &String::from_utf8(desk.raw(&format!("issuer/{reference}/crl/pem")).await.1).unwrap());
            desk.put("ca.pem", &String::from_utf8(desk.raw(&format!("issuer/{reference}/pem")).await.1).unwrap());
            let verified = desk.openssl(&["crl", "-in", "crl.pem", "-CAfile", "ca.pem", "-noout", "-text"]);
            desk.openssl(&["crl", "-in", "crl.pem", "-CAfile", "ca.pem", "-noout"]);
            verified
        }
    };
    let number = |answer: &Value| text(&answer["serial_number"]).replace(':', "").to_uppercase();
    assert!(shown("two").await.contains(&number(&two)) && !shown("one").await.contains(&number(&two)));
    assert_eq!(
        desk.read("issuer/two/crl").await.unwrap()["crl"].as_str().unwrap().as_bytes(),
        desk.raw("issuer/two/crl/pem").await.1
    );
    desk.write("revoke", json!({"certificate": one["certificate"]})).await.unwrap();
    assert!(shown("one").await.contains(&number(&one)));
    let read = desk.read(&format!("cert/{}", text(&two["serial_number"]))).await.unwrap();
    assert_eq!(read["issuer_id"], desk.read("issuer/two").await.unwrap()["issuer_id"]);

    // All of it is there again after a restart.
    let after = desk.restarted();
    for path in ["issuer/one/crl/der", "issuer/two/crl/der", "crl"] {
        assert_eq!(after.raw(path).await, desk.raw(path).await, "{path}");
    }
}

#[tokio::test]
async fn certificates_of_one_signer_share_a_crl() {
    let desk = Desk::with_root().await;
    let renewed = json!({"common_name": "Test Root", "key_ref": "default", "issuer_name": "renewed", "ttl": "87600h"});
    desk.write("root/rotate/existing", renewed).await.unwrap();
    let (_, serial) = desk.leaf("a.example").await;
    desk.write("revoke", json!({ "serial_number": serial })).await.unwrap();
    assert_eq!(desk.raw("issuer/renewed/crl/der").await, desk.raw("issuer/default/crl/der").await);
    assert!(desk.crl().crl.load().as_ref().unwrap().entries == 1);
}

#[tokio::test]
async fn defaults_are_chosen_followed_and_replaced() {
    let desk = with_two_roots().await;
    let two = desk.read("issuer/two").await.unwrap();
    let set =
        desk.write("config/issuers", json!({"default": "two", "default_follows_latest_issuer": true})).await.unwrap();
    assert_eq!((&set["default"], &set["default_follows_latest_issuer"]), (&two["issuer_id"], &json!(true)));
    assert_eq!(desk.published("ca.der"), desk.raw("issuer/two/der").await.1);
    desk.write("root/generate/kms", json!({"common_name": "Three", "managed_key_name": "ca1", "issuer_name": "three"}))
        .await
        .unwrap();
    assert_eq!(desk.read("issuer/default").await.unwrap()["issuer_name"], "three");
    desk.write("config/issuers", json!({"default": "one"})).await.unwrap();
    let rotated =
        desk.write("root/rotate/kms", json!({"common_name": "Four", "managed_key_name": "ca1"})).await.unwrap();
    assert_eq!(rotated["issuer_name"], "next");
    assert_eq!(desk.read("issuer/default").await.unwrap()["issuer_name"], "one");
    let replaced = desk.write("root/replace", json!({})).await.unwrap();
    assert_eq!(replaced["default"], rotated["issuer_id"]);
    for (path, body) in [
        ("config/issuers", json!({})),
        ("config/issuers", json!({"default": "default"})),
        ("config/keys", json!({"default": ""})),
    ] {
        assert!(message(desk.write(path, body).await).contains("must be non-empty and can't be 'default'"));
    }
    desk.write("config/keys", json!({"default": "key-two"})).await.unwrap();
    assert_eq!(desk.read("config/keys").await.unwrap()["default"], two["key_id"]);
    let after = desk.restarted();
    assert_eq!(after.read("config/issuers").await.unwrap()["default"], rotated["issuer_id"]);
}

#[tokio::test]
async fn a_key_in_use_stays_and_all_go_together() {
    let desk = with_two_roots().await;
    let refused = message(desk.send(Verb::Delete, "key/key-two", json!({})).await);
    assert!(refused.contains("Key in Use by Issuer: "), "{refused}");
    assert_eq!(desk.send(Verb::Delete, "issuer/two", json!({})).await.unwrap(), Response::Empty);
    assert_eq!(desk.send(Verb::Delete, "key/key-two", json!({})).await.unwrap(), Response::Empty);
    let gone = data(desk.send(Verb::Delete, "root", json!({})).await.unwrap());
    assert!(gone["warnings"].to_string().contains("Deleted 1 issuers and 1 keys"), "{gone}");
    assert!(desk.send(Verb::List, "issuers", json!({})).await.is_err());
    assert!(desk.send(Verb::List, "keys", json!({})).await.is_err());
    assert_eq!(desk.raw("ca_chain").await.1, b"");
    // A new one begins as the first did.
    desk.write("keys/generate/kms", json!({"managed_key_id": "ca2", "key_name": "again"})).await.unwrap();
    let again = desk.write("keys/generate/kms", json!({"managed_key_name": "ca2", "key_name": "other"})).await.unwrap();
    assert_eq!(again["key_name"], "again");
    desk.write("root/generate/existing", json!({"common_name": "Anew"})).await.unwrap();
    assert_eq!(desk.restarted().raw("ca").await, desk.raw("ca").await);
}

#[tokio::test]
async fn names_of_issuers_and_keys_are_unique_before_the_token_is_asked() {
    let desk = with_two_roots().await;
    let signatures = || desk.keys.get("ca1").record.signatures.load(std::sync::atomic::Ordering::Relaxed);
    let before = signatures();
    let taken = json!({"common_name": "x", "managed_key_name": "ca1", "issuer_name": "two"});
    assert!(message(desk.write("root/generate/kms", taken).await).contains("issuer name already in use"));
    assert_eq!(signatures(), before);
    assert!(
        message(desk.write("key/key-one", json!({"key_name": "key-two"})).await).contains("key name already in use")
    );
}

#[tokio::test]
async fn urls_are_the_issuers_own_or_the_mounts_with_templates_filled_in() {
    let desk = with_two_roots().await;
    let templates = json!({"enable_templating": true, "issuing_certificates": "{{cluster_aia_path}}/issuer/{{issuer_id}}/der",
        "delta_crl_distribution_points": "{{cluster_path}}/crl/delta"});
    desk.write("config/urls", templates).await.unwrap();
    let csr = desk.p256_csr("/CN=a.example", "");
    let refused = message(desk.write("sign/any", json!({ "csr": csr })).await);
    assert!(refused.contains("config/cluster"), "{refused}");
    let cluster = json!({"path": "https://ca.example/v1/pki", "aia_path": "http://cdn.example/pki"});
    assert_eq!(desk.write("config/cluster", cluster).await.unwrap()["path"], "https://ca.example/v1/pki");
    assert_eq!(desk.read("config/cluster").await.unwrap()["aia_path"], "http://cdn.example/pki");
    let shown = desk.text(&text(&desk.write("sign/any", json!({ "csr": csr })).await.unwrap()["certificate"]));
    let id = text(&desk.read("issuer/one").await.unwrap()["issuer_id"]);
    assert!(shown.contains(&format!("CA Issuers - URI:http://cdn.example/pki/issuer/{id}/der")), "{shown}");
    assert!(
        shown.contains("X509v3 Freshest CRL") && shown.contains("URI:https://ca.example/v1/pki/crl/delta"),
        "{shown}"
    );
    // An issuer's own URLs stand in place of all of the mount's.
    let own = json!({"ocsp_servers": "http://ocsp.two.example", "crl_distribution_points": "http://two.example/{{issuer_id}}",
        "enable_aia_url_templating": true, "issuer_name": "two"});
    desk.write("issuer/two", own).await.unwrap();
    let shown =
        desk.text(&text(&desk.write("issuer/two/sign/any", json!({ "csr": csr })).await.unwrap()["certificate"]));
    let id = text(&desk.read("issuer/two").await.unwrap()["issuer_id"]);
    assert!(shown.contains("OCSP - URI:http://ocsp.two.example") && !shown.contains("CA Issuers"), "{shown}");
    assert!(shown.contains(&format!("URI:http://two.example/{id}")), "{shown}");
}

#[tokio::test]
async fn what_outlives_its_issuer_is_treated_as_the_issuer_says() {
    let desk = with_two_roots().await;
    desk.write("roles/far", json!({"allow_any_name": true, "key_type": "any", "not_after": "2055-01-01T00:00:00Z"}))
        .await
        .unwrap();
    let csr = desk.p256_csr("/CN=a.example", "");
    let sign = async || desk.write("issuer/two/sign/far", json!({ "csr": csr })).await;
    assert!(message(sign().await).contains("beyond the expiration of the CA certificate"));
    desk.send(Verb::Patch, "issuer/two", json!({"leaf_not_after_behavior": "always_enforce_err"})).await.unwrap();
    assert!(sign().await.is_err());
    desk.send(Verb::Patch, "issuer/two", json!({"leaf_not_after_behavior": "permit"})).await.unwrap();
    assert_eq!(sign().await.unwrap()["expiration"], json!(2_682_374_400_u64));
    desk.send(Verb::Patch, "issuer/two", json!({"leaf_not_after_behavior": "truncate"})).await.unwrap();
    let cut = sign().await.unwrap();
    assert!(cut["warnings"].to_string().contains("was cut to"), "{cut}");
    desk.put("leaf.pem", &text(&cut["certificate"]));
    desk.put("ca.pem", &text(&cut["issuing_ca"]));
    let end = |name: &str| desk.openssl(&["x509", "-in", name, "-noout", "-enddate"]);
    assert_eq!(end("leaf.pem"), end("ca.pem"));
}

#[tokio::test]
async fn a_revoked_issuer_issues_no_more_and_still_revokes() {
    let desk = with_two_roots().await;
    let csr = desk.p256_csr("/CN=a.example", "");
    let signed = desk.write("issuer/two/sign/any", json!({ "csr": csr })).await.unwrap();
    let revoked = desk.write("issuer/two/revoke", json!({})).await.unwrap();
    assert_eq!(revoked["revoked"], json!(true));
    assert!(revoked["revocation_time"].as_u64().unwrap() > 0);
    assert_eq!(
        desk.write("issuer/two/revoke", json!({})).await.unwrap()["revocation_time"],
        revoked["revocation_time"]
    );
    assert!(message(desk.write("issuer/two/sign/any", json!({ "csr": csr })).await).contains("is revoked"));
    let answer = desk.write("revoke", json!({"serial_number": signed["serial_number"]})).await.unwrap();
    assert_eq!(answer["warnings"], json!([]));
    assert_eq!(desk.restarted().read("issuer/two").await.unwrap()["revoked"], json!(true));
}
