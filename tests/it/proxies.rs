//! Clouds behind a proxy: calls and the fetching of credentials go through it and are nobody's to read there; what it refuses is told
//! to those who ask and, once, in the log, without its password; and it comes back without anybody's doing.

use std::path::Path;
use std::time::Instant;

use keyway::model::CloudService;
use serde_json::{Value, json};

use crate::cloud_rig::{AwsRig, CloudRig};
use crate::connect_proxy::ConnectProxy;
use crate::daemon::{LIMIT, wait_for};

const USER: &str = "keyway";
/// It has what is written otherwise in a URL.
const PASSWORD: &str = "pass:w@rd of the proxy";
const IN_URL: &str = "pass%3Aw%40rd%20of%20the%20proxy";
/// `USER:PASSWORD`, as a header has it.
const IN_HEADER: &str = "a2V5d2F5OnBhc3M6d0ByZCBvZiB0aGUgcHJveHk=";

/// Where a cloud's keys are, and where credentials are given out, by the names that they have in the world. Here nobody knows them
/// but the proxy.
fn hosts(service: CloudService) -> [&'static str; 2] {
    match service {
        CloudService::AwsKms => ["kms.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"],
        CloudService::AzureKeyVault => ["one.vault.azure.net", "login.microsoftonline.com"],
        CloudService::GcpCkms => ["cloudkms.googleapis.com", "sts.googleapis.com"],
    }
}

/// A daemon whose way to a cloud is a proxy.
struct Proxied {
    rig: CloudRig,
    proxy: ConnectProxy,
    service: CloudService,
    port: String,
}

impl Proxied {
    /// With a key `doc` that has signed.
    async fn new(service: CloudService) -> Proxied {
        let proxy = ConnectProxy::start(Some((USER, PASSWORD)));
        let url = format!("http://{USER}:{IN_URL}@{}", proxy.address);
        let rig = CloudRig::secured(service, "log_level = \"trace\"", |port, folder| {
            let mut environment = credentials(service, port, folder);
            environment.push(("HTTPS_PROXY", url));
            environment
        })
        .await;
        let port = rig.cloud.url.rsplit_once(':').unwrap().1.to_owned();
        let proxied = Proxied { rig, proxy, service, port };
        proxied.rig.key("doc", proxied.fields()).await;
        proxied.rig.until_signs("doc").await;
        proxied
    }

    /// What its key has of a managed key's fields.
    fn fields(&self) -> Value {
        let endpoint = format!("https://{}:{}", hosts(self.service)[0], self.port);
        match self.service {
            CloudService::AwsKms => json!({"endpoint": endpoint, "access_key": "", "secret_key": ""}),
            CloudService::AzureKeyVault => json!({"endpoint": format!("{endpoint}/vault/one")}),
            CloudService::GcpCkms => json!({"endpoint": endpoint, "credentials": ""}),
        }
    }

    /// No line of the log, no figure, and nothing that was told has the proxy's password.
    fn assert_discreet(&self, told: &str) {
        for (place, text) in
            [("the log", self.rig.daemon.log()), ("metrics", self.rig.scrape()), ("errors", told.into())]
        {
            for secret in [PASSWORD, IN_URL, IN_HEADER] {
                assert!(!text.contains(secret), "{secret:?} is in {place}:\n{text}");
            }
        }
    }
}

/// How the daemon finds credentials that somebody gives out.
fn credentials(service: CloudService, port: &str, folder: &Path) -> Vec<(&'static str, String)> {
    let issuer = format!("https://{}:{port}", hosts(service)[1]);
    match service {
        CloudService::AwsKms => {
            let identity = folder.join("identity");
            std::fs::write(&identity, "workload").unwrap();
            vec![
                ("AWS_WEB_IDENTITY_TOKEN_FILE", identity.display().to_string()),
                ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/keys".to_owned()),
                ("AWS_ENDPOINT_URL_STS", issuer),
            ]
        }
        CloudService::AzureKeyVault => vec![("AZURE_AUTHORITY_HOST", issuer)],
        CloudService::GcpCkms => {
            let federated = folder.join("federated.json");
            let mut content: Value = serde_json::from_slice(&std::fs::read(&federated).unwrap()).unwrap();
            content["token_url"] = format!("{issuer}/v1/token").into();
            std::fs::write(&federated, content.to_string()).unwrap();
            vec![
                ("GOOGLE_APPLICATION_CREDENTIALS", federated.display().to_string()),
                // Tokens are fetched by Google's library, which trusts this.
                ("SSL_CERT_FILE", folder.join("cloud.pem").display().to_string()),
            ]
        }
    }
}

/// Calls and credentials through tunnels, which are made anew where they end.
async fn signs_through_the_proxy(service: CloudService) {
    let proxied = Proxied::new(service).await;
    let Proxied { rig, proxy, port, .. } = &proxied;
    let expected = hosts(service).map(|host| format!("{host}:{port}"));
    let seen = proxy.seen();
    for to in &expected {
        assert!(seen.tunnels.contains(to), "{to} is not among {seen:?}");
    }
    let of_service = || proxy.seen().tunnels.iter().filter(|to| **to == expected[0]).count();
    let before = of_service();
    proxy.cut();
    rig.until_signs("doc").await;
    wait_for("another tunnel", || (of_service() > before).then_some(()));
    let seen = proxy.seen();
    assert!(seen.tunnels.iter().all(|to| expected.contains(to)), "{seen:?}");
    assert!(seen.strays.is_empty() && seen.refused == 0, "{seen:?}");
    let named = format!("address=\"{}\" variable=\"HTTPS_PROXY\"", proxy.address);
    assert!(rig.daemon.log().contains(&named), "{}", rig.daemon.log());
    proxied.assert_discreet("");
}

