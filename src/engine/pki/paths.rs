//! The table of the engine's paths.

use std::sync::Arc;

use super::crl::off_worker;
use super::fetch::Encoding::{Der, Pem};
use super::fetch::Which::{Complete, Delta};
use super::fetch::{DER_CERTIFICATE, DER_CRL, PEM_CHAIN, PEM_CRL};
use super::fresh::Asker;
use super::issuers::Update;
use super::ocsp::CONTENT_TYPE as OCSP;
use super::{Pki, fields, intents};
use crate::engine::table::{Row, Target, answer, now, row, to_the_end};
use crate::engine::{Answer, Call};
use crate::model::Field;
use crate::model::endpoint::{delete, list, patch, read, write};

/// The fields of a request to sign by a role.
const SIGN: &[&[Field]] = &[fields::CSR, fields::NAMES, fields::LEAF, fields::FORMAT, fields::PRIVATE_KEY_FORMAT];
/// The same, where the daemon makes the key.
const ISSUE: &[&[Field]] = &[fields::NAMES, fields::LEAF, fields::FORMAT, fields::PRIVATE_KEY_FORMAT];
/// The fields of a request to sign as it stands.
const SIGN_VERBATIM: &[&[Field]] = &[fields::CSR, fields::VERBATIM, fields::FORMAT, fields::PRIVATE_KEY_FORMAT];

