//! `keyway bench`, run as its users run it, but shortly: its fields, not its figures.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::daemon::wait_for;
use crate::isolation::{children, is_worker};
use crate::token::{self, LABEL, PIN, Token};

/// Runs the bench on this token.
fn bench(token: &Token, more: &[&str]) -> Output {
    command(token, more).output().unwrap()
}

fn command(token: &Token, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command
        .args(["bench", "-format=json", "-token", LABEL, "-pin=env:BENCH_PIN", "-profile", token::profile()])
        .arg("-library")
        .arg(token::module())
        .args(more)
        .envs(token.environment())
        .env("BENCH_PIN", PIN)
        .env("TMPDIR", token.folder.path());
    command
}

/// What it printed, if it went well.
fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Folders of the bench that are still there.
fn left_behind(token: &Token) -> usize {
    let names = std::fs::read_dir(token.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("keyway-bench-")).count()
}

#[test]
fn streams_are_told_apart_and_every_answer_is_checked() {
    let token = Token::new();
    let refused = bench(&token, &["-stream", "key=p256,rate=50"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("\"keyway-bench-p256\"") && said.contains("-generate-keys"), "{said}");
    assert_eq!(token.calls("C_GenerateKeyPair"), 0);

    let open = "name=trickle,key=p256,rate=50,clients=2,arrivals=poisson";
    let arguments = ["-generate-keys", "-verify", "-alone", "-duration=1", "-stream", open];
    let closed = ["-stream", "key=rsa2048,load=1x2,class=bulk"];
    let results = json(&bench(&token, &[&arguments[..], &closed].concat()));
    assert_eq!((&results["what"], &results["duration_s"]), (&Value::from("streams"), &Value::from(1)));
    assert_eq!(results["verified"], true);
    assert!(results["daemon_us"].as_f64().unwrap() > 0.0);
    let [trickle, flood] = results["streams"].as_array().unwrap().as_slice() else { panic!("{results}") };
    assert_eq!((&trickle["name"], &trickle["key"]), (&Value::from("trickle"), &Value::from("p256")));
    assert_eq!((&trickle["rate"], &trickle["arrivals"]), (&Value::from(50.0), &Value::from("poisson")));
    assert_eq!((&flood["load"], &flood["class"]), (&Value::from("1x2"), &Value::from("bulk")));
    for run in [&trickle["alone"], &trickle["together"], &flood["alone"], &flood["together"]] {
        check_run(run);
    }
    // What is due does not depend on what is answered, nor on who else asks.
    assert_eq!(trickle["alone"]["asked"], trickle["together"]["asked"]);
    assert_eq!(trickle["together"]["generator"]["lag_us"]["count"], trickle["together"]["asked"]);
    assert_eq!(trickle["alone"]["share"], 1.0);
    let share = |stream: &Value| stream["together"]["share"].as_f64().unwrap();
    assert!((share(trickle) + share(flood) - 1.0).abs() < 1e-9);
    assert_eq!(token.calls("C_GenerateKeyPair"), 2);
    assert_eq!(left_behind(&token), 0);
}

/// Whether every request was answered well, and the percentiles are in order.
fn check_run(run: &Value) {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{run}"));
    assert!(number(&run["done"]) > 0, "{run}");
    assert_eq!(run["done"], run["asked"], "{run}");
    for none in ["wrong", "lost", "double"] {
        assert_eq!(run[none], 0, "{run}");
    }
    assert_eq!(run["failed"], serde_json::json!({}));
    let latency = &run["latency_us"];
    assert_eq!(latency["count"], run["done"]);
    let order = ["p50", "p90", "p99", "p99_9", "max"].map(|name| number(&latency[name]));
    assert!(order.is_sorted() && order[0] > 0, "{run}");
}

#[test]
fn what_goes_over_http_is_measured_beside_what_it_is_compared_with() {
    let token = Token::new();
    let rounds = ["-generate-keys", "-keys=p256", "-loads=2x1", "-rounds=3", "-round-ms=100"];
    let measured = |what: &str| json(&bench(&token, &[&rounds[..], &[what]].concat()))["measured"].clone();
    for (what, reference) in
        [("-what=issue", "bare"), ("-what=ocsp", "health"), ("-what=ocsp-nonce", "bare"), ("-what=batches", "bare")]
    {
        let measured = measured(what);
        assert_eq!((&measured[0]["key"], &measured[0]["reference"]), (&Value::from("p256"), &Value::from(reference)));
        assert!(measured[0]["ratio"]["low"].as_f64().unwrap() > 0.0, "{what}: {measured}");
    }
    let refused = bench(&token, &["-what=issue", "-generate-keys", "-keys=p256", "-loads=1x2"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("one request at a time"));
}

#[test]
fn very_many_certificates_are_stored_and_revoked_and_told_of() {
    let token = Token::new();
    let many = ["-what=stored", "-generate-keys", "-keys=p256", "-certificates=3000", "-revoked=1000", "-rotate"];
    let results = json(&bench(&token, &[&many[..], &["-rounds=3", "-round-ms=200"]].concat()));
    let [empty, full] = results["seen"].as_array().unwrap().as_slice() else { panic!("{results}") };
    assert_eq!((&empty["certificates"], &full["certificates"]), (&Value::from(0), &Value::from(3000)));
    assert!(full["per_second"][0].as_f64().unwrap() > 0.0, "{results}");
    // Each entry takes 39 bytes: all of them are on the CRL.
    let (entries, bytes) = (&results["crl"]["entries"], results["crl"]["bytes"].as_u64().unwrap());
    assert_eq!(entries, &Value::from(1000));
    assert!((39_000..40_000).contains(&bytes), "{results}");
    assert!(results["rotation"]["records"].as_u64().unwrap() >= 3000, "{results}");
}

#[test]
fn very_many_managed_keys_share_a_few_keys_and_each_signs() {
    let token = Token::new();
    let many = ["-what=registrations", "-generate-keys", "-keys=p256", "-namespaces=20", "-registrations=100"];
    let results = json(&bench(&token, &[&many[..], &["-real-keys=3"]].concat()));
    let [few, full] = results["seen"].as_array().unwrap().as_slice() else { panic!("{results}") };
    assert_eq!((&few["registrations"], &full["registrations"]), (&Value::from(0), &Value::from(100)));
    assert_eq!(full["keys_used"], 100, "every one of them has signed: {results}");
    assert_eq!(token.calls("C_GenerateKeyPair"), 3);
    assert_eq!(left_behind(&token), 0);
}

#[test]
fn ratios_are_of_the_operators_own_key_which_stays_as_it_is() {
    let token = Token::new();
    token.generate_rsa("My CA", "0a");
    let arguments = ["-key-label", "My CA", "-loads=2x2", "-rounds=3", "-round-ms=100"];
    let results = json(&bench(&token, &arguments));
    assert_eq!((&results["what"], &results["rounds"]), (&Value::from("sign"), &Value::from(3)));
    let [measured] = results["measured"].as_array().unwrap().as_slice() else { panic!("{results}") };
    assert_eq!((&measured["key"], &measured["reference"]), (&Value::from("My CA"), &Value::from("bare")));
    for figure in ["ratio", "daemon_us", "daemon_added_us", "added_p50_us"] {
        let at = |name: &str| measured[figure][name].as_f64().unwrap_or_else(|| panic!("{figure}: {measured}"));
        assert!(at("low") <= at("median") && at("median") <= at("high"), "{measured}");
    }
    for side in ["keyway", "compared_with"] {
        assert_eq!(measured[side]["per_second"].as_array().unwrap().len(), 3);
        assert!(measured[side]["latency_us"]["p50"].as_u64().unwrap() > 0);
    }
    assert_eq!(token.calls("C_GenerateKeyPair"), 0);

    // It is still there for the next one.
    let echoed = json(&bench(&token, &[&arguments[..], &["-what=echo"]].concat()));
    assert_eq!(echoed["measured"][0]["reference"], "echo");
    let calls = token.calls("C_Sign");
    let alone = json(&bench(&token, &[&arguments[..], &["-what=overhead"]].concat()));
    let measured = &alone["measured"][0];
    assert_eq!((&measured["key"], &measured["reference"]), (&Value::from("My CA"), &Value::Null));
    assert!(token.calls("C_Sign") > calls, "it is of the token that it was given");
    assert!(echoed["measured"][0]["compared_with"]["server_us"][0].as_f64().unwrap() >= 0.0);
    assert_eq!(left_behind(&token), 0);
}

#[test]
fn the_loop_has_the_library_in_its_own_process_wherever_the_daemon_has_it() {
    let token = Token::new();
    for (isolation, expected) in [(&[][..], 0), (&["-isolation=process", "-workers=2"], 2)] {
        let short = ["-generate-keys", "-keys=p256", "-loads=1x1", "-rounds=3", "-round-ms=300"];
        let mut command = command(&token, &[&short[..], isolation].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut of_the_bench, mut of_the_daemon) = (0, 0);
        wait_for("its end", || {
            let (workers, others): (Vec<_>, Vec<_>) = children(child.id()).into_iter().partition(|pid| is_worker(*pid));
            let theirs = others.into_iter().flat_map(children).filter(|pid| is_worker(*pid)).count();
            (of_the_bench, of_the_daemon) = (of_the_bench.max(workers.len()), of_the_daemon.max(theirs));
            child.try_wait().unwrap()
        });
        let measured = json(&child.wait_with_output().unwrap());
        assert!(measured["measured"][0]["compared_with"]["per_second"][0].as_f64().unwrap() > 0.0);
        assert_eq!((of_the_bench, of_the_daemon), (0, expected), "{isolation:?}");
    }
}

#[test]
fn certificates_are_asked_for_in_batches_where_that_is_measured() {
    let token = Token::new();
    let refused = bench(&token, &["-batch=8"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("-what certificates"));

    let short = ["-rounds=3", "-round-ms=20", "-loads=1x1", "-keys=p256", "-generate-keys"];
    let results = json(&bench(&token, &[&["-what=certificates", "-batch=8"][..], &short].concat()));
    assert_eq!((&results["what"], &results["batch"]), (&Value::from("certificates"), &Value::from(8)));
    assert!(results["measured"][0]["keyway"]["per_second"][0].as_f64().unwrap() > 0.0, "{results}");
    assert_eq!(left_behind(&token), 0);
}

#[test]
fn a_pin_on_the_command_line_is_refused() {
    for arguments in [&["-token=a", "-pin=1234"][..], &["-member=token=a,pin=1234"], &["-member=token=a", "-pin=1234"]]
    {
        let command = ["bench", "-library=/none.so"];
        let refused = Command::new(env!("CARGO_BIN_EXE_keyway")).args(command).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(64), "{said}");
        assert!(said.contains("env:NAME") && !said.contains("1234"), "{said}");
    }
}
