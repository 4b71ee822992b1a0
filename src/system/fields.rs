//! What requests on the system's paths may say, by path and beside it, for the description of the API. A test holds these
//! lists to what the handlers read.

use crate::model::Field;
use crate::model::FieldDefault::{Boolean, Number, Text};

/// The parts that the patterns of `paths` leave open.
pub(super) const PARTS: &[Field] = &[
    Field::text("path", "Where an engine is mounted, or what an audit device is called."),
    Field::text("namespace", "The name of a namespace right below the one addressed."),
    Field::text("subpath", "A namespace below the one addressed."),
    Field::text("type", "The kind of backend.").one_of(&["pkcs11"]),
    Field::text("name", "The name of a managed key, a policy or a quota."),
    Field::text("prefix", "A path below a mount, such as `pki/issue/web`."),
    Field::text("url_lease_id", "A lease's id."),
    Field::text("role_name", "The name of a role of tokens, or of one for logins."),
];

/// The text of a policy.
pub(super) const POLICY: &[Field] = &[
    Field::text("policy", "The policy, in HCL or JSON, or that in base64.").required(),
    Field::text("rules", "The same, as it was called of old."),
];

/// What is asked for what may be done there.
pub(super) const PATHS: &[Field] =
    &[Field::list("paths", "The paths.").required(), Field::list("path", "The same, as it was called of old.")];

/// Whose capabilities are asked for.
pub(super) const TOKEN: &[Field] = &[Field::text("token", "The token.").required()];

/// Whose capabilities are asked for, without the token itself.
pub(super) const ACCESSOR: &[Field] = &[Field::text("accessor", "The accessor of the token.").required()];

/// What is noted of a namespace.
pub(super) const NAMESPACE: &[Field] =
    &[Field::map("custom_metadata", "Notes of the operator's: texts by their names, 64 at the most.")];

/// What Vault is told to unseal it.
pub(super) const UNSEAL: &[Field] = &[
    Field::text("key", "Ignored: the seal gives the root key by itself."),
    Field::boolean("reset", "Ignored, likewise."),
    Field::boolean("migrate", "Ignored, likewise."),
];

/// What unlocks a namespace.
pub(super) const UNLOCK: &[Field] = &[Field::text("unlock_key", "What locking it answered. A root token needs none.")];

/// Which lease.
pub(super) const LEASE: &[Field] =
    &[Field::text("lease_id", "The lease's id, as it was answered, where the path does not say it.")];

/// What every quota says.
pub(super) const QUOTA: &[Field] = &[
    Field::text(
        "path",
        "The namespace, mount or path it lies on; with `*` at its end, what begins so; empty for everything.",
    ),
    Field::boolean("inheritable", "Whether one on a namespace counts what is asked of those below it too."),
    Field::text("type", "Its kind, as the path says it.").one_of(&["rate-limit", "concurrency"]),
];

/// A bound of the requests in a time.
pub(super) const RATE: &[Field] = &[
    Field::number("rate", "Requests in each interval; above 0."),
    Field::duration("interval", "The interval.").or(Number(1)),
    Field::duration("block_interval", "How long all are refused after one was.").or(Number(0)),
    Field::text("group_by", "Whose requests count together: everybody's.").one_of(&["none"]).or(Text("none")),
];

/// A bound of the requests at once.
pub(super) const AT_ONCE: &[Field] = &[Field::integer("requests", "Requests under way at once; above 0.")];

/// An audit device to turn on.
pub(super) const AUDIT_DEVICE: &[Field] = &[
    Field::text("type", "Where it writes.").required().one_of(&["file", "socket", "syslog"]),
    Field::text("description", "A text for people."),
    Field::map("options", "Its settings, by its type: file_path, address, facility and their like."),
    Field::boolean("local", "Of no account: there is no other cluster to copy it to.").or(Boolean(false)),
];

/// A text to look for.
pub(super) const AUDIT_INPUT: &[Field] = &[Field::text("input", "The text.").required()];

/// How a client wants to be told of the daemon's state.
pub(super) const HEALTH: &[Field] = &[
    Field::integer("activecode", "The HTTP status of a daemon that serves.").or(Number(200)),
    Field::integer("sealedcode", "The HTTP status of a daemon that is sealed.").or(Number(503)),
    Field::integer("uninitcode", "The HTTP status of a daemon that is not initialised.").or(Number(501)),
];

/// How many shares of the root key to make. There are none: these are of no account.
pub(super) const SHARES: &[Field] = &[
    Field::integer("secret_shares", "Of no account: the root key has no shares."),
    Field::integer("secret_threshold", "Of no account: the root key has no shares."),
    Field::integer("stored_shares", "Of no account: the root key has no shares."),
    Field::integer("recovery_shares", "Of no account: the root key has no shares."),
    Field::integer("recovery_threshold", "Of no account: the root key has no shares."),
];

const DESCRIPTION: Field = Field::text("description", "A text for people.");
const OPTIONS: Field = Field::map("options", "The engine's own settings, such as the token for keys of its own.");

/// A mount to make.
pub(super) const MOUNT: &[Field] = &[
    Field::text("type", "The engine.").required().one_of(&["pki", "transit"]),
    DESCRIPTION,
    OPTIONS,
    Field::object("config", TUNING, "The mount's settings."),
    Field::text("plugin_name", "Of no account: type says it."),
    Field::boolean("local", "Of no account: there is no other cluster to copy it to.").or(Boolean(false)),
];

/// The settings of every mount.
pub(super) const TUNING: &[Field] = &[
    Field::duration("default_lease_ttl", "How long certificates are valid, if nothing else is said."),
    Field::duration("max_lease_ttl", "The longest a certificate may be valid."),
    Field::list("allowed_managed_keys", "The managed keys that it may use, beside those that any mount may use."),
    Field::list("passthrough_request_headers", "The request headers that reach it: If-Modified-Since, if any."),
    Field::list("allowed_response_headers", "The headers that its answers may have: Last-Modified, if any."),
    Field::list("audit_non_hmac_request_keys", "Members of requests that audit devices write in clear."),
    Field::list("audit_non_hmac_response_keys", "Members of answers that audit devices write in clear."),
    Field::text("listing_visibility", "Who is shown it in sys/internal/ui/mounts: anyone (unauth), or who may use it.")
        .one_of(&["", "hidden", "unauth"]),
];

/// What else may be changed of a mount.
pub(super) const TUNED: &[Field] = &[DESCRIPTION, OPTIONS];

/// How a test signs.
pub(super) const TEST: &[Field] = &[
    Field::boolean("use_pss", "Whether an RSA key signs by PSS."),
    Field::text("hash_algorithm", "The hash that is signed.").or(Text("sha2-256")).one_of(&[
        "sha1", "sha2-224", "sha2-256", "sha2-384", "sha2-512", "sha3-224", "sha3-256", "sha3-384", "sha3-512",
    ]),
];

/// What a description of the API is to be like.
pub(super) const OPENAPI: &[Field] = &[
    Field::boolean("generic_mount_paths", "Names mounts by a parameter, in the place of their paths.")
        .or(Boolean(false)),
    Field::text("context", "A word that is added to every operationId."),
];
