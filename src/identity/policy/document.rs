//! The text of a policy, HCL or JSON, as rules that nobody has looked into yet: paths, and fields by name. Knows the two
//! forms, and no field.

use std::path::Path;

use hcl::edit::Span;
use hcl::edit::expr::{Expression, ObjectKey};
use hcl::edit::structure::{Attribute, Block, Body, Structure};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::config::{Document, Problem};

/// What messages call the text.
const NAME: &str = "policy";
/// What may stand beside the rules. It is of no account: the policy's name is in the request's path.
const IGNORED: &str = "name";
const RULE: &str = "path";

/// A rule as it is written.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) path: String,
    pub(super) fields: Vec<(String, Value)>,
    /// Where it stands, for messages; and each field. Empty in JSON, which has the path.
    place: Option<String>,
    places: Vec<String>,
}

impl Draft {
    /// What is wrong with the rule.
    pub(super) fn refused(&self, what: impl std::fmt::Display) -> String {
        match &self.place {
            Some(place) => format!("{place}{what}"),
            None => format!("path {:?}: {what}", self.path),
        }
    }

    /// What is wrong with one of its fields.
    pub(super) fn field_refused(&self, index: usize, what: impl std::fmt::Display) -> String {
        match self.places.get(index) {
            Some(place) => format!("{place}path {:?}: {what}", self.path),
            None => format!("path {:?}: {what}", self.path),
        }
    }
}

/// The rules of a text; else what is wrong with it, and where.
pub(super) fn read(text: &str) -> Result<Vec<Draft>, String> {
    if text.trim_start().starts_with('{') { json(text) } else { hcl(text) }
}

fn hcl(text: &str) -> Result<Vec<Draft>, String> {
    let document = Document::new(Path::new(NAME), text);
    let place = |at: usize| told(&document.problem(at, String::new()));
    let body = document.body().map_err(|problem| told(&problem))?;
    let mut drafts = Vec::new();
    for structure in &body {
        let at = structure.span().map_or(0, |span| span.start);
        match structure {
            Structure::Block(block) if block.ident.as_str() == RULE => drafts.push(rule(block, &place)?),
            Structure::Attribute(attribute) if attribute.key.as_str() == IGNORED => {}
            Structure::Block(block) => {
                let found = block.ident.as_str();
                return Err(format!("{}unknown stanza {found:?}; expected path \"…\" {{ … }}", place(at)));
            }
            Structure::Attribute(attribute) => {
                let found = attribute.key.as_str();
                return Err(format!("{}unknown field {found:?}; expected path \"…\" {{ … }}", place(at)));
            }
        }
    }
    Ok(drafts)
}

/// `line 3, column 5: ` and what is wrong there.
fn told(problem: &Problem) -> String {
    match problem.place {
        Some((line, column)) => format!("line {line}, column {column}: {}", problem.message),
        None => problem.message.clone(),
    }
}

fn rule(block: &Block, place: &impl Fn(usize) -> String) -> Result<Draft, String> {
    let at = block.ident.span().map_or(0, |span| span.start);
    let labels: Vec<&str> = block.labels.iter().map(|label| label.as_str()).collect();
    let [path] = labels.as_slice() else {
        return Err(format!("{}expected path \"…\" {{ … }}, with one path", place(at)));
    };
    let mut draft = Draft { path: (*path).to_owned(), fields: Vec::new(), place: Some(place(at)), places: Vec::new() };
    for structure in &block.body {
        let at = structure.span().map_or(at, |span| span.start);
        let (name, value) = match structure {
            Structure::Attribute(Attribute { key, value, .. }) => {
                let at = value.span().map_or(at, |span| span.start);
                (key.as_str(), self::value(value).map_err(|what| format!("{}{}: {what}", place(at), key.as_str()))?)
            }
            Structure::Block(block) => (block.ident.as_str(), object(&block.body, &|_| place(at))?),
        };
        draft.fields.push((name.to_owned(), value));
        draft.places.push(place(at));
    }
    Ok(draft)
}

