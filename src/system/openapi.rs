//! `sys/internal/specs/openapi`: a description of the API, made of the tables that route requests. The mounts are those of
//! the namespace addressed. Written as Vault writes its own, with what OpenAPI 3.0 has a word for and Vault leaves out.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Call, System, VAULT_VERSION, fields, paths};
use crate::apart;
use crate::model::{
    AnswerKind, Data, Endpoint, EngineType, Fault, Field, FieldDefault, FieldKind, Fields, Mount, Response, Verb,
};

/// The version of OpenAPI, which is Vault's.
const VERSION: &str = "3.0.2";
/// Mounts described one by one. Each takes about 80 KiB.
const MOUNTS_MAX: usize = 100;
/// Longest word added to operation ids, in bytes.
const CONTEXT_MAX: usize = 64;

impl System {
    /// Every endpoint there is, whether the caller may ask it or not.
    pub(super) async fn describe(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(data);
        let generic = fields.boolean("generic_mount_paths")?.unwrap_or(false);
        let context = fields.filled("context")?.unwrap_or_default();
        if context.len() > CONTEXT_MAX || !context.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
        {
            return Err(Fault::invalid(format!(
                "context {context:?}: expected at most {CONTEXT_MAX} letters, digits and hyphens"
            )));
        }
        let mounts = self.namespaces.mounts(&call.namespace);
        if !generic && mounts.len() > MOUNTS_MAX {
            return Err(Fault::TooLarge {
                what: format!(
                    "the namespace has {} mounts, and a description names at most {MOUNTS_MAX}: ask for it with \
                     generic_mount_paths=true",
                    mounts.len()
                ),
            });
        }
        let engines = self.engines.clone();
        let written = apart::run(&call.namespace, move || {
            let document = Document::new(&context).with(&engines, &mounts, generic);
            serde_json::to_vec(&document).map_err(|_| Fault::internal("a description of the API cannot be written"))
        });
        let body = written.await??;
        Ok(Response::Raw { content_type: "application/json", body: body.into() })
    }
}

/// A description in the making.
struct Document<'c> {
    context: &'c str,
    paths: BTreeMap<String, Map<String, Value>>,
    schemas: BTreeMap<String, Value>,
    ids: HashSet<String>,
}

/// Where the endpoints of one table are.
struct Place<'p> {
    /// What comes before each pattern, with a `/` at both ends.
    prefix: String,
    /// What operation ids begin with; empty if the patterns say it.
    id: String,
    /// What the names of schemas begin with.
    schema: &'p str,
    tag: &'static str,
    /// The parts that patterns leave open.
    parts: &'p [Field],
    /// The parameter that stands for a mount, and what it is by default.
    mount: Option<(String, String)>,
}

