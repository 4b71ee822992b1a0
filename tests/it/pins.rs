//! Wrong PINs: tried once in all, whoever brings them. Three tries lock a token.

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{LIMIT, Setup, wait_for};
use crate::load::Load;
use crate::rig::{Rig, TOKENS, pool, probing};
use crate::sim::PIN;

const WRONG: &str = "0000";

fn key(label: &str, pin: Value) -> Value {
    json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one", "key_label": label, "pin": pin, "allow_generate_key": false})
}

#[tokio::test]
async fn a_tenants_pin_that_is_not_the_tokens_refuses_its_key_and_is_never_tried() {
    let rig = Rig::null(&["one"], &["doc", "mine"], Setup { more: probing(""), ..Setup::default() }).await;
    rig.key("doc", json!({})).await;
    assert_eq!(rig.sim.calls("C_Login"), 1);
    rig.daemon.managed_key("mine", key("mine", json!(WRONG))).await;
    for _ in 0..3 {
        let (status, told) = rig.test_sign("mine").await;
        assert!(status >= 400 && told.contains("carries another PIN"), "{status} {told}");
        assert!(!told.contains(WRONG) && !rig.daemon.log().contains(WRONG));
        assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    }
    assert_eq!(rig.sim.calls("C_Login"), 1);
    rig.daemon.managed_key("mine", key("mine", json!(PIN))).await;
    assert_eq!(rig.test_sign("mine").await, (204, String::new()));
    assert_eq!(rig.sim.calls("C_Login"), 1);
}

