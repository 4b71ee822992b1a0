//! A daemon with keys in a simulated cloud, and what stories of its days, good and bad, ask about them.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyway::client::Answer;
use keyway::model::{CloudService, Verb};
use serde_json::{Value, json};

use crate::clouds::{Cloud, simulator};
use crate::daemon::{LIMIT, Setup, wait_for};
use crate::python::python;
use crate::rig::{Rig, TOKENS, probing};
use crate::token::Token;

#[path = "../cloud-sim/tests/emulated_kms.rs"]
mod emulated_kms;

use emulated_kms::EmulatedKms;

/// What is metered together, of most stories of AWS.
pub(crate) const ECC: &str = "eu-west-1/ecc";
/// The tenant of all applications of Azure.
pub(crate) const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
/// What proves each of them.
pub(crate) const SECRET: &str = "an application's secret";
/// Google's key ring, and one in another region.
pub(crate) const RING: &str = "projects/keyway-test/locations/europe-west3/keyRings/ca";
const OTHER_RING: &str = "projects/keyway-test/locations/europe-west1/keyRings/ca";

/// A daemon, which has no keys elsewhere, and a cloud.
pub(crate) struct CloudRig {
    // Dropped before what it uses.
    pub(crate) rig: Rig,
    pub(crate) cloud: Cloud,
    service: CloudService,
    setup: Setup,
}

impl Deref for CloudRig {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl CloudRig {
    async fn new(folder: Token, service: CloudService, cloud: Cloud, setup: Setup) -> CloudRig {
        let rig = Rig::null_in(folder, &TOKENS[..1], &["unused"], setup.clone()).await;
        CloudRig { rig, cloud, service, setup }
    }

    /// On an AWS whose keys sign at once and do nothing else.
    pub(crate) async fn aws(setup: Setup) -> CloudRig {
        CloudRig::new(Token::absent(), CloudService::AwsKms, aws_cloud(None, None), setup).await
    }

    /// On an Azure of its own, with more of the `kms_service`.
    pub(crate) async fn azure(stanza: &str) -> CloudRig {
        let folder = Token::absent();
        let ca = folder.folder.path().join("azure.pem");
        let cloud = azure(&ca, &[]);
        let setup = azure_setup(&cloud, stanza, &[]);
        CloudRig::new(folder, CloudService::AzureKeyVault, cloud, setup).await
    }

    /// On a Google of its own, with more of the `kms_service`.
    pub(crate) async fn google(stanza: &str) -> CloudRig {
        let folder = Token::absent();
        let cloud = google(&folder, None);
        let setup = google_setup(stanza, &[]);
        CloudRig::new(folder, CloudService::GcpCkms, cloud, setup).await
    }

    /// On a cloud of its own that speaks TLS; the daemon's environment has this, made of the cloud's port and the folder.
    pub(crate) async fn secured(
        service: CloudService,
        more: &str,
        environment: impl FnOnce(&str, &Path) -> Vec<(&'static str, String)>,
    ) -> CloudRig {
        let folder = Token::absent();
        let ca = folder.folder.path().join("cloud.pem");
        let cloud = match service {
            CloudService::AwsKms => aws_cloud(None, Some(&ca)),
            CloudService::AzureKeyVault => azure(&ca, &[]),
            CloudService::GcpCkms => google(&folder, Some(&ca)),
        };
        let (_, port) = cloud.url.rsplit_once(':').unwrap();
        let environment = environment(port, folder.folder.path());
        let mut setup = setup(&service.to_string(), &format!("ca_file = {ca:?}"), &environment);
        setup.more = format!("{}\n{more}", setup.more).leak();
        CloudRig::new(folder, service, cloud, setup).await
    }

    /// Ends the daemon at once and starts another on what it left.
    pub(crate) fn restart(self) -> CloudRig {
        let CloudRig { rig, cloud, service, setup } = self;
        let rig = rig.restart(setup.clone());
        CloudRig { rig, cloud, service, setup }
    }

    /// The same, where a call is tried as often as it is by default.
    pub(crate) fn patient(mut self) -> CloudRig {
        self.setup.more = self.setup.more.replace(IMPATIENT, "").leak();
        self.restart()
    }

    /// The path of a managed key.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("sys/managed-keys/{}/{name}", self.service)
    }

