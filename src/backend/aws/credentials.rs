//! By whose word calls are made: an access key that was given, or the daemon's own identity (environment, profile, web
//! identity token, container, instance).

use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::StalledStreamProtectionConfig;
use aws_sdk_kms::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{Credentials, IdentityCache, ProvideCredentials, Region, SharedHttpClient};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use futures_util::FutureExt;

use super::{Reach, fault, transport};
use crate::backend::cloud::{Issued, Issuer, Keeper, Owner, Service, innermost};
use crate::model::Secret;

/// Where neither a registration nor the environment says where: Vault's default.
const REGION: &str = "us-east-1";
/// How long the environment may take to say which region this is.
const ENVIRONMENT: Duration = Duration::from_secs(10);

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

/// A client, and the daemon's own credentials where it uses them: an access key that was given is never renewed.
pub(super) struct Reached {
    pub(super) client: Client,
    own: Option<Arc<Keeper<Chain>>>,
}

impl Reached {
    /// Makes a call. One that was refused since the credentials are old is made once more with new ones, if there are any.
    pub(super) async fn call<T, E, F>(&self, call: impl Fn() -> F) -> Result<T, SdkError<E, HttpResponse>>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata,
    {
        let Some(own) = &self.own else { return call().await };
        let generation = own.generation();
        match call().await {
            Err(error) if fault::is_about_old_credentials(&error) && own.renew(generation).await => call().await,
            answered => answered,
        }
    }
}

/// A client that tries each call once: who tries again, and when, is decided above. What is wrong is said in words.
pub(super) fn client(reach: &Reach, service: &Arc<Service>) -> Result<Reached, String> {
    let settings = &service.settings;
    let timeouts = TimeoutConfig::builder().connect_timeout(settings.call).build();
    let mut config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts);
    let region = reach.region.clone().map(Region::new);
    let mut own_credentials = None;
    let region = match (&reach.identity.access_key, &reach.identity.secret_key) {
        (Some(access_key), Some(secret_key)) => {
            let secret_key = secret_key.expose_str().ok_or("secret_key is not text")?;
            let given = Credentials::new(access_key, secret_key, None, None, "managed key");
            config = config.credentials_provider(given);
            region.unwrap_or(Region::from_static(REGION))
        }
        _ => {
            let (keeper, region) = own(transport::of(service.transport()?), region, service)?;
            own_credentials = Some(Arc::clone(&keeper));
            config = config.credentials_provider(Lent(keeper)).identity_cache(IdentityCache::no_cache());
            region
        }
    };
    let url = match &reach.endpoint {
        Some(endpoint) => {
            config = config.endpoint_url(endpoint);
            endpoint.clone()
        }
        None => public(&region)?,
    };
    let http = transport::of(service.transport_to(&url)?);
    Ok(Reached { client: Client::from_conf(config.region(region).http_client(http).build()), own: own_credentials })
}

/// Where AWS's client finds the service of a region.
fn public(region: &Region) -> Result<String, String> {
    let unknown = |why: &dyn std::fmt::Display| format!("AWS KMS has no endpoint in region {region:?}: {why}");
    let region_only = Params::builder().region(region.as_ref()).build().map_err(|error| unknown(&error))?;
    let resolver = DefaultResolver::new();
    let resolved = resolver.resolve_endpoint(&region_only).now_or_never();
    let resolved =
        resolved.ok_or_else(|| unknown(&"it is not known at once"))?.map_err(|error| unknown(&innermost(&*error)))?;
    Ok(resolved.url().to_owned())
}

/// The daemon's own identity, and its region where none is given.
fn own(
    http: SharedHttpClient,
    region: Option<Region>,
    service: &Arc<Service>,
) -> Result<(Arc<Keeper<Chain>>, Region), String> {
    let region = match region {
        Some(region) => region,
        None => {
            let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
            let load = async { Ok(loader.load().await) };
            let loaded = service.runtime.wait(ENVIRONMENT, "the environment of AWS", load);
            let loaded = loaded.map_err(|error| error.fault.to_string())?;
            loaded.region().cloned().unwrap_or_else(|| Region::from_static(REGION))
        }
    };
    let chain = Chain { http, region: region.clone() };
    Ok((Keeper::start(chain, Owner::daemon(""), service), region))
}

/// AWS's chain of places where a daemon may have credentials: environment, profile, web identity token, container, instance.
///
/// It is made anew for every question: once made, it goes on with the files that it has read, and with an instance's
/// credentials that it could not have renewed, and says nothing of either.
pub(super) struct Chain {
    http: SharedHttpClient,
    region: Region,
}

impl Issuer for Chain {
    type Credentials = Credentials;
    type Error = CredentialsError;

    async fn issue(&self) -> Result<Issued<Credentials>, CredentialsError> {
        let loader = aws_config::defaults(BehaviorVersion::latest());
        let loaded = loader.http_client(self.http.clone()).region(self.region.clone()).load().await;
        let chain = loaded.credentials_provider();
        let chain = chain.ok_or_else(|| CredentialsError::not_loaded("AWS has no credentials for this daemon"))?;
        let credentials = chain.provide_credentials().await?;
        let end = credentials.expiry();
        Ok(Issued { credentials, end })
    }

    fn late(limit: Duration) -> CredentialsError {
        CredentialsError::provider_timed_out(limit)
    }

    fn again(error: &CredentialsError) -> CredentialsError {
        fault::again(error)
    }

    fn why(error: &CredentialsError) -> String {
        innermost(error)
    }

    fn is_same(one: &Credentials, other: &Credentials) -> bool {
        (one.access_key_id(), one.session_token()) == (other.access_key_id(), other.session_token())
            && one.secret_access_key() == other.secret_access_key()
    }
}

/// Credentials that are fetched ahead of need, lent to a client.
#[derive(Debug)]
struct Lent(Arc<Keeper<Chain>>);

impl ProvideCredentials for Lent {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        match self.0.at_hand() {
            Some(known) => future::ProvideCredentials::ready(Ok(known)),
            None => future::ProvideCredentials::new(self.0.current()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_of_a_region_is_that_of_its_partition() {
        assert_eq!(public(&Region::from_static("eu-west-1")).unwrap(), "https://kms.eu-west-1.amazonaws.com");
        assert_eq!(public(&Region::from_static("cn-north-1")).unwrap(), "https://kms.cn-north-1.amazonaws.com.cn");
        assert!(public(&Region::from_static("no/where")).unwrap_err().contains("no/where"));
    }
}
