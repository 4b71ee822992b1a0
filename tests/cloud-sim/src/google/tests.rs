//! Requests in, answers out. What the answers are worth, Google's own client says: `tests/python/google_story.py`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde_json::{Value, json};

use super::*;
use crate::keys::{Hash, Key};

const LOCATION: &str = "projects/p/locations/l";
const RING: &str = "projects/p/locations/l/keyRings/r";

struct Bench {
    google: Google,
    control: Control,
    token: Option<String>,
}

impl Bench {
    fn new(open: bool) -> Bench {
        let options = Options {
            open,
            project: "p".into(),
            service_account: None,
            federated: None,
            key_rings: Vec::new(),
            shortest_destruction: 0,
        };
        let google = Google::new(&options, "http://here").unwrap();
        Bench { google, control: Control::new("google"), token: None }
    }

    async fn ordered(&self, orders: Orders, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let mut request = hyper::http::Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.body(body.into()).unwrap();
        let subject = self.google.subject(&request);
        let response = self.google.serve(request, &subject, orders, &self.control).await;
        let status = response.status().as_u16();
        (status, serde_json::from_slice(response.body()).unwrap_or(Value::Null))
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.ordered(Orders::default(), method, &format!("/v1/{path}"), &body).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(Method::POST, path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn refused(&self, path: &str, body: Value) -> String {
        let (status, answer) = self.ask(Method::POST, path, body).await;
        assert_ne!(status, 200, "{path}: {answer}");
        answer["error"]["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Makes a key in the ring and waits for its first version. Answers the version's name.
    async fn key(&self, id: &str, purpose: &str, algorithm: &str, protection: &str) -> String {
        let _ = self.ask(Method::POST, &format!("{LOCATION}/keyRings?keyRingId=r"), Value::Null).await;
        let template = json!({"algorithm": algorithm, "protectionLevel": protection});
        let body = json!({"purpose": purpose, "versionTemplate": template, "destroyScheduledDuration": "0s"});
        self.post(&format!("{RING}/cryptoKeys?cryptoKeyId={id}"), body).await;
        let version = format!("{RING}/cryptoKeys/{id}/cryptoKeyVersions/1");
        while self.ask(Method::GET, &version, Value::Null).await.1["state"] == "PENDING_GENERATION" {
            tokio::task::yield_now().await;
        }
        version
    }

    fn held(&self, version: &str) -> Arc<Key> {
        Arc::clone(self.google.manager.store.lock().version(version).unwrap().key.as_ref().unwrap())
    }
}

fn coded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn bytes(answer: &Value, name: &str) -> Vec<u8> {
    let bytes = STANDARD.decode(answer[name].as_str().unwrap()).unwrap();
    assert_eq!(answer[format!("{name}Crc32c")], crc32c::crc32c(&bytes).to_string(), "{answer}");
    bytes
}

#[tokio::test]
async fn a_signing_key_signs_what_its_algorithm_says() {
    let bench = Bench::new(true);
    let version = bench.key("k", "ASYMMETRIC_SIGN", "EC_SIGN_P256_SHA256", "SOFTWARE").await;
    let digest = Hash::Sha256.digest(b"message");
    let sign = format!("{version}:asymmetricSign");
    let crc = crc32c::crc32c(&digest).to_string();
    let answer = bench.post(&sign, json!({"digest": {"sha256": coded(&digest)}, "digestCrc32c": crc})).await;
    assert_eq!(answer["verifiedDigestCrc32c"], true);
    assert_eq!(answer["protectionLevel"], "SOFTWARE");
    let key = bench.held(&version);
    assert!(key.verify_digest(crate::keys::Scheme::EcdsaDer, &digest, &bytes(&answer, "signature")).unwrap());

    for body in [
        json!({"digest": {"sha384": coded(&Hash::Sha384.digest(b"m"))}}),
        json!({"digest": {"sha256": coded(&digest[1..])}}),
        json!({"digest": {"sha256": coded(&digest)}, "digestCrc32c": "7"}),
        json!({"digest": {"sha256": coded(&digest)}, "data": coded(b"m")}),
        json!({}),
    ] {
        assert_eq!(bench.refused(&sign, body.clone()).await, "INVALID_ARGUMENT", "{body}");
    }
    assert_eq!(bench.refused(&format!("{version}:macSign"), json!({"data": "YQ"})).await, "FAILED_PRECONDITION");
    assert_eq!(bench.refused(&sign.replace("/1:", "/2:"), json!({})).await, "NOT_FOUND");

    let orders = Orders { wrong_checksum: true, ..Orders::default() };
    let body = json!({"digest": {"sha256": coded(&digest)}, "digestCrc32c": crc32c::crc32c(&digest).to_string()});
    let (_, answer) = bench.ordered(orders, Method::POST, &format!("/v1/{sign}"), &body).await;
    let made = STANDARD.decode(answer["signature"].as_str().unwrap()).unwrap();
    assert!(answer.get("verifiedDigestCrc32c").is_none());
    assert_ne!(answer["signatureCrc32c"], crc32c::crc32c(&made).to_string());
    let orders = Orders { wrong_signature: true, ..Orders::default() };
    let (_, answer) = bench.ordered(orders, Method::POST, &format!("/v1/{sign}"), &body).await;
    assert!(!key.verify_digest(crate::keys::Scheme::EcdsaDer, &digest, &bytes(&answer, "signature")).unwrap());
    let orders = Orders { other_key: true, ..Orders::default() };
    let (_, answer) = bench.ordered(orders, Method::POST, &format!("/v1/{sign}"), &body).await;
    let made = bytes(&answer, "signature");
    assert!(!key.verify_digest(crate::keys::Scheme::EcdsaDer, &digest, &made).unwrap());
    assert!(key.other().unwrap().verify_digest(crate::keys::Scheme::EcdsaDer, &digest, &made).unwrap());
}

#[tokio::test]
async fn versions_go_through_their_states() {
    let bench = Bench::new(true);
    let version = bench.key("k", "MAC", "HMAC_SHA256", "SOFTWARE").await;
    let mac = format!("{version}:macSign");
    let set = async |state: &str| {
        let (status, _) =
            bench.ask(Method::PATCH, &format!("{version}?updateMask=state"), json!({"state": state})).await;
        status
    };
    bench.post(&mac, json!({"data": "YQ=="})).await;
    assert_eq!(set("DISABLED").await, 200);
    let (status, answer) = bench.ask(Method::POST, &mac, json!({"data": "YQ=="})).await;
    assert_eq!((status, answer["error"]["status"].as_str()), (400, Some("FAILED_PRECONDITION")));
    assert_eq!(answer["error"]["details"][0]["violations"][0]["type"], "KEY_DISABLED");
    let message = format!("{version} is not enabled, current state is: DISABLED.");
    assert_eq!(answer["error"]["message"], message.as_str());
    assert_eq!(set("ENABLED").await, 200);
    assert_eq!(set("DESTROYED").await, 400);
    assert_eq!(bench.post(&format!("{version}:destroy"), json!({})).await["state"], "DESTROY_SCHEDULED");
    assert_eq!(bench.ask(Method::GET, &version, Value::Null).await.1["state"], "DESTROYED");
    assert_eq!(bench.refused(&format!("{version}:restore"), json!({})).await, "FAILED_PRECONDITION");
    assert_eq!(bench.refused(&mac, json!({"data": "YQ=="})).await, "FAILED_PRECONDITION");
}

#[tokio::test]
async fn ciphertexts_are_opened_by_the_version_that_made_them() {
    let bench = Bench::new(true);
    let version = bench.key("k", "ENCRYPT_DECRYPT", "GOOGLE_SYMMETRIC_ENCRYPTION", "HSM").await;
    let key = version.split("/cryptoKeyVersions").next().unwrap();
    let first = bench.post(&format!("{key}:encrypt"), json!({"plaintext": coded(b"secret")})).await;
    bench.post(&format!("{key}/cryptoKeyVersions"), json!({})).await;
    bench.post(&format!("{key}:updatePrimaryVersion"), json!({"cryptoKeyVersionId": "2"})).await;
    let aad = coded(b"aad");
    let body = json!({"plaintext": coded(b"secret"), "additionalAuthenticatedData": aad});
    let second = bench.post(&format!("{key}:encrypt"), body).await;
    assert!(second["name"].as_str().unwrap().ends_with("/2"));
    let decrypt = format!("{key}:decrypt");
    let opened = bench.post(&decrypt, json!({"ciphertext": first["ciphertext"]})).await;
    assert_eq!((bytes(&opened, "plaintext"), opened.get("usedPrimary")), (b"secret".to_vec(), None));
    let body = json!({"ciphertext": second["ciphertext"], "additionalAuthenticatedData": aad});
    assert_eq!(bench.post(&decrypt, body).await["usedPrimary"], true);
    assert_eq!(bench.refused(&decrypt, json!({"ciphertext": second["ciphertext"]})).await, "INVALID_ARGUMENT");
    let long = json!({"plaintext": coded(&[0; 8193])});
    assert_eq!(bench.refused(&format!("{key}:encrypt"), long).await, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn raw_encryption_is_of_the_key_alone() {
    let bench = Bench::new(true);
    for (id, algorithm) in [("g", "AES_256_GCM"), ("c", "AES_128_CBC"), ("t", "AES_256_CTR")] {
        let version = bench.key(id, "RAW_ENCRYPT_DECRYPT", algorithm, "SOFTWARE").await;
        let made = bench.post(&format!("{version}:rawEncrypt"), json!({"plaintext": coded(&[7; 32])})).await;
        let body = json!({
            "ciphertext": made["ciphertext"],
            "initializationVector": made["initializationVector"],
            "tagLength": made["tagLength"],
        });
        let opened = bench.post(&format!("{version}:rawDecrypt"), body).await;
        assert_eq!(bytes(&opened, "plaintext"), [7; 32], "{algorithm}");
    }
}

#[tokio::test]
async fn what_somebody_else_did_to_a_key_holds() {
    let bench = Bench::new(true);
    let version = bench.key("k", "ASYMMETRIC_SIGN", "EC_SIGN_ED25519", "SOFTWARE").await;
    let body = json!({"data": "YQ=="});
    let steer = |state: &str| {
        let key = version.split("/cryptoKeyVersions").next().unwrap();
        let order = json!({"state": state}).to_string();
        bench.control.order(Method::PUT, &format!("/keys/{key}"), &order);
    };
    let sign = format!("{version}:asymmetricSign");
    assert_eq!(bytes(&bench.post(&sign, body.clone()).await, "signature").len(), 64);
    steer("revoked");
    assert_eq!(bench.refused(&sign, body.clone()).await, "PERMISSION_DENIED");
    steer("pending-deletion");
    assert_eq!(bench.refused(&sign, body.clone()).await, "FAILED_PRECONDITION");
    assert_eq!(bench.ask(Method::GET, &version, Value::Null).await.1["state"], "DESTROY_SCHEDULED");
    steer("enabled");
    bench.post(&sign, body).await;
}

#[tokio::test]
async fn nobody_comes_in_without_a_token_and_no_token_lasts() {
    let mut bench = Bench::new(false);
    let path = format!("{LOCATION}/keyRings");
    let (status, answer) = bench.ask(Method::GET, &path, Value::Null).await;
    assert_eq!((status, answer["error"]["status"].as_str()), (401, Some("UNAUTHENTICATED")));
    let request = || hyper::http::Request::builder().uri("/computeMetadata/v1/instance/service-accounts/default/token");
    let plain = request().body(bytes::Bytes::new()).unwrap();
    assert_eq!(bench.google.tokens.answer("metadataToken", &plain, &bench.control).status(), 403);
    let flavoured = request().header("metadata-flavor", "Google").body(bytes::Bytes::new()).unwrap();
    let given = bench.google.tokens.answer("metadataToken", &flavoured, &bench.control);
    let given: Value = serde_json::from_slice(given.body()).unwrap();
    bench.token = given["access_token"].as_str().map(str::to_owned);
    assert_eq!(bench.ask(Method::GET, &path, Value::Null).await.0, 200);
    bench.control.order(Method::POST, "/tokens/expire", "");
    let (status, answer) = bench.ask(Method::GET, &path, Value::Null).await;
    assert_eq!((status, answer["error"]["details"][0]["reason"].as_str()), (401, Some("ACCESS_TOKEN_EXPIRED")));
    bench.token = Some("made.up.token".into());
    assert_eq!(bench.ask(Method::GET, &path, Value::Null).await.0, 401);
}
