//! What requests about tokens may say beside their path.

use crate::model::Field;
use crate::model::FieldDefault::Boolean;

const ACCESSOR: Field = Field::text("accessor", "The token's accessor.");
const INCREMENT: Field =
    Field::duration("increment", "How long it is to live from now: as long as it was made for, if nothing is said.");
const EXPLICIT_MAX_TTL: Field = Field::duration("explicit_max_ttl", "How long it may live, all in all.");
const PERIOD: Field = Field::duration("period", "How long it is renewed for each time, without end.");

/// A token to make.
pub(super) const CREATE: &[Field] = &[
    Field::text("id", "The token itself, chosen by a root token."),
    Field::list("policies", "Its policies: those of the token that makes it, if nothing is said."),
    Field::map("meta", "Notes on it, which are texts."),
    Field::map("metadata", "The same as meta."),
    Field::boolean("no_parent", "Makes it an orphan.").or(Boolean(false)),
    Field::boolean("no_default_policy", "Leaves default out of its policies.").or(Boolean(false)),
    Field::boolean("renewable", "Whether it may be renewed.").or(Boolean(true)),
    Field::duration("ttl", "How long it lives."),
    Field::duration("lease", "The same as ttl."),
    Field::text("type", "Its type.").one_of(&["service"]),
    EXPLICIT_MAX_TTL,
    Field::text("display_name", "For people."),
    Field::integer("num_uses", "How often it may be used."),
    PERIOD,
];

/// A token, by itself.
pub(super) const TOKEN: &[Field] = &[Field::text("token", "The token.")];
/// A token, by its accessor.
pub(super) const BY_ACCESSOR: &[Field] = &[ACCESSOR];
/// For how long a token is renewed.
pub(super) const RENEWAL: &[Field] = &[INCREMENT];

/// A role of tokens.
pub(super) const ROLE: &[Field] = &[
    Field::list("allowed_policies", "Policies its tokens may have, whether who makes them has them or not."),
    Field::list("disallowed_policies", "Policies its tokens must not have."),
    Field::list("allowed_policies_glob", "The same as allowed_policies, with * for anything."),
    Field::list("disallowed_policies_glob", "The same as disallowed_policies, with * for anything."),
    Field::boolean("orphan", "Whether its tokens are orphans.").or(Boolean(false)),
    Field::boolean("renewable", "Whether its tokens may be renewed.").or(Boolean(true)),
    Field::text("path_suffix", "Is added to the path its tokens are made at."),
    PERIOD,
    Field::duration("token_period", "The same as period."),
    EXPLICIT_MAX_TTL,
    Field::duration("token_explicit_max_ttl", "The same as explicit_max_ttl."),
    Field::integer("token_num_uses", "How often its tokens may be used."),
    Field::boolean("token_no_default_policy", "Leaves default out of its tokens' policies.").or(Boolean(false)),
    Field::text("token_type", "The type of its tokens.").one_of(&["service", "default-service"]),
];
