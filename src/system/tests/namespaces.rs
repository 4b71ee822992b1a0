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
        for (namespace, name, path) in [("", "team/", "team/"), ("team", "ci/", "team/ci/")] {
            let listed = listed(namespace).await;
            let id = &listed["key_info"][name]["id"];
            assert_eq!(id.as_str().map(str::len), Some(6));
            let info = json!({"id": id, "path": path, "custom_metadata": {}});
            assert_eq!(listed, json!({"keys": [name], "key_info": {name: info}}));
        }
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

#[test]
fn a_namespace_is_made_read_and_changed_in_the_one_it_lies_in() {
    story(|client| async move {
        let ask = async |namespace: &str, verb, path: &str, data| match client.ask_in(namespace, verb, path, data).await
        {
            Ok(Response::Data { data, warnings, .. }) => (Value::Object(data), warnings),
            other => panic!("{namespace} {path}: {other:?}"),
        };
        let notes = json!({"owner": "ca", "tier": "1"});
        let given = json!({"custom_metadata": notes, "odd": 1});
        let (made, warnings) = ask("", Verb::Write, "sys/namespaces/made", given).await;
        assert_eq!(made, json!({"id": made["id"], "path": "made/", "custom_metadata": notes}));
        assert_eq!(warnings, ["Endpoint ignored these unrecognized parameters: [odd]"]);
        assert_eq!(ask("", Verb::Read, "sys/namespaces/made", json!({})).await.0, made);
        let (below, _) = ask("made", Verb::Write, "sys/namespaces/ci", json!({})).await;
        assert_eq!(below["path"], "made/ci/");
        let patch = json!({"custom_metadata": {"tier": null, "site": "x"}});
        let (patched, _) = ask("", Verb::Patch, "sys/namespaces/made", patch).await;
        assert_eq!(patched["custom_metadata"], json!({"owner": "ca", "site": "x"}));
        assert_eq!(patched["id"], made["id"]);
        let (cleared, _) = ask("", Verb::Patch, "sys/namespaces/made", json!({"custom_metadata": null})).await;
        assert_eq!(cleared["custom_metadata"], json!({}));
        // As command lines write them.
        for (given, noted) in [
            (json!("a=b=c"), json!({"a": "b=c"})),
            (json!(["a=1", "b="]), json!({"a": "1", "b": ""})),
            (json!([]), json!({})),
        ] {
            let (made, _) = ask("", Verb::Write, "sys/namespaces/made", json!({"custom_metadata": given})).await;
            assert_eq!(made["custom_metadata"], noted);
        }
        for odd in [json!("a"), json!(["a=b", "c"]), json!([1])] {
            let refused = client.refused(Verb::Write, "sys/namespaces/made", json!({"custom_metadata": odd})).await;
            assert!(refused.contains("name=value"), "{refused}");
        }
        for (namespace, name) in [("", "nobody"), ("made", "made"), ("made/ci", "ci")] {
            let path = format!("sys/namespaces/{name}");
            assert_eq!(client.ask_in(namespace, Verb::Read, &path, json!({})).await, Err(Fault::absent()));
            assert_eq!(client.ask_in(namespace, Verb::Patch, &path, json!({})).await, Err(Fault::absent()));
        }
        for odd in [json!({"custom_metadata": {"a": 1}}), json!({"custom_metadata": {"a": null}})] {
            let refused = client.refused(Verb::Write, "sys/namespaces/made", odd).await;
            assert_eq!(refused, "custom_metadata values must be strings");
        }
    });
}

#[test]
fn a_deleted_namespace_gives_back_all_that_it_had() {
    story(|client| async move {
        let ask = async |namespace: &str, verb, path: &str, data| client.ask_in(namespace, verb, path, data).await;
        let (key, test) = ("sys/managed-keys/pkcs11/ca", "sys/managed-keys/pkcs11/ca/test/sign");
        for name in ["one", "two"] {
            client.ok(Verb::Write, &format!("sys/namespaces/{name}"), json!({})).await;
            assert_eq!(ask(name, Verb::Write, key, ca()).await, Ok(Response::Empty));
        }
        assert_eq!(ask("one", Verb::Write, "sys/mounts/pki", json!({"type": "pki"})).await, Ok(Response::Empty));
        assert_eq!(ask("one", Verb::Write, test, json!({})).await, Ok(Response::Empty));
        let claimed = ask("two", Verb::Write, test, json!({})).await.unwrap_err().to_string();
        assert!(claimed.contains("is taken on its token"), "{claimed}");
        assert_eq!(client.ask(Verb::Delete, "sys/namespaces/one", json!({})).await, Ok(Response::Empty));
        let gone = ask("one", Verb::Read, key, json!({})).await;
        assert!(matches!(&gone, Err(Fault::NotFound { what }) if what.contains("does not exist")), "{gone:?}");
        let refused = client.refused(Verb::Write, "sys/namespaces/one", json!({})).await;
        assert!(refused.contains("is being deleted"), "{refused}");
        client.system.end_deletions().await;
        assert!(client.system.keys.names(&Namespace::from_path("one"), "pkcs11").is_empty());
        let store = &client.system.store;
        assert!(store.collections(&Namespace::from_path("one"), "", 1).unwrap().is_empty());
        assert_eq!(ask("two", Verb::Write, test, json!({})).await, Ok(Response::Empty), "the key on the token is free");
        // Anew, and empty: what it had is not there, and keys are taken again.
        client.ok(Verb::Write, "sys/namespaces/one", json!({})).await;
        assert_eq!(ask("one", Verb::List, "sys/managed-keys/pkcs11", json!({})).await, Err(Fault::absent()));
        assert!(client.system.namespaces.mounts(&Namespace::from_path("one")).is_empty());
        assert_eq!(ask("one", Verb::Write, key, ca()).await, Ok(Response::Empty));
        assert_eq!(client.ask(Verb::Delete, "sys/namespaces/nobody", json!({})).await, Ok(Response::Empty));
        let refused = client.refused(Verb::Delete, "sys/namespaces/team", json!({})).await;
        assert!(refused.contains("take its stanza out"), "{refused}");
    });
}
