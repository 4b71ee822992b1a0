//! Which policies a token is given, and what is told of them.

use super::*;

#[tokio::test]
async fn a_root_token_is_made_in_the_root_namespace_alone() {
    let house = House::new().await;
    let before = house.stored();
    let refused = house.create_in("team", &house.root, policies(&["Root"])).await.unwrap_err();
    assert_eq!(refused, Fault::invalid("root tokens may not be created from a non-root namespace"));
    assert_eq!(house.stored(), before);
    let auth = house.create_in("team", &house.root, policies(&[])).await.unwrap();
    assert_eq!(auth.policies, ["default"]);
}

#[tokio::test]
async fn a_policy_that_is_not_there_is_told_to_who_gives_it() {
    let house = House::new().await;
    let team = Namespace::from_path("team");
    house.identity.policies().write(&team, "a", "path \"x\" { capabilities = [\"read\"] }").await.unwrap();
    let caller = house.caller(&house.root);
    let told =
        async |namespace: &Namespace| house.identity.create(&caller, namespace, policies(&["a", "b"])).await.unwrap().1;
    assert_eq!(told(&team).await, ["Policy \"b\" does not exist"]);
    assert_eq!(told(&Namespace::root()).await, ["Policy \"a\" does not exist", "Policy \"b\" does not exist"]);
    assert!(house.identity.create(&caller, &Namespace::root(), policies(&["root"])).await.unwrap().1.is_empty());
}
