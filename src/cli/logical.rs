//! `read`, `write`, `list`, `delete`: any operation of the HTTP API.

use std::io::Read;
use std::process::ExitCode;

use serde_json::Value;

use super::args::{Connection, Format, PathArgs, ReadArgs, WriteArgs};
use super::{Failure, output, runtime};
use crate::cli::output::say;
use crate::client::Answer;
use crate::model::{Data, Verb};

pub(super) fn read(connect: &Connection, format: Format, args: &ReadArgs) -> Result<ExitCode, Failure> {
    let answer = ask_wrapped(connect, Verb::Read, &args.path, &Data::new(), args.wrap_ttl.as_deref())?;
    if answer.status == 404 {
        eprintln!("No value found at {}", args.path);
        return Ok(ExitCode::from(2));
    }
    let answer = answer.success()?;
    show_or_field(format, answer, args.field.as_deref())
}

pub(super) fn list(connect: &Connection, format: Format, args: &PathArgs) -> Result<ExitCode, Failure> {
    let answer = ask(connect, Verb::List, &args.path, &Data::new())?;
    if answer.status == 404 {
        eprintln!("No value found at {}", args.path);
        return Ok(ExitCode::from(2));
    }
    let body = answer.success()?.json();
    match (format, body["data"]["keys"].as_array()) {
        (Format::Table, Some(keys)) => {
            say!("Keys\n----");
            keys.iter().for_each(|key| say!("{}", output::plain(key)));
        }
        _ => output::print(format, &body)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn delete(connect: &Connection, format: Format, args: &PathArgs) -> Result<ExitCode, Failure> {
    ask(connect, Verb::Delete, &args.path, &Data::new())?.success()?;
    if format == Format::Table {
        say!("Success! Data deleted (if it existed) at: {}", args.path);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn write(connect: &Connection, format: Format, args: &WriteArgs) -> Result<ExitCode, Failure> {
    if args.data.is_empty() && !args.force {
        return Err(Failure::usage("nothing to write: give name=value pairs, `-` or @file, or -force"));
    }
    let wrap_ttl = args.wrap_ttl.as_deref();
    let answer = ask_wrapped(connect, Verb::Write, &args.path, &data(&args.data)?, wrap_ttl)?.success()?;
    if answer.status == 204 && format == Format::Table && args.field.is_none() {
        say!("Success! Data written to: {}", args.path);
        return Ok(ExitCode::SUCCESS);
    }
    show_or_field(format, answer, args.field.as_deref())
}

/// Asks for one thing, whatever the answer.
pub(super) fn ask(connect: &Connection, verb: Verb, path: &str, data: &Data) -> Result<Answer, Failure> {
    ask_wrapped(connect, verb, path, data, None)
}

/// The same, and has the answer kept behind a token for as long as is said.
pub(super) fn ask_wrapped(
    connect: &Connection,
    verb: Verb,
    path: &str,
    data: &Data,
    wrap_ttl: Option<&str>,
) -> Result<Answer, Failure> {
    let mut http = connect.http()?;
    http.wrap_ttl = wrap_ttl.map(str::to_owned);
    Ok(runtime()?.block_on(http.request(verb, path, data))?)
}

/// Prints an answer, or one field of it.
pub(super) fn show_or_field(format: Format, answer: Answer, field: Option<&str>) -> Result<ExitCode, Failure> {
    match field {
        Some(field) => show_field(&answer, field),
        None => show(format, answer),
    }
}

fn show_field(answer: &Answer, field: &str) -> Result<ExitCode, Failure> {
    let body = answer.json();
    let value =
        output::field(&body, field).ok_or_else(|| Failure::new(format!("the answer has no field {field:?}")))?;
    say!("{}", output::plain(value));
    Ok(ExitCode::SUCCESS)
}

fn show(format: Format, answer: Answer) -> Result<ExitCode, Failure> {
    match answer.json() {
        // Bytes of another kind: PEM and DER go out as they came.
        Value::Null if !answer.body.is_empty() => output::bytes(&answer.body)?,
        Value::Null => {}
        body => output::print(format, &body)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The request's data: a JSON object from standard input or a file, and name=value pairs.
pub(super) fn data(arguments: &[String]) -> Result<Data, Failure> {
    let mut data = Data::new();
    for argument in arguments {
        if argument == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            data.extend(object(&text, "standard input")?);
        } else if let Some(file) = argument.strip_prefix('@') {
            data.extend(object(&file_text(file)?, file)?);
        } else {
            let (name, value) =
                argument.split_once('=').ok_or_else(|| Failure::usage(format!("{argument:?} is not name=value")))?;
            let value = match value.strip_prefix('@') {
                Some(file) => file_text(file)?,
                None => value.to_owned(),
            };
            data.insert(name.to_owned(), Value::String(value));
        }
    }
    Ok(data)
}

/// A text from standard input, where the argument is `-`.
pub(super) fn text_or_stdin(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

fn object(text: &str, from: &str) -> Result<Data, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::usage(format!("{from} is not a JSON object: {error}")))
}

pub(super) fn file_text(path: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("{path}: {error}")))
}
