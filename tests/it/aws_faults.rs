//! Bad days of a cloud: what its users are told, once, and that others are not touched.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cloud_rig::AwsRig;
use crate::daemon::Setup;
use crate::load::Load;

/// Two keys at one quota, each with more to do than there is of it.
#[tokio::test]
async fn what_is_urgent_goes_before_bulk_of_another_key_at_the_same_quota() {
    let more = "kms_service \"awskms\" {\n quota \"ecc\" {\n  per_second = 50\n }\n}\n";
    let aws = AwsRig::null(Setup { more, ..Setup::default() }).await;
    aws.key("doc", json!({})).await;
    aws.key("other", json!({})).await;
    let class = keyway::wire::proto::Class::Bulk;
    let bulk = Load { key: "doc", class, depth: 8, ..Load::default() }.start(&aws.rig).await;
    bulk.until_done(20);
    let urgent = Load { key: "other", depth: 8, ..Load::default() }.start(&aws.rig).await;
    urgent.until_done(10);
    let before = bulk.done();
    urgent.until_done(140);
    // Of eight parts, bulk gets one.
    let bulk_done = bulk.done() - before;
    assert!((5..=60).contains(&bulk_done), "{bulk_done} of bulk beside 140 that were urgent");
    urgent.stop().assert_none_lost();
    bulk.stop().assert_none_lost();
    assert_eq!(aws.requests("eu-west-1 ecc", "throttled"), 0.0);
    // Looking keys up and making them counts apart.
    assert!(aws.requests("eu-west-1 look-up", "sent") >= 2.0);
    assert_eq!(aws.requests("eu-west-1 creation", "sent"), 2.0);
}

/// Threads of a key come by need.
#[tokio::test]
async fn a_key_at_rest_has_one_session_and_more_when_it_has_more_to_do() {
    let aws = AwsRig::null(Setup::default()).await;
    aws.key("doc", json!({})).await;
    assert_eq!(aws.sign("doc").await.0, 200);
    let serving = || aws.rig.sum("keyway_sessions", &[("library", "awskms"), ("state", "serving")]);
    assert_eq!(serving(), 1.0);
    aws.cloud.steer("PUT", "/service", &json!({"ms": 50, "operation": "Sign"}));
    let load = Load { key: "doc", ..Load::default() }.start(&aws.rig).await;
    crate::daemon::wait_for("sessions", || (serving() >= 8.0).then_some(()));
    load.until_done(100);
    load.stop().assert_none_lost();
    assert!(serving() <= 32.0);
}

/// Sessions and keys that were given up for this reason.
fn evictions(aws: &AwsRig, cause: &str) -> f64 {
    aws.rig.sum("keyway_session_evictions_total", &[("library", "awskms"), ("cause", cause)])
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_told_as_such_and_is_no_matter_of_others() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    aws.key("doc", json!({})).await;
    aws.key("other", json!({})).await;
    for (state, cause, word) in [
        ("disabled", "key_state", "is disabled: enable the key"),
        ("pending-deletion", "key_state", "is pending deletion: cancel its deletion"),
        ("deleted", "not_found", "the key is not there; restore it, or replicate it to that region"),
        ("revoked", "access_denied", "is not authorized to perform"),
    ] {
        aws.until_signs("doc").await;
        let (before, asked) = (evictions(&aws, cause), aws.cloud.asked("Sign"));
        aws.set_state("doc", state);
        let (status, said) = aws.sign("doc").await;
        assert!(status == 500 && said.contains(word), "{state}: {status} {said}");
        assert!(evictions(&aws, cause) > before, "{state}");
        // Asked for again, it is not asked of the cloud again.
        for _ in 0..20 {
            assert_eq!(aws.sign("doc").await.0, 500, "{state}");
        }
        assert!(aws.cloud.asked("Sign") < asked + 6, "{state}: {} requests", aws.cloud.asked("Sign") - asked);
        assert_eq!(aws.sign("other").await.0, 200, "{state}");
        aws.set_state("doc", "enabled");
    }
    aws.until_signs("doc").await;
    assert_eq!(aws.requests("eu-west-1", "failed"), 0.0);
}

