//! `policy write`, `read`, `list`, `delete`.

use std::process::ExitCode;

use clap::Subcommand;

use super::args::{Connection, Format};
use super::logical::{ask, file_text, text_or_stdin};
use super::{Failure, output};
use crate::cli::output::say;
use crate::model::{Data, Verb};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Make a policy, or replace it.
    Write {
        /// Its name.
        name: String,
        /// The file it stands in; `-` is standard input.
        file: String,
    },
    /// Print a policy.
    Read {
        /// Its name.
        name: String,
    },
    /// Print the names of the policies.
    List,
    /// Delete a policy: tokens that have it are granted nothing by it any more.
    Delete {
        /// Its name.
        name: String,
    },
}

const POLICIES: &str = "sys/policies/acl";

pub(super) fn run(connect: &Connection, format: Format, command: &PolicyCommand) -> Result<ExitCode, Failure> {
    let told = |text: String| {
        if format == Format::Table {
            say!("{text}");
        }
    };
    match command {
        PolicyCommand::Write { name, file } => {
            let text = if file == "-" { text_or_stdin(file)? } else { file_text(file)? };
            let data = Data::from_iter([("policy".to_owned(), text.into())]);
            ask(connect, Verb::Write, &path(name), &data)?.success()?;
            told(format!("Success! Uploaded policy: {name}"));
        }
        PolicyCommand::Delete { name } => {
            ask(connect, Verb::Delete, &path(name), &Data::new())?.success()?;
            told(format!("Success! Deleted policy: {name}"));
        }
        PolicyCommand::Read { name } => {
            let answer = ask(connect, Verb::Read, &path(name), &Data::new())?;
            if answer.status == 404 {
                eprintln!("No policy named: {name}");
                return Ok(ExitCode::from(2));
            }
            let body = answer.success()?.json();
            match format {
                Format::Table => say!("{}", output::plain(&body["data"]["policy"])),
                Format::Json => output::print(format, &body)?,
            }
        }
        PolicyCommand::List => {
            let body = ask(connect, Verb::List, POLICIES, &Data::new())?.success()?.json();
            match (format, body["data"]["keys"].as_array()) {
                (Format::Table, Some(names)) => names.iter().for_each(|name| say!("{}", output::plain(name))),
                _ => output::print(format, &body)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> String {
    format!("{POLICIES}/{name}")
}
