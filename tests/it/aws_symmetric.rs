//! Keys of AWS KMS that encrypt: what symmetric ones do and are known again by, and how RSA's are told which padding is meant.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway::crypto;
use keyway::model::{CHECK_ASSOCIATED_DATA, ENVELOPE_ASSOCIATED_DATA, SecretBytes, Verb};
use serde_json::{Value, json};

use crate::cloud_rig::AwsRig;
use crate::daemon::{LIMIT, Setup};

/// What a registration says of one, beside its name.
fn symmetric() -> Value {
    json!({"key_type": "symmetric", "curve": ""})
}

fn with(more: Value) -> Value {
    let mut fields = symmetric();
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fields
}

/// Decrypts until that answers with this status; then what it says.
async fn until_decrypts(aws: &AwsRig, name: &str, asked: &Value, status: u16) -> Value {
    let begun = std::time::Instant::now();
    loop {
        let answer = aws.rig.ask("", Verb::Write, &format!("transit/decrypt/{name}"), asked.clone()).await;
        let said = answer.json();
        if answer.status == status {
            return said;
        }
        assert!(begun.elapsed() < LIMIT, "{name}: {} {said}", answer.status);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn they_encrypt_with_associated_data_and_in_envelopes() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    let daemon = &aws.rig.daemon;
    aws.key("sym", symmetric()).await;
    let shown = daemon.read("sys/managed-keys/awskms/sym").await;
    assert_eq!((&shown["key_type"], &shown["key_bits"]), (&json!("SYMMETRIC"), &json!(256)));
    assert_eq!((&shown["encryption_mode"], &shown["usages"]), (&json!("raw"), &json!(["encrypt", "decrypt"])));
    let plaintext = STANDARD.encode(vec![7; 4096]);
    let aad = STANDARD.encode("whose it is");
    let asked = json!({"plaintext": plaintext, "associated_data": aad});
    let made = daemon.write("transit/encrypt/sym", asked.clone()).await;
    assert_ne!(daemon.write("transit/encrypt/sym", asked).await["ciphertext"], made["ciphertext"]);
    let asked = json!({"ciphertext": made["ciphertext"], "associated_data": aad});
    assert_eq!(daemon.write("transit/decrypt/sym", asked.clone()).await["plaintext"], plaintext);
    for (field, value) in [
        ("associated_data", json!("")),
        ("associated_data", json!(STANDARD.encode("another's"))),
        ("nonce", json!(STANDARD.encode([7; 12]))),
        ("ciphertext", json!(made["ciphertext"].as_str().unwrap().replacen("vault:v1:", "vault:v1:AAAA", 1))),
    ] {
        let mut wrong = asked.clone();
        wrong[field] = value;
        let (status, told) = daemon.refused("transit/decrypt/sym", wrong).await;
        assert_eq!(status, 400, "{field}: {told}");
    }
    let long = STANDARD.encode(vec![7; 4097]);
    let (status, told) = daemon.refused("transit/encrypt/sym", json!({ "plaintext": long })).await;
    assert!(status == 413 && told.contains("at most 4096 bytes") && told.contains("envelope"), "{status} {told}");
    let wrapped = daemon.write("transit/datakey/plaintext/sym", json!({})).await;
    let opened = json!({"ciphertext": wrapped["ciphertext"]});
    assert_eq!(daemon.write("transit/decrypt/sym", opened).await["plaintext"], wrapped["plaintext"]);

    // In envelopes it may be of any length, and what was made in the other way is opened in either.
    aws.managed_key("sym", with(json!({"encryption_mode": "envelope"}))).await;
    assert_eq!(daemon.write("transit/decrypt/sym", asked.clone()).await["plaintext"], plaintext);
    let long = STANDARD.encode(vec![7; 100_000]);
    let sent = json!({"plaintext": long, "associated_data": aad});
    let enclosed = daemon.write("transit/encrypt/sym", sent).await;
    let mut asked = json!({"ciphertext": enclosed["ciphertext"], "associated_data": aad});
    assert_eq!(daemon.write("transit/decrypt/sym", asked.clone()).await["plaintext"], long);
    aws.managed_key("sym", symmetric()).await;
    assert_eq!(daemon.write("transit/decrypt/sym", asked.clone()).await["plaintext"], long);
    asked["associated_data"] = STANDARD.encode("another's").into();
    assert_eq!(daemon.refused("transit/decrypt/sym", asked).await.0, 400);
    let (status, told) = daemon.refused("sys/managed-keys/awskms/sym/test/sign", json!({})).await;
    assert_eq!(status, 400, "{told}");
}

#[tokio::test]
async fn whoever_has_a_data_key_makes_no_envelope_of_it() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    let daemon = &aws.rig.daemon;
    aws.key("sym", with(json!({"encryption_mode": "envelope"}))).await;
    let bytes = |text: &Value| {
        let text = text.as_str().unwrap();
        STANDARD.decode(text.rsplit(':').next().unwrap()).unwrap()
    };
    let send = |made: &[u8]| json!({"ciphertext": format!("vault:v1:{}", STANDARD.encode(made))});
    // An envelope's own key is no message that a client may have decrypted.
    let made = daemon.write("transit/encrypt/sym", json!({"plaintext": "c2VjcmV0"})).await;
    let (wrapped, _) = crypto::split_marked_envelope(&bytes(&made["ciphertext"]).into()).unwrap();
    assert_eq!(daemon.refused("transit/decrypt/sym", send(&wrapped)).await.0, 400);
    aws.managed_key("sym", symmetric()).await;
    let key = daemon.write("transit/datakey/plaintext/sym", json!({})).await;
    let (value, wrapped) = (bytes(&key["plaintext"]), bytes(&key["ciphertext"]));
    assert_eq!(bytes(&daemon.write("transit/decrypt/sym", send(&wrapped)).await["plaintext"]), value);
    let forged = SecretBytes::new(b"forged".to_vec());
    let forged = crypto::seal_marked_envelope(&SecretBytes::new(value), &wrapped, Default::default(), forged).unwrap();
    assert_eq!(daemon.refused("transit/decrypt/sym", send(&forged)).await.0, 400);
    // Nor is what tells them apart anybody's to give.
    for own in [CHECK_ASSOCIATED_DATA, ENVELOPE_ASSOCIATED_DATA] {
        let mut asked = send(&wrapped);
        asked["associated_data"] = STANDARD.encode(own).into();
        asked["plaintext"] = "c2VjcmV0".into();
        for path in ["transit/encrypt/sym", "transit/decrypt/sym", "transit/datakey/plaintext/sym"] {
            let (status, told) = daemon.refused(path, asked.clone()).await;
            assert!(status == 400 && told.contains("Keyway's own"), "{path}: {status} {told}");
        }
    }
}

