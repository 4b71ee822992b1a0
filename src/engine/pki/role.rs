//! Roles: what certificates may be asked for, and what they look like. The stored form is the one read back.

use serde::{Deserialize, Serialize};

use super::algorithm::unsupported_bits;
use super::lint::Rules;
use super::subject::SubjectFields;
use super::{names, policy_identifiers, usage, validity};
use crate::engine::name::is_name;
use crate::model::{Curve, Data, Fault, Fields, KeyKind, MlDsa};
use crate::store::Versioned;

/// The most items of one list of a role.
const LIST_MAX: usize = 1000;

/// A role, by the names of Vault's fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Role {
    pub(super) issuer_ref: String,
    /// Seconds; 0 is the mount's default.
    pub(super) ttl: u64,
    /// Seconds; 0 is the mount's maximum.
    pub(super) max_ttl: u64,
    pub(super) allow_localhost: bool,
    pub(super) allowed_domains: Vec<String>,
    pub(super) allow_bare_domains: bool,
    pub(super) allow_subdomains: bool,
    pub(super) allow_glob_domains: bool,
    pub(super) allow_wildcard_certificates: bool,
    pub(super) allow_any_name: bool,
    pub(super) enforce_hostnames: bool,
    pub(super) allow_ip_sans: bool,
    pub(super) allowed_uri_sans: Vec<String>,
    pub(super) allowed_other_sans: Vec<String>,
    pub(super) allowed_serial_numbers: Vec<String>,
    pub(super) allowed_user_ids: Vec<String>,
    pub(super) server_flag: bool,
    pub(super) client_flag: bool,
    pub(super) code_signing_flag: bool,
    pub(super) email_protection_flag: bool,
    pub(super) key_type: KeyType,
    pub(super) key_bits: u32,
    pub(super) signature_bits: u32,
    pub(super) use_pss: bool,
    pub(super) key_usage: Vec<String>,
    pub(super) ext_key_usage: Vec<String>,
    pub(super) ext_key_usage_oids: Vec<String>,
    pub(super) use_csr_common_name: bool,
    pub(super) use_csr_sans: bool,
    #[serde(flatten)]
    pub(super) subject: SubjectFields,
    #[serde(default)]
    pub(super) generate_lease: bool,
    pub(super) no_store: bool,
    pub(super) require_cn: bool,
    /// Each a number, or Vault's JSON of one with its qualifiers.
    pub(super) policy_identifiers: Vec<String>,
    pub(super) basic_constraints_valid_for_non_ca: bool,
    /// Seconds.
    pub(super) not_before_duration: u64,
    /// RFC 3339, or empty.
    pub(super) not_after: String,
    pub(super) cn_validations: Vec<CnValidation>,
    pub(super) serial_number_source: SerialNumberSource,
    /// What its certificates are held to. Not a field of Vault's.
    #[serde(default)]
    pub(super) lint: Rules,
}

/// The kinds of keys a role certifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum KeyType {
    Rsa,
    Ec,
    Ed25519,
    #[serde(rename = "ml-dsa")]
    MlDsa,
    Any,
}

/// How a common name is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CnValidation {
    Email,
    Hostname,
    Disabled,
}

/// Where a subject's serialNumber may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SerialNumberSource {
    /// The request's field, else the CSR.
    JsonCsr,
    /// The request's field only.
    Json,
}

impl Versioned for Role {
    const VERSION: u16 = 1;
}

/// Fields of Vault's roles that need what is not built, and what to do instead: refused when set, and read back as they are by
/// default.
const NOT_BUILT: [(&str, &str); 4] = [
    ("allowed_domains_template", NO_TEMPLATES),
    ("allowed_uri_sans_template", NO_TEMPLATES),
    ("no_store_metadata", "no metadata of certificates is kept here; leave it out"),
    (
        "allow_token_displayname",
        "whoever makes a token chooses its name, which says nothing of what certificates it may have; name them in \
         allowed_domains",
    ),
];
const NO_TEMPLATES: &str = "templates are filled in from identity entities, and there are none here; make a role for each client, \
                            and name in it what that client may have";

