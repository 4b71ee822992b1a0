//! The commands for tokens, policies and namespaces, as Vault's are typed.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::token::Token;

/// What a command that must go well prints.
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_str(&done(output)).unwrap()
}

/// The code and the words of one that fails.
fn failed(output: &Output) -> (i32, String) {
    assert!(!output.status.success(), "{output:?}");
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Runs a command with another token, and with this on its standard input.
fn with_input(daemon: &Daemon, token: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(arguments)
        .env("VAULT_ADDR", format!("unix://{}", daemon.socket().display()))
        .env("VAULT_TOKEN", token)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test]
async fn tokens_are_made_looked_at_prolonged_and_ended() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let make = ["token", "create", "-policy=a", "-policy", "b", "-ttl=1h", "-use-limit=9", "-display-name=x"];
    let make = [&make[..], &["-metadata=team=ca", "-metadata=site=x=y", "-format=json"]].concat();
    let made = json_of(&daemon.cli(&make));
    let (secret, accessor) =
        (made["auth"]["client_token"].as_str().unwrap(), made["auth"]["accessor"].as_str().unwrap());
    assert_eq!(made["auth"]["token_policies"], json!(["a", "b", "default"]));
    let seen = json_of(&daemon.cli(&["token", "lookup", "-format=json", secret]));
    assert_eq!(seen["data"]["meta"], json!({"team": "ca", "site": "x=y"}));
    assert_eq!((&seen["data"]["display_name"], &seen["data"]["num_uses"]), (&json!("token-x"), &json!(9)));
    let field = |arguments: &[&str]| done(&daemon.cli(arguments)).trim().to_owned();
    assert_eq!(field(&["token", "lookup", "-accessor", "-field=display_name", accessor]), "token-x");
    assert_eq!(field(&["token", "lookup", "-field=display_name"]), "root");
    let own = with_input(&daemon, secret, &["token", "lookup", "-field=accessor"], "");
    assert_eq!(done(&own).trim(), accessor);
    // A token on standard input is in no list of processes.
    let shown =
        with_input(&daemon, &daemon.root_token, &["token", "lookup", "-field=accessor", "-"], &format!("{secret}\n"));
    assert_eq!(done(&shown).trim(), accessor);
    assert_eq!(field(&["token", "renew", "-increment=30m", "-field=token_duration", secret]), "1800");
    assert!(done(&daemon.cli(&["token", "revoke", "-accessor", accessor])).contains("Success!"));
    let (code, told) = failed(&daemon.cli(&["token", "lookup", secret]));
    assert!(code == 1 && told.contains("bad token"), "{code} {told}");
    // Those that it made go on without it, where that is said.
    let parent = field(&["token", "create", "-field=token", "-policy=root"]);
    let child = done(&with_input(&daemon, &parent, &["token", "create", "-field=token", "-renewable=false"], ""));
    done(&daemon.cli(&["token", "revoke", "-mode=orphan", &parent]));
    assert_eq!(field(&["token", "lookup", "-field=orphan", child.trim()]), "true");
    done(&with_input(&daemon, child.trim(), &["token", "revoke", "-self"], ""));
    failed(&daemon.cli(&["token", "lookup", child.trim()]));
    for wrong in [
        &["token", "revoke"][..],
        &["token", "revoke", "-self", "x"],
        &["token", "lookup", "-accessor"],
        &["token", "create", "-renewable=perhaps"],
        &["token", "create", "-metadata=x"],
        &["token", "make"],
    ] {
        assert_eq!(failed(&daemon.cli(wrong)).0, 64, "{wrong:?}");
    }
}

#[tokio::test]
async fn answers_are_kept_behind_tokens() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let unwrap = |wrapping: &str| {
        json_of(&daemon.cli(&["write", "-format=json", "sys/wrapping/unwrap", &format!("token={}", wrapping.trim())]))
    };
    let read = done(&daemon.cli(&["read", "-wrap-ttl=60s", "-field=wrapping_token", "sys/mounts"]));
    assert!(unwrap(&read)["data"].is_object());
    let written = ["write", "-wrap-ttl=1m", "-field=wrapping_token", "auth/token/create", "policies=a"];
    assert_eq!(unwrap(&done(&daemon.cli(&written)))["auth"]["token_policies"], json!(["a", "default"]));
    let made = done(&daemon.cli(&["token", "create", "-wrap-ttl=60", "-policy=b", "-field=wrapping_token"]));
    assert_eq!(unwrap(&made)["auth"]["token_policies"], json!(["b", "default"]));
    let (code, told) = failed(&daemon.cli(&["read", "-wrap-ttl=soon", "sys/mounts"]));
    assert!(code == 1 && told.contains("soon"), "{code} {told}");
}

#[tokio::test]
async fn policies_are_written_read_and_deleted() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let text = "path \"transit/sign/app\" {\n  capabilities = [\"update\"]\n}";
    let file = daemon.socket().with_file_name("app.hcl");
    std::fs::write(&file, text).unwrap();
    assert_eq!(
        done(&daemon.cli(&["policy", "write", "app", file.to_str().unwrap()])).trim(),
        "Success! Uploaded policy: app"
    );
    assert_eq!(done(&daemon.cli(&["policy", "read", "app"])).trim(), text);
    assert_eq!(done(&daemon.cli(&["policy", "list"])), "app\ndefault\nroot\n");
    let root = daemon.root_token.clone();
    done(&with_input(&daemon, &root, &["policy", "write", "app", "-"], "path \"x\" {\n  capabilities = [\"read\"]\n}"));
    assert!(done(&daemon.cli(&["policy", "read", "app"])).contains("\"x\""));
    let (code, told) = failed(&with_input(&daemon, &root, &["policy", "write", "app", "-"], "path {"));
    assert!(code == 1 && told.contains("failed to parse policy"), "{code} {told}");
    assert_eq!(done(&daemon.cli(&["policy", "delete", "app"])).trim(), "Success! Deleted policy: app");
    assert_eq!(failed(&daemon.cli(&["policy", "read", "app"])), (2, "No policy named: app\n".to_owned()));
    assert_eq!(failed(&daemon.cli(&["policy", "write", "app", "/nowhere.hcl"])).0, 64);
}

#[tokio::test]
async fn namespaces_are_made_listed_and_deleted() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let made = ["namespace", "create", "-custom-metadata=owner=ca", "-custom-metadata=site=x", "-format=json", "team"];
    let made = json_of(&daemon.cli(&made));
    assert_eq!(made["data"]["custom_metadata"], json!({"owner": "ca", "site": "x"}));
    assert_eq!(done(&daemon.cli(&["namespace", "create", "-namespace=team", "-field=path", "ci"])).trim(), "team/ci/");
    assert_eq!(done(&daemon.cli(&["namespace", "list"])), "Keys\n----\nteam/\n");
    let id = done(&daemon.cli(&["namespace", "lookup", "-field=id", "team"]));
    assert_eq!(made["data"]["id"], json!(id.trim()));
    let (code, told) = failed(&daemon.cli(&["namespace", "delete", "team"]));
    assert!(code == 1 && told.contains("containing child namespaces"), "{code} {told}");
    done(&daemon.cli(&["namespace", "delete", "-namespace=team", "ci"]));
    assert_eq!(done(&daemon.cli(&["namespace", "delete", "team"])).trim(), "Success! Namespace deleted at: team/");
    assert_eq!(failed(&daemon.cli(&["namespace", "lookup", "team"])), (2, "No namespace found at team\n".to_owned()));
    assert_eq!(failed(&daemon.cli(&["namespace", "list"])).0, 2);
}
