//! Stories of CAs that this mount signs, and of certificates as their requests say.

use super::*;

impl Desk {
    /// A desk whose root is called `root`, and a CA `sub` below it on the same mount.
    async fn with_two_tiers(root: Value, below: Value) -> Desk {
        let desk = Desk::new(&[("ca", P256), ("sub", P256)]);
        let mut body = json!({"common_name": "Root", "managed_key_name": "ca", "issuer_name": "root", "ttl": "80000h"});
        body.as_object_mut().unwrap().extend(root.as_object().unwrap().clone());
        desk.write("root/generate/kms", body).await.unwrap();
        let asked = json!({"common_name": "Sub", "managed_key_name": "sub"});
        let asked = desk.write("intermediate/generate/kms", asked).await.unwrap();
        let mut body = json!({"common_name": "Sub", "csr": asked["csr"], "ttl": "70000h"});
        body.as_object_mut().unwrap().extend(below.as_object().unwrap().clone());
        let signed = desk.write("issuer/root/sign-intermediate", body).await.unwrap();
        let imported = json!({"certificate": signed["certificate"]});
        let imported = desk.write("intermediate/set-signed", imported).await.unwrap();
        let id = text(&imported["imported_issuers"][0]);
        desk.write(&format!("issuer/{id}"), json!({"issuer_name": "sub"})).await.unwrap();
        let role = json!({"allow_any_name": true, "key_type": "any", "allowed_uri_sans": "*", "issuer_ref": "sub", "ttl": "1h",
            "enforce_hostnames": false});
        desk.write("roles/any", role).await.unwrap();
        desk
    }

    async fn pem(&self, issuer: &str) -> String {
        String::from_utf8(self.raw(&format!("issuer/{issuer}/pem")).await.1).unwrap()
    }
}

