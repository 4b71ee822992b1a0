//! What a rule says of a request's fields: which it may have, must not have, with which values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::Data;

/// The name that stands for every field.
const ALL: &str = "*";

/// Fields by name, in lower case, each with values; none listed: any value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parameters(BTreeMap<String, Vec<Value>>);

impl Parameters {
    pub(super) fn insert(&mut self, name: &str, values: Vec<Value>) {
        self.0.insert(name.to_lowercase(), values);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what another rule at the same path says, as Vault does: values are united, and "any" wins.
    pub(super) fn merge(&mut self, other: &Parameters) {
        for (name, values) in &other.0 {
            match self.0.get_mut(name) {
                Some(known) if known.is_empty() || values.is_empty() => known.clear(),
                Some(known) => known.extend(values.iter().cloned()),
                None => drop(self.0.insert(name.clone(), values.clone())),
            }
        }
    }

    /// Whether a request with `data` may pass, where these are denied.
    pub(super) fn let_pass(&self, data: &Data) -> bool {
        if self.0.contains_key(ALL) {
            return data.is_empty();
        }
        data.iter().all(|(name, value)| self.0.get(&name.to_lowercase()).is_none_or(|denied| !is_any(value, denied)))
    }

    /// Whether a request with `data` may pass, where only these are allowed.
    pub(super) fn cover(&self, data: &Data) -> bool {
        let all = self.0.contains_key(ALL);
        data.iter()
            .all(|(name, value)| self.0.get(&name.to_lowercase()).map_or(all, |allowed| is_within(value, allowed)))
    }
}

/// Whether a value, or one of a list's or of a text's with commas, is listed.
fn is_any(value: &Value, listed: &[Value]) -> bool {
    listed.is_empty() || is_one(value, listed) || items(value).any(|item| is_one(&item, listed))
}

/// Whether a value, or each of a list's or of a text's with commas, is listed. What is listed says all commas itself: a `*` in it
/// stands for none, else one item that fits would let others pass behind it where the field is a list.
fn is_within(value: &Value, listed: &[Value]) -> bool {
    if listed.is_empty() || is_one_without_more(value, listed) {
        return true;
    }
    let mut items = items(value).peekable();
    items.peek().is_some() && items.all(|item| is_one_without_more(&item, listed))
}

/// What a list, or a text with commas, consists of: many fields are written either way. One after the other: a long text has
/// millions.
fn items<'v>(value: &'v Value) -> Box<dyn Iterator<Item = Cow<'v, Value>> + 'v> {
    match value {
        Value::Array(items) => Box::new(items.iter().map(Cow::Borrowed)),
        Value::String(text) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Box::new(items.map(|item| Cow::Owned(Value::from(item))))
        }
        _ => Box::new(std::iter::empty()),
    }
}

fn is_one(value: &Value, listed: &[Value]) -> bool {
    is_one_that(value, listed, |_| true)
}

fn is_one_without_more(value: &Value, listed: &[Value]) -> bool {
    is_one_that(value, listed, |rest| !rest.contains(','))
}

/// Whether a value is listed, where `may_be` lets pass what a `*` stands for.
fn is_one_that(value: &Value, listed: &[Value], may_be: impl Fn(&str) -> bool) -> bool {
    listed.iter().any(|known| match (text(known), text(value)) {
        (Some(known), Some(value)) => fits(&known, &value, &may_be),
        _ => known == value,
    })
}

