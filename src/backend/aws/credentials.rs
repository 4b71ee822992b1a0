//! By whose word calls are made: an access key that was given, or the daemon's own identity (environment, profile, web
//! identity token, container, instance). What expires is fetched anew before it does, so that no request waits for that; that it
//! cannot be is told long before requests fail.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use aws_config::BehaviorVersion;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::StalledStreamProtectionConfig;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{
    Credentials, IdentityCache, ProvideCredentials, Region, SharedCredentialsProvider, SharedHttpClient,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};

use super::Reach;
use crate::backend::cloud::{Service, innermost};
use crate::config::KmsService;
use crate::model::Secret;

/// Where neither a registration nor the environment says where: Vault's default.
const REGION: &str = "us-east-1";
/// Credentials are fetched anew so long before they expire; each failure is followed by another try after a pause.
const AHEAD: Duration = Duration::from_secs(300);
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// What is never seen to expire is looked at so often.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// An access key, or the daemon's own identity where there is none.
#[derive(PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) access_key: Option<String>,
    pub(super) secret_key: Option<Secret>,
}

/// By what is no secret.
impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.access_key.hash(state);
    }
}

/// A client that tries each call once: who tries again, and when, is decided above. What is wrong is said in words.
pub(super) fn client(reach: &Reach, service: &Arc<Service>) -> Result<Client, String> {
    let settings = &service.settings;
    let http = http_client(settings)?;
    let timeouts = TimeoutConfig::builder().connect_timeout(settings.call).build();
    let mut config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http.clone())
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts);
    if let Some(endpoint) = &reach.endpoint {
        config = config.endpoint_url(endpoint);
    }
    let region = reach.region.clone().map(Region::new);
    config = match (&reach.identity.access_key, &reach.identity.secret_key) {
        (Some(access_key), Some(secret_key)) => {
            let secret_key = secret_key.expose_str().ok_or("secret_key is not text")?;
            let given = Credentials::new(access_key, secret_key, None, None, "managed key");
            config.credentials_provider(given).region(region.or_else(|| Some(Region::from_static(REGION))))
        }
        _ => {
            let (own, region) = own(http, region, service)?;
            config.credentials_provider(own).identity_cache(IdentityCache::no_cache()).region(region)
        }
    };
    Ok(Client::from_conf(config.build()))
}

/// Connections of every client of this one; those that are idle are kept, since a handshake takes longer than a call.
fn http_client(settings: &KmsService) -> Result<SharedHttpClient, String> {
    let mut builder = aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(Duration::from_secs(300))
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc));
    if let Some(pem) = &settings.ca_certificates {
        let trusted = TrustStore::empty().with_native_roots(true).with_pem_certificate(pem.as_slice());
        let context = TlsContext::builder().with_trust_store(trusted).build();
        builder = builder.tls_context(context.map_err(|error| format!("ca_file: {error}"))?);
    }
    Ok(builder.build_https())
}

/// The daemon's own identity, and its region where none is given.
fn own(
    http: SharedHttpClient,
    region: Option<Region>,
    service: &Arc<Service>,
) -> Result<(SharedCredentialsProvider, Option<Region>), String> {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    let loader = match region {
        Some(region) => loader.region(region),
        None => loader,
    };
    let loaded =
        service.runtime.wait(Duration::from_secs(10), "the environment of AWS", async { Ok(loader.load().await) });
    let loaded = loaded.map_err(|error| error.fault.to_string())?;
    let chain = loaded.credentials_provider().ok_or("AWS has no credentials for this daemon")?;
    let kept = Kept(Arc::new(Keeper { chain, current: ArcSwapOption::empty(), service: Arc::downgrade(service) }));
    let keeper = Arc::downgrade(&kept.0);
    service.runtime.spawn(async move {
        let mut pause = PAUSE_FIRST;
        loop {
            let Some(keeper) = keeper.upgrade() else { return };
            let next = match keeper.fetch().await {
                Ok(credentials) => {
                    pause = PAUSE_FIRST;
                    due(&credentials)
                }
                Err(error) => {
                    let left = keeper.left().map_or(0, |left| left.as_secs());
                    tracing::error!(
                        service = "awskms", reason = %innermost(&error), seconds_left = left,
                        "the daemon's own credentials could not be fetched anew; requests fail when those at hand have expired"
                    );
                    pause = (pause * 2).min(PAUSE_MAX);
                    pause
                }
            };
            drop(keeper);
            tokio::time::sleep(next).await;
        }
    });
    let region = loaded.region().cloned().or_else(|| Some(Region::from_static(REGION)));
    Ok((SharedCredentialsProvider::new(kept), region))
}

/// When they are to be fetched anew: ahead of their end, or half-way to it where that is near.
fn due(credentials: &Credentials) -> Duration {
    let Some(left) = credentials.expiry().map(left_until) else { return LOOK_AGAIN };
    if left > AHEAD * 2 { left - AHEAD } else { (left / 2).max(PAUSE_FIRST) }
}

fn left_until(end: SystemTime) -> Duration {
    end.duration_since(SystemTime::now()).unwrap_or_default()
}

/// Credentials that are fetched ahead of need.
struct Keeper {
    chain: SharedCredentialsProvider,
    current: ArcSwapOption<Credentials>,
    service: Weak<Service>,
}

#[derive(Debug)]
struct Kept(Arc<Keeper>);

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper")
    }
}

impl Keeper {
    async fn fetch(&self) -> Result<Credentials, CredentialsError> {
        let fetched = self.chain.provide_credentials().await;
        if let Some(service) = self.service.upgrade() {
            match &fetched {
                Ok(credentials) => service.own.fetched(credentials.expiry()),
                Err(_) => service.own.failed(),
            }
        }
        let fetched = fetched?;
        self.current.store(Some(Arc::new(fetched.clone())));
        Ok(fetched)
    }

    /// How long those at hand are good; `None` where there are none, or they never end.
    fn left(&self) -> Option<Duration> {
        self.current.load().as_ref().and_then(|current| current.expiry()).map(left_until)
    }
}

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let current = self.0.current.load();
        let good = |known: &&Arc<Credentials>| known.expiry().is_none_or(|end| !left_until(end).is_zero());
        match current.as_ref().filter(good) {
            Some(known) => future::ProvideCredentials::ready(Ok(Credentials::clone(known))),
            None => future::ProvideCredentials::new(self.0.fetch()),
        }
    }
}