/// Vault's warning: who wants a lease of what is not stored gets none.
const NO_LEASE_UNSTORED: &str = "mutually exclusive values no_store=true and generate_lease=true were both specified; \
                                 no_store=true takes priority";

impl Role {
    /// Reads a whole role; what is absent takes its default. Also answers warnings.
    pub(super) fn parse(data: &Data) -> Result<(Role, Vec<String>), Fault> {
        let mut fields = Fields::below(data, &["name"]);
        for (name, why) in NOT_BUILT {
            fields.refuse(&[name]).map_err(|_| Fault::invalid(format!("{name} cannot be set: {why}")))?;
        }
        let mut flag = |name, default| Ok::<bool, Fault>(fields.boolean(name)?.unwrap_or(default));
        let role = Role {
            issuer_ref: String::new(),
            ttl: 0,
            max_ttl: 0,
            allow_localhost: flag("allow_localhost", true)?,
            allowed_domains: Vec::new(),
            allow_bare_domains: flag("allow_bare_domains", false)?,
            allow_subdomains: flag("allow_subdomains", false)?,
            allow_glob_domains: flag("allow_glob_domains", false)?,
            allow_wildcard_certificates: flag("allow_wildcard_certificates", true)?,
            allow_any_name: flag("allow_any_name", false)?,
            enforce_hostnames: flag("enforce_hostnames", true)?,
            allow_ip_sans: flag("allow_ip_sans", true)?,
            allowed_uri_sans: Vec::new(),
            allowed_other_sans: Vec::new(),
            allowed_serial_numbers: Vec::new(),
            allowed_user_ids: Vec::new(),
            server_flag: flag("server_flag", true)?,
            client_flag: flag("client_flag", true)?,
            code_signing_flag: flag("code_signing_flag", false)?,
            email_protection_flag: flag("email_protection_flag", false)?,
            key_type: KeyType::Rsa,
            key_bits: 0,
            signature_bits: 0,
            use_pss: flag("use_pss", false)?,
            key_usage: Vec::new(),
            ext_key_usage: Vec::new(),
            ext_key_usage_oids: Vec::new(),
            use_csr_common_name: flag("use_csr_common_name", true)?,
            use_csr_sans: flag("use_csr_sans", true)?,
            subject: SubjectFields::parse(&mut fields)?,
            generate_lease: fields.boolean("generate_lease")?.unwrap_or(false),
            no_store: fields.boolean("no_store")?.unwrap_or(false),
            require_cn: fields.boolean("require_cn")?.unwrap_or(true),
            policy_identifiers: Vec::new(),
            basic_constraints_valid_for_non_ca: fields.boolean("basic_constraints_valid_for_non_ca")?.unwrap_or(false),
            not_before_duration: 30,
            not_after: String::new(),
            cn_validations: Vec::new(),
            serial_number_source: SerialNumberSource::JsonCsr,
            lint: rules(&mut fields)?,
        };
        let mut role = role.with_lists(&mut fields, data)?.with_key(&mut fields)?.with_validity(&mut fields)?;
        let mut warnings = fields.warnings();
        if role.no_store && std::mem::take(&mut role.generate_lease) {
            warnings.push(NO_LEASE_UNSTORED.into());
        }
        Ok((role, warnings))
    }

    /// This with what a merge patch (RFC 7396) names. Also answers warnings.
    pub(super) fn patched(&self, patch: &Data) -> Result<(Role, Vec<String>), Fault> {
        let mut merged = self.show()?;
        // The size of another kind of key says nothing; it takes its default unless the patch has one, too.
        if patch.contains_key("key_type") {
            merged.remove("key_bits");
        }
        for (name, value) in patch {
            match value {
                serde_json::Value::Null => merged.remove(name),
                value => merged.insert(name.clone(), value.clone()),
            };
        }
        Role::parse(&merged)
    }

