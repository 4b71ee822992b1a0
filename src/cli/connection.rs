//! From flags and environment to a client.

use std::path::PathBuf;
use std::time::Duration;

use super::Failure;
use super::args::Connection;
use crate::client::{Framed, Http, Identity, socket_path};
use crate::model::Secret;
use crate::wire::proto;

impl Connection {
    /// A client of the HTTP wire.
    pub(super) fn http(&self) -> Result<Http, Failure> {
        let mut http = Http::new(&socket_path(&self.address).map_err(Failure::usage)?);
        http.token = token();
        http.namespace.clone_from(&self.namespace);
        http.deadline = Some(self.deadline());
        Ok(http)
    }

    /// A client of the framed wire. Must run inside a tokio runtime.
    pub(super) async fn framed(&self, class: proto::Class) -> Result<Framed, Failure> {
        let path = self.framed_path()?;
        // Without a token it is the listener that says whether that will do.
        let token = token();
        let advice = if token.is_none() { "; no token was shown: set VAULT_TOKEN, or log in" } else { "" };
        let identity =
            Identity { token: token.unwrap_or_default(), namespace: self.namespace.clone().unwrap_or_default() };
        let connected = Framed::connect(&path, &identity, class, Some(self.deadline())).await;
        connected.map_err(|error| Failure::new(format!("{error}{advice}")))
    }

    fn framed_path(&self) -> Result<PathBuf, Failure> {
        let address = self.framed_address.clone().unwrap_or_else(|| format!("{}.framed", self.address));
        socket_path(&address).map_err(Failure::usage)
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(self.timeout.max(1))
    }
}

/// `VAULT_TOKEN`, else what is in `~/.vault-token`.
fn token() -> Option<Secret> {
    if let Ok(token) = std::env::var("VAULT_TOKEN")
        && !token.is_empty()
    {
        return Some(Secret::new(token.into_bytes()));
    }
    let token = std::fs::read_to_string(token_file()?).ok()?;
    Some(Secret::from(token.trim())).filter(|token| !token.is_empty())
}

/// Where Vault's command keeps a token, too.
pub(super) fn token_file() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".vault-token"))
}
