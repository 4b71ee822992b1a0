//! Stories of roles for processes: whom they are for, what they give, and what of that a renewal asks again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::clock::Clock;
use super::super::{Identity, UnixRole};
use crate::config::{Limits, Storage};
use crate::model::{Auth, Caller, Fault, Namespace, Origin, PeerCredentials, Unit, Wire};
use crate::store::{Ephemeral, Store};

struct House {
    identity: Identity,
    store: Store,
    now: Arc<AtomicU64>,
    limits: Limits,
}

impl House {
    async fn new() -> House {
        House::with(Limits { unix_roles_per_namespace: 3, unix_logins_per_uid: 2, ..Limits::default() }).await
    }

    async fn with(limits: Limits) -> House {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
        store.initialize().unwrap();
        let now = Arc::new(AtomicU64::new(1_000_000));
        let house = House::on(store, now, limits);
        house.identity.create_root(None).await.unwrap();
        house
    }

    fn on(store: Store, now: Arc<AtomicU64>, limits: Limits) -> House {
        let identity = Identity::at(store.clone(), &limits, Clock::told(Arc::clone(&now)));
        House { identity, store, now, limits }
    }

    /// The same after a restart.
    fn restarted(&self) -> House {
        let house = House::on(self.store.clone(), Arc::clone(&self.now), self.limits.clone());
        house.identity.load().unwrap();
        house
    }

    async fn write(&self, role: UnixRole) {
        self.identity.unix_roles().write(&Namespace::root(), "job", role).await.unwrap();
    }

    async fn login(&self, caller: &Caller) -> Result<Auth, Fault> {
        let fit = self.identity.fits_unix_role(caller, &Namespace::root(), "job")?.map_err(Fault::invalid)?;
        self.identity.login_by_unix_role(fit).await.map(|(auth, _)| auth)
    }

    /// The policies of the caller without a token, and where they count.
    fn due(&self, caller: &Caller, namespace: &str) -> Option<(String, String)> {
        let token = self.identity.token(caller, &Namespace::from_path(namespace)).ok()?;
        assert!(token.is_implicit() && !token.is_root() && !token.renewable);
        Some((token.namespace.as_str().to_owned(), token.policies.join(",")))
    }

    async fn renewed(&self, auth: &Auth) -> Result<u64, String> {
        let id = self.identity.identify(&auth.client_token);
        let renewed = self.identity.renew(id, 0).await;
        renewed.map(|(auth, _)| auth.lease_duration).map_err(|fault| fault.to_string())
    }
}

fn caller(uid: u32, gid: u32, groups: &[u32], unit: Unit) -> Caller {
    let origin = Arc::new(Origin { groups: groups.to_vec(), unit });
    Caller { origin, ..Caller::new(PeerCredentials { uid, gid, pid: None }, Wire::Http) }
}

fn backup() -> Unit {
    Unit::Named("backup.service".into())
}

fn role() -> UnixRole {
    UnixRole { bound_uids: vec![7], policies: vec!["p".into()], ttl_seconds: 100, ..UnixRole::default() }
}

#[tokio::test]
async fn a_process_must_fit_one_bound_of_each_kind() {
    let house = House::new().await;
    house
        .write(UnixRole {
            bound_uids: vec![7, 8],
            bound_gids: vec![20, 30],
            bound_units: vec!["backup.service".into(), "other.service".into()],
            ..UnixRole::default()
        })
        .await;
    for (caller, fits) in [
        (caller(7, 20, &[], backup()), true),
        (caller(8, 1, &[2, 30], backup()), true),
        (caller(9, 20, &[], backup()), false),
        (caller(7, 21, &[31], backup()), false),
        (caller(7, 20, &[], Unit::Named("backup2.service".into())), false),
        (caller(7, 20, &[], Unit::Other), false),
        (caller(7, 20, &[], Unit::Untold), false),
        (caller(0, 0, &[], backup()), false),
    ] {
        let judged = house.identity.fits_unix_role(&caller, &Namespace::root(), "job").unwrap();
        assert_eq!(judged.is_ok(), fits, "{caller:?}: {judged:?}");
    }
    let elsewhere = house.identity.fits_unix_role(&caller(7, 20, &[], backup()), &Namespace::from_path("a"), "job");
    assert!(elsewhere.unwrap().is_err(), "a role is one of its namespace");
}

#[tokio::test]
async fn who_edit_a_role_at_once_lose_nothing_of_each_others() {
    let house = House::new().await;
    house.write(role()).await;
    let (roles, root) = (house.identity.unix_roles(), Namespace::root());
    let add = async |uid: u32| {
        let add = move |known: Option<UnixRole>| {
            let mut known = known.unwrap();
            known.bound_uids.push(uid);
            Ok((known, ()))
        };
        roles.edit(&root, "job", add).await
    };
    for edited in futures_util::future::join_all((100..130).map(add)).await {
        edited.unwrap();
    }
    let uids = house.identity.unix_roles().get(&Namespace::root(), "job").unwrap().unwrap().bound_uids;
    assert!((100..130).all(|uid| uids.contains(&uid)), "{uids:?}");
}

