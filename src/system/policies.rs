//! `sys/policies/acl` and `sys/policy`: policies written and read; `sys/capabilities`: what they grant.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::{Call, System};
use crate::apart;
use crate::identity::Token;
use crate::model::{Caller, Data, Fault, Fields, Response, Secret};

/// Paths of one question.
const PATHS_MAX: usize = 1_000;

impl System {
    pub(super) fn list_policies(&self, call: &Call) -> Response {
        Response::keys(self.identity.policies().names(&call.namespace))
    }

    /// As `sys/policy` has it: under both names, and beside the data, too.
    pub(super) fn list_policies_as_of_old(&self, call: &Call) -> Response {
        let names = json!(self.identity.policies().names(&call.namespace));
        let data = Data::from_iter([("keys".to_owned(), names.clone()), ("policies".to_owned(), names)]);
        Response::Data { data, warnings: Vec::new(), mirrored: true }
    }

    pub(super) fn read_policy(&self, call: &Call, name: &str) -> Result<Response, Fault> {
        let (name, text) = self.policy(call, name)?;
        Ok(Response::data(Data::from_iter([("name".to_owned(), name.into()), ("policy".to_owned(), text.into())])))
    }

    pub(super) fn read_policy_as_of_old(&self, call: &Call, name: &str) -> Result<Response, Fault> {
        let (name, text) = self.policy(call, name)?;
        let data = [("name", name.into()), ("policy", Value::from(text.clone())), ("rules", text.into())];
        let data = data.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Response::Data { data, warnings: Vec::new(), mirrored: true })
    }

    fn policy(&self, call: &Call, name: &str) -> Result<(String, String), Fault> {
        let name = name.to_lowercase();
        let text = self.identity.policies().text(&call.namespace, &name).ok_or_else(Fault::absent)?;
        Ok((name, text))
    }

    pub(super) async fn write_policy(&self, call: &Call, name: &str, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, &["name"]);
        let (policy, rules) = (fields.filled("policy")?, fields.filled("rules")?);
        let text = policy.or(rules).ok_or_else(|| Fault::invalid("'policy' parameter not supplied or empty"))?;
        let decoded = BASE64_STANDARD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = decoded.unwrap_or(text);
        self.identity.policies().write(&call.namespace, name, &text).await?;
        tracing::info!(namespace = %call.namespace, policy = name, uid = call.caller.peer.uid, "policy written");
        let warnings = fields.warnings();
        Ok(if warnings.is_empty() { Response::Empty } else { Response::with_warnings(Data::new(), warnings) })
    }

    pub(super) async fn delete_policy(&self, call: &Call, name: &str) -> Result<Response, Fault> {
        self.identity.policies().delete(&call.namespace, name).await?;
        tracing::info!(namespace = %call.namespace, policy = name, uid = call.caller.peer.uid, "policy deleted");
        Ok(Response::Empty)
    }

    pub(super) async fn own_capabilities(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        self.answer_capabilities(call, call.caller.clone(), paths(&mut Fields::new(data))?).await
    }

    pub(super) async fn capabilities_by_accessor(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(data);
        let accessor = fields.filled("accessor")?.ok_or_else(|| Fault::invalid("missing accessor"))?;
        let found = self.identity.by_accessor(&accessor, &call.namespace);
        let (id, _) = found.ok_or_else(|| Fault::invalid("invalid accessor"))?;
        self.answer_capabilities(call, Caller { token: Some(id), ..call.caller.clone() }, paths(&mut fields)?).await
    }

    pub(super) async fn capabilities(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(data);
        let token = fields.filled("token")?.ok_or_else(|| Fault::invalid("missing token"))?;
        let caller =
            Caller { token: Some(self.identity.identify(&Secret::from(token.as_str()))), ..call.caller.clone() };
        // One that has nothing to do with this namespace is as unknown as a wrong one.
        let is_known = |token: Arc<Token>| token.reaches(&call.namespace) || token.namespace.is_below(&call.namespace);
        if !self.identity.token(&caller, &call.namespace).is_ok_and(is_known) {
            return Err(Fault::invalid("invalid token"));
        }
        self.answer_capabilities(call, caller, paths(&mut fields)?).await
    }

    async fn answer_capabilities(&self, call: &Call, caller: Caller, paths: Vec<String>) -> Result<Response, Fault> {
        let (identity, namespace) = (self.identity.clone(), call.namespace.clone());
        let judge = move || {
            let mut data = Data::new();
            for path in &paths {
                let names = identity.capabilities(&caller, &namespace, path.trim_start_matches('/'))?;
                if paths.len() == 1 {
                    data.insert("capabilities".into(), json!(names));
                }
                data.insert(path.clone(), json!(names));
            }
            Ok(Response::Data { data, warnings: Vec::new(), mirrored: true })
        };
        // Many paths and many rules are not for a thread that others wait for.
        apart::run(&call.namespace, judge).await?
    }

    /// `sys/internal/ui/resultant-acl`: every rule of the caller's policies, as they are together.
    pub(super) fn grants(&self, call: &Call) -> Result<Response, Fault> {
        let (mut exact, mut wild) = (Data::new(), Data::new());
        let acl = self.identity.grants(&call.caller, &call.namespace)?;
        for (path, is_wild, permissions) in acl.iter().flat_map(|acl| acl.all()) {
            let grants = json!({ "capabilities": permissions.capabilities().names() });
            let path = if is_wild { path.strip_suffix('*').map(str::to_owned).unwrap_or(path) } else { path };
            if is_wild { &mut wild } else { &mut exact }.insert(path, grants);
        }
        let data = json!({ "root": acl.is_none(), "exact_paths": exact, "glob_paths": wild });
        let Value::Object(data) = data else { return Err(Fault::internal("an object is an object")) };
        Ok(Response::data(data))
    }
}

fn paths(fields: &mut Fields<'_>) -> Result<Vec<String>, Fault> {
    let (paths, old) = (fields.list("paths")?, fields.list("path")?);
    let paths = paths.or(old).unwrap_or_default();
    match paths.len() {
        0 => Err(Fault::invalid("paths must be supplied")),
        1..=PATHS_MAX => Ok(paths),
        many => Err(Fault::invalid(format!("{many} paths; at most {PATHS_MAX} are asked for at once"))),
    }
}
