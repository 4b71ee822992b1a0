//! What requests to this engine may say, by path and beside it, for the description of the API. A test holds these lists to
//! what the handlers read.

use crate::model::Field;
use crate::model::FieldDefault::{Boolean, Number, Text};

/// The parts that the patterns of `paths` leave open.
pub(super) const PARTS: &[Field] = &[
    Field::text("role", "The name of a role."),
    Field::text("name", "The name of a role."),
    Field::text("issuer_ref", "An issuer's id or name, or `default`."),
    Field::text("key_ref", "A key's id or name, or `default`."),
    Field::text("serial", "A certificate's serial number, in hexadecimal pairs with colons or hyphens."),
    Field::text("req", "An OCSP request in base64."),
    Field::text("exported", "Where the key comes from.").one_of(&["kms", "internal", "existing", "exported"]),
];

const USE_PSS: Field = Field::boolean("use_pss", "Whether an RSA key signs by PSS.").or(Boolean(false));
const SIGNATURE_BITS: Field =
    Field::integer("signature_bits", "The size of the hash that is signed: 256, 384 or 512; 0 suits the key.")
        .or(Number(0));
const NOT_AFTER: Field = Field::text("not_after", "When it ends, as RFC 3339 has it, in the place of ttl.");
const NOT_BEFORE: Field = Field::duration("not_before_duration", "How long before now it begins.").or(Number(30));
const KEY_NAME: Field = Field::text("key_name", "The name that the key gets in this mount.");
const KEY_TYPES: &[&str] = &["rsa", "ec", "ed25519", "ml-dsa"];

/// A request for a certificate.
pub(super) const CSR: &[Field] = &[Field::text("csr", "A certificate request in PEM.").required()];

/// Who signs, where the path does not say it.
pub(super) const ISSUER: &[Field] = &[Field::text("issuer_ref", "The issuer that signs.").or(Text("default"))];

/// How certificates are answered.
pub(super) const FORMAT: &[Field] =
    &[Field::text("format", "How certificates are written.").or(Text("pem")).one_of(&["pem", "der", "pem_bundle"])];

/// How a private key is answered; of no account where none is.
pub(super) const PRIVATE_KEY_FORMAT: &[Field] = &[Field::text("private_key_format", "How a private key is written.")
    .or(Text("der"))
    .one_of(&["der", "pem", "pkcs8"])];

/// The names of a certificate.
pub(super) const NAMES: &[Field] = &[
    Field::text("common_name", "The subject's common name."),
    Field::list("alt_names", "DNS names and email addresses."),
    Field::list("ip_sans", "IP addresses."),
    Field::list("uri_sans", "URIs."),
    Field::list("other_sans", "Other names: `oid;UTF8:text`."),
    Field::boolean("exclude_cn_from_sans", "Keeps the common name out of the alternative names.").or(Boolean(false)),
    Field::text("serial_number", "The subject's serialNumber attribute."),
];

/// What is asked of a leaf beside its names.
pub(super) const LEAF: &[Field] = &[
    Field::duration("ttl", "How long it is valid."),
    NOT_AFTER,
    Field::boolean("remove_roots_from_chain", "Leaves roots out of ca_chain.").or(Boolean(false)),
    Field::list("user_ids", "The subject's userId attributes."),
];

/// What `sign-verbatim` takes beside a request.
pub(super) const VERBATIM: &[Field] = &[
    Field::list("key_usage", "Usages of the key, where the request names none."),
    Field::list("ext_key_usage", "Extended usages, where the request names none."),
    Field::list("ext_key_usage_oids", "Extended usages by their numbers, where the request names none."),
    Field::duration("ttl", "How long it is valid."),
    NOT_AFTER,
    SIGNATURE_BITS,
    USE_PSS,
    Field::boolean("remove_roots_from_chain", "Leaves roots out of ca_chain.").or(Boolean(false)),
];

/// Attributes of a subject.
pub(super) const SUBJECT: &[Field] = &[
    Field::list("ou", "Organisational units."),
    Field::list("organization", "Organisations."),
    Field::list("country", "Countries, in two letters each."),
    Field::list("locality", "Places."),
    Field::list("province", "Provinces."),
    Field::list("street_address", "Streets."),
    Field::list("postal_code", "Postal codes."),
];

