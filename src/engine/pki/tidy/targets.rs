//! What a tidying is to remove, and how long after its end: the fields that `tidy` and `config/auto-tidy` share.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::{Data, Fault, Fields, parse_duration};

/// The longest any of these may take: a hundred years, in seconds.
pub(super) const SECONDS_MAX: u64 = 100 * 366 * 86400;
/// What there is to ask for, as Vault names it in errors.
pub(super) const ALL: &str = "tidy_cert_store / tidy_revoked_certs / tidy_revoked_cert_issuer_associations / \
    tidy_expired_issuers / tidy_move_legacy_ca_bundle / tidy_revocation_queue / tidy_cross_cluster_revoked_certs / tidy_acme";

/// The fields, by Vault's names. The last five are for what is not here (stores of old Vaults, several clusters, ACME,
/// CMPv2): they are taken and remembered, as by a Vault that has none of it, and there is nothing to tidy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::engine::pki) struct Targets {
    pub(super) tidy_cert_store: bool,
    pub(super) tidy_revoked_certs: bool,
    pub(super) tidy_revoked_cert_issuer_associations: bool,
    pub(super) tidy_expired_issuers: bool,
    tidy_move_legacy_ca_bundle: bool,
    tidy_revocation_queue: bool,
    tidy_cross_cluster_revoked_certs: bool,
    tidy_acme: bool,
    tidy_cmpv2_nonce_store: bool,
    /// In seconds.
    pub(super) safety_buffer: u64,
    /// In seconds.
    pub(super) issuer_safety_buffer: u64,
    revocation_queue_safety_buffer: u64,
    acme_account_safety_buffer: u64,
    /// Between two steps.
    pub(super) pause_duration: Duration,
}

impl Default for Targets {
    fn default() -> Targets {
        Targets {
            tidy_cert_store: false,
            tidy_revoked_certs: false,
            tidy_revoked_cert_issuer_associations: false,
            tidy_expired_issuers: false,
            tidy_move_legacy_ca_bundle: false,
            tidy_revocation_queue: false,
            tidy_cross_cluster_revoked_certs: false,
            tidy_acme: false,
            tidy_cmpv2_nonce_store: false,
            safety_buffer: 72 * 3600,
            issuer_safety_buffer: 365 * 24 * 3600,
            revocation_queue_safety_buffer: 48 * 3600,
            acme_account_safety_buffer: 30 * 24 * 3600,
            pause_duration: Duration::ZERO,
        }
    }
}

impl Targets {
    /// These, with what a request names replaced. `too_short` words the error on a buffer of no time at all.
    pub(super) fn updated(&self, fields: &mut Fields<'_>, too_short: fn(&str) -> String) -> Result<Targets, Fault> {
        if fields.boolean("tidy_cert_metadata")?.unwrap_or(false) {
            return Err(Fault::invalid("certificate metadata is only supported on Vault Enterprise"));
        }
        let mut flag = |name, present: bool| Ok::<_, Fault>(fields.boolean(name)?.unwrap_or(present));
        let flagged = Targets {
            tidy_cert_store: flag("tidy_cert_store", self.tidy_cert_store)?,
            tidy_revoked_certs: flag("tidy_revoked_certs", self.tidy_revoked_certs)?,
            tidy_revoked_cert_issuer_associations: flag(
                "tidy_revoked_cert_issuer_associations",
                self.tidy_revoked_cert_issuer_associations,
            )?,
            tidy_expired_issuers: flag("tidy_expired_issuers", self.tidy_expired_issuers)?,
            tidy_move_legacy_ca_bundle: flag("tidy_move_legacy_ca_bundle", self.tidy_move_legacy_ca_bundle)?,
            tidy_revocation_queue: flag("tidy_revocation_queue", self.tidy_revocation_queue)?,
            tidy_cross_cluster_revoked_certs: flag(
                "tidy_cross_cluster_revoked_certs",
                self.tidy_cross_cluster_revoked_certs,
            )?,
            tidy_acme: flag("tidy_acme", self.tidy_acme)?,
            tidy_cmpv2_nonce_store: flag("tidy_cmpv2_nonce_store", self.tidy_cmpv2_nonce_store)?,
            ..self.clone()
        };
        let mut buffer = |name, present: u64| match seconds(fields, name)? {
            Some(0) => Err(Fault::invalid(too_short(name))),
            given => Ok(given.unwrap_or(present)),
        };
        Ok(Targets {
            safety_buffer: buffer("safety_buffer", self.safety_buffer)?,
            issuer_safety_buffer: buffer("issuer_safety_buffer", self.issuer_safety_buffer)?,
            revocation_queue_safety_buffer: buffer(
                "revocation_queue_safety_buffer",
                self.revocation_queue_safety_buffer,
            )?,
            acme_account_safety_buffer: buffer("acme_account_safety_buffer", self.acme_account_safety_buffer)?,
            pause_duration: pause(fields)?.unwrap_or(self.pause_duration),
            ..flagged
        })
    }

