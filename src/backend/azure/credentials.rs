//! By whose word calls are made: an application whose secret was given, or the daemon's own identity (an application of its
//! environment, a workload identity, a managed identity). A token is fetched anew before it expires, so that no request waits for
//! that; that it cannot be is told long before requests fail.
//!
//! Tokens are for one domain, whatever a vault's challenge asks for: no endpoint gets one that is good elsewhere.

use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use azure_core::cloud::CloudConfiguration;
use azure_core::credentials::{AccessToken, Secret as Text, TokenCredential, TokenRequestOptions};
use azure_core::error::{Error, ErrorKind};
use azure_core::http::ClientOptions;
use azure_core::time::OffsetDateTime;
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};

use super::fault;
use crate::backend::cloud::Service;
use crate::model::Secret;

/// A token is fetched anew so long before it expires; each failure is followed by another try after a pause.
const AHEAD: Duration = Duration::from_secs(600);
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest pause where the secret is not the daemon's own.
const PAUSE_OTHERS: Duration = Duration::from_secs(900);
/// How long fetching one may take.
const FETCH: Duration = Duration::from_secs(10);
/// One that the service refuses is not asked for anew more often.
const RENEWAL: Duration = Duration::from_secs(10);

/// An application of Microsoft Entra ID, or the daemon's own identity where there is no secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) tenant_id: String,
    /// Of the daemon's own identities, which; empty is the one there is.
    pub(super) client_id: String,
    pub(super) client_secret: Option<Secret>,
}

/// By what is no secret.
impl Hash for Who {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tenant_id.hash(state);
        self.client_id.hash(state);
    }
}

/// An identity, and the token it has now.
pub(super) struct Identity {
    who: Who,
    /// What tokens are for.
    scope: String,
    options: ClientOptions,
    held: ArcSwapOption<AccessToken>,
    /// How many tokens there were.
    generation: AtomicU64,
    /// One fetches, the others wait. When the service refused a token last.
    turn: tokio::sync::Mutex<Option<Instant>>,
    service: Weak<Service>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("client_id", &self.who.client_id).finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity whose tokens are for `domain`. No call is made.
    pub(super) fn new(who: Who, domain: &str, options: ClientOptions, service: &Arc<Service>) -> Arc<Identity> {
        let options = ClientOptions { cloud: cloud_of(domain).map(Arc::new), ..options };
        let (held, turn) = (ArcSwapOption::empty(), tokio::sync::Mutex::new(None));
        let (scope, service) = (format!("https://{domain}/.default"), Arc::downgrade(service));
        Arc::new(Identity { who, scope, options, held, generation: AtomicU64::new(0), turn, service })
    }

    /// Fetches tokens ahead of need, as long as anybody uses the identity.
    pub(super) fn keep_fresh(self: &Arc<Self>, service: &Service) {
        let identity = Arc::downgrade(self);
        service.runtime.spawn(async move {
            let mut failures = 0;
            loop {
                let Some(identity) = identity.upgrade() else { return };
                let next = match identity.fetch_alone().await {
                    Ok(()) => {
                        failures = 0;
                        due(identity.left())
                    }
                    Err(error) => {
                        identity.tell(&error, failures);
                        failures += 1;
                        identity.pause(failures)
                    }
                };
                drop(identity);
                tokio::time::sleep(next).await;
            }
        });
    }

    /// The daemon's own identity is the operator's business, as often as it fails; another's is told of once.
    fn tell(&self, error: &Error, failures: u32) {
        if self.who.client_secret.is_some() && failures > 0 {
            return;
        }
        tracing::error!(
            service = "azurekeyvault", tenant = self.who.tenant_id, client = self.who.client_id,
            reason = %fault::chain(error), seconds_left = self.left().as_secs(),
            "no new token for Azure could be fetched; requests fail when the one at hand has expired"
        );
    }

    /// How long nothing is fetched in the background after so many failures in a row. A request fetches what it needs itself.
    fn pause(&self, failures: u32) -> Duration {
        let most = if self.who.client_secret.is_some() { PAUSE_OTHERS } else { PAUSE_MAX };
        PAUSE_FIRST.saturating_mul(1 << failures.min(10)).min(most)
    }

    async fn fetch_alone(&self) -> azure_core::Result<()> {
        let _turn = self.turn.lock().await;
        self.fetch().await.map(drop)
    }

    /// How long the token at hand is good.
    fn left(&self) -> Duration {
        let left = self.held.load().as_ref().map(|held| held.expires_on - OffsetDateTime::now_utc());
        left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
    }

    /// A token that is good now: the one at hand, or a new one.
    async fn token(&self) -> azure_core::Result<AccessToken> {
        if let Some(held) = self.good() {
            return Ok(held);
        }
        let _turn = self.turn.lock().await;
        match self.good() {
            Some(held) => Ok(held),
            None => self.fetch().await,
        }
    }

    fn good(&self) -> Option<AccessToken> {
        let held = self.held.load();
        held.as_ref().filter(|held| held.expires_on > OffsetDateTime::now_utc()).map(|held| AccessToken::clone(held))
    }

