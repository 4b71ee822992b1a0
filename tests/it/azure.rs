//! What is Azure's own of keys in Key Vault and Managed HSM: envelopes, its states and errors, its identities.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::cloud_rig::{CloudRig, SECRET, TENANT, azure, azure_setup};
use crate::daemon::Daemon;
use crate::token::Token;

#[tokio::test]
async fn what_is_encrypted_is_in_envelopes_unless_it_is_told_otherwise() {
    let rig = CloudRig::azure("").await;
    let rsa = json!({"key_type": "RSA-HSM", "key_bits": 2048, "usages": "encrypt,decrypt"});
    rig.key("doc", rsa.clone()).await;
    let (path, encrypt, decrypt) = (rig.path("doc"), "transit/encrypt/doc", "transit/decrypt/doc");
    assert_eq!(rig.daemon.read(&path).await["encryption_mode"], "envelope");
    // Of any length, and with associated data.
    let (long, aad) = (STANDARD.encode(vec![7; 100_000]), STANDARD.encode("aad"));
    let made = rig.daemon.write(encrypt, json!({"plaintext": long, "associated_data": aad})).await;
    let mut asked = json!({"ciphertext": made["ciphertext"], "associated_data": aad});
    assert_eq!(rig.daemon.write(decrypt, asked.clone()).await["plaintext"], long);
    asked["associated_data"] = STANDARD.encode("other").into();
    assert_eq!(rig.daemon.refused(decrypt, asked.clone()).await.0, 400);
    // With the key itself, if told so; and what is in envelopes is opened all the same.
    let mut raw = rig.fields("doc", &rsa);
    raw["encryption_mode"] = "raw".into();
    rig.daemon.write(&path, raw).await;
    let short = STANDARD.encode("short");
    let made = rig.daemon.write(encrypt, json!({ "plaintext": short })).await;
    let bytes = STANDARD.decode(made["ciphertext"].as_str().unwrap().trim_start_matches("vault:v1:")).unwrap();
    assert_eq!(bytes.len(), 256);
    assert_eq!(rig.daemon.write(decrypt, json!({"ciphertext": made["ciphertext"]})).await["plaintext"], short);
    asked["associated_data"] = aad.into();
    assert_eq!(rig.daemon.write(decrypt, asked).await["plaintext"], long);
}

#[tokio::test]
async fn a_stranger_on_the_way_is_no_service() {
    let rig = CloudRig::azure("").await;
    rig.key("doc", json!({})).await;
    for kind in ["tls-abort", "tls-stranger", "refuse"] {
        rig.cloud.fault(&json!({"trouble": {"kind": kind}}));
        rig.cloud.steer("POST", "/connections/drop", &Value::Null);
        assert_eq!(rig.until_refused("doc", "cannot be reached").await, 503, "{kind}");
        rig.cloud.reset();
        rig.until_signs("doc").await;
    }
}

#[tokio::test]
async fn credentials_are_renewed_refused_and_lent_as_is_right() {
    let rig = CloudRig::azure("").await;
    rig.key("doc", json!({})).await;
    // A token that the service no longer takes is replaced, and nobody notices.
    rig.cloud.steer("POST", "/tokens/expire", &Value::Null);
    assert_eq!(rig.sign("doc").await.0, 200);
    // A wrong secret is told as such, and no secret is in the log.
    let wrong = rig.fields("other", &json!({"key_type": "EC", "curve": "P256", "client_secret": "not right"}));
    rig.daemon.write(&rig.path("wrong"), wrong).await;
    let (status, told) = rig.daemon.refused(&format!("{}/test/sign", rig.path("wrong")), json!({})).await;
    assert!(told.contains("AADSTS7000215"), "{status} {told}");
    let log = rig.daemon.log();
    assert!(!log.contains("not right") && !log.contains(SECRET), "{log}");
    // A kept one goes nowhere that it was not given for.
    for (field, other) in [("endpoint", "https://elsewhere.example"), ("tenant_id", "other"), ("client_id", "other")] {
        let mut fields = rig.fields("doc", &json!({}));
        fields["client_secret"] = "redacted".into();
        fields[field] = other.into();
        let (status, told) = rig.daemon.refused(&rig.path("doc"), fields).await;
        let expected = format!("{field} cannot change while client_secret is kept");
        assert!(status == 400 && told.contains(&expected), "{field}: {status} {told}");
    }
    // How long its tokens are good is seen, by no secret.
    let identity = format!("app of {TENANT}");
    let labels = [("service", "azurekeyvault"), ("owner", "managed_key"), ("identity", &*identity)];
    assert!(rig.sum("keyway_service_credentials_left_seconds", &labels) > 0.0);
    // A tenant has neither the daemon's identity nor an endpoint of its choice.
    rig.daemon.write("sys/namespaces/team", json!({})).await;
    let mut http = rig.daemon.http();
    http.namespace = Some("team".to_owned());
    let mut fields = rig.fields("doc", &json!({}));
    let mut ask = async |fields: &Value| {
        let answer = http.request(Verb::Write, &rig.path("doc"), fields.as_object().unwrap()).await.unwrap();
        (answer.status, answer.json()["errors"][0].to_string())
    };
    let (status, told) = ask(&fields).await;
    assert!(status == 400 && told.contains("may not name an endpoint"), "{status} {told}");
    fields["endpoint"] = "".into();
    fields["client_secret"] = "".into();
    let (status, told) = ask(&fields).await;
    assert!(status == 400 && told.contains("may not use the daemon's own credentials"), "{status} {told}");
}

