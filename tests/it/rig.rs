//! A daemon on a simulated HSM of several tokens, and what stories of faults ask about it.

use std::path::PathBuf;
use std::time::Instant;

use keyway::client::{Answer, Framed, Identity};
use keyway::model::{PublicKey, Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup, scrape, wait_for};
use crate::sim::{Sim, Softhsm};
use crate::token::{self, Token};

/// The tokens of most stories.
pub(crate) const TOKENS: [&str; 2] = ["one", "two"];
/// Both of them behind one lane.
pub(crate) const POOL: &str = r#"
kms_pool "both" {
  member {
    library     = "hsm"
    token_label = "one"
  }
  member {
    library     = "hsm"
    token_label = "two"
  }
}
"#;

/// A pool of both tokens, with these lines in `limits`. Lost members are looked for often, so that stories are short.
pub(crate) fn pool(limits: &str) -> &'static str {
    format!("{POOL}{}", probing(limits)).leak()
}

/// These lines in `limits`, and a short pause between probes.
pub(crate) fn probing(limits: &str) -> &'static str {
    format!("limits {{\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n {limits}\n}}\n").leak()
}

/// A daemon and its HSM.
pub(crate) struct Rig {
    // Dropped before what it uses.
    pub(crate) daemon: Daemon,
    pub(crate) sim: Sim,
    pub(crate) token: Token,
}

impl Rig {
    /// A daemon on `sim`, made in the token's folder: the profile is that of an unknown device, unless `setup` says.
    pub(crate) async fn on(token: Token, sim: Sim, setup: Setup) -> Rig {
        let daemon = Daemon::with(&token, on_sim(&sim, setup)).await;
        Rig { daemon, sim, token }
    }

    /// A daemon on made-up tokens that all hold these keys.
    pub(crate) async fn null(tokens: &[&str], keys: &[&str], setup: Setup) -> Rig {
        Rig::null_in(Token::absent(), tokens, keys, setup).await
    }

    /// The same in a folder that there is.
    pub(crate) async fn null_in(token: Token, tokens: &[&str], keys: &[&str], setup: Setup) -> Rig {
        let sim = Sim::null(token::module(), &module(&token), tokens, keys);
        Rig::on(token, sim, setup).await
    }

    /// A daemon on made-up tokens as above, with a second library `bare` on the same module that carries no PIN.
    pub(crate) async fn bare(tokens: &[&str], keys: &[&str], setup: Setup) -> Rig {
        let token = Token::absent();
        let sim = Sim::null(token::module(), &module(&token), tokens, keys);
        Rig::bare_on(token, sim, setup).await
    }

    /// The same on a simulator that there is.
    pub(crate) async fn bare_on(token: Token, sim: Sim, setup: Setup) -> Rig {
        let setup = with_bare(&sim, setup);
        Rig::on(token, sim, setup).await
    }

    /// Starts such a daemon anew on what it left.
    pub(crate) fn restart_bare(self, setup: Setup) -> Rig {
        let setup = with_bare(&self.sim, setup);
        self.restart(setup)
    }

    /// Both made-up tokens in a pool with the key `doc`, each with two sessions, which a device serves both at once.
    pub(crate) async fn pool(limits: &str, stanza: &'static str) -> Rig {
        let setup = Setup { more: pool(limits), stanza, ..Setup::default() };
        let rig = Rig::null(&TOKENS, &["doc"], setup).await;
        rig.sim.steer("slot * parallel 2");
        rig.key("doc", json!({"library": "both", "token_label": ""})).await;
        rig
    }

    /// The same with two tokens of SoftHSM2 that hold copies of these keys, the first of which must be `doc`.
    pub(crate) async fn real_pool(stanza: &'static str, keys: &[&str]) -> Rig {
        let token = Token::absent();
        let sim = Sim::softhsm(token::module(), &module(&token), &TOKENS);
        let softhsm = Softhsm::new(&sim.module.with_extension("softhsm"));
        (1..).zip(keys).for_each(|(id, label)| softhsm.import(&TOKENS, label, &format!("{id:02}")));
        let rig = Rig::on(token, sim, Setup { more: pool(""), stanza, ..Setup::default() }).await;
        rig.sim.steer("slot * parallel 2");
        rig.key("doc", json!({"library": "both", "token_label": ""})).await;
        rig
    }

    /// Ends the daemon at once and starts another on what it left.
    pub(crate) fn restart(self, setup: Setup) -> Rig {
        let Rig { daemon, sim, token } = self;
        let root_token = daemon.root_token.clone();
        drop(daemon);
        let mut daemon = Daemon::start(&token, on_sim(&sim, setup));
        daemon.root_token = root_token;
        Rig { daemon, sim, token }
    }

    /// A P-256 key of a Transit mount in the root namespace; by default of the only token.
    pub(crate) async fn key(&self, name: &str, more: Value) {
        self.daemon.transit_key(name, p256(more)).await;
    }

    /// Deletes a Transit key made so, and its managed key.
    pub(crate) async fn delete_key(&self, name: &str) {
        self.write("", &format!("transit/keys/{name}/config"), json!({"deletion_allowed": true})).await;
        for path in [format!("transit/keys/{name}"), format!("sys/managed-keys/pkcs11/{name}")] {
            let answer = self.ask("", Verb::Delete, &path, json!({})).await;
            assert!(answer.status < 300, "{path}: {} {:?}", answer.status, answer.body);
        }
    }