#[tokio::test]
async fn a_ca_below_a_root_is_what_was_asked_for_and_verifies() {
    let below = json!({"max_path_length": 0, "permitted_dns_domains": "corp.example", "skid": "0a:0b:0c", "ou": "PKI",
        "alt_names": "ca.corp.example", "key_usage": "DigitalSignature"});
    let desk = Desk::with_two_tiers(json!({}), below).await;
    let (root, sub) = (desk.pem("root").await, desk.pem("sub").await);
    let shown = desk.text(&sub);
    for expected in [
        "Issuer: CN = Root",
        "Subject: OU = PKI, CN = Sub",
        "CA:TRUE, pathlen:0",
        "Digital Signature, Certificate Sign, CRL Sign",
        "DNS:ca.corp.example",
        "Permitted:\n                  DNS:corp.example",
        "X509v3 Subject Key Identifier: \n                0A:0B:0C",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let csr = desk.p256_csr("/CN=a.corp.example", "DNS:b.corp.example");
    let leaf = desk.write("sign/any", json!({ "csr": csr })).await.unwrap();
    assert_eq!(leaf["ca_chain"], json!([sub, root]));
    // What it issues names its key as it does itself.
    assert!(desk.text(&text(&leaf["certificate"])).contains("Authority Key Identifier: \n                0A:0B:0C"));
    desk.verify_chain(&root, &sub, &text(&leaf["certificate"]), &[]).unwrap();
    // What its certificate forbids is refused, before openssl would.
    for (subject, sans, expected) in [
        ("/CN=a.corp.example", "DNS:evil.org", "DNS name \"evil.org\" is not permitted by the name constraints"),
        ("/CN=evil.org", "", "not permitted"),
    ] {
        let csr = desk.p256_csr(subject, sans);
        let refused = message(desk.write("sign/any", json!({ "csr": csr })).await);
        assert!(refused.contains(expected), "{refused}");
        let verbatim = message(desk.write("issuer/sub/sign-verbatim", json!({ "csr": csr })).await);
        assert!(verbatim.contains(expected), "{verbatim}");
    }
    let below_it = json!({"common_name": "Sub Sub", "csr": csr, "issuer_ref": "sub"});
    let refused = message(desk.write("root/sign-intermediate", below_it).await);
    assert!(refused.contains("max path length of zero"), "{refused}");

    // The root revokes the CA below it, whose certificate is on the root's CRL then.
    desk.write("issuer/sub/revoke", json!({})).await.unwrap();
    desk.put("crl.pem", &String::from_utf8(desk.raw("issuer/root/crl/pem").await.1).unwrap());
    desk.put("crl2.pem", &String::from_utf8(desk.raw("issuer/sub/crl/pem").await.1).unwrap());
    desk.openssl(&["crl", "-in", "crl.pem", "-CAfile", "root.pem", "-noout"]);
    let check = ["-crl_check_all", "-CRLfile", "crl.pem", "-CRLfile", "crl2.pem"];
    let verified = desk.verify_chain(&root, &sub, &text(&leaf["certificate"]), &check).unwrap_err();
    assert!(verified.contains("certificate revoked"), "{verified}");
}

#[tokio::test]
async fn path_lengths_shrink_from_the_root_on() {
    let desk = Desk::with_two_tiers(json!({"max_path_length": 2}), json!({})).await;
    assert!(desk.text(&desk.pem("sub").await).contains("CA:TRUE, pathlen:1"));
    let csr = desk.p256_csr("/CN=Third", "");
    let sign = async |length: i64| {
        let body = json!({"common_name": "Third", "csr": csr, "max_path_length": length, "ttl": "1h"});
        desk.write("issuer/sub/sign-intermediate", body).await
    };
    assert!(message(sign(1).await).contains("is more than issuer"));
    let third = sign(-1).await.unwrap();
    assert!(desk.text(&text(&third["certificate"])).contains("CA:TRUE, pathlen:0"));
    assert!(third["warnings"].to_string().contains("Max path length of the certificate is zero"));
}

#[tokio::test]
async fn a_ca_is_signed_as_its_request_says_where_that_is_asked() {
    let desk = Desk::with_root().await;
    let more = "basicConstraints=critical,CA:TRUE,pathlen:7\nextendedKeyUsage=serverAuth\ncertificatePolicies=1.2.3.4";
    let csr = desk.csr_with("/C=DE/O=Other/CN=Their CA", more);
    let asked = json!({"csr": csr, "common_name": "ignored", "use_csr_values": true, "ttl": "100h",
        "excluded_dns_domains": "secret.example"});
    let signed = desk.write("root/sign-intermediate", asked).await.unwrap();
    let shown = desk.text(&text(&signed["certificate"]));
    for expected in [
        "Subject: C = DE, O = Other, CN = Their CA",
        "TLS Web Server Authentication",
        "Policy: 1.2.3.4",
        "DNS:secret.example",
        "Certificate Sign, CRL Sign",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    // How many may follow is not the request's to say.
    assert!(shown.contains("CA:TRUE\n") && !shown.contains("pathlen"), "{shown}");
    desk.verify(&text(&signed["certificate"])).await.unwrap();
    assert_eq!(signed["warnings"], json!([]));
    for (body, expected) in [
        (json!({"csr": csr}), "common_name field is required"),
        (json!({"csr": csr, "common_name": "x", "skid": "zz"}), "SKID"),
        (json!({"csr": csr, "common_name": "x", "key_usage": "KeyAgreement"}), "key_usage"),
        (json!({"csr": csr, "common_name": "x", "issuer_ref": "none"}), "for reference: none"),
        (json!({"common_name": "x"}), "\"csr\" is empty"),
    ] {
        let refused = message(desk.write("root/sign-intermediate", body.clone()).await);
        assert!(refused.contains(expected), "{body}: {refused}");
    }
}

#[tokio::test]
async fn a_ca_that_outlives_its_issuer_is_cut_unless_that_is_to_be_refused() {
    let desk = Desk::with_root().await;
    let csr = desk.p256_csr("/CN=Sub", "");
    let body = |more: Value| {
        let mut body = json!({"common_name": "Sub", "csr": csr, "not_after": "2099-01-01T00:00:00Z"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let cut = desk.write("root/sign-intermediate", body(json!({}))).await.unwrap();
    assert!(cut["warnings"].to_string().contains("was cut to"), "{cut}");
    let enforced = desk.write("root/sign-intermediate", body(json!({"enforce_leaf_not_after_behavior": true}))).await;
    assert!(message(enforced).contains("beyond the expiration"));
    desk.send(Verb::Patch, "issuer/default", json!({"leaf_not_after_behavior": "always_enforce_err"})).await.unwrap();
    assert!(desk.write("root/sign-intermediate", body(json!({}))).await.is_err());
    desk.send(Verb::Patch, "issuer/default", json!({"leaf_not_after_behavior": "permit"})).await.unwrap();
    let kept = desk.write("root/sign-intermediate", body(json!({}))).await.unwrap();
    assert_eq!(kept["expiration"], json!(4_070_908_800_u64));
}

#[tokio::test]
async fn a_ca_certificate_that_does_not_verify_is_answered_to_nobody() {
    let desk = Desk::with_root().await;
    let csr = desk.p256_csr("/CN=Sub", "");
    desk.keys.get("ca").record.lies.store(true, std::sync::atomic::Ordering::Relaxed);
    let refused = desk.write("root/sign-intermediate", json!({"common_name": "Sub", "csr": csr})).await;
    assert!(matches!(refused, Err(Fault::DeviceError { .. })), "{refused:?}");
}

#[tokio::test]
async fn another_root_is_signed_so_that_both_lead_to_its_leaves() {
    let desk = Desk::with_root().await;
    desk.write("config/urls", json!({"issuing_certificates": "http://ca.example/ca.der"})).await.unwrap();
    let (outer, below) = desk.openssl_chain();
    let crossed = desk.write("root/sign-self-issued", json!({ "certificate": outer })).await.unwrap();
    let own = desk.pem("default").await;
    assert_eq!(crossed["issuing_ca"], json!(own));
    let shown = desk.text(&text(&crossed["certificate"]));
    for expected in ["Issuer: CN = Test Root", "Subject: CN = Outer Root", "CA:TRUE", "http://ca.example/ca.der"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    // Whoever trusts this root alone reaches what is below the other.
    let chain = format!("{}\n{below}", text(&crossed["certificate"]));
    desk.verify_chain(&own, &chain, &below, &[]).unwrap();

    let (leaf, _) = desk.leaf("a.example").await;
    for (body, expected) in [
        (json!({}), "certificate is empty"),
        (json!({"certificate": "x"}), "could not be PEM-decoded"),
        (json!({"certificate": format!("{outer}\n{outer}")}), "could not be PEM-decoded"),
        (json!({ "certificate": leaf }), "is not of a CA"),
        (json!({ "certificate": below }), "not self-issued"),
    ] {
        let refused = message(desk.write("root/sign-self-issued", body).await);
        assert!(refused.contains(expected), "{refused}");
    }
    let matching = json!({"certificate": outer, "require_matching_certificate_algorithms": true});
    assert!(desk.write("issuer/default/sign-self-issued", matching).await.is_ok());
}

#[tokio::test]
async fn a_ca_of_older_rules_is_signed_as_it_stands_and_its_asker_told() {
    let desk = Desk::with_root().await;
    let with = |extensions: &str| {
        let config = format!(
            "[req]\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n[ca]\nsubjectKeyIdentifier=hash\n{extensions}"
        );
        desk.put("old.cnf", &config);
        let key = ["req", "-x509", "-nodes", "-keyout", "old.key", "-newkey", "rsa:2048", "-days", "30"];
        desk.openssl(&[&key[..], &["-subj", "/CN=Old CA", "-config", "old.cnf"]].concat())
    };
    for (extensions, told) in [
        ("basicConstraints=critical,CA:true", "but has no key usage (4.2.1.3)"),
        ("basicConstraints=critical,CA:true,pathlen:1", "but has no key usage (4.2.1.3)"),
        ("basicConstraints=critical,CA:true\nkeyUsage=keyCertSign,cRLSign", "key usage is not critical (4.2.1.3)"),
        (
            "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\nsubjectAltName=critical,DNS:old.example",
            "names are critical exactly where its subject is empty (4.2.1.6)",
        ),
    ] {
        let answer = desk.write("root/sign-self-issued", json!({"certificate": with(extensions)})).await.unwrap();
        assert!(answer["warnings"].to_string().contains(told), "{extensions}: {}", answer["warnings"]);
        assert!(desk.text(&text(&answer["certificate"])).contains("Issuer: CN = Test Root"));
    }
    let good = with("basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign");
    let answer = desk.write("root/sign-self-issued", json!({"certificate": good})).await.unwrap();
    assert_eq!(answer["warnings"], json!([]));
    // What must be, must be.
    let refused =
        message(desk.write("root/sign-self-issued", json!({"certificate": with("basicConstraints=CA:true")})).await);
    assert!(refused.contains("basic constraints are not critical"), "{refused}");

    let critical = desk.csr_with("/CN=a.example", "subjectAltName=critical,DNS:a.example");
    let answer = desk.write("sign-verbatim", json!({"csr": critical})).await.unwrap();
    assert!(answer["warnings"].to_string().contains("names are critical"), "{answer}");
}

#[tokio::test]
async fn the_key_usages_that_a_ca_asks_for_are_taken_over() {
    let desk = Desk::with_root().await;
    let signed = async |extension: &str, usage: &str| {
        let csr = desk.csr_with("/CN=Their CA", extension);
        let body = json!({"csr": csr, "use_csr_values": true, "key_usage": usage, "ttl": "10h"});
        desk.write("root/sign-intermediate", body).await
    };
    for (extension, usage, expected) in [
        ("keyUsage=digitalSignature,keyCertSign,cRLSign", "", "Digital Signature, Certificate Sign, CRL Sign"),
        ("keyUsage=critical,keyCertSign", "", "critical\n                Certificate Sign\n"),
        ("keyUsage=critical,keyCertSign", "DigitalSignature", "Digital Signature, Certificate Sign\n"),
        ("certificatePolicies=1.2.3.4", "", "critical\n                Certificate Sign, CRL Sign\n"),
    ] {
        let shown = desk.text(&text(&signed(extension, usage).await.unwrap()["certificate"]));
        assert!(shown.contains(expected), "{extension}: {shown}");
    }
    let refused = message(signed("keyUsage=critical,digitalSignature,cRLSign", "").await);
    assert!(refused.contains("without keyCertSign"), "{refused}");
}

#[tokio::test]
async fn a_request_is_signed_as_it_stands() {
    let desk = Desk::with_root().await;
    let more =
        "subjectAltName=DNS:b.example,IP:10.0.0.1\nextendedKeyUsage=codeSigning\n1.2.3.4.5=ASN1:UTF8String:hello";
    let csr = desk.csr_with("/C=DE/CN=Anything at all", more);
    let answer =
        desk.write("sign-verbatim", json!({"csr": csr, "ext_key_usage": "ServerAuth", "ttl": "2h"})).await.unwrap();
    let shown = desk.text(&text(&answer["certificate"]));
    for expected in [
        "Subject: C = DE, CN = Anything at all",
        "DNS:b.example, IP Address:10.0.0.1",
        "Code Signing",
        "1.2.3.4.5",
        "Digital Signature, Key Agreement",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert!(!shown.contains("Web Server") && !shown.contains("CA:TRUE"), "{shown}");
    desk.verify(&text(&answer["certificate"])).await.unwrap();
    assert!(desk.read(&format!("cert/{}", text(&answer["serial_number"]))).await.is_ok());

    // Of a role its times count, and whether it stores.
    let role = json!({"allowed_domains": "corp.example", "max_ttl": "1h", "no_store": true, "ou": "role"});
    desk.write("roles/short", role).await.unwrap();
    for path in ["sign-verbatim/short", "issuer/default/sign-verbatim/short"] {
        let answer = desk.write(path, json!({"csr": csr, "ttl": "5h"})).await.unwrap();
        assert!(answer["warnings"].to_string().contains("maxTTL"), "{answer}");
        assert!(!desk.text(&text(&answer["certificate"])).contains("OU = role"));
        assert!(desk.read(&format!("cert/{}", text(&answer["serial_number"]))).await.is_err());
    }
    assert!(message(desk.write("sign-verbatim/none", json!({ "csr": csr })).await).contains("unknown role"));
    for ca in ["basicConstraints=critical,CA:TRUE", "keyUsage=keyCertSign"] {
        let csr = desk.csr_with("/CN=x", ca);
        assert!(message(desk.write("sign-verbatim", json!({ "csr": csr })).await).contains("CA certificate"), "{ca}");
    }
    assert!(
        message(desk.write("sign-verbatim", json!({"csr": csr, "key_usage": "CertSign"})).await).contains("CertSign")
    );
    let nobody = desk.csr_with("/", "extendedKeyUsage=codeSigning");
    assert!(message(desk.write("sign-verbatim", json!({ "csr": nobody })).await).contains("name nobody"));
}

#[tokio::test]
async fn a_role_is_patched() {
    let desk = Desk::with_root().await;
    let patched = desk.send(Verb::Patch, "roles/any", json!({"max_ttl": "1h", "issuer_ref": "none"})).await.unwrap();
    let patched = data(patched);
    assert_eq!((&patched["max_ttl"], &patched["key_type"]), (&json!(3600), &json!("any")));
    assert!(patched["warnings"].to_string().contains("no issuing certificate currently has that name"));
    assert_eq!(desk.restarted().read("roles/any").await.unwrap()["max_ttl"], json!(3600));
    assert!(matches!(desk.send(Verb::Patch, "roles/none", json!({})).await, Err(Fault::NotFound { .. })));
}

#[tokio::test]
async fn an_email_address_in_a_subject_is_bound_by_name_constraints() {
    let desk = Desk::with_two_tiers(json!({}), json!({"permitted_email_addresses": "corp.example"})).await;
    for (address, allowed) in [("me@corp.example", true), ("me@evil.org", false)] {
        let csr = desk.p256_csr(&format!("/CN=Me/emailAddress={address}"), "");
        let signed = desk.write("issuer/sub/sign-verbatim", json!({ "csr": csr })).await;
        assert_eq!(signed.is_ok(), allowed, "{address}: {signed:?}");
    }
}