/// Of the same name, an HSM's key and a software key are two kinds.
#[tokio::test]
async fn a_key_is_what_it_is_registered_as() {
    let rig = CloudRig::azure("").await;
    for (made, other, more) in
        [("RSA", "RSA-HSM", json!({"key_bits": 2048, "curve": ""})), ("EC-HSM", "EC", json!({"curve": "P256"}))]
    {
        let of = |key_type: &str| {
            let mut fields = more.clone();
            (fields["key_type"], fields["key_name"]) = (key_type.into(), made.to_lowercase().into());
            fields
        };
        let [right, wrong] = ["right", "wrong"].map(|managed| format!("{managed}-{}", made.to_lowercase()));
        rig.managed_key(&right, of(made)).await;
        rig.managed_key(&wrong, of(other)).await;
        rig.daemon.write(&format!("{}/test/sign", rig.path(&right)), json!({})).await;
        let wrong = format!("{}/test/sign", rig.path(&wrong));
        let (status, told) = rig.daemon.refused(&wrong, json!({})).await;
        let both = told.contains(&format!("it is {made}-")) && told.contains(&format!("registered as {other}-"));
        assert!(status == 400 && both, "{status} {told}");
    }
}

/// By different identities, and by names that are the same to the service.
#[tokio::test]
async fn first_uses_at_once_make_one_version() {
    let rig = CloudRig::azure("").await;
    for (managed, name, client) in [("one", "shared", "app"), ("other", "Shared", "app2"), ("third", "shared", "app3")]
    {
        rig.managed_key(managed, json!({"key_name": name, "client_id": client})).await;
    }
    rig.cloud.steer("PUT", "/service", &json!({"ms": 300, "operation": "create"}));
    let paths = ["one", "other", "third"].map(|managed| format!("{}/test/sign", rig.path(managed)));
    let [one, other, third] = paths.each_ref().map(|path| rig.daemon.write(path, json!({})));
    tokio::join!(one, other, third);
    assert_eq!(rig.cloud.asked("create"), 1);
}

#[tokio::test]
async fn the_daemons_own_identity_is_that_of_its_environment() {
    let token = Token::absent();
    let assertion = token.folder.path().join("assertion");
    std::fs::write(&assertion, "an assertion").unwrap();
    let ca = token.folder.path().join("azure.pem");
    let cloud = azure(&ca, &["--assertion", "an assertion"]);
    for environment in [
        vec![("AZURE_CLIENT_ID", "app".to_owned()), ("AZURE_CLIENT_SECRET", SECRET.to_owned())],
        vec![
            ("AZURE_CLIENT_ID", "app".to_owned()),
            ("AZURE_FEDERATED_TOKEN_FILE", assertion.to_str().unwrap().to_owned()),
        ],
        vec![("IDENTITY_ENDPOINT", format!("{}/msi/token", cloud.url)), ("IDENTITY_HEADER", "any".to_owned())],
    ] {
        let token = Token::absent();
        let daemon = Daemon::with(&token, azure_setup(&cloud, "", &environment)).await;
        let fields = json!({
            "tenant_id": TENANT, "vault_name": "one", "key_name": "own", "key_type": "EC", "curve": "P256",
            "endpoint": format!("{}/vault/one", cloud.url), "allow_generate_key": true,
        });
        let path = "sys/managed-keys/azurekeyvault/own";
        daemon.write(path, fields).await;
        daemon.write(&format!("{path}/test/sign"), json!({})).await;
        assert_eq!(daemon.read(path).await["client_secret"], "", "{environment:?}");
    }
}

#[tokio::test]
async fn fields_are_checked_when_they_are_written() {
    let rig = CloudRig::azure("").await;
    let base = json!({"key_type": "RSA-HSM", "key_bits": 2048, "curve": ""});
    for (change, told) in [
        (json!({"tenant_id": ""}), "tenant_id"),
        (json!({"tenant_id": "a/b"}), "tenant_id"),
        (json!({"vault_name": "a.b"}), "vault_name"),
        (json!({"key_name": "a_b"}), "key_name"),
        (json!({"key_version": "../x"}), "key_version"),
        (json!({"key_type": "RSA-OAEP"}), "key_type"),
        (json!({"key_bits": 1024}), "key_bits 1024 is not supported"),
        (json!({"key_bits": 0}), "key_bits is required"),
        (json!({"key_type": "EC"}), "curve is required"),
        (json!({"key_type": "oct-HSM", "key_bits": 256, "resource": "vault.azure.net"}), "managed HSMs alone"),
        (json!({"resource": "management.azure.com"}), "resource"),
        (json!({"environment": "AZURECHINACLOUD"}), "vault.azure.cn"),
        (json!({"environment": "AZURE"}), "environment"),
        (json!({"encryption_mode": "paper"}), "encryption_mode"),
        (json!({"key_type": "EC", "curve": "P256", "encryption_mode": "envelope"}), "for RSA keys"),
        (json!({"endpoint": "http://127.0.0.1/vault/one"}), "https"),
        (json!({"client_id": ""}), "client_secret is for a client_id"),
        (json!({"client_id": "a\nb"}), "client_id"),
        (json!({"usages": "sign,mac"}), "usages"),
    ] {
        let mut fields = rig.fields("doc", &base);
        fields.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, found) = rig.daemon.refused(&rig.path("doc"), fields).await;
        assert!(status == 400 && found.contains(told), "{change}: {status} {found}");
    }
}