#[tokio::test]
async fn refused_credentials_are_told_as_such_and_come_back() {
    let aws = AwsRig::null(Setup::default()).await;
    aws.key("doc", json!({})).await;
    aws.key("other", json!({})).await;
    for (code, word) in [
        ("ExpiredTokenException", "renew the session's credentials"),
        ("UnrecognizedClientException", "correct access_key and secret_key"),
        ("InvalidSignatureException", "correct secret_key, or set this host's clock"),
        ("AccessDeniedException", "allow it in the key's policy or in IAM"),
    ] {
        aws.until_signs("doc").await;
        let order = json!({"kind": "status", "status": 400, "code": code});
        aws.cloud.fault(&json!({"trouble": order, "operation": "Sign", "key": "alias/doc"}));
        let (status, said) = aws.sign("doc").await;
        assert!(status == 500 && said.contains(code) && said.contains(word), "{code}: {status} {said}");
        assert_eq!(aws.sign("other").await.0, 200, "{code}");
        aws.cloud.reset();
    }
    aws.until_signs("doc").await;
    // A key with a wrong secret is refused when it is first used, and says why.
    aws.managed_key("stranger", json!({"kms_key": "alias/doc", "secret_key": "wrong"})).await;
    let path = "sys/managed-keys/awskms/stranger/test/sign";
    let (status, said) = aws.rig.daemon.refused(path, json!({})).await;
    assert!(status >= 400 && said.contains("InvalidSignatureException"), "{status} {said}");
    assert_eq!(aws.sign("doc").await.0, 200);
}

/// More bad answers in a row than any request has tries, for a moment: further tries come later, each by chance.
#[tokio::test]
async fn a_bad_moment_costs_nobody_anything() {
    let aws = AwsRig::null(Setup::default()).await;
    aws.key("doc", json!({})).await;
    let load = Load { key: "doc", ..Load::default() }.start(&aws.rig).await;
    load.until_done(30);
    let order = json!({"kind": "status", "status": 500});
    aws.cloud.fault(&json!({"trouble": order, "operation": "Sign", "which": {"next": 24}}));
    load.until_done(60);
    assert_eq!(aws.requests("eu-west-1", "failed"), 24.0);
    assert_eq!(aws.requests("eu-west-1", "throttled"), 0.0);
    // Who says when to come again is asked again then, and it is no failure.
    let order = json!({"kind": "status", "status": 503, "retry_after_ms": 400});
    aws.cloud.fault(&json!({"trouble": order, "operation": "Sign", "which": {"next": 3}}));
    load.until_done(60);
    load.stop().assert_none_lost();
    assert_eq!(aws.requests("eu-west-1", "failed"), 24.0);
    assert_eq!(aws.requests("eu-west-1", "throttled"), 3.0);
}

/// A cloud that does not answer: whoever has waited as long as he would is told so, and the call ends with that.
#[tokio::test]
async fn no_call_outlasts_the_deadline_of_its_request() {
    // One call at a time: had one gone on for longer, the next requests would have ended while they waited.
    let more = "kms_service \"awskms\" {\n call = \"10s\"\n max_sessions = 1\n}\n";
    let aws = AwsRig::null(Setup { more, ..Setup::default() }).await;
    aws.key("doc", json!({})).await;
    aws.cloud.fault(&json!({"trouble": {"kind": "slow", "ms": 600_000}, "operation": "Sign", "which": {"next": 3}}));
    let deadline = Duration::from_millis(300);
    let load = Load { key: "doc", connections: 1, depth: 1, deadline, ..Load::default() }.start(&aws.rig).await;
    crate::daemon::wait_for("the end of the calls", || {
        let in_flight = aws.rig.sum("keyway_service_in_flight", &[("service", "awskms")]);
        (aws.cloud.asked("Sign") >= 3 && in_flight == 0.0).then_some(())
    });
    load.until_done(30);
    let tally = load.stop();
    tally.assert_only(&["deadline_exceeded"]);
    assert_eq!(tally.failed("deadline_exceeded"), 3, "{tally:#?}");
}