#[tokio::test]
async fn one_is_known_again_by_what_it_opens() {
    let more = "kms_service \"awskms\" {\n endpoints = [\"team\"]\n}\n\
                limits {\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n}\n";
    let Some(aws) = AwsRig::emulated(Setup { more, ..Setup::default() }).await else { return };
    aws.key("sym", symmetric()).await;
    let made = aws.rig.daemon.write("transit/encrypt/sym", json!({"plaintext": "c2VjcmV0"})).await;
    let asked = json!({"ciphertext": made["ciphertext"]});
    let aws = aws.restart();
    assert_eq!(until_decrypts(&aws, "sym", &asked, 200).await["data"]["plaintext"], "c2VjcmV0");

    // Another namespace's, by whatever name: it is the one that has it.
    let found = aws.ask_kms("eu-west-1", "DescribeKey", &json!({"KeyId": "alias/sym"}));
    let own = found["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    aws.rig.write("", "sys/namespaces/team", json!({})).await;
    let theirs = with(json!({
        "kms_key": own, "region": "eu-west-1", "endpoint": aws.cloud.url, "access_key": "AKIDTEST", "secret_key": "secret",
        "any_mount": true,
    }));
    aws.rig.write("team", "sys/managed-keys/awskms/theirs", theirs).await;
    aws.rig.write("team", "sys/mounts/transit", json!({"type": "transit"})).await;
    let key = json!({"type": "managed_key", "managed_key_name": "theirs"});
    let refused = aws.rig.ask("team", Verb::Write, "transit/keys/theirs", key).await;
    let told = refused.json()["errors"][0].to_string();
    assert!(refused.status == 400 && told.contains("no such key for this namespace"), "{} {told}", refused.status);

    // The alias leads to another key: that opens nothing of this one's, and is not taken for it.
    let other = aws.ask_kms("eu-west-1", "CreateKey", &json!({}))["KeyMetadata"]["KeyId"].clone();
    aws.ask_kms("eu-west-1", "UpdateAlias", &json!({"AliasName": "alias/sym", "TargetKeyId": other}));
    let aws = aws.restart();
    let told = until_decrypts(&aws, "sym", &asked, 500).await.to_string();
    assert!(told.contains("another key"), "{told}");
    aws.ask_kms("eu-west-1", "UpdateAlias", &json!({"AliasName": "alias/sym", "TargetKeyId": own}));
    until_decrypts(&aws, "sym", &asked, 200).await;
}

/// What was proven as it was found stands in all sessions.
#[tokio::test]
async fn a_burst_costs_no_proof_for_each_session() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    aws.key("sym", symmetric()).await;
    let (opened, plain) = (aws.cloud.asked("Decrypt"), vec![json!({"plaintext": "c2VjcmV0"}); 64]);
    let made = aws.rig.daemon.write("transit/encrypt/sym", json!({ "batch_input": plain })).await;
    assert_eq!(made["batch_results"].as_array().unwrap().len(), 64);
    let sessions = aws.rig.sum("keyway_sessions", &[]);
    assert!(sessions > 1.0, "{sessions}");
    assert_eq!((aws.cloud.asked("Decrypt"), aws.cloud.asked("Encrypt")), (opened, 65));
}

