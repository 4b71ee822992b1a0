//! The tokens that the managed keys of a namespace and those below it name: so many at the most, since each costs threads, sessions and metrics,
//! whether it exists or not.

use std::collections::HashSet;

use super::settings::Settings;
use crate::model::{Fault, Namespace, TokenSelector};
use crate::supervisor::Supervisor;

/// Refuses a managed key whose `settings` name one token more than the namespace's tenant may, beside those that the `others`
/// of its keys name. Those that the configuration names are not counted.
pub(super) fn check<'k>(
    supervisor: &Supervisor,
    namespace: &Namespace,
    settings: &Settings,
    others: impl Iterator<Item = &'k Settings> + Clone,
) -> Result<(), Fault> {
    let Some(own) = &settings.token else { return Ok(()) };
    let counts = |library: &str, token: &TokenSelector| !supervisor.is_configured(library, token);
    if !counts(&settings.library, own) || others.clone().any(|other| other.same_token(settings)) {
        return Ok(());
    }
    let named: HashSet<(String, &TokenSelector)> = others
        .filter_map(|other| Some((other.library.to_lowercase(), other.token.as_ref()?)))
        .filter(|(library, token)| counts(library, token))
        .collect();
    let most = supervisor.tokens_per_namespace();
    let copies = |token: &TokenSelector| match token {
        TokenSelector::Cloud(key) => 1 + key.replicas.len(),
        _ => 1,
    };
    let count: usize = named.iter().map(|(_, token)| copies(token)).sum();
    if count + copies(own) <= most {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "the managed keys of namespace {} and those below it name {} tokens, and limits {{ tokens_per_namespace }} allows {most}: \
         name one of them, delete the keys of one that is not needed, or have the operator raise the limit",
        namespace.tenant(),
        count
    )))
}