impl<'c> Document<'c> {
    fn new(context: &'c str) -> Document<'c> {
        let schemas = BTreeMap::from([("Errors".to_owned(), errors()), ("Answer".to_owned(), envelope())]);
        Document { context, paths: BTreeMap::new(), schemas, ids: HashSet::new() }
    }

    /// The whole of it.
    fn with(mut self, engines: &[EngineType], mounts: &[Arc<Mount>], generic: bool) -> Value {
        let (prefix, id) = ("/".to_owned(), String::new());
        let system = Place { prefix, id, schema: "", tag: "system", parts: fields::PARTS, mount: None };
        self.add(&paths::endpoints(), &system);
        for engine in engines {
            let of_type = mounts.iter().filter(|mount| mount.engine == engine.name);
            for mount in of_type.take(if generic { 1 } else { usize::MAX }) {
                self.add(&engine.endpoints, &Place::below(engine, mount, generic));
            }
        }
        json!({
            "openapi": VERSION,
            "info": {
                "title": "Keyway API",
                "description": "HashiCorp Vault's HTTP API, as far as Keyway has it, over a Unix socket. All API routes are \
                                prefixed with `/v1/`.",
                "version": VAULT_VERSION,
                "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
            },
            "servers": [{ "url": "/v1" }],
            "security": [{ "token": [] }],
            "paths": self.paths,
            "components": {
                "schemas": self.schemas,
                "securitySchemes": { "token": { "type": "apiKey", "in": "header", "name": "X-Vault-Token" } },
            },
        })
    }

    fn add(&mut self, endpoints: &[Endpoint], place: &Place<'_>) {
        for endpoint in endpoints {
            let path = place.path(endpoint);
            let operation = self.operation(endpoint, place);
            let item = self.paths.entry(path).or_insert_with(|| place.item(endpoint));
            if endpoint.creates {
                item.insert("x-vault-createSupported".into(), true.into());
            }
            if endpoint.needs_sudo {
                item.insert("x-vault-sudo".into(), true.into());
            }
            item.insert(method(endpoint.verb).into(), operation);
        }
    }

    fn operation(&mut self, endpoint: &Endpoint, place: &Place<'_>) -> Value {
        let id = self.id(endpoint, place);
        let mut operation = json!({
            "summary": endpoint.about,
            "operationId": id,
            "tags": [if endpoint.pattern.starts_with("auth/") { "auth" } else { place.tag }],
            "responses": responses(endpoint.answer),
        });
        if endpoint.is_conditional {
            operation["responses"]["304"] = json!({ "description": "not modified since" });
        }
        if endpoint.is_public {
            operation["security"] = json!([]);
        }
        let listed = || endpoint.fields.iter().copied().flatten();
        match endpoint.verb {
            Verb::Write | Verb::Patch => {
                if let Some(body) = self.body(endpoint, place) {
                    operation["requestBody"] = body;
                }
            }
            Verb::Read | Verb::Delete | Verb::List => {
                let mut parameters: Vec<Value> = listed().map(|field| parameter(field, "query")).collect();
                if endpoint.verb == Verb::List {
                    parameters.push(json!({
                        "name": "list", "in": "query", "required": true, "description": "Must be set to `true`",
                        "schema": { "type": "string", "enum": ["true"] },
                    }));
                }
                if !parameters.is_empty() {
                    operation["parameters"] = parameters.into();
                }
            }
        }
        operation
    }

    fn body(&mut self, endpoint: &Endpoint, place: &Place<'_>) -> Option<Value> {
        if let Some(media_type) = endpoint.sent {
            let bytes = json!({ "schema": { "type": "string", "format": "binary" } });
            return Some(json!({ "required": true, "content": { media_type: bytes } }));
        }
        let listed: Vec<&Field> = endpoint.fields.iter().copied().flatten().collect();
        if listed.is_empty() {
            return None;
        }
        // Those of a type of engine are alike in all of its mounts.
        let name = schema_name(place.schema, endpoint);
        self.schemas.entry(name.clone()).or_insert_with(|| object(listed.iter().copied()));
        let media_type = if endpoint.verb == Verb::Patch { "application/merge-patch+json" } else { "application/json" };
        let is_required = listed.iter().any(|field| field.is_required);
        let content = json!({ media_type: { "schema": { "$ref": format!("#/components/schemas/{name}") } } });
        Some(json!({ "required": is_required, "content": content }))
    }

    /// As Vault has it: the mount or `sys`, what is done, and the words of the path. Where two paths have the same words, what
    /// the longer leaves open is said, too.
    fn id(&mut self, endpoint: &Endpoint, place: &Place<'_>) -> String {
        let (first, words) = words(endpoint);
        let first = if place.id.is_empty() { first } else { format!("{}-{first}", place.id) };
        let context = if self.context.is_empty() { String::new() } else { format!("-{}", self.context) };
        let open: Vec<String> = endpoint.open_parts().map(|part| part.replace('_', "-")).collect();
        let with = [open.last().cloned().unwrap_or_default(), open.join("-and-")];
        let told = with.iter().filter(|parts| !parts.is_empty()).map(|parts| format!("-with-{parts}"));
        let mut candidates =
            std::iter::once(String::new()).chain(told).map(|with| format!("{first}{words}{with}{context}"));
        let free = candidates.find(|id| !self.ids.contains(id));
        let id = free.unwrap_or_else(|| format!("{first}{words}{context}"));
        let mut unique = id.clone();
        let mut count = 1;
        while !self.ids.insert(unique.clone()) {
            count += 1;
            unique = format!("{id}_{count}");
        }
        unique
    }
}

impl<'p> Place<'p> {
    fn below(engine: &'p EngineType, mount: &Mount, generic: bool) -> Place<'p> {
        let path = mount.path.trim_end_matches('/');
        let (prefix, id, mount) = if generic {
            let parameter = format!("{}_mount_path", engine.name);
            (format!("/{{{parameter}}}/"), engine.name.to_owned(), Some((parameter, engine.name.to_owned())))
        } else {
            (format!("/{path}/"), path.replace('/', "-"), None)
        };
        Place { prefix, id, schema: engine.name, tag: "secrets", parts: engine.parts, mount }
    }

    /// A list has a path of its own, with a `/` at its end.
    fn path(&self, endpoint: &Endpoint) -> String {
        let parts = endpoint.pattern.split('/').map(|part| match part.strip_prefix([':', '*']) {
            Some(name) => format!("{{{name}}}"),
            None => part.to_owned(),
        });
        let end = if endpoint.verb == Verb::List { "/" } else { "" };
        format!("{}{}{end}", self.prefix, parts.collect::<Vec<_>>().join("/"))
    }

    /// What all verbs of a path have in common.
    fn item(&self, endpoint: &Endpoint) -> Map<String, Value> {
        let mut parameters: Vec<Value> = self
            .mount
            .iter()
            .map(|(name, default)| {
                json!({
                    "name": name, "in": "path", "required": true, "description": "Path that the backend was mounted at",
                    "schema": { "type": "string", "default": default },
                })
            })
            .collect();
        let field = |name: &str| self.parts.iter().find(|field| field.name == name);
        parameters.extend(endpoint.open_parts().filter_map(field).map(|field| parameter(field, "path")));
        let mut item = Map::new();
        if !parameters.is_empty() {
            item.insert("parameters".into(), parameters.into());
        }
        if endpoint.is_public {
            item.insert("x-vault-unauthenticated".into(), true.into());
        }
        item
    }
}

/// What is done, after the first fixed word of a system's path; and the other fixed words.
fn words(endpoint: &Endpoint) -> (String, String) {
    let deed = match endpoint.verb {
        Verb::Read => "read",
        Verb::List => "list",
        Verb::Write => "write",
        Verb::Patch => "patch",
        Verb::Delete => "delete",
    };
    let mut fixed = endpoint.pattern.split('/').filter(|part| !part.starts_with([':', '*']));
    let is_systems = endpoint.pattern.starts_with("sys/") || endpoint.pattern.starts_with("auth/");
    let first = if is_systems { format!("{}-{deed}", fixed.next().unwrap_or_default()) } else { deed.to_owned() };
    (first, fixed.fold(String::new(), |words, word| format!("{words}-{}", word.replace('_', "-"))))
}

/// `PkiWriteSignRequest`. Where a verb is at two paths of the same words, what they leave open tells them apart.
pub(super) fn schema_name(engine: &str, endpoint: &Endpoint) -> String {
    let (first, words) = words(endpoint);
    let open = endpoint.open_parts().skip(1).fold(String::new(), |open, part| format!("{open}-{part}"));
    let title = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        format!("{}{rest}", first.to_ascii_uppercase())
    };
    let all = format!("{engine}-{first}{words}{open}-request");
    all.split(['-', '_']).map(title).collect()
}

fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Read | Verb::List => "get",
        Verb::Write => "post",
        Verb::Patch => "patch",
        Verb::Delete => "delete",
    }
}

