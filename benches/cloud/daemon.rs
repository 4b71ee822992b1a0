//! The daemon that is measured.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keyway::client::{Framed, Http, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::client::Cloud;
use crate::services::Service;

/// A daemon that ends with this.
pub(crate) struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
    token: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    pub(crate) async fn start(
        keyway: &Path,
        folder: tempfile::TempDir,
        cloud: &Cloud,
        service: &dyn Service,
    ) -> Daemon {
        let home = folder.path().display();
        let (backend, settings) = (service.backend(), service.settings(folder.path()));
        let config = format!(
            "listener \"unix\" {{ address = \"{home}/http.sock\" }}\n\
             listener \"unix\" {{\n address = \"{home}/framed.sock\"\n protocol = \"framed\"\n}}\n\
             seal \"file\" {{ path = \"{home}/seal.key\" }}\nstorage \"redb\" {{ path = \"{home}/keyway.redb\" }}\n\
             publish_dir = \"{home}/published\"\nkms_service \"{backend}\" {{\n {settings}\n}}\n"
        );
        std::fs::write(folder.path().join("keyway.hcl"), config).expect("a file");
        let log = std::fs::File::create(folder.path().join("log")).expect("a file");
        let mut command = Command::new(keyway);
        command.arg("server").arg(format!("-config={home}/keyway.hcl")).envs(service.environment(cloud));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("a daemon");
        let mut daemon = Daemon { child, folder, token: String::new() };
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(daemon.folder.path().join("framed.sock")).is_err() {
            let log = std::fs::read_to_string(daemon.folder.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "the daemon does not listen: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begun = daemon.write("sys/init", json!({})).await;
        daemon.token = begun["root_token"].as_str().expect("a token").to_owned();
        daemon
    }

    async fn write(&self, path: &str, data: Value) -> Value {
        let mut http = Http::new(&self.folder.path().join("http.sock"));
        http.token = (!self.token.is_empty()).then(|| Secret::from(self.token.as_str()));
        let answer = http.request(Verb::Write, path, data.as_object().expect("an object")).await.expect("an answer");
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status < 300, "{path}: {} {said}", answer.status);
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// A Transit key on a key of the cloud.
    pub(crate) async fn key(&self, service: &dyn Service, cloud: &Cloud) {
        let path = format!("sys/managed-keys/{}/doc", service.backend());
        self.write(&path, service.key(cloud, self.folder.path())).await;
        self.write("sys/mounts/transit", json!({"type": "transit"})).await;
        self.write("transit/keys/doc", json!({"type": "managed_key", "managed_key_name": "doc"})).await;
    }

    pub(crate) async fn framed(&self) -> Framed {
        let identity = Identity { token: Secret::from(self.token.as_str()), namespace: String::new() };
        let path = self.folder.path().join("framed.sock");
        let deadline = Some(Duration::from_secs(10));
        Framed::connect(&path, &identity, proto::Class::Interactive, deadline).await.expect("a connection")
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

/// What a process has used of the processors.
pub(crate) fn cpu_of(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    // A tick is a hundredth of a second on Linux.
    Duration::from_millis(ticks * 10)
}
