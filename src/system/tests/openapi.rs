//! The description of the API, and that it tells what is read.

use std::collections::BTreeMap;

use super::*;
use crate::model::endpoint::{list, write};
use crate::model::{Data, Endpoint, Field};
use crate::system::paths::endpoints;

/// An engine of this name, with a few paths.
pub(super) fn engine(name: &'static str) -> EngineType {
    const PARTS: &[Field] = &[Field::text("name", "A name."), Field::text("hash", "A hash.")];
    const FIELDS: &[&[Field]] = &[&[Field::text("csr", "A request.").required(), Field::duration("ttl", "How long.")]];
    let sign = write("sign/:name", "Signs.").takes(FIELDS);
    let endpoints = vec![sign, Endpoint { pattern: "sign/:name/:hash", ..sign }, list("roles", "Lists.")];
    EngineType { name, endpoints, parts: PARTS }
}

/// Marks the data of a request, whose readings are to be judged.
pub(super) fn mark(verb: Verb, path: &str, data: &mut Data) -> Option<(Endpoint, u64)> {
    let Found::Row(row, _) = find(verb, path) else { return None };
    Some((row.endpoint, recorder::mark(&row.endpoint, data)))
}

/// What was read of a request. Panics where the table says otherwise.
pub(super) fn readings(asked: (Endpoint, u64)) -> Vec<(Verb, &'static str, Reading)> {
    let (endpoint, mark) = asked;
    recorder::judged(&endpoint, mark)
}

