//! `namespace create`, `list`, `lookup`, `delete`: of those right below the one that is worked in.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::Failure;
use super::args::{Connection, Format, PathArgs};
use super::logical::{ask, data, list, show_or_field};
use crate::cli::output::say;
use crate::model::{Data, Verb};

#[derive(Debug, Subcommand)]
pub(super) enum NamespaceCommand {
    /// Make a namespace.
    Create {
        /// Its name.
        name: String,
        /// A note on it; may be given often.
        #[arg(long = "custom-metadata", value_name = "NAME=VALUE")]
        custom_metadata: Vec<String>,
        /// Print this field of the answer alone.
        #[arg(long)]
        field: Option<String>,
    },
    /// Print the names of the namespaces.
    List,
    /// Show what is known of a namespace.
    Lookup {
        /// Its name.
        name: String,
        /// Print this field of the answer alone.
        #[arg(long)]
        field: Option<String>,
    },
    /// Delete a namespace, with all that is in it.
    Delete {
        /// Its name.
        name: String,
    },
}

const NAMESPACES: &str = "sys/namespaces";

pub(super) fn run(connect: &Connection, format: Format, command: &NamespaceCommand) -> Result<ExitCode, Failure> {
    match command {
        NamespaceCommand::Create { name, custom_metadata, field } => {
            let mut asked = Data::new();
            if !custom_metadata.is_empty() {
                asked.insert("custom_metadata".to_owned(), Value::Object(data(custom_metadata)?));
            }
            let answer = ask(connect, Verb::Write, &path(name), &asked)?.success()?;
            show_or_field(format, answer, field.as_deref())
        }
        NamespaceCommand::List => list(connect, format, &PathArgs { path: NAMESPACES.to_owned() }),
        NamespaceCommand::Lookup { name, field } => {
            let answer = ask(connect, Verb::Read, &path(name), &Data::new())?;
            if answer.status == 404 {
                eprintln!("No namespace found at {name}");
                return Ok(ExitCode::from(2));
            }
            show_or_field(format, answer.success()?, field.as_deref())
        }
        NamespaceCommand::Delete { name } => {
            ask(connect, Verb::Delete, &path(name), &Data::new())?.success()?;
            if format == Format::Table {
                say!("Success! Namespace deleted at: {}/", name.trim_end_matches('/'));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn path(name: &str) -> String {
    format!("{NAMESPACES}/{name}")
}
