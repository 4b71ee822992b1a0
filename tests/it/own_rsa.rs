//! RSA and HMAC keys that a mount makes for itself, which do several things each: on a real token, judged by openssl.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::client::Answer;
use keyway::model::Verb;
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::openssl::openssl;
use crate::token::{self, LABEL, Token};

const MESSAGE: &[u8] = b"We, the undersigned, keep it to ourselves.";

/// The hash that this token knows for OAEP: SoftHSM has no other than SHA-1.
fn oaep_hash() -> &'static str {
    if token::profile() == "kryoptic" { "sha256" } else { "sha1" }
}

async fn started(token: &Token) -> Daemon {
    let daemon = Daemon::new(token).await;
    let options = json!({"kms_library": "hsm", "token_label": LABEL});
    daemon.write("sys/mounts/transit", json!({"type": "transit", "options": options})).await;
    daemon
}

async fn restarted(token: &Token, daemon: Daemon) -> Daemon {
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(token, Setup::default());
    daemon.root_token = root_token;
    daemon
}

/// Writes within this time; answers the whole answer.
async fn asked(daemon: &Daemon, path: &str, data: Value, within: Duration) -> Answer {
    let mut http = daemon.http();
    http.deadline = Some(within);
    http.request(Verb::Write, path, data.as_object().unwrap()).await.unwrap()
}

fn raw(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().unwrap().rsplit_once(':').unwrap().1).unwrap()
}

async fn decrypted(daemon: &Daemon, data: Value) -> Vec<u8> {
    let read = daemon.write("transit/decrypt/doc", data).await;
    STANDARD.decode(read["plaintext"].as_str().unwrap()).unwrap()
}

/// Has openssl judge signatures made in each of Vault's ways.
async fn signatures(daemon: &Daemon, folder: &Path) {
    let input = STANDARD.encode(MESSAGE);
    let pss = ["rsa_padding_mode:pss", "rsa_mgf1_md:sha256"];
    for (options, openssl_takes) in [
        (json!({}), &[&pss[..], &["rsa_pss_saltlen:max"]].concat()[..]),
        (
            json!({"signature_algorithm": "pss", "salt_length": "hash"}),
            &[&pss[..], &["rsa_pss_saltlen:digest"]].concat(),
        ),
        (json!({"signature_algorithm": "pss", "salt_length": 20}), &[&pss[..], &["rsa_pss_saltlen:20"]].concat()),
        (json!({"signature_algorithm": "pkcs1v15"}), &["rsa_padding_mode:pkcs1"]),
    ] {
        let digest = openssl(folder, &["dgst", "-sha256", "-binary", "-out", "digest", "message"]);
        digest.unwrap();
        let mut prehashed = options.clone();
        prehashed["prehashed"] = json!(true);
        prehashed["input"] = json!(STANDARD.encode(std::fs::read(folder.join("digest")).unwrap()));
        let mut whole = options.clone();
        whole["input"] = json!(input);
        for mut asked in [whole, prehashed] {
            let signed = daemon.write("transit/sign/doc", asked.clone()).await;
            std::fs::write(folder.join("signature"), raw(&signed["signature"])).unwrap();
            let verify =
                ["pkeyutl", "-verify", "-pubin", "-inkey", "key.pub", "-in", "digest", "-sigfile", "signature"];
            let mut verify = [&verify[..], &["-pkeyopt", "digest:sha256"]].concat();
            openssl_takes.iter().for_each(|option| verify.extend(["-pkeyopt", *option]));
            openssl(folder, &verify).unwrap_or_else(|told| panic!("{options}: {told}"));
            asked["signature"] = signed["signature"].clone();
            assert_eq!(daemon.write("transit/verify/doc", asked).await["valid"], true, "{options}");
        }
    }
    // Without a DigestInfo, as TLS 1.0 had it.
    let options = json!({
        "input": STANDARD.encode([7; 36]), "prehashed": true, "hash_algorithm": "none", "signature_algorithm": "pkcs1v15",
    });
    let signed = daemon.write("transit/sign/doc", options).await;
    std::fs::write(folder.join("signature"), raw(&signed["signature"])).unwrap();
    let recover = ["pkeyutl", "-verifyrecover", "-pubin", "-inkey", "key.pub", "-in", "signature", "-out", "recovered"];
    openssl(folder, &recover).unwrap();
    assert_eq!(std::fs::read(folder.join("recovered")).unwrap(), [7; 36]);
}

