//! How much of it a namespace has.

use super::*;

#[tokio::test]
async fn a_namespace_has_so_many_token_roles_and_no_more() {
    let limits = Limits { token_roles_per_namespace: 2, ..Limits::default() };
    let house = House::bounded(limits).await;
    let a = Namespace::from_path("a");
    let put = async |name: &str| house.identity.put_role(&a, name, &TokenRole::default()).await;
    for name in ["one", "two", "one"] {
        put(name).await.unwrap();
    }
    let told = put("three").await.unwrap_err().to_string();
    assert!(told.contains("limits { token_roles_per_namespace }"), "{told}");
    let below = Namespace::from_path("a/b");
    let told = house.identity.put_role(&below, "three", &TokenRole::default()).await.unwrap_err().to_string();
    assert!(told.contains("namespace a/ and those below it have 2 token roles together"), "{told}");
    house.identity.put_role(&Namespace::root(), "three", &TokenRole::default()).await.unwrap();
    let again = house.restarted_with(&Limits { token_roles_per_namespace: 2, ..Limits::default() });
    assert!(
        again.identity.put_role(&below, "three", &TokenRole::default()).await.is_err(),
        "they are counted at a start"
    );
    // One that is not there makes no room.
    house.identity.delete_role(&a, "nobody").await.unwrap();
    assert!(put("three").await.is_err());
    house.identity.delete_role(&a, "one").await.unwrap();
    put("three").await.unwrap();
    assert_eq!(house.identity.roles(&a).unwrap(), ["three", "two"]);
    let long = TokenRole { allowed_policies: vec!["x".repeat(70_000)], ..TokenRole::default() };
    assert!(matches!(house.identity.put_role(&a, "two", &long).await, Err(Fault::TooLarge { .. })));
}

#[tokio::test]
async fn a_namespace_has_so_many_tokens_and_no_more() {
    let limits = Limits { client_tokens_per_namespace: 3, ..Limits::default() };
    let house = House::bounded(limits.clone()).await;
    let told = "namespace a/ and those below it have 3 tokens together, as limits { client_tokens_per_namespace } allows: revoke \
                some, let some end, or have the operator raise it";
    let in_a = async |house: &House| house.create_in("a", &house.root, policies(&["x"])).await;
    let below_a = async |house: &House| house.create_in("a/b", &house.root, policies(&["x"])).await;
    let first = in_a(&house).await.unwrap().client_token;
    in_a(&house).await.unwrap();
    // Those of namespaces below are counted with it: whoever makes namespaces has no more for that.
    below_a(&house).await.unwrap();
    for refused in
        [in_a(&house).await, below_a(&house).await, house.create_in("a/c/d", &house.root, policies(&["x"])).await]
    {
        assert_eq!(refused.unwrap_err().to_string(), told);
    }
    // Not so others', nor those of the root for what lies in it.
    house.create_in("ab", &house.root, policies(&["x"])).await.unwrap();
    house.create_in("", &house.root, policies(&["x"])).await.unwrap();
    // A restart counts anew; whoever goes makes room.
    let again = house.restarted_with(&limits);
    assert!(in_a(&again).await.is_err());
    again.identity.revoke(again.identity.identify(&first)).await.unwrap();
    in_a(&again).await.unwrap();
    assert!(in_a(&again).await.is_err());
    again.identity.revoke_namespace_now(&Namespace::from_path("a")).unwrap();
    in_a(&again).await.unwrap();
    let restarted = again.restarted();
    assert_eq!(restarted.identity.accessors(&Namespace::from_path("a"), 9).len(), 1);
    assert!(restarted.identity.accessors(&Namespace::from_path("a/b"), 9).is_empty(), "those below went along");
}
