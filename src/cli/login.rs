//! `login`: a token for this process, by what the kernel says of it.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::args::{Connection, Format, LoginArgs};
use super::connection::token_file;
use super::{Failure, logical, output, runtime};
use crate::cli::output::say;
use crate::model::Verb;

pub(super) fn run(connect: &Connection, format: Format, args: &LoginArgs) -> Result<ExitCode, Failure> {
    let mut http = connect.http()?;
    // It is asked for by who this is, not by what it has already.
    http.token = None;
    let data = logical::data(&args.data)?;
    let answer = runtime()?
        .block_on(http.request(Verb::Write, &format!("auth/{}/login", args.method), &data))?
        .success()?
        .json();
    let token = answer["auth"]["client_token"].as_str();
    let token = token.ok_or_else(|| Failure::new("the daemon's answer has no token in it"))?;
    if args.token_only {
        say!("{token}");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.no_store {
        let file = token_file().ok_or_else(|| Failure::new("there is no home folder for the token: use -no-store"))?;
        store(&file, token).map_err(|error| Failure::new(format!("{}: {error}; use -no-store", file.display())))?;
    }
    if format == Format::Table {
        tell(args, &answer);
    }
    output::print(format, &answer)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(args: &LoginArgs, answer: &Value) {
    let who = &answer["auth"]["metadata"];
    let stored = if args.no_store { "not stored" } else { "stored in ~/.vault-token, where keyway and vault find it" };
    say!("Success! Logged in as uid {}. The token below is {stored}.", output::plain(&who["uid"]));
    if !args.no_store && std::env::var_os("VAULT_TOKEN").is_some() {
        eprintln!("warning: VAULT_TOKEN is set, and goes before ~/.vault-token: unset it to use this token");
    }
    say!("");
}

/// Replaces the file by one that nobody else may read.
fn store(file: &Path, token: &str) -> std::io::Result<()> {
    let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new("/")))?;
    new.write_all(token.as_bytes())?;
    new.persist(file)?;
    Ok(())
}