/// Has openssl encrypt with each padding; answers the ciphertexts with it.
async fn ciphertexts(daemon: &Daemon, folder: &Path) -> Vec<(&'static str, Value)> {
    let (digest, mask) = (format!("rsa_oaep_md:{}", oaep_hash()), format!("rsa_mgf1_md:{}", oaep_hash()));
    let oaep = ["rsa_padding_mode:oaep", &digest, &mask];
    let mut made = Vec::new();
    for (padding, options) in [("", &oaep[..]), ("oaep", &oaep), ("pkcs1v15", &["rsa_padding_mode:pkcs1"])] {
        let encrypt = ["pkeyutl", "-encrypt", "-pubin", "-inkey", "key.pub", "-in", "message", "-out", "sealed"];
        let mut encrypt = encrypt.to_vec();
        options.iter().for_each(|option| encrypt.extend(["-pkeyopt", *option]));
        openssl(folder, &encrypt).unwrap();
        let sealed = std::fs::read(folder.join("sealed")).unwrap();
        let outside = json!(format!("vault:v1:{}", STANDARD.encode(sealed)));
        let data = json!({"plaintext": STANDARD.encode(MESSAGE), "padding_scheme": padding});
        let here = daemon.write("transit/encrypt/doc", data).await["ciphertext"].clone();
        made.extend([(padding, outside), (padding, here)]);
    }
    made
}

