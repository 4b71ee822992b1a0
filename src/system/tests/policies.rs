//! Policies as a client writes and reads them.

use super::*;

const APP: &str = "path \"transit/sign/app\" {\n  capabilities = [\"update\"]\n}\n";

#[test]
fn a_policy_is_written_read_listed_and_deleted() {
    story(|client| async move {
        let keys = json!({"keys": ["default", "root"]});
        assert_eq!(client.ok(Verb::List, "sys/policies/acl", json!({})).await, keys);
        assert_eq!(client.ask(Verb::Read, "sys/policies/acl/app", json!({})).await, Err(Fault::absent()));
        client.write("sys/policies/acl/App", json!({"policy": APP})).await;
        assert_eq!(client.read("sys/policies/acl/APP").await, json!({"name": "app", "policy": APP}));
        let old = json!({"name": "app", "policy": APP, "rules": APP});
        assert_eq!(client.read("sys/policy/app").await, old);
        let both = json!(["app", "default", "root"]);
        for verb in [Verb::Read, Verb::List] {
            assert_eq!(client.ok(verb, "sys/policy", json!({})).await, json!({"keys": both, "policies": both}));
        }
        client.write("sys/policy/old", json!({"rules": "cGF0aCAiYSIgeyBwb2xpY3kgPSAicmVhZCIgfQ=="})).await;
        assert_eq!(client.read("sys/policies/acl/old").await["policy"], "path \"a\" { policy = \"read\" }");
        for _ in 0..2 {
            let deleted = client.ask(Verb::Delete, "sys/policies/acl/app", json!({})).await;
            assert_eq!(deleted, Ok(Response::Empty));
        }
        assert_eq!(client.ask(Verb::Read, "sys/policy/app", json!({})).await, Err(Fault::absent()));
    });
}

#[test]
fn what_is_no_policy_is_refused_with_its_place_and_changes_nothing() {
    story(|client| async move {
        client.write("sys/policies/acl/app", json!({"policy": APP})).await;
        for (name, data, told) in [
            ("app", json!({}), "'policy' parameter not supplied or empty"),
            (
                "app",
                json!({"policy": "path \"a\" {\n  capabilites = []\n}"}),
                "line 2, column 3: path \"a\": unknown field",
            ),
            ("root", json!({"policy": APP}), "cannot update \"root\" policy"),
            ("Root", json!({"policy": APP}), "cannot update \"root\" policy"),
        ] {
            let refused = client.ask(Verb::Write, &format!("sys/policies/acl/{name}"), data).await.unwrap_err();
            assert!(refused.to_string().contains(told), "{refused}");
        }
        assert_eq!(client.read("sys/policies/acl/app").await["policy"], APP);
        assert_eq!(client.read("sys/policies/acl/root").await["policy"], "");
        for name in ["root", "default"] {
            let refused = client.ask(Verb::Delete, &format!("sys/policies/acl/{name}"), json!({})).await.unwrap_err();
            assert!(refused.to_string().starts_with("cannot delete"), "{refused}");
        }
        assert!(client.read("sys/policies/acl/default").await["policy"].as_str().unwrap().contains("lookup-self"));
        client.write("sys/policies/acl/default", json!({"policy": APP})).await;
        assert_eq!(client.read("sys/policies/acl/default").await["policy"], APP);
    });
}

#[test]
fn each_namespace_has_its_own_policies() {
    story(|client| async move {
        let ask = async |namespace: &str, verb, path: &str, data| client.ask_in(namespace, verb, path, data).await;
        let written = ask("team", Verb::Write, "sys/policies/acl/app", json!({"policy": APP})).await;
        assert_eq!(written, Ok(Response::Empty));
        for elsewhere in ["", "team/ci"] {
            assert_eq!(ask(elsewhere, Verb::Read, "sys/policies/acl/app", json!({})).await, Err(Fault::absent()));
        }
        let listed = ask("team", Verb::List, "sys/policies/acl", json!({})).await;
        assert_eq!(listed, Ok(Response::keys(vec!["app".into(), "default".into()])), "root is the root namespace's");
        assert_eq!(ask("team", Verb::Read, "sys/policies/acl/root", json!({})).await, Err(Fault::absent()));
    });
}

#[test]
fn a_root_token_is_told_that_it_may_everything() {
    story(|client| async move {
        let one = json!({"capabilities": ["root"], "a/b": ["root"]});
        assert_eq!(client.ok(Verb::Write, "sys/capabilities-self", json!({"paths": ["a/b"]})).await, one);
        let two = json!({"a": ["root"], "b": ["root"]});
        assert_eq!(client.ok(Verb::Write, "sys/capabilities-self", json!({"path": "a,b"})).await, two);
        let root = client.root.lock().as_ref().unwrap().expose_str().unwrap().to_owned();
        assert_eq!(client.ok(Verb::Write, "sys/capabilities", json!({"token": root, "paths": "a/b"})).await, one);
        let accessor = client.read("auth/token/lookup-self").await["accessor"].clone();
        let by_accessor = json!({"accessor": accessor, "paths": ["a/b"]});
        assert_eq!(client.ok(Verb::Write, "sys/capabilities-accessor", by_accessor).await, one);
        for (path, data, told) in [
            ("sys/capabilities-accessor", json!({"accessor": "nobody", "paths": "a"}), "invalid accessor"),
            ("sys/capabilities-accessor", json!({"paths": "a"}), "missing accessor"),
            ("sys/capabilities-accessor", json!({"accessor": accessor}), "paths must be supplied"),
            ("sys/capabilities", json!({"token": "hvs.wrong", "paths": "a"}), "invalid token"),
            ("sys/capabilities", json!({"paths": "a"}), "missing token"),
            ("sys/capabilities-self", json!({}), "paths must be supplied"),
        ] {
            assert_eq!(client.ask(Verb::Write, path, data).await, Err(Fault::invalid(told)));
        }
        let grants = client.read("sys/internal/ui/resultant-acl").await;
        assert_eq!(grants, json!({"root": true, "exact_paths": {}, "glob_paths": {}}));
    });
}