    fn with_lists(self, fields: &mut Fields<'_>, data: &Data) -> Result<Role, Fault> {
        let issuer_ref = fields.filled("issuer_ref")?.unwrap_or_else(|| "default".into());
        if !is_name(&issuer_ref) {
            return Err(Fault::invalid(format!("issuer_ref {issuer_ref:?} is neither an issuer's id nor a name")));
        }
        let mut list = |name: &'static str| -> Result<Vec<String>, Fault> {
            let in_json =
                data.get(name).filter(|_| name == policy_identifiers::FIELD).and_then(policy_identifiers::from_json);
            let items = match in_json {
                Some(items) => {
                    fields.value(name);
                    items?
                }
                None => fields.list(name)?.unwrap_or_default(),
            };
            if items.len() > LIST_MAX {
                return Err(Fault::invalid(format!("{name} has more than {LIST_MAX} items")));
            }
            Ok(items)
        };
        let role = Role {
            issuer_ref,
            allowed_domains: list("allowed_domains")?,
            allowed_uri_sans: list("allowed_uri_sans")?,
            allowed_other_sans: list("allowed_other_sans")?,
            allowed_serial_numbers: list("allowed_serial_numbers")?,
            allowed_user_ids: list("allowed_user_ids")?,
            ext_key_usage: list("ext_key_usage")?,
            ext_key_usage_oids: list("ext_key_usage_oids")?,
            policy_identifiers: list(policy_identifiers::FIELD)?,
            ..self
        };
        if let Some(odd) = role.allowed_domains.iter().find(|domain| !is_domain_pattern(domain)) {
            return Err(Fault::invalid(format!("allowed_domains: {odd:?} is not a domain name or pattern")));
        }
        usage::extended_key_usages(&role.ext_key_usage)?;
        usage::object_identifiers("ext_key_usage_oids", &role.ext_key_usage_oids)?;
        policy_identifiers::certificate_policies(&role.policy_identifiers)?;
        super::allowed::OtherSanRule::parse_all(&role.allowed_other_sans)?;
        Ok(role)
    }

    fn with_key(self, fields: &mut Fields<'_>) -> Result<Role, Fault> {
        let key_type = match fields.filled("key_type")?.as_deref() {
            None | Some("rsa") => KeyType::Rsa,
            Some("ec") => KeyType::Ec,
            Some("ed25519") => KeyType::Ed25519,
            Some("ml-dsa") => KeyType::MlDsa,
            Some("any") => KeyType::Any,
            Some(other) => {
                return Err(Fault::invalid(format!(
                    "unknown key type {other}: expected rsa, ec, ed25519, ml-dsa or any"
                )));
            }
        };
        let bits = fields.integer("key_bits")?.unwrap_or(0);
        let key_bits = match (key_type, bits) {
            (KeyType::Any | KeyType::Ed25519, 0) => 0,
            (KeyType::Rsa, 0) => 2048,
            (KeyType::Ec, 0) => 256,
            (KeyType::Rsa, 2048) => 2048,
            (KeyType::Rsa, 3072) => 3072,
            (KeyType::Rsa, 4096) => 4096,
            (KeyType::Rsa, 8192) => 8192,
            (KeyType::MlDsa, 0) => 65,
            (KeyType::MlDsa, 44) => 44,
            (KeyType::MlDsa, 65) => 65,
            (KeyType::MlDsa, 87) => 87,
            (KeyType::Ec, 256) => 256,
            (KeyType::Ec, 384) => 384,
            (KeyType::Ec, 521) => 521,
            (_, other) => {
                return Err(Fault::invalid(format!("unsupported bit length for this key type: key_bits {other}")));
            }
        };
        let signature_bits = match fields.integer("signature_bits")?.unwrap_or(0) {
            0 => 0,
            256 => 256,
            384 => 384,
            512 => 512,
            other => return Err(unsupported_bits(other)),
        };
        let key_usage = match fields.list("key_usage")? {
            Some(names) => names,
            None => ["DigitalSignature", "KeyAgreement", "KeyEncipherment"].map(str::to_owned).to_vec(),
        };
        if usage::key_usages(&key_usage)?.contains(x509_cert::ext::pkix::KeyUsages::KeyCertSign) {
            // RFC 5280, 4.2.1.3: keyCertSign needs cA in the basic constraints.
            return Err(Fault::invalid("key_usage CertSign is for certificate authorities only"));
        }
        Ok(Role { key_type, key_bits, signature_bits, key_usage, ..self })
    }

    fn with_validity(self, fields: &mut Fields<'_>) -> Result<Role, Fault> {
        let ttl = fields.duration("ttl")?.unwrap_or_default().as_secs();
        let max_ttl = fields.duration("max_ttl")?.unwrap_or_default().as_secs();
        if max_ttl != 0 && ttl > max_ttl {
            return Err(Fault::invalid("\"ttl\" value must be less than \"max_ttl\" value"));
        }
        let not_after = fields.filled("not_after")?.unwrap_or_default();
        if !not_after.is_empty() {
            validity::parse_not_after(&not_after)?;
        }
        let not_before_duration = fields.duration("not_before_duration")?.map_or(30, |span| span.as_secs());
        validity::check_not_before(not_before_duration)?;
        let cn_validations = cn_validations(fields.list("cn_validations")?)?;
        let serial_number_source = match fields.filled("serial_number_source")?.as_deref() {
            None | Some("json-csr") => SerialNumberSource::JsonCsr,
            Some("json") => SerialNumberSource::Json,
            Some(other) => {
                return Err(Fault::invalid(format!(
                    "unknown serial_number_source {other:?}: expected json-csr or json"
                )));
            }
        };
        Ok(Role { ttl, max_ttl, not_after, not_before_duration, cn_validations, serial_number_source, ..self })
    }

    /// The role as it is read: every field of Vault's, lists never null.
    pub(super) fn show(&self) -> Result<Data, Fault> {
        let value = serde_json::to_value(self).map_err(|_| Fault::internal("a role cannot be written as JSON"))?;
        let serde_json::Value::Object(mut data) = value else {
            return Err(Fault::internal("a role is not written as an object"));
        };
        for (name, _) in NOT_BUILT {
            data.insert(name.into(), false.into());
        }
        Ok(data)
    }

    /// The kind of the keys made for it.
    pub(super) fn generated_kind(&self) -> Result<KeyKind, Fault> {
        Ok(match (self.key_type, self.key_bits) {
            (KeyType::Any, _) => {
                return Err(Fault::invalid("role key type \"any\" not allowed for issuing certificates, only signing"));
            }
            (KeyType::Rsa, bits) => KeyKind::Rsa { bits },
            (KeyType::Ec, 384) => KeyKind::Ec(Curve::P384),
            (KeyType::Ec, 521) => KeyKind::Ec(Curve::P521),
            (KeyType::Ec, _) => KeyKind::Ec(Curve::P256),
            (KeyType::Ed25519, _) => KeyKind::Ed25519,
            (KeyType::MlDsa, 44) => KeyKind::MlDsa(MlDsa::MlDsa44),
            (KeyType::MlDsa, 87) => KeyKind::MlDsa(MlDsa::MlDsa87),
            (KeyType::MlDsa, _) => KeyKind::MlDsa(MlDsa::MlDsa65),
        })
    }

    /// Refuses a key the role does not certify.
    pub(super) fn check_key(&self, kind: KeyKind) -> Result<(), Fault> {
        let refuse =
            |what: String| Err(Fault::invalid(format!("role requires {what}, but the request's key is {kind}")));
        match (self.key_type, kind) {
            (KeyType::Any, _) | (KeyType::Ed25519, KeyKind::Ed25519) => Ok(()),
            (KeyType::Rsa, KeyKind::Rsa { bits }) if bits >= self.key_bits => Ok(()),
            (KeyType::Rsa, _) => refuse(format!("an RSA key of at least {} bits", self.key_bits)),
            (KeyType::Ec, KeyKind::Ec(curve)) if curve.bits() >= self.key_bits => Ok(()),
            (KeyType::Ec, _) => refuse(format!("an EC key of at least {} bits", self.key_bits)),
            (KeyType::Ed25519, _) => refuse("an Ed25519 key".into()),
            (KeyType::MlDsa, KeyKind::MlDsa(set)) if set.number() >= self.key_bits => Ok(()),
            (KeyType::MlDsa, _) => refuse(format!("a key of ML-DSA-{} or stronger", self.key_bits)),
        }
    }
}

