//! Clouds that suddenly serve a tenth of what they did: no storm, nothing lost that its deadline could save, other keys untouched.
//! Some seconds of it are shown in every run; a whole minute by
//! `cargo test --test it throttles::for_a_minute -- --ignored --nocapture`, which also prints figures.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cloud_rig::{AwsRig, CloudRig, ECC};
use crate::daemon::Setup;
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
    /// Part of the name of what another key is counted by, if it has a quota of its own.
    other: Option<&'static str>,
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
        let beside = match self.other {
            Some(_) => Some(paced("other", 20).start(self.rig).await),
            None => None,
        };
        load.until_done(asked);

        let (cut, before) = (self.serve(THROTTLED, THROTTLED / 10), load.done());
        for _ in 0..seconds {
            load.until_asked(asked);
        }
        let done = load.done() - before;
        let most = self.rig.cloud.most_within(self.bucket, 5_000, cut + 2_000);
        // A fifth more than the quota, and what is saved up in the bucket.
        assert!(most <= THROTTLED * 6 + 5, "{most} requests in 5 s at a quota of {THROTTLED} a second");
        // Who is told when to come again is not asked before.
        let least = if self.retry_after_ms.is_some() { THROTTLED / 2 } else { THROTTLED * 2 };
        assert!(most >= least, "{most} requests in 5 s at a quota of {THROTTLED} a second, and more wait");

        self.serve(SERVED * 10, SERVED * 10);
        let begun = Instant::now();
        self.rig.until_whole(self.domain);
        let recovered = begun.elapsed();
        let tally = load.stop();
        tally.assert_none_lost();
        let throttled = self.rig.requests(self.domain, "throttled");
        assert!(throttled > 0.0);
        assert_eq!(self.rig.requests(self.domain, "failed"), 0.0);
        if let (Some(beside), Some(other)) = (beside, self.other) {
            beside.stop().assert_none_lost();
            assert_eq!(self.rig.requests(other, "throttled"), 0.0);
        }
        println!(
            "{}: {seconds} s at {THROTTLED} a second, {asked} asked for: {done} done, at most {most} sent in 5 s from 2 s on, \
             {throttled} throttled; the whole quota again after {recovered:.1?}; none of {} lost",
            self.domain, tally.asked
        );
    }
}

async fn aws(course: Course) {
    let rig = AwsRig::null(Setup::default()).await;
    rig.key("doc", json!({})).await;
    rig.key("other", json!({"region": "eu-central-1"})).await;
    let other = Some("eu-central-1");
    Cloud { rig: &rig, bucket: ECC, domain: "eu-west-1 ecc", other, retry_after_ms: None }.throttle(course).await;
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
    let (domain, other) = ("one.vault", Some("two.vault"));
    Cloud { rig: &rig, bucket: "one", domain, other, retry_after_ms: Some(1_000) }.throttle(course).await;
}

async fn google(course: Course) {
    let rig = CloudRig::google("").await;
    rig.key("doc", json!({})).await;
    let (bucket, domain) = ("keyway-test/europe-west3", "europe-west3");
    Cloud { rig: &rig, bucket, domain, other: None, retry_after_ms: Some(1_000) }.throttle(course).await;
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

#[tokio::test]
#[ignore = "takes some minutes"]
async fn for_a_minute() {
    aws(MINUTE).await;
    azure(MINUTE).await;
    google(MINUTE).await;
}
