//! Endpoints of clouds that lie: whatever they answer, a client gets one error that says what it was, and neither a signature of
//! another key, nor credentials anywhere else, nor a word of either in the log.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::cloud_rig::{AwsRig, CloudRig, IMPATIENT, SECRET, google_files};
use crate::daemon::{LIMIT, Setup, wait_for};
use crate::load::Load;
use crate::rig::probing;

/// What no log may have of an answer.
const ANSWERED: &str = "what-the-liar-answered";
/// What every signature is verified by before it leaves.
const ALWAYS: &str = "verify_after_sign = \"always\"";

/// A cloud, and its words for what finds a key, for a signature, and for what tells the public half.
struct Liar {
    rig: CloudRig,
    find: &'static str,
    sign: &'static str,
    look: &'static str,
}

impl Liar {
    async fn aws() -> Liar {
        let rig = CloudRig::aws(aws_setup()).await;
        Liar { rig, find: "DescribeKey", sign: "Sign", look: "GetPublicKey" }.with_key().await
    }

    async fn azure() -> Liar {
        let rig = CloudRig::azure(ALWAYS).await;
        Liar { rig, find: "get", sign: "sign", look: "get" }.with_key().await
    }

    async fn google() -> Liar {
        let rig = CloudRig::google(ALWAYS).await;
        Liar { rig, find: "getCryptoKeyVersion", sign: "asymmetricSign", look: "getPublicKey" }.with_key().await
    }

    async fn with_key(self) -> Liar {
        self.rig.key("doc", json!({})).await;
        self.rig.until_signs("doc").await;
        self
    }

    fn lie(&self, operation: &str, trouble: &Value) {
        self.rig.cloud.fault(&json!({"trouble": trouble, "operation": operation}));
    }
}

fn aws_setup() -> Setup {
    let more =
        format!("kms_service \"awskms\" {{\n max_sessions = 4\n call = \"2s\"\n {ALWAYS}\n}}\n{}", probing(IMPATIENT));
    Setup { more: more.leak(), ..Setup::default() }
}

/// Nothing that proves who the daemon is, and nothing that was answered, is in the log.
fn assert_discreet(rig: &CloudRig) {
    let log = rig.daemon.log();
    let account = std::fs::read_to_string(&google_files(&rig.token)[0]).unwrap_or_default();
    let private = serde_json::from_str::<Value>(&account).ok().and_then(|account| {
        let key = account["private_key"].as_str()?;
        Some(key[40..80].to_owned())
    });
    let secrets = [Some(SECRET.to_owned()), private, Some(ANSWERED.to_owned())];
    for secret in secrets.into_iter().flatten().chain(["Bearer ", "AWS4-HMAC-SHA256"].map(str::to_owned)) {
        assert!(!log.contains(&secret), "{secret:?} is in\n{log}");
    }
}