/// Of a daemon that soon says of a failed call that it failed.
fn impatient() -> Setup {
    Setup { more: "limits {\n cloud_attempts = 2\n}\n", ..Setup::default() }
}

/// A key that fails is left alone, and told at once, and tried again by itself.
#[tokio::test]
async fn a_key_that_fails_always_is_left_alone_and_others_are_served() {
    let aws = AwsRig::null(impatient()).await;
    aws.key("doc", json!({})).await;
    aws.key("other", json!({})).await;
    for trouble in [json!({"kind": "status", "status": 500}), json!({"kind": "reset"})] {
        aws.until_signs("doc").await;
        aws.cloud.fault(&json!({"trouble": trouble, "operation": "Sign", "key": "alias/doc"}));
        let asked = aws.cloud.asked("Sign");
        let begun = std::time::Instant::now();
        for _ in 0..50 {
            assert_eq!(aws.sign("doc").await.0, 503, "{trouble}");
        }
        let others = 20;
        for _ in 0..others {
            assert_eq!(aws.sign("other").await.0, 200, "{trouble}");
        }
        // Five failures open its breaker, and a probe goes now and then.
        let probes = 6 + 4 * u64::try_from(begun.elapsed().as_millis()).unwrap() / 375;
        let sent = aws.cloud.asked("Sign") - asked - others;
        assert!(sent <= 5 + probes, "{trouble}: {sent} requests");
        aws.cloud.reset();
        aws.until_signs("doc").await;
    }
    assert!(aws.requests("eu-west-1", "failed") >= 10.0);
    assert_eq!(aws.requests("eu-west-1", "throttled"), 0.0);
}

#[tokio::test]
async fn a_cloud_that_is_gone_is_told_as_such_until_it_is_back() {
    let aws = AwsRig::null(impatient()).await;
    aws.key("doc", json!({})).await;
    aws.key("other", json!({"region": "eu-central-1"})).await;
    let gone = aws.cloud.fault(&json!({"trouble": {"kind": "refuse"}}));
    aws.cloud.steer("POST", "/connections/drop", &Value::Null);
    let (status, said) = aws.sign("doc").await;
    assert!(status == 503 && (said.contains("cannot be reached") || said.contains("failed several times")), "{said}");
    for _ in 0..10 {
        assert_eq!(aws.sign("doc").await.0, 503);
    }
    aws.cloud.steer("DELETE", &format!("/faults/{gone}"), &Value::Null);
    aws.until_signs("doc").await;
    aws.until_signs("other").await;
}

/// The same key in two regions, one of which goes.
#[tokio::test]
async fn a_region_that_is_lost_costs_no_request_where_another_has_the_key() {
    let Some((aws, there)) = AwsRig::two_regions(Setup::default()).await else { return };
    aws.key_in_two_regions(&there).await;
    let load = Load { key: "doc", ..Load::default() }.start(&aws.rig).await;
    let both = || (aws.cloud.asked("Sign"), there.asked("Sign"));
    crate::daemon::wait_for("both regions", || (both().0 > 20 && both().1 > 20).then_some(()));

    aws.cloud.fault(&json!({"trouble": {"kind": "refuse"}}));
    aws.cloud.steer("POST", "/connections/drop", &Value::Null);
    load.until_done(300);
    let gone = both().0;
    load.until_done(100);
    assert!(both().0 <= gone + 1, "the region that is gone is asked");
    aws.cloud.reset();
    crate::daemon::wait_for("the region that is back", || (both().0 > gone + 20).then_some(()));
    load.stop().assert_none_lost();
    assert!(aws.requests("eu-west-1", "failed") > 0.0);
    assert_eq!(aws.requests("eu-central-1", "failed"), 0.0);
}