/// A role, beside [`SUBJECT`].
pub(super) const ROLE: &[Field] = &[
    Field::text("issuer_ref", "The issuer that signs.").or(Text("default")),
    Field::duration("ttl", "How long certificates are valid; 0 is the mount's default.").or(Number(0)),
    Field::duration("max_ttl", "The longest a certificate may be valid; 0 is the mount's maximum.").or(Number(0)),
    Field::boolean("allow_localhost", "Allows localhost.").or(Boolean(true)),
    Field::list("allowed_domains", "Domains that may be asked for, as the next fields have it."),
    Field::boolean("allow_bare_domains", "Allows the domains themselves.").or(Boolean(false)),
    Field::boolean("allow_subdomains", "Allows what is below the domains.").or(Boolean(false)),
    Field::boolean("allow_glob_domains", "Takes `*` in allowed_domains for any letters.").or(Boolean(false)),
    Field::boolean("allow_wildcard_certificates", "Allows names that begin with `*.`.").or(Boolean(true)),
    Field::boolean("allow_any_name", "Allows every name.").or(Boolean(false)),
    Field::boolean("enforce_hostnames", "Asks names to be host names.").or(Boolean(true)),
    Field::boolean("allow_ip_sans", "Allows IP addresses.").or(Boolean(true)),
    Field::list("allowed_uri_sans", "Patterns of URIs that may be asked for."),
    Field::list("allowed_other_sans", "Patterns of other names that may be asked for."),
    Field::list("allowed_serial_numbers", "Patterns of serialNumber attributes that may be asked for."),
    Field::list("allowed_user_ids", "Patterns of userId attributes that may be asked for."),
    Field::boolean("server_flag", "For TLS servers.").or(Boolean(true)),
    Field::boolean("client_flag", "For TLS clients.").or(Boolean(true)),
    Field::boolean("code_signing_flag", "For signing code.").or(Boolean(false)),
    Field::boolean("email_protection_flag", "For email.").or(Boolean(false)),
    Field::text("key_type", "The kind of keys.").or(Text("rsa")).one_of(&["rsa", "ec", "ed25519", "ml-dsa", "any"]),
    Field::integer("key_bits", "The size of keys, or an ML-DSA parameter set; 0 suits the kind.").or(Number(0)),
    SIGNATURE_BITS,
    USE_PSS,
    Field::list("key_usage", "Usages of the key: DigitalSignature, KeyAgreement and KeyEncipherment if it is absent."),
    Field::list("ext_key_usage", "More extended usages."),
    Field::list("ext_key_usage_oids", "More extended usages, by their numbers."),
    Field::boolean("use_csr_common_name", "Takes the common name from the request.").or(Boolean(true)),
    Field::boolean("use_csr_sans", "Takes the alternative names from the request.").or(Boolean(true)),
    Field::boolean("generate_lease", "Gives each certificate a lease, whose revocation revokes it.").or(Boolean(false)),
    Field::boolean("no_store", "Stores no certificates: they can be revoked only by showing them.").or(Boolean(false)),
    Field::boolean("require_cn", "Asks for a common name.").or(Boolean(true)),
    Field::list(
        "policy_identifiers",
        "Numbers of certificate policies; or JSON: a list of objects with oid, and cps or notice.",
    ),
    Field::boolean("basic_constraints_valid_for_non_ca", "Writes basic constraints into leaves.").or(Boolean(false)),
    NOT_BEFORE,
    NOT_AFTER,
    Field::list("cn_validations", "How a common name is judged: email and hostname, or disabled."),
    Field::text("serial_number_source", "Where a serialNumber attribute may come from.")
        .or(Text("json-csr"))
        .one_of(&["json-csr", "json"]),
    Field::text("lint", "What certificates are held to.").one_of(&["rfc5280", "cabf-serverauth"]),
];

/// A key that is new to the mount, where a path says where it comes from.
pub(super) const CA_KEY: &[Field] = &[
    Field::text("managed_key_name", "The managed key of type kms, by its name."),
    Field::text("managed_key_id", "The managed key of type kms, by its UUID."),
    Field::text("key_type", "The kind of a key of type internal.").or(Text("rsa")).one_of(KEY_TYPES),
    Field::integer("key_bits", "The size of a key of type internal, or its ML-DSA parameter set; 0 suits it.")
        .or(Number(0)),
];

/// The key of a certificate authority that is in the mount already.
pub(super) const KEY_REF: &[Field] = &[Field::text("key_ref", "The key of type existing.").or(Text("default"))];

/// What signs and how, of certificate authorities.
pub(super) const CA_SIGNATURE: &[Field] =
    &[SIGNATURE_BITS, USE_PSS, Field::list("key_usage", "DigitalSignature, to add it to CertSign and CRLSign.")];

