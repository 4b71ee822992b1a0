//! Reading request data as Vault does: numbers and booleans may be strings, lists may be comma strings, durations may be
//! seconds or `24h`.

use std::time::Duration;

use serde_json::Value;

use super::{Data, Fault};

/// How a field is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Read {
    Value,
    Text,
    Boolean,
    Integer,
    Number,
    List,
    Duration,
    Object,
    Refused,
}

/// A reader of one request's data. It remembers which fields were asked for, so that the rest can be named.
pub struct Fields<'d> {
    data: &'d Data,
    known: Vec<&'static str>,
    in_path: &'static [&'static str],
    /// The field of the request that `data` is the value of; empty if it is the request's own.
    #[cfg(test)]
    within: &'static str,
}

impl<'d> Fields<'d> {
    /// A reader of `data`.
    pub fn new(data: &'d Data) -> Fields<'d> {
        Fields::below(data, &[])
    }

    /// A reader of `data` sent to a path that says the fields `in_path` itself.
    pub fn below(data: &'d Data, in_path: &'static [&'static str]) -> Fields<'d> {
        Fields {
            data,
            known: in_path.to_vec(),
            in_path,
            #[cfg(test)]
            within: "",
        }
    }

    /// A reader of an object that stands in the request's field `within`.
    pub fn inside(_within: &'static str, data: &'d Data) -> Fields<'d> {
        Fields {
            #[cfg(test)]
            within: _within,
            ..Fields::new(data)
        }
    }

    /// The field's value as it came; `None` if it is absent or null.
    pub fn value(&mut self, name: &'static str) -> Option<&'d Value> {
        self.get(name, Read::Value)
    }

    fn get(&mut self, name: &'static str, _how: Read) -> Option<&'d Value> {
        #[cfg(test)]
        super::recorder::note(self.data, self.within, name, _how);
        // Of nothing, nothing is to be named.
        if self.data.is_empty() {
            return None;
        }
        self.known.push(name);
        self.data.get(name).filter(|value| !value.is_null())
    }

    /// A string. Numbers and booleans are taken as their text.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, Fault> {
        self.get(name, Read::Text)
            .map(|value| match value {
                Value::String(text) => Ok(text.clone()),
                Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
                _ => Err(expected(name, "a string")),
            })
            .transpose()
    }

    /// A string, where the empty string means none.
    pub fn filled(&mut self, name: &'static str) -> Result<Option<String>, Fault> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }

    /// A boolean: `true`, `"true"`, `1` and their like.
    pub fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Fault> {
        self.get(name, Read::Boolean)
            .map(|value| match value {
                Value::Bool(value) => Ok(*value),
                Value::Number(number) if number.as_u64() == Some(0) => Ok(false),
                Value::Number(number) if number.as_u64() == Some(1) => Ok(true),
                Value::String(text) => match text.to_ascii_lowercase().as_str() {
                    "true" | "1" | "t" => Ok(true),
                    "false" | "0" | "f" | "" => Ok(false),
                    _ => Err(expected(name, "true or false")),
                },
                _ => Err(expected(name, "true or false")),
            })
            .transpose()
    }

    /// A whole number. The empty string means none.
    pub fn integer(&mut self, name: &'static str) -> Result<Option<i64>, Fault> {
        match self.get(name, Read::Integer) {
            None => Ok(None),
            Some(Value::Number(number)) => number.as_i64().map(Some).ok_or_else(|| expected(name, "a whole number")),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => text.trim().parse().map(Some).map_err(|_| expected(name, "a whole number")),
            Some(_) => Err(expected(name, "a whole number")),
        }
    }

    /// A number. The empty string means none.
    pub fn number(&mut self, name: &'static str) -> Result<Option<f64>, Fault> {
        match self.get(name, Read::Number) {
            None => Ok(None),
            Some(Value::Number(number)) => number.as_f64().map(Some).ok_or_else(|| expected(name, "a number")),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => text.trim().parse().map(Some).map_err(|_| expected(name, "a number")),
            Some(_) => Err(expected(name, "a number")),
        }
    }

    /// A list of strings: a JSON list, a comma string, or a single number. Empty items are dropped.
    pub fn list(&mut self, name: &'static str) -> Result<Option<Vec<String>>, Fault> {
        let split = |text: &str| -> Vec<String> {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        };
        match self.get(name, Read::List) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(split(text))),
            Some(number @ Value::Number(_)) => Ok(Some(vec![number.to_string()])),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text.trim().to_owned()),
                    Value::Number(_) => Ok(item.to_string()),
                    _ => Err(expected(name, "a list of strings")),
                })
                .filter(|item| item.as_ref().map_or(true, |text| !text.is_empty()))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(expected(name, "a list of strings")),
        }
    }

    /// A duration in whole seconds: a number of them, or numbers with units (`72h`, `1h30m`, `7d`). A part of a second
    /// counts as one, since none at all means "no limit" or "the default" to many fields. The empty string means none.
    pub fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, Fault> {
        let whole =
            |span: Duration| Duration::from_secs(span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0)));
        match self.get(name, Read::Duration) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_u64() {
                Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
                None => Err(expected(name, "a duration, such as 3600 or \"72h\"")),
            },
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::String(text)) => parse_duration(text)
                .map(whole)
                .map(Some)
                .ok_or_else(|| expected(name, "a duration, such as 3600 or \"72h\"")),
            Some(_) => Err(expected(name, "a duration, such as 3600 or \"72h\"")),
        }
    }

    /// An object.
    pub fn object(&mut self, name: &'static str) -> Result<Option<&'d Data>, Fault> {
        self.get(name, Read::Object)
            .map(|value| value.as_object().ok_or_else(|| expected(name, "an object")))
            .transpose()
    }

    /// Whether a field is there that the request must not have.
    pub fn is_given(&mut self, name: &'static str) -> bool {
        self.get(name, Read::Refused).is_some()
    }

    /// Refuses fields of Vault's that are not built here, unless they are absent or say what they would by default.
    pub fn refuse(&mut self, names: &[&'static str]) -> Result<(), Fault> {
        for name in names {
            let harmless = self.get(name, Read::Refused).is_none_or(|value| match value {
                Value::Bool(value) => !value,
                Value::String(text) => matches!(text.as_str(), "" | "false" | "0" | "0s"),
                Value::Number(number) => number.as_u64() == Some(0),
                Value::Array(items) => items.is_empty(),
                Value::Object(items) => items.is_empty(),
                Value::Null => true,
            });
            if !harmless {
                return Err(Fault::invalid(format!("{name} is not supported here: leave it out")));
            }
        }
        Ok(())
    }

    /// The fields nobody asked for.
    pub fn unknown(&self) -> Vec<&str> {
        let ignored = self.data.keys().map(String::as_str).filter(|name| !self.known.contains(name));
        #[cfg(test)]
        let ignored = ignored.filter(|name| *name != super::recorder::MARK);
        ignored.collect()
    }

    /// Vault's warnings on the fields nobody asked for, and on those the path says already.
    pub fn warnings(&self) -> Vec<String> {
        let ignored = self.unknown();
        let replaced: Vec<&str> = self.in_path.iter().copied().filter(|name| self.data.contains_key(*name)).collect();
        let told = [
            ("Endpoint ignored these unrecognized parameters", ignored),
            (
                "Endpoint replaced the value of these parameters with the values captured from the endpoint's path",
                replaced,
            ),
        ];
        told.iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: [{}]", names.join(" ")))
            .collect()
    }
}

fn expected(name: &str, what: &str) -> Fault {
    Fault::invalid(format!("field {name:?}: expected {what}"))
}

/// A duration as Vault writes it: bare seconds, or numbers with the units `ns us ms s m h d`, added up.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match rest.get(..unit_end)? {
            "ns" => Duration::from_nanos(1),
            "us" | "µs" => Duration::from_micros(1),
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(24 * 3600),
            _ => return None,
        };
        rest = rest.get(unit_end..)?;
        sum = sum.checked_add(unit.checked_mul(u32::try_from(number).ok()?)?)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn data(value: Value) -> Data {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn strings_stand_for_numbers_booleans_and_lists() {
        let data =
            data(json!({"n": "2048", "b": "true", "l": "a, b,,c", "k": ["x", ""], "d": "1h30m", "s": 90, "t": "1ms"}));
        let mut fields = Fields::new(&data);
        assert_eq!(fields.integer("n"), Ok(Some(2048)));
        assert_eq!(fields.boolean("b"), Ok(Some(true)));
        assert_eq!(fields.list("l"), Ok(Some(vec!["a".into(), "b".into(), "c".into()])));
        assert_eq!(fields.list("k"), Ok(Some(vec!["x".into()])));
        assert_eq!(fields.duration("d"), Ok(Some(Duration::from_secs(5400))));
        assert_eq!(fields.duration("s"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(fields.duration("t"), Ok(Some(Duration::from_secs(1))));
        assert!(fields.warnings().is_empty());
    }

    #[test]
    fn what_is_not_known_is_named_and_what_is_not_built_refused() {
        let data = data(json!({"a": 1, "z": 2, "exportable": false, "derived": true}));
        let mut fields = Fields::new(&data);
        fields.integer("a").unwrap();
        assert!(fields.refuse(&["exportable"]).is_ok());
        assert!(fields.refuse(&["derived"]).is_err());
        assert_eq!(fields.warnings(), ["Endpoint ignored these unrecognized parameters: [z]"]);
    }

    #[test]
    fn what_the_path_says_is_known_and_said_to_be_replaced() {
        let data = data(json!({"name": "a", "role": "b"}));
        let told = [
            "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [name]",
        ];
        let mut fields = Fields::below(&data, &["name"]);
        fields.value("role");
        assert_eq!(fields.warnings(), told);
    }

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_none(text in ".{0,20}") {
            let _ = parse_duration(&text);
        }
    }
}
