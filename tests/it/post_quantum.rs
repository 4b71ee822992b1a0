//! ML-DSA keys in a token: as CA and leaf keys, and in Transit, judged by a second implementation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::daemon::Daemon;
use crate::python;
use crate::token::{self, Token};

#[tokio::test]
async fn ml_dsa_keys_certify_and_sign() {
    if token::profile() != "kryoptic" {
        return eprintln!("not asked: SoftHSM2 has no ML-DSA; tests/run tells this story on Kryoptic");
    }
    let Some(python) = python::python() else { return };
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.write("sys/mounts/pki", json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}})).await;
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
        daemon.managed_key(&doc, json!({"mechanism": "0x1d", "parameter_set": set})).await;
        let request = json!({"managed_key_name": doc, "common_name": format!("leaf-{set}.example.com")});
        let request = daemon.write("pki/intermediate/generate/kms", request).await;
        let role =
            json!({"key_type": "ml-dsa", "key_bits": set, "allow_any_name": true, "issuer_ref": ca, "ttl": "72h"});
        daemon.write("pki/roles/leaf", role).await;
        let leaf = daemon.write("pki/sign/leaf", json!({"csr": request["csr"]})).await;
        write(&format!("leaf-{set}.pem"), leaf["certificate"].as_str().unwrap());
        let crl = daemon.ask(keyway::model::Verb::Read, &format!("pki/issuer/{ca}/crl/pem"), json!({})).await;
        std::fs::write(folder.path().join(format!("crl-{set}.pem")), &crl.body).unwrap();
        daemon.transit_key(&doc, json!({"mechanism": "0x1d", "parameter_set": set})).await;
        let input = STANDARD.encode(format!("a message to {set}"));
        let signed = daemon.write(&format!("transit/sign/{doc}"), json!({"input": input})).await;
        let check = json!({"input": input, "signature": signed["signature"]});
        assert_eq!(daemon.write(&format!("transit/verify/{doc}"), check).await["valid"], true);
        write(&format!("signature-{set}"), signed["signature"].as_str().unwrap());
    }
    python::run(&python, "post_quantum.py", &[folder.path().display().to_string()]);
}
