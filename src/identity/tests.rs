//! Stories of tokens: who may make which, what ends with what, and what a restart finds.

mod assigned;
mod bounds;
mod wrapping;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Clock;
use super::*;
use crate::config::{Limits, Storage};
use crate::model::{Auth, Caller, Fault, Namespace, PeerCredentials, Secret, Wire};
use crate::store::{Ephemeral, Store, Write};

const START: u64 = 1_000_000;

/// An identity whose clock stands, and its root token.
struct House {
    store: Store,
    now: Arc<AtomicU64>,
    identity: Identity,
    root: Secret,
}

impl House {
    async fn new() -> House {
        House::bounded(Limits::default()).await
    }

    async fn bounded(limits: Limits) -> House {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
        store.initialize().unwrap();
        let now = Arc::new(AtomicU64::new(START));
        let identity = Identity::at(store.clone(), &limits, Clock::told(Arc::clone(&now)));
        let root = identity.create_root(None).await.unwrap();
        House { store, now, identity, root }
    }

    /// The same after a restart.
    fn restarted(&self) -> House {
        self.restarted_with(&Limits::default())
    }

    fn restarted_with(&self, limits: &Limits) -> House {
        let identity = Identity::at(self.store.clone(), limits, Clock::told(Arc::clone(&self.now)));
        identity.load().unwrap();
        House { store: self.store.clone(), now: Arc::clone(&self.now), identity, root: self.root.clone() }
    }

    fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
    }

    fn caller(&self, token: &Secret) -> Caller {
        caller(Some(self.identity.identify(token)))
    }

    async fn create_in(&self, namespace: &str, by: &Secret, wish: Wish) -> Result<Auth, Fault> {
        let made = self.identity.create(&self.caller(by), &Namespace::from_path(namespace), wish).await;
        made.map(|(auth, _)| auth)
    }

    /// A token made by another.
    async fn create(&self, by: &Secret, wish: Wish) -> Result<Auth, Fault> {
        self.create_in("", by, wish).await
    }

    async fn made(&self, by: &Secret, wish: Wish) -> Secret {
        self.create(by, wish).await.unwrap().client_token
    }

    async fn refused(&self, by: &Secret, wish: Wish) -> String {
        self.create(by, wish).await.unwrap_err().to_string()
    }

    fn is_good(&self, token: &Secret) -> bool {
        self.identity.valid(&self.caller(token), &Namespace::root()).is_ok()
    }

    fn policies(&self, token: &Secret) -> Vec<String> {
        self.identity.token(&self.caller(token), &Namespace::root()).unwrap().policies.clone()
    }

    async fn revoke(&self, token: &Secret) {
        assert_eq!(self.identity.revoke(self.identity.identify(token)).await, Ok(true));
    }

    fn stored(&self) -> usize {
        self.store.list(&Namespace::root(), "tokens", None, 1000).unwrap().len()
    }
}

fn caller(token: Option<crate::model::TokenId>) -> Caller {
    Caller { token, ..Caller::new(PeerCredentials { uid: 1, gid: 1, pid: None }, Wire::Http) }
}

fn policies(names: &[&str]) -> Wish {
    Wish { policies: names.iter().map(|name| (*name).to_owned()).collect(), ..Wish::default() }
}

fn authorize(identity: &Identity, caller: &Caller) -> Result<(), Fault> {
    identity.rights(caller, &Namespace::root(), || Cow::Borrowed("sys/mounts"), false).map(drop)
}

#[tokio::test]
async fn a_token_opens_until_it_is_revoked_and_survives_a_restart() {
    let house = House::new().await.restarted();
    let good = house.caller(&house.root);
    assert_eq!(house.policies(&house.root), ["root"]);
    assert_eq!(authorize(&house.identity, &good), Ok(()));
    for bad in [caller(None), house.caller(&Secret::from("hvs.wrong"))] {
        assert_eq!(house.identity.token(&bad, &Namespace::root()).unwrap_err(), Fault::PermissionDenied);
        assert_eq!(authorize(&house.identity, &bad), Err(Fault::PermissionDenied));
    }
    house.revoke(&house.root).await;
    assert_eq!(authorize(&house.identity, &good), Err(Fault::PermissionDenied));
    assert_eq!(authorize(&house.restarted().identity, &good), Err(Fault::PermissionDenied), "revoked for good");
}