/// A key in each cloud, which has fields that others have not.
fn cloud_keys() -> [(&'static str, Value); 3] {
    let replicas = json!([{"region": "b"}]);
    [
        ("awskms/a", json!({"kms_key": "a", "key_type": "RSA", "key_bits": 2048, "replicas": replicas})),
        (
            "azurekeyvault/b",
            json!({"vault_name": "v", "key_name": "k", "tenant_id": "t", "key_type": "RSA", "key_bits": 2048}),
        ),
        (
            "gcpckms/c",
            json!({
                "credentials": "/c.json", "project": "p", "region": "r", "key_ring": "k", "crypto_key": "c",
                "crypto_key_version": 1, "algorithm": "ec_sign_p256_sha256",
            }),
        ),
    ]
}

#[test]
fn every_field_that_is_listed_is_read() {
    uninitialized(|client| async move {
        let none = json!({});
        client.ask(Verb::Read, "sys/health", none.clone()).await.unwrap();
        let root = client.ok(Verb::Write, "sys/init", none.clone()).await["root_token"].clone();
        *client.root.lock() = Some(Secret::from(root.as_str().unwrap()));
        client.write("sys/managed-keys/pkcs11/ca", ca()).await;
        for (key, fields) in cloud_keys() {
            client.write(&format!("sys/managed-keys/{key}"), fields).await;
        }
        let accessor = client.read("auth/token/lookup-self").await["accessor"].take();
        for (verb, path, data) in [
            (Verb::Read, "sys/health", none.clone()),
            (Verb::Read, "sys/internal/specs/openapi", none.clone()),
            (Verb::Write, "sys/internal/specs/openapi", none.clone()),
            (Verb::Write, "sys/unseal", none.clone()),
            (Verb::Write, "sys/mounts/pki", json!({"type": "pki", "config": {}})),
            (Verb::Write, "sys/mounts/pki/tune", none.clone()),
            (Verb::Write, "sys/policies/acl/x", none.clone()),
            (Verb::Write, "sys/policy/x", none.clone()),
            (Verb::Write, "sys/capabilities", json!({"token": root, "paths": "a"})),
            (Verb::Write, "sys/capabilities-self", none.clone()),
            (Verb::Write, "sys/capabilities-accessor", json!({"accessor": accessor, "paths": "a"})),
            (Verb::Write, "sys/audit/x", json!({"type": "file"})),
            (Verb::Write, "sys/audit-hash/x", json!({"input": "x"})),
            (Verb::Write, "sys/quotas/rate-limit/q", json!({"rate": 1})),
            (Verb::Write, "sys/quotas/concurrency/q", json!({"requests": 1})),
            (Verb::Write, "sys/namespaces/made", none.clone()),
            (Verb::Patch, "sys/namespaces/made", none.clone()),
            (Verb::Write, "sys/namespaces/api-lock/unlock", none.clone()),
            (Verb::Write, "sys/namespaces/api-lock/unlock/made", none.clone()),
            (Verb::Write, "sys/leases/lookup", json!({"lease_id": "x"})),
            (Verb::Write, "sys/leases/renew", json!({"lease_id": "x"})),
            (Verb::Write, "sys/leases/revoke", json!({"lease_id": "x"})),
            (Verb::Write, "sys/leases/renew/x", none.clone()),
            (Verb::Write, "sys/leases/revoke/x", none.clone()),
            (Verb::Write, "sys/managed-keys/pkcs11/ca/test/sign", none.clone()),
            (Verb::Write, "auth/token/roles/any", none.clone()),
            (Verb::Write, "auth/token/create", none.clone()),
            (Verb::Write, "auth/token/create-orphan", none.clone()),
            (Verb::Write, "auth/token/create/any", none.clone()),
            (Verb::Write, "auth/token/lookup", none.clone()),
            (Verb::Write, "auth/token/lookup-accessor", none.clone()),
            (Verb::Write, "auth/token/renew", none.clone()),
            (Verb::Write, "auth/token/renew-self", none.clone()),
            (Verb::Write, "auth/token/renew-accessor", json!({"accessor": accessor})),
            (Verb::Write, "auth/token/revoke", none.clone()),
            (Verb::Write, "auth/token/revoke-accessor", none.clone()),
            (Verb::Write, "auth/token/revoke-orphan", none.clone()),
            (Verb::Write, "auth/unix/role/any", none.clone()),
            (Verb::Write, "auth/unix/login", json!({"role": "any"})),
            (Verb::Write, "sys/wrapping/lookup", none.clone()),
            (Verb::Write, "sys/wrapping/unwrap", none.clone()),
            (Verb::Write, "sys/wrapping/rewrap", none),
        ] {
            // Whether it goes well is of no account here.
            let _ = client.ask(verb, path, data).await;
        }
        let unread = recorder::unread(&endpoints(), &client.readings.lock());
        assert!(unread.is_empty(), "{}", unread.join("\n"));
    });
}

#[test]
fn every_part_of_a_path_is_described_and_every_default_is_a_value() {
    for endpoint in endpoints() {
        recorder::check_defaults(&endpoint);
        for part in endpoint.open_parts() {
            assert!(fields::PARTS.iter().any(|field| field.name == part), "{}: {part}", endpoint.pattern);
        }
    }
}

async fn document(client: &Client, query: Value) -> Value {
    match client.ask(Verb::Read, "sys/internal/specs/openapi", query).await.unwrap() {
        Response::Raw { content_type: "application/json", body } => serde_json::from_slice(&body).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_description_has_the_mounts_of_the_namespace_by_their_paths() {
    story(|client| async move {
        client.write("sys/mounts/teams/ca", json!({"type": "pki"})).await;
        client.write("sys/mounts/transit", json!({"type": "transit"})).await;
        let in_team = client.ask_in("team", Verb::Write, "sys/mounts/elsewhere", json!({"type": "pki"})).await;
        assert_eq!(in_team, Ok(Response::Empty));
        let told = document(&client, json!({})).await;
        assert_eq!((&told["openapi"], &told["servers"][0]["url"]), (&json!("3.0.2"), &json!("/v1")));
        let is_of_a_mount = |path: &&str| !path.starts_with("/sys/") && !path.starts_with("/auth/");
        let below: Vec<&str> = keys(&told["paths"]).into_iter().filter(is_of_a_mount).collect();
        let expected = [
            "/teams/ca/roles/",
            "/teams/ca/sign/{name}",
            "/teams/ca/sign/{name}/{hash}",
            "/transit/roles/",
            "/transit/sign/{name}",
            "/transit/sign/{name}/{hash}",
        ];
        assert_eq!(below, expected);
        let sign = &told["paths"]["/teams/ca/sign/{name}"];
        let golden = json!({
            "parameters": [{
                "name": "name", "in": "path", "required": true, "description": "A name.", "schema": {"type": "string"},
            }],
            "post": {
                "summary": "Signs.",
                "operationId": "teams-ca-write-sign",
                "tags": ["secrets"],
                "requestBody": {
                    "required": true,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PkiWriteSignRequest"}}},
                },
                "responses": sign["post"]["responses"],
            },
        });
        assert_eq!(*sign, golden);
        assert_eq!(keys(&sign["post"]["responses"]), ["200", "204", "4XX", "5XX"]);
        let schema = json!({
            "type": "object",
            "properties": {
                "csr": {"type": "string", "description": "A request."},
                "ttl": {"type": "integer", "format": "seconds", "description": "How long."},
            },
            "required": ["csr"],
        });
        assert_eq!(told["components"]["schemas"]["PkiWriteSignRequest"], schema);
        let longer = &told["paths"]["/teams/ca/sign/{name}/{hash}"]["post"]["operationId"];
        assert_eq!(*longer, "teams-ca-write-sign-with-hash");
        let list = &told["paths"]["/transit/roles/"]["get"];
        assert_eq!(
            (&list["operationId"], &list["parameters"][0]["name"]),
            (&json!("transit-list-roles"), &json!("list"))
        );
        assert_eq!(told["paths"]["/sys/health"]["x-vault-unauthenticated"], true);
        assert_eq!(told["paths"]["/auth/token/lookup-self"]["get"]["tags"], json!(["auth"]));
        assert_eq!(told["paths"]["/sys/mounts/{path}"]["x-vault-createSupported"], true);
        assert_eq!(
            keys(&told["paths"]["/sys/mounts/{path}"]),
            ["delete", "get", "parameters", "post", "x-vault-createSupported"]
        );
    });
}

#[test]
fn mounts_are_a_parameter_where_that_is_asked_for_and_every_id_has_the_clients_word() {
    story(|client| async move {
        client.write("sys/mounts/one", json!({"type": "pki"})).await;
        client.write("sys/mounts/two", json!({"type": "pki"})).await;
        let told = document(&client, json!({"generic_mount_paths": "true", "context": "tests"})).await;
        let below: Vec<&str> = keys(&told["paths"]).into_iter().filter(|path| path.starts_with("/{")).collect();
        let expected =
            ["/{pki_mount_path}/roles/", "/{pki_mount_path}/sign/{name}", "/{pki_mount_path}/sign/{name}/{hash}"];
        assert_eq!(below, expected);
        let sign = &told["paths"]["/{pki_mount_path}/sign/{name}"];
        assert_eq!(sign["parameters"][0]["schema"]["default"], "pki");
        assert_eq!(sign["post"]["operationId"], "pki-write-sign-tests");
        let refused = client.refused(Verb::Read, "sys/internal/specs/openapi", json!({"context": "a b"})).await;
        assert!(refused.starts_with("context \"a b\""), "{refused}");
    });
}

#[test]
fn every_id_is_one_operations_and_every_schema_is_there_and_alike() {
    story(|client| async move {
        // Both become `a-b`.
        client.write("sys/mounts/a/b", json!({"type": "pki"})).await;
        client.write("sys/mounts/a-b", json!({"type": "pki"})).await;
        let told = document(&client, json!({})).await;
        let operations = told["paths"].as_object().unwrap().values();
        let operations = operations.flat_map(|item| item.as_object().unwrap().values()).filter(|of| of.is_object());
        let mut ids: Vec<&Value> = operations.map(|operation| &operation["operationId"]).collect();
        let count = ids.len();
        ids.sort_by_key(|id| id.to_string());
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(ids.contains(&&json!("a-b-list-roles_2")));
        let text = told.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(told["components"]["schemas"][name].is_object(), "{name}");
        }
    });
}

#[test]
fn requests_with_schemas_of_one_name_have_the_same_fields() {
    let mut known = BTreeMap::new();
    for endpoint in endpoints() {
        let names: Vec<&str> = endpoint.fields.iter().copied().flatten().map(|field| field.name).collect();
        if names.is_empty() {
            continue;
        }
        let name = crate::system::openapi::schema_name("", &endpoint);
        assert_eq!(*known.entry(name.clone()).or_insert_with(|| names.clone()), names, "{name}");
    }
}

#[test]
fn a_description_of_very_many_mounts_is_refused_unless_it_names_none() {
    story(|client| async move {
        for number in 0..=100 {
            client.write(&format!("sys/mounts/m{number}"), json!({"type": "pki"})).await;
        }
        let refused = client.ask(Verb::Read, "sys/internal/specs/openapi", json!({})).await;
        assert!(matches!(refused, Err(Fault::TooLarge { .. })), "{refused:?}");
        document(&client, json!({"generic_mount_paths": true})).await;
    });
}
