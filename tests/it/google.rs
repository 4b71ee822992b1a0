//! What is Google's own of keys in Cloud KMS: algorithms that say all, its states and errors, checksums, its identities.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::cloud_rig::{CloudRig, RING, google, google_fields, google_files, google_setup};
use crate::daemon::{Daemon, LIMIT};
use crate::token::Token;

const P256: &str = "EC_SIGN_P256_SHA256";

/// Says something to the service itself, by a token of its metadata server.
fn say(rig: &CloudRig, method: &str, path: &str, body: &Value) {
    let ask = |method: &str, path: &str, header: (&str, &str), body: &str| {
        let (status, answer) = crate::clouds::client::ask(rig.cloud.address(), method, path, &[header], body).unwrap();
        assert_eq!(status, 200, "{method} {path}: {answer}");
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let of_metadata = "/computeMetadata/v1/instance/service-accounts/default/token";
    let token = ask("GET", of_metadata, ("Metadata-Flavor", "Google"), "");
    let header = format!("Bearer {}", token["access_token"].as_str().unwrap());
    ask(method, &format!("/v1/{path}"), ("Authorization", &header), &body.to_string());
}

fn path(name: &str) -> String {
    format!("sys/managed-keys/gcpckms/{name}")
}

#[tokio::test]
async fn a_key_of_another_algorithm_is_another_key() {
    let rig = CloudRig::google("").await;
    rig.managed_key("doc", json!({"algorithm": "RSA_SIGN_PKCS1_3072_SHA256"})).await;
    rig.daemon.write(&format!("{}/test/sign", path("doc")), json!({})).await;
    let named = json!({"crypto_key": "doc", "algorithm": "RSA_SIGN_PSS_3072_SHA256", "allow_generate_key": false});
    rig.managed_key("wrong", named).await;
    let (_, found) = rig.daemon.refused(&format!("{}/test/sign", path("wrong")), json!({})).await;
    assert!(found.contains("it is RSA_SIGN_PKCS1_3072_SHA256 and registered as RSA_SIGN_PSS_3072_SHA256"), "{found}");
}

#[tokio::test]
async fn a_symmetric_key_takes_as_much_as_an_hsm_does_and_any_length_in_envelopes() {
    let rig = CloudRig::google("").await;
    let symmetric = json!({"algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION"});
    rig.key("symmetric", symmetric.clone()).await;
    rig.key("gcm", json!({"algorithm": "AES_256_GCM"})).await;
    let aad = STANDARD.encode("whose it is");
    for name in ["symmetric", "gcm"] {
        let asked = json!({"plaintext": STANDARD.encode(vec![7; 8192 - 11]), "associated_data": aad});
        rig.daemon.write(&format!("transit/encrypt/{name}"), asked).await;
        let asked = json!({"plaintext": STANDARD.encode(vec![7; 8192]), "associated_data": aad});
        let (status, told) = rig.daemon.refused(&format!("transit/encrypt/{name}"), asked).await;
        assert!(status == 413 && told.contains("at most 8192 bytes with its associated data"), "{status} {told}");
    }
    let mut enclosing = symmetric;
    enclosing["encryption_mode"] = "envelope".into();
    rig.managed_key("symmetric", enclosing).await;
    let long = STANDARD.encode(vec![7; 100_000]);
    let made = rig.daemon.write("transit/encrypt/symmetric", json!({ "plaintext": long })).await;
    let asked = json!({"ciphertext": made["ciphertext"]});
    assert_eq!(rig.daemon.write("transit/decrypt/symmetric", asked).await["plaintext"], long);
    let raw_alone = rig.fields("gcm", &json!({"algorithm": "AES_256_GCM", "encryption_mode": "envelope"}));
    let (status, told) = rig.daemon.refused(&path("gcm"), raw_alone).await;
    assert!(status == 400 && told.contains("encryption_mode"), "{status} {told}");
}

#[tokio::test]
async fn keys_whose_ciphertexts_never_repeat_are_known_by_what_they_open() {
    let rig = CloudRig::google("").await;
    let mut made = Vec::new();
    for (name, algorithm) in [("symmetric", "GOOGLE_SYMMETRIC_ENCRYPTION"), ("gcm", "AES_256_GCM")] {
        rig.key(name, json!({ "algorithm": algorithm })).await;
        let sealed = rig.daemon.write(&format!("transit/encrypt/{name}"), json!({"plaintext": "c2VjcmV0"})).await;
        made.push((name, json!({"ciphertext": sealed["ciphertext"]})));
    }
    // A version that comes after is not the one that encrypts, and what is made later is opened by the same.
    say(&rig, "POST", &format!("{RING}/cryptoKeys/symmetric/cryptoKeyVersions"), &json!({}));
    let opened_before = [rig.cloud.asked("decrypt"), rig.cloud.asked("rawDecrypt")];
    let rig = rig.restart();
    for (name, asked) in &made {
        let begun = Instant::now();
        loop {
            let answer = rig.daemon.ask(Verb::Write, &format!("transit/decrypt/{name}"), asked.clone()).await;
            if answer.status == 200 {
                assert_eq!(answer.json()["data"]["plaintext"], "c2VjcmV0");
                break;
            }
            assert!(begun.elapsed() < LIMIT, "{name}: {}", answer.json());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // The proof, and what was asked.
    let opened = [rig.cloud.asked("decrypt"), rig.cloud.asked("rawDecrypt")];
    assert!(opened[0] >= opened_before[0] + 2 && opened[1] >= opened_before[1] + 2, "{opened_before:?} {opened:?}");
}

#[tokio::test]
async fn what_is_to_be_destroyed_says_when_and_can_be_had_back() {
    let rig = CloudRig::google("").await;
    rig.key("ill", json!({})).await;
    rig.key("well", json!({})).await;
    let version = format!("{RING}/cryptoKeys/ill/cryptoKeyVersions/1");
    let state = format!("{version}?updateMask=state");
    say(&rig, "PATCH", &state, &json!({"state": "DISABLED"}));
    rig.until_refused("ill", "it is disabled: enable it").await;
    say(&rig, "PATCH", &state, &json!({"state": "ENABLED"}));
    rig.until_signs("ill").await;
    say(&rig, "POST", &format!("{version}:destroy"), &json!({}));
    rig.until_refused("ill", "it is to be destroyed at 2").await;
    assert_eq!(rig.sign("well").await.0, 200);
    // A restored version is disabled.
    say(&rig, "POST", &format!("{version}:restore"), &json!({}));
    say(&rig, "PATCH", &state, &json!({"state": "ENABLED"}));
    rig.until_signs("ill").await;
    let log = rig.daemon.log();
    let told = log.lines().filter(|line| line.contains("A KEY IN A CLOUD IS OUT OF USE"));
    assert_eq!(told.filter(|line| line.contains("it is to be destroyed")).count(), 1, "{log}");
}

#[tokio::test]
async fn a_checksum_that_stays_wrong_is_told_as_such() {
    let rig = CloudRig::google("").await;
    rig.key("doc", json!({})).await;
    rig.cloud.fault(&json!({"trouble": {"kind": "wrong-checksum"}, "operation": "asymmetricSign"}));
    assert_eq!(rig.until_refused("doc", "checksum").await, 503);
    rig.cloud.reset();
    rig.until_signs("doc").await;
    // A permission that is gone for a moment.
    rig.cloud.fault(&json!({"trouble": {"kind": "status", "status": 403}, "operation": "asymmetricSign"}));
    rig.until_refused("doc", "PERMISSION_DENIED").await;
    rig.cloud.reset();
    rig.until_signs("doc").await;
}

#[tokio::test]
async fn credentials_are_refused_and_lent_as_is_right() {
    let rig = CloudRig::google("").await;
    let contents = std::fs::read_to_string(&google_files(&rig.token)[0]).unwrap();
    let mut given = rig.fields("doc", &json!({}));
    given["credentials"] = contents.as_str().into();
    rig.key("doc", given.clone()).await;
    rig.until_signs("doc").await;
    // A token that the account's own key signs says when it ends.
    let labels = [("service", "gcpckms"), ("owner", "managed_key")];
    assert!(rig.sum("keyway_service_credentials_left_seconds", &labels) > 0.0);
    // Nothing of the private key is told, whatever is asked for or goes wrong.
    let inner = serde_json::from_str::<Value>(&contents).unwrap()["private_key"].as_str().unwrap()[40..80].to_owned();
    assert!(!rig.daemon.read(&path("doc")).await.to_string().contains(&inner));
    rig.cloud.steer("PUT", "/tokens", &json!({"refuse": true}));
    let status = rig.until_refused("doc", "UNAUTHENTICATED").await;
    assert!([403, 500, 503].contains(&status), "{status}");
    assert!(!rig.daemon.log().contains(&inner));
    rig.cloud.reset();
    rig.until_signs("doc").await;
    // A tenant has neither the daemon's identity, nor files of its host, nor an endpoint of its choice.
    rig.daemon.write("sys/namespaces/team", json!({})).await;
    let mut http = rig.daemon.http();
    http.namespace = Some("team".to_owned());
    let mut ask = async |change: Value| {
        let mut fields = given.clone();
        fields.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = http.request(Verb::Write, &path("doc"), fields.as_object().unwrap()).await.unwrap();
        (answer.status, answer.json()["errors"][0].to_string())
    };
    let (status, told) = ask(json!({})).await;
    assert!(status == 400 && told.contains("may not name an endpoint"), "{status} {told}");
    let [account, federated] = google_files(&rig.token);
    let service_account = "must be the contents of a service account's file";
    for (credentials, expected) in [
        ("".to_owned(), "may not use the daemon's own credentials"),
        (account.to_str().unwrap().to_owned(), service_account),
        (std::fs::read_to_string(federated).unwrap(), service_account),
    ] {
        let (status, told) = ask(json!({"endpoint": "", "credentials": credentials})).await;
        assert!(status == 400 && told.contains(expected), "{status} {told}");
    }
}

#[tokio::test]
async fn the_daemons_own_identity_is_that_of_its_environment() {
    let token = Token::absent();
    let cloud = google(&token, None);
    let [account, federated] = google_files(&token).map(|file| file.to_str().unwrap().to_owned());
    for environment in [
        vec![("GOOGLE_CREDENTIALS", std::fs::read_to_string(&account).unwrap())],
        vec![("GOOGLE_APPLICATION_CREDENTIALS", account)],
        vec![("GOOGLE_CREDENTIALS", federated.clone())],
        vec![("GOOGLE_APPLICATION_CREDENTIALS", federated)],
        vec![("GCE_METADATA_HOST", cloud.address().to_owned()), ("HOME", "/nowhere".to_owned())],
    ] {
        let token = Token::absent();
        let daemon = Daemon::with(&token, google_setup("", &environment)).await;
        let mut asked = google_fields(&cloud, "own", P256, None);
        asked.as_object_mut().unwrap().remove("credentials");
        daemon.write(&path("own"), asked).await;
        daemon.write(&format!("{}/test/sign", path("own")), json!({})).await;
        assert_eq!(daemon.read(&path("own")).await["credentials"], "", "{environment:?}");
        // A token that the service no longer takes is replaced, and nobody notices.
        cloud.steer("POST", "/tokens/expire", &Value::Null);
        let begun = Instant::now();
        let again = async || {
            let answer = daemon.ask(Verb::Write, &format!("{}/test/sign", path("own")), json!({})).await;
            answer.status < 300
        };
        while !again().await {
            assert!(begun.elapsed() < LIMIT, "{environment:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(cloud.asked("exchangeToken") >= 2);
    assert!(cloud.asked("metadataToken") >= 1);
}

#[tokio::test]
async fn a_stranger_on_the_way_is_no_service() {
    let token = Token::absent();
    let ca = token.folder.path().join("google.pem");
    let cloud = google(&token, Some(&ca));
    let daemon = Daemon::with(&token, google_setup(&format!("ca_file = {ca:?}"), &[])).await;
    let [account, _] = google_files(&token);
    daemon.write(&path("doc"), google_fields(&cloud, "doc", P256, Some(&account))).await;
    let sign = format!("{}/test/sign", path("doc"));
    daemon.write(&sign, json!({})).await;
    for kind in ["tls-stranger", "tls-abort"] {
        cloud.fault(&json!({"trouble": {"kind": kind}}));
        cloud.steer("POST", "/connections/drop", &Value::Null);
        let begun = Instant::now();
        loop {
            let answer = daemon.ask(Verb::Write, &sign, json!({})).await;
            if answer.status == 503 && answer.json()["errors"][0].to_string().contains("cannot be reached") {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "{kind}: {}", answer.status);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cloud.reset();
        let begun = Instant::now();
        while daemon.ask(Verb::Write, &sign, json!({})).await.status >= 300 {
            assert!(begun.elapsed() < LIMIT, "{kind}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for result in ["ok", "failed"] {
        let line = format!("keyway_service_connections_total{{service=\"gcpckms\",result=\"{result}\"}}");
        assert!(daemon.metric(&line) >= 2.0, "{result}");
    }
}

#[tokio::test]
async fn fields_are_checked_when_they_are_written() {
    let rig = CloudRig::google("").await;
    for (change, told) in [
        (json!({"algorithm": "EC_SIGN_P257_SHA256"}), "invalid signature algorithm"),
        (json!({"algorithm": ""}), "algorithm"),
        (json!({"project": ""}), "project"),
        (json!({"project": "../other"}), "project"),
        (json!({"project": ".."}), "project"),
        (json!({"region": "a/b"}), "region"),
        (json!({"key_ring": ""}), "key_ring"),
        (json!({"key_ring": "a/cryptoKeys/b"}), "key_ring"),
        (json!({"crypto_key": "a:b"}), "crypto_key"),
        (json!({"crypto_key_version": "one"}), "crypto_key_version"),
        (json!({"crypto_key_version": "2"}), "must be \"1\" where allow_generate_key is set"),
        (json!({"credentials": "account.json"}), "neither the contents of a credential file nor its whole path"),
        (json!({"credentials": "{\"type\": \"hidden\"}"}), "no type that is known"),
        (json!({"credentials": "{\"private_key\": \"hidden\""}), "no JSON of a credential file"),
        (json!({"endpoint": "ftp://127.0.0.1"}), "endpoint"),
        (json!({"usages": "mac"}), "usages"),
    ] {
        let mut fields = rig.fields("doc", &json!({}));
        fields.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, found) = rig.daemon.refused(&path("doc"), fields).await;
        assert!(status == 400 && found.contains(told) && !found.contains("hidden"), "{change}: {status} {found}");
    }
}