/// The first row that fits counts. What is asked most comes first.
pub(super) const TABLE: &[Row<Pki>] = &[
    row(write("sign/:role", "Signs a request by a role.").takes(SIGN), |pki, call, target| {
        answer(async move { pki.sign_by_role(&call, None, &target.name, &target.data).await })
    }),
    row(
        write("issuer/:issuer_ref/sign/:role", "Signs a request by a role and an issuer.").takes(SIGN),
        |pki, call, target| {
            answer(async move { pki.sign_by_role(&call, Some(&target.name), &target.second, &target.data).await })
        },
    ),
    row(write("issue/:role", "Makes a key and its certificate by a role.").takes(ISSUE), |pki, call, target| {
        answer(async move { pki.issue_by_role(&call, None, &target.name, &target.data).await })
    }),
    row(
        write("issuer/:issuer_ref/issue/:role", "Makes a key and its certificate by a role and an issuer.")
            .takes(ISSUE),
        |pki, call, target| {
            answer(async move { pki.issue_by_role(&call, Some(&target.name), &target.second, &target.data).await })
        },
    ),
    row(write("sign-verbatim", "Signs a request as it stands.").takes(SIGN_VERBATIM), |pki, call, target| {
        answer(async move { pki.sign_verbatim(&call, None, None, &target.data).await })
    }),
    row(
        write("sign-verbatim/:role", "Signs a request as it stands, within a role.").takes(SIGN_VERBATIM),
        |pki, call, target| {
            answer(async move { pki.sign_verbatim(&call, None, Some(&target.name), &target.data).await })
        },
    ),
    row(
        write("issuer/:issuer_ref/sign-verbatim", "Signs a request as it stands, by an issuer.").takes(SIGN_VERBATIM),
        |pki, call, target| {
            answer(async move { pki.sign_verbatim(&call, Some(&target.name), None, &target.data).await })
        },
    ),
    row(
        write("issuer/:issuer_ref/sign-verbatim/:role", "Signs a request as it stands, by an issuer.")
            .takes(SIGN_VERBATIM),
        |pki, call, target| {
            answer(
                async move { pki.sign_verbatim(&call, Some(&target.name), Some(&target.second), &target.data).await },
            )
        },
    ),
    row(read("ocsp/*req", "Answers an OCSP request in the path.").public().answers(OCSP), |pki, call, target| {
        answer(pki.ocsp_in_path(call, target.name))
    }),
    row(
        write("ocsp", "Answers an OCSP request.").public().sent_as("application/ocsp-request").answers(OCSP),
        |pki, call, target| answer(pki.ocsp(call, target.raw)),
    ),
    row(
        read("crl", "The default issuer's CRL in DER.").public().conditional().answers(DER_CRL),
        |pki, call, target| answer(pki.default_crl(Asker::of(&call, &target), Complete, Der)),
    ),
    row(
        read("crl/pem", "The default issuer's CRL in PEM.").public().conditional().answers(PEM_CRL),
        |pki, call, target| answer(pki.default_crl(Asker::of(&call, &target), Complete, Pem)),
    ),
    row(
        read("crl/delta", "The default issuer's delta CRL in DER.").public().conditional().answers(DER_CRL),
        |pki, call, target| answer(pki.default_crl(Asker::of(&call, &target), Delta, Der)),
    ),
    row(
        read("crl/delta/pem", "The default issuer's delta CRL in PEM.").public().conditional().answers(PEM_CRL),
        |pki, call, target| answer(pki.default_crl(Asker::of(&call, &target), Delta, Pem)),
    ),
    row(
        read("ca", "The default issuer's certificate in DER.").public().conditional().answers(DER_CERTIFICATE),
        |pki, call, target| answer(pki.ca(Asker::of(&call, &target))),
    ),
    row(
        read("ca/pem", "The default issuer's certificate in PEM.").public().conditional().answers(PEM_CHAIN),
        |pki, call, target| answer(pki.ca_pem(Asker::of(&call, &target))),
    ),
    row(
        read("ca_chain", "The default issuer's chain in PEM.").public().conditional().answers(PEM_CHAIN),
        |pki, call, target| answer(pki.ca_chain(Asker::of(&call, &target))),
    ),
    row(
        read("cert/:serial", "Reads a certificate, or ca, ca_chain, crl or delta-crl.").public().conditional(),
        |pki, call, target| answer(pki.read_certificate(Asker::of(&call, &target), target.name)),
    ),
    row(read("cert/:serial/raw", "A certificate in DER.").public().answers(DER_CERTIFICATE), |pki, _, target| {
        now(pki.raw_certificate(&target.name))
    }),
    row(read("cert/:serial/raw/pem", "A certificate in PEM.").public().answers(PEM_CHAIN), |pki, _, target| {
        now(pki.raw_certificate_pem(&target.name))
    }),
    row(
        list("certs/unfinished", "Lists serial numbers begun with and not ended.").takes(&[fields::PAGE]),
        |pki, _, target| answer(off_worker(true, move || intents::list(&pki.intents, &target.data))),
    ),
    row(list("certs", "Lists the serial numbers of certificates.").takes(&[fields::PAGE]), |pki, _, target| {
        answer(async move { pki.list_certificates(&target.data).await })
    }),
    row(
        list("certs/revoked", "Lists the serial numbers of revoked certificates.").takes(&[fields::PAGE]),
        |pki, _, target| answer(async move { pki.list_revoked(&target.data).await }),
    ),
    row(write("revoke", "Revokes a certificate.").unlimited().takes(&[fields::REVOKE]), |pki, call, target| {
        to_the_end(async move { pki.revoke(&call, &target.data).await })
    }),
    row(
        write("revoke-with-key", "Revokes a certificate for who holds its key.")
            .unlimited()
            .takes(&[fields::REVOKE, fields::PRIVATE_KEY]),
        |pki, call, target| to_the_end(async move { pki.revoke_with_key(&call, target.data).await }),
    ),
    row(read("crl/rotate", "Makes every CRL anew."), rotate_crls),
    row(write("crl/rotate", "Makes every CRL anew."), rotate_crls),
    row(read("crl/rotate-delta", "Makes every delta CRL anew."), rotate_delta_crls),
    row(write("crl/rotate-delta", "Makes every delta CRL anew."), rotate_delta_crls),
    // Roles.
    row(list("roles", "Lists the roles."), |pki, _, _| now(pki.list_roles())),
    row(read("roles/:name", "Reads a role."), |pki, _, target| now(pki.read_role(&target.name))),
    row(
        write("roles/:name", "Writes a whole role.").creating().takes(&[fields::ROLE, fields::SUBJECT]),
        |pki, _, target| answer(pki.write_role(target.name, target.data)),
    ),
    row(patch("roles/:name", "Changes a role in part.").takes(&[fields::ROLE, fields::SUBJECT]), |pki, _, target| {
        answer(pki.patch_role(target.name, target.data))
    }),
    row(delete("roles/:name", "Deletes a role."), |pki, _, target| answer(pki.delete_role(target.name))),
    // Issuers.
    row(list("issuers", "Lists the issuers.").public(), |pki, _, _| now(pki.list_issuers())),
    row(read("issuer/:issuer_ref", "Reads an issuer."), |pki, _, target| now(pki.read_issuer(&target.name))),
    row(
        write("issuer/:issuer_ref", "Writes the settings of an issuer.")
            .takes(&[fields::ISSUER_SETTINGS, fields::URLS]),
        |pki, call, target| answer(pki.write_issuer(call, target.name, target.data, Update::Replace)),
    ),
    row(
        patch("issuer/:issuer_ref", "Changes some settings of an issuer.")
            .takes(&[fields::ISSUER_SETTINGS, fields::URLS]),
        |pki, call, target| answer(pki.write_issuer(call, target.name, target.data, Update::Patch)),
    ),
    row(delete("issuer/:issuer_ref", "Deletes an issuer."), |pki, call, target| {
        answer(pki.delete_issuer(call, target.name))
    }),
    row(
        read("issuer/:issuer_ref/json", "An issuer's certificate and chain.").public().conditional(),
        |pki, call, target| answer(pki.issuer_json(Asker::of(&call, &target), target.name)),
    ),
    row(
        read("issuer/:issuer_ref/der", "An issuer's certificate in DER.")
            .public()
            .conditional()
            .answers(DER_CERTIFICATE),
        |pki, call, target| answer(pki.issuer_der(Asker::of(&call, &target), target.name)),
    ),
    row(
        read("issuer/:issuer_ref/pem", "An issuer's certificate in PEM.").public().conditional().answers(PEM_CHAIN),
        |pki, call, target| answer(pki.issuer_pem(Asker::of(&call, &target), target.name)),
    ),
    row(read("issuer/:issuer_ref/crl", "An issuer's CRL.").public().conditional(), |pki, call, target| {
        answer(pki.issuer_crl_json(Asker::of(&call, &target), target.name, Complete))
    }),
    row(
        read("issuer/:issuer_ref/crl/der", "An issuer's CRL in DER.").public().conditional().answers(DER_CRL),
        |pki, call, target| answer(pki.issuer_crl(Asker::of(&call, &target), target.name, Complete, Der)),
    ),
    row(
        read("issuer/:issuer_ref/crl/pem", "An issuer's CRL in PEM.").public().conditional().answers(PEM_CRL),
        |pki, call, target| answer(pki.issuer_crl(Asker::of(&call, &target), target.name, Complete, Pem)),
    ),
    row(read("issuer/:issuer_ref/crl/delta", "An issuer's delta CRL.").public().conditional(), |pki, call, target| {
        answer(pki.issuer_crl_json(Asker::of(&call, &target), target.name, Delta))
    }),
    row(
        read("issuer/:issuer_ref/crl/delta/der", "An issuer's delta CRL in DER.")
            .public()
            .conditional()
            .answers(DER_CRL),
        |pki, call, target| answer(pki.issuer_crl(Asker::of(&call, &target), target.name, Delta, Der)),
    ),
    row(
        read("issuer/:issuer_ref/crl/delta/pem", "An issuer's delta CRL in PEM.")
            .public()
            .conditional()
            .answers(PEM_CRL),
        |pki, call, target| answer(pki.issuer_crl(Asker::of(&call, &target), target.name, Delta, Pem)),
    ),
    row(
        write("issuer/:issuer_ref/revoke", "Revokes an issuer, which then signs nothing but CRLs.").unlimited(),
        |pki, call, target| to_the_end(pki.revoke_issuer(call, target.name)),
    ),
    row(
        write("issuer/:issuer_ref/resign-crls", "Makes one CRL of the entries of several of the issuer's.")
            .takes(&[fields::CRL_WISH, fields::CRLS]),
        |pki, call, target| answer(async move { pki.resign_crls(&call, &target.name, &target.data).await }),
    ),
    row(
        write("issuer/:issuer_ref/sign-revocation-list", "Makes a CRL of what the request lists.")
            .takes(&[fields::CRL_WISH, fields::CRL_ENTRIES]),
        |pki, call, target| answer(async move { pki.sign_revocation_list(&call, &target.name, target.data).await }),
    ),
    row(
        write("issuers/import/bundle", "Adds the certificates of a bundle as issuers.").takes(&[fields::BUNDLE]),
        import_bundle,
    ),
    row(
        write("issuers/import/cert", "Adds the certificates of a bundle as issuers.").takes(&[fields::BUNDLE]),
        import_bundle,
    ),
    row(write("config/ca", "Adds the certificates of a bundle as issuers.").takes(&[fields::BUNDLE]), import_bundle),
    // Keys.
    row(list("keys", "Lists the keys of the mount."), |pki, _, _| now(pki.list_keys())),
    row(read("key/:key_ref", "Reads a key of the mount."), |pki, call, target| {
        now(pki.read_key(&call.mount, &target.name))
    }),
    row(write("key/:key_ref", "Names a key of the mount.").takes(&[fields::KEY]), |pki, call, target| {
        answer(pki.write_key(call, target.name, target.data))
    }),
    row(delete("key/:key_ref", "Deletes a key of the mount."), |pki, call, target| {
        answer(pki.delete_key(call, target.name))
    }),
    row(
        write("keys/generate/:exported", "Adds the key of a managed key, or makes a key.")
            .takes(&[fields::CA_KEY, fields::KEY]),
        |pki, call, target| to_the_end(async move { pki.generate_key(call, &target.name, &target.data).await }),
    ),
    row(write("keys/import", "Refused: Keyway holds no long-lived private keys."), |_, _, _| now(Pki::import_key())),
    // Roots.
    row(
        write("root/generate/:exported", "Makes a root.").takes(&[
            fields::CA_KEY,
            fields::KEY,
            fields::KEY_REF,
            fields::NAMES,
            fields::SUBJECT,
            fields::CA_SIGNATURE,
            fields::CA_REACH,
            fields::ROOT,
            fields::FORMAT,
            fields::PRIVATE_KEY_FORMAT,
        ]),
        generate_root,
    ),
    row(
        write("issuers/generate/root/:exported", "Makes a root.").takes(&[
            fields::CA_KEY,
            fields::KEY,
            fields::KEY_REF,
            fields::NAMES,
            fields::SUBJECT,
            fields::CA_SIGNATURE,
            fields::CA_REACH,
            fields::ROOT,
            fields::FORMAT,
            fields::PRIVATE_KEY_FORMAT,
        ]),
        generate_root,
    ),
    row(
        write("root/rotate/:exported", "Makes a root that is to take over.").takes(&[
            fields::CA_KEY,
            fields::KEY,
            fields::KEY_REF,
            fields::NAMES,
            fields::SUBJECT,
            fields::CA_SIGNATURE,
            fields::CA_REACH,
            fields::ROOT,
            fields::FORMAT,
            fields::PRIVATE_KEY_FORMAT,
        ]),
        |pki, call, target| to_the_end(async move { pki.rotate_root(call, &target.name, &target.data).await }),
    ),
    row(
        write("root/replace", "Has another issuer take over as the default.").takes(&[fields::REPLACE]),
        |pki, call, target| to_the_end(async move { pki.replace_root(call, &target.data).await }),
    ),
    row(delete("root", "Deletes every issuer and every key of the mount.").sudo(), |pki, call, _| {
        answer(pki.delete_root(call))
    }),
    // Intermediates.
    row(
        write("root/sign-intermediate", "Signs a certificate authority's request.").takes(&[
            fields::ISSUER,
            fields::CSR,
            fields::NAMES,
            fields::SUBJECT,
            fields::CA_SIGNATURE,
            fields::CA_REACH,
            fields::SIGN_INTERMEDIATE,
            fields::FORMAT,
        ]),
        |pki, call, target| answer(async move { pki.sign_intermediate(&call, None, &target.data).await }),
    ),
    row(
        write("issuer/:issuer_ref/sign-intermediate", "Signs a certificate authority's request, by an issuer.").takes(
            &[
                fields::CSR,
                fields::NAMES,
                fields::SUBJECT,
                fields::CA_SIGNATURE,
                fields::CA_REACH,
                fields::SIGN_INTERMEDIATE,
                fields::FORMAT,
            ],
        ),
        |pki, call, target| answer(async move { pki.sign_intermediate(&call, Some(&target.name), &target.data).await }),
    ),
    row(
        write("root/sign-self-issued", "Signs a self-issued certificate.")
            .sudo()
            .takes(&[fields::ISSUER, fields::SELF_ISSUED]),
        |pki, call, target| answer(async move { pki.sign_self_issued(&call, None, &target.data).await }),
    ),
    row(
        write("issuer/:issuer_ref/sign-self-issued", "Signs a self-issued certificate, by an issuer.")
            .takes(&[fields::SELF_ISSUED]),
        |pki, call, target| answer(async move { pki.sign_self_issued(&call, Some(&target.name), &target.data).await }),
    ),
    row(
        write("intermediate/generate/:exported", "Makes a request for an intermediate.").takes(&[
            fields::CA_KEY,
            fields::KEY,
            fields::KEY_REF,
            fields::NAMES,
            fields::SUBJECT,
            fields::CA_SIGNATURE,
            fields::INTERMEDIATE,
            fields::FORMAT,
            fields::PRIVATE_KEY_FORMAT,
        ]),
        generate_intermediate,
    ),
    row(
        write("issuers/generate/intermediate/:exported", "Makes a request for an intermediate.").takes(&[
            fields::CA_KEY,
            fields::KEY,
            fields::KEY_REF,
            fields::NAMES,
            fields::SUBJECT,
            fields::CA_SIGNATURE,
            fields::INTERMEDIATE,
            fields::FORMAT,
            fields::PRIVATE_KEY_FORMAT,
        ]),
        generate_intermediate,
    ),
    row(
        write("intermediate/cross-sign", "Makes a request for an issuer whose key is there.").takes(&[
            fields::KEY,
            fields::KEY_REF,
            fields::NAMES,
            fields::SUBJECT,
            fields::CA_SIGNATURE,
            fields::INTERMEDIATE,
            fields::FORMAT,
            fields::PRIVATE_KEY_FORMAT,
        ]),
        |pki, call, target| to_the_end(async move { pki.generate_intermediate(call, "existing", &target.data).await }),
    ),
    row(
        write("intermediate/set-signed", "Adds the certificate that came back for a request.").takes(&[fields::SIGNED]),
        |pki, call, target| to_the_end(pki.set_signed(call, target.data)),
    ),
    row(
        write("tidy", "Begins to remove what has ended.").begun().takes(&[fields::TIDY, fields::TIDY_OLD]),
        |pki, call, target| to_the_end(pki.tidy(call, target.data)),
    ),
    row(read("tidy-status", "How the last tidy went, or goes."), |pki, call, _| now(Ok(pki.tidy_status(&call)))),
    row(write("tidy-cancel", "Ends the tidy that runs."), |pki, call, _| now(Ok(pki.cancel_tidy(&call)))),
    // Configuration.
    row(read("config/auto-tidy", "Reads what is tidied by the clock."), |pki, _, _| now(Ok(pki.read_auto_tidy()))),
    row(
        write("config/auto-tidy", "Changes what is tidied by the clock.").takes(&[fields::AUTO_TIDY, fields::TIDY]),
        |pki, _, target| answer(pki.write_auto_tidy(target.data)),
    ),
    row(read("config/crl", "Reads how CRLs and OCSP responses are made."), |pki, _, _| now(Ok(pki.read_crl_config()))),
    row(
        write("config/crl", "Changes how CRLs and OCSP responses are made.").takes(&[fields::CRL]),
        |pki, _, target| answer(pki.write_crl_config(target.data)),
    ),
    row(read("config/urls", "Reads the URLs that certificates name."), |pki, _, _| now(Ok(pki.read_urls()))),
    row(
        write("config/urls", "Changes the URLs that certificates name.").takes(&[fields::URLS, fields::TEMPLATING]),
        |pki, _, target| answer(pki.write_urls(target.data)),
    ),
    row(read("config/issuers", "Reads which issuer is the default."), |pki, _, _| now(Ok(pki.read_default_issuer()))),
    row(
        write("config/issuers", "Chooses the default issuer.").takes(&[fields::DEFAULT_ISSUER]),
        |pki, call, target| answer(pki.write_default_issuer(call, target.data)),
    ),
    row(read("config/keys", "Reads which key is the default."), |pki, _, _| now(Ok(pki.read_default_key()))),
    row(write("config/keys", "Chooses the default key.").takes(&[fields::DEFAULT_KEY]), |pki, call, target| {
        answer(pki.write_default_key(call, target.data))
    }),
    row(read("config/cluster", "Reads where clients find this mount."), |pki, _, _| now(Ok(pki.read_cluster()))),
    row(
        write("config/cluster", "Changes where clients find this mount.").takes(&[fields::CLUSTER]),
        |pki, _, target| answer(pki.write_cluster(target.data)),
    ),
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
    use crate::engine::table::{endpoints, is_public};
    use crate::model::Verb;

    /// A path for which the pattern of a row stands.
    fn sample(pattern: &str) -> String {
        pattern
            .split('/')
            .map(|part| if part.starts_with([':', '*']) { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/")
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
        for endpoint in endpoints(TABLE) {
            let path = sample(endpoint.pattern);
            for verb in [Verb::Read, Verb::Write, Verb::Patch, Verb::Delete, Verb::List] {
                let expected = match verb {
                    Verb::Read => public_paths.iter().any(|known| sample_fits(endpoint.pattern, known)),
                    Verb::Write => path == "ocsp",
                    Verb::List => path == "issuers",
                    _ => false,
                };
                assert_eq!(is_public(TABLE, verb, &path), expected, "{verb:?} {path}");
            }
        }
    }

    fn sample_fits(pattern: &str, path: &str) -> bool {
        if let Some((before, _)) = pattern.split_once('*') {
            return path.starts_with(before);
        }
        let parts: Vec<&str> = path.split('/').collect();
        let fixed: Vec<&str> = pattern.split('/').collect();
        parts.len() == fixed.len()
            && fixed.iter().zip(&parts).all(|(fixed, part)| fixed.starts_with(':') || fixed == part)
    }
}
