//! Azure, as Microsoft's own clients find it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::binary;
use crate::client::{Cloud, ask};

#[test]
fn microsofts_python_clients_find_azure() {
    let Some(python) = std::env::var_os("KEYWAY_TEST_PYTHON").map(PathBuf::from) else {
        eprintln!("not asked: KEYWAY_TEST_PYTHON names no python");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let cloud = Cloud::start(binary(), Some(&ca), &["azure", "--client", "app:right"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/azure_story.py");
    let output = Command::new(python).arg(script).args([&cloud.url, &cloud.control()]).arg(&ca).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "azure: well\n", "{said}");
}

fn token(cloud: &Cloud) -> String {
    let form =
        "grant_type=client_credentials&client_id=app&client_secret=s&scope=https%3A%2F%2Fvault.azure.net%2F.default";
    let (status, body) = ask(cloud.address(), "POST", "/tenant/oauth2/v2.0/token", &[], form).unwrap();
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    format!("Bearer {}", body["access_token"].as_str().unwrap())
}

/// Asks of a vault by its path.
fn ask_vault(cloud: &Cloud, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let path = format!("/vault/one{path}?api-version=2025-07-01");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = ask(cloud.address(), method, &path, &[("Authorization", token)], &body).unwrap();
    (status, serde_json::from_str(&answer).unwrap_or_default())
}

#[test]
fn requests_without_a_good_token_are_challenged() {
    let cloud = Cloud::start(binary(), None, &["azure"]);
    let (status, answer) = ask_vault(&cloud, "none", "GET", "/keys/k/", &Value::Null);
    assert_eq!((status, answer["error"]["code"].as_str()), (401, Some("Unauthorized")));
    let good = token(&cloud);
    assert_eq!(ask_vault(&cloud, &good, "GET", "/keys/k/", &Value::Null).0, 404);
    cloud.steer("POST", "/tokens/expire", &Value::Null);
    assert_eq!(ask_vault(&cloud, &good, "GET", "/keys/k/", &Value::Null).0, 401);
    cloud.steer("PUT", "/tokens", &json!({"lifetime_s": 0}));
    assert_eq!(ask_vault(&cloud, &token(&cloud), "GET", "/keys/k/", &Value::Null).0, 401);
    cloud.reset();
    assert_eq!(ask_vault(&cloud, &token(&cloud), "GET", "/keys/k/", &Value::Null).0, 404);
}

#[test]
fn what_is_malformed_is_refused_in_azures_words() {
    let cloud = Cloud::start(binary(), None, &["azure"]);
    let token = token(&cloud);
    let (status, made) = ask_vault(&cloud, &token, "POST", "/keys/k/create", &json!({"kty": "EC", "crv": "P-384"}));
    assert_eq!((status, made["key"]["crv"].as_str()), (200, Some("P-384")));
    for (path, body) in [
        ("/keys/a_b/create", json!({"kty": "EC"})),
        ("/keys/b/create", json!({"kty": "EC", "crv": "P-224"})),
        ("/keys/b/create", json!({"kty": "RSA", "key_size": 1024})),
        ("/keys/b/create", json!({"kty": "oct-HSM"})),
        ("/keys/b/create", json!({"kty": "RSA", "key_ops": ["dance"]})),
        ("/keys/b/create", json!({})),
        ("/keys/k//sign", json!({"alg": "ES384"})),
        ("/keys/k//sign", json!({"alg": "ES384", "value": "!"})),
        ("/keys/k//sign", json!({"alg": "ES384", "value": "AAAA"})),
        ("/keys/k//sign", json!({"alg": "ES256", "value": "AAAA"})),
        ("/keys/k/", json!({})),
    ] {
        let (status, answer) = ask_vault(&cloud, &token, "POST", path, &body);
        assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("BadParameter")), "{path} {body}: {answer}");
    }
    let (status, answer) =
        ask_vault(&cloud, &token, "POST", "/keys/k/00/sign", &json!({"alg": "ES384", "value": "AA"}));
    assert_eq!((status, answer["error"]["code"].as_str()), (404, Some("KeyNotFound")));
}