/// The text of what is no list and no object: fields are read from `true` and `"true"` alike, so they are judged alike.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Whether a text is the one listed, which may have a `*` at either end; each of these stands for something that may be.
fn fits(listed: &str, text: &str, may_be: impl Fn(&str) -> bool) -> bool {
    if listed.len() < 2 {
        return listed == text;
    }
    match (listed.strip_prefix('*'), listed.strip_suffix('*')) {
        (Some(rest), Some(_)) => rest.strip_suffix('*').is_some_and(|inner| {
            // Of `**` all of it is open; else it may be there more than once.
            let mut places = text.match_indices(inner);
            places.any(|(at, _)| may_be(&text[..at]) && may_be(&text[at + inner.len()..]))
        }),
        (Some(end), None) => text.strip_suffix(end).is_some_and(may_be),
        (None, Some(begin)) => text.strip_prefix(begin).is_some_and(may_be),
        (None, None) => listed == text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parameters(value: Value) -> Parameters {
        let mut all = Parameters::default();
        for (name, values) in value.as_object().unwrap() {
            all.insert(name, values.as_array().unwrap().clone());
        }
        all
    }

    fn data(value: Value) -> Data {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn allowed_fields_cover_all_that_is_said() {
        let allowed = parameters(json!({"TTL": ["1h", "24*"], "alt_names": ["a", "b"], "n": [5], "any": []}));
        for good in [
            json!({}),
            json!({"ttl": "1h"}),
            json!({"ttl": "24h"}),
            json!({"alt_names": "a, b"}),
            json!({"alt_names": ["b"]}),
            json!({"n": "5", "any": {"x": 1}}),
        ] {
            assert!(allowed.cover(&data(good.clone())), "{good}");
        }
        for bad in [
            json!({"ttl": "2h"}),
            json!({"alt_names": "a,c"}),
            json!({"alt_names": ""}),
            json!({"other": 1}),
            json!({"n": 6}),
            json!({"ttl": null}),
        ] {
            assert!(!allowed.cover(&data(bad.clone())), "{bad}");
        }
        let all = parameters(json!({"*": [], "ttl": ["1h"]}));
        assert!(all.cover(&data(json!({"x": 1, "ttl": "1h"}))));
        assert!(!all.cover(&data(json!({"ttl": "2h"}))));
    }

    #[test]
    fn a_star_lets_nothing_pass_behind_a_comma() {
        let allowed = parameters(json!({"alt_names": ["a*", "*.org", "*mid*"], "cn": ["Doe, *", "x,y"]}));
        for good in [
            json!({"alt_names": "a"}),
            json!({"alt_names": "ab, b.org"}),
            json!({"alt_names": ["ab", "amidst"]}),
            json!({"cn": "Doe, John"}),
            json!({"cn": "x,y"}),
        ] {
            assert!(allowed.cover(&data(good.clone())), "{good}");
        }
        for bad in [
            json!({"alt_names": "a,evil"}),
            json!({"alt_names": "evil,b.org"}),
            json!({"alt_names": "evil,mid"}),
            json!({"alt_names": "mid,evil"}),
            json!({"alt_names": ["a,evil"]}),
            json!({"alt_names": ["ab", "evil"]}),
            json!({"cn": "Doe, John, evil"}),
            json!({"cn": "x"}),
        ] {
            assert!(!allowed.cover(&data(bad.clone())), "{bad}");
        }
        // What is denied is so with anything around it.
        assert!(!parameters(json!({"cn": ["Doe*"]})).let_pass(&data(json!({"cn": "Doe, John"}))));
    }

    #[test]
    fn denied_fields_stop_a_request_in_whatever_form() {
        let denied = parameters(json!({"prehashed": [true], "alt_names": ["*.root"], "key": []}));
        for bad in [
            json!({"prehashed": true}),
            json!({"prehashed": "true"}),
            json!({"alt_names": "a,b.root"}),
            json!({"alt_names": ["b.root"]}),
            json!({"key": ""}),
            json!({"KEY": 1}),
        ] {
            assert!(!denied.let_pass(&data(bad.clone())), "{bad}");
        }
        assert!(denied.let_pass(&data(json!({"prehashed": false, "alt_names": "a", "x": "b.root"}))));
        let all = parameters(json!({"*": []}));
        assert!(!all.let_pass(&data(json!({"x": 1}))) && all.let_pass(&Data::new()));
    }

    #[test]
    fn what_two_rules_say_is_united_and_any_wins() {
        let mut one = parameters(json!({"a": ["1"], "b": ["1"], "c": []}));
        one.merge(&parameters(json!({"a": ["2"], "b": [], "c": ["1"], "d": ["3"]})));
        assert_eq!(one, parameters(json!({"a": ["1", "2"], "b": [], "c": [], "d": ["3"]})));
    }
}
