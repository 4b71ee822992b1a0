//! The extensions of certificates, apart from alternative names (RFC 5280, 4.2).

use const_oid::db::rfc5280;
use der::asn1::{Ia5String, OctetString};
use der::flagset::FlagSet;
use der::{Tag, TagNumber};
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AccessDescription, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, NameConstraints,
};

use super::asn1::{encode, explicit, extension, sequence, tlv, unencodable};
use super::role::Role;
use super::urls::Urls;
use super::{names, policy_identifiers, usage};
use crate::crypto;
use crate::model::{Fault, Fields, Hash, KeyKind, PublicKey};

/// A key identifier: SHA-1 of the public key's bits (RFC 5280, 4.2.1.2, method 1).
pub(super) type KeyIdentifier = [u8; 20];

/// The identifier of a key.
pub(super) fn key_identifier(key: &PublicKey) -> Result<KeyIdentifier, Fault> {
    let digest = crypto::digest(Hash::Sha1, crypto::subject_public_key(key)?)?;
    KeyIdentifier::try_from(digest.as_bytes()).map_err(|_| Fault::internal("a SHA-1 digest is not 20 bytes long"))
}

/// SubjectKeyIdentifier.
pub(super) fn subject_key_identifier(identifier: &[u8]) -> Result<Vec<u8>, Fault> {
    let value = tlv(Tag::OctetString, &[identifier])?;
    extension(rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER, false, &value)
}

/// AuthorityKeyIdentifier, with the key's identifier only.
pub(super) fn authority_key_identifier(identifier: &[u8]) -> Result<Vec<u8>, Fault> {
    // [0] IMPLICIT OCTET STRING.
    let identifier = tlv(Tag::ContextSpecific { constructed: false, number: TagNumber(0) }, &[identifier])?;
    let value = sequence(&[&identifier])?;
    extension(rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER, false, &value)
}

/// KeyUsage, critical; nothing for an empty set.
pub(super) fn key_usage(usages: FlagSet<KeyUsages>) -> Result<Vec<u8>, Fault> {
    if usages.is_empty() {
        return Ok(Vec::new());
    }
    extension(rfc5280::ID_CE_KEY_USAGE, true, &encode(&KeyUsage(usages))?)
}

/// BasicConstraints, critical.
pub(super) fn basic_constraints(ca: bool, path_length: Option<u8>) -> Result<Vec<u8>, Fault> {
    let value = encode(&BasicConstraints { ca, path_len_constraint: path_length })?;
    extension(rfc5280::ID_CE_BASIC_CONSTRAINTS, true, &value)
}

/// KeyUsage of a leaf: of the usages wanted, those its key can be put to. Where none is left there is no certificate: one
/// without the extension could be used for everything.
pub(super) fn leaf_key_usage(wanted: FlagSet<KeyUsages>, kind: KeyKind) -> Result<Vec<u8>, Fault> {
    let fitting = wanted & usage::fitting(kind);
    if fitting.is_empty() && !wanted.is_empty() {
        return Err(Fault::invalid(format!(
            "a key of type {kind} can be put to none of the key usages wanted: add DigitalSignature to key_usage, or use \
             another type of key"
        )));
    }
    key_usage(fitting)
}

/// What every leaf of a role has alike, whatever its key: extended key usages, basic constraints where asked for, policies.
pub(super) fn of_role(role: &Role) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let flags = [
        (role.server_flag, rfc5280::ID_KP_SERVER_AUTH),
        (role.client_flag, rfc5280::ID_KP_CLIENT_AUTH),
        (role.code_signing_flag, rfc5280::ID_KP_CODE_SIGNING),
        (role.email_protection_flag, rfc5280::ID_KP_EMAIL_PROTECTION),
    ];
    let flagged = flags.into_iter().filter_map(|(on, oid)| on.then_some(oid));
    let named = usage::extended_key_usages(&role.ext_key_usage)?;
    let numbered = usage::object_identifiers("ext_key_usage_oids", &role.ext_key_usage_oids)?;
    let mut extended = Vec::new();
    for oid in flagged.chain(named).chain(numbered) {
        if !extended.contains(&oid) {
            extended.push(oid);
        }
    }
    if !extended.is_empty() {
        bytes.extend(extension(rfc5280::ID_CE_EXT_KEY_USAGE, false, &encode(&ExtendedKeyUsage(extended))?)?);
    }
    if role.basic_constraints_valid_for_non_ca {
        bytes.extend(basic_constraints(false, None)?);
    }
    bytes.extend(policy_identifiers::certificate_policies(&role.policy_identifiers)?);
    Ok(bytes)
}