#[tokio::test]
async fn a_wrong_pin_of_two_workers_is_tried_once_and_a_restart_does_not_try_it_again() {
    let stanza = "isolation = \"process\"\n workers = 2";
    let wrong = || Setup { pin: WRONG, more: probing(""), stanza, ..Setup::default() };
    let mut rig = Rig::null(&["one"], &["doc"], wrong()).await;
    rig.daemon.managed_key("doc", json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one"})).await;
    for _ in 0..2 {
        let (status, told) = rig.test_sign("doc").await;
        assert!(status >= 400 && told.contains("PIN"), "{status} {told}");
        let members = rig.daemon.read("sys/keyway/status").await["members"].clone();
        let refused = members.as_array().unwrap().iter().filter(|member| member["state"] == "refused").count();
        assert_eq!((refused, rig.sim.calls("C_Login")), (2, 1), "{members}");
        rig = rig.restart(wrong());
    }
    let mut rig = rig.restart(Setup { pin: PIN, ..wrong() });
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    // Both workers log in, each to its own process.
    let members = |rig: &Rig| rig.sum("keyway_member_state", &[("state", "serving")]);
    wait_for("both workers", || (members(&rig) == 2.0).then_some(()));
    assert_eq!(rig.sim.calls("C_Login"), 3);
    // And the wrong one is still known.
    rig = rig.restart(wrong());
    assert!(rig.test_sign("doc").await.0 >= 400);
    assert_eq!(rig.sim.calls("C_Login"), 3);
}

#[tokio::test]
async fn a_pools_member_with_a_wrong_pin_is_refused_and_the_other_serves() {
    let pin = "token_label = \"one\"\n    pin = \"0000\"";
    let more: &'static str = pool("").replacen("token_label = \"one\"", pin, 1).leak();
    let setup = || Setup { more, ..Setup::default() };
    let rig = Rig::null(&TOKENS, &["doc"], setup()).await;
    rig.key("doc", json!({"library": "both", "token_label": ""})).await;
    rig.until_member("one", |member| member["state"] == "refused").await;
    rig.until_serving("two").await;
    assert_eq!(rig.sum("keyway_logins_total", &[("token", "one"), ("result", "refused")]), 1.0);
    Load::default().run(&rig, 50).await.assert_none_lost();
    let rig = rig.restart(setup());
    rig.until_member("one", |member| member["state"] == "refused").await;
    Load::default().run(&rig, 50).await.assert_none_lost();
    assert_eq!(rig.sum("keyway_logins_total", &[("token", "one")]), 0.0);
    let refused = |token| rig.sum("keyway_member_refused", &[("token", token), ("reason", "pin")]);
    assert_eq!((refused("one"), refused("two")), (1.0, 0.0));
}

#[tokio::test]
async fn a_pin_is_not_tried_where_the_token_allows_one_last_try() {
    let rig = Rig::null(&["one"], &["doc"], Setup { pin: WRONG, more: probing(""), ..Setup::default() }).await;
    let managed = json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one"});
    rig.daemon.managed_key("doc", managed).await;
    assert!(rig.test_sign("doc").await.0 >= 400);
    let rig = rig.restart(Setup { pin: "1111", more: probing(""), ..Setup::default() });
    assert!(rig.test_sign("doc").await.0 >= 400);
    assert_eq!(rig.sim.calls("C_Login"), 2);
    // Three are allowed: the third is left to a human, though this PIN is right.
    let rig = rig.restart(Setup { more: probing(""), ..Setup::default() });
    let (status, told) = rig.test_sign("doc").await;
    assert!(status >= 400 && told.contains("one last try"), "{status} {told}");
    assert_eq!(rig.sim.calls("C_Login"), 2);
}

#[tokio::test]
async fn a_library_that_dies_at_each_login_is_not_left_to_lock_its_token() {
    let dying = || Setup { more: probing(""), stanza: "isolation = \"process\"", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], dying()).await;
    rig.sim.steer("abort C_Login");
    rig.daemon.managed_key("doc", json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one"})).await;
    assert!(rig.test_sign("doc").await.0 >= 400);
    rig.until_member("one", |member| member["state"] == "refused").await;
    // Two tries that the token may have counted are all; the reason says what to do.
    assert_eq!(rig.sim.calls("C_Login"), 2);
    let (_, told) = rig.test_sign("doc").await;
    assert!(told.contains("came to no answer twice") && told.contains("restart"), "{told}");
    assert_eq!(rig.sim.calls("C_Login"), 2);
    // Nor does a restart try it a third time.
    let rig = rig.restart(dying());
    assert!(rig.test_sign("doc").await.1.contains("came to no answer twice"));
    assert_eq!(rig.sim.calls("C_Login"), 2);
    // An operator may have it tried once more at a start.
    rig.sim.steer("clear");
    let rig = rig.restart(Setup { arguments: &["-force-final-pin-try"], ..dying() });
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    // It is known for right from then on.
    let rig = rig.restart(dying());
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
}

#[tokio::test]
async fn a_daemon_that_is_killed_while_its_token_thinks_about_a_pin_does_not_try_it_for_ever() {
    let setup = || Setup { pin: WRONG, more: probing("call_open = \"1s\""), ..Setup::default() };
    let mut rig = Rig::null(&["one"], &["doc"], setup()).await;
    rig.daemon.managed_key("doc", json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one"})).await;
    rig.sim.steer("hang C_Login");
    for tries in 1..=2 {
        let (status, told) = rig.test_sign("doc").await;
        assert!(status >= 500 && told.contains("no answer within"), "{status} {told}");
        assert_eq!(rig.sim.calls("C_Login"), tries);
        rig = rig.restart(setup());
    }
    let (status, told) = rig.test_sign("doc").await;
    assert!(status >= 400 && told.contains("came to no answer twice"), "{status} {told}");
    assert_eq!(rig.sim.calls("C_Login"), 2);
}

#[tokio::test]
async fn a_pin_that_stands_elsewhere_is_fetched_at_each_login_and_stored_nowhere() {
    let setup = || Setup { more: probing(""), ..Setup::default() };
    let mut rig = Rig::bare(&["one"], &["doc"], setup()).await;
    let file = rig.daemon.folder.join("pin");
    let reference = format!("file:{}", file.display());
    bring(&rig, "doc", &reference).await;
    assert_eq!(rig.daemon.read("sys/managed-keys/pkcs11/doc").await["pin"], json!(reference));
    // It is not there yet.
    let (status, told) = rig.test_sign("doc").await;
    assert!(status >= 400 && told.contains("cannot be fetched") && !told.contains(file.to_str().unwrap()), "{told}");
    assert!(rig.daemon.log().contains(&format!("{} cannot be read", file.display())));
    assert_eq!(rig.sim.calls("C_Login"), 0);
    std::fs::write(&file, format!("{PIN}\n")).unwrap();
    let begun = std::time::Instant::now();
    while rig.test_sign("doc").await.0 != 204 {
        assert!(begun.elapsed() < LIMIT, "{}", rig.daemon.log());
    }
    // Nothing of a PIN was stored: without the file, a start has none; with a wrong one, it is tried once; and the right one
    // is found as soon as it is there.
    std::fs::remove_file(&file).unwrap();
    rig = rig.restart_bare(setup());
    assert!(rig.test_sign("doc").await.0 >= 400);
    assert_eq!(rig.sim.calls("C_Login"), 1);
    std::fs::write(&file, WRONG).unwrap();
    rig.until_member("one", |member| member["state"] == "refused").await;
    assert_eq!(rig.sim.calls("C_Login"), 2);
    std::fs::write(&file, PIN).unwrap();
    rig.until_serving("one").await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    assert_eq!(rig.sim.calls("C_Login"), 3);
}

#[tokio::test]
async fn a_tenant_has_neither_a_file_nor_the_environment_read() {
    let setup = Setup { environment: &[("KEYWAY_TEST_PIN", PIN)], more: probing(""), ..Setup::default() };
    let rig = Rig::bare(&["one"], &["doc"], setup).await;
    rig.write("", "sys/namespaces/team", json!({})).await;
    let file = rig.daemon.folder.join("pin");
    std::fs::write(&file, PIN).unwrap();
    let mut asked = key("doc", json!(null));
    asked["library"] = json!("bare");
    for pin in ["env:KEYWAY_TEST_PIN", &format!("file:{}", file.display()), "credential:pin", "file:/no/such/file"] {
        asked["pin"] = json!(pin);
        let answer = rig.ask("team", Verb::Write, "sys/managed-keys/pkcs11/doc", asked.clone()).await;
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 400 && told.contains("only managed keys of the root namespace"), "{told}");
        assert!(!told.contains("no/such"), "{told}");
    }
    let answer = rig.ask("team", Verb::Read, "sys/managed-keys/pkcs11/doc", json!({})).await;
    assert_eq!((answer.status, rig.sim.calls("C_Login")), (404, 0));
    bring(&rig, "doc", "env:KEYWAY_TEST_PIN").await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
}

/// Registers a managed key of the library without a PIN, or changes it.
async fn bring(rig: &Rig, name: &str, pin: &str) {
    let mut key = key("doc", json!(pin));
    key["library"] = json!("bare");
    rig.daemon.managed_key(name, key).await;
}

#[tokio::test]
async fn a_start_tries_the_pin_first_that_was_taken_and_none_that_was_refused() {
    for stanza in ["", "isolation = \"process\""] {
        let setup = || Setup { stanza, more: probing(""), ..Setup::default() };
        let mut rig = Rig::bare(&["one"], &["doc"], setup()).await;
        bring(&rig, "wrong", WRONG).await;
        assert!(rig.test_sign("wrong").await.0 >= 400);
        for name in ["a", "b", "c"] {
            bring(&rig, name, PIN).await;
            assert_eq!(rig.test_sign(name).await, (204, String::new()));
        }
        assert_eq!(rig.sim.calls("C_Login"), 2);
        let (_, told) = rig.test_sign("wrong").await;
        assert!(told.contains("carries another PIN"), "{told}");
        // Keys that were used may bring wrong PINs too; three wrong ones in a row would lock the token.
        bring(&rig, "a", WRONG).await;
        bring(&rig, "b", "1111").await;
        for round in 3..5 {
            rig = rig.restart_bare(setup());
            assert_eq!(rig.test_sign("c").await, (204, String::new()));
            for name in ["a", "b"] {
                let (status, told) = rig.test_sign(name).await;
                assert!(status >= 400 && told.contains("carries another PIN"), "{status} {told}");
            }
            assert_eq!(rig.sim.calls("C_Login"), round);
        }
    }
}

#[tokio::test]
async fn a_pin_that_a_key_brings_to_a_refused_token_is_tried_at_once_and_once() {
    let setup = || Setup { more: probing(""), ..Setup::default() };
    let mut rig = Rig::bare(&["one"], &["doc"], setup()).await;
    bring(&rig, "doc", PIN).await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    bring(&rig, "doc", WRONG).await;
    rig = rig.restart_bare(setup());
    rig.until_member("one", |member| member["state"] == "refused").await;
    assert_eq!(rig.sim.calls("C_Login"), 2);
    // Known as refused: here, and after a restart.
    bring(&rig, "doc", WRONG).await;
    rig = rig.restart_bare(setup());
    bring(&rig, "doc", WRONG).await;
    rig.until_member("one", |member| member["state"] == "refused").await;
    assert_eq!(rig.sim.calls("C_Login"), 2);
    // Nobody asks for the key, and it is served all the same.
    bring(&rig, "doc", PIN).await;
    rig.until_serving("one").await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    assert_eq!(rig.sim.calls("C_Login"), 3);
}

#[tokio::test]
async fn a_pin_that_comes_while_another_is_tried_is_tried_next() {
    let rig = Rig::bare(&["one"], &["doc"], Setup { more: probing(""), ..Setup::default() }).await;
    rig.sim.steer("delay C_Login 300ms");
    bring(&rig, "wrong", WRONG).await;
    bring(&rig, "right", PIN).await;
    let second = async {
        // Not by blocking: the first is asked on this thread.
        let begun = std::time::Instant::now();
        while rig.sim.calls("C_Login") == 0 {
            assert!(begun.elapsed() < LIMIT);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        rig.test_sign("right").await
    };
    let ((status, told), right) = tokio::join!(rig.test_sign("wrong"), second);
    assert!(status >= 400 && told.contains("PIN"), "{status} {told}");
    assert_eq!(right, (204, String::new()));
    assert_eq!(rig.sim.calls("C_Login"), 2);
}

#[tokio::test]
async fn a_login_by_another_pin_vouches_for_none() {
    let rig = Rig::bare(&["one"], &["doc"], Setup { more: probing(""), ..Setup::default() }).await;
    rig.daemon.managed_key("doc", json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one"})).await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    // The same module by another name: it answers any PIN by saying that the process is logged in.
    bring(&rig, "mine", WRONG).await;
    let (status, told) = rig.test_sign("mine").await;
    assert!(status >= 400 && told.contains("right or wrong") && !told.contains(WRONG), "{status} {told}");
    bring(&rig, "mine", PIN).await;
    let begun = std::time::Instant::now();
    while rig.test_sign("mine").await.0 != 204 {
        assert!(begun.elapsed() < LIMIT, "{}", rig.daemon.log());
    }
}

#[tokio::test]
async fn a_login_that_hangs_is_waited_for_so_long_and_no_other_is_made_meanwhile() {
    let setup = Setup { more: probing("call_open = \"1s\""), ..Setup::default() };
    let rig = Rig::bare(&["one"], &["doc"], setup).await;
    rig.sim.steer("hang C_Login");
    rig.daemon.managed_key("doc", json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one"})).await;
    let (status, told) = rig.test_sign("doc").await;
    assert!(status >= 500 && told.contains("no answer within"), "{status} {told}");
    // Another member of the same token, in the same process.
    bring(&rig, "mine", PIN).await;
    for _ in 0..2 {
        let (status, told) = rig.test_sign("mine").await;
        assert!(status >= 500 && told.contains("another login to it has not returned"), "{status} {told}");
        assert!(told.contains("restart") && !told.contains(PIN), "{told}");
    }
    assert_eq!(rig.sim.calls("C_Login"), 1);
    rig.sim.steer("release");
    for name in ["doc", "mine"] {
        let begun = std::time::Instant::now();
        while rig.test_sign(name).await.0 != 204 {
            assert!(begun.elapsed() < LIMIT, "{}", rig.daemon.log());
        }
    }
}