#[tokio::test]
async fn a_random_token_has_vaults_form_and_a_given_one_is_taken_as_it_is() {
    let house = House::new().await;
    let text = house.root.expose_str().unwrap();
    assert_eq!(text.len(), 28);
    assert!(text.strip_prefix("hvs.").unwrap().chars().all(|c| c.is_ascii_alphanumeric()));
    let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
    store.initialize().unwrap();
    let dev = Identity::new(store, &Limits::default());
    assert!(dev.create_root(Some(Secret::from(""))).await.is_err());
    dev.create_root(Some(Secret::from("root"))).await.unwrap();
    assert_eq!(authorize(&dev, &caller(Some(dev.identify(&Secret::from("root"))))), Ok(()));
}

#[tokio::test]
async fn there_is_one_first_root_token_even_after_it_was_revoked() {
    let house = House::new().await;
    house.revoke(&house.root).await;
    let again = house.restarted().identity;
    assert!(again.is_initialized());
    assert_eq!(again.create_root(None).await.unwrap_err(), Fault::invalid("Vault is already initialized"));
}

#[tokio::test]
async fn the_token_itself_is_kept_nowhere() {
    let house = House::new().await;
    let root = Namespace::root();
    let made = house.made(&house.root, policies(&["a"])).await;
    let texts = [house.root.expose_str().unwrap(), made.expose_str().unwrap()];
    for collection in house.store.collections(&root, "", 100).unwrap() {
        for (name, record) in house.store.scan(&root, &collection, None, 100).unwrap() {
            let value = String::from_utf8_lossy(&record.value).into_owned();
            assert!(texts.iter().all(|text| !name.contains(text) && !value.contains(text)));
        }
    }
}

#[tokio::test]
async fn a_child_has_no_more_policies_than_its_parent_unless_that_is_root() {
    let house = House::new().await;
    let parent = house.made(&house.root, policies(&["B", "a ", "a"])).await;
    assert_eq!(house.policies(&parent), ["a", "b", "default"]);
    let plain = house.made(&house.root, Wish { no_default_policy: true, ..policies(&["a"]) }).await;
    assert_eq!(house.policies(&plain), ["a"]);
    let child = house.made(&parent, policies(&["a"])).await;
    assert_eq!(house.policies(&child), ["a", "default"], "default comes along from the parent");
    let alike = house.made(&plain, Wish::default()).await;
    assert_eq!(house.policies(&alike), ["a"], "the parent's, if none are asked for");
    let none = Wish::default();
    for (by, wish, told) in [
        (&parent, policies(&["c"]), "child policies must be subset of parent"),
        (&plain, policies(&["default"]), "child policies must be subset of parent"),
        (&parent, policies(&["root"]), "child policies must be subset of parent"),
        (&house.root, policies(&["response-wrapping"]), "cannot assign policy \"response-wrapping\""),
        (&parent, Wish { id: Some(Secret::from("mine")), ..none.clone() }, "privileges required to specify token id"),
        (&parent, Wish { no_parent: true, ..none.clone() }, "privileges required to create orphan token"),
        (&parent, Wish { period: 60, ..none.clone() }, "privileges required to create periodic token"),
        (&house.root, Wish { id: Some(Secret::from("hvs.mine")), ..none.clone() }, "cannot have the 'hvs.'"),
    ] {
        let refused = house.refused(by, wish).await;
        assert!(refused.contains(told), "{refused}");
    }
    assert_eq!(house.create_in("team", &parent, none).await, Err(Fault::PermissionDenied), "there they mean others");
}

#[tokio::test]
async fn a_root_token_without_end_comes_of_one_without_end_alone() {
    let house = House::new().await;
    let endless = house.create(&house.root, Wish::default()).await.unwrap();
    assert_eq!((endless.policies, endless.lease_duration, endless.renewable), (vec!["root".to_owned()], 0, false));
    let ending = house.made(&house.root, Wish { ttl: 60, ..Wish::default() }).await;
    assert!(house.refused(&ending, Wish::default()).await.contains("expiring root tokens cannot create"));
    let child = house.create(&ending, Wish { ttl: 100, ..Wish::default() }).await.unwrap();
    assert_eq!(child.lease_duration, 100);
    let chosen = Wish { id: Some(Secret::from("chosen")), ..Wish::default() };
    assert_eq!(house.made(&house.root, chosen.clone()).await, Secret::from("chosen"));
    assert!(house.refused(&house.root, chosen).await.contains("duplicate ID"));
}

