//! `token create`, `lookup`, `renew`, `revoke`.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Failure;
use super::args::{Connection, Format};
use super::logical::{ask, ask_wrapped, data, show_or_field, text_or_stdin};
use crate::cli::output::say;
use crate::model::{Data, Verb};

/// Where one thing is asked for of the own token, of one that is shown, and of one that is named.
struct Paths {
    own: &'static str,
    by_token: &'static str,
    by_accessor: &'static str,
}

const LOOKUP: Paths =
    Paths { own: "auth/token/lookup-self", by_token: "auth/token/lookup", by_accessor: "auth/token/lookup-accessor" };
const RENEW: Paths =
    Paths { own: "auth/token/renew-self", by_token: "auth/token/renew", by_accessor: "auth/token/renew-accessor" };
const REVOKE: Paths =
    Paths { own: "auth/token/revoke-self", by_token: "auth/token/revoke", by_accessor: "auth/token/revoke-accessor" };

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, which ends with the one that makes it unless it is an orphan.
    Create(Create),
    /// Show what a token is; without one, the own.
    Lookup(Lookup),
    /// Let a token live longer; without one, the own.
    Renew(Renew),
    /// End a token, with all that it made.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// A policy of it; may be given often. The own ones by default.
    #[arg(long = "policy", value_name = "NAME")]
    policies: Vec<String>,
    /// The role it is made by.
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// How long it lives, such as 24h.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// How long it may live all in all.
    #[arg(long, value_name = "DURATION")]
    explicit_max_ttl: Option<String>,
    /// How long it is renewed for each time, without end.
    #[arg(long, value_name = "DURATION")]
    period: Option<String>,
    /// Whether it may be renewed.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, default_value_t = true)]
    renewable: bool,
    /// How often it may be used; 0 is as often as one likes.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    use_limit: u32,
    /// Leave the policy `default` out.
    #[arg(long)]
    no_default_policy: bool,
    /// Let it live on when the own token ends.
    #[arg(long)]
    orphan: bool,
    /// A name of it, for people.
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// A note on it; may be given often.
    #[arg(long = "metadata", value_name = "NAME=VALUE")]
    metadata: Vec<String>,
    /// The token itself; a random one by default.
    #[arg(long, value_name = "TOKEN")]
    id: Option<String>,
    /// Print this field of the answer alone.
    #[arg(long)]
    field: Option<String>,
    /// Keep the token behind another that is good once, for this long, such as 60s.
    #[arg(long, value_name = "DURATION")]
    wrap_ttl: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Lookup {
    /// The token, or `-` for one on standard input.
    token: Option<String>,
    /// It is an accessor that is given.
    #[arg(long, requires = "token")]
    accessor: bool,
    /// Print this field of the answer alone.
    #[arg(long)]
    field: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Renew {
    /// The token, or `-` for one on standard input.
    token: Option<String>,
    /// It is an accessor that is given.
    #[arg(long, requires = "token")]
    accessor: bool,
    /// For how long, such as 24h.
    #[arg(long, short, value_name = "DURATION")]
    increment: Option<String>,
    /// Print this field of the answer alone.
    #[arg(long)]
    field: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The token, or `-` for one on standard input.
    #[arg(required_unless_present = "own", conflicts_with = "own")]
    token: Option<String>,
    /// It is an accessor that is given.
    #[arg(long, requires = "token", conflicts_with = "mode")]
    accessor: bool,
    /// The own token.
    #[arg(long = "self", id = "own")]
    own: bool,
    /// `orphan` lets those go on that it made.
    #[arg(long, value_enum, requires = "token")]
    mode: Option<Mode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Orphan,
}

pub(super) fn run(connect: &Connection, format: Format, command: &TokenCommand) -> Result<ExitCode, Failure> {
    match command {
        TokenCommand::Create(create) => make(connect, format, create),
        TokenCommand::Lookup(lookup) => look_up(connect, format, lookup),
        TokenCommand::Renew(renew) => prolong(connect, format, renew),
        TokenCommand::Revoke(revoke) => end(connect, format, revoke),
    }
}

fn make(connect: &Connection, format: Format, create: &Create) -> Result<ExitCode, Failure> {
    let mut asked = Data::new();
    let mut put = |name: &str, value: Value| drop(asked.insert(name.to_owned(), value));
    put("renewable", create.renewable.into());
    put("no_parent", create.orphan.into());
    put("no_default_policy", create.no_default_policy.into());
    put("num_uses", create.use_limit.into());
    if !create.policies.is_empty() {
        put("policies", json!(create.policies));
    }
    if !create.metadata.is_empty() {
        put("meta", Value::Object(data(&create.metadata)?));
    }
    for (name, text) in [
        ("ttl", &create.ttl),
        ("explicit_max_ttl", &create.explicit_max_ttl),
        ("period", &create.period),
        ("display_name", &create.display_name),
        ("id", &create.id),
    ] {
        if let Some(text) = text {
            put(name, text.as_str().into());
        }
    }
    let path = match &create.role {
        Some(role) => format!("auth/token/create/{role}"),
        None => "auth/token/create".to_owned(),
    };
    let answer = ask_wrapped(connect, Verb::Write, &path, &asked, create.wrap_ttl.as_deref())?.success()?;
    show_or_field(format, answer, create.field.as_deref())
}

fn look_up(connect: &Connection, format: Format, lookup: &Lookup) -> Result<ExitCode, Failure> {
    let (path, asked) = LOOKUP.of(lookup.token.as_deref(), lookup.accessor)?;
    let verb = if lookup.token.is_some() { Verb::Write } else { Verb::Read };
    show_or_field(format, ask(connect, verb, path, &asked)?.success()?, lookup.field.as_deref())
}

fn prolong(connect: &Connection, format: Format, renew: &Renew) -> Result<ExitCode, Failure> {
    let (path, mut asked) = RENEW.of(renew.token.as_deref(), renew.accessor)?;
    if let Some(increment) = &renew.increment {
        asked.insert("increment".to_owned(), increment.as_str().into());
    }
    show_or_field(format, ask(connect, Verb::Write, path, &asked)?.success()?, renew.field.as_deref())
}

fn end(connect: &Connection, format: Format, revoke: &Revoke) -> Result<ExitCode, Failure> {
    let (path, asked) = REVOKE.of(revoke.token.as_deref(), revoke.accessor)?;
    let path = if revoke.mode == Some(Mode::Orphan) { "auth/token/revoke-orphan" } else { path };
    ask(connect, Verb::Write, path, &asked)?.success()?;
    if format == Format::Table {
        say!("Success! Revoked token (if it existed)");
    }
    Ok(ExitCode::SUCCESS)
}

impl Paths {
    /// Where it is asked for, and of which token: of the own, where none is given.
    fn of(&self, token: Option<&str>, is_accessor: bool) -> Result<(&'static str, Data), Failure> {
        let Some(token) = token else { return Ok((self.own, Data::new())) };
        let (path, field) = if is_accessor { (self.by_accessor, "accessor") } else { (self.by_token, "token") };
        let token = text_or_stdin(token)?;
        if token.is_empty() {
            return Err(Failure::usage("there is no token: standard input is empty"));
        }
        Ok((path, Data::from_iter([(field.to_owned(), token.into())])))
    }
}