    /// The fields of a managed key that signs by P-256, unless `more` says otherwise, and is made in the cloud when first used.
    pub(crate) fn fields(&self, name: &str, more: &Value) -> Value {
        let mut data = match self.service {
            CloudService::AwsKms => json!({
                "kms_key": format!("alias/{name}"), "key_type": "ECDSA", "curve": "P256", "region": "eu-west-1",
                "endpoint": self.cloud.url, "access_key": "AKIDTEST", "secret_key": "secret",
            }),
            CloudService::AzureKeyVault => {
                // Symmetric keys are in managed HSMs alone.
                let managed = more["key_type"] == "oct-HSM" || more["resource"] == "managedhsm.azure.net";
                let place = if managed { "managedhsm" } else { "vault" };
                json!({
                    "tenant_id": TENANT, "client_id": "app", "client_secret": SECRET, "vault_name": "one",
                    "key_name": name, "key_type": "EC-HSM", "curve": "P256",
                    "resource": format!("{place}.azure.net"), "endpoint": format!("{}/{place}/one", self.cloud.url),
                })
            }
            CloudService::GcpCkms => {
                let credentials = Some(&*google_files(&self.token)[0]);
                google_fields(&self.cloud, name, "EC_SIGN_P256_SHA256", credentials)
            }
        };
        data["allow_generate_key"] = true.into();
        data["any_mount"] = true.into();
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    }

    /// The managed key alone.
    pub(crate) async fn managed_key(&self, name: &str, more: Value) {
        self.daemon.write(&self.path(name), self.fields(name, &more)).await;
    }

    /// A Transit key on a managed key of its own.
    pub(crate) async fn key(&self, name: &str, more: Value) {
        self.managed_key(name, more).await;
        self.daemon.transit_key_on(name).await;
    }

    /// Has the Transit key sign; answers the status and the first error.
    pub(crate) async fn sign(&self, key: &str) -> (u16, String) {
        told(&self.rig.ask("", Verb::Write, &format!("transit/sign/{key}"), json!({"input": "aGVsbG8="})).await)
    }

    /// Signs until that goes well.
    pub(crate) async fn until_signs(&self, key: &str) {
        self.until(key, |status, _| status == 200).await;
    }

    /// Signs until that is refused with this in the error; answers the status.
    pub(crate) async fn until_refused(&self, key: &str, with: &str) -> u16 {
        self.until(key, |_, told| told.contains(with)).await
    }