#[tokio::test]
async fn aws_signs_through_the_proxy() {
    signs_through_the_proxy(CloudService::AwsKms).await;
}

#[tokio::test]
async fn azure_signs_through_the_proxy() {
    signs_through_the_proxy(CloudService::AzureKeyVault).await;
}

#[tokio::test]
async fn google_signs_through_the_proxy() {
    signs_through_the_proxy(CloudService::GcpCkms).await;
}

impl Proxied {
    /// Asks for signatures until the proxy is blamed for it in these words.
    async fn until_blamed(&self, with: &str) {
        let with = format!("the proxy {} {with}", self.proxy.address);
        let begun = Instant::now();
        loop {
            let (status, told) = self.rig.sign("doc").await;
            self.assert_discreet(&told);
            if told.contains(&with) {
                assert_eq!(status, 503, "{told}");
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{with}: {status} {told}");
        }
    }

    /// The lines of the log that tell of failures that last.
    fn outages(&self) -> Vec<String> {
        let log = self.rig.daemon.log();
        log.lines().filter(|line| line.contains("failed several times in a row")).map(str::to_owned).collect()
    }
}

/// What a proxy may do to those who need it, while the daemon runs and when it starts.
async fn is_told_what_the_proxy_refuses(service: CloudService) {
    let mut proxied = Proxied::new(service).await;
    let [host, issuer] = hosts(service);
    proxied.proxy.refuse(502);
    let refused = format!("refused to connect to {host}, or could not: allow it there, or name it in NO_PROXY");
    proxied.until_blamed(&refused).await;
    proxied.proxy.allow();
    proxied.rig.until_signs("doc").await;
    proxied.proxy.leave();
    proxied.until_blamed("cannot be reached: ").await;
    proxied.proxy = proxied.proxy.come_back();
    proxied.rig.until_signs("doc").await;
    proxied.proxy.refuse(407);
    proxied.until_blamed("asks for a user and password (407): correct them in HTTPS_PROXY").await;
    while proxied.outages().is_empty() {
        proxied.rig.sign("doc").await;
    }
    // That it lasts is told once, however often it is asked for.
    for _ in 0..5 {
        assert_eq!(proxied.rig.sign("doc").await.0, 503);
    }
    let (outages, blamed) = (proxied.outages(), format!("the proxy {} ", proxied.proxy.address));
    assert!(outages.len() == 1 && outages[0].contains(&blamed), "{outages:#?}");
    proxied.proxy.allow();
    proxied.rig.until_signs("doc").await;
    assert!(proxied.rig.sum("keyway_service_failures_total", &[("cause", "proxy")]) > 0.0, "{}", proxied.rig.scrape());

    // A start that the proxy lets fetch no credentials.
    proxied.proxy.refuse(403);
    proxied.rig = proxied.rig.restart();
    // Google's library says no more.
    let why = match service {
        CloudService::GcpCkms => "the environment's proxy: tunnel error: unsuccessful".to_owned(),
        _ => format!("the proxy {} refused to connect to {issuer}", proxied.proxy.address),
    };
    // Azure's library asks the service first, and for credentials beside.
    for (told, why) in [("credentials could not be fetched anew", &*why), ("managed key is not served", " proxy")] {
        wait_for(told, || {
            let log = proxied.rig.daemon.log();
            log.lines().any(|line| line.contains(told) && line.contains(why)).then_some(())
        });
    }
    proxied.proxy.allow();
    proxied.rig.until_signs("doc").await;
    proxied.assert_discreet("");
}

#[tokio::test]
async fn aws_is_told_what_the_proxy_refuses() {
    is_told_what_the_proxy_refuses(CloudService::AwsKms).await;
}

#[tokio::test]
async fn azure_is_told_what_the_proxy_refuses() {
    is_told_what_the_proxy_refuses(CloudService::AzureKeyVault).await;
}

#[tokio::test]
async fn google_is_told_what_the_proxy_refuses() {
    is_told_what_the_proxy_refuses(CloudService::GcpCkms).await;
}

#[tokio::test]
async fn what_no_proxy_names_and_plain_http_go_through_no_proxy() {
    let proxy = ConnectProxy::start(None);
    let url = format!("http://{}", proxy.address);
    let rig = CloudRig::secured(CloudService::AzureKeyVault, "", |port, _| {
        let authority = ("AZURE_AUTHORITY_HOST", format!("https://127.0.0.1:{port}"));
        vec![authority, ("HTTPS_PROXY", url.clone()), ("NO_PROXY", "localhost, 127.0.0.0/8".to_owned())]
    })
    .await;
    let endpoint = rig.cloud.url.replace("127.0.0.1", "localhost");
    rig.key("doc", json!({"endpoint": format!("{endpoint}/vault/one")})).await;
    rig.until_signs("doc").await;
    let aws = AwsRig::by_identity(|cloud| {
        let mut environment = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"].map(|name| (name, url.clone())).to_vec();
        environment.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{cloud}/container/credentials")));
        environment.push(("AWS_CONTAINER_AUTHORIZATION_TOKEN", "shown".to_owned()));
        environment
    })
    .await;
    aws.key("doc", json!({"access_key": "", "secret_key": ""})).await;
    aws.until_signs("doc").await;
    let seen = proxy.seen();
    assert!(seen.tunnels.is_empty() && seen.strays.is_empty() && seen.refused == 0, "{seen:?}");
}
