//! Transit over both wires, on every kind of key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::client::ClientError;
use keyway::model::Verb;
use keyway::wire::proto;
use serde_json::json;

use crate::daemon::Daemon;
use crate::openssl::openssl;
use crate::token::Token;

const MESSAGE: &[u8] = b"We, the undersigned, agree.";

#[tokio::test]
async fn openssl_accepts_the_certificate_requests_of_every_kind_of_key() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let folder = tempfile::tempdir().unwrap();
    crate::openssl::request(folder.path(), "template", crate::openssl::P256, "DNS:www.example.com");
    let root = ["req", "-x509", "-key", "template.pem", "-subj", "/CN=ca", "-out", "ca.pem"];
    openssl(folder.path(), &root).unwrap();
    let template = std::fs::read_to_string(folder.path().join("template.csr")).unwrap();
    for (name, settings) in [
        ("p256", json!({"mechanism": "0x1041", "curve": "P256"})),
        ("p521", json!({"mechanism": "0x1041", "curve": "P521"})),
        ("rsa", json!({"mechanism": "0x0001", "key_bits": 2048})),
        ("pss", json!({"mechanism": "0x000d", "key_bits": 2048})),
        ("ed", json!({"mechanism": "0x1057"})),
    ] {
        daemon.transit_key(name, settings).await;
        let path = format!("transit/keys/{name}/csr");
        for (asked, subject) in [(json!({}), false), (json!({"csr": template, "version": 1}), true)] {
            let made = daemon.write(&path, asked).await;
            assert_eq!((&made["name"], &made["version"]), (&json!(name), &json!(1)));
            std::fs::write(folder.path().join("made.csr"), made["csr"].as_str().unwrap()).unwrap();
            // An issuer refuses one whose signature is wrong, which `req -verify` only remarks on.
            let issue =
                ["x509", "-req", "-in", "made.csr", "-CA", "ca.pem", "-CAkey", "template.pem", "-set_serial", "1"];
            openssl(folder.path(), &issue).unwrap();
            let text = openssl(folder.path(), &["req", "-in", "made.csr", "-noout", "-text"]).unwrap();
            assert_eq!(text.contains("CN = template.example.com"), subject, "{name}: {text}");
            assert_eq!(text.contains("DNS:www.example.com"), subject, "{name}: {text}");
            let public = openssl(folder.path(), &["req", "-in", "made.csr", "-pubkey", "-noout"]).unwrap();
            let exported = daemon.read(&format!("transit/export/public-key/{name}")).await;
            let exported = exported["keys"]["1"].as_str().unwrap().to_owned();
            assert!(name == "ed" || public == exported, "{name}: {public} {exported}");
        }
    }
    for (name, asked, told) in [
        ("none", json!({}), "key with provided name 'none' not found"),
        ("p256", json!({"version": 2}), "requested version for signing is higher than the latest key version"),
        ("p256", json!({"csr": "-----BEGIN X-----\n-----END X-----"}), "csr is no certificate request in PEM"),
    ] {
        let (status, found) = daemon.refused(&format!("transit/keys/{name}/csr"), asked).await;
        assert!(status == 400 && found.contains(told), "{status} {found}");
    }
}

#[tokio::test]
async fn salts_and_raw_inputs_are_as_asked() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.transit_key("pss", json!({"mechanism": "0x000d", "key_bits": 2048})).await;
    let input = STANDARD.encode(MESSAGE);
    let signed = daemon.write("transit/sign/pss", json!({"input": input, "salt_length": "20"})).await;
    for (salt, valid) in [("20", true), ("auto", true), ("hash", false), ("21", false)] {
        let asked = json!({"input": input, "salt_length": salt, "signature": signed["signature"]});
        assert_eq!(daemon.write("transit/verify/pss", asked).await["valid"], valid, "{salt}");
    }
    daemon.transit_key("rsa", json!({"mechanism": "0x0001", "key_bits": 2048})).await;
    let asked = json!({"input": input, "prehashed": true, "signature_algorithm": "pkcs1v15"});
    let signed = daemon.write("transit/sign/rsa/none", asked.clone()).await;
    let mut check = asked;
    check["signature"] = signed["signature"].clone();
    assert_eq!(daemon.write("transit/verify/rsa/none", check).await["valid"], true);
}

#[tokio::test]
async fn the_framed_wire_signs_verifies_and_asks_anything() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let framed = daemon.framed().await;
    assert_eq!(framed.ping("anyone?".into()).await.unwrap(), "anyone?");
    let sign =
        proto::Sign { mount: "transit".into(), key: "doc".into(), input: MESSAGE.into(), ..proto::Sign::default() };
    let signed = framed.sign(sign.clone()).await.unwrap();
    assert_eq!(signed.key_version, 1);
    // The same signature is good over HTTP.
    let text = format!("vault:v1:{}", STANDARD.encode(&signed.signature));
    let asked = json!({"input": STANDARD.encode(MESSAGE), "signature": text});
    assert_eq!(daemon.write("transit/verify/doc", asked).await["valid"], true);
    for (input, valid) in [(MESSAGE, true), (&b"another message"[..], false)] {
        let signed_facts = proto::Sign { key_version: 1, input: input.into(), ..sign.clone() };
        let verify = proto::Verify { signed: Some(signed_facts), signature: signed.signature.clone() };
        assert_eq!(framed.verify(verify).await.unwrap(), valid);
    }
    let missing = proto::Sign { key: "none".into(), ..sign };
    let refused = framed.sign(missing).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused { label, .. } if label == "invalid_request"), "{refused}");
}

#[tokio::test]
async fn a_wrong_or_missing_token_is_refused_on_both_wires() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    let good = std::mem::replace(&mut daemon.root_token, "wrong".into());
    assert_eq!(daemon.refused("sys/mounts/pki", json!({"type": "pki"})).await, (403, "permission denied".into()));
    daemon.root_token.clear();
    assert_eq!(daemon.ask(Verb::Read, "sys/mounts", json!({})).await.status, 403);
    assert_eq!(daemon.ask(Verb::Read, "sys/health", json!({})).await.status, 200);
    daemon.root_token = good;
    assert_eq!(daemon.ask(Verb::Read, "sys/mounts", json!({})).await.status, 200);
}
