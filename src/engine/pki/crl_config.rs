//! `config/crl`: how long CRLs and OCSP answers are good for, when they are made, and how large a CRL may become.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Pki;
use crate::model::{Data, Fault, Fields, Response, parse_duration};
use crate::store::{Versioned, Write};

/// The longest any of these may take: ten years, in seconds.
const SECONDS_MAX: u64 = 10 * 366 * 86400;
/// What Vault has for several clusters, which there are not.
const ENTERPRISE: [&str; 3] = ["cross_cluster_revocation", "unified_crl", "unified_crl_on_existing_paths"];

/// A span of time, as the operator wrote it and in seconds. Vault's clients compare the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    text: String,
    pub(super) seconds: u64,
}

impl Span {
    fn of(text: &str, seconds: u64) -> Span {
        Span { text: text.to_owned(), seconds }
    }

    fn read(fields: &mut Fields<'_>, name: &'static str) -> Result<Option<Span>, Fault> {
        let Some(text) = fields.filled(name)? else { return Ok(None) };
        let seconds = parse_duration(&text).map(|span| span.as_secs()).filter(|seconds| *seconds <= SECONDS_MAX);
        let seconds = seconds.ok_or_else(|| {
            Fault::invalid(format!(
                "given {name} could not be decoded: {text:?} is not a time such as \"72h\", at most 10 years"
            ))
        })?;
        Ok(Some(Span { text, seconds }))
    }
}

/// The settings, by Vault's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CrlConfig {
    /// How long a CRL is good for.
    pub(super) expiry: Span,
    /// Makes no CRLs.
    pub(super) disable: bool,
    /// Answers no OCSP requests.
    pub(super) ocsp_disable: bool,
    /// How long an OCSP answer is good for; 0 does not say.
    pub(super) ocsp_expiry: Span,
    /// Makes CRLs by the clock, not at each revocation.
    pub(super) auto_rebuild: bool,
    /// How long before its end a CRL is made anew by the clock.
    pub(super) auto_rebuild_grace_period: Span,
    /// Makes delta CRLs.
    pub(super) enable_delta: bool,
    /// How often a delta CRL is made while certificates are revoked.
    pub(super) delta_rebuild_interval: Span,
    /// The most entries of one CRL; negative is no bound.
    pub(super) max_crl_entries: i64,
}

impl Default for CrlConfig {
    fn default() -> CrlConfig {
        CrlConfig {
            expiry: Span::of("72h", 72 * 3600),
            disable: false,
            ocsp_disable: false,
            ocsp_expiry: Span::of("12h", 12 * 3600),
            auto_rebuild: false,
            auto_rebuild_grace_period: Span::of("12h", 12 * 3600),
            enable_delta: false,
            delta_rebuild_interval: Span::of("15m", 15 * 60),
            max_crl_entries: 100_000,
        }
    }
}

impl Versioned for CrlConfig {
    const VERSION: u16 = 1;
}