#[tokio::test]
async fn a_role_without_bounds_or_with_root_is_none() {
    let house = House::new().await;
    let roles = house.identity.unix_roles();
    let refused = async |role: UnixRole| roles.write(&Namespace::root(), "job", role).await.unwrap_err().to_string();
    assert!(refused(UnixRole { bound_uids: vec![], ..role() }).await.contains("at least one of bound_uids"));
    for name in ["root", " ROOT ", "response-wrapping"] {
        let told = refused(UnixRole { policies: vec!["p".into(), name.into()], ..role() }).await;
        assert!(told.contains("cannot"), "{told}");
    }
    assert!(refused(UnixRole { bound_units: vec!["backup".into()], ..role() }).await.contains("backup.service"));
    assert!(refused(UnixRole { max_ttl_seconds: 99, ..role() }).await.contains("token_max_ttl"));
    assert!(refused(UnixRole { bound_uids: vec![1; 257], ..role() }).await.contains("256"));
    for name in ["", "a/b", "a b", "\n", &"a".repeat(129)] {
        assert!(roles.write(&Namespace::root(), name, role()).await.is_err(), "{name:?}");
        assert_eq!(roles.get(&Namespace::root(), name).unwrap(), None);
    }
    for name in ["a", "b", "c"] {
        roles.write(&Namespace::root(), name, role()).await.unwrap();
    }
    assert!(refused(role()).await.contains("unix_roles_per_namespace"));
    roles.write(&Namespace::root(), "a", role()).await.unwrap();
    roles.delete(&Namespace::root(), "b").await.unwrap();
    roles.write(&Namespace::root(), "job", role()).await.unwrap();
}

#[tokio::test]
async fn a_renewal_asks_again_what_the_login_did() {
    let house = House::new().await;
    let grouped = || UnixRole { bound_gids: vec![30], bound_units: vec!["backup.service".into()], ..role() };
    house.write(grouped()).await;
    let auth = house.login(&caller(7, 1, &[2, 30], backup())).await.unwrap();
    assert_eq!(auth.metadata["group"], "30");
    assert_eq!(
        (auth.metadata["unit"].as_str(), auth.policies.as_slice()),
        ("backup.service", ["default", "p"].map(str::to_owned).as_slice())
    );
    assert_eq!(house.renewed(&auth).await, Ok(100));
    for (changed, told) in [
        (UnixRole { bound_uids: vec![8], ..grouped() }, "its uid"),
        (UnixRole { bound_gids: vec![31], ..grouped() }, "none of its groups"),
        (UnixRole { bound_units: vec!["b.service".into()], ..grouped() }, "its unit"),
        (UnixRole { policies: vec!["q".into()], ..grouped() }, "policies have changed"),
    ] {
        house.write(changed).await;
        let refused = house.renewed(&auth).await.unwrap_err();
        assert!(refused.contains(told), "{refused}");
    }
    house.write(UnixRole { max_ttl_seconds: 150, ..grouped() }).await;
    house.now.fetch_add(90, Ordering::SeqCst);
    assert_eq!(house.renewed(&auth).await, Ok(60), "no longer than the role gives now");
    house.identity.unix_roles().delete(&Namespace::root(), "job").await.unwrap();
    assert!(house.renewed(&auth).await.unwrap_err().contains("is gone"));
}

#[tokio::test]
async fn a_uid_has_so_many_tokens_of_logins_and_others_have_theirs() {
    let house = House::new().await;
    house.write(UnixRole { bound_uids: vec![7, 8], ..role() }).await;
    let seven = caller(7, 1, &[], Unit::Other);
    let first = house.login(&seven).await.unwrap();
    house.login(&seven).await.unwrap();
    assert!(matches!(house.login(&seven).await, Err(Fault::QuotaExceeded { .. })));
    house.login(&caller(8, 1, &[], Unit::Other)).await.unwrap();
    // After a restart they are counted anew.
    let house = house.restarted();
    assert!(house.login(&seven).await.is_err());
    house.identity.revoke(house.identity.identify(&first.client_token)).await.unwrap();
    house.login(&seven).await.unwrap();
    assert!(house.login(&seven).await.is_err());
    house.now.fetch_add(101, Ordering::SeqCst);
    house.identity.end_due().await;
    house.login(&seven).await.unwrap();
}

