//! Answers, printed.

use serde_json::Value;

use super::Failure;
use super::args::Format;

/// Prints an answer's whole body, or its data as a table with Vault's headings.
pub(super) fn print(format: Format, body: &Value) -> Result<(), Failure> {
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(body)?);
        return Ok(());
    }
    for warning in body["warnings"].as_array().into_iter().flatten() {
        eprintln!("warning: {}", plain(warning));
    }
    let data = if body["data"].is_object() { &body["data"] } else { body };
    let Some(data) = data.as_object().filter(|data| !data.is_empty()) else { return Ok(()) };
    let width = data.keys().map(String::len).max().unwrap_or(0).max(3);
    println!("{:width$}    Value\n{:width$}    -----", "Key", "---");
    for (name, value) in data {
        println!("{name:width$}    {}", plain(value));
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
