//! Clouds that suddenly serve a tenth of what they did: no storm, nothing lost that its deadline could save, other keys untouched.
//! Some seconds of it are shown in every run; a whole minute by
//! `cargo test --test it throttles::for_a_minute -- --ignored --nocapture`, which also prints figures.

use std::time::{Duration, Instant};

use keyway::client::ClientError;
use keyway::wire::proto;
use serde_json::json;

use crate::cloud_rig::{AwsRig, CloudRig, ECC};
use crate::daemon::{LIMIT, Setup};
use crate::load::Load;

/// What the service serves a second at first, and a tenth of it when it throttles.
const SERVED: u64 = 200;
const THROTTLED: u64 = SERVED / 10;

/// A cloud with two quotas.
struct Cloud<'a> {
    rig: &'a CloudRig,
    /// The emulator's name of what it counts together, and part of the daemon's name for it.
    bucket: &'static str,
    domain: &'static str,
    /// Part of the name of what another key is counted by.
    other: &'static str,
    /// What a refusal says of when to come again.
    retry_after_ms: Option<u64>,
}

/// How long, and how many are asked for a second.
#[derive(Clone, Copy)]
struct Course {
    seconds: u64,
    asked: u64,
}

/// More is asked for than would be done before deadlines pass if it went on.
const SHORT: Course = Course { seconds: 8, asked: 150 };
/// Half as much again as is served: what waits at the end has waited for half a minute, and deadlines are twice as long.
const MINUTE: Course = Course { seconds: 60, asked: 30 };

/// What is asked beside of another quota, and how long an answer is of use there.
const BESIDE: u64 = 50;
const IN_A_HURRY: Duration = Duration::from_secs(3);
/// The vault `one`, to the end of its name.
const ONE_VAULT: &str = "/vault/one\"";

/// So many calls a second, whatever the answers.
fn paced(key: &'static str, per_second: u64) -> Load {
    let pace = Some(Duration::from_secs(1) / u32::try_from(per_second).unwrap());
    Load { key, connections: 1, depth: 10_000, pace, ..Load::default() }
}

impl Cloud<'_> {
    fn serve(&self, per_second: u64, burst: u64) -> u64 {
        let quota = json!({
            "per_second": per_second, "burst": burst, "bucket": self.bucket, "retry_after_ms": self.retry_after_ms,
        });
        self.rig.cloud.steer("PUT", "/quota", &quota)["since_start_ms"].as_u64().unwrap()
    }

    /// Requests that the emulator was sent in any five seconds, the most of it, and in all.
    async fn throttle(&self, course: Course) {
        let Course { seconds, asked } = course;
        self.serve(SERVED, SERVED / 10);
        let load = paced("doc", asked).start(self.rig).await;
        // Whoever is counted apart has its whole rate, and no time to wait for anybody.
        let beside = Load { deadline: IN_A_HURRY, ..paced("other", BESIDE) }.start(self.rig).await;
        load.until_done(asked);

        let (cut, before) = (self.serve(THROTTLED, THROTTLED / 10), load.done());
        for _ in 0..seconds {
            load.until_asked(asked);
        }
        let done = load.done() - before;
        let most = self.rig.cloud.most_within(self.bucket, 5_000, cut + 2_000);
        // A fifth more than the quota, and what is saved up in the bucket.
        assert!(most <= THROTTLED * 6 + 5, "{most} requests in 5 s at a quota of {THROTTLED} a second");
        assert!(most >= THROTTLED * 2, "{most} requests in 5 s at a quota of {THROTTLED} a second, and more wait");

        self.serve(SERVED * 10, SERVED * 10);
        let begun = Instant::now();
        self.rig.until_whole(self.domain);
        let recovered = begun.elapsed();
        let tally = load.stop();
        tally.assert_none_lost();
        let throttled = self.rig.requests(self.domain, "throttled");
        assert!(throttled > 0.0);
        assert_eq!(self.rig.requests(self.domain, "failed"), 0.0);
        let beside = beside.stop();
        beside.assert_none_lost();
        assert_eq!(self.rig.requests(self.other, "throttled"), 0.0);
        println!(
            "{}: {seconds} s at {THROTTLED} a second, {asked} asked for: {done} done, at most {most} sent in 5 s from 2 s on, \
             {throttled} throttled; the whole quota again after {recovered:.1?}; none of {} lost; of another quota {} at \
             {BESIDE} a second, none in more than {:.0?}",
            self.domain.trim_end_matches('"'),
            tally.asked,
            beside.done,
            beside.slowest
        );
    }
}

