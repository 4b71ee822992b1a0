//! Stories of leaves.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::pem;
use super::*;
use crate::model::CertificateRequest;

#[tokio::test]
async fn requests_of_every_kind_of_key_are_signed() {
    let desk = Desk::with_root().await;
    for key in [
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-sha512"],
        &["rsa:2048"],
        &["rsa:3072", "-sha384"],
        &["rsa:2048", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"],
        &["ed25519"],
    ] {
        let csr = desk.csr(key, "/CN=www.example.com", "DNS:www.example.com,IP:10.1.2.3");
        let answer = desk.write("sign/any", json!({ "csr": csr })).await.unwrap();
        let certificate = text(&answer["certificate"]);
        desk.verify(&certificate).await.unwrap();
        // The certificate is for the key of the request.
        desk.put("shown.pem", &certificate);
        let certified = desk.openssl(&["x509", "-in", "shown.pem", "-noout", "-pubkey"]);
        assert_eq!(certified, desk.openssl(&["pkey", "-in", "key.pem", "-pubout"]), "{key:?}");
    }
}

#[tokio::test]
async fn policies_are_written_with_their_qualifiers_and_read_back_as_given() {
    let desk = Desk::with_root().await;
    let text_of = r#"[{"oid":"1.3.6.1.4.1.7.8","notice":"I am a user Notice"},{"oid":"1.3.6.1.4.1.44947.1.2.4","cps":"https://example.com"}]"#;
    let list: Value = serde_json::from_str(text_of).unwrap();
    let stored = json!([list[0].to_string(), list[1].to_string()]);
    let csr = desk.p256_csr("/CN=a.example.com", "");
    for given in [json!(text_of), list] {
        let role = json!({"allow_any_name": true, "key_type": "any", "policy_identifiers": given});
        desk.write("roles/policies", role).await.unwrap();
        desk.send(Verb::Patch, "roles/policies", json!({"ttl": "1h"})).await.unwrap();
        let read: Vec<Value> = desk.read("roles/policies").await.unwrap()["policy_identifiers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| serde_json::from_str::<Value>(item.as_str().unwrap()).unwrap().to_string().into())
            .collect();
        assert_eq!(json!(read), stored);
        let signed = desk.write("sign/policies", json!({"csr": csr})).await.unwrap();
        let shown = desk.text(&text(&signed["certificate"]));
        for expected in [
            "Policy: 1.3.6.1.4.1.7.8\n",
            "Explicit Text: I am a user Notice",
            "Policy: 1.3.6.1.4.1.44947.1.2.4\n",
            "CPS: https://example.com",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
    }
    let bad = json!({"policy_identifiers": [{"oid": "1.2.3", "cps": "no uri"}]});
    assert!(message(desk.write("roles/policies", bad).await).contains("is no URI"));
}

#[tokio::test]
async fn a_leaf_says_what_role_and_request_say() {
    let desk = Desk::with_root().await;
    let urls = json!({"issuing_certificates": "http://ca.example/ca.der", "ocsp_servers": "http://ocsp.example",
        "crl_distribution_points": ["http://ca.example/crl.der"]});
    desk.write("config/urls", urls).await.unwrap();
    let role = json!({
        "allowed_domains": "example.com", "allow_subdomains": true, "key_type": "ec", "organization": "Corp",
        "allowed_uri_sans": "spiffe://corp/*", "allowed_other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:*@corp",
        "allowed_serial_numbers": "S-*", "allowed_user_ids": "u*", "policy_identifiers": "1.2.3.4.5",
        "basic_constraints_valid_for_non_ca": true, "email_protection_flag": true, "ttl": "24h",
    });
    desk.write("roles/web", role).await.unwrap();
    let sans = "DNS:b.example.com,email:me@x.example.com,URI:spiffe://corp/x,IP:::1,\
                otherName:1.3.6.1.4.1.311.20.2.3;UTF8:me@corp";
    let csr = desk.p256_csr("/CN=a.example.com/serialNumber=S-7", sans);
    let answer = desk.write("sign/web", json!({"csr": csr, "user_ids": "u1,u2"})).await.unwrap();
    let certificate = text(&answer["certificate"]);
    desk.verify(&certificate).await.unwrap();
    let shown = desk.text(&certificate);
    for expected in [
        "Issuer: CN = Test Root",
        "O = Corp, CN = a.example.com, serialNumber = S-7, UID = u1, UID = u2",
        "DNS:b.example.com, DNS:a.example.com, email:me@x.example.com, IP Address:0:0:0:0:0:0:0:1, URI:spiffe://corp/x, othername",
        "X509v3 Key Usage: critical\n                Digital Signature, Key Agreement",
        "TLS Web Server Authentication, TLS Web Client Authentication, E-mail Protection",
        "CA:FALSE",
        "Policy: 1.2.3.4.5",
        "CA Issuers - URI:http://ca.example/ca.der",
        "OCSP - URI:http://ocsp.example",
        "URI:http://ca.example/crl.der",
        "X509v3 Subject Key Identifier",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let serial = text(&answer["serial_number"]);
    let read = desk.read(&format!("cert/{}", serial.replace(':', "-"))).await.unwrap();
    assert_eq!((text(&read["certificate"]), &read["revocation_time"]), (certificate, &json!(0)));
    assert_eq!(answer["ca_chain"], json!([answer["issuing_ca"]]));
}

#[tokio::test]
async fn a_request_beyond_its_role_is_refused() {
    let desk = Desk::with_root().await;
    let strict = json!({"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "ec",
        "allow_ip_sans": false});
    desk.write("roles/strict", strict).await.unwrap();
    for (subject, sans, expected) in [
        ("/CN=evil.org", "", "common name evil.org not allowed by this role"),
        ("/CN=a.example.com", "DNS:evil.org", "subject alternate name evil.org not allowed"),
        ("/CN=a.example.com", "email:me@evil.org", "email address me@evil.org not allowed"),
        ("/CN=a.example.com", "IP:10.0.0.1", "IP Subject Alternative Names are not allowed"),
        ("/CN=a.example.com", "URI:urn:x:y", "URI Subject Alternative Names are not allowed"),
        ("/CN=a.example.com", "otherName:1.2.3.4;UTF8:x", "other SAN x not allowed for OID 1.2.3.4"),
        ("/CN=a.example.com", "RID:1.2.3.4", "kind of subject alternative name that is not issued"),
        ("/CN=a.example.com/serialNumber=1", "", "serial_number 1 not allowed"),
        ("/CN=a.example.com/UID=me", "", "user_id me is not allowed"),
        ("/O=nobody", "", "the common_name field is required"),
        ("/CN=a.example.com/CN=b.example.com", "", "more than one common name"),
    ] {
        let refused = message(desk.write("sign/strict", json!({"csr": desk.p256_csr(subject, sans)})).await);
        assert!(refused.contains(expected), "{subject} {sans}: {refused}");
    }
    let rsa = desk.csr(&["rsa:2048"], "/CN=a.example.com", "");
    assert!(message(desk.write("sign/strict", json!({ "csr": rsa })).await).contains("requires an EC key"));
    let fine = desk.p256_csr("/CN=a.example.com", "");
    assert!(message(desk.write("sign/none", json!({ "csr": fine })).await).contains("unknown role: none"));
    assert!(desk.write("sign/strict", json!({ "csr": fine })).await.is_ok());
}

#[tokio::test]
async fn names_come_from_the_request_where_the_role_says_so() {
    let desk = Desk::with_root().await;
    let role = json!({"allow_any_name": true, "key_type": "any", "use_csr_common_name": false, "use_csr_sans": false,
        "allowed_uri_sans": "*", "serial_number_source": "json", "require_cn": false});
    desk.write("roles/api", role).await.unwrap();
    let csr = desk.p256_csr("/CN=csr.example/serialNumber=9", "DNS:csr-san.example");
    let body = json!({"csr": csr, "common_name": "api.example", "alt_names": "one.example,me@two.example",
        "ip_sans": ["10.0.0.9"], "uri_sans": "urn:a:b", "ttl": "1h"});
    let shown = desk.text(&text(&desk.write("sign/api", body).await.unwrap()["certificate"]));
    assert!(shown.contains("DNS:one.example, DNS:api.example, email:me@two.example, IP Address:10.0.0.9, URI:urn:a:b"));
    assert!(!shown.contains("csr.example") && !shown.contains("csr-san") && !shown.contains("serialNumber"), "{shown}");

    // Without a subject the alternative names are critical.
    let body = json!({"csr": csr, "alt_names": "one.example"});
    let certificate = text(&desk.write("sign/api", body).await.unwrap()["certificate"]);
    assert!(desk.text(&certificate).contains("X509v3 Subject Alternative Name: critical"));
    desk.verify(&certificate).await.unwrap();
    assert!(message(desk.write("sign/api", json!({ "csr": csr })).await).contains("would name nobody"));
}

#[tokio::test]
async fn lifetimes_are_bounded_by_role_mount_and_issuer() {
    let desk = Desk::with_root().await;
    let csr = desk.p256_csr("/CN=a.example", "");
    let cut = desk.write("sign/any", json!({"csr": csr, "ttl": "8000h"})).await.unwrap();
    assert!(cut["warnings"].to_string().contains("maxTTL"), "{cut}");
    let lasts = cut["expiration"].as_u64().unwrap() - super::super::validity::now();
    assert!(lasts <= 720 * 3600 && lasts > 719 * 3600, "{lasts}");
    desk.write("roles/far", json!({"allow_any_name": true, "key_type": "any", "not_after": "9999-12-31T23:59:59Z"}))
        .await
        .unwrap();
    let refused = message(desk.write("sign/far", json!({ "csr": csr })).await);
    assert!(refused.contains("beyond the expiration of the CA certificate"), "{refused}");
}

#[tokio::test]
async fn formats_and_chains_are_as_asked() {
    let desk = Desk::with_root().await;
    let csr = desk.p256_csr("/CN=a.example", "");
    let der = desk.write("sign/any", json!({"csr": csr, "format": "der"})).await.unwrap();
    let bytes = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(text(&der["certificate"])).unwrap()
    };
    desk.verify(&pem::encode(pem::CERTIFICATE, &bytes).unwrap()).await.unwrap();
    let bundle = desk.write("sign/any", json!({"csr": csr, "format": "pem_bundle"})).await.unwrap();
    assert_eq!(text(&bundle["certificate"]).matches("BEGIN CERTIFICATE").count(), 2);
    let bare = desk.write("sign/any", json!({"csr": csr, "remove_roots_from_chain": true})).await.unwrap();
    assert_eq!(bare["ca_chain"], json!([]));
    let odd = desk.write("sign/any", json!({"csr": csr, "colour": "red", "common_name": "b.example"})).await.unwrap();
    let warnings = odd["warnings"].to_string();
    assert!(warnings.contains("colour") && warnings.contains("use_csr_common_name"), "{warnings}");
}

#[tokio::test]
async fn the_hot_operation_and_the_path_are_one() {
    let desk = Desk::with_root().await;
    let csr = desk.p256_csr("/CN=hot.example", "DNS:hot.example");
    let der = pem::decode(&csr, &pem::REQUESTS).unwrap();
    let request = CertificateRequest {
        mount: "pki/".into(),
        role: "any".into(),
        csr: Bytes::from(der),
        data: json!({"ttl": "2h"}).as_object().unwrap().clone(),
    };
    let Outcome::Certificate(issued) = Arc::clone(&desk.pki).sign_certificate(desk.call(), request).await.unwrap()
    else {
        panic!("no certificate");
    };
    assert_eq!(issued.chain[0].to_vec(), desk.raw("ca").await.1);
    desk.verify(&pem::encode(pem::CERTIFICATE, &issued.certificate).unwrap()).await.unwrap();
    let stored = desk.read(&format!("cert/{}", issued.serial)).await.unwrap();
    assert_eq!(pem::decode(&text(&stored["certificate"]), &[pem::CERTIFICATE]).unwrap(), issued.certificate.to_vec());
}

#[tokio::test]
async fn certificates_are_listed_in_parts_and_those_not_to_store_are_not() {
    let desk = Desk::with_root().await;
    desk.write("roles/fleeting", json!({"allow_any_name": true, "key_type": "any", "no_store": true})).await.unwrap();
    let csr = desk.p256_csr("/CN=a.example", "");
    let fleeting = desk.write("sign/fleeting", json!({ "csr": csr })).await.unwrap();
    let mut serials = Vec::new();
    for _ in 0..3 {
        serials.push(text(&desk.write("sign/any", json!({ "csr": csr })).await.unwrap()["serial_number"]));
    }
    let list = async |body: Value| data(desk.send(Verb::List, "certs/", body).await.unwrap());
    let all: Vec<String> = list(json!({})).await["keys"].as_array().unwrap().iter().map(text).collect();
    // The root is among them.
    assert_eq!(all.len(), 4);
    assert!(serials.iter().all(|serial| all.contains(serial)));
    assert!(!all.contains(&text(&fleeting["serial_number"])));
    let part = list(json!({"limit": 3})).await;
    assert_eq!(part["keys"], json!(all[..3]));
    assert_eq!(list(json!({"after": all[2]})).await["keys"], json!(all[3..]));
}

#[tokio::test]
async fn nothing_is_answered_that_is_not_stored() {
    let desk = Desk::with_root().await;
    let csr = desk.p256_csr("/CN=a.example", "");
    desk.store.close();
    assert!(matches!(desk.write("sign/any", json!({ "csr": csr })).await, Err(Fault::Unavailable { .. })));
}

#[tokio::test]
async fn a_key_that_is_gone_is_said_so() {
    let desk = Desk::with_root().await;
    desk.keys.get("ca").record.is_gone.store(true, Ordering::Relaxed);
    let csr = desk.p256_csr("/CN=a.example", "");
    assert!(matches!(desk.write("sign/any", json!({ "csr": csr })).await, Err(Fault::KeyUnavailable { .. })));
}

#[tokio::test]
async fn roles_come_and_go() {
    let desk = Desk::new(&[("ca", P256)]);
    assert!(matches!(desk.send(Verb::List, "roles", json!({})).await, Err(Fault::NotFound { .. })));
    assert!(matches!(desk.read("roles/web").await, Err(Fault::NotFound { .. })));
    let written = desk.write("roles/web", json!({"ttl": "1h", "ou": "x"})).await.unwrap();
    assert_eq!(written["ttl"], json!(3600));
    // A second write replaces all of it.
    desk.write("roles/web", json!({"max_ttl": "2h"})).await.unwrap();
    let read = desk.read("roles/web").await.unwrap();
    assert_eq!((&read["ttl"], &read["ou"], &read["max_ttl"]), (&json!(0), &json!([]), &json!(7200)));
    assert_eq!(data(desk.send(Verb::List, "roles/", json!({})).await.unwrap())["keys"], json!(["web"]));
    assert!(desk.write("roles/-bad", json!({})).await.is_err());
    assert_eq!(desk.send(Verb::Delete, "roles/web", json!({})).await.unwrap(), Response::Empty);
    assert_eq!(desk.send(Verb::Delete, "roles/web", json!({})).await.unwrap(), Response::Empty);
    assert!(desk.read("roles/web").await.is_err());
    let refused = desk.write("sign/any", json!({"csr": desk.p256_csr("/CN=a", "")})).await;
    assert!(message(refused).contains("unknown role"));
}

#[tokio::test]
async fn paths_and_verbs_beyond_the_table_are_refused() {
    let desk = Desk::new(&[("ca", P256)]);
    for path in ["issued/web", "acme/directory", "root/generate", "roles/a/b", "ca/pem/x", "ca."] {
        let refused = desk.read(path).await.unwrap_err();
        assert_eq!(refused, Fault::NotFound { what: "unsupported path".into() }, "{path}");
    }
    assert_eq!(desk.write("ca", json!({})).await.unwrap_err(), Fault::UnsupportedOperation);
    assert_eq!(desk.read("issue/web").await.unwrap_err(), Fault::UnsupportedOperation);
}
