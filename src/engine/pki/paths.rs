//! The table of the engine's paths.

use std::sync::Arc;

use super::crl::off_worker;
use super::fetch::Encoding::{Der, Pem};
use super::fetch::Which::{Complete, Delta};
use super::issuers::Update;
use super::{Pki, intents};
use crate::engine::table::{Row, Target, answer, now, public, public_list, public_write, row, to_the_end};
use crate::engine::{Answer, Call};
use crate::model::Verb;

/// The first row that fits counts. What is asked most comes first.
pub(super) const TABLE: &[Row<Pki>] = &[
    row(Verb::Write, "sign/:", |pki, call, target| {
        answer(async move { pki.sign_by_role(&call, None, &target.name, &target.data).await })
    }),
    row(Verb::Write, "issuer/:/sign/:", |pki, call, target| {
        answer(async move { pki.sign_by_role(&call, Some(&target.name), &target.second, &target.data).await })
    }),
    row(Verb::Write, "issue/:", |pki, call, target| {
        answer(async move { pki.issue_by_role(&call, None, &target.name, &target.data).await })
    }),
    row(Verb::Write, "issuer/:/issue/:", |pki, call, target| {
        answer(async move { pki.issue_by_role(&call, Some(&target.name), &target.second, &target.data).await })
    }),
    row(Verb::Write, "sign-verbatim", |pki, call, target| {
        answer(async move { pki.sign_verbatim(&call, None, None, &target.data).await })
    }),
    row(Verb::Write, "sign-verbatim/:", |pki, call, target| {
        answer(async move { pki.sign_verbatim(&call, None, Some(&target.name), &target.data).await })
    }),
    row(Verb::Write, "issuer/:/sign-verbatim", |pki, call, target| {
        answer(async move { pki.sign_verbatim(&call, Some(&target.name), None, &target.data).await })
    }),
    row(Verb::Write, "issuer/:/sign-verbatim/:", |pki, call, target| {
        answer(async move { pki.sign_verbatim(&call, Some(&target.name), Some(&target.second), &target.data).await })
    }),
    public("ocsp/*", |pki, call, target| answer(pki.ocsp_in_path(call, target.name))),
    public_write("ocsp", |pki, call, target| answer(pki.ocsp(call, target.raw))),
    public("crl", |pki, _, _| now(Ok(pki.default_crl(Complete, Der)))),
    public("crl/pem", |pki, _, _| now(Ok(pki.default_crl(Complete, Pem)))),
    public("crl/delta", |pki, _, _| now(Ok(pki.default_crl(Delta, Der)))),
    public("crl/delta/pem", |pki, _, _| now(Ok(pki.default_crl(Delta, Pem)))),
    public("ca", |pki, _, _| now(Ok(pki.ca()))),
    public("ca/pem", |pki, _, _| now(Ok(pki.ca_pem()))),
    public("ca_chain", |pki, _, _| now(Ok(pki.ca_chain()))),
    public("cert/:", |pki, _, target| now(pki.read_certificate(&target.name))),
    public("cert/:/raw", |pki, _, target| now(pki.raw_certificate(&target.name))),
    public("cert/:/raw/pem", |pki, _, target| now(pki.raw_certificate_pem(&target.name))),
    row(Verb::List, "certs/unfinished", |pki, _, target| {
        answer(off_worker(true, move || intents::list(&pki.store, &pki.records, &target.data)))
    }),
    row(Verb::List, "certs", |pki, _, target| answer(async move { pki.list_certificates(&target.data).await })),
    row(Verb::List, "certs/revoked", |pki, _, target| answer(async move { pki.list_revoked(&target.data).await })),
    row(Verb::Write, "revoke", |pki, call, target| to_the_end(async move { pki.revoke(&call, &target.data).await })),
    row(Verb::Write, "revoke-with-key", |pki, call, target| {
        to_the_end(async move { pki.revoke_with_key(&call, target.data).await })
    }),
    row(Verb::Write, "tidy", |pki, call, target| to_the_end(pki.tidy(call, target.data))),
    row(Verb::Read, "tidy-status", |pki, call, _| now(Ok(pki.tidy_status(&call)))),
    row(Verb::Write, "tidy-cancel", |pki, call, _| now(Ok(pki.cancel_tidy(&call)))),
    row(Verb::Read, "crl/rotate", rotate_crls),
    row(Verb::Write, "crl/rotate", rotate_crls),
    row(Verb::Read, "crl/rotate-delta", rotate_delta_crls),
    row(Verb::Write, "crl/rotate-delta", rotate_delta_crls),
    // Roles.
    row(Verb::List, "roles", |pki, _, _| now(pki.list_roles())),
    row(Verb::Read, "roles/:", |pki, _, target| now(pki.read_role(&target.name))),
    row(Verb::Write, "roles/:", |pki, _, target| answer(pki.write_role(target.name, target.data))),
    row(Verb::Patch, "roles/:", |pki, _, target| answer(pki.patch_role(target.name, target.data))),
    row(Verb::Delete, "roles/:", |pki, _, target| answer(pki.delete_role(target.name))),
    // Issuers.
    public_list("issuers", |pki, _, _| now(pki.list_issuers())),
    row(Verb::Read, "issuer/:", |pki, _, target| now(pki.read_issuer(&target.name))),
    row(Verb::Write, "issuer/:", |pki, call, target| {
        answer(pki.write_issuer(call, target.name, target.data, Update::Replace))
    }),
    row(Verb::Patch, "issuer/:", |pki, call, target| {
        answer(pki.write_issuer(call, target.name, target.data, Update::Patch))
    }),
    row(Verb::Delete, "issuer/:", |pki, call, target| answer(pki.delete_issuer(call, target.name))),
    public("issuer/:/json", |pki, _, target| now(pki.issuer_json(&target.name))),
    public("issuer/:/der", |pki, _, target| now(pki.issuer_der(&target.name))),
    public("issuer/:/pem", |pki, _, target| now(pki.issuer_pem(&target.name))),
    public("issuer/:/crl", |pki, _, target| now(pki.issuer_crl_json(&target.name, Complete))),
    public("issuer/:/crl/der", |pki, _, target| now(pki.issuer_crl(&target.name, Complete, Der))),
    public("issuer/:/crl/pem", |pki, _, target| now(pki.issuer_crl(&target.name, Complete, Pem))),
    public("issuer/:/crl/delta", |pki, _, target| now(pki.issuer_crl_json(&target.name, Delta))),
    public("issuer/:/crl/delta/der", |pki, _, target| now(pki.issuer_crl(&target.name, Delta, Der))),
    public("issuer/:/crl/delta/pem", |pki, _, target| now(pki.issuer_crl(&target.name, Delta, Pem))),
    row(Verb::Write, "issuer/:/revoke", |pki, call, target| to_the_end(pki.revoke_issuer(call, target.name))),
    row(Verb::Write, "issuer/:/resign-crls", |pki, call, target| {
        answer(async move { pki.resign_crls(&call, &target.name, &target.data).await })
    }),
    row(Verb::Write, "issuer/:/sign-revocation-list", |pki, call, target| {
        answer(async move { pki.sign_revocation_list(&call, &target.name, target.data).await })
    }),
    row(Verb::Write, "issuers/import/bundle", import_bundle),
    row(Verb::Write, "issuers/import/cert", import_bundle),
    row(Verb::Write, "config/ca", import_bundle),
    // Keys.
    row(Verb::List, "keys", |pki, _, _| now(pki.list_keys())),
    row(Verb::Read, "key/:", |pki, call, target| now(pki.read_key(&call.mount, &target.name))),
    row(Verb::Write, "key/:", |pki, call, target| answer(pki.write_key(call, target.name, target.data))),
    row(Verb::Delete, "key/:", |pki, call, target| answer(pki.delete_key(call, target.name))),
    row(Verb::Write, "keys/generate/:", |pki, call, target| {
        to_the_end(async move { pki.generate_key(call, &target.name, &target.data).await })
    }),
    row(Verb::Write, "keys/import", |_, _, _| now(Pki::import_key())),
    // Roots.
    row(Verb::Write, "root/generate/:", generate_root),
    row(Verb::Write, "issuers/generate/root/:", generate_root),
    row(Verb::Write, "root/rotate/:", |pki, call, target| {
        to_the_end(async move { pki.rotate_root(call, &target.name, &target.data).await })
    }),
    row(Verb::Write, "root/replace", |pki, call, target| {
        to_the_end(async move { pki.replace_root(call, &target.data).await })
    }),
    row(Verb::Delete, "root", |pki, call, _| answer(pki.delete_root(call))),
    // Intermediates.
    row(Verb::Write, "root/sign-intermediate", |pki, call, target| {
        answer(async move { pki.sign_intermediate(&call, None, &target.data).await })
    }),
    row(Verb::Write, "issuer/:/sign-intermediate", |pki, call, target| {
        answer(async move { pki.sign_intermediate(&call, Some(&target.name), &target.data).await })
    }),
    row(Verb::Write, "root/sign-self-issued", |pki, call, target| {
        answer(async move { pki.sign_self_issued(&call, None, &target.data).await })
    }),
    row(Verb::Write, "issuer/:/sign-self-issued", |pki, call, target| {
        answer(async move { pki.sign_self_issued(&call, Some(&target.name), &target.data).await })
    }),
    row(Verb::Write, "intermediate/generate/:", generate_intermediate),
    row(Verb::Write, "issuers/generate/intermediate/:", generate_intermediate),
    row(Verb::Write, "intermediate/cross-sign", |pki, call, target| {
        to_the_end(async move { pki.generate_intermediate(call, "existing", &target.data).await })
    }),
    row(Verb::Write, "intermediate/set-signed", |pki, call, target| to_the_end(pki.set_signed(call, target.data))),
    // Configuration.
    row(Verb::Read, "config/crl", |pki, _, _| now(Ok(pki.read_crl_config()))),
    row(Verb::Write, "config/crl", |pki, _, target| answer(pki.write_crl_config(target.data))),
    row(Verb::Read, "config/urls", |pki, _, _| now(Ok(pki.read_urls()))),
    row(Verb::Write, "config/urls", |pki, _, target| answer(pki.write_urls(target.data))),
    row(Verb::Read, "config/issuers", |pki, _, _| now(Ok(pki.read_default_issuer()))),
    row(Verb::Write, "config/issuers", |pki, call, target| answer(pki.write_default_issuer(call, target.data))),
    row(Verb::Read, "config/keys", |pki, _, _| now(Ok(pki.read_default_key()))),
    row(Verb::Write, "config/keys", |pki, call, target| answer(pki.write_default_key(call, target.data))),
    row(Verb::Read, "config/auto-tidy", |pki, _, _| now(Ok(pki.read_auto_tidy()))),
    row(Verb::Write, "config/auto-tidy", |pki, _, target| answer(pki.write_auto_tidy(target.data))),
    row(Verb::Read, "config/cluster", |pki, _, _| now(Ok(pki.read_cluster()))),
    row(Verb::Write, "config/cluster", |pki, _, target| answer(pki.write_cluster(target.data))),
];