async fn aws(course: Course) {
    let rig = AwsRig::null(Setup::default()).await;
    rig.key("doc", json!({})).await;
    rig.key("other", json!({"region": "eu-central-1"})).await;
    let (domain, other) = ("eu-west-1 ecc", "eu-central-1 ecc");
    Cloud { rig: &rig, bucket: ECC, domain, other, retry_after_ms: None }.throttle(course).await;
}

async fn azure(course: Course) {
    let rig = CloudRig::azure("").await;
    // Software keys: one unit of the quota for each request.
    let soft = json!({"key_type": "EC"});
    rig.key("doc", soft.clone()).await;
    let elsewhere = format!("{}/vault/two", rig.cloud.url);
    let mut two = soft;
    two.as_object_mut().unwrap().extend([("vault_name".into(), json!("two")), ("endpoint".into(), json!(elsewhere))]);
    rig.key("other", two).await;
    // To the end of the name: what is made there is counted apart.
    let (domain, other) = (ONE_VAULT, "two.vault");
    Cloud { rig: &rig, bucket: "one", domain, other, retry_after_ms: Some(1_000) }.throttle(course).await;
}

async fn google(course: Course) {
    let rig = CloudRig::google("").await;
    rig.key("doc", json!({})).await;
    rig.key("other", json!({"region": "europe-west1"})).await;
    let (bucket, domain, other) = ("keyway-test/europe-west3", "europe-west3", "europe-west1");
    Cloud { rig: &rig, bucket, domain, other, retry_after_ms: Some(1_000) }.throttle(course).await;
}

#[tokio::test]
async fn aws_is_not_stormed_and_nothing_is_lost() {
    aws(SHORT).await;
}

#[tokio::test]
async fn azure_is_not_stormed_and_nothing_is_lost() {
    azure(SHORT).await;
}

#[tokio::test]
async fn google_is_not_stormed_and_nothing_is_lost() {
    google(SHORT).await;
}

/// Whoever cannot wait for so long learns of it at once, and who can is served when it is over; asked is nothing meanwhile.
#[tokio::test]
async fn who_cannot_wait_as_long_as_a_service_asks_is_told_at_once() {
    let rigs = [
        (CloudRig::azure("").await, "sign", ONE_VAULT),
        (CloudRig::google("").await, "asymmetricSign", "europe-west3"),
    ];
    for (rig, call, domain) in &rigs {
        rig.key("doc", json!({})).await;
        rig.until_signs("doc").await;
        let asked = rig.cloud.asked(call);
        let throttle = json!({"kind": "throttle", "retry_after_ms": 6_000});
        rig.cloud.fault(&json!({"trouble": throttle, "operation": call, "which": {"next": 1}}));
        let (patient, hurried) = (rig.framed(LIMIT).await, rig.framed(Duration::from_secs(1)).await);
        let sign =
            || proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
        let told = async {
            // Until the daemon has read the answer, not until the service has given it.
            let begun = Instant::now();
            while rig.requests(domain, "throttled") < 1.0 {
                assert!(begun.elapsed() < LIMIT, "it is not throttled");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut told = Vec::new();
            for _ in 0..10 {
                told.push(hurried.sign(sign()).await);
            }
            told
        };
        let (signed, told) = tokio::join!(patient.sign(sign()), told);
        assert!(signed.is_ok(), "{signed:?}");
        for answer in told {
            let Err(ClientError::Refused { label, message, .. }) = &answer else { panic!("{answer:?}") };
            assert!(label == "quota_exceeded" && message.contains("its quota is used up for"), "{label}: {message}");
        }
        assert_eq!(rig.cloud.asked(call), asked + 2, "once more, when it is over");
    }
}

#[tokio::test]
#[ignore = "takes some minutes"]
async fn for_a_minute() {
    aws(MINUTE).await;
    azure(MINUTE).await;
    google(MINUTE).await;
}