#[tokio::test]
async fn what_ends_takes_all_below_it_along_but_orphans() {
    let house = House::new().await;
    let top = house.made(&house.root, policies(&["root"])).await;
    let child = house.made(&top, policies(&["root"])).await;
    let grandchild = house.made(&child, policies(&["a"])).await;
    let orphan = house.made(&child, Wish { orphan: true, ..policies(&["a"]) }).await;
    house.revoke(&top).await;
    for (token, good) in [(&top, false), (&child, false), (&grandchild, false), (&orphan, true), (&house.root, true)] {
        assert_eq!((house.is_good(token), house.restarted().is_good(token)), (good, good));
    }
    assert_eq!(house.stored(), 2);
}

#[tokio::test]
async fn children_go_on_as_orphans_where_only_their_parent_is_revoked() {
    let house = House::new().await;
    let top = house.made(&house.root, policies(&["root"])).await;
    let child = house.made(&top, policies(&["root"])).await;
    let grandchild = house.made(&child, policies(&["a"])).await;
    assert_eq!(house.identity.revoke_orphan(house.identity.identify(&top)).await, Ok(true));
    for house in [&house.restarted(), &house] {
        assert!(!house.is_good(&top) && house.is_good(&child) && house.is_good(&grandchild));
        assert!(house.identity.token(&house.caller(&child), &Namespace::root()).unwrap().is_orphan());
    }
    house.revoke(&child).await;
    assert!(!house.is_good(&grandchild));
}

#[tokio::test]
async fn a_crash_while_a_tree_is_deleted_leaves_nothing_of_it() {
    let house = House::new().await;
    let top = house.made(&house.root, policies(&["root"])).await;
    let child = house.made(&top, policies(&["root"])).await;
    house.made(&child, policies(&["root"])).await;
    // Only the first of the deletions came to the disk.
    let key = token::key(house.identity.identify(&top));
    house.store.commit(vec![Write::Delete { key }]).await.unwrap();
    let again = house.restarted();
    assert!(!again.is_good(&child) && again.is_good(&house.root));
    assert_eq!(house.stored(), 1);
}

#[tokio::test]
async fn a_token_ends_by_the_clock_with_all_below_it() {
    let house = House::new().await;
    let parent = house.made(&house.root, Wish { ttl: 60, ..policies(&["a"]) }).await;
    let child = house.made(&parent, Wish { ttl: 1000, ..policies(&["a"]) }).await;
    house.pass(59);
    assert!(house.is_good(&parent));
    house.identity.end_due().await;
    assert_eq!(house.stored(), 3);
    house.pass(1);
    assert!(!house.is_good(&parent), "refused before anybody cleans up");
    house.identity.end_due().await;
    assert!(!house.is_good(&child));
    assert_eq!(house.stored(), 1);
    let late = house.made(&house.root, Wish { ttl: 60, ..policies(&["a"]) }).await;
    house.pass(61);
    assert!(!house.restarted().is_good(&late));
    assert_eq!(house.stored(), 1, "deleted at the start");
}

#[tokio::test]
async fn a_token_is_renewed_within_its_bounds_and_that_is_stored() {
    let house = House::new().await;
    let wish = Wish { ttl: 60, explicit_max_ttl: 100, ..policies(&["a"]) };
    let token = house.made(&house.root, wish).await;
    let renew = |house: &House, increment| {
        let (identity, id) = (house.identity.clone(), house.identity.identify(&token));
        async move { identity.renew(id, increment).await.map(|(auth, warnings)| (auth.lease_duration, warnings.len())) }
    };
    house.pass(50);
    assert_eq!(renew(&house, 0).await, Ok((50, 1)), "as long as it was made for, but for its longest life");
    assert_eq!(renew(&house, 20).await, Ok((20, 0)), "or shorter");
    house.pass(15);
    assert_eq!(renew(&house.restarted(), 30).await, Ok((30, 0)));
    let again = house.restarted();
    again.pass(29);
    assert!(again.is_good(&token));
    again.pass(1);
    assert!(!again.is_good(&token));
    let fixed = house.made(&house.root, Wish { not_renewable: true, ..policies(&["a"]) }).await;
    for fixed in [&fixed, &house.root] {
        let refused = house.identity.renew(house.identity.identify(fixed), 0).await.unwrap_err();
        assert_eq!(refused, Fault::invalid("lease is not renewable"));
    }
}