/// How long the certificate of an authority is valid, and how far it goes.
pub(super) const CA_REACH: &[Field] = &[
    Field::duration("ttl", "How long it is valid."),
    NOT_AFTER,
    NOT_BEFORE,
    Field::integer("max_path_length", "The most authorities below it; -1 is no limit of its own.").or(Number(-1)),
    Field::list("permitted_dns_domains", "Domains it may certify."),
    Field::list("permitted_ip_ranges", "Networks it may certify."),
    Field::list("permitted_email_addresses", "Email addresses and their domains it may certify."),
    Field::list("permitted_uri_domains", "Domains of URIs it may certify."),
    Field::list("excluded_dns_domains", "Domains it must not certify."),
    Field::list("excluded_ip_ranges", "Networks it must not certify."),
    Field::list("excluded_email_addresses", "Email addresses and their domains it must not certify."),
    Field::list("excluded_uri_domains", "Domains of URIs it must not certify."),
];

/// What only roots take.
pub(super) const ROOT: &[Field] = &[Field::text("issuer_name", "The name that the issuer gets in this mount.")];

/// What only requests for intermediates take.
pub(super) const INTERMEDIATE: &[Field] =
    &[Field::boolean("add_basic_constraints", "Asks for basic constraints.").or(Boolean(false))];

/// What only the signing of intermediates takes.
pub(super) const SIGN_INTERMEDIATE: &[Field] = &[
    Field::boolean("use_csr_values", "Takes names, subject, key usages and other extensions from the request.")
        .or(Boolean(false)),
    Field::boolean("enforce_leaf_not_after_behavior", "Judges its end as a leaf's.").or(Boolean(false)),
    Field::text("skid", "The subject key identifier, in hexadecimal."),
];

/// What is signed again by another issuer.
pub(super) const SELF_ISSUED: &[Field] = &[
    Field::text("certificate", "A self-issued certificate in PEM.").required(),
    Field::boolean("require_matching_certificate_algorithms", "Refuses an issuer that signs by another algorithm.")
        .or(Boolean(false)),
];

/// A certificate to revoke.
pub(super) const REVOKE: &[Field] = &[
    Field::text("serial_number", "Its serial number, in hexadecimal pairs with colons or hyphens."),
    Field::text("certificate", "Itself in PEM, in the place of its serial number."),
];

/// What shows that a client holds its key.
pub(super) const PRIVATE_KEY: &[Field] = &[Field::text("private_key", "Its private key in PEM.").required()];

/// Part of a long list.
pub(super) const PAGE: &[Field] = &[
    Field::text("after", "The last serial number of the part before."),
    Field::integer("limit", "The most to answer; 0 is as many as there may be at once."),
];

/// An issuer's settings, beside [`URLS`].
pub(super) const ISSUER_SETTINGS: &[Field] =
    &[
        Field::text("issuer_name", "Its name in this mount."),
        Field::text("leaf_not_after_behavior", "What becomes of a leaf that would outlive it.")
            .or(Text("err"))
            .one_of(&["err", "truncate", "permit", "always_enforce_err"]),
        Field::list("manual_chain", "Issuers of its chain, itself first, in the place of the chain found."),
        Field::list("usage", "What it may do: read-only, issuing-certificates, crl-signing, ocsp-signing."),
        Field::text("revocation_signature_algorithm", "How CRLs and OCSP answers are signed."),
        Field::boolean("enable_aia_url_templating", "Replaces `{{issuer_id}}` and its like in the URLs.")
            .or(Boolean(false)),
    ];

/// URLs in certificates.
pub(super) const URLS: &[Field] = &[
    Field::list("issuing_certificates", "Where the issuer's certificate is."),
    Field::list("crl_distribution_points", "Where the CRL is."),
    Field::list("delta_crl_distribution_points", "Where the delta CRL is."),
    Field::list("ocsp_servers", "Where OCSP requests go."),
];

/// What only the mount's own URLs take.
pub(super) const TEMPLATING: &[Field] =
    &[Field::boolean("enable_templating", "Replaces `{{issuer_id}}` and its like in the URLs.").or(Boolean(false))];

/// Certificates to add as issuers.
pub(super) const BUNDLE: &[Field] = &[Field::text("pem_bundle", "Certificates in PEM.").required()];

/// What came back for a request for an intermediate.
pub(super) const SIGNED: &[Field] = &[Field::text("certificate", "Certificates in PEM.").required()];

/// A key's name.
pub(super) const KEY: &[Field] = &[KEY_NAME];

/// Which issuer takes over.
pub(super) const REPLACE: &[Field] = &[Field::text("default", "The issuer that becomes the default.").or(Text("next"))];

/// The default issuer.
pub(super) const DEFAULT_ISSUER: &[Field] = &[
    Field::text("default", "An issuer's id or name.").required(),
    Field::boolean("default_follows_latest_issuer", "Makes every new root the default.").or(Boolean(false)),
];

/// The default key.
pub(super) const DEFAULT_KEY: &[Field] = &[Field::text("default", "A key's id or name.").required()];

