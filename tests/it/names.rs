//! One token under two names: one member of it serves the keys of both.

use serde_json::{Value, json};

use crate::daemon::{Setup, wait_for};
use crate::load::Load;
use crate::rig::{Rig, TOKENS, module, pool, probing};
use crate::sim::{PIN, Sim};
use crate::token::{self, Token};

const TWO: &str = "max_sessions = 2";
const ISOLATED: &str = "isolation = \"process\"\n max_sessions = 2";

/// The number of a token's slot.
fn slot(rig: &Rig, label: &str) -> String {
    let reports = rig.sim.reports();
    let slots = reports[0]["slots"].as_array().unwrap().iter().find(|slot| slot["label"] == label).unwrap().clone();
    slots["slot"].to_string()
}

/// What a managed key says of the key `doc` that it names by its token's slot.
fn by_slot(rig: &Rig) -> Value {
    json!({"slot": slot(rig, "one"), "token_label": "", "key_label": "doc"})
}

/// Sessions that living processes have with the token `one`.
fn sessions(rig: &Rig) -> u64 {
    let of = |slot: &Value| if slot["label"] == "one" { slot["sessions"].as_u64().unwrap() } else { 0 };
    rig.sim
        .reports()
        .iter()
        .flat_map(|report| report["slots"].as_array().unwrap().iter().map(of).collect::<Vec<_>>())
        .sum()
}

/// Waits until one member serves the token, with two sessions, one that finds keys and, if it logged in, one for that.
async fn until_alone(rig: &Rig, tokens: &[&str]) {
    rig.until_member(tokens[0], |member| member["state"] == "serving" && member["keys"] == 2).await;
    assert_eq!(rig.tokens().await, tokens);
    wait_for("the sessions of one member", || (sessions(rig) <= 4).then_some(()));
}

#[tokio::test]
async fn a_token_named_by_its_slot_is_served_by_the_member_of_its_label() {
    for stanza in [TWO, ISOLATED] {
        let setup = || Setup { stanza, more: probing(""), ..Setup::default() };
        let mut rig = Rig::null(&["one"], &["doc"], setup()).await;
        rig.key("doc", json!({})).await;
        rig.key("slotted", by_slot(&rig)).await;
        assert_eq!(rig.test_sign("slotted").await, (204, String::new()));
        until_alone(&rig, &["one"]).await;
        assert_eq!(rig.sim.calls("C_Login"), 1);
        let log = rig.daemon.log();
        assert!(log.contains("one token has two names") && log.contains("same=one"), "{log}");
        let text = rig.scrape();
        assert!(!text.contains("slot "), "{text}");
        // At a start both are opened at once.
        for _ in 0..3 {
            rig = rig.restart(setup());
            for key in ["doc", "slotted"] {
                Load { key, ..Load::default() }.run(&rig, 20).await.assert_none_lost();
            }
            until_alone(&rig, &["one"]).await;
        }
    }
}

#[tokio::test]
async fn a_label_takes_over_what_was_named_by_a_slot_and_no_request_is_lost() {
    for stanza in [TWO, ISOLATED] {
        let rig = Rig::null(&["one"], &["doc"], Setup { stanza, more: probing(""), ..Setup::default() }).await;
        rig.key("doc", json!({})).await;
        let by_slot = by_slot(&rig);
        rig.sim.steer("slot * service 3ms");
        // Now the slot's name comes first.
        rig.delete_key("doc").await;
        rig.key("slotted", by_slot.clone()).await;
        assert_eq!(rig.tokens().await.len(), 1);
        let load = Load { key: "slotted", ..Load::default() }.start(&rig).await;
        load.until_done(30);
        rig.key("doc", json!({})).await;
        until_alone(&rig, &["one"]).await;
        load.until_done(30);
        load.stop().assert_none_lost();
        Load::default().run(&rig, 30).await.assert_none_lost();
        assert!(rig.jobs("one") >= 60.0);
        // Each key holds on to the token.
        rig.delete_key("doc").await;
        Load { key: "slotted", ..Load::default() }.run(&rig, 10).await.assert_none_lost();
        rig.delete_key("slotted").await;
        assert!(rig.tokens().await.is_empty());
        wait_for("the last session's end", || (sessions(&rig) == 0).then_some(()));
    }
}

#[tokio::test]
async fn a_member_of_a_pool_has_the_keys_that_name_its_token_otherwise() {
    for stanza in [TWO, ISOLATED] {
        let setup = || Setup { stanza, more: pool(""), ..Setup::default() };
        let mut rig = Rig::null(&TOKENS, &["doc"], setup()).await;
        rig.key("doc", json!({"library": "both", "token_label": ""})).await;
        rig.key("slotted", by_slot(&rig)).await;
        for _ in 0..3 {
            Load { key: "slotted", ..Load::default() }.run(&rig, 30).await.assert_none_lost();
            until_alone(&rig, &TOKENS).await;
            rig = rig.restart(setup());
        }
    }
}

#[tokio::test]
async fn a_tenant_that_names_a_token_otherwise_takes_it_from_nobody() {
    let setup =
        || Setup { stanza: TWO, more: format!("{}namespace \"team\" {{}}\n", probing("")).leak(), ..Setup::default() };
    let mut rig = Rig::null(&["one"], &["doc", "mine"], setup()).await;
    rig.key("doc", json!({})).await;
    rig.key_in("team", "mine", json!({"slot": slot(&rig, "one"), "token_label": ""})).await;
    for _ in 0..3 {
        Load::default().run(&rig, 20).await.assert_none_lost();
        Load { key: "mine", namespace: "team", ..Load::default() }.run(&rig, 20).await.assert_none_lost();
        until_alone(&rig, &["one"]).await;
        rig = rig.restart(setup());
    }
}

/// The token `one`, with this serial number.
fn numbered(token: &Token, serial: &str) -> Sim {
    let keys = json!([{"label": "doc"}]);
    let slots = json!([
        {"label": "one", "pin": PIN, "serial": serial, "keys": keys},
        {"label": "two", "pin": PIN, "keys": keys},
    ]);
    Sim::new(token::module(), &module(token), &json!({"null": {"slots": slots}}))
}

#[tokio::test]
async fn a_token_that_is_two_members_serves_as_one_and_says_so_loudly() {
    let token = Token::absent();
    let sim = numbered(&token, "77001");
    let member = "  member {\n    library = \"hsm\"\n    serial = \"77001\"\n  }\n}\n";
    let more = pool("").replacen("}\n}\n", &format!("}}\n{member}"), 1);
    let rig = Rig::on(token, sim, Setup { stanza: TWO, more: more.leak(), ..Setup::default() }).await;
    rig.key("doc", json!({"library": "both", "token_label": ""})).await;
    Load::default().run(&rig, 50).await.assert_none_lost();
    wait_for("a word about it", || rig.daemon.log().contains("ONE TOKEN IS TWO MEMBERS").then_some(()));
    let names = ["one", "serial 77001"];
    let members = [rig.member(names[0]).await, rig.member(names[1]).await];
    let down = members.iter().position(|member| member["state"] != "serving").unwrap();
    let reason = members[down]["reason"].as_str().unwrap_or_default();
    assert!(names.iter().all(|name| reason.contains(name)) && reason.contains("configuration"), "{members:?}");
    assert_eq!(rig.sim.calls("C_Login"), 2);
    assert_eq!(rig.jobs(names[down]), 0.0);
    wait_for("the sessions of one member", || (sessions(&rig) == 3).then_some(()));
}
