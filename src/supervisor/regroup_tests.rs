//! Stories about the table of pools under another configuration.

use std::sync::Arc;

use super::pool::Member;
use super::pools::{Home, Pools};
use super::regroup::Regrouped;
use super::supervisor::{Change, Library, Remade};
use crate::backend::fake::FakeBackend;
use crate::config::{Grants, KmsPool, Limits, PoolMember, VerifyAfterSign};
use crate::model::Secret;
use crate::model::TokenSelector::{self, Label, Slot};
use crate::telemetry::Telemetry;

fn library(name: &str) -> Library {
    Library {
        name: name.into(),
        file: "token".into(),
        backend: Arc::new(FakeBackend::default()),
        pin: None,
        sessions: None,
        call_sign: None,
        keep_alive: None,
        verify: VerifyAfterSign::default(),
        workers: 1,
        isolated: false,
        computes_here: false,
        final_pin_try: false,
        namespaces: Grants::default(),
        service: None,
    }
}

fn member(library: &str, token: &str) -> PoolMember {
    PoolMember { library: library.into(), token: label(token), pin: None, max_sessions: None }
}

fn pool(name: &str, members: &[(&str, &str)]) -> KmsPool {
    let members = members.iter().map(|(library, token)| member(library, token)).collect();
    KmsPool { name: name.into(), members, namespaces: Grants::default() }
}

fn both() -> KmsPool {
    pool("both", &[("a", "one"), ("b", "two")])
}

/// Libraries `a` and `b`, with a token of each in the pool `both`; and the figures of all of it.
fn table() -> (Pools, Telemetry) {
    let telemetry = Telemetry::new();
    (Pools::new(&[library("a"), library("b")], &[both()], &[], &Limits::default(), &telemetry), telemetry)
}

/// These are configured anew, with this pool.
fn change(made: Vec<Remade>, pools: Vec<KmsPool>) -> Change {
    Change { made, libraries: vec!["A".into(), "b".into()], pools, limits: Limits::default() }
}

fn anew(name: &str, elsewhere: bool) -> Vec<Remade> {
    vec![Remade { library: library(name), elsewhere }]
}

fn label(name: &str) -> TokenSelector {
    Label(name.into())
}

fn tokens(members: &[Arc<Member>]) -> Vec<String> {
    members.iter().map(|member| format!("{}/{}", member.library, member.token)).collect()
}

fn names(regrouped: &Regrouped) -> (Vec<String>, Vec<String>, usize) {
    let left = regrouped.left.iter().map(|pool| pool.name.clone()).collect();
    (tokens(&regrouped.gone), left, regrouped.fresh.len())
}

fn same_lane(one: &Home, other: &Home) -> bool {
    Arc::ptr_eq(&one.0.lane, &other.0.lane)
}

#[test]
fn only_the_members_of_what_changed_go_and_every_lane_stays() {
    let (pools, telemetry) = table();
    let own = pools.name("k", "A", Some(&label("x"))).unwrap();
    let other = pools.name("l", "b", Some(&label("y"))).unwrap();
    let shared = pools.find("both", None).unwrap();
    let regrouped = pools.regroup(&change(anew("a", false), vec![both()]));
    assert_eq!(names(&regrouped), (vec!["a/one".into(), "a/x".into()], vec![], 2));
    let now = pools.find("both", None).unwrap();
    assert!(same_lane(&shared, &now) && tokens(&now.1) == ["a/one", "b/two"]);
    assert!(!Arc::ptr_eq(&shared.1[0], &now.1[0]) && Arc::ptr_eq(&shared.1[1], &now.1[1]));
    let own_now = pools.find("a", Some(&label("x"))).unwrap();
    assert!(same_lane(&own, &own_now) && own_now.1[0].id != own.1[0].id);
    assert!(Arc::ptr_eq(&pools.find("b", Some(&label("y"))).unwrap().1[0], &other.1[0]));
    // They wait for those before them, whatever those do: it is the same code.
    let before = &own_now.1[0].before;
    assert!(before.len() == 1 && before[0].must_go && !before[0].absence.is_over());
    drop((regrouped, own));
    assert!(before[0].absence.is_over());
    // One series each, of the new.
    let series = telemetry.render();
    assert_eq!(series.matches("keyway_member_keys{").count(), 4, "{series}");
    pools.release("k");
    assert_eq!(pools.retired().len(), 1, "its keys are still counted");
}

#[test]
fn code_that_runs_elsewhere_is_another_process_and_waits_only_so_long() {
    let (pools, _) = table();
    let old = pools.name("k", "a", Some(&label("x"))).unwrap();
    pools.regroup(&change(anew("a", true), vec![both()]));
    let new = pools.find("a", Some(&label("x"))).unwrap();
    assert!(!new.1[0].before[0].must_go);
    assert_ne!(new.1[0].process, old.1[0].process);
    pools.regroup(&change(anew("a", false), vec![both()]));
    let again = pools.find("a", Some(&label("x"))).unwrap();
    assert!(again.1[0].before.iter().any(|before| before.must_go));
    assert_eq!(again.1[0].process, new.1[0].process);
}

