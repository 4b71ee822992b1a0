//! Keys in AWS KMS, in an emulated one: what each kind of key does, judged by openssl.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::cloud_rig::AwsRig;
use crate::daemon::Setup;
use crate::openssl::{P256, openssl, request};

const MESSAGE: &[u8] = b"what is signed in a cloud";

fn raw(made: &Value, member: &str) -> Vec<u8> {
    STANDARD.decode(made[member].as_str().unwrap().strip_prefix("vault:v1:").unwrap()).unwrap()
}

#[tokio::test]
async fn openssl_accepts_the_signatures_of_every_kind_of_key() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    let daemon = &aws.rig.daemon;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("message", MESSAGE);
    for (name, fields, ways) in [
        ("rsa2048", json!({"key_type": "RSA", "key_bits": 2048}), &["", "pss", "pkcs1v15"][..]),
        ("rsa4096", json!({"key_type": "rsa", "key_bits": "4096"}), &["pss"]),
        ("p256", json!({}), &[""]),
        ("p384", json!({"curve": "P384"}), &[""]),
        ("p521", json!({"curve": "P521"}), &[""]),
        ("secp256k1", json!({"curve": "secp256k1"}), &[""]),
    ] {
        aws.key(name, fields).await;
        daemon.write(&format!("sys/managed-keys/awskms/{name}/test/sign"), json!({})).await;
        let document = daemon.read(&format!("transit/keys/{name}")).await;
        write("key.pub", document["keys"]["1"]["public_key"].as_str().unwrap().as_bytes());
        for (way, (hash, flag)) in
            ways.iter().flat_map(|way| [("sha2-256", "-sha256"), ("sha2-512", "-sha512")].map(|hash| (way, hash)))
        {
            let asked = json!({"input": STANDARD.encode(MESSAGE), "hash_algorithm": hash, "signature_algorithm": way});
            let signed = daemon.write(&format!("transit/sign/{name}"), asked).await;
            write("signature", &raw(&signed, "signature"));
            let mut check = vec!["dgst", flag, "-verify", "key.pub", "-signature", "signature"];
            if name.starts_with("rsa") && *way != "pkcs1v15" {
                check.extend(["-sigopt", "rsa_padding_mode:pss"]);
            }
            check.push("message");
            assert!(openssl(folder.path(), &check).unwrap().contains("Verified OK"), "{name} {way} {hash}");
        }
    }
    // What the service does not do is said in words of what the key is.
    let (status, told) =
        daemon.refused("sys/managed-keys/awskms/rsa2048/test/sign", json!({"hash_algorithm": "sha1"})).await;
    assert!(status == 400 && told.contains("RSA_2048") && told.contains("sha1"), "{status} {told}");
    let asked = json!({"input": STANDARD.encode(MESSAGE), "signature_algorithm": "pss", "salt_length": "0"});
    let (status, told) = daemon.refused("transit/sign/rsa2048", asked).await;
    assert!(status == 400 && told.contains("a salt as long as the hash"), "{status} {told}");
}

#[tokio::test]
async fn keys_sign_messages_decrypt_and_make_macs_as_they_are_meant_to() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    let daemon = &aws.rig.daemon;
    let input = STANDARD.encode(MESSAGE);
    aws.key("ed", json!({"key_type": "ED25519"})).await;
    let signed = daemon.write("transit/sign/ed", json!({ "input": input })).await;
    assert_eq!(raw(&signed, "signature").len(), 64);
    let checked = json!({"input": input, "signature": signed["signature"]});
    assert_eq!(daemon.write("transit/verify/ed", checked).await["valid"], true);
    let (status, told) = daemon.refused("transit/sign/ed", json!({"input": STANDARD.encode(vec![7; 5000])})).await;
    assert!(status == 413 && told.contains("at most 4096"), "{status} {told}");
    aws.key("rsa", json!({"key_type": "RSA", "key_bits": 2048, "usages": "encrypt,decrypt"})).await;
    let made = daemon.write("transit/encrypt/rsa", json!({ "plaintext": input })).await;
    assert_eq!(
        daemon.write("transit/decrypt/rsa", json!({"ciphertext": made["ciphertext"]})).await["plaintext"],
        input
    );
    let (status, told) = daemon.refused("sys/managed-keys/awskms/rsa/test/sign", json!({})).await;
    assert!(status == 400 && told.contains("does not allow usage"), "{status} {told}");
    // Registered for what it is not for, it is refused by both names.
    let wrong = json!({"kms_key": "alias/rsa", "key_type": "RSA", "key_bits": 2048, "allow_generate_key": false});
    aws.managed_key("wrong", wrong).await;
    let (status, told) = daemon.refused("sys/managed-keys/awskms/wrong/test/sign", json!({})).await;
    let both = "it is RSA_2048 (encrypt, decrypt), and registered as RSA_2048 (sign, verify)";
    assert!(status == 400 && told.contains(both), "{status} {told}");
    aws.key("mac", json!({"key_type": "HMAC", "key_bits": 384})).await;
    let made = daemon.write("transit/hmac/mac/sha2-384", json!({ "input": input })).await;
    assert_eq!(raw(&made, "hmac").len(), 48);
    let asked = json!({"input": input, "hmac": made["hmac"]});
    assert_eq!(daemon.write("transit/verify/mac/sha2-384", asked).await["valid"], true);
}

#[tokio::test]
async fn openssl_accepts_a_root_and_what_it_issues() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    let daemon = &aws.rig.daemon;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (mount, fields) in [("rsa", json!({"key_type": "RSA", "key_bits": 2048})), ("ec", json!({"curve": "P384"}))] {
        aws.managed_key(mount, fields).await;
        let settings = json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}});
        daemon.write(&format!("sys/mounts/{mount}"), settings).await;
        let root = json!({"managed_key_name": mount, "common_name": "Root", "ttl": "80000h"});
        let root = daemon.write(&format!("{mount}/root/generate/kms"), root).await;
        let role = json!({"key_type": "ec", "key_bits": 256, "allow_any_name": true, "ttl": "72h"});
        daemon.write(&format!("{mount}/roles/any"), role).await;
        request(folder, "www", P256, "DNS:www.example.com");
        let csr = std::fs::read_to_string(folder.join("www.csr")).unwrap();
        let leaf = daemon.write(&format!("{mount}/sign/any"), json!({ "csr": csr })).await;
        let revoked = daemon.write(&format!("{mount}/issue/any"), json!({"common_name": "b.example.com"})).await;
        daemon.write(&format!("{mount}/revoke"), json!({"serial_number": revoked["serial_number"]})).await;
        let crl = daemon.http().request(Verb::Read, &format!("{mount}/crl/pem"), &Default::default()).await.unwrap();
        std::fs::write(folder.join("ca.crl"), &crl.body).unwrap();
        for (name, value) in [("root", &root), ("leaf", &leaf), ("revoked", &revoked)] {
            let pem = value["certificate"].as_str().unwrap();
            std::fs::write(folder.join(format!("{name}.pem")), format!("{pem}\n")).unwrap();
        }
        let verify = ["verify", "-x509_strict", "-CAfile", "root.pem", "-crl_check", "-CRLfile", "ca.crl"];
        openssl(folder, &[&verify[..], &["leaf.pem"]].concat()).unwrap();
        let refused = openssl(folder, &[&verify[..], &["revoked.pem"]].concat()).unwrap_err();
        assert!(refused.contains("revoked"), "{refused}");
        let shown = openssl(folder, &["x509", "-in", "root.pem", "-noout", "-text"]).unwrap();
        assert!(!shown.contains("rsassaPss"), "PSS is for who asks for it");
    }
}