/// AuthorityInfoAccess, CRLDistributionPoints and FreshestCRL, as far as there are URLs.
pub(super) fn of_urls(urls: &Urls) -> Result<Vec<u8>, Fault> {
    let uri =
        |url: &String| Ia5String::new(url.as_str()).map(GeneralName::UniformResourceIdentifier).map_err(unencodable);
    let mut access = Vec::new();
    for (method, list) in
        [(rfc5280::ID_AD_OCSP, &urls.ocsp_servers), (rfc5280::ID_AD_CA_ISSUERS, &urls.issuing_certificates)]
    {
        for url in list {
            access.push(AccessDescription { access_method: method, access_location: uri(url)? });
        }
    }
    let mut bytes = Vec::new();
    if !access.is_empty() {
        bytes.extend(extension(rfc5280::ID_PE_AUTHORITY_INFO_ACCESS, false, &encode(&access)?)?);
    }
    for (oid, list) in [
        (rfc5280::ID_CE_CRL_DISTRIBUTION_POINTS, &urls.crl_distribution_points),
        (rfc5280::ID_CE_FRESHEST_CRL, &urls.delta_crl_distribution_points),
    ] {
        let mut points = Vec::new();
        for url in list {
            let name = DistributionPointName::FullName(vec![uri(url)?]);
            points.push(DistributionPoint { distribution_point: Some(name), reasons: None, crl_issuer: None });
        }
        if !points.is_empty() {
            bytes.extend(extension(oid, false, &encode(&points)?)?);
        }
    }
    Ok(bytes)
}

/// NameConstraints, critical, of the `permitted_` and `excluded_` fields of a request; nothing if there are none.
pub(super) fn name_constraints(fields: &mut Fields<'_>) -> Result<Vec<u8>, Fault> {
    let permitted = subtrees(
        fields,
        ["permitted_dns_domains", "permitted_ip_ranges", "permitted_email_addresses", "permitted_uri_domains"],
    )?;
    let excluded = subtrees(
        fields,
        ["excluded_dns_domains", "excluded_ip_ranges", "excluded_email_addresses", "excluded_uri_domains"],
    )?;
    if permitted.is_none() && excluded.is_none() {
        return Ok(Vec::new());
    }
    let value = encode(&NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded })?;
    extension(rfc5280::ID_CE_NAME_CONSTRAINTS, true, &value)
}