fn rotate_crls(pki: Arc<Pki>, call: Call, _: Target) -> Answer {
    to_the_end(async move { pki.rotate_crls(&call).await })
}

fn rotate_delta_crls(pki: Arc<Pki>, call: Call, _: Target) -> Answer {
    to_the_end(async move { pki.rotate_delta_crls(&call).await })
}

fn generate_root(pki: Arc<Pki>, call: Call, target: Target) -> Answer {
    to_the_end(async move { pki.generate_root(call, &target.name, &target.data).await })
}

fn generate_intermediate(pki: Arc<Pki>, call: Call, target: Target) -> Answer {
    to_the_end(async move { pki.generate_intermediate(call, &target.name, &target.data).await })
}

fn import_bundle(pki: Arc<Pki>, call: Call, target: Target) -> Answer {
    to_the_end(pki.import(call, "pem_bundle", target.data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::table::is_public;

    /// A path for which the pattern of a row stands.
    fn sample(pattern: &str) -> String {
        pattern.split('/').map(|part| if [":", "*"].contains(&part) { "x" } else { part }).collect::<Vec<_>>().join("/")
    }

    #[test]
    fn what_anyone_may_read_is_public_and_nothing_else() {
        let public_paths = [
            "ca",
            "ca/pem",
            "ca_chain",
            "crl",
            "crl/pem",
            "cert/01:02",
            "cert/ca",
            "cert/ca_chain",
            "cert/1/raw",
            "cert/1/raw/pem",
            "issuer/x/json",
            "issuer/x/der",
            "issuer/x/pem",
            "issuer/x/crl",
            "issuer/x/crl/der",
            "issuer/x/crl/pem",
            "crl/delta",
            "crl/delta/pem",
            "issuer/x/crl/delta",
            "issuer/x/crl/delta/der",
            "issuer/x/crl/delta/pem",
            "ocsp/MEIw//w=",
        ];
        for path in public_paths {
            assert!(is_public(TABLE, Verb::Read, path), "{path}");
        }
        assert!(is_public(TABLE, Verb::List, "issuers") && !is_public(TABLE, Verb::Read, "issuers"));
        // Every other path of the table asks for a token.
        for row in TABLE {
            let path = sample(row.pattern());
            for verb in [Verb::Read, Verb::Write, Verb::Patch, Verb::Delete, Verb::List] {
                let expected = match verb {
                    Verb::Read => public_paths.iter().any(|known| sample_fits(row.pattern(), known)),
                    Verb::Write => path == "ocsp",
                    Verb::List => path == "issuers",
                    _ => false,
                };
                assert_eq!(is_public(TABLE, verb, &path), expected, "{verb:?} {path}");
            }
        }
    }

    fn sample_fits(pattern: &str, path: &str) -> bool {
        if let Some(before) = pattern.strip_suffix('*') {
            return path.starts_with(before);
        }
        let parts: Vec<&str> = path.split('/').collect();
        let fixed: Vec<&str> = pattern.split('/').collect();
        parts.len() == fixed.len() && fixed.iter().zip(&parts).all(|(fixed, part)| *fixed == ":" || fixed == part)
    }
}
