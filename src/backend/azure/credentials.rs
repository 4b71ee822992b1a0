//! By whose word calls are made: an application whose secret was given, or the daemon's own identity (an application of its
//! environment, a workload identity, a managed identity).
//!
//! Tokens are for one domain, whatever a vault's challenge asks for: no endpoint gets one that is good elsewhere.

use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use azure_core::cloud::CloudConfiguration;
use azure_core::credentials::{AccessToken, Secret as Text, TokenCredential, TokenRequestOptions};
use azure_core::error::{Error, ErrorKind};
use azure_core::http::ClientOptions;
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};

use super::fault;
use crate::backend::cloud::{Issued, Issuer, Keeper, Owner};
use crate::model::Secret;

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

/// Whoever gives out the tokens of an application or of the daemon's own identity: Microsoft Entra ID, or the host.
pub(super) struct Entra {
    who: Who,
    /// What tokens are for.
    scope: String,
    options: ClientOptions,
}

/// An identity, and the token it has now.
pub(super) type Identity = Keeper<Entra>;

impl Issuer for Entra {
    type Credentials = AccessToken;
    type Error = Error;

    /// A credential is made for every token: those of the library keep the tokens they have, also ones that are refused.
    async fn issue(&self) -> azure_core::Result<Issued<AccessToken>> {
        let credentials = self.credential()?.get_token(&[self.scope.as_str()], None).await?;
        let end = Some(SystemTime::from(credentials.expires_on));
        Ok(Issued { credentials, end })
    }

    fn late(limit: Duration) -> Error {
        Error::with_message(ErrorKind::Connection, format!("no token within {} s", limit.as_secs()))
    }

    fn again(error: &Error) -> Error {
        fault::again(error)
    }

    fn why(error: &Error) -> String {
        fault::chain(error)
    }

    fn is_same(one: &AccessToken, other: &AccessToken) -> bool {
        one.token.secret() == other.token.secret()
    }
}

impl Entra {
    /// Whoever gives out tokens for `domain`. No call is made.
    pub(super) fn new(who: Who, domain: &str, options: ClientOptions) -> Entra {
        let options = ClientOptions { cloud: cloud_of(domain).map(Arc::new), ..options };
        Entra { who, scope: format!("https://{domain}/.default"), options }
    }

    /// Whose tokens these are.
    pub(super) fn owner(&self) -> Owner {
        let Who { tenant_id, client_id, client_secret } = &self.who;
        match client_secret {
            Some(_) => Owner::key(&format!("{client_id} of {tenant_id}")),
            None => Owner::daemon(client_id),
        }
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
            let own = &self.0.issuer().scope;
            if scopes != [own.as_str()] {
                return Err(misused(&format!(
                    "the endpoint asks for a token for {}, and the key's domain is that of {own}: it gets none",
                    scopes.join(", ")
                )));
            }
            self.0.current().await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cloud::Service;
    use crate::config::KmsService;
    use crate::model::CloudService;
    use crate::telemetry::Telemetry;

    #[test]
    fn a_vaults_challenge_gets_no_token_for_anything_else() {
        let settings = KmsService::new(CloudService::AzureKeyVault);
        let service = Service::start(&settings, &Telemetry::default()).unwrap();
        let who = Who { tenant_id: "t".into(), client_id: "c".into(), client_secret: Some(Secret::from("s")) };
        let entra = Entra::new(who, "vault.azure.net", ClientOptions::default());
        let owner = entra.owner();
        let lent = Lent(Arc::new(Keeper::new(entra, owner, &service)));
        let asked = lent.get_token(&["https://management.azure.com/.default"], None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refused = runtime.block_on(asked).unwrap_err().to_string();
        assert!(refused.contains("management.azure.com"), "{refused}");
    }
}