    async fn until(&self, key: &str, good: impl Fn(u16, &str) -> bool) -> u16 {
        let begun = Instant::now();
        loop {
            let (status, said) = self.sign(key).await;
            if good(status, &said) {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "{key}: {status} {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Has a key of the cloud be in a state, by the name that its managed key has.
    pub(crate) fn set_state(&self, key: &str, state: &str) {
        let key = match self.service {
            CloudService::AwsKms => format!("alias/{key}"),
            CloudService::AzureKeyVault => format!("one/{key}"),
            CloudService::GcpCkms => format!("{RING}/cryptoKeys/{key}"),
        };
        self.cloud.steer("PUT", &format!("/keys/{key}"), &json!({"state": state}));
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

/// The same on AWS, whose emulator may stand behind the simulator.
pub(crate) struct AwsRig {
    base: CloudRig,
    kms: Option<EmulatedKms>,
}

impl Deref for AwsRig {
    type Target = CloudRig;

    fn deref(&self) -> &CloudRig {
        &self.base
    }
}

impl AwsRig {
    /// On a cloud whose keys sign at once and do nothing else.
    pub(crate) async fn null(setup: Setup) -> AwsRig {
        AwsRig { base: CloudRig::aws(setup).await, kms: None }
    }

    /// On an emulated KMS that does the work; none where there is no python for it.
    pub(crate) async fn emulated(setup: Setup) -> Option<AwsRig> {
        let python = python()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/emulated_kms.py");
        let kms = Some(EmulatedKms::start(&python, &script));
        let cloud = aws_cloud(kms.as_ref(), None);
        Some(AwsRig { base: CloudRig::new(Token::absent(), CloudService::AwsKms, cloud, setup).await, kms })
    }

    /// The same with another region, which has the same keys.
    pub(crate) async fn two_regions(setup: Setup) -> Option<(AwsRig, Cloud)> {
        let aws = AwsRig::emulated(setup).await?;
        let other = aws_cloud(aws.kms.as_ref(), None);
        Some((aws, other))
    }

    /// On keys that sign at once; the daemon finds its own credentials by this of its environment, made of the cloud's URL.
    pub(crate) async fn by_identity(environment: impl FnOnce(&str) -> Vec<(&'static str, String)>) -> AwsRig {
        let cloud = aws_cloud(None, None);
        let environment = leaked(&environment(&cloud.url));
        let setup = Setup { environment, ..Setup::default() };
        let base = CloudRig::new(Token::absent(), CloudService::AwsKms, cloud, setup).await;
        AwsRig { base, kms: None }
    }

    /// The daemon and its cloud, and the emulator that they need as long as they are there.
    pub(crate) fn parts(self) -> (CloudRig, Option<EmulatedKms>) {
        (self.base, self.kms)
    }

    /// Ends the daemon at once and starts another on what it left.
    pub(crate) fn restart(self) -> AwsRig {
        AwsRig { base: self.base.restart(), kms: self.kms }
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
}

/// A cloud before this emulated KMS, or with keys of its own.
fn aws_cloud(kms: Option<&EmulatedKms>, ca: Option<&Path>) -> Cloud {
    let mut arguments = vec!["aws", "--credential", "AKIDTEST:secret", "--container-token", "shown"];
    if let Some(kms) = kms {
        arguments.extend(["--upstream", &kms.url]);
    }
    Cloud::start(simulator(), ca, &arguments)
}

/// An Azure that knows the applications `app`, `app2` and `app3`, and writes its certificate to this file.
pub(crate) fn azure(ca: &Path, more: &[&str]) -> Cloud {
    let clients = ["app", "app2", "app3"].map(|client| format!("--client={client}:{SECRET}"));
    let [one, other, third] = clients.each_ref().map(String::as_str);
    Cloud::start(simulator(), Some(ca), &[&["azure", one, other, third], more].concat())
}

/// Of a daemon that uses it.
pub(crate) fn azure_setup(cloud: &Cloud, stanza: &str, environment: &[(&'static str, String)]) -> Setup {
    let stanza = format!("ca_file = \"{}\"\n {stanza}", cloud.ca.as_ref().unwrap().display());
    let mut all = vec![("AZURE_AUTHORITY_HOST", cloud.url.clone())];
    all.extend_from_slice(environment);
    setup("azurekeyvault", &stanza, &all)
}

/// What Google's emulator hands out: the credential file of a service account, and that of a federated workload.
pub(crate) fn google_files(token: &Token) -> [PathBuf; 2] {
    ["account.json", "federated.json"].map(|name| token.folder.path().join(name))
}

/// A Google with two key rings, which writes credential files to the token's folder.
pub(crate) fn google(token: &Token, ca: Option<&Path>) -> Cloud {
    let [account, federated] = google_files(token);
    let rings = ["--key-ring", RING, "--key-ring", OTHER_RING];
    let arguments = [&["google", "--shortest-destruction", "0"], &rings[..], &["--service-account"]].concat();
    let files = [account.to_str().unwrap(), "--federated", federated.to_str().unwrap()];
    Cloud::start(simulator(), ca, &[&arguments[..], &files].concat())
}

/// Of a daemon that uses it.
pub(crate) fn google_setup(stanza: &str, environment: &[(&'static str, String)]) -> Setup {
    setup("gcpckms", stanza, environment)
}

/// The fields of a key there, by a credential file.
pub(crate) fn google_fields(cloud: &Cloud, name: &str, algorithm: &str, credentials: Option<&Path>) -> Value {
    json!({
        "project": "keyway-test", "region": "europe-west3", "key_ring": "ca", "crypto_key": name,
        "algorithm": algorithm, "endpoint": cloud.url, "credentials": credentials,
        "allow_generate_key": true, "any_mount": true,
    })
}

/// Soon it is said of a failed call that it failed.
pub(crate) const IMPATIENT: &str = "cloud_attempts = 4";

/// Of a daemon that tries lost keys often, so that stories are short.
pub(crate) fn setup(service: &str, stanza: &str, environment: &[(&'static str, String)]) -> Setup {
    let call = if stanza.contains("call =") { "" } else { "call = \"2s\"" };
    let more =
        format!("kms_service \"{service}\" {{\n max_sessions = 4\n {call}\n {stanza}\n}}\n{}", probing(IMPATIENT));
    Setup { more: more.leak(), environment: leaked(environment), ..Setup::default() }
}

fn leaked(environment: &[(&'static str, String)]) -> &'static [(&'static str, &'static str)] {
    environment.iter().map(|(name, value)| (*name, &*value.clone().leak())).collect::<Vec<_>>().leak()
}

fn told(answer: &Answer) -> (u16, String) {
    let said = if answer.status < 300 { String::new() } else { answer.json()["errors"][0].to_string() };
    (answer.status, said)
}
