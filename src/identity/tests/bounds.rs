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
    house.identity.put_role(&Namespace::root(), "three", &TokenRole::default()).await.unwrap();
    // One that is not there makes no room.
    house.identity.delete_role(&a, "nobody").await.unwrap();
    assert!(put("three").await.is_err());
    house.identity.delete_role(&a, "one").await.unwrap();
    put("three").await.unwrap();
    assert_eq!(house.identity.roles(&a).unwrap(), ["three", "two"]);
    let long = TokenRole { allowed_policies: vec!["x".repeat(70_000)], ..TokenRole::default() };
    assert!(matches!(house.identity.put_role(&a, "two", &long).await, Err(Fault::TooLarge { .. })));
}
