//! Tokens of one serial number: there are modules that give it to all of theirs. Each has a PIN and a login of its own.

use serde_json::{Value, json};

use crate::daemon::{LIMIT, Setup};
use crate::rig::{Rig, TOKENS, module, probing};
use crate::sim::{PIN, Sim};
use crate::token::{self, Token};

const ISOLATIONS: [&str; 2] = ["isolation = \"none\"", "isolation = \"process\""];
const PINS: [&str; 2] = ["1111", "2222"];

/// Two tokens with these labels and PINs, the first with a key `one`, the other with a key `two`. The library `hsm` carries
/// [`PIN`], and `bare` none.
async fn rig(labels: [&str; 2], pins: [&str; 2], setup: Setup) -> Rig {
    let token = Token::absent();
    let slot = |n: usize| {
        let keys = json!([{"label": TOKENS[n]}]);
        json!({"label": labels[n], "pin": pins[n], "serial": "0000000000000000", "tries": 10, "keys": keys})
    };
    let sim = Sim::new(token::module(), &module(&token), &json!({"null": {"slots": [slot(0), slot(1)]}}));
    Rig::bare_on(token, sim, setup).await
}

fn setup(stanza: &'static str) -> Setup {
    Setup { stanza, more: probing(""), ..Setup::default() }
}

/// Registers the key of a token with the library that carries no PIN, or changes it.
async fn bring(rig: &Rig, key: &str, token: Value, pin: &str) {
    let mut managed = json!({"library": "bare", "mechanism": "0x1041", "curve": "P256", "key_label": key, "pin": pin,
        "allow_generate_key": false});
    managed.as_object_mut().unwrap().extend(token.as_object().unwrap().clone());
    rig.daemon.managed_key(key, managed).await;
}

fn by_label(label: &str) -> Value {
    json!({"token_label": label})
}

#[tokio::test]
async fn each_is_logged_in_to_with_the_pin_of_its_own_key() {
    for stanza in ISOLATIONS {
        let rig = rig(TOKENS, PINS, setup(stanza)).await;
        for (token, pin) in TOKENS.into_iter().zip(PINS) {
            bring(&rig, token, by_label(token), pin).await;
            assert_eq!(rig.test_sign(token).await, (204, String::new()), "{stanza}");
        }
        assert_eq!(rig.sim.calls("C_Login"), 2, "{stanza}");
    }
}

#[tokio::test]
async fn each_is_logged_in_to_where_they_have_one_pin() {
    for stanza in ISOLATIONS {
        let rig = rig(TOKENS, [PIN; 2], setup(stanza)).await;
        for token in TOKENS {
            rig.key(token, by_label(token)).await;
            assert_eq!(rig.test_sign(token).await, (204, String::new()), "{stanza}");
        }
        let said = rig.daemon.log().matches("token is up and logged in").count();
        assert_eq!((rig.sim.calls("C_Login"), said), (2, 2), "{stanza}");
    }
}

#[tokio::test]
async fn a_pin_that_one_refused_is_tried_at_the_other_and_never_again_at_the_one() {
    for stanza in ISOLATIONS {
        let mut rig = rig(TOKENS, PINS, setup(stanza)).await;
        bring(&rig, "two", by_label("two"), PINS[0]).await;
        for round in 0..2 {
            let (status, told) = rig.test_sign("two").await;
            assert!(status >= 400 && told.contains("PIN"), "{stanza}: {status} {told}");
            assert_eq!(rig.sim.calls("C_Login"), 1 + round, "{stanza}");
            rig = rig.restart_bare(setup(stanza));
            // It is the right one of the first.
            bring(&rig, "one", by_label("one"), PINS[0]).await;
            assert_eq!(rig.test_sign("one").await, (204, String::new()), "{stanza}");
            assert_eq!(rig.sim.calls("C_Login"), 2 + round, "{stanza}");
        }
        let (_, told) = rig.test_sign("two").await;
        assert!(told.contains("refused this PIN before"), "{told}");
        bring(&rig, "two", by_label("two"), PINS[1]).await;
        let begun = std::time::Instant::now();
        while rig.test_sign("two").await.0 != 204 {
            assert!(begun.elapsed() < LIMIT, "{}", rig.daemon.log());
        }
        assert_eq!(rig.sim.calls("C_Login"), 4, "{stanza}");
    }
}

#[tokio::test]
async fn a_label_that_two_have_is_said_to_be_ambiguous_and_their_slots_to_be_named() {
    let rig = rig(["same", "same"], PINS, setup("")).await;
    bring(&rig, "one", by_label("same"), PINS[0]).await;
    let (_, told) = rig.test_sign("one").await;
    assert!(
        told.contains("ambiguous: slot 0 (serial 0000000000000000), slot 1") && told.contains("by its slot"),
        "{told}"
    );
    assert_eq!(rig.sim.calls("C_Login"), 0);
}

#[tokio::test]
async fn two_that_nothing_but_their_slots_tells_apart_are_two() {
    for stanza in ISOLATIONS {
        let rig = rig(["same", "same"], PINS, setup(stanza)).await;
        for ((key, slot), pin) in TOKENS.into_iter().zip(["0", "1"]).zip(PINS) {
            bring(&rig, key, json!({"slot": slot, "token_label": ""}), pin).await;
            assert_eq!(rig.test_sign(key).await, (204, String::new()), "{stanza}");
        }
        assert_eq!((rig.sim.calls("C_Login"), rig.tokens().await.len()), (2, 2), "{stanza}");
    }
}
