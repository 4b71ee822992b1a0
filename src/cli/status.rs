//! `status`: whether the daemon serves, and the state of its tokens; in a namespace, of those that serve its keys.

use std::process::ExitCode;

use serde_json::Value;

use super::args::{Connection, Format};
use super::{Failure, output, runtime};
use crate::cli::output::say;
use crate::model::{Data, Verb};

pub(super) fn run(connect: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let mut http = connect.http()?;
    let runtime = runtime()?;
    let health = runtime.block_on(http.request(Verb::Read, "sys/health", &Data::new()))?;
    let mut body = health.json();
    let mut untold = "set VAULT_TOKEN to see them".to_owned();
    if body["sealed"] == true && body["initialized"] == true {
        untold = "none: the daemon is sealed".to_owned();
    }
    if http.token.is_some() && health.status == 200 {
        let answer = runtime.block_on(http.request(Verb::Read, "sys/keyway/status", &Data::new()))?;
        // Without a good token, or for a namespace that there is not, health alone is shown.
        let denied = answer.status == 403;
        match answer.success() {
            Ok(answer) => {
                let data = answer.json()["data"].take();
                body["members"] = data["members"].clone();
                body["configuration"] = data["configuration"].clone();
            }
            Err(_) if denied => {}
            Err(error) => untold = error.to_string(),
        }
    }
    let code = if health.status == 200 { ExitCode::SUCCESS } else { ExitCode::from(2) };
    if format == Format::Json {
        output::print(format, &body)?;
        return Ok(code);
    }
    for (name, field) in [("Version", "keyway_version"), ("Initialized", "initialized"), ("Sealed", "sealed")] {
        say!("{name:12} {}", output::plain(&body[field]));
    }
    configuration(&body["configuration"]);
    match body["members"].as_array() {
        None => say!("Tokens       {untold}"),
        Some(members) if members.is_empty() => say!("Tokens       none used yet"),
        Some(members) => members.iter().for_each(member),
    }
    Ok(code)
}

/// Only what wants something done.
fn configuration(configuration: &Value) {
    if configuration["refused"] == true {
        say!("Configuration refused when it was reloaded, as the log tells; the one before is in force");
    }
    for line in configuration["needs_restart"].as_array().into_iter().flatten() {
        say!("Restart      needed for {}", output::plain(line));
    }
}

fn member(member: &Value) {
    let token = format!("{}/{}", output::plain(&member["library"]), output::plain(&member["token"]));
    let mut name = token.clone();
    if let Some(worker) = member["worker"].as_u64().filter(|worker| *worker > 0) {
        name.push_str(&format!(" worker {worker}"));
    }
    // A token that no stanza puts in a pool is one by itself.
    let pool = output::plain(&member["pool"]);
    if !pool.eq_ignore_ascii_case(&token) {
        name.push_str(&format!(" in pool {pool}"));
    }
    say!(
        "Token        {name}: {}, {} sessions, {} keys",
        output::plain(&member["state"]),
        member["sessions"],
        member["keys"]
    );
    if let Some(reason) = member["reason"].as_str() {
        say!("             {reason}");
    }
}
