//! `audit enable`, `audit disable`, `audit list`: the devices that record what is asked.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{AuditCommand, AuditEnable, Connection, Format};
use super::{Failure, output, runtime};
use crate::cli::output::say;
use crate::client::Answer;
use crate::model::{Data, Verb};

pub(super) fn run(connect: &Connection, format: Format, command: &AuditCommand) -> Result<ExitCode, Failure> {
    match command {
        AuditCommand::Enable(enable) => turn_on(connect, enable),
        AuditCommand::Disable { path } => {
            ask(connect, Verb::Delete, &below(path), &Data::new())?;
            say!("Success! Disabled audit device (if it was enabled) at: {}/", path.trim_matches('/'));
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::List { detailed } => list(connect, format, *detailed),
    }
}

fn turn_on(connect: &Connection, enable: &AuditEnable) -> Result<ExitCode, Failure> {
    let path = enable.path.as_deref().unwrap_or(&enable.kind);
    let mut options = Data::new();
    for pair in &enable.options {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Failure::usage(format!(
                "{pair:?} is no name=value pair, such as file_path=/var/log/keyway/audit.log"
            )));
        };
        options.insert(name.to_owned(), value.into());
    }
    let data = Data::from_iter([
        ("type".to_owned(), Value::from(enable.kind.as_str())),
        ("description".to_owned(), enable.description.as_deref().unwrap_or_default().into()),
        ("options".to_owned(), options.into()),
        ("local".to_owned(), enable.local.into()),
    ]);
    ask(connect, Verb::Write, &below(path), &data)?;
    say!("Success! Enabled the {} audit device at: {}/", enable.kind, path.trim_matches('/'));
    Ok(ExitCode::SUCCESS)
}

fn list(connect: &Connection, format: Format, detailed: bool) -> Result<ExitCode, Failure> {
    let body = ask(connect, Verb::Read, "sys/audit", &Data::new())?.json();
    if format == Format::Json {
        output::print(format, &json!({"data": body["data"]}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let devices: Vec<(&String, &Value)> = body["data"].as_object().into_iter().flatten().collect();
    if devices.is_empty() {
        say!("No audit devices are enabled.");
        return Ok(ExitCode::from(2));
    }
    let width = devices.iter().map(|(path, _)| path.len()).max().unwrap_or(0).max(4);
    say!("{:width$}    Type      Description", "Path");
    say!("{:width$}    ----      -----------", "----");
    for (path, device) in devices {
        let text = |name: &str| device[name].as_str().unwrap_or_default();
        say!("{path:width$}    {:8}  {}", text("type"), text("description"));
        for (name, value) in device["options"].as_object().into_iter().flatten().filter(|_| detailed) {
            say!("{:width$}      {name}={}", "", output::plain(value));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn below(path: &str) -> String {
    format!("sys/audit/{}", path.trim_matches('/'))
}

fn ask(connect: &Connection, verb: Verb, path: &str, data: &Data) -> Result<Answer, Failure> {
    Ok(runtime()?.block_on(connect.http()?.request(verb, path, data))?.success()?)
}
