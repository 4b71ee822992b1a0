//! `sys/wrapping/*`: answers behind tokens that are good once. The token is the caller's own, or one that the data names.

use serde_json::{Value, json};

use super::{Call, System};
use crate::model::{Data, Fault, Fields, Response, Secret, TokenId};

/// `wrap`: what the request says, to be kept behind a token.
pub(super) fn wrap(call: &Call, data: &Data) -> Result<Response, Fault> {
    match call.is_wrapped {
        true => Ok(Response::data(data.clone())),
        false => Err(Fault::invalid("endpoint requires response wrapping to be used")),
    }
}

impl System {
    /// `unwrap`: the answer, which is gone then.
    pub(super) async fn unwrap(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        self.identity.unwrap(self.wrapping_token(call, data)?).await
    }

    /// `lookup`: what is known of it, which it stays.
    pub(super) fn lookup_wrapping(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        let token = self.identity.wrapping(self.wrapping_token(call, data)?)?;
        let known = json!({
            "creation_path": token.path,
            "creation_time": super::time_text(token.creation_time),
            "creation_ttl": token.creation_ttl,
        });
        match known {
            Value::Object(known) => Ok(Response::data(known)),
            _ => Err(Fault::internal("an object is an object")),
        }
    }

    /// `rewrap`: another token for it, which lives as long as the first was made for.
    pub(super) async fn rewrap(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        self.identity.rewrap(self.wrapping_token(call, data)?).await
    }

    fn wrapping_token(&self, call: &Call, data: &Data) -> Result<TokenId, Fault> {
        let named =
            Fields::new(data).filled("token")?.map(|token| self.identity.identify(&Secret::from(token.as_str())));
        let id = named.or(call.caller.token).ok_or_else(|| Fault::invalid("missing token"))?;
        // Only who has it is told that its namespace is locked.
        self.namespaces.check_unlocked(&self.identity.wrapping(id)?.namespace)?;
        Ok(id)
    }
}