    /// Whether anything is to be tidied.
    pub(super) fn are_any(&self) -> bool {
        self.tidy_cert_store
            || self.tidy_revoked_certs
            || self.tidy_revoked_cert_issuer_associations
            || self.tidy_expired_issuers
            || self.tidy_move_legacy_ca_bundle
            || self.tidy_revocation_queue
            || self.tidy_cross_cluster_revoked_certs
            || self.tidy_acme
            || self.tidy_cmpv2_nonce_store
    }

    /// As they are read.
    pub(super) fn show(&self) -> Data {
        let value = json!({
            "tidy_cert_store": self.tidy_cert_store,
            "tidy_revoked_certs": self.tidy_revoked_certs,
            "tidy_revoked_cert_issuer_associations": self.tidy_revoked_cert_issuer_associations,
            "tidy_expired_issuers": self.tidy_expired_issuers,
            "tidy_move_legacy_ca_bundle": self.tidy_move_legacy_ca_bundle,
            "tidy_revocation_queue": self.tidy_revocation_queue,
            "tidy_cross_cluster_revoked_certs": self.tidy_cross_cluster_revoked_certs,
            "tidy_acme": self.tidy_acme,
            "tidy_cert_metadata": false,
            "tidy_cmpv2_nonce_store": self.tidy_cmpv2_nonce_store,
            "safety_buffer": self.safety_buffer,
            "issuer_safety_buffer": self.issuer_safety_buffer,
            "revocation_queue_safety_buffer": self.revocation_queue_safety_buffer,
            "acme_account_safety_buffer": self.acme_account_safety_buffer,
            "pause_duration": go_text(self.pause_duration),
        });
        value.as_object().cloned().unwrap_or_default()
    }
}

/// A span in seconds, within bounds.
pub(super) fn seconds(fields: &mut Fields<'_>, name: &'static str) -> Result<Option<u64>, Fault> {
    let span = fields.duration(name)?.map(|span| span.as_secs());
    match span {
        Some(SECONDS_MAX..) => Err(Fault::invalid(format!("{name} is longer than 100 years"))),
        span => Ok(span),
    }
}

fn pause(fields: &mut Fields<'_>) -> Result<Option<Duration>, Fault> {
    let Some(text) = fields.filled("pause_duration")? else { return Ok(None) };
    if text.trim().starts_with('-') {
        return Err(Fault::invalid("received invalid, negative pause_duration"));
    }
    let span = parse_duration(&text).filter(|span| span.as_secs() < SECONDS_MAX);
    let span = span.ok_or_else(|| {
        Fault::invalid(format!("Error parsing pause_duration: {text:?} is not a time such as \"10ms\" or \"5s\""))
    })?;
    Ok(Some(span))
}

/// A span as Go writes it, and so Vault: `0s`, `1.5ms`, `1m40s`.
pub(super) fn go_text(span: Duration) -> String {
    let fraction = |whole: u128, part: u128, digits: usize, unit: &str| {
        let text = format!("{whole}.{part:0digits$}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    let nanos = span.as_nanos();
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos / 1000, nanos % 1000, 3, "µs"),
        1_000_000..1_000_000_000 => fraction(nanos / 1_000_000, nanos % 1_000_000, 6, "ms"),
        _ => {
            let (hours, minutes) = (span.as_secs() / 3600, span.as_secs() / 60 % 60);
            let seconds = fraction(u128::from(span.as_secs() % 60), span.subsec_nanos().into(), 9, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, _) => format!("{minutes}m{seconds}"),
                _ => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn update(value: Value) -> Result<Targets, String> {
        let data = value.as_object().cloned().unwrap();
        let too_short = |name: &str| format!("{name} must be greater than zero");
        Targets::default().updated(&mut Fields::new(&data), too_short).map_err(|fault| fault.to_string())
    }

    #[test]
    fn what_is_not_named_stays_and_what_cannot_be_is_refused() {
        let targets =
            update(json!({"tidy_cert_store": "true", "safety_buffer": "1h", "pause_duration": "10"})).unwrap();
        let expected = Targets {
            tidy_cert_store: true,
            safety_buffer: 3600,
            pause_duration: Duration::from_secs(10),
            ..Targets::default()
        };
        assert_eq!(targets, expected);
        assert!(targets.are_any() && !Targets::default().are_any());
        assert_eq!(serde_json::from_value::<Targets>(json!({})).unwrap(), Targets::default());
        for (body, told) in [
            (json!({"safety_buffer": 0}), "safety_buffer must be greater than zero"),
            (json!({"issuer_safety_buffer": "0s"}), "issuer_safety_buffer must be greater than zero"),
            (json!({"acme_account_safety_buffer": -1}), "expected a duration"),
            (json!({"safety_buffer": "99999999h"}), "100 years"),
            (json!({"pause_duration": "-5s"}), "negative pause_duration"),
            (json!({"pause_duration": "soon"}), "Error parsing pause_duration"),
            (json!({"tidy_cert_metadata": true}), "only supported on Vault Enterprise"),
        ] {
            let refused = update(body.clone()).unwrap_err();
            assert!(refused.contains(told), "{body}: {refused}");
        }
    }

    #[test]
    fn spans_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (10_000_000, "10ms"),
            (1_500_000_000, "1.5s"),
            (100_000_000_000, "1m40s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_000, "25h1m1s"),
        ] {
            assert_eq!(go_text(Duration::from_nanos(nanos)), text);
        }
    }
}