#[tokio::test]
async fn a_token_with_uses_has_so_many_across_a_restart_and_makes_no_other() {
    let house = House::new().await;
    assert!(house.identity.counted(&house.caller(&house.root)).is_none(), "nothing is counted");
    let token = house.made(&house.root, Wish { num_uses: 3, ..policies(&["root"]) }).await;
    assert!(house.refused(&token, Wish::default()).await.contains("restricted use token"));
    assert!(house.identity.counted(&house.caller(&house.root)).is_none());
    let spend = |house: &House| {
        let counted = house.identity.counted(&house.caller(&token)).unwrap();
        let spent = house.identity.spend(&counted);
        async move { spent?.take().await.map(|spent| spent.is_some()) }
    };
    assert_eq!(spend(&house).await, Ok(false));
    let again = house.restarted();
    assert_eq!(spend(&again).await, Ok(false));
    assert_eq!(spend(&again).await, Ok(true));
    assert_eq!(spend(&again).await, Err(Fault::PermissionDenied));
    assert!(!again.is_good(&token));
    assert!(
        again.identity.token(&again.caller(&token), &Namespace::root()).is_ok(),
        "the last request may ask who it is"
    );
    again.pass(60);
    again.identity.end_due().await;
    assert_eq!(house.stored(), 1);
}

#[test]
fn of_many_that_ask_at_once_no_more_are_let_in_than_there_are_uses() {
    let block_on = |future| tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
    let (house, token) = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let house = House::new().await;
        let token = house.made(&house.root, Wish { num_uses: 20, ..policies(&["a"]) }).await;
        (house, token)
    });
    let (identity, caller) = (&house.identity, house.caller(&token));
    let ask = || match identity.spend(&identity.counted(&caller).expect("its uses are counted")) {
        Ok(spending) => block_on(spending.take()).is_ok(),
        Err(_) => false,
    };
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..25).filter(|_| ask()).count())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 20);
    // One that was judged while there were uses, and comes to its turn when the token is gone, is not let in.
    let late = identity.counted(&caller).unwrap();
    let revoked = identity.revoke(caller.token.unwrap());
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(revoked).unwrap();
    assert!(identity.counted(&caller).is_none() && identity.spend(&late).is_err());
    assert!(!house.restarted().is_good(&token), "and none is left after a restart");
}

#[tokio::test]
async fn a_token_works_in_its_namespace_and_is_found_from_above_alone() {
    let house = House::new().await;
    let [team, below, other] = ["team", "team/ci", "other"].map(Namespace::from_path);
    let auth = house.create_in("team", &house.root, policies(&["a"])).await.unwrap();
    let caller = house.caller(&auth.client_token);
    for (namespace, good) in [(&team, true), (&below, true), (&other, false), (&Namespace::root(), false)] {
        assert_eq!(house.identity.valid(&caller, namespace).is_ok(), good, "{namespace}");
        let found = house.identity.named(&auth.client_token, namespace).is_some();
        assert_eq!(found, *namespace == team || namespace.is_root(), "{namespace}");
        assert_eq!(house.identity.by_accessor(&auth.accessor, namespace).is_some(), found);
    }
    assert_eq!(house.identity.accessors(&team, 10), [auth.accessor]);
    house.identity.revoke_namespace(&team).await.unwrap();
    assert!(house.identity.token(&caller, &Namespace::root()).is_err());
    assert_eq!(house.stored(), 1);
}

#[tokio::test]
async fn a_role_says_what_its_tokens_may_be() {
    let house = House::new().await;
    let root = Namespace::root();
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let role = TokenRole {
        allowed_policies: list(&["ops"]),
        allowed_policies_glob: list(&["app-*-read"]),
        disallowed_policies_glob: list(&["*-secret-*"]),
        orphan: true,
        renewable: true,
        path_suffix: "v1".into(),
        period_seconds: 300,
        num_uses: 5,
        ..TokenRole::default()
    };
    house.identity.put_role(&root, "ci", &role).await.unwrap();
    assert_eq!(house.restarted().identity.role(&root, "ci").unwrap(), Some(role));
    let plain = house.made(&house.root, policies(&["a"])).await;
    let by_role = |names: &[&str]| Wish { role: Some("ci".into()), num_uses: 9, ..policies(names) };
    let auth = house.create(&plain, by_role(&[])).await.unwrap();
    let expected = (list(&["default", "ops"]), 300, 5, true);
    assert_eq!((auth.policies, auth.lease_duration, auth.num_uses, auth.orphan), expected);
    let token = house.identity.token(&house.caller(&auth.client_token), &Namespace::root()).unwrap();
    assert_eq!((token.path.as_str(), token.period), ("auth/token/create/ci/v1", 300));
    let globbed = house.create(&plain, by_role(&["app-web-read"])).await.unwrap();
    assert_eq!(globbed.policies, ["app-web-read", "default"]);
    let forbidden = by_role(&["app-secret-read"]);
    assert!(house.refused(&plain, forbidden).await.contains("is disallowed by this role"));
    assert!(house.refused(&plain, by_role(&["a"])).await.contains("must be subset of the role's allowed policies"));
    let unknown = Wish { role: Some("nobody".into()), ..Wish::default() };
    assert_eq!(house.refused(&plain, unknown).await, "unknown role nobody");
    house.identity.delete_role(&root, "ci").await.unwrap();
    assert!(house.identity.roles(&root).unwrap().is_empty());
}