/// The same, and the region that goes does not refuse: it is silent.
#[tokio::test]
async fn a_region_that_is_silent_costs_no_request_where_another_has_the_key() {
    let Some((aws, there)) = AwsRig::two_regions(Setup::default()).await else { return };
    aws.key_in_two_regions(&there).await;
    let deadline = Duration::from_secs(4);
    let load = Load { key: "doc", deadline, ..Load::default() }.start(&aws.rig).await;
    let both = || (aws.cloud.asked("Sign"), there.asked("Sign"));
    crate::daemon::wait_for("both regions", || (both().0 > 20 && both().1 > 20).then_some(()));
    aws.cloud.fault(&json!({"trouble": {"kind": "slow", "ms": 600_000}, "operation": "Sign"}));
    load.until_done(300);
    // It is tried again now and then, by one request at a time.
    let gone = both().0;
    load.until_done(100);
    assert!(both().0 <= gone + 2, "the region that is silent is asked");
    aws.cloud.reset();
    crate::daemon::wait_for("the region that is back", || (both().0 > gone + 20).then_some(()));
    load.stop().assert_none_lost();
    assert!(aws.requests("eu-west-1", "failed") > 0.0);
    assert_eq!(aws.requests("eu-central-1", "failed"), 0.0);
}

/// The daemon's own credentials, from wherever a daemon in AWS has them; fetched anew before they expire.
#[tokio::test]
async fn the_daemons_own_credentials_are_found_and_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let identity = folder.path().join("token");
    std::fs::write(&identity, "workload").unwrap();
    let from = |kind: &'static str| {
        let identity = identity.display().to_string();
        move |url: &str| {
            let of = |name, value: &str| (name, value.to_owned());
            match kind {
                "instance-credentials" => vec![of("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)],
                "container-credentials" => vec![
                    of("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{url}/container/credentials")),
                    of("AWS_CONTAINER_AUTHORIZATION_TOKEN", "shown"),
                ],
                _ => vec![
                    of("AWS_WEB_IDENTITY_TOKEN_FILE", &identity),
                    of("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/keys"),
                    of("AWS_ENDPOINT_URL_STS", url),
                ],
            }
        }
    };
    for kind in ["instance-credentials", "container-credentials", "AssumeRoleWithWebIdentity"] {
        let aws = AwsRig::by_identity(from(kind)).await;
        aws.cloud.steer("PUT", "/tokens", &json!({"lifetime_s": 16}));
        aws.key("doc", json!({"access_key": "", "secret_key": ""})).await;
        assert_eq!(aws.sign("doc").await.0, 200, "{kind}");
        let left = aws.rig.sum("keyway_service_credentials_left_seconds", &[("service", "awskms")]);
        assert!(left > 0.0 && left <= 16.0, "{kind}: {left}");
        let first = aws.cloud.asked(kind);
        assert!(first > 0, "{kind}");
        let load = Load { key: "doc", connections: 1, depth: 1, ..Load::default() }.start(&aws.rig).await;
        crate::daemon::wait_for("other credentials", || (aws.cloud.asked(kind) >= first + 2).then_some(()));
        load.stop().assert_none_lost();
        let failed = [("service", "awskms"), ("result", "failed")];
        assert_eq!(aws.rig.sum("keyway_service_credential_fetches_total", &failed), 0.0, "{kind}");
        // Those that the service takes no longer are replaced, and nobody notices.
        aws.cloud.steer("POST", "/tokens/expire", &Value::Null);
        let (status, said) = aws.sign("doc").await;
        assert_eq!(status, 200, "{kind}: {said}");
        // That none can be fetched is seen before those at hand have expired.
        aws.cloud.steer("PUT", "/tokens", &json!({"lifetime_s": 16, "refuse": true}));
        aws.rig.until_grown("keyway_service_credential_fetches_total", &failed, 0.0, 1.0);
        assert_eq!(aws.sign("doc").await.0, 200, "{kind}");
    }
}