#[tokio::test]
async fn copies_of_a_multi_region_key_are_one_and_others_are_not() {
    let Some((aws, there)) = AwsRig::two_regions(Setup::default()).await else { return };
    let made = aws.ask_kms("eu-west-1", "CreateKey", &json!({"MultiRegion": true}));
    let id = made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    aws.ask_kms("eu-west-1", "ReplicateKey", &json!({"KeyId": id, "ReplicaRegion": "eu-central-1"}));
    let fields = |replica: Value| with(json!({"kms_key": id, "allow_generate_key": false, "replicas": [replica]}));
    aws.key("sym", fields(json!({"region": "eu-central-1", "endpoint": there.url}))).await;
    // What either encrypts the other opens: no matter which is asked. Many at once, so that both are.
    let plain = vec![json!({"plaintext": "c2VjcmV0"}); 32];
    let begun = std::time::Instant::now();
    while ["Encrypt", "Decrypt"].iter().any(|call| aws.cloud.asked(call) < 12 || there.asked(call) < 12) {
        let made = aws.rig.daemon.write("transit/encrypt/sym", json!({ "batch_input": plain })).await;
        let made = made["batch_results"].as_array().unwrap();
        let sealed: Vec<Value> = made.iter().map(|made| json!({"ciphertext": made["ciphertext"]})).collect();
        let opened = aws.rig.daemon.write("transit/decrypt/sym", json!({ "batch_input": sealed })).await;
        let opened = opened["batch_results"].as_array().unwrap();
        assert!(opened.len() == 32 && opened.iter().all(|one| one["plaintext"] == "c2VjcmV0"), "{opened:?}");
        assert!(begun.elapsed() < LIMIT, "one region alone is asked");
    }
    // A key that is none of its copies opens nothing of it.
    let other = aws.ask_kms("eu-central-1", "CreateKey", &json!({}))["KeyMetadata"]["KeyId"].clone();
    let replica = json!({"region": "eu-central-1", "endpoint": there.url, "kms_key": other});
    aws.managed_key("stranger", fields(replica)).await;
    let key = json!({"type": "managed_key", "managed_key_name": "stranger"});
    let (status, told) = aws.rig.daemon.refused("transit/keys/stranger", key).await;
    assert!(status == 500 && told.contains("hold different keys"), "{status} {told}");
}