    /// The same in a namespace.
    pub(crate) async fn key_in(&self, namespace: &str, name: &str, more: Value) {
        let mut managed = p256(more);
        let base = json!({"key_label": name, "any_mount": true, "library": "hsm"});
        for (field, value) in base.as_object().unwrap() {
            managed.as_object_mut().unwrap().entry(field).or_insert(value.clone());
        }
        self.write(namespace, "sys/mounts/transit", json!({"type": "transit"})).await;
        self.write(namespace, &format!("sys/managed-keys/pkcs11/{name}"), managed).await;
        let key = json!({"type": "managed_key", "managed_key_name": name});
        self.write(namespace, &format!("transit/keys/{name}"), key).await;
    }

    pub(crate) async fn ask(&self, namespace: &str, verb: Verb, path: &str, data: Value) -> Answer {
        let mut http = self.daemon.http();
        http.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        http.deadline = Some(LIMIT);
        http.request(verb, path, data.as_object().unwrap()).await.unwrap()
    }

    pub(crate) async fn write(&self, namespace: &str, path: &str, data: Value) {
        let answer = self.ask(namespace, Verb::Write, path, data).await;
        assert!(answer.status < 300, "{namespace} {path}: {} {:?}", answer.status, answer.body);
    }

    /// A framed connection whose calls carry this deadline.
    pub(crate) async fn framed(&self, deadline: std::time::Duration) -> Framed {
        let identity = Identity { token: Secret::from(self.daemon.root_token.as_str()), namespace: String::new() };
        let path = self.daemon.socket().with_extension("sock.framed");
        Framed::connect(&path, &identity, proto::Class::Interactive, Some(deadline)).await.unwrap()
    }

    /// Has the managed key sign something; answers the status and the first error.
    pub(crate) async fn test_sign(&self, key: &str) -> (u16, String) {
        let answer = self.ask("", Verb::Write, &format!("sys/managed-keys/pkcs11/{key}/test/sign"), json!({})).await;
        let told = if answer.status < 300 { String::new() } else { answer.json()["errors"][0].to_string() };
        (answer.status, told)
    }

    /// The public key of a Transit key.
    pub(crate) async fn public_key(&self, namespace: &str, name: &str) -> PublicKey {
        let answer = self.ask(namespace, Verb::Read, &format!("transit/keys/{name}"), json!({})).await;
        let pem = answer.json()["data"]["keys"]["1"]["public_key"].as_str().unwrap().to_owned();
        let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
        keyway::crypto::parse_spki(&der).unwrap()
    }

    /// What `sys/keyway/status` says of a token's member; of the first, if it has several.
    pub(crate) async fn member(&self, token: &str) -> Value {
        let status = self.daemon.read("sys/keyway/status").await;
        let members = status["members"].as_array().unwrap();
        members.iter().find(|member| member["token"] == token).unwrap_or_else(|| panic!("no {token}: {status}")).clone()
    }

    /// The tokens of all members, by the names they have.
    pub(crate) async fn tokens(&self) -> Vec<String> {
        let status = self.daemon.read("sys/keyway/status").await;
        let members = status["members"].as_array().unwrap();
        members.iter().map(|member| member["token"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until a token's member stands so.
    pub(crate) async fn until_member(&self, token: &str, good: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let member = self.member(token).await;
            if good(&member) {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{member}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until_serving(&self, token: &str) {
        self.until_member(token, |member| member["state"] == "serving" && member["keys"] != 0).await;
    }

    /// The sum of all series of this metric that have these labels; 0 where there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.scrape(), name, labels)
    }

    /// Waits until such a sum has grown by so much beyond `before`.
    pub(crate) fn until_grown(&self, name: &str, labels: &[(&str, &str)], before: f64, by: f64) {
        wait_for(name, || (self.sum(name, labels) >= before + by).then_some(()));
    }

    pub(crate) fn scrape(&self) -> String {
        scrape(&self.daemon.folder.join("metrics.sock"))
    }

    /// Operations of a member that went well.
    pub(crate) fn jobs(&self, token: &str) -> f64 {
        self.sum("keyway_jobs_total", &[("token", token), ("result", "ok")])
    }
}

/// Where the simulator's copy is put.
pub(crate) fn module(token: &Token) -> PathBuf {
    token.folder.path().join("hsm.so")
}

fn with_bare(sim: &Sim, setup: Setup) -> Setup {
    let bare = format!(
        "kms_library \"pkcs11\" {{\n name = \"bare\"\n library = \"{}\"\n profile = \"generic\"\n {}\n}}\n",
        sim.module.display(),
        setup.stanza,
    );
    Setup { more: format!("{bare}{}", setup.more).leak(), ..setup }
}

fn on_sim(sim: &Sim, setup: Setup) -> Setup {
    Setup { library: Some(sim.module.clone()), profile: setup.profile.or(Some("generic")), ..setup }
}

fn p256(more: Value) -> Value {
    let mut data = json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one", "allow_generate_key": false});
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    data
}

/// The sum of all series of a metric that have these labels, in the text Prometheus reads.
pub(crate) fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let of_it = text.lines().filter_map(|line| line.strip_prefix(name));
    let series = of_it.filter(|rest| rest.starts_with([' ', '{']));
    let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    let matching = series.filter(|rest| wanted.iter().all(|label| rest.contains(label)));
    matching.map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}