impl CrlConfig {
    /// These, with what a request names replaced.
    fn updated(&self, fields: &mut Fields<'_>) -> Result<CrlConfig, Fault> {
        fields.refuse(&ENTERPRISE)?;
        let mut span = |name, present: &Span| Ok(Span::read(fields, name)?.unwrap_or_else(|| present.clone()));
        let (expiry, ocsp_expiry) = (span("expiry", &self.expiry)?, span("ocsp_expiry", &self.ocsp_expiry)?);
        let grace = span("auto_rebuild_grace_period", &self.auto_rebuild_grace_period)?;
        let interval = span("delta_rebuild_interval", &self.delta_rebuild_interval)?;
        let mut flag = |name, present: bool| Ok::<_, Fault>(fields.boolean(name)?.unwrap_or(present));
        let config = CrlConfig {
            disable: flag("disable", self.disable)?,
            ocsp_disable: flag("ocsp_disable", self.ocsp_disable)?,
            auto_rebuild: flag("auto_rebuild", self.auto_rebuild)?,
            enable_delta: flag("enable_delta", self.enable_delta)?,
            max_crl_entries: fields.integer("max_crl_entries")?.unwrap_or(self.max_crl_entries),
            expiry,
            ocsp_expiry,
            auto_rebuild_grace_period: grace,
            delta_rebuild_interval: interval,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Fault> {
        if self.expiry.seconds == 0 {
            return Err(Fault::invalid(
                "expiry must be longer than 0: a CRL that is over when it is made is of no use",
            ));
        }
        let (expiry, grace) = (&self.expiry, &self.auto_rebuild_grace_period);
        if self.auto_rebuild && grace.seconds >= expiry.seconds {
            return Err(Fault::invalid(format!(
                "CRL auto-rebuilding grace period ({}) must be strictly shorter than CRL expiry ({}) value when \
                 auto-rebuilding of CRLs is enabled",
                grace.text, expiry.text
            )));
        }
        if self.enable_delta && !self.auto_rebuild {
            return Err(Fault::invalid(
                "Delta CRLs cannot be enabled when auto rebuilding is disabled as the complete CRL is always regenerated!",
            ));
        }
        let interval = &self.delta_rebuild_interval;
        if self.enable_delta && (interval.seconds == 0 || interval.seconds >= expiry.seconds) {
            return Err(Fault::invalid(format!(
                "CRL delta rebuild window ({}) must be longer than 0 and strictly shorter than CRL expiry ({}) value when \
                 delta CRLs are enabled",
                interval.text, expiry.text
            )));
        }
        Ok(())
    }

    /// How many entries a CRL may have.
    pub(super) fn entries_max(&self) -> usize {
        usize::try_from(self.max_crl_entries).unwrap_or(usize::MAX)
    }

    fn show(&self) -> Data {
        let mut value = json!({
            "expiry": self.expiry.text,
            "disable": self.disable,
            "ocsp_disable": self.ocsp_disable,
            "ocsp_expiry": self.ocsp_expiry.text,
            "auto_rebuild": self.auto_rebuild,
            "auto_rebuild_grace_period": self.auto_rebuild_grace_period.text,
            "enable_delta": self.enable_delta,
            "delta_rebuild_interval": self.delta_rebuild_interval.text,
            "max_crl_entries": self.max_crl_entries,
        });
        for name in ENTERPRISE {
            value[name] = false.into();
        }
        value.as_object().cloned().unwrap_or_default()
    }
}

impl Pki {
    /// `GET config/crl`.
    pub(super) fn read_crl_config(&self) -> Response {
        Response::data(self.crl_config.load().show())
    }

    /// `POST config/crl`: what is not named stays.
    pub(super) async fn write_crl_config(self: Arc<Self>, data: Data) -> Result<Response, Fault> {
        self.change(move |pki| {
            let mut fields = Fields::new(&data);
            let config = pki.crl_config.load().updated(&mut fields)?;
            pki.store.commit_now(vec![Write::put_record(pki.records.crl_config(), &config)?])?;
            let shown = config.show();
            pki.crl_config.store(Arc::new(config));
            pki.responder.forget();
            Ok(Response::with_warnings(shown, fields.warnings()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn update(value: Value) -> Result<CrlConfig, String> {
        let fields = value.as_object().unwrap();
        CrlConfig::default().updated(&mut Fields::new(fields)).map_err(|fault| fault.to_string())
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name_and_the_text_of_what_it_does() {
        let config = update(json!({"expiry": "48h", "auto_rebuild": true, "enable_delta": "true", "ocsp_expiry": 60}));
        let shown = Value::Object(config.unwrap().show());
        assert_eq!((&shown["expiry"], &shown["ocsp_expiry"]), (&json!("48h"), &json!("60")));
        assert_eq!((&shown["delta_rebuild_interval"], &shown["unified_crl"]), (&json!("15m"), &json!(false)));
        assert_eq!(update(json!({"max_crl_entries": -1})).unwrap().entries_max(), usize::MAX);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (body, expected) in [
            (json!({"enable_delta": true}), "auto rebuilding is disabled"),
            (json!({"auto_rebuild": true, "expiry": "12h"}), "strictly shorter"),
            (json!({"auto_rebuild": true, "enable_delta": true, "delta_rebuild_interval": "73h"}), "strictly shorter"),
            (json!({"expiry": "soon"}), "could not be decoded"),
            (json!({"expiry": 0}), "longer than 0"),
            (json!({"ocsp_expiry": "99999999h"}), "10 years"),
            (json!({"unified_crl": true}), "not supported"),
        ] {
            let refused = update(body.clone()).unwrap_err();
            assert!(refused.contains(expected), "{body}: {refused}");
        }
    }
}
