//! Numbers of users and groups that roles of `auth/unix` name, as this host's name service has them (nsswitch.conf(5)).
//!
//! They are asked for when a role is written, and not at logins: a login then depends on no directory of users, and whoever is
//! given a name of old, with another number, has nothing by it.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::identity::NamedId;
use crate::model::{Data, Fault, Fields};

/// Look-ups at once: a directory that hangs holds up so many threads, and no more.
const AT_ONCE: usize = 2;
/// Names of one list.
const NAMES_MAX: usize = 256;
/// The longest name, in bytes.
const NAME_BYTES: usize = 256;

/// Asks for them.
#[derive(Clone, Debug)]
pub(super) struct Names(Arc<Semaphore>);

/// What a role is said to be for, by names; `None` where nothing is said.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) users: Option<Vec<NamedId>>,
    pub(super) groups: Option<Vec<NamedId>>,
}

impl Default for Names {
    fn default() -> Names {
        Names(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Names {
    /// The users and groups that a role is said to be for.
    ///
    /// # Errors
    /// [`Fault::InvalidRequest`] if there is no user or group of a name, or it cannot be found out.
    pub(super) async fn of(&self, data: &Data) -> Result<Named, Fault> {
        let mut fields = Fields::new(data);
        let users = names("bound_users", "bound_uids", &mut fields)?;
        let groups = names("bound_groups", "bound_gids", &mut fields)?;
        if users.is_none() && groups.is_none() {
            return Ok(Named::default());
        }
        let gone = || Fault::internal("nobody looks up names any more");
        let turn = Arc::clone(&self.0).acquire_owned().await.map_err(|_| gone())?;
        let found = tokio::task::spawn_blocking(move || {
            // Kept until it has ended, even where nobody waits for it any more.
            let _turn = turn;
            Ok(Named { users: found("user", users, user)?, groups: found("group", groups, group)? })
        });
        found.await.map_err(|_| gone())?
    }
}

fn names(field: &'static str, numbers: &str, fields: &mut Fields<'_>) -> Result<Option<Vec<String>>, Fault> {
    let Some(names) = fields.list(field)? else { return Ok(None) };
    if names.len() > NAMES_MAX {
        return Err(Fault::invalid(format!("{field}: no list of a role has more than {NAMES_MAX} items")));
    }
    for name in &names {
        if name.parse::<u64>().is_ok() {
            return Err(Fault::invalid(format!("{field}: {name:?} is a number: set {numbers}")));
        }
        if !(1..=NAME_BYTES).contains(&name.len()) || name.contains([':', '/', '\n', '\0']) {
            return Err(Fault::invalid(format!("{field}: {name:?} is no name")));
        }
    }
    Ok(Some(names))
}

fn found(what: &str, names: Option<Vec<String>>, ask: fn(&str) -> Option<u32>) -> Result<Option<Vec<NamedId>>, Fault> {
    let Some(names) = names else { return Ok(None) };
    let look_up = |name: String| match ask(&name).filter(|id| *id != u32::MAX) {
        Some(id) => Ok(NamedId { name, id }),
        // Which of the two it is, the C library does not always know either.
        None => Err(Fault::invalid(format!(
            "there is no {what} {name:?} on this host, or its name service (nsswitch.conf) does not tell: make it first, or \
             give its number"
        ))),
    };
    names.into_iter().map(look_up).collect::<Result<_, _>>().map(Some)
}

fn user(name: &str) -> Option<u32> {
    uzers::get_user_by_name(name).map(|user| user.uid())
}

fn group(name: &str) -> Option<u32> {
    uzers::get_group_by_name(name).map(|group| group.gid())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn of(data: serde_json::Value) -> Result<Named, String> {
        Names::default().of(data.as_object().unwrap()).await.map_err(|fault| fault.to_string())
    }

    #[tokio::test]
    async fn names_are_those_of_this_host() {
        let named = of(json!({"bound_users": "root,daemon", "bound_groups": ["root"]})).await.unwrap();
        let root = NamedId { name: "root".into(), id: 0 };
        let users = named.users.unwrap();
        assert_eq!((&users[0], users.len(), users[1].name.as_str()), (&root, 2, "daemon"));
        assert_eq!(named.groups.unwrap(), [root]);
        let none = of(json!({"bound_uids": 1})).await.unwrap();
        assert!(none.users.is_none() && none.groups.is_none());
        assert_eq!(of(json!({"bound_users": []})).await.unwrap().users, Some(vec![]));
    }

    #[tokio::test]
    async fn what_is_no_name_of_this_host_is_refused_by_name() {
        for (data, told) in [
            (json!({"bound_users": "root,no-such-user"}), "no user \"no-such-user\" on this host"),
            (json!({"bound_groups": "no-such-group"}), "no group \"no-such-group\" on this host"),
            (json!({"bound_users": "1000"}), "set bound_uids"),
            (json!({"bound_groups": ["0"]}), "set bound_gids"),
            (json!({"bound_users": ["a:b"]}), "is no name"),
            (json!({"bound_users": ["a\u{0}b"]}), "is no name"),
            (json!({"bound_users": ["a".repeat(257)]}), "is no name"),
            (json!({"bound_users": vec!["root"; 257]}), "256"),
        ] {
            let refused = of(data).await.unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
    }
}