/// A domain, or a pattern of one with `*`; a name at localhost may have one label.
fn is_domain_pattern(domain: &str) -> bool {
    domain.len() <= 253 && names::is_dns_name(&domain.replace(['*', '@'], "x"))
}

fn rules(fields: &mut Fields<'_>) -> Result<Rules, Fault> {
    let Some(name) = fields.filled("lint")? else { return Ok(Rules::default()) };
    let found = Rules::ALL.into_iter().find(|(known, _)| *known == name);
    let unknown = || Fault::invalid(format!("unknown lint {name:?}: expected rfc5280 or cabf-serverauth"));
    found.map(|(_, rules)| rules).ok_or_else(unknown)
}

fn cn_validations(given: Option<Vec<String>>) -> Result<Vec<CnValidation>, Fault> {
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Ok(vec![CnValidation::Email, CnValidation::Hostname]);
    };
    let mut read = Vec::new();
    for name in &given {
        let validation = match name.to_ascii_lowercase().as_str() {
            "email" => CnValidation::Email,
            "hostname" => CnValidation::Hostname,
            "disabled" => CnValidation::Disabled,
            _ => {
                return Err(Fault::invalid(format!(
                    "cn_validations: {name:?} is not known; expected email, hostname or disabled"
                )));
            }
        };
        if !read.contains(&validation) {
            read.push(validation);
        }
    }
    if read.len() > 1 && read.contains(&CnValidation::Disabled) {
        return Err(Fault::invalid("cn_validations: disabled stands alone"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(value: Value) -> Result<Role, Fault> {
        Role::parse(value.as_object().unwrap()).map(|(role, _)| role)
    }

    #[test]
    fn an_empty_role_has_vaults_defaults_and_shows_every_field() {
        let shown = Value::Object(parse(json!({})).unwrap().show().unwrap());
        let expected: Value = serde_json::from_str(
            r#"{
            "issuer_ref": "default", "ttl": 0, "max_ttl": 0, "allow_localhost": true, "allowed_domains": [],
            "allowed_domains_template": false, "allow_bare_domains": false, "allow_subdomains": false,
            "allow_glob_domains": false, "allow_wildcard_certificates": true, "allow_any_name": false,
            "enforce_hostnames": true, "allow_ip_sans": true, "allowed_uri_sans": [],
            "allowed_uri_sans_template": false, "allowed_other_sans": [], "allowed_serial_numbers": [],
            "allowed_user_ids": [], "server_flag": true, "client_flag": true, "code_signing_flag": false,
            "email_protection_flag": false, "key_type": "rsa", "key_bits": 2048, "signature_bits": 0,
            "use_pss": false, "key_usage": ["DigitalSignature", "KeyAgreement", "KeyEncipherment"],
            "ext_key_usage": [], "ext_key_usage_oids": [], "use_csr_common_name": true, "use_csr_sans": true,
            "ou": [], "organization": [], "country": [], "locality": [], "province": [], "street_address": [],
            "postal_code": [], "generate_lease": false, "no_store": false, "require_cn": true,
            "policy_identifiers": [], "basic_constraints_valid_for_non_ca": false, "not_before_duration": 30,
            "not_after": "", "cn_validations": ["email", "hostname"], "no_store_metadata": false,
            "serial_number_source": "json-csr", "allow_token_displayname": false, "lint": "rfc5280"
        }"#,
        )
        .unwrap();
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_stored_role_reads_back() {
        let role = parse(json!({"ttl": "24h", "key_type": "ec", "ou": "a,b", "cn_validations": "disabled"})).unwrap();
        let stored = serde_json::to_vec(&role).unwrap();
        assert_eq!(serde_json::from_slice::<Role>(&stored).unwrap(), role);
        assert_eq!((role.ttl, role.key_bits), (86400, 256));
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_takes_the_default() {
        let role =
            parse(json!({"ttl": "24h", "key_type": "rsa", "key_bits": 4096, "ou": "a", "no_store": true})).unwrap();
        let patch = json!({"ttl": null, "ou": ["b", "c"], "key_type": "ec", "colour": 1});
        let (patched, warnings) = role.patched(patch.as_object().unwrap()).unwrap();
        assert_eq!((patched.ttl, patched.key_type, patched.key_bits), (0, KeyType::Ec, 256));
        assert_eq!(patched.subject.ou, ["b", "c"]);
        assert!(patched.no_store);
        assert_eq!(warnings, ["Endpoint ignored these unrecognized parameters: [colour]"]);
        let same = role.patched(json!({}).as_object().unwrap()).unwrap();
        assert_eq!(same, (role, vec![]));
    }

    #[test]
    fn what_is_not_stored_has_no_lease() {
        let read = |value: Value| Role::parse(value.as_object().unwrap()).unwrap();
        let (role, warnings) = read(json!({"generate_lease": true, "no_store": true}));
        assert!(!role.generate_lease && warnings == [NO_LEASE_UNSTORED]);
        let (role, warnings) = read(json!({"generate_lease": "true"}));
        assert!(role.generate_lease && warnings.is_empty());
        assert_eq!(role.show().unwrap()["generate_lease"], true);
        // One stored before there were leases.
        let mut stored = serde_json::to_value(&role).unwrap();
        stored.as_object_mut().unwrap().remove("generate_lease");
        assert!(!serde_json::from_value::<Role>(stored).unwrap().generate_lease);
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (name, value, why) in [
            ("allowed_domains_template", json!(true), "a role for each client"),
            ("allowed_uri_sans_template", json!("true"), "a role for each client"),
            ("no_store_metadata", json!(1), "leave it out"),
            ("allow_token_displayname", json!(true), "allowed_domains"),
            ("issuer_ref", json!("a/b"), "neither"),
        ] {
            let told = parse(json!({ name: value })).unwrap_err().to_string();
            assert!(told.contains(name) && told.contains(why), "{told}");
        }
        assert!(parse(json!({"generate_lease": false, "issuer_ref": "other"})).is_ok());
    }

    #[test]
    fn contradictions_and_unknown_values_are_refused() {
        for bad in [
            json!({"ttl": "2h", "max_ttl": "1h"}),
            json!({"key_type": "dsa"}),
            json!({"key_type": "ec", "key_bits": 224}),
            json!({"key_type": "rsa", "key_bits": 1024}),
            json!({"signature_bits": 224}),
            json!({"key_usage": "CertSign"}),
            json!({"key_usage": "Nothing"}),
            json!({"ext_key_usage_oids": "x"}),
            json!({"not_after": "tomorrow"}),
            json!({"cn_validations": "disabled,email"}),
            json!({"allowed_other_sans": "1.2.3"}),
            json!({"allowed_domains": "a b"}),
            json!({"serial_number_source": "csr"}),
            json!({"lint": "none"}),
        ] {
            assert!(parse(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_judged_by_kind_and_size() {
        let ec = parse(json!({"key_type": "ec", "key_bits": 384})).unwrap();
        assert!(ec.check_key(KeyKind::Ec(Curve::P384)).is_ok());
        assert!(ec.check_key(KeyKind::Ec(Curve::P256)).is_err());
        assert!(ec.check_key(KeyKind::Rsa { bits: 4096 }).is_err());
        let rsa = parse(json!({"key_bits": 3072})).unwrap();
        assert!(rsa.check_key(KeyKind::Rsa { bits: 2048 }).is_err());
        assert!(rsa.check_key(KeyKind::Rsa { bits: 4096 }).is_ok());
        assert!(parse(json!({"key_type": "any"})).unwrap().check_key(KeyKind::Ed25519).is_ok());
    }
}