#[test]
fn workers_wait_for_all_those_before_them() {
    let (pools, _) = table();
    let with = |workers| {
        let library = Library { workers, isolated: true, ..library("a") };
        vec![Remade { library, elsewhere: true }]
    };
    pools.regroup(&change(with(3), vec![both()]));
    let three = pools.name("k", "a", Some(&label("x"))).unwrap();
    assert_eq!(three.1.iter().map(|member| member.worker).collect::<Vec<_>>(), [1, 2, 3]);
    pools.regroup(&change(with(1), vec![both()]));
    let one = pools.find("a", Some(&label("x"))).unwrap();
    assert_eq!((one.1.len(), one.1[0].before.len()), (1, 3));
    assert!(one.1[0].before.iter().all(|before| !before.must_go), "their processes can be ended");
}

#[test]
fn a_library_that_is_removed_leaves_its_tokens_names_and_comes_back_to_them() {
    let (pools, _) = table();
    let was = pools.name("k", "a", Some(&label("x"))).unwrap();
    let removed = Change { libraries: vec!["b".into()], ..change(vec![], vec![pool("both", &[("b", "two")])]) };
    assert_eq!(names(&pools.regroup(&removed)), (vec!["a/one".into(), "a/x".into()], vec![], 0));
    let told = pools.find("a", Some(&label("x"))).map(drop).unwrap_err().to_string();
    assert!(told.contains("there is no kms_library \"a\"") && told.contains("SIGHUP"), "{told}");
    assert_eq!(tokens(&pools.members()), ["b/two"]);
    // A key can name it meanwhile.
    assert!(pools.name("l", "a", Some(&label("y"))).is_err());
    let back = pools.regroup(&change(anew("a", false), vec![both()]));
    assert_eq!(names(&back), (vec![], vec![], 3));
    let now = pools.find("a", Some(&label("x"))).unwrap();
    assert!(same_lane(&was, &now) && now.1.len() == 1);
    assert_eq!(pools.find("a", Some(&label("y"))).unwrap().1.len(), 1);
    for key in ["k", "l"] {
        pools.release(key);
        assert_eq!(pools.retired().len(), 1);
    }
}

#[test]
fn a_token_moves_into_a_pool_and_out_of_it_with_its_keys() {
    let (pools, _) = table();
    let alone = pools.name("k", "a", Some(&label("x"))).unwrap();
    let wide = pool("both", &[("a", "one"), ("b", "two"), ("a", "x")]);
    let regrouped = pools.regroup(&change(vec![], vec![wide]));
    assert_eq!(names(&regrouped), (vec!["a/x".into()], vec!["a/x".into()], 1));
    let inside = pools.find("a", Some(&label("x"))).unwrap();
    let shared = pools.find("both", None).unwrap();
    assert!(same_lane(&inside, &shared) && !same_lane(&inside, &alone) && shared.1.len() == 3);
    assert!(pools.is_configured("a", &label("x")));
    let regrouped = pools.regroup(&change(vec![], vec![both()]));
    assert_eq!(names(&regrouped), (vec!["a/x".into()], vec![], 1));
    let out = pools.find("a", Some(&label("x"))).unwrap();
    assert!(!same_lane(&out, &shared) && out.0.name == "a/x" && !pools.is_configured("a", &label("x")));
    pools.release("k");
    assert_eq!(pools.retired().len(), 1);
}

#[test]
fn pools_come_and_go_and_a_members_own_pin_has_it_made_anew() {
    let (pools, _) = table();
    let regrouped = pools.regroup(&change(vec![], vec![pool("new", &[("a", "one")])]));
    assert_eq!(names(&regrouped), (vec!["a/one".into(), "b/two".into()], vec!["both".into()], 1));
    assert!(pools.find("both", None).is_err() && pools.find("new", None).is_ok());
    assert!(pools.find("b", Some(&label("two"))).is_err(), "no key names it");
    let mut pinned = pool("new", &[("a", "one")]);
    pinned.members[0].pin = Some(Secret::from("1"));
    let regrouped = pools.regroup(&change(vec![], vec![pinned.clone()]));
    assert_eq!(names(&regrouped), (vec!["a/one".into()], vec![], 1));
    assert_eq!(names(&pools.regroup(&change(vec![], vec![pinned]))), (vec![], vec![], 0));
}

#[test]
fn a_name_that_led_to_anothers_members_is_a_token_by_itself_again() {
    let (pools, _) = table();
    let host = pools.name("h", "a", Some(&label("x"))).unwrap();
    let guest = pools.name("g", "a", Some(&Slot(5))).unwrap();
    assert!(pools.join(guest.1[0].kin, host.1[0].kin));
    pools.retired();
    drop(guest);
    let regrouped = pools.regroup(&change(anew("a", true), vec![both()]));
    assert_eq!(names(&regrouped), (vec!["a/one".into(), "a/x".into()], vec![], 3));
    let (host_now, guest_now) = (pools.find("a", Some(&label("x"))).unwrap(), pools.find("a", Some(&Slot(5))).unwrap());
    assert!(same_lane(&host, &host_now) && !same_lane(&host_now, &guest_now));
    assert_eq!(guest_now.0.name, "a/slot 5");
    // It too waits for the members that had its token, and for its own of long ago no more.
    assert_eq!(guest_now.1[0].before.len(), 1);
    drop((regrouped, host));
    assert!(guest_now.1[0].before[0].absence.is_over());
}
