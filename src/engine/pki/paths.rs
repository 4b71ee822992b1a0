//! The table of the engine's paths.

use std::future::Future;
use std::sync::Arc;

use super::Pki;
use crate::engine::{Answer, Call};
use crate::model::{Data, Fault, Outcome, Request, Response, Verb};

/// What is asked at a path: the part its pattern leaves open, and the data.
struct Target {
    name: String,
    data: Data,
}

type Handler = fn(Arc<Pki>, Call, Target) -> Answer;

/// One row.
struct Row {
    verb: Verb,
    /// `:` stands for one part.
    pattern: &'static str,
    /// Answered without a token.
    is_public: bool,
    handler: Handler,
}

const fn row(verb: Verb, pattern: &'static str, handler: Handler) -> Row {
    Row { verb, pattern, is_public: false, handler }
}

const fn public(pattern: &'static str, handler: Handler) -> Row {
    Row { verb: Verb::Read, pattern, is_public: true, handler }
}

/// The first row that fits counts.
const TABLE: &[Row] = &[
    row(Verb::Write, "root/generate/kms", |pki, call, target| {
        to_the_end(async move { pki.generate_root(&call, &target.data).await })
    }),
    row(Verb::List, "roles", |pki, _, _| now(pki.list_roles())),
    row(Verb::Read, "roles/:", |pki, _, target| now(pki.read_role(&target.name))),
    row(Verb::Write, "roles/:", |pki, _, target| answer(pki.write_role(target.name, target.data))),
    row(Verb::Delete, "roles/:", |pki, _, target| answer(pki.delete_role(target.name))),
    row(Verb::Write, "sign/:", |pki, call, target| {
        answer(async move { pki.sign_by_role(&call, &target.name, &target.data).await })
    }),
    row(Verb::Read, "issuer/:", |pki, _, target| now(pki.read_issuer(&target.name))),
    public("ca", |pki, _, _| now(Ok(pki.ca()))),
    public("ca/pem", |pki, _, _| now(Ok(pki.ca_pem()))),
    public("cert/:", |pki, _, target| now(pki.read_certificate(&target.name))),
    row(Verb::List, "certs", |pki, _, target| answer(async move { pki.list_certificates(&target.data).await })),
    row(Verb::Read, "config/urls", |pki, _, _| now(Ok(pki.read_urls()))),
    row(Verb::Write, "config/urls", |pki, _, target| answer(pki.write_urls(target.data))),
    row(Verb::Write, "revoke", |pki, call, target| to_the_end(async move { pki.revoke(&call, &target.data).await })),
    public("crl", |pki, _, _| now(Ok(pki.crl_der()))),
    public("crl/pem", |pki, _, _| now(Ok(pki.crl_pem()))),
    row(Verb::Read, "crl/rotate", rotate),
    row(Verb::Write, "crl/rotate", rotate),
];

/// Answers a request.
pub(super) fn handle(pki: Arc<Pki>, call: Call, request: Request) -> Answer {
    let path = request.path.trim_end_matches('/');
    let mut is_known = false;
    for row in TABLE {
        let Some(name) = open_part(row.pattern, path) else { continue };
        is_known = true;
        if row.verb == request.verb {
            return (row.handler)(pki, call, Target { name: name.to_owned(), data: request.data });
        }
    }
    now(Err(if is_known { Fault::UnsupportedOperation } else { Fault::NotFound { what: "unsupported path".into() } }))
}

/// Whether a path is answered without a token.
pub(super) fn is_public(verb: Verb, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    TABLE.iter().any(|row| row.is_public && row.verb == verb && open_part(row.pattern, path).is_some())
}

/// The part of `path` that `pattern` leaves open (empty if none), if they fit.
fn open_part<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    match pattern.strip_suffix(':') {
        None => (pattern == path).then_some(""),
        // Vault: a parameter that ends in a period fits nothing.
        Some(fixed) => {
            path.strip_prefix(fixed).filter(|part| !part.is_empty() && !part.contains('/') && !part.ends_with('.'))
        }
    }
}

fn rotate(pki: Arc<Pki>, call: Call, _: Target) -> Answer {
    to_the_end(async move { pki.rotate_crl(&call).await })
}

fn now(answer: Result<Response, Fault>) -> Answer {
    Box::pin(std::future::ready(answer.map(Outcome::from)))
}

fn answer(work: impl Future<Output = Result<Response, Fault>> + Send + 'static) -> Answer {
    Box::pin(async move { work.await.map(Outcome::from) })
}

/// Runs what changes records and snapshots to its end, even if its asker leaves half-way: else a snapshot could miss what
/// the store has.
fn to_the_end(work: impl Future<Output = Result<Response, Fault>> + Send + 'static) -> Answer {
    Box::pin(async move {
        let done = tokio::spawn(work).await;
        done.map_err(|_| Fault::internal("a PKI request ended without an answer"))?.map(Outcome::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fit_whole_or_not_at_all() {
        assert_eq!(open_part("roles/:", "roles/web"), Some("web"));
        assert_eq!(open_part("roles/:", "roles/web/x"), None);
        assert_eq!(open_part("roles/:", "roles/"), None);
        assert_eq!(open_part("roles/:", "roles/web."), None);
        assert_eq!(open_part("crl/pem", "crl/pem"), Some(""));
        assert_eq!(open_part("crl", "crl/pem"), None);
    }

    #[test]
    fn what_anyone_may_read_is_public_and_nothing_else() {
        for path in ["ca", "ca/pem", "crl", "crl/pem", "cert/01:02", "cert/ca"] {
            assert!(is_public(Verb::Read, path), "{path}");
            assert!(!is_public(Verb::Write, path), "{path}");
        }
        for path in ["crl/rotate", "certs", "roles/x", "issuer/default", "config/urls", "cert/a/b", "sign/x", "revoke"]
        {
            assert!(!is_public(Verb::Read, path) && !is_public(Verb::List, path), "{path}");
        }
    }
}
