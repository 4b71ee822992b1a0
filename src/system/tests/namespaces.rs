//! What a namespace has of its own, and what is the whole daemon's.

use super::*;

#[test]
fn a_namespace_has_mounts_and_managed_keys_of_its_own() {
    story(|client| async move {
        let ask = async |namespace: &str, verb, path: &str, data| client.ask_in(namespace, verb, path, data).await;
        let absent = Err(Fault::absent());
        for namespace in ["team", "team/ci"] {
            let written = ask(namespace, Verb::Write, "sys/mounts/pki", json!({"type": "pki"})).await;
            assert_eq!(written, Ok(Response::Empty), "{namespace}");
        }
        assert_eq!(ask("team", Verb::Write, "sys/managed-keys/pkcs11/ca", ca()).await, Ok(Response::Empty));
        for elsewhere in ["", "team/ci"] {
            assert_eq!(ask(elsewhere, Verb::Read, "sys/managed-keys/pkcs11/ca", json!({})).await, absent);
            assert_eq!(ask(elsewhere, Verb::List, "sys/managed-keys/pkcs11", json!({})).await, absent);
            let tested = ask(elsewhere, Verb::Write, "sys/managed-keys/pkcs11/ca/test/sign", json!({})).await;
            assert_eq!(tested, Err(Fault::invalid("no managed key found with name \"ca\"")), "{elsewhere}");
            assert_eq!(
                ask(elsewhere, Verb::Delete, "sys/managed-keys/pkcs11/ca", json!({})).await,
                Ok(Response::Empty)
            );
        }
        assert!(ask("team", Verb::Read, "sys/managed-keys/pkcs11/ca", json!({})).await.is_ok(), "it is still there");
        assert!(ask("", Verb::Read, "sys/mounts/pki", json!({})).await.is_err());
        ask("team", Verb::Delete, "sys/mounts/pki", json!({})).await.unwrap();
        assert!(ask("team/ci", Verb::Read, "sys/mounts/pki", json!({})).await.is_ok(), "another's mount stays");
    });
}

#[test]
fn the_namespaces_below_are_listed_and_what_is_the_daemons_is_not_done_in_one() {
    story(|client| async move {
        let listed =
            async |namespace: &str| match client.ask_in(namespace, Verb::List, "sys/namespaces", json!({})).await {
                Ok(Response::Data { data, .. }) => Value::Object(data),
                other => panic!("{namespace}: {other:?}"),
            };
        let info = |path: &str| json!({"path": path, "custom_metadata": {}});
        assert_eq!(listed("").await, json!({"keys": ["team/"], "key_info": {"team/": info("team/")}}));
        assert_eq!(listed("team").await, json!({"keys": ["ci/"], "key_info": {"ci/": info("team/ci/")}}));
        let none = client.ask_in("team/ci", Verb::List, "sys/namespaces", json!({})).await;
        assert_eq!(none, Err(Fault::absent()));
        let init = client.ask_in("team", Verb::Write, "sys/init", json!({})).await;
        assert_eq!(init, Err(Fault::invalid("operation unavailable in namespaces")));
        let Ok(Response::Data { data, .. }) =
            client.ask_in("team", Verb::Read, "auth/token/lookup-self", json!({})).await
        else {
            panic!("the root token works everywhere");
        };
        assert_eq!(data["namespace_path"], "", "it is the root namespace's token");
    });
}
