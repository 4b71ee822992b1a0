//! ML-DSA keys in a token: as CA and leaf keys, and in Transit, judged by a second implementation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::daemon::Daemon;
use crate::python;
use crate::token::{self, LABEL, Token};

#[tokio::test]
async fn ml_dsa_keys_certify_and_sign() {
    if token::profile() != "kryoptic" {
        return eprintln!("not asked: SoftHSM2 has no ML-DSA; tests/run tells this story on Kryoptic");
    }
    let Some(python) = python::python() else { return };
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.write("sys/mounts/pki", json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}})).await;
    let options = json!({"kms_library": "hsm", "token_label": LABEL});
    daemon.write("sys/mounts/own", json!({"type": "transit", "options": options})).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    for set in ["44", "65", "87"] {
        let (ca, doc) = (format!("ca-{set}"), format!("doc-{set}"));
        daemon.managed_key(&ca, json!({"mechanism": "0x1d", "parameter_set": set})).await;
        let root =
            json!({"managed_key_name": ca, "common_name": format!("Root {set}"), "issuer_name": ca, "ttl": "87600h"});
        let root = daemon.write("pki/root/generate/kms", root).await;
        write(&format!("root-{set}.pem"), root["certificate"].as_str().unwrap());
        // A leaf with an ML-DSA key of its own, which is in the token too.
        let settings = json!({"mechanism": "0x1d", "parameter_set": set, "allow_raw_signing": true});
        daemon.managed_key(&doc, settings.clone()).await;
        let request = json!({"managed_key_name": doc, "common_name": format!("leaf-{set}.example.com")});
        let request = daemon.write("pki/intermediate/generate/kms", request).await;
        let role =
            json!({"key_type": "ml-dsa", "key_bits": set, "allow_any_name": true, "issuer_ref": ca, "ttl": "72h"});
        daemon.write("pki/roles/leaf", role).await;
        let leaf = daemon.write("pki/sign/leaf", json!({"csr": request["csr"]})).await;
        write(&format!("leaf-{set}.pem"), leaf["certificate"].as_str().unwrap());
        let crl = daemon.ask(keyway::model::Verb::Read, &format!("pki/issuer/{ca}/crl/pem"), json!({})).await;
        std::fs::write(folder.path().join(format!("crl-{set}.pem")), &crl.body).unwrap();
        daemon.transit_key(&doc, settings).await;
        let input = STANDARD.encode(format!("a message to {set}"));
        let calls = || ["C_SignInit", "C_Sign"].map(|function| token.calls(function));
        let before = calls();
        let signed = daemon.write(&format!("transit/sign/{doc}"), json!({"input": input})).await;
        // Two, as for any other: the token need not first say how long it is.
        assert_eq!(calls(), before.map(|calls| calls + 1));
        let check = json!({"input": input, "signature": signed["signature"]});
        assert_eq!(daemon.write(&format!("transit/verify/{doc}"), check).await["valid"], true);
        write(&format!("signature-{set}"), signed["signature"].as_str().unwrap());
        of_a_mounts_own(&daemon, set, &write).await;
    }
    python::run(&python, "post_quantum.py", &[folder.path().display().to_string()]);
}

/// A key that a mount makes for itself, by the type that Vault has for it.
async fn of_a_mounts_own(daemon: &Daemon, set: &str, write: impl Fn(&str, &str)) {
    let path = |deed: &str| format!("own/{deed}/doc-{set}");
    let made = daemon.write(&path("keys"), json!({"type": "ml-dsa", "parameter_set": set})).await;
    assert_eq!((&made["type"], &made["parameter_set"]), (&json!("ml-dsa"), &json!(set)));
    assert_eq!((&made["supports_signing"], &made["supports_encryption"]), (&json!(true), &json!(false)));
    assert_eq!(made["keys"]["1"]["name"], format!("ml-dsa-{set}"));
    let input = STANDARD.encode(format!("a message to own {set}"));
    let old = daemon.write(&path("sign"), json!({"input": input})).await;
    assert_eq!(daemon.write(&format!("own/keys/doc-{set}/rotate"), json!({})).await["latest_version"], 2);
    let new = daemon.write(&path("sign"), json!({"input": input})).await;
    for signed in [&old, &new] {
        let check = json!({"input": input, "signature": signed["signature"]});
        assert_eq!(daemon.write(&path("verify"), check.clone()).await["valid"], true);
        let mut other = check;
        other["input"] = json!(STANDARD.encode("another message"));
        assert_eq!(daemon.write(&path("verify"), other).await["valid"], false);
    }
    // Judged outside, by the public key that the document shows.
    write(&format!("own-{set}.pem"), made["keys"]["1"]["public_key"].as_str().unwrap());
    write(&format!("own-signature-{set}"), old["signature"].as_str().unwrap());
    let told = daemon.refused(&path("sign"), json!({"input": input, "prehashed": true})).await.1;
    assert!(told.contains("prehashed is not supported"), "{told}");
    assert_eq!(daemon.refused(&path("encrypt"), json!({"plaintext": input})).await.0, 400);
}