fn subtrees(
    fields: &mut Fields<'_>,
    [dns, ip, email, uri]: [&'static str; 4],
) -> Result<Option<Vec<GeneralSubtree>>, Fault> {
    let ia5 = |text: &str| Ia5String::new(text).map_err(unencodable);
    let mut bases = Vec::new();
    for domain in checked(fields, dns, is_domain)? {
        bases.push(GeneralName::DnsName(ia5(&domain)?));
    }
    for range in fields.list(ip)?.unwrap_or_default() {
        let octets = names::parse_network(&range)
            .ok_or_else(|| Fault::invalid(format!("{ip}: {range:?} is not a network such as 10.0.0.0/8")))?;
        // The OCTET STRING under its implicit tag [7].
        let octets = OctetString::new(octets).map_err(unencodable)?;
        bases.push(GeneralName::IpAddress(octets));
    }
    for address in checked(fields, email, |text| names::is_email(text) || is_domain(text))? {
        bases.push(GeneralName::Rfc822Name(ia5(&address)?));
    }
    for domain in checked(fields, uri, is_domain)? {
        bases.push(GeneralName::UniformResourceIdentifier(ia5(&domain)?));
    }
    let subtree = |base| GeneralSubtree { base, minimum: 0, maximum: None };
    Ok((!bases.is_empty()).then(|| bases.into_iter().map(subtree).collect()))
}

fn checked(fields: &mut Fields<'_>, name: &'static str, fits: impl Fn(&str) -> bool) -> Result<Vec<String>, Fault> {
    let items = fields.list(name)?.unwrap_or_default();
    match items.iter().find(|item| !fits(item)) {
        Some(odd) => Err(Fault::invalid(format!("{name}: {odd:?} is not valid"))),
        None => Ok(items),
    }
}

/// A domain, or everything below one (`.example.com`).
fn is_domain(text: &str) -> bool {
    names::is_hostname(text.strip_prefix('.').unwrap_or(text)) && !text.contains('*')
}

/// `[3] EXPLICIT Extensions` of a certificate, of encoded extensions.
pub(super) fn list(extensions: &[&[u8]]) -> Result<Vec<u8>, Fault> {
    explicit(3, &[&sequence(extensions)?])
}

#[cfg(test)]
mod tests {
    use der::Decode;
    use serde_json::json;
    use x509_cert::ext::Extension;

    use super::*;

    fn read(mut bytes: &[u8]) -> Vec<Extension> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (extension, rest) = Extension::from_der_partial(bytes).unwrap();
            found.push(extension);
            bytes = rest;
        }
        found
    }

    #[test]
    fn a_roles_extensions_are_those_it_names() {
        let data = json!({"policy_identifiers": "1.2.3.4", "ext_key_usage": "ServerAuth,TimeStamping",
            "client_flag": false, "basic_constraints_valid_for_non_ca": true});
        let role = Role::parse(data.as_object().unwrap()).unwrap().0;
        let found = read(&of_role(&role).unwrap());
        let seen: Vec<_> = found.iter().map(|extension| (extension.extn_id, extension.critical)).collect();
        assert_eq!(
            seen,
            [
                (rfc5280::ID_CE_EXT_KEY_USAGE, false),
                (rfc5280::ID_CE_BASIC_CONSTRAINTS, true),
                (rfc5280::ID_CE_CERTIFICATE_POLICIES, false),
            ]
        );
        let usages = ExtendedKeyUsage::from_der(found[0].extn_value.as_bytes()).unwrap();
        assert_eq!(usages.0, [rfc5280::ID_KP_SERVER_AUTH, rfc5280::ID_KP_TIME_STAMPING]);
        // An end entity's basic constraints are an empty sequence: cA FALSE is the default.
        assert_eq!(found[1].extn_value.as_bytes(), [0x30, 0]);
    }

    #[test]
    fn a_key_is_certified_for_what_it_can_be_put_to() {
        let default = KeyUsages::DigitalSignature | KeyUsages::KeyAgreement | KeyUsages::KeyEncipherment;
        let read_back = |wanted, kind| {
            let found = read(&leaf_key_usage(wanted, kind).unwrap());
            KeyUsage::from_der(found[0].extn_value.as_bytes()).unwrap().0
        };
        let rsa = KeyKind::Rsa { bits: 2048 };
        assert_eq!(read_back(default, rsa), KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment);
        let ec = KeyKind::Ec(crate::model::Curve::P256);
        assert_eq!(read_back(default, ec), KeyUsages::DigitalSignature | KeyUsages::KeyAgreement);
        assert_eq!(read_back(default, KeyKind::Ed25519), FlagSet::from(KeyUsages::DigitalSignature));
        assert!(leaf_key_usage(KeyUsages::KeyAgreement.into(), rsa).is_err());
        assert!(leaf_key_usage(FlagSet::default(), rsa).unwrap().is_empty());
    }

    #[test]
    fn name_constraints_hold_what_was_given() {
        let data = json!({"permitted_dns_domains": ".example.com,corp", "excluded_ip_ranges": "10.0.0.0/8",
            "permitted_email_addresses": "a@b.c", "permitted_uri_domains": "x.y"});
        let found = read(&name_constraints(&mut Fields::new(data.as_object().unwrap())).unwrap());
        let read = NameConstraints::from_der(found[0].extn_value.as_bytes()).unwrap();
        assert!(found[0].critical);
        assert_eq!(read.permitted_subtrees.unwrap().len(), 4);
        assert_eq!(read.excluded_subtrees.unwrap().len(), 1);
        let none = json!({});
        assert!(name_constraints(&mut Fields::new(none.as_object().unwrap())).unwrap().is_empty());
        for bad in [json!({"permitted_ip_ranges": "10.0.0.0"}), json!({"excluded_dns_domains": "*.a"})] {
            assert!(name_constraints(&mut Fields::new(bad.as_object().unwrap())).is_err(), "{bad}");
        }
    }
}
