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
    let facts = facts(body);
    if facts.is_empty() {
        return Ok(());
    }
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(3);
    say!("{:width$}    Value\n{:width$}    -----", "Key", "---");
    for (name, value) in facts {
        say!("{name:width$}    {}", plain(value));
    }
    Ok(())
}

/// One thing that an answer tells, as [`print`] calls it; or a member of the whole body, such as its lease's id.
pub(super) fn field<'b>(body: &'b Value, name: &str) -> Option<&'b Value> {
    let told = facts(body).into_iter().find(|(known, _)| *known == name).map(|(_, value)| value);
    told.or_else(|| body.get(name))
}

/// What an answer tells, by Vault's names: a token, a token in the place of an answer, or else its data.
fn facts(body: &Value) -> Vec<(&str, &Value)> {
    const AUTH: [(&str, &str); 5] = [
        ("token", "client_token"),
        ("token_accessor", "accessor"),
        ("token_duration", "lease_duration"),
        ("token_renewable", "renewable"),
        ("token_policies", "token_policies"),
    ];
    const WRAPPED: [(&str, &str); 5] = [
        ("wrapping_token", "token"),
        ("wrapping_accessor", "accessor"),
        ("wrapping_token_ttl", "ttl"),
        ("wrapping_token_creation_time", "creation_time"),
        ("wrapping_token_creation_path", "creation_path"),
    ];
    for (member, names) in [("auth", AUTH), ("wrap_info", WRAPPED)] {
        if body[member].is_object() {
            return names.iter().map(|(told, name)| (*told, &body[member][*name])).collect();
        }
    }
    // An answer that has no data at all is data itself: sys/health and its like.
    let data = body.get("data").unwrap_or(body);
    data.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect()
}

/// A value on one line where it fits on one: text bare, all else as JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim_end().to_owned(),
        Value::Null => "n/a".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_what_is_printed_or_what_stands_beside_it() {
        let made = json!({"data": null, "lease_id": "l", "auth": {"client_token": "hvs.x", "accessor": "a"}});
        for (name, value) in [("token", "hvs.x"), ("token_accessor", "a"), ("lease_id", "l")] {
            assert_eq!(field(&made, name), Some(&json!(value)), "{name}");
        }
        let read = json!({"data": {"keys": [1]}, "keys": [2]});
        assert_eq!(field(&read, "keys"), Some(&json!([1])));
        assert_eq!(field(&read, "key"), None);
        assert_eq!(field(&json!({"sealed": false}), "sealed"), Some(&json!(false)));
    }

    #[test]
    fn a_token_is_told_by_vaults_names_and_data_by_its_own() {
        let names = |body: &Value| facts(body).iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
        let made = json!({"data": null, "wrap_info": null, "auth": {"client_token": "hvs.x", "accessor": "a"}});
        assert_eq!(facts(&made)[0], ("token", &json!("hvs.x")));
        let wrapped = json!({"data": null, "wrap_info": {"token": "hvs.w"}, "auth": null});
        assert_eq!(facts(&wrapped)[0], ("wrapping_token", &json!("hvs.w")));
        assert_eq!(names(&json!({"data": {"a": 1}, "auth": null})), ["a"]);
        assert_eq!(names(&json!({"initialized": true})), ["initialized"]);
        assert!(names(&json!({"data": null})).is_empty());
    }
}