#[tokio::test]
async fn a_login_makes_an_orphan_that_may_be_renewed_and_never_a_root_token() {
    let house = House::new().await;
    let login = |policies: &[&str]| Login {
        namespace: Namespace::from_path("team"),
        path: "auth/cert/login".into(),
        policies: policies.iter().map(|name| (*name).to_owned()).collect(),
        no_default_policy: false,
        display_name: "unix-0".into(),
        meta: [("uid".to_owned(), "0".to_owned())].into(),
        max_ttl: 0,
        uid: None,
        ttl: 60,
        explicit_max_ttl: 0,
        period: 0,
        num_uses: 0,
    };
    let (auth, warnings) = house.identity.login(login(&["a"])).await.unwrap();
    assert_eq!((auth.policies, auth.lease_duration), (vec!["a".to_owned(), "default".to_owned()], 60));
    assert!(auth.renewable && auth.orphan && warnings.is_empty() && auth.metadata["uid"] == "0");
    let token = house.restarted().identity.token(&house.caller(&auth.client_token), &Namespace::root()).unwrap();
    assert_eq!((token.path.as_str(), token.namespace.as_str()), ("auth/cert/login", "team/"));
    assert!(house.identity.login(login(&["root"])).await.is_err());
    assert!(house.identity.login(login(&["response-wrapping"])).await.is_err());
}

#[tokio::test]
async fn a_role_gives_nobody_the_policies_that_are_called_so_in_another_namespace() {
    let house = House::new().await;
    let role = TokenRole { disallowed_policies: vec!["admin".into()], ..TokenRole::default() };
    for namespace in ["a", "a/b"] {
        house.identity.put_role(&Namespace::from_path(namespace), "ci", &role).await.unwrap();
    }
    let of_a = house.create_in("a", &house.root, policies(&["deploy"])).await.unwrap().client_token;
    let by_role = || Wish { role: Some("ci".into()), ..Wish::default() };
    let own = house.create_in("a", &of_a, by_role()).await.unwrap();
    assert_eq!(own.policies, ["default", "deploy"]);
    assert_eq!(house.create_in("a/b", &of_a, by_role()).await.unwrap_err(), Fault::PermissionDenied);
}

#[tokio::test]
async fn the_texts_of_a_token_are_bounded_together_and_each() {
    let house = House::new().await;
    let notes = |count: usize, bytes: usize| Wish {
        meta: (0..count).map(|number| (number.to_string(), "x".repeat(bytes))).collect(),
        ..policies(&["a"])
    };
    house.create(&house.root, notes(15, 1000)).await.unwrap();
    for (wish, told) in [
        (notes(17, 1000), "at most 16384 bytes together"),
        (notes(1, 1025), "no text of a token is longer than 1024 bytes"),
        (notes(257, 1), "at most 256 policies and as many notes"),
        (Wish { display_name: "x".repeat(1020), ..Wish::default() }, "no text of a token is longer than 1024 bytes"),
        (
            policies(
                &vec!["x"; 300]
                    .iter()
                    .enumerate()
                    .map(|(n, x)| format!("{x}{n}"))
                    .collect::<Vec<_>>()
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>(),
            ),
            "at most 256 policies",
        ),
    ] {
        let refused = house.refused(&house.root, wish).await;
        assert!(refused.contains(told), "{refused}");
    }
}

#[tokio::test]
async fn what_ended_is_told_once() {
    let house = House::new().await;
    house.identity.take_ended();
    let parent = house.made(&house.root, policies(&["a"])).await;
    let child = house.made(&parent, policies(&["a"])).await;
    let ids = [&parent, &child].map(|token| house.identity.identify(token));
    assert!(ids.iter().all(|id| house.identity.is_there(*id)) && house.identity.take_ended().is_empty());
    house.revoke(&parent).await;
    assert_eq!((house.identity.take_ended(), house.identity.take_ended()), (ids.to_vec(), Vec::new()));
    assert!(ids.iter().all(|id| !house.identity.is_there(*id)));
}