#[tokio::test]
async fn an_rsa_key_of_a_mounts_own_does_what_vaults_does() {
    let token = Token::new();
    let daemon = started(&token).await;
    let made = asked(&daemon, "transit/keys/doc", json!({"type": "rsa-2048"}), LIMIT).await;
    assert_eq!(made.status, 200, "{}", made.json());
    let (document, warnings) = (&made.json()["data"], made.json()["warnings"].to_string());
    assert_eq!(document["keys"]["1"]["rsa_oaep_hash"], oaep_hash());
    // Vault's clients take SHA-256 for granted.
    assert_eq!(warnings.contains("the token decrypts OAEP with sha1"), oaep_hash() == "sha1", "{warnings}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("message"), MESSAGE).unwrap();
    let exported = daemon.read("transit/export/public-key/doc").await;
    std::fs::write(folder.path().join("key.pub"), exported["keys"]["1"].as_str().unwrap()).unwrap();
    signatures(&daemon, folder.path()).await;
    let sealed = ciphertexts(&daemon, folder.path()).await;
    let data_key = daemon.write("transit/datakey/plaintext/doc", json!({})).await;

    // A request for a certificate, signed so that every CA takes it.
    let request = daemon.write("transit/keys/doc/csr", json!({})).await;
    std::fs::write(folder.path().join("request"), request["csr"].as_str().unwrap()).unwrap();
    let shown = openssl(folder.path(), &["req", "-in", "request", "-verify", "-noout", "-text"]).unwrap();
    assert!(shown.contains("sha256WithRSAEncryption"), "{shown}");

    let daemon = restarted(&token, daemon).await;
    for (padding, ciphertext) in &sealed {
        let data = json!({"ciphertext": ciphertext, "padding_scheme": padding});
        assert_eq!(decrypted(&daemon, data).await, MESSAGE, "{padding:?}");
    }
    let plaintext = decrypted(&daemon, json!({"ciphertext": data_key["ciphertext"]})).await;
    assert_eq!(STANDARD.encode(plaintext), data_key["plaintext"].as_str().unwrap());
    // Whatever is wrong, with either padding the answer is the same.
    let far_too_large = json!(format!("vault:v1:{}", STANDARD.encode([0xff; 256])));
    let mut answers = Vec::new();
    for ciphertext in
        [&sealed[0].1, &sealed[4].1, &far_too_large, &json!(format!("vault:v1:{}", STANDARD.encode([7; 256])))]
    {
        for padding in ["oaep", "pkcs1v15"] {
            let data = json!({"ciphertext": ciphertext, "padding_scheme": padding});
            let answer = daemon.ask(Verb::Write, "transit/decrypt/doc", data).await;
            // A PKCS#1 v1.5 decryption may come to random bytes instead, where the token answers so on purpose.
            if answer.status != 200 {
                answers.push((answer.status, answer.json()["errors"].to_string()));
            }
        }
    }
    answers.dedup();
    assert!(answers.len() == 1 && answers[0].0 == 400, "{answers:?}");

    // The next version, and the end of the first.
    daemon.write("transit/keys/doc/rotate", json!({})).await;
    let again = daemon.write("transit/rewrap/doc", json!({"ciphertext": sealed[0].1})).await["ciphertext"].clone();
    assert!(again.as_str().unwrap().starts_with("vault:v2:"));
    assert_eq!(decrypted(&daemon, json!({"ciphertext": again})).await, MESSAGE);
    let least = json!({"min_decryption_version": 2, "min_encryption_version": 2});
    daemon.write("transit/keys/doc/config", least).await;
    daemon.write("transit/keys/doc/trim", json!({"min_available_version": 2})).await;
    assert_eq!(daemon.ask(Verb::Write, "transit/decrypt/doc", json!({"ciphertext": sealed[0].1})).await.status, 400);
    assert_eq!(decrypted(&daemon, json!({"ciphertext": again})).await, MESSAGE);
    assert_eq!(token.listed("privkey").matches("Private Key Object").count(), 2);
}

#[tokio::test]
async fn a_key_that_takes_its_token_long_is_made_once_however_often_it_is_asked_for() {
    let token = Token::new();
    let daemon = started(&token).await;
    // The module is loaded with the first key.
    daemon.write("transit/keys/first", json!({})).await;
    token.steer("delay C_GenerateKeyPair 400ms");
    let kind = json!({"type": "rsa-4096"});
    for _ in 0..2 {
        let early = asked(&daemon, "transit/keys/doc", kind.clone(), Duration::from_millis(50)).await;
        assert_eq!(early.status, 504, "{}", early.json());
    }
    let made = asked(&daemon, "transit/keys/doc", kind, LIMIT).await;
    assert_eq!((made.status, &made.json()["data"]["type"]), (200, &json!("rsa-4096")));
    let signed = daemon.write("transit/sign/doc", json!({"input": ""})).await;
    assert_eq!(raw(&signed["signature"]).len(), 512);
    assert_eq!(token.calls("C_GenerateKeyPair"), 1);
    // So does a rotation go on.
    let early = asked(&daemon, "transit/keys/doc/rotate", json!({}), Duration::from_millis(50)).await;
    assert_eq!(early.status, 504, "{}", early.json());
    let mut rounds = 0;
    while daemon.read("transit/keys/doc").await["latest_version"] != 2 {
        rounds += 1;
        assert!(rounds < 6000, "no rotation");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(token.calls("C_GenerateKeyPair"), 2);
}

#[tokio::test]
async fn a_token_that_makes_no_keys_of_a_size_is_said_to_be_one() {
    let token = Token::new();
    let daemon = started(&token).await;
    // The module is loaded with the first key.
    daemon.write("transit/keys/first", json!({})).await;
    token.steer("fail C_GenerateKeyPair CKR_KEY_SIZE_RANGE first 1");
    let (status, told) = daemon.refused("transit/keys/doc", json!({"type": "rsa-3072"})).await;
    assert!(status == 400 && told.contains("a key of kind rsa-3072") && told.contains("CKR_KEY_SIZE_RANGE"), "{told}");
    wait_for("the end of its registration", || {
        let listed = daemon.cli(&["list", "sys/managed-keys/pkcs11"]);
        (String::from_utf8_lossy(&listed.stdout).matches("mount-").count() == 1).then_some(())
    });
    let made = daemon.write("transit/keys/doc", json!({"type": "rsa-3072"})).await;
    assert_eq!(made["keys"]["1"]["name"], "rsa-3072");
}

#[tokio::test]
async fn an_hmac_key_of_a_mounts_own_makes_each_of_the_hmacs() {
    let token = Token::new();
    let daemon = started(&token).await;
    let made = asked(&daemon, "transit/keys/mac", json!({"type": "hmac"}), LIMIT).await;
    assert!(made.status == 200 && made.json()["warnings"].is_null(), "{}", made.json());
    assert_eq!(made.json()["data"]["key_size"], 64);
    let input = STANDARD.encode(MESSAGE);
    for (hash, bytes) in [("sha2-224", 28), ("sha2-256", 32), ("sha2-384", 48), ("sha2-512", 64)] {
        let by_path = daemon.write(&format!("transit/hmac/mac/{hash}"), json!({"input": input})).await;
        let by_field = daemon.write("transit/hmac/mac", json!({"input": input, "algorithm": hash})).await;
        assert!(by_path == by_field && raw(&by_path["hmac"]).len() == bytes, "{hash} {by_path} {by_field}");
        let check = json!({"input": input, "hmac": by_path["hmac"]});
        assert_eq!(daemon.write(&format!("transit/verify/mac/{hash}"), check.clone()).await["valid"], true);
        assert_eq!(daemon.write("transit/verify/mac", check).await["valid"], hash == "sha2-256", "{hash}");
    }
    let (status, told) = daemon.refused("transit/hmac/mac/sha3-256", json!({"input": input})).await;
    assert!(status == 400 && told.contains("and not with sha3-256"), "{status} {told}");
}

#[tokio::test]
async fn the_framed_protocol_encrypts_with_a_key_that_is_not_there_as_http_does() {
    let token = Token::new();
    let daemon = started(&token).await;
    let framed = daemon.framed().await;
    let request = |key: &str| proto::Encrypt {
        mount: "transit".into(),
        key: key.into(),
        plaintext: MESSAGE.into(),
        ..Default::default()
    };
    let made = framed.encrypt(request("letters")).await.unwrap();
    assert_eq!(daemon.read("transit/keys/letters").await["type"], "aes256-gcm96");
    let text = format!("vault:v1:{}", STANDARD.encode(&made.ciphertext));
    let read = daemon.write("transit/decrypt/letters", json!({"ciphertext": text})).await;
    assert_eq!(read["plaintext"], STANDARD.encode(MESSAGE));
    // An RSA key does all there that it does over HTTP.
    daemon.write("transit/keys/doc", json!({"type": "rsa-2048"})).await;
    for padding in
        [proto::EncryptionPadding::Default, proto::EncryptionPadding::Oaep, proto::EncryptionPadding::Pkcs1v15]
    {
        let made = framed.encrypt(proto::Encrypt { padding: padding.into(), ..request("doc") }).await.unwrap();
        let decrypt = proto::Decrypt {
            mount: "transit".into(),
            key: "doc".into(),
            key_version: made.key_version,
            ciphertext: made.ciphertext,
            padding: padding.into(),
            ..Default::default()
        };
        assert_eq!(framed.decrypt(decrypt).await.unwrap(), MESSAGE, "{padding:?}");
    }
    for padding in [proto::Padding::Default, proto::Padding::Pss, proto::Padding::Pkcs1v15] {
        let sign = proto::Sign {
            mount: "transit".into(),
            key: "doc".into(),
            input: MESSAGE.into(),
            padding: padding.into(),
            ..Default::default()
        };
        let made = framed.sign(sign.clone()).await.unwrap();
        let signed = Some(proto::Sign { key_version: made.key_version, ..sign });
        let verify = proto::Verify { signed, signature: made.signature };
        assert!(framed.verify(verify).await.unwrap(), "{padding:?}");
    }
    daemon.write("transit/config/keys", json!({"disable_upsert": true})).await;
    let told = framed.encrypt(request("others")).await.unwrap_err().to_string();
    assert!(told.contains("encryption key not found"), "{told}");
}