fn parameter(field: &Field, place: &str) -> Value {
    let mut schema = schema(field);
    let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
    json!({
        "name": field.name, "in": place, "required": field.is_required || place == "path", "description": about,
        "schema": schema,
    })
}

fn object<'f>(members: impl Iterator<Item = &'f Field>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in members {
        properties.insert(field.name.into(), schema(field));
        required.extend(field.is_required.then_some(field.name));
    }
    required.sort_unstable();
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn schema(field: &Field) -> Value {
    let mut schema = match field.kind {
        FieldKind::Text => json!({ "type": "string" }),
        FieldKind::Boolean => json!({ "type": "boolean" }),
        FieldKind::Integer => json!({ "type": "integer" }),
        FieldKind::Number => json!({ "type": "number" }),
        FieldKind::Duration => json!({ "type": "integer", "format": "seconds" }),
        FieldKind::List => json!({ "type": "array", "items": { "type": "string" } }),
        FieldKind::Map => json!({ "type": "object", "format": "map" }),
        FieldKind::Object(members) => object(members.iter()),
        FieldKind::Objects(members) => json!({ "type": "array", "items": object(members.iter()) }),
    };
    schema["description"] = field.about.into();
    if !field.one_of.is_empty() {
        schema["enum"] = json!(field.one_of);
    }
    match field.default {
        None => {}
        Some(FieldDefault::Text(text)) => schema["default"] = text.into(),
        Some(FieldDefault::Boolean(boolean)) => schema["default"] = boolean.into(),
        Some(FieldDefault::Number(number)) => schema["default"] = number.into(),
    }
    schema
}

fn responses(kind: AnswerKind) -> Value {
    let of = |about: &str, schema: &str| {
        let content = json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
        json!({ "description": about, "content": content })
    };
    let any = json!({ "application/json": { "schema": { "type": "object" } } });
    let nothing = json!({ "description": "empty body" });
    let refused = of("the request is refused", "Errors");
    let failed = of("the request could not be answered", "Errors");
    match kind {
        AnswerKind::Envelope => {
            json!({ "200": of("OK", "Answer"), "204": nothing, "4XX": refused, "5XX": failed })
        }
        AnswerKind::Begun => json!({
            "200": of("under way already", "Answer"),
            "202": of("begun", "Answer"),
            "4XX": refused,
            "5XX": failed,
        }),
        // Of health, the status is what a client asks for.
        AnswerKind::Bare => json!({ "default": { "description": "OK, or why not", "content": any } }),
        AnswerKind::Raw(media_type) => {
            let bytes = json!({ media_type: { "schema": { "type": "string", "format": "binary" } } });
            json!({ "200": { "description": "OK", "content": bytes }, "204": nothing, "4XX": refused, "5XX": failed })
        }
    }
}

/// What is answered instead, and why.
fn errors() -> Value {
    json!({
        "type": "object",
        "properties": {
            "errors": { "type": "array", "items": { "type": "string" }, "description": "Why; empty if nothing is there." },
        },
    })
}

/// Vault's envelope.
fn envelope() -> Value {
    json!({
        "type": "object",
        "properties": {
            "request_id": { "type": "string" },
            "lease_id": { "type": "string" },
            "renewable": { "type": "boolean" },
            "lease_duration": { "type": "integer" },
            "data": { "type": "object", "nullable": true },
            "wrap_info": { "type": "object", "nullable": true },
            "warnings": { "type": "array", "items": { "type": "string" }, "nullable": true },
            "auth": { "type": "object", "nullable": true },
        },
        "required": ["request_id", "data"],
    })
}
