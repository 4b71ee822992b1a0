//! What every engine's table of paths is made of.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use super::{Answer, Call, hold};
use crate::model::{Data, Endpoint, Fault, Outcome, Request, Response, Verb};

/// What is asked at a path: the parts its pattern leaves open (empty where it leaves none), and the data.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) second: String,
    pub(super) data: Data,
    /// A body that is no JSON.
    pub(super) raw: Bytes,
    /// See [`Request::if_modified_since`].
    pub(super) if_modified_since: Option<u64>,
}

type Handler<E> = fn(Arc<E>, Call, Target) -> Answer;

/// One row of the table of an engine `E`: what can be asked, and who answers it. Of its pattern, at most two parts are open,
/// and `*name` can only be the last.
pub(super) struct Row<E> {
    endpoint: Endpoint,
    handler: Handler<E>,
}

/// What is asked, and who answers it.
pub(super) const fn row<E>(endpoint: Endpoint, handler: Handler<E>) -> Row<E> {
    Row { endpoint, handler }
}

/// What can be asked by this table.
pub(super) fn endpoints<E>(table: &[Row<E>]) -> Vec<Endpoint> {
    table.iter().map(|row| row.endpoint).collect()
}

/// Answers a request by the first row that fits.
pub(super) fn handle<E>(table: &[Row<E>], engine: Arc<E>, call: Call, request: Request) -> Answer {
    let mut is_known = false;
    for row in table {
        let Some((name, second)) = open_parts(row.endpoint.pattern, &request.path) else { continue };
        is_known = true;
        if row.endpoint.verb == request.verb {
            let (name, second) = (name.to_owned(), second.to_owned());
            let Request { data, raw, if_modified_since, .. } = request;
            let target = Target { name, second, data, raw, if_modified_since };
            return (row.handler)(engine, call, target);
        }
    }
    now(Err(if is_known { Fault::UnsupportedOperation } else { Fault::NotFound { what: "unsupported path".into() } }))
}

/// The endpoint that answers this request.
#[cfg(test)]
pub(super) fn endpoint<E>(table: &[Row<E>], verb: Verb, path: &str) -> Option<Endpoint> {
    let endpoints = table.iter().map(|row| row.endpoint);
    endpoints.into_iter().find(|endpoint| endpoint.verb == verb && open_parts(endpoint.pattern, path).is_some())
}

/// Whether a path is answered without a token.
pub(super) fn is_public<E>(table: &[Row<E>], verb: Verb, path: &str) -> bool {
    table
        .iter()
        .map(|row| &row.endpoint)
        .any(|endpoint| endpoint.is_public && endpoint.verb == verb && open_parts(endpoint.pattern, path).is_some())
}

/// Whether policies must grant `sudo` for a path, too.
pub(super) fn needs_sudo<E>(table: &[Row<E>], verb: Verb, path: &str) -> bool {
    table
        .iter()
        .map(|row| &row.endpoint)
        .any(|endpoint| endpoint.needs_sudo && endpoint.verb == verb && open_parts(endpoint.pattern, path).is_some())
}

/// Whether a path is answered whatever quotas say.
pub(super) fn is_unlimited<E>(table: &[Row<E>], verb: Verb, path: &str) -> bool {
    let mut fitting = table.iter().map(|row| &row.endpoint).filter(|endpoint| endpoint.verb == verb);
    fitting.any(|endpoint| endpoint.is_unlimited() && open_parts(endpoint.pattern, path).is_some())
}

/// The parts of `path` that `pattern` leaves open, if they fit.
fn open_parts<'p>(pattern: &str, path: &'p str) -> Option<(&'p str, &'p str)> {
    if let Some((before, _)) = pattern.split_once('*') {
        return path.strip_prefix(before).filter(|rest| !rest.is_empty()).map(|rest| (rest, ""));
    }
    let path = path.trim_end_matches('/');
    let mut found = ["", ""];
    let mut open = found.iter_mut();
    let mut parts = path.split('/');
    for fixed in pattern.split('/') {
        let part = parts.next()?;
        if fixed.starts_with(':') {
            // Vault: a parameter that ends in a period fits nothing.
            if part.is_empty() || part.ends_with('.') {
                return None;
            }
            *open.next()? = part;
        } else if fixed != part {
            return None;
        }
    }
    parts.next().is_none().then_some((found[0], found[1]))
}

/// An answer that is known at once.
pub(super) fn now(answer: Result<Response, Fault>) -> Answer {
    Box::pin(std::future::ready(answer.map(Outcome::from)))
}

/// An answer to come. If its asker leaves, the work ends with it.
pub(super) fn answer(work: impl Future<Output = Result<Response, Fault>> + Send + 'static) -> Answer {
    Box::pin(async move { work.await.map(Outcome::from) })
}

/// Runs what changes records and snapshots to its end, even if its asker leaves half-way: else a snapshot could miss what
/// the store has.
pub(super) fn to_the_end(work: impl Future<Output = Result<Response, Fault>> + Send + 'static) -> Answer {
    Box::pin(async move {
        let done = tokio::spawn(hold::going_on(work)).await;
        done.map_err(|_| Fault::internal("a request ended without an answer"))?.map(Outcome::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fit_whole_or_not_at_all() {
        assert_eq!(open_parts("roles/:name", "roles/web"), Some(("web", "")));
        assert_eq!(open_parts("roles/:name", "roles/web/x"), None);
        assert_eq!(open_parts("roles/:name", "roles/"), None);
        assert_eq!(open_parts("roles/:name", "roles"), None);
        assert_eq!(open_parts("roles/:name", "roles/web."), None);
        assert_eq!(open_parts("crl/pem", "crl/pem"), Some(("", "")));
        assert_eq!(open_parts("crl", "crl/pem"), None);
        assert_eq!(open_parts("keys/:name/config", "keys/doc/config"), Some(("doc", "")));
        assert_eq!(open_parts("sign/:name/:hash", "sign/doc/sha2-512"), Some(("doc", "sha2-512")));
        assert_eq!(open_parts("sign/:name/:hash", "sign/doc"), None);
        assert_eq!(open_parts("sign/:name", "sign/doc/"), Some(("doc", "")));
    }

    #[test]
    fn a_star_takes_all_that_is_left() {
        assert_eq!(open_parts("ocsp/*req", "ocsp/MEI//w+/"), Some(("MEI//w+/", "")));
        assert_eq!(open_parts("ocsp/*req", "ocsp//a"), Some(("/a", "")));
        for path in ["ocsp", "ocsp/", "ocspx/a", "x/ocsp/a"] {
            assert_eq!(open_parts("ocsp/*req", path), None, "{path}");
        }
    }
}