/// A stanza where an object is meant, as Vault takes it.
fn object(body: &Body, place: &impl Fn(usize) -> String) -> Result<Value, String> {
    let mut members = serde_json::Map::new();
    for structure in body {
        let Structure::Attribute(attribute) = structure else {
            return Err(format!("{}expected names and values, such as {{ ttl = [\"1h\"] }}", place(0)));
        };
        let value = value(&attribute.value).map_err(|what| format!("{}{what}", place(0)))?;
        if members.insert(attribute.key.as_str().to_owned(), value).is_some() {
            return Err(format!("{}{} is there twice", place(0), attribute.key.as_str()));
        }
    }
    Ok(members.into())
}

fn value(expression: &Expression) -> Result<Value, String> {
    if let Some(text) = expression.as_str() {
        return Ok(text.into());
    }
    if let Some(boolean) = expression.as_bool() {
        return Ok(boolean.into());
    }
    if let Some(number) = expression.as_number() {
        let float = || number.as_f64().and_then(serde_json::Number::from_f64);
        let number = number.as_i64().map(Into::into).or_else(|| number.as_u64().map(Into::into)).or_else(float);
        return number.map(Value::Number).ok_or_else(|| "expected a number of at most 64 bits".to_owned());
    }
    if let Some(items) = expression.as_array() {
        return items.iter().map(value).collect::<Result<Vec<_>, _>>().map(Value::from);
    }
    let Some(members) = expression.as_object() else {
        return Err("expected a plain value: no ${…}, no variables, no functions".to_owned());
    };
    let mut object = serde_json::Map::new();
    for (key, member) in members.iter() {
        let name = match key {
            ObjectKey::Ident(ident) => Some(ident.as_str()),
            ObjectKey::Expression(expression) => expression.as_str(),
        };
        let name = name.ok_or_else(|| "expected names that are plain strings".to_owned())?;
        if object.insert(name.to_owned(), value(member.expr())?).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(object.into())
}

/// The members of a JSON object in their order; what is there twice is not lost, as it could be what denies.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        deserializer.deserialize_map(InOrder(std::marker::PhantomData)).map(Members)
    }
}

/// The rules of a JSON object, or of a list of such.
struct Rules(Vec<(String, Members)>);

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rules, D::Error> {
        deserializer.deserialize_any(OneOrMany).map(Rules)
    }
}

struct InOrder<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
    type Value = Vec<(String, T)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Vec<(String, Members)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of paths, or a list of such")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        InOrder(std::marker::PhantomData).visit_map(map)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut rules = Vec::new();
        while let Some(Rules(more)) = list.next_element()? {
            rules.extend(more);
        }
        Ok(rules)
    }
}

/// What stands in a JSON policy.
enum Part {
    Rules(Rules),
    Ignored,
}

/// The whole of a JSON policy.
struct Whole(Vec<Part>);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Whole, D::Error> {
        deserializer.deserialize_map(Parts).map(Whole)
    }
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = Vec<Part>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with the member \"path\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Part>, A::Error> {
        let mut parts = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            parts.push(match name.as_str() {
                RULE => Part::Rules(map.next_value()?),
                IGNORED => map.next_value::<serde::de::IgnoredAny>().map(|_| Part::Ignored)?,
                _ => return Err(serde::de::Error::custom(format!("unknown field {name:?}; expected \"path\""))),
            });
        }
        Ok(parts)
    }
}

fn json(text: &str) -> Result<Vec<Draft>, String> {
    let Whole(parts) = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut drafts = Vec::new();
    for part in parts {
        let Part::Rules(Rules(rules)) = part else { continue };
        drafts.extend(rules.into_iter().map(|(path, Members(fields))| Draft {
            path,
            fields,
            place: None,
            places: Vec::new(),
        }));
    }
    Ok(drafts)
}