#[tokio::test]
async fn who_shows_no_token_has_what_the_roles_give_that_fit_in_the_nearest_namespace() {
    let house = House::new().await;
    let roles = house.identity.unix_roles();
    let implicit = |uid: u32, policy: &str| UnixRole {
        bound_uids: vec![uid],
        policies: vec![policy.to_owned()],
        implicit: true,
        ..UnixRole::default()
    };
    let write = async |namespace: &str, name: &str, role: UnixRole| {
        roles.write(&Namespace::from_path(namespace), name, role).await.unwrap();
    };
    let seven = Caller { implicit: true, ..caller(7, 1, &[], Unit::Other) };
    let due = |policies: &str, namespace: &str| Some((namespace.to_owned(), policies.to_owned()));
    assert_eq!(house.due(&seven, ""), None);
    write("", "a", implicit(7, "p")).await;
    assert_eq!(house.due(&seven, ""), due("default,p", ""));
    write("", "b", UnixRole { no_default_policy: true, ..implicit(7, "q") }).await;
    write("", "c", UnixRole { implicit: false, ..implicit(7, "r") }).await;
    assert_eq!(house.due(&seven, ""), due("default,p,q", ""));
    write("team", "a", implicit(7, "of-team")).await;
    write("team/ci", "a", implicit(8, "of-ci")).await;
    for (namespace, policies, of) in [
        ("team", "default,of-team", "team/"),
        ("team/ci", "default,of-team", "team/"),
        ("team/ci/deep", "default,of-team", "team/"),
        ("teams", "default,p,q", ""),
    ] {
        assert_eq!(house.due(&seven, namespace), due(policies, of), "{namespace}");
    }
    let eight = Caller { implicit: true, ..caller(8, 1, &[], Unit::Other) };
    assert_eq!(house.due(&eight, "team/ci/deep"), due("default,of-ci", "team/ci/"));
    assert_eq!((house.due(&eight, "team"), house.due(&eight, "")), (None, None));
    let strict = Caller { implicit: false, ..seven.clone() };
    assert_eq!(house.due(&strict, "team"), None, "the listener does not let it in so");
    let wrong = Caller { token: Some(house.identity.identify(&"hvs.wrong".into())), ..seven.clone() };
    assert_eq!(house.due(&wrong, "team"), None, "a token that is shown is the one that counts");
    let wish = super::super::Wish::default();
    let refused = house.identity.create(&seven, &Namespace::root(), wish).await.unwrap_err().to_string();
    assert!(refused.contains("auth/unix/login"), "{refused}");
    // Changes count at once, and after a restart.
    write("", "b", implicit(8, "q")).await;
    assert_eq!(house.due(&seven, ""), due("default,p", ""));
    roles.delete(&Namespace::from_path("team"), "a").await.unwrap();
    assert_eq!(house.due(&seven, "team"), due("default,p", ""));
    let again = house.restarted();
    assert_eq!((again.due(&seven, "team"), again.due(&eight, "")), (due("default,p", ""), due("default,q", "")));
    again.identity.unix_roles().forget(&Namespace::root());
    assert_eq!(again.due(&seven, ""), None);
}

#[tokio::test]
async fn a_process_that_roles_give_too_many_policies_without_a_token_is_given_none() {
    let house = House::with(Limits { unix_roles_per_namespace: 10, ..Limits::default() }).await;
    let nine = Caller { implicit: true, ..caller(9, 1, &[], Unit::Other) };
    for part in 0..5 {
        let policies = (0..256).map(|number| format!("p{part}-{number}")).collect();
        let role = UnixRole { bound_uids: vec![9], policies, implicit: true, ..UnixRole::default() };
        house.identity.unix_roles().write(&Namespace::root(), &format!("r{part}"), role).await.unwrap();
        assert_eq!(house.due(&nine, "").is_some(), part < 3, "{part}");
    }
}

#[tokio::test]
async fn a_tenants_namespaces_have_so_many_roles_and_a_uid_so_many_logins_together() {
    let house = House::with(Limits { unix_roles_per_namespace: 2, unix_logins_per_uid: 1, ..Limits::default() }).await;
    let [a, b, other] = ["a", "a/b", "c"].map(Namespace::from_path);
    let write = async |house: &House, namespace: &Namespace, name: &str| {
        house.identity.unix_roles().write(namespace, name, role()).await.map_err(|fault| fault.to_string())
    };
    for namespace in [&a, &b, &other] {
        write(&house, namespace, "job").await.unwrap();
    }
    for house in [&house, &house.restarted()] {
        for namespace in [&a, &b] {
            let told = write(house, namespace, "more").await.unwrap_err();
            assert!(told.contains("namespace a/ and those below it have 2 roles of auth/unix together"), "{told}");
        }
    }
    let login = async |namespace: &Namespace| {
        let fit = house.identity.fits_unix_role(&caller(7, 1, &[], Unit::Other), namespace, "job").unwrap().unwrap();
        house.identity.login_by_unix_role(fit).await
    };
    login(&a).await.unwrap();
    assert!(matches!(login(&b).await, Err(Fault::QuotaExceeded { .. })));
    login(&other).await.unwrap();
    // What goes makes room, be it by itself or with its namespace.
    house.identity.unix_roles().delete(&a, "nobody").await.unwrap();
    assert!(write(&house, &a, "more").await.is_err());
    house.identity.unix_roles().delete(&a, "job").await.unwrap();
    write(&house, &a, "more").await.unwrap();
    house.identity.unix_roles().forget(&b);
    write(&house, &a, "again").await.unwrap();
}