#[tokio::test]
async fn a_server_of_a_namespaces_own_claims_no_key_of_others() {
    let more = "kms_service \"awskms\" {\n endpoints = [\"team\"]\n}\n";
    let Some((aws, there)) = AwsRig::two_regions(Setup { more, ..Setup::default() }).await else { return };
    let made = aws.ask_kms("eu-west-1", "CreateKey", &json!({}));
    let id = made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    // Whoever answers there says that it is that very key, and does all that it is asked.
    aws.rig.write("", "sys/namespaces/team", json!({})).await;
    let theirs = with(json!({
        "kms_key": id, "region": "eu-west-1", "endpoint": there.url, "access_key": "AKIDTEST", "secret_key": "secret",
        "any_mount": true,
    }));
    aws.rig.write("team", "sys/managed-keys/awskms/theirs", theirs).await;
    aws.rig.write("team", "sys/mounts/transit", json!({"type": "transit"})).await;
    let key = json!({"type": "managed_key", "managed_key_name": "theirs"});
    aws.rig.write("team", "transit/keys/theirs", key).await;
    aws.key("sym", with(json!({"kms_key": id, "allow_generate_key": false}))).await;
    let made = aws.rig.daemon.write("transit/encrypt/sym", json!({"plaintext": "c2VjcmV0"})).await;
    let asked = json!({"ciphertext": made["ciphertext"]});
    assert_eq!(aws.rig.daemon.write("transit/decrypt/sym", asked).await["plaintext"], "c2VjcmV0");
}

#[tokio::test]
async fn an_rsa_key_decrypts_by_the_hash_that_it_is_registered_with() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    let daemon = &aws.rig.daemon;
    let rsa = |hash: &str| json!({"key_type": "RSA", "key_bits": 2048, "usages": "encrypt,decrypt", "curve": "", "rsa_oaep_hash": hash});
    for (hash, longest) in [("sha256", 190), ("sha1", 214)] {
        aws.key(hash, rsa(hash)).await;
        assert_eq!(daemon.read(&format!("sys/managed-keys/awskms/{hash}")).await["rsa_oaep_hash"], hash);
        let document = daemon.read(&format!("transit/keys/{hash}")).await;
        assert_eq!(document["keys"]["1"]["rsa_oaep_hash"], hash);
        let encrypt = format!("transit/encrypt/{hash}");
        let plaintext = STANDARD.encode(vec![7; longest]);
        let made = daemon.write(&encrypt, json!({ "plaintext": plaintext })).await;
        let asked = json!({"ciphertext": made["ciphertext"]});
        assert_eq!(daemon.write(&format!("transit/decrypt/{hash}"), asked).await["plaintext"], plaintext);
        let asked = json!({"plaintext": STANDARD.encode(vec![7; longest + 1])});
        assert_eq!(daemon.refused(&encrypt, asked).await.0, 400);
    }
    // What was encrypted so would be lost.
    let mut other = rsa("sha256");
    other["kms_key"] = "alias/sha1".into();
    for (field, value) in [("endpoint", &*aws.cloud.url), ("region", "eu-west-1"), ("access_key", "AKIDTEST")] {
        other[field] = value.into();
    }
    other["secret_key"] = "secret".into();
    let (status, told) = daemon.refused("sys/managed-keys/awskms/sha1", other).await;
    assert_eq!(status, 400, "{told}");
}