/// How CRLs and OCSP answers are made.
pub(super) const CRL: &[Field] = &[
    Field::text("expiry", "How long a CRL is good for, such as 72h."),
    Field::boolean("disable", "Makes no CRLs."),
    Field::boolean("ocsp_disable", "Answers no OCSP requests."),
    Field::text("ocsp_expiry", "How long an OCSP answer is good for, such as 12h; 0 does not say."),
    Field::boolean("auto_rebuild", "Makes CRLs by the clock, not at each revocation."),
    Field::text("auto_rebuild_grace_period", "How long before its end a CRL is made anew by the clock."),
    Field::boolean("enable_delta", "Makes delta CRLs."),
    Field::text("delta_rebuild_interval", "How often a delta CRL is made while certificates are revoked."),
    Field::integer("max_crl_entries", "The most entries of one CRL; negative is no bound."),
];

/// Where clients find the mount.
pub(super) const CLUSTER: &[Field] = &[
    Field::text("path", "The URL of the mount."),
    Field::text("aia_path", "The URL of the mount for certificates to name."),
];

/// A CRL that is not the mount's own.
pub(super) const CRL_WISH: &[Field] = &[
    Field::integer("crl_number", "Its number.").or(Number(0)),
    Field::integer("delta_crl_base_number", "The number of the CRL it is a delta to; -1 for a complete one.")
        .or(Number(-1)),
    Field::text("next_update", "How long it is good for.").or(Text("72h")),
    Field::text("format", "How it is written.").or(Text("pem")).one_of(&["pem", "der"]),
];

/// CRLs to put together.
pub(super) const CRLS: &[Field] = &[Field::list("crls", "CRLs in PEM.").required()];

/// What a CRL is to list.
pub(super) const CRL_ENTRIES: &[Field] = &[
    Field::objects("revoked_certs", REVOKED_CERTIFICATE, "The entries."),
    Field::objects("extensions", CRL_EXTENSION, "Extensions of the CRL."),
];
const REVOKED_CERTIFICATE: &[Field] = &[
    Field::text("serial_number", "The certificate's serial number."),
    Field::text("revocation_time", "When it was revoked, as RFC 3339 has it or in Unix seconds."),
    Field::objects("extensions", CRL_EXTENSION, "Extensions of the entry."),
];
const CRL_EXTENSION: &[Field] = &[
    Field::text("id", "The extension's OID."),
    Field::boolean("critical", "Whether it is critical.").or(Boolean(false)),
    Field::text("value", "DER of its value, in base64."),
];

/// What is tidied.
pub(super) const TIDY: &[Field] = &[
    Field::boolean("tidy_cert_store", "Expired certificates."),
    Field::boolean("tidy_revoked_certs", "Revocations of expired certificates."),
    Field::boolean("tidy_revoked_cert_issuer_associations", "Revocations whose issuer is not known."),
    Field::boolean("tidy_expired_issuers", "Expired issuers, but for the default one."),
    Field::boolean("tidy_move_legacy_ca_bundle", "Of no account here."),
    Field::boolean("tidy_revocation_queue", "Of no account here."),
    Field::boolean("tidy_cross_cluster_revoked_certs", "Of no account here."),
    Field::boolean("tidy_acme", "Of no account here."),
    Field::boolean("tidy_cmpv2_nonce_store", "Of no account here."),
    Field::boolean("tidy_cert_metadata", "Not possible."),
    Field::duration("safety_buffer", "How long after its end a certificate stays.").or(Number(259200)),
    Field::duration("issuer_safety_buffer", "How long after its end an issuer stays.").or(Number(31536000)),
    Field::duration("revocation_queue_safety_buffer", "Of no account here.").or(Number(172800)),
    Field::duration("acme_account_safety_buffer", "Of no account here.").or(Number(2592000)),
    Field::text("pause_duration", "A pause between certificates.").or(Text("0s")),
];
/// An older name of `tidy_revoked_certs`.
pub(super) const TIDY_OLD: &[Field] = &[Field::boolean("tidy_revocation_list", "As tidy_revoked_certs.")];

/// Tidying by the clock.
pub(super) const AUTO_TIDY: &[Field] = &[
    Field::boolean("enabled", "Whether it is done."),
    Field::duration("interval_duration", "How often.").or(Number(43200)),
    Field::duration("min_startup_backoff_duration", "How long after a start at least.").or(Number(300)),
    Field::duration("max_startup_backoff_duration", "How long after a start at most.").or(Number(900)),
    Field::boolean("maintain_stored_certificate_counts", "Counts certificates."),
    Field::boolean("publish_stored_certificate_count_metrics", "Shows the counts as metrics."),
];