    /// How many tokens there were so far.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Sees that there is another token than that of `generation`, which the service refused; false if there is none, and one was
    /// asked for just now.
    pub(super) async fn renew(&self, generation: u64) -> bool {
        let mut refused = self.turn.lock().await;
        if self.generation() != generation {
            return true;
        }
        if refused.is_some_and(|last| last.elapsed() < RENEWAL) {
            return false;
        }
        *refused = Some(Instant::now());
        self.fetch().await.is_ok()
    }

    /// A credential is made for every token: those of the library keep the tokens they have, also ones that are refused.
    async fn fetch(&self) -> azure_core::Result<AccessToken> {
        let fetched = tokio::time::timeout(FETCH, self.ask()).await.unwrap_or_else(|_| {
            Err(Error::with_message(ErrorKind::Connection, format!("no token within {} s", FETCH.as_secs())))
        });
        if let (None, Some(service)) = (&self.who.client_secret, self.service.upgrade()) {
            match &fetched {
                Ok(token) => service.own.fetched(Some(SystemTime::from(token.expires_on))),
                Err(_) => service.own.failed(),
            }
        }
        let fetched = fetched?;
        self.held.store(Some(Arc::new(fetched.clone())));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(fetched)
    }

    async fn ask(&self) -> azure_core::Result<AccessToken> {
        self.credential()?.get_token(&[self.scope.as_str()], None).await
    }

    fn credential(&self) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let Who { tenant_id, client_id, client_secret } = &self.who;
        if let Some(secret) = client_secret {
            let text = secret.expose_str().ok_or_else(|| misused("client_secret is no text"))?;
            return self.application(tenant_id, client_id, text.to_owned());
        }
        let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let client = Some(client_id.clone()).filter(|id| !id.is_empty());
        if let (Some(id), Some(secret)) =
            (client.clone().or_else(|| named("AZURE_CLIENT_ID")), named("AZURE_CLIENT_SECRET"))
        {
            return self.application(tenant_id, &id, secret);
        }
        if named("AZURE_FEDERATED_TOKEN_FILE").is_some() {
            let options = WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions { client_options: self.options.clone() },
                client_id: client,
                tenant_id: Some(tenant_id.clone()),
                ..WorkloadIdentityCredentialOptions::default()
            };
            return Ok(WorkloadIdentityCredential::new(Some(options))?);
        }
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: client.map(UserAssignedId::ClientId),
            client_options: self.options.clone(),
        };
        Ok(ManagedIdentityCredential::new(Some(options))?)
    }

    fn application(&self, tenant: &str, client: &str, secret: String) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let options = ClientSecretCredentialOptions { client_options: self.options.clone() };
        Ok(ClientSecretCredential::new(tenant, client.to_owned(), Text::new(secret), Some(options))?)
    }
}

/// Where tokens of a national cloud come from; of the public one, where the daemon's environment says.
fn cloud_of(domain: &str) -> Option<CloudConfiguration> {
    match domain {
        domain if domain.ends_with(".usgovcloudapi.net") => Some(CloudConfiguration::AzureGovernment),
        domain if domain.ends_with(".azure.cn") => Some(CloudConfiguration::AzureChina),
        _ => None,
    }
}

/// When a token is to be fetched anew: ahead of its end, or half-way to it where that is near.
fn due(left: Duration) -> Duration {
    if left > AHEAD * 2 { left - AHEAD } else { (left / 2).max(PAUSE_FIRST) }
}

fn misused(what: &str) -> Error {
    Error::with_message(ErrorKind::Credential, what.to_owned())
}

/// An identity lent to a client.
#[derive(Debug)]
pub(super) struct Lent(pub(super) Arc<Identity>);

type Token<'a> = Pin<Box<dyn Future<Output = azure_core::Result<AccessToken>> + Send + 'a>>;

impl TokenCredential for Lent {
    fn get_token<'own, 'list, 'text, 'more, 'call>(
        &'own self,
        scopes: &'list [&'text str],
        _: Option<TokenRequestOptions<'more>>,
    ) -> Token<'call>
    where
        'own: 'call,
        'list: 'call,
        'text: 'call,
        'more: 'call,
    {
        Box::pin(async move {
            if scopes != [self.0.scope.as_str()] {
                return Err(misused(&format!(
                    "the endpoint asks for a token for {}, and the key's domain is that of {}: it gets none",
                    scopes.join(", "),
                    self.0.scope
                )));
            }
            self.0.token().await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KmsService;
    use crate::model::CloudService;
    use crate::telemetry::Telemetry;

    #[test]
    fn tokens_are_fetched_before_they_end() {
        let seconds = Duration::from_secs;
        assert_eq!(due(seconds(3600)), seconds(3000));
        assert_eq!(due(seconds(1000)), seconds(500));
        assert_eq!(due(seconds(4)), PAUSE_FIRST);
    }

    #[test]
    fn a_vaults_challenge_gets_no_token_for_anything_else() {
        let settings = KmsService::new(CloudService::AzureKeyVault);
        let service = Service::start(&settings, &Telemetry::default()).unwrap();
        let who = Who { tenant_id: "t".into(), client_id: "c".into(), client_secret: Some(Secret::from("s")) };
        let lent = Lent(Identity::new(who, "vault.azure.net", ClientOptions::default(), &service));
        let asked = lent.get_token(&["https://management.azure.com/.default"], None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refused = runtime.block_on(asked).unwrap_err().to_string();
        assert!(refused.contains("management.azure.com"), "{refused}");
    }
}