/// Credentials of the daemon's own that lie in a file: whoever changes it restarts nothing.
#[tokio::test]
async fn credentials_in_a_file_that_changes_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let write = |id: &str, secret: &str| {
        let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        std::fs::write(&file, text).unwrap();
    };
    write("AKIDGONE", "secret");
    let path = file.display().to_string();
    let of_file = |_: &str| vec![("AWS_SHARED_CREDENTIALS_FILE", path), ("AWS_CONFIG_FILE", "/nowhere".to_owned())];
    let aws = AwsRig::by_identity(of_file).await;
    aws.managed_key("doc", json!({"access_key": "", "secret_key": ""})).await;
    let path = "sys/managed-keys/awskms/doc/test/sign";
    let (status, said) = aws.rig.daemon.refused(path, json!({})).await;
    assert!(said.contains("UnrecognizedClientException"), "{status} {said}");
    // The same again is of no use, and is not tried.
    let asked = aws.cloud.asked("DescribeKey");
    aws.rig.daemon.refused(path, json!({})).await;
    assert!(aws.cloud.asked("DescribeKey") <= asked + 2, "{} requests", aws.cloud.asked("DescribeKey") - asked);
    let until = async |is_there: &dyn Fn(u16, &str) -> bool| {
        let begun = std::time::Instant::now();
        loop {
            let answer = aws.rig.daemon.ask(keyway::model::Verb::Write, path, json!({})).await;
            let said = answer.json().to_string();
            if is_there(answer.status, &said) {
                break;
            }
            assert!(begun.elapsed() < crate::daemon::LIMIT, "{said}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // That there are none is told at once, and by whose credentials calls are made is nobody's business.
    std::fs::remove_file(&file).unwrap();
    until(&|_, _| aws.rig.daemon.log().contains("credentials could not be fetched anew")).await;
    assert!(!aws.rig.daemon.log().contains("AKIDGONE"), "{}", aws.rig.daemon.log());
    // Another access key, and then the same with another secret.
    write("AKIDTEST", "not yet");
    until(&|_, said| said.contains("InvalidSignatureException")).await;
    write("AKIDTEST", "secret");
    until(&|status, _| status < 300).await;
}

#[tokio::test]
async fn what_the_service_says_of_a_key_is_seen() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    aws.key("doc", json!({})).await;
    let is = |state: &str| aws.rig.sum("keyway_service_key_state", &[("service", "awskms"), ("state", state)]);
    assert_eq!(is("enabled"), 1.0);
    let arn = aws.ask_kms("eu-west-1", "DescribeKey", &json!({"KeyId": "alias/doc"}));
    let id = json!({"KeyId": arn["KeyMetadata"]["KeyId"]});
    for (order, state, back) in [
        ("DisableKey", "disabled", &["EnableKey"][..]),
        ("ScheduleKeyDeletion", "pending_deletion", &["CancelKeyDeletion", "EnableKey"]),
    ] {
        aws.ask_kms("eu-west-1", order, &id);
        assert_ne!(aws.sign("doc").await.0, 200, "{order}");
        crate::daemon::wait_for(state, || (is(state) == 1.0 && is("enabled") == 0.0).then_some(()));
        back.iter().for_each(|order| drop(aws.ask_kms("eu-west-1", order, &id)));
        aws.until_signs("doc").await;
        assert_eq!((is("enabled"), is(state)), (1.0, 0.0), "{order}");
    }
    assert_eq!(aws.rig.daemon.log().matches("A KEY IN A CLOUD IS OUT OF USE").count(), 2);
}

/// What the service says that a key is for is compared with what it is registered for.
#[tokio::test]
async fn a_key_is_for_what_it_is_registered_for() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    let rsa = json!({"key_type": "RSA", "key_bits": 2048, "curve": "", "usages": "encrypt,decrypt"});
    aws.key("rsa", rsa).await;
    let wrong =
        json!({"kms_key": "alias/rsa", "key_type": "RSA", "key_bits": 2048, "curve": "", "allow_generate_key": false});
    aws.managed_key("wrong", wrong).await;
    let (status, told) = aws.daemon.refused("sys/managed-keys/awskms/wrong/test/sign", json!({})).await;
    let both = "it is RSA_2048 (encrypt, decrypt), and registered as RSA_2048 (sign, verify)";
    assert!(status == 400 && told.contains(both), "{status} {told}");
}
