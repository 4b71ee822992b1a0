//! The table of Vault's endpoints says of each what a daemon then does.

use keyway::model::Verb;
use serde_json::json;

use crate::daemon::Daemon;
use crate::token::Token;

const TABLE: &str = include_str!("../endpoints.tsv");
const README: &str = include_str!("../../README.md");

struct Row {
    verb: Verb,
    path: &'static str,
    state: &'static str,
    note: &'static str,
}

fn table() -> Vec<Row> {
    let row = |line: &'static str| {
        let [method, path, state, note] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        let verb = match method {
            "GET" => Verb::Read,
            "LIST" => Verb::List,
            "POST" => Verb::Write,
            "PATCH" => Verb::Patch,
            "DELETE" => Verb::Delete,
            other => panic!("{other}"),
        };
        Row { verb, path, state, note }
    };
    TABLE.lines().filter(|line| !line.starts_with('#')).map(row).collect()
}

#[test]
fn the_readme_gives_the_sum_of_the_table() {
    let count = |state: &str| table().iter().filter(|row| row.state == state).count();
    let (done, partly, absent) = (count("done"), count("partly"), count("absent"));
    assert_eq!(done + partly + absent, table().len(), "a state is misspelled");
    let sum = format!("{done} are done, {partly} partly, and {absent} are absent");
    assert!(README.contains(&sum), "the README does not say that {sum}");
    assert!(
        table().iter().all(|row| row.state != "partly" || !row.note.is_empty()),
        "what is missing of one that is partly?"
    );
}

#[tokio::test]
async fn a_daemon_does_of_vaults_endpoints_what_the_table_says() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let mut wrong = Vec::new();
    // What is deleted is asked last.
    let mut rows = table();
    // What is deleted is asked last, and the token that asks ends after that.
    rows.sort_by_key(|row| (row.path == "auth/token/revoke-self", row.verb == Verb::Delete));
    for Row { verb, path, state, .. } in rows {
        let answer = daemon.ask(verb, &path.replace("NAME", "nobody"), json!({})).await;
        if path == "sys/seal" {
            daemon.write("sys/unseal", json!({})).await;
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let is_known =
            !["unsupported path", "unsupported operation", "no handler for route", "unsupported managed key type"]
                .iter()
                .any(|told| text.contains(told));
        if is_known == (state == "absent") || answer.status >= 500 {
            wrong.push(format!("{verb:?} {path} is {state}, and answers {} {text}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
