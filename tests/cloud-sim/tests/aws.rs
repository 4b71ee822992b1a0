//! AWS KMS, as AWS's own client finds it, and as whoever measures does.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::binary;
use crate::client::{Cloud, ask};
use crate::emulated_kms::EmulatedKms;

#[test]
fn awss_python_client_finds_kms_and_credentials() {
    let Some(python) = std::env::var_os("KEYWAY_TEST_PYTHON").map(PathBuf::from) else {
        eprintln!("not asked: KEYWAY_TEST_PYTHON names no python");
        return;
    };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python");
    let upstream = EmulatedKms::start(&python, &scripts.join("emulated_kms.py"));
    let given = ["--credential", "AKIDTEST:secret", "--container-token", "shown", "--web-identity", "workload"];
    let arguments: Vec<&str> = ["aws", "--upstream", &upstream.url].into_iter().chain(given).collect();
    let cloud = Cloud::start(binary(), None, &arguments);
    let output =
        Command::new(python).arg(scripts.join("aws_story.py")).args([&cloud.url, &cloud.control()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "aws: well\n", "{said}");
}

/// Asks without a signature that anybody checks.
fn ask_kms(cloud: &Cloud, operation: &str, body: &Value) -> (u16, Value) {
    let target = format!("TrentService.{operation}");
    let now = time::OffsetDateTime::now_utc();
    let (date, clock) = (now.date(), now.time());
    let day = format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day());
    let stamp = format!("{day}T{:02}{:02}{:02}Z", clock.hour(), clock.minute(), clock.second());
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDX/{day}/eu-west-1/kms/aws4_request, SignedHeaders=host;x-amz-date, Signature=0"
    );
    let headers = [("X-Amz-Target", &*target), ("X-Amz-Date", &stamp), ("Authorization", &authorization)];
    let (status, answer) = ask(cloud.address(), "POST", "/", &headers, &body.to_string()).unwrap();
    (status, serde_json::from_str(&answer).unwrap_or_default())
}

fn key(cloud: &Cloud, spec: &str) -> String {
    let (status, made) = ask_kms(cloud, "CreateKey", &json!({"KeySpec": spec, "KeyUsage": "SIGN_VERIFY"}));
    assert_eq!(status, 200, "{made}");
    made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
}

fn sign(cloud: &Cloud, key: &str, algorithm: &str, digest: &str) -> (u16, Value) {
    let body = json!({"KeyId": key, "MessageType": "DIGEST", "Message": digest, "SigningAlgorithm": algorithm});
    ask_kms(cloud, "Sign", &body)
}

/// 32 bytes, each the same, as Base64.
const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn without_another_emulator_keys_are_made_found_and_sign() {
    let cloud = Cloud::start(binary(), None, &["aws"]);
    let key = key(&cloud, "ECC_NIST_P256");
    let alias = json!({"AliasName": "alias/ca", "TargetKeyId": key});
    assert_eq!(ask_kms(&cloud, "CreateAlias", &alias).0, 200);
    let (_, found) = ask_kms(&cloud, "DescribeKey", &json!({"KeyId": "alias/ca"}));
    let arn = format!("arn:aws:kms:eu-west-1:000000000000:key/{key}");
    assert_eq!(
        (found["KeyMetadata"]["Arn"].as_str(), found["KeyMetadata"]["KeySpec"].as_str()),
        (Some(&*arn), Some("ECC_NIST_P256"))
    );
    let (_, public) = ask_kms(&cloud, "GetPublicKey", &json!({"KeyId": arn}));
    assert!(public["PublicKey"].as_str().is_some_and(|text| text.len() == 124), "{public}");
    let (status, signed) = sign(&cloud, &arn, "ECDSA_SHA_256", ZEROS);
    assert!(status == 200 && signed["Signature"].as_str().is_some_and(|text| text.len() >= 92), "{signed}");
    assert_ne!(sign(&cloud, &key, "ECDSA_SHA_256", ZEROS).1["Signature"], signed["Signature"]);
    for (key, algorithm, digest, code) in [
        ("alias/none", "ECDSA_SHA_256", ZEROS, "NotFoundException"),
        (&key, "ECDSA_SHA_384", ZEROS, "InvalidKeyUsageException"),
        (&key, "ECDSA_SHA_256", "AAAA", "ValidationException"),
    ] {
        let (status, answer) = sign(&cloud, key, algorithm, digest);
        assert_eq!((status, answer["__type"].as_str()), (400, Some(code)), "{answer}");
    }
}

#[test]
fn fixed_signatures_are_made_once() {
    let cloud = Cloud::start(binary(), None, &["aws", "--fixed-signatures"]);
    let key = key(&cloud, "ECC_NIST_P256");
    let (_, first) = sign(&cloud, &key, "ECDSA_SHA_256", ZEROS);
    let other = ZEROS.replace("AAAA", "BBBB");
    assert_eq!(sign(&cloud, &key, "ECDSA_SHA_256", &other).1["Signature"], first["Signature"]);
}

#[test]
fn quotas_are_by_region_and_family_and_answer_400() {
    let cloud = Cloud::start(binary(), None, &["aws"]);
    let key = key(&cloud, "ECC_NIST_P256");
    cloud.steer("PUT", "/quota", &json!({"per_second": 0.001, "burst": 2, "bucket": "eu-west-1/ecc"}));
    let signed: Vec<u16> = (0..4).map(|_| sign(&cloud, &key, "ECDSA_SHA_256", ZEROS).0).collect();
    assert_eq!(signed, [200, 200, 400, 400]);
    let (_, refused) = sign(&cloud, &key, "ECDSA_SHA_256", ZEROS);
    assert_eq!(refused["__type"], "ThrottlingException");
    assert_eq!(ask_kms(&cloud, "DescribeKey", &json!({"KeyId": key})).0, 200);
    assert_eq!(cloud.most_within("eu-west-1/ecc", 60_000, 0), 5);
}

#[test]
fn an_instance_shows_its_session_or_gets_nothing() {
    let cloud = Cloud::start(binary(), None, &["aws", "--container-token", "shown"]);
    let role = "/latest/meta-data/iam/security-credentials/";
    let get = |path: &str, headers: &[(&str, &str)]| ask(cloud.address(), "GET", path, headers, "").unwrap();
    assert_eq!(get(role, &[]).0, 401);
    let ttl = [("X-aws-ec2-metadata-token-ttl-seconds", "60")];
    let (status, token) = ask(cloud.address(), "PUT", "/latest/api/token", &ttl, "").unwrap();
    assert_eq!(status, 200);
    let shown = [("X-aws-ec2-metadata-token", &*token)];
    assert_eq!(get(role, &shown), (200, "keys".into()));
    let credentials: Value = serde_json::from_str(&get(&format!("{role}keys"), &shown).1).unwrap();
    assert_eq!((credentials["Code"].as_str(), credentials["Type"].as_str()), (Some("Success"), Some("AWS-HMAC")));
    assert_eq!(get("/latest/meta-data/placement/region", &shown), (200, "eu-west-1".into()));
    assert_eq!(get("/container/credentials", &[]).0, 401);
    assert_eq!(get("/container/credentials", &[("Authorization", "shown")]).0, 200);
    cloud.steer("PUT", "/tokens", &json!({"refuse": true}));
    assert_eq!(get("/container/credentials", &[("Authorization", "shown")]).0, 500);
}
