//! What requests at `auth/unix` may say beside their path.

use crate::model::Field;
use crate::model::FieldDefault::Boolean;

/// A login.
pub(super) const LOGIN: &[Field] = &[Field::text("role", "The role.").required()];

/// A role.
pub(super) const ROLE: &[Field] = &[
    Field::list("bound_uids", "Effective user ids: the process must have one of them."),
    Field::list(
        "bound_users",
        "Names of users, looked up now: the process must have the uid of one, or one of bound_uids.",
    ),
    Field::list("bound_gids", "Group ids: the process must have one of them, effective or supplementary."),
    Field::list("bound_groups", "Names of groups, looked up now: the process must be in one, or in one of bound_gids."),
    Field::list(
        "bound_units",
        "Units of the system, such as backup.service, or backup@.service for all its instances: the process must run in one.",
    ),
    Field::boolean("implicit", "Whether it counts without a login, at listeners with implicit_auth.")
        .or(Boolean(false)),
    Field::list("token_policies", "The policies of its tokens, in the role's namespace."),
    Field::duration("token_ttl", "How long its tokens live."),
    Field::duration("token_max_ttl", "How long they may live by renewing."),
    Field::duration("token_period", "How long they are renewed for each time, without end."),
    Field::duration("token_explicit_max_ttl", "How long they may live, all in all."),
    Field::integer("token_num_uses", "How often they may be used."),
    Field::boolean("token_no_default_policy", "Leaves default out of their policies.").or(Boolean(false)),
    Field::text("token_type", "Their type.").one_of(&["service", "default-service"]),
];
