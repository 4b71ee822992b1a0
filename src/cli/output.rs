//! Answers, printed.

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use serde_json::Value;

use super::Failure;
use super::args::Format;

/// Why standard output took no more, once it did not.
static UNWRITTEN: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a line to standard output. That it could not be written is told at the end, by [`all_written`].
macro_rules! say {
    ($($text:tt)*) => {
        crate::cli::output::line(format_args!($($text)*))
    };
}
pub(super) use say;

pub(super) fn line(text: std::fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        // The first reason is the one that counts.
        let _ = UNWRITTEN.set(error);
    }
}

/// Writes bytes to standard output as they are.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::new(format!("standard output cannot be written: {error}")))
}

/// Whether all lines were written; if not, says why, unless the reader just left.
pub(super) fn all_written() -> bool {
    let Some(error) = UNWRITTEN.get() else { return true };
    if error.kind() != ErrorKind::BrokenPipe {
        eprintln!("keyway: standard output cannot be written: {error}");
    }
    false
}

/// Prints an answer's whole body, or its data as a table with Vault's headings.
pub(super) fn print(format: Format, body: &Value) -> Result<(), Failure> {
    if format == Format::Json {
        say!("{}", serde_json::to_string_pretty(body)?);
        return Ok(());
    }
    for warning in body["warnings"].as_array().into_iter().flatten() {
        eprintln!("warning: {}", plain(warning));
    }
    // An answer that has no data at all is data itself: sys/health and its like.
    let data = body.get("data").unwrap_or(body);
    let Some(data) = data.as_object().filter(|data| !data.is_empty()) else { return Ok(()) };
    let width = data.keys().map(String::len).max().unwrap_or(0).max(3);
    say!("{:width$}    Value\n{:width$}    -----", "Key", "---");
    for (name, value) in data {
        say!("{name:width$}    {}", plain(value));
    }
    Ok(())
}

/// A value on one line where it fits on one: text bare, all else as JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim_end().to_owned(),
        Value::Null => "n/a".to_owned(),
        other => other.to_string(),
    }
}
