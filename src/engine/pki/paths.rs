//! The table of the engine's paths.

use std::sync::Arc;

use super::Pki;
use crate::engine::table::{Row, Target, answer, now, public, row, to_the_end};
use crate::engine::{Answer, Call};
use crate::model::Verb;

/// The first row that fits counts.
pub(super) const TABLE: &[Row<Pki>] = &[
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

fn rotate(pki: Arc<Pki>, call: Call, _: Target) -> Answer {
    to_the_end(async move { pki.rotate_crl(&call).await })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::table::is_public;

    #[test]
    fn what_anyone_may_read_is_public_and_nothing_else() {
        for path in ["ca", "ca/pem", "crl", "crl/pem", "cert/01:02", "cert/ca"] {
            assert!(is_public(TABLE, Verb::Read, path), "{path}");
            assert!(!is_public(TABLE, Verb::Write, path), "{path}");
        }
        for path in ["crl/rotate", "certs", "roles/x", "issuer/default", "config/urls", "cert/a/b", "sign/x", "revoke"]
        {
            assert!(!is_public(TABLE, Verb::Read, path) && !is_public(TABLE, Verb::List, path), "{path}");
        }
    }
}
