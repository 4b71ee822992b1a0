//! What the table of paths says of the fields of requests is what the handlers read. That they read nothing else holds for
//! every test of the engine; that they read all of it is tried here.

use serde_json::json;

use super::*;
use crate::engine::pki::fields;

/// What is listed and not read as other fields are, and why.
const OTHERWISE: [&str; 3] = [
    // Taken out of the data, since they may be many.
    "Write issuer/:issuer_ref/sign-revocation-list does not read revoked_certs",
    "Write issuer/:issuer_ref/sign-revocation-list does not read extensions",
    // Taken out of the data, so that nothing keeps it.
    "Write revoke-with-key does not read private_key",
];

#[tokio::test]
async fn every_field_that_is_listed_is_read() {
    let desk = Desk::with_root().await;
    let csr = json!({"csr": desk.p256_csr("/CN=a.example", ""), "common_name": "a.example"});
    let private_key = std::fs::read_to_string(desk.folder.path().join("key.pem")).unwrap();
    let (key, none) = (json!({"common_name": "Another", "managed_key_name": "ca"}), json!({}));
    let existing = json!({"common_name": "Another"});
    let own = json!({"common_name": "Another"});
    let root = json!({"certificate": text(&desk.read("cert/ca").await.unwrap()["certificate"])});
    let listed =
        json!({"crl_number": 1, "next_update": "1h", "revoked_certs": [{"serial_number": "01"}], "extensions": []});
    for (verb, path, data) in [
        (Verb::Write, "sign/any", &csr),
        (Verb::Write, "issuer/default/sign/any", &csr),
        (Verb::Write, "issue/any", &none),
        (Verb::Write, "issuer/default/issue/any", &none),
        (Verb::Write, "sign-verbatim", &csr),
        (Verb::Write, "sign-verbatim/any", &csr),
        (Verb::Write, "issuer/default/sign-verbatim", &csr),
        (Verb::Write, "issuer/default/sign-verbatim/any", &csr),
        (Verb::List, "certs", &none),
        (Verb::List, "certs/revoked", &none),
        (Verb::List, "certs/unfinished", &none),
        (Verb::Write, "issuer/default/resign-crls", &none),
        (Verb::Write, "issuer/default/sign-revocation-list", &listed),
        (Verb::Write, "tidy", &none),
        (Verb::Write, "config/auto-tidy", &none),
        (Verb::Write, "revoke", &none),
        (Verb::Write, "revoke-with-key", &json!({"private_key": private_key, "serial_number": "01"})),
        (Verb::Write, "roles/new", &none),
        (Verb::Patch, "roles/any", &none),
        (Verb::Write, "issuer/default", &none),
        (Verb::Patch, "issuer/default", &none),
        (Verb::Write, "issuers/import/bundle", &none),
        (Verb::Write, "issuers/import/cert", &none),
        (Verb::Write, "config/ca", &none),
        (Verb::Write, "key/default", &none),
        (Verb::Write, "keys/generate/kms", &key),
        (Verb::Write, "keys/generate/internal", &own),
        (Verb::Write, "root/generate/kms", &key),
        (Verb::Write, "root/generate/existing", &existing),
        (Verb::Write, "root/generate/internal", &own),
        (Verb::Write, "issuers/generate/root/kms", &key),
        (Verb::Write, "issuers/generate/root/existing", &existing),
        (Verb::Write, "issuers/generate/root/internal", &own),
        (Verb::Write, "root/rotate/kms", &key),
        (Verb::Write, "root/rotate/existing", &existing),
        (Verb::Write, "root/rotate/internal", &own),
        (Verb::Write, "root/replace", &none),
        (Verb::Write, "root/sign-intermediate", &csr),
        (Verb::Write, "issuer/default/sign-intermediate", &csr),
        (Verb::Write, "root/sign-self-issued", &root),
        (Verb::Write, "issuer/default/sign-self-issued", &root),
        (Verb::Write, "intermediate/generate/kms", &key),
        (Verb::Write, "intermediate/generate/existing", &existing),
        (Verb::Write, "intermediate/generate/internal", &own),
        (Verb::Write, "issuers/generate/intermediate/kms", &key),
        (Verb::Write, "issuers/generate/intermediate/existing", &existing),
        (Verb::Write, "issuers/generate/intermediate/internal", &own),
        (Verb::Write, "intermediate/cross-sign", &existing),
        (Verb::Write, "intermediate/set-signed", &none),
        (Verb::Write, "config/crl", &none),
        (Verb::Write, "config/urls", &none),
        (Verb::Write, "config/issuers", &json!({"default": "default-root"})),
        (Verb::Write, "config/keys", &none),
        (Verb::Write, "config/cluster", &none),
    ] {
        // Whether it goes well is of no account here.
        let _ = desk.send(verb, path, data.clone()).await;
    }
    let readings = desk.readings.lock();
    let mut unread = recorder::unread(&table::endpoints(TABLE), &readings);
    unread.retain(|told| !OTHERWISE.iter().any(|known| told.starts_with(known)));
    assert!(unread.is_empty(), "{}", unread.join("\n"));
}

#[test]
fn every_part_of_a_path_is_described() {
    for endpoint in table::endpoints(TABLE) {
        for part in endpoint.open_parts() {
            assert!(fields::PARTS.iter().any(|field| field.name == part), "{}: {part}", endpoint.pattern);
        }
    }
}