/// Answers that are none, in the place of a signature or of what a key is found by.
async fn what_is_no_answer_is_told_and_goes_nowhere(liar: Liar) {
    let Liar { mut rig, find, sign, .. } = liar;
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let other = format!("http://{}/{ANSWERED}", elsewhere.local_addr().unwrap());
    for lie in [
        json!({"kind": "long", "bytes": 2_000_000}),
        json!({"kind": "answer", "status": 200, "body": format!("<html>{ANSWERED}")}),
        json!({"kind": "answer", "status": 200, "body": "{}"}),
        json!({"kind": "answer", "status": 200, "body": ""}),
        json!({"kind": "answer", "status": 307, "location": other}),
        json!({"kind": "answer", "status": 302, "location": other}),
    ] {
        let failures = |rig: &CloudRig| rig.sum("keyway_service_failures_total", &[("cause", "unreadable_answer")]);
        let (before, signed) = (failures(&rig), rig.sum("keyway_jobs_total", &[("result", "ok")]));
        rig.cloud.fault(&json!({"trouble": lie, "operation": sign}));
        let (status, told) = rig.sign("doc").await;
        // Tries may go on until it is too late.
        assert!([503, 504].contains(&status) && !told.contains(ANSWERED), "{lie}: {status} {told}");
        assert!(failures(&rig) > before, "{lie}: {told}\n{}", rig.scrape());
        assert_eq!(rig.sum("keyway_jobs_total", &[("result", "ok")]), signed, "{lie}");
        rig.cloud.reset();
        rig.until_signs("doc").await;
    }
    // The same of what a key is found by at a start.
    for (starts, (lie, why)) in [
        (json!({"kind": "long", "bytes": 2_000_000}), "cannot be read"),
        (json!({"kind": "answer", "status": 200, "body": format!("<html>{ANSWERED}")}), "cannot be read"),
        (json!({"kind": "answer", "status": 200, "body": "{}"}), "answer"),
        (json!({"kind": "answer", "status": 307, "location": other}), "HTTP"),
    ]
    .into_iter()
    .enumerate()
    {
        rig.cloud.fault(&json!({"trouble": lie, "operation": find}));
        rig = rig.restart();
        wait_for("the reason in the log", || {
            let (log, unserved) = (rig.daemon.log(), "managed key is not served by this member");
            let told = log.lines().filter(|line| line.contains(unserved)).nth(starts).map(str::to_owned)?;
            assert!(told.contains(why), "{lie}: {told}");
            Some(())
        });
        let (status, told) = rig.sign("doc").await;
        assert!(status == 500 && told.contains("is unavailable"), "{lie}: {status} {told}");
        rig.cloud.reset();
        rig.until_signs("doc").await;
    }
    let nobody = elsewhere.accept().map(|(_, from)| from).unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock, "credentials went elsewhere");
    assert_discreet(&rig);
}

#[tokio::test]
async fn what_is_no_answer_of_aws_is_told_and_goes_nowhere() {
    what_is_no_answer_is_told_and_goes_nowhere(Liar::aws().await).await;
}

#[tokio::test]
async fn what_is_no_answer_of_azure_is_told_and_goes_nowhere() {
    what_is_no_answer_is_told_and_goes_nowhere(Liar::azure().await).await;
}

#[tokio::test]
async fn what_is_no_answer_of_google_is_told_and_goes_nowhere() {
    what_is_no_answer_is_told_and_goes_nowhere(Liar::google().await).await;
}

/// Signatures by another key while the daemon runs; after a restart, the other key itself.
async fn another_keys_signature_leaves_for_nobody(liar: Liar) {
    let Liar { rig, sign, look, .. } = &liar;
    let other = json!({"kind": "other-key"});
    let load = Load { deadline: Duration::from_secs(2), ..Load::default() }.start(rig).await;
    load.until_done(30);
    liar.lie(sign, &other);
    rig.until_grown("keyway_wrong_signatures_total", &[], 0.0, 1.0);
    load.until_asked(20);
    let tally = load.stop();
    tally.assert_only(&["key_mismatch", "key_unavailable"]);
    assert!(tally.failed("key_mismatch") > 0, "{tally:#?}");
    let (status, told) = rig.sign("doc").await;
    assert!([500, 503].contains(&status), "{status} {told}");
    assert!(rig.daemon.log().contains("member refused: waiting for an operator"), "{}", rig.daemon.log());
    assert_discreet(rig);

    liar.lie(look, &other);
    let Liar { rig, .. } = liar;
    let rig = rig.restart();
    rig.until_refused("doc", "another key").await;
    rig.until_grown("keyway_key_mismatches_total", &[], 0.0, 1.0);
    assert!(rig.daemon.log().contains("ANOTHER KEY"), "{}", rig.daemon.log());
    assert_eq!(rig.sum("keyway_jobs_total", &[("result", "ok")]), 0.0);
    assert_discreet(&rig);
    // The right one, once it is back, is served.
    rig.cloud.reset();
    rig.until_signs("doc").await;
}

#[tokio::test]
async fn another_keys_signature_leaves_aws_for_nobody() {
    another_keys_signature_leaves_for_nobody(Liar::aws().await).await;
}

#[tokio::test]
async fn another_keys_signature_leaves_azure_for_nobody() {
    another_keys_signature_leaves_for_nobody(Liar::azure().await).await;
}

#[tokio::test]
async fn another_keys_signature_leaves_google_for_nobody() {
    another_keys_signature_leaves_for_nobody(Liar::google().await).await;
}

