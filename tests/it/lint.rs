//! What Keyway issues breaks no rule of a linter that others wrote; what would is not issued.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::openssl::{ED25519, P256, RSA, openssl, request};
use crate::python;
use crate::token::Token;

/// A role for each purpose, by its name: its fields, and the rules that judge its certificates.
fn roles() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("plain", json!({}), "pkix"),
        ("short", json!({"ttl": "1h", "no_store": true, "require_cn": false, "use_csr_common_name": false}), "pkix"),
        ("client", json!({"server_flag": false, "key_usage": "DigitalSignature", "organization": "Acme"}), "pkix"),
        ("mail", json!({"server_flag": false, "client_flag": false, "email_protection_flag": true}), "pkix"),
        ("code", json!({"server_flag": false, "client_flag": false, "code_signing_flag": true}), "pkix"),
        (
            "full",
            json!({"country": "CH", "organization": "Acme", "ou": "Ops", "locality": "Bern", "province": "BE",
                "street_address": "Main 1", "postal_code": "3000", "policy_identifiers": "1.3.6.1.4.1.99999.1",
                "basic_constraints_valid_for_non_ca": true}),
            "pkix",
        ),
        (
            "public",
            json!({"lint": "cabf-serverauth", "policy_identifiers": "2.23.140.1.2.1", "key_usage": "DigitalSignature",
                "allow_ip_sans": false, "ttl": "2000h"}),
            "serverauth",
        ),
    ]
}

#[tokio::test]
async fn what_is_issued_breaks_no_rule_of_another_linter() {
    let Some(python) = python::python() else { return };
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.certificate_authority().await;
    let urls = json!({"issuing_certificates": "http://ca.acme.com/ca", "crl_distribution_points": "http://ca.acme.com/crl",
        "delta_crl_distribution_points": "http://ca.acme.com/delta",
        "ocsp_servers": "http://ca.acme.com/ocsp"});
    daemon.write("pki/config/urls", urls).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let mut arguments = vec![format!("pkix:{}", write("root.pem", &root))];
    let kinds = [("p256", P256), ("rsa", RSA), ("ed25519", ED25519)];
    for (name, key) in kinds {
        request(folder.path(), name, key, &format!("DNS:{name}.example.com,DNS:www.acme.com"));
    }
    for (role, fields, rules) in roles() {
        let mut fields = fields;
        fields["key_type"] = "any".into();
        fields["allow_any_name"] = true.into();
        daemon.write(&format!("pki/roles/{role}"), fields).await;
        for (name, _) in kinds.iter().filter(|(name, _)| rules == "pkix" || *name != "ed25519") {
            let csr = std::fs::read_to_string(folder.path().join(format!("{name}.csr"))).unwrap();
            let issued = daemon.write(&format!("pki/sign/{role}"), json!({"csr": csr})).await;
            let path = write(&format!("{role}-{name}.pem"), issued["certificate"].as_str().unwrap());
            arguments.push(format!("{rules}:{path}"));
            if role == "plain" {
                daemon.write("pki/revoke", json!({"serial_number": issued["serial_number"]})).await;
            }
        }
    }
    for more in [["-sha256", "-no_nonce"], ["-sha1", "-nonce"]] {
        let what = ["-issuer", "root.pem", "-cert", "plain-rsa.pem", "-cert", "full-rsa.pem", "-reqout", "request.der"];
        openssl(folder.path(), &[&["ocsp"][..], &more, &what].concat()).unwrap();
        let text =
            base64::engine::general_purpose::STANDARD.encode(std::fs::read(folder.path().join("request.der")).unwrap());
        let answer = daemon.ask(keyway::model::Verb::Read, &format!("pki/ocsp/{text}"), json!({})).await;
        let path = folder.path().join(format!("answer{}.der", arguments.len()));
        std::fs::write(&path, &answer.body).unwrap();
        arguments.push(format!("ocsp:{}", path.display()));
    }
    daemon.write("pki/config/crl", json!({"auto_rebuild": true, "enable_delta": true})).await;
    daemon.read("pki/crl/rotate").await;
    let csr = std::fs::read_to_string(folder.path().join("rsa.csr")).unwrap();
    let issued = daemon.write("pki/sign/plain", json!({"csr": csr})).await;
    for kind in ["crl", "delta-crl"] {
        let crl = daemon.read(&format!("pki/cert/{kind}")).await;
        let path = write(&format!("{kind}-before.pem"), crl["certificate"].as_str().unwrap());
        arguments.push(format!("crl:{path}"));
    }
    daemon.write("pki/revoke", json!({"serial_number": issued["serial_number"]})).await;
    daemon.read("pki/crl/rotate-delta").await;
    let delta = daemon.read("pki/cert/delta-crl").await;
    arguments.push(format!("crl:{}", write("delta.pem", delta["certificate"].as_str().unwrap())));
    assert_eq!(python::run(&python, "lint.py", &arguments), "");
}

#[tokio::test]
async fn what_would_break_the_baseline_requirements_is_refused_and_every_reason_told() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    let folder = tempfile::tempdir().unwrap();
    request(folder.path(), "printer", P256, "DNS:printer,IP:10.0.0.1");
    let csr = std::fs::read_to_string(folder.path().join("printer.csr")).unwrap();
    let role = json!({"key_type": "any", "allow_any_name": true, "ttl": "7000h", "lint": "cabf-serverauth"});
    daemon.write("pki/roles/public", role).await;
    let (status, told) = daemon.refused("pki/sign/public", json!({"csr": csr})).await;
    assert_eq!(status, 400);
    for reason in
        ["valid for more than", "\"printer\" is no public", "\"10.0.0.1\" is no public", "reserves", "by http"]
    {
        assert!(told.contains(reason), "{reason}: {told}");
    }
    // The same is fine inside a company.
    daemon.write("pki/sign/any", json!({"csr": csr})).await;
    assert_eq!(daemon.ask(keyway::model::Verb::List, "pki/certs", json!({})).await.status, 200);
}
