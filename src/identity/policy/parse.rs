//! One policy, read from its text: every rule understood, or the text refused with the place of what is wrong.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::capability::Capabilities;
use super::document::{self, Draft};
use super::parameters::Parameters;
use super::pattern::Pattern;
use super::permissions::Permissions;
use super::policies::PARTS_MAX;
use crate::model::{Fault, parse_duration};

/// Longest text of a policy, in bytes.
pub(super) const TEXT_BYTES: usize = 128 << 10;
/// Rules of one policy.
const RULES_MAX: usize = 2_000;
/// Longest path of a rule, in bytes: requests have none that is longer.
const PATH_BYTES: usize = 4_096;
/// Parts of a path with `+`.
const DEPTH_MAX: usize = 64;
const FIELDS: &str = "capabilities, policy, allowed_parameters, denied_parameters, required_parameters, \
                      min_wrapping_ttl, max_wrapping_ttl, comment";

/// A policy. Its text and its rules say the same.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    text: String,
    rules: Vec<Rule>,
}

/// What a policy says of one path.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) pattern: Pattern,
    pub(super) permissions: Arc<Permissions>,
}

impl Policy {
    /// Reads a text in HCL or JSON.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] with what is wrong and where: line and column, or the path.
    pub fn parse(text: &str) -> Result<Policy, Fault> {
        if text.len() > TEXT_BYTES {
            let what = format!("the policy has {} bytes; at most {TEXT_BYTES} are read", text.len());
            return Err(Fault::TooLarge { what });
        }
        let refused = |what: String| Fault::invalid(format!("failed to parse policy: {what}"));
        let drafts = document::read(text).map_err(refused)?;
        if drafts.len() > RULES_MAX {
            let what = format!("{} paths; at most {RULES_MAX} are allowed: make several policies", drafts.len());
            return Err(refused(what));
        }
        let rules = drafts.iter().map(rule).collect::<Result<_, _>>().map_err(refused)?;
        Ok(Policy { text: text.to_owned(), rules })
    }

    /// Refuses more of what makes judging slow than a policy may have that is written now. One that is stored may.
    pub(super) fn check_parts(&self) -> Result<(), Fault> {
        let with_parts = || self.rules.iter().map(|rule| &rule.pattern).filter(|pattern| pattern.has_parts());
        let refused = |what: String| Err(Fault::invalid(format!("failed to parse policy: {what}")));
        if with_parts().count() > PARTS_MAX {
            return refused(format!("more than {PARTS_MAX} paths with '+': end paths in '*', or name them"));
        }
        match with_parts().find(|pattern| pattern.depth() > DEPTH_MAX) {
            Some(deep) => {
                let path = deep.written();
                refused(format!("path {path:?}: one with '+' has at most {DEPTH_MAX} parts"))
            }
            None => Ok(()),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

fn rule(draft: &Draft) -> Result<Rule, String> {
    if draft.path.len() > PATH_BYTES {
        return Err(draft.refused(format!("the path is longer than {PATH_BYTES} bytes")));
    }
    let pattern = Pattern::parse(&draft.path).map_err(|what| draft.refused(what))?;
    let mut permissions = Permissions::default();
    for (index, (name, value)) in draft.fields.iter().enumerate() {
        if draft.fields.iter().take(index).any(|(before, _)| before == name) {
            return Err(draft.field_refused(index, format!("{name} is there twice")));
        }
        field(&mut permissions, name, value).map_err(|what| draft.field_refused(index, what))?;
    }
    if let (Some(min), Some(max)) = (permissions.min_wrapping, permissions.max_wrapping)
        && max < min
    {
        return Err(draft.refused("max_wrapping_ttl cannot be less than min_wrapping_ttl"));
    }
    if permissions.capabilities.has(Capabilities::DENY) {
        permissions = Permissions { capabilities: Capabilities::DENY, ..Permissions::default() };
    }
    Ok(Rule { pattern, permissions: Arc::new(permissions) })
}

fn field(permissions: &mut Permissions, name: &str, value: &Value) -> Result<(), String> {
    match name {
        "capabilities" => {
            for word in words(name, value)? {
                let capability = Capabilities::of(word)
                    .ok_or_else(|| format!("invalid capability {word:?}; there are: {}", Capabilities::words()))?;
                permissions.capabilities = permissions.capabilities.and(capability);
            }
        }
        "policy" => {
            let word = value.as_str().unwrap_or_default();
            let capabilities = Capabilities::of_legacy(word)
                .ok_or_else(|| format!("invalid policy {value}; expected \"read\", \"write\", \"deny\" or \"sudo\""))?;
            permissions.capabilities = permissions.capabilities.and(capabilities);
        }
        "allowed_parameters" => permissions.allowed = parameters(name, value)?,
        "denied_parameters" => permissions.denied = parameters(name, value)?,
        "required_parameters" => {
            permissions.required = words(name, value)?.into_iter().map(str::to_lowercase).collect();
            if permissions.required.iter().any(|name| name.contains('*')) {
                return Err("required_parameters: '*' is not permitted here".to_owned());
            }
        }
        "min_wrapping_ttl" => permissions.min_wrapping = duration(name, value)?,
        "max_wrapping_ttl" => permissions.max_wrapping = duration(name, value)?,
        "comment" => {}
        "mfa_methods" | "control_group" | "subscribe_event_types" => {
            return Err(format!("{name} is not supported here: leave it out"));
        }
        _ => return Err(format!("unknown field {name:?}; expected: {FIELDS}")),
    }
    Ok(())
}

fn words<'v>(name: &str, value: &'v Value) -> Result<Vec<&'v str>, String> {
    let words = value.as_array().and_then(|items| items.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    words.ok_or_else(|| format!("{name}: expected a list of strings, such as [\"read\"]"))
}

fn parameters(name: &str, value: &Value) -> Result<Parameters, String> {
    let expected = || format!("{name}: expected names with lists of values, such as {{ ttl = [\"1h\"] }}");
    let mut parameters = Parameters::default();
    for (field, values) in value.as_object().ok_or_else(expected)? {
        if (field.contains('*') && field != "*") || field.starts_with('/') {
            return Err(format!("{name}: {field:?}: expected the name of a field, or \"*\" alone for every field"));
        }
        parameters.insert(field, values.as_array().ok_or_else(expected)?.clone());
    }
    Ok(parameters)
}

/// Zero is no bound, as Vault has it.
fn duration(name: &str, value: &Value) -> Result<Option<Duration>, String> {
    let read = match value {
        Value::Number(number) => number.as_u64().map(Duration::from_secs),
        Value::String(text) => parse_duration(text),
        _ => None,
    };
    let read = read.ok_or_else(|| format!("{name}: expected a duration, such as \"90s\""))?;
    Ok(Some(read).filter(|read| !read.is_zero()))
}
