//! Stories about the table of pools: which tokens are in use, by which names.

use std::sync::Arc;

use super::pool::Member;
use super::pools::{Home, Pools};
use super::route::MemberId;
use super::supervisor::Library;
use crate::backend::fake::FakeBackend;
use crate::config::{Grants, KmsPool, Limits, PoolMember, VerifyAfterSign};
use crate::model::TokenSelector::{self, Label, Serial, Slot};
use crate::telemetry::Telemetry;

fn table() -> Pools {
    table_of(2, None)
}

/// The same with so many workers a token, and sessions as the stanza has them.
fn table_of(workers: usize, sessions: Option<usize>) -> Pools {
    let library = Library {
        name: "HSM".into(),
        file: "token".into(),
        backend: Arc::new(FakeBackend::default()),
        pin: None,
        sessions,
        call_sign: None,
        keep_alive: None,
        verify: VerifyAfterSign::default(),
        workers,
        isolated: true,
        computes_here: false,
        final_pin_try: false,
        namespaces: Grants::default(),
        service: None,
    };
    let member = |token| PoolMember { library: "hsm".into(), token, pin: None, max_sessions: None };
    let members = [Label("one".into()), Serial("2".into())].map(member).to_vec();
    let pools = [KmsPool { name: "both".into(), members, namespaces: Grants::default() }];
    Pools::new(&[library], &pools, &[], &Limits::default(), &Telemetry::new())
}

fn label(name: &str) -> TokenSelector {
    Label(name.into())
}

fn kin((_, members): &Home) -> MemberId {
    members[0].kin
}

fn tokens(pools: &Pools) -> Vec<String> {
    pools.members().iter().filter(|member| member.worker == 1).map(|member| member.token.to_string()).collect()
}

#[test]
fn workers_share_the_sessions_of_their_token_and_none_goes_without() {
    let sessions = |workers, sessions| {
        let pools = table_of(workers, sessions);
        let one = TokenSelector::Label("one".into());
        let members = pools.members();
        let of_one = members.iter().filter(|member| member.token == one);
        of_one.map(|member| (member.worker, member.sessions)).collect::<Vec<_>>()
    };
    assert_eq!(sessions(2, None), [(1, None), (2, None)]);
    assert_eq!(sessions(2, Some(5)), [(1, Some(3)), (2, Some(2))]);
    assert_eq!(sessions(2, Some(2)), [(1, Some(1)), (2, Some(1))]);
    // `max_sessions` is the most there are, however many workers were asked for.
    assert_eq!(sessions(8, Some(2)), [(1, Some(1)), (2, Some(1))]);
    assert_eq!(sessions(8, Some(1)), [(1, Some(1))]);
}

fn retired(pools: &Pools) -> Vec<String> {
    let token = |home: Home| home.1.first().map(|member: &Arc<Member>| member.token.to_string()).unwrap();
    pools.retired().into_iter().map(|retired| token(retired.home)).collect()
}

#[test]
fn a_token_is_in_use_while_a_key_names_it_and_a_configured_one_always() {
    let pools = table();
    let (pool, members) = pools.name("a", "hsm", Some(&label("x"))).unwrap();
    assert_eq!((pool.name.as_str(), members.len()), ("hsm/x", 2));
    assert!(Arc::ptr_eq(&pools.name("b", "HSM", Some(&label("x"))).unwrap().0, &pool), "a library's case is no matter");
    pools.name("a", "hsm", Some(&label("x"))).unwrap();
    pools.release("a");
    assert!(!pools.has_retired() && tokens(&pools) == ["one", "serial 2", "x"]);
    // A key that names another token leaves the one before.
    pools.name("b", "hsm", Some(&label("one"))).unwrap();
    assert_eq!(
        (retired(&pools), tokens(&pools)),
        (vec!["x".to_owned()], vec!["one".to_owned(), "serial 2".to_owned()])
    );
    assert!(pools.find("hsm", Some(&label("x"))).is_err());
    pools.release("b");
    pools.release("b");
    assert!(retired(&pools).is_empty() && pools.find("hsm", Some(&label("one"))).is_ok());
    // What was let go of is made anew, and waits for the one before.
    let (_, again) = pools.name("a", "hsm", Some(&label("x"))).unwrap();
    assert!(again[0].id != members[0].id && again[0].before.len() == 1 && !again[0].before[0].absence.is_over());
    pools.leave("a", "hsm", Some(&label("y")));
    assert!(!pools.has_retired());
    pools.leave("a", "HSM", Some(&label("x")));
    assert_eq!(retired(&pools), ["x"]);
    drop((members, again));
    let (_, last) = pools.name("a", "hsm", Some(&label("x"))).unwrap();
    assert!(last[0].before.iter().all(|before| before.absence.is_over()));
}

#[test]
fn two_names_of_a_token_have_one_home_until_the_last_key_of_either_leaves() {
    let pools = table();
    let host = pools.name("a", "hsm", Some(&label("x"))).unwrap();
    let guest = pools.name("b", "hsm", Some(&Slot(5))).unwrap();
    assert!(pools.join(kin(&guest), kin(&host)));
    assert!(!pools.join(kin(&guest), kin(&host)), "it is gone");
    assert_eq!(retired(&pools), ["slot 5"]);
    let found = pools.find("hsm", Some(&Slot(5))).unwrap();
    assert_eq!(kin(&found), kin(&host));
    assert!(!pools.is_configured("hsm", &Slot(5)));
    pools.name("c", "hsm", Some(&Slot(5))).unwrap();
    pools.release("a");
    pools.release("b");
    assert!(!pools.has_retired() && pools.find("hsm", Some(&label("x"))).is_ok());
    pools.release("c");
    assert_eq!(retired(&pools), ["x"]);
    assert_eq!(tokens(&pools), ["one", "serial 2"]);
}

#[test]
fn a_configured_member_takes_keys_and_gives_none() {
    let pools = table();
    let one = pools.name("a", "hsm", Some(&label("one"))).unwrap();
    let two = pools.name("b", "hsm", Some(&Serial("2".into()))).unwrap();
    let slot = pools.name("c", "hsm", Some(&Slot(5))).unwrap();
    assert!(!pools.join(kin(&one), kin(&two)) && !pools.join(kin(&one), kin(&slot)));
    assert!(pools.join(kin(&slot), kin(&two)));
    // Of the pool's members, only those of the token may hold the key.
    let found = pools.find("hsm", Some(&Slot(5))).unwrap();
    assert_eq!((found.0.name.as_str(), kin(&found), found.1.len()), ("both", kin(&two), 2));
    assert_eq!(retired(&pools), ["slot 5"]);
    pools.release("c");
    assert!(pools.find("hsm", Some(&Slot(5))).is_err() && !pools.has_retired());
}