/// Asks until it is answered so; then what is said.
async fn until(rig: &CloudRig, path: &str, asked: &Value, good: impl Fn(u16, &str) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = rig.rig.ask("", Verb::Write, path, asked.clone()).await;
        let said = answer.json();
        if good(answer.status, &said.to_string()) {
            return said;
        }
        assert!(begun.elapsed() < LIMIT, "{path}: {} {said}", answer.status);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A secret key whose endpoint makes something else of what it is asked, by these calls: at its first use, and after a restart.
async fn what_opens_wrongly_is_no_key(rig: CloudRig, key: Value, lies: &[(&str, &str)]) {
    rig.managed_key("sym", key).await;
    rig.daemon.write("sys/mounts/transit", json!({"type": "transit"})).await;
    let first = json!({"type": "managed_key", "managed_key_name": "sym"});
    for (kind, call) in lies {
        rig.cloud.fault(&json!({"trouble": {"kind": kind}, "operation": call}));
        let (status, told) = rig.daemon.refused("transit/keys/sym", first.clone()).await;
        assert!(status >= 500 && told.contains("does not open what it sealed"), "{kind} {call}: {status} {told}");
        rig.cloud.reset();
    }
    rig.daemon.write("transit/keys/sym", first).await;
    let made = rig.daemon.write("transit/encrypt/sym", json!({"plaintext": "c2VjcmV0"})).await;
    known_again_by_what_it_does(rig, &made, lies).await;
}

/// The same of one that is in use.
async fn known_again_by_what_it_does(mut rig: CloudRig, made: &Value, lies: &[(&str, &str)]) {
    let asked = json!({"ciphertext": made["ciphertext"]});
    for (kind, call) in lies {
        rig.cloud.fault(&json!({"trouble": {"kind": kind}, "operation": call}));
        rig = rig.restart();
        let refused = |status: u16, said: &str| status >= 400 && said.contains("another key");
        until(&rig, "transit/decrypt/sym", &asked, refused).await;
        rig.until_grown("keyway_key_mismatches_total", &[], 0.0, 1.0);
        assert_eq!(rig.sum("keyway_jobs_total", &[("result", "ok")]), 0.0, "{kind} {call}");
        assert_discreet(&rig);
        rig.cloud.reset();
        let opened = until(&rig, "transit/decrypt/sym", &asked, |status, _| status == 200).await;
        assert_eq!(opened["data"]["plaintext"], "c2VjcmV0", "{kind} {call}");
    }
}

#[tokio::test]
async fn a_google_that_opens_something_else_has_not_the_key() {
    let symmetric = json!({"algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION"});
    let lies = [("wrong-signature", "decrypt"), ("other-key", "decrypt")];
    what_opens_wrongly_is_no_key(CloudRig::google("").await, symmetric, &lies).await;
}

#[tokio::test]
async fn a_google_that_opens_something_else_by_gcm_has_not_the_key() {
    let lies = [("wrong-signature", "rawDecrypt"), ("other-key", "rawDecrypt")];
    what_opens_wrongly_is_no_key(CloudRig::google("").await, json!({"algorithm": "AES_256_GCM"}), &lies).await;
}

#[tokio::test]
async fn an_azure_that_encrypts_something_else_has_not_the_key() {
    let rig = CloudRig::azure("").await;
    rig.key("sym", json!({"key_type": "oct-HSM", "key_bits": 256})).await;
    let made = rig.daemon.write("transit/encrypt/sym", json!({"plaintext": "c2VjcmV0"})).await;
    let lies = [("wrong-signature", "encrypt"), ("other-key", "encrypt")];
    known_again_by_what_it_does(rig, &made, &lies).await;
}

#[tokio::test]
async fn an_aws_that_opens_something_else_has_not_the_key() {
    let Some(aws) = AwsRig::emulated(aws_setup()).await else { return };
    let lies = [("wrong-signature", "Decrypt"), ("other-key", "Decrypt")];
    let (rig, _kms) = aws.parts();
    what_opens_wrongly_is_no_key(rig, json!({"key_type": "symmetric", "curve": ""}), &lies).await;
}
