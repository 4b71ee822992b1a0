//! A daemon with keys in a simulated AWS, and what stories of its bad days ask about them.

use std::path::Path;

use keyway::client::Answer;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::clouds::{Cloud, simulator};
use crate::daemon::{Setup, wait_for};
use crate::python::python;
use crate::rig::{Rig, TOKENS};

#[path = "../cloud-sim/tests/emulated_kms.rs"]
mod emulated_kms;

use emulated_kms::EmulatedKms;

/// What is metered together, of most stories.
pub(crate) const ECC: &str = "eu-west-1/ecc";

/// A daemon and its cloud.
pub(crate) struct AwsRig {
    // Dropped before what it uses.
    pub(crate) rig: Rig,
    pub(crate) cloud: Cloud,
    kms: Option<EmulatedKms>,
}

impl AwsRig {
    /// On a cloud whose keys sign at once and do nothing else.
    pub(crate) async fn null(setup: Setup) -> AwsRig {
        AwsRig::start(None, setup).await
    }

    /// On an emulated KMS that does the work; none where there is no python for it.
    pub(crate) async fn emulated(setup: Setup) -> Option<AwsRig> {
        let python = python()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/emulated_kms.py");
        Some(AwsRig::start(Some(EmulatedKms::start(&python, &script)), setup).await)
    }

    /// The same with another region, which has the same keys.
    pub(crate) async fn two_regions(setup: Setup) -> Option<(AwsRig, Cloud)> {
        let aws = AwsRig::emulated(setup).await?;
        let other = cloud(aws.kms.as_ref());
        Some((aws, other))
    }

    /// On keys that sign at once; the daemon finds its own credentials by this of its environment, made of the cloud's URL.
    pub(crate) async fn by_identity(environment: impl FnOnce(&str) -> Vec<(&'static str, String)>) -> AwsRig {
        let cloud = cloud(None);
        let of = |(name, value): (&'static str, String)| (name, &*value.leak());
        let environment: Vec<(&str, &str)> = environment(&cloud.url).into_iter().map(of).collect();
        let setup = Setup { environment: environment.leak(), ..Setup::default() };
        AwsRig { rig: Rig::null(&TOKENS[..1], &["unused"], setup).await, cloud, kms: None }
    }

    async fn start(kms: Option<EmulatedKms>, setup: Setup) -> AwsRig {
        let cloud = cloud(kms.as_ref());
        let rig = Rig::null(&TOKENS[..1], &["unused"], setup).await;
        AwsRig { rig, cloud, kms }
    }

    /// Asks the emulated KMS itself, in a region.
    pub(crate) fn ask_kms(&self, region: &str, operation: &str, body: &Value) -> Value {
        let url = &self.kms.as_ref().unwrap().url;
        let by = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDTEST/20260101/{region}/kms/aws4_request, SignedHeaders=host, Signature=0"
        );
        let target = format!("TrentService.{operation}");
        let kind = ("Content-Type", "application/x-amz-json-1.1");
        let headers = [("X-Amz-Target", &*target), ("Authorization", &*by), kind];
        let address = url.trim_start_matches("http://");
        let (status, answer) = crate::clouds::client::ask(address, "POST", "/", &headers, &body.to_string()).unwrap();
        assert_eq!(status, 200, "{operation} {body}: {answer}");
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    /// A Transit key `name` on a P-256 key that is made in the cloud, with the alias `alias/<name>`.
    pub(crate) async fn key(&self, name: &str, more: Value) {
        self.managed_key(name, more).await;
        let mounts = self.rig.daemon.ask(Verb::Read, "sys/mounts/transit", json!({})).await;
        if mounts.status == 400 {
            self.rig.write("", "sys/mounts/transit", json!({"type": "transit"})).await;
        }
        let key = json!({"type": "managed_key", "managed_key_name": name});
        self.rig.write("", &format!("transit/keys/{name}"), key).await;
    }

    /// The Transit key `doc` on one that two regions have.
    pub(crate) async fn key_in_two_regions(&self, there: &Cloud) {
        let made = json!({"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY", "MultiRegion": true});
        let made = self.ask_kms("eu-west-1", "CreateKey", &made);
        let id = made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
        self.ask_kms("eu-west-1", "ReplicateKey", &json!({"KeyId": id, "ReplicaRegion": "eu-central-1"}));
        let replica = json!({"region": "eu-central-1", "endpoint": there.url});
        self.key("doc", json!({"kms_key": id, "allow_generate_key": false, "replicas": [replica]})).await;
    }

    /// The managed key alone.
    pub(crate) async fn managed_key(&self, name: &str, more: Value) {
        let mut data = json!({
            "kms_key": format!("alias/{name}"), "key_type": "ECDSA", "curve": "P256", "region": "eu-west-1",
            "endpoint": self.cloud.url, "access_key": "AKIDTEST", "secret_key": "secret",
            "allow_generate_key": true, "any_mount": true,
        });
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.rig.write("", &format!("sys/managed-keys/awskms/{name}"), data).await;
    }

    /// Has the Transit key sign; answers the status and the first error.
    pub(crate) async fn sign(&self, key: &str) -> (u16, String) {
        told(&self.rig.ask("", Verb::Write, &format!("transit/sign/{key}"), json!({"input": "aGVsbG8="})).await)
    }

    /// Signs until that goes well.
    pub(crate) async fn until_signs(&self, key: &str) {
        let begun = std::time::Instant::now();
        loop {
            let (status, said) = self.sign(key).await;
            if status == 200 {
                return;
            }
            assert!(begun.elapsed() < crate::daemon::LIMIT, "{key}: {status} {said}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Has a key of the cloud be in a state, by its alias.
    pub(crate) fn set_state(&self, key: &str, state: &str) {
        self.cloud.steer("PUT", &format!("/keys/alias/{key}"), &json!({"state": state}));
    }

    /// Requests of this outcome, in the domains whose name contains this.
    pub(crate) fn requests(&self, domain: &str, outcome: &str) -> f64 {
        let text = self.rig.scrape();
        let of_it = text.lines().filter(|line| {
            line.starts_with("keyway_service_requests_total{") && line.contains(&format!("outcome=\"{outcome}\""))
        });
        let of_domain = of_it.filter(|line| line.contains(domain));
        of_domain.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Waits until a domain is let through at its whole quota.
    pub(crate) fn until_whole(&self, domain: &str) {
        let of = |metric: &str| {
            let text = self.rig.scrape();
            let line = text.lines().find(|line| line.starts_with(metric) && line.contains(domain))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        wait_for("the whole quota", || {
            (of("keyway_service_rate_allowed{")? >= of("keyway_service_quota{")?).then_some(())
        });
    }
}

/// A cloud before this emulated KMS, or with keys of its own.
fn cloud(kms: Option<&EmulatedKms>) -> Cloud {
    let mut arguments = vec!["aws", "--credential", "AKIDTEST:secret", "--container-token", "shown"];
    if let Some(kms) = kms {
        arguments.extend(["--upstream", &kms.url]);
    }
    Cloud::start(simulator(), None, &arguments)
}

fn told(answer: &Answer) -> (u16, String) {
    let said = if answer.status < 300 { String::new() } else { answer.json()["errors"][0].to_string() };
    (answer.status, said)
}
