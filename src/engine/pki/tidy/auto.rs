//! `config/auto-tidy`: tidying by the clock. When it last ran is stored, so that restarts neither hasten nor postpone it.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::{Pki, validity};
use super::LastTidy;
use super::targets::{self, Targets};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};
use crate::store::{Versioned, Write};

/// The settings, by Vault's names; spans in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::engine::pki) struct AutoTidy {
    enabled: bool,
    /// From the end of one to the beginning of the next; 0 is never.
    interval_duration: u64,
    /// How long after the mount's start none begins: by chance between these, so that mounts do not tidy all at once.
    min_startup_backoff_duration: u64,
    max_startup_backoff_duration: u64,
    pub(super) maintain_stored_certificate_counts: bool,
    pub(super) publish_stored_certificate_count_metrics: bool,
    targets: Targets,
}

impl Default for AutoTidy {
    fn default() -> AutoTidy {
        AutoTidy {
            enabled: false,
            interval_duration: 12 * 3600,
            min_startup_backoff_duration: 5 * 60,
            max_startup_backoff_duration: 15 * 60,
            maintain_stored_certificate_counts: false,
            publish_stored_certificate_count_metrics: false,
            targets: Targets::default(),
        }
    }
}

impl Versioned for AutoTidy {
    const VERSION: u16 = 1;
}

impl AutoTidy {
    /// These, with what a request names replaced.
    fn updated(&self, fields: &mut Fields<'_>) -> Result<AutoTidy, Fault> {
        let mut backoff = |name, present: u64| match targets::seconds(fields, name)? {
            Some(0) => Err(Fault::invalid(format!("{name} must be at least 1 second: parsed: 0s"))),
            given => Ok(given.unwrap_or(present)),
        };
        let least = backoff("min_startup_backoff_duration", self.min_startup_backoff_duration)?;
        let most = backoff("max_startup_backoff_duration", self.max_startup_backoff_duration)?;
        let interval = targets::seconds(fields, "interval_duration")?.unwrap_or(self.interval_duration);
        let too_short = |name: &str| format!("given {name} must be at least one second; got: 0");
        let targets = self.targets.updated(fields, too_short)?;
        let mut flag = |name, present: bool| Ok::<_, Fault>(fields.boolean(name)?.unwrap_or(present));
        let config = AutoTidy {
            enabled: flag("enabled", self.enabled)?,
            interval_duration: interval,
            min_startup_backoff_duration: least,
            max_startup_backoff_duration: most,
            maintain_stored_certificate_counts: flag(
                "maintain_stored_certificate_counts",
                self.maintain_stored_certificate_counts,
            )?,
            publish_stored_certificate_count_metrics: flag(
                "publish_stored_certificate_count_metrics",
                self.publish_stored_certificate_count_metrics,
            )?,
            targets,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Fault> {
        let (least, most) = (self.min_startup_backoff_duration, self.max_startup_backoff_duration);
        if least > most {
            let [least, most] = [least, most].map(|seconds| targets::go_text(Duration::from_secs(seconds)));
            return Err(Fault::invalid(format!(
                "max_startup_backoff_duration {most} must be greater or equal to min_startup_backoff_duration {least}"
            )));
        }
        if self.enabled && !self.targets.are_any() {
            return Err(Fault::invalid(format!(
                "Auto-tidy enabled but no tidy operations were requested. Enable at least one tidy operation to be run ({}).",
                targets::ALL
            )));
        }
        if self.publish_stored_certificate_count_metrics && !self.maintain_stored_certificate_counts {
            return Err(Fault::invalid(
                "Can not publish a running storage metrics count to metrics without first maintaining that count.  Enable \
                 `maintain_stored_certificate_counts` to enable `publish_stored_certificate_count_metrics`.",
            ));
        }
        Ok(())
    }

    fn show(&self) -> Data {
        let mut data = self.targets.show();
        let value = json!({
            "enabled": self.enabled,
            "interval_duration": self.interval_duration,
            "min_startup_backoff_duration": self.min_startup_backoff_duration,
            "max_startup_backoff_duration": self.max_startup_backoff_duration,
            "maintain_stored_certificate_counts": self.maintain_stored_certificate_counts,
            "publish_stored_certificate_count_metrics": self.publish_stored_certificate_count_metrics,
        });
        data.extend(value.as_object().cloned().unwrap_or_default());
        data
    }

    /// Whether the interval is over at `now`, where one last began or ended at `last` (Unix seconds).
    fn is_due(&self, last: u64, now: u64) -> bool {
        // One in the future is of a clock that was wrong, and would put it off for as long.
        let is_over = last > now || now >= last.saturating_add(self.interval_duration);
        self.enabled && self.interval_duration > 0 && is_over
    }

    /// A time between the bounds after the mount's start at `started`, by chance. Unix seconds.
    fn not_before(&self, started: u64) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Fault::internal("the system gives no random bytes"))?;
        let (least, most) = (self.min_startup_backoff_duration, self.max_startup_backoff_duration);
        Ok(started + least + u64::from_be_bytes(bytes) % most.saturating_sub(least).max(1))
    }
}

impl Pki {
    /// `GET config/auto-tidy`.
    pub(in crate::engine::pki) fn read_auto_tidy(&self) -> Response {
        Response::data(self.auto_tidy.load().show())
    }

    /// `POST config/auto-tidy`: what is not named stays. Where it is turned on, the first one comes after an interval.
    pub(in crate::engine::pki) async fn write_auto_tidy(self: Arc<Self>, data: Data) -> Result<Response, Fault> {
        self.change(move |pki| {
            let mut fields = Fields::new(&data);
            let before = pki.auto_tidy.load_full();
            let config = before.updated(&mut fields)?;
            let mut writes = vec![Write::put_record(pki.records.auto_tidy(), &config)?];
            let began = (config.enabled && !before.enabled).then(validity::now);
            if let Some(time) = began {
                writes.push(Write::put_record(pki.records.last_tidy(), &LastTidy { time })?);
            }
            pki.store.commit_now(writes)?;
            if let Some(time) = began {
                pki.tidy.set_last(time);
            }
            pki.counts.keep(config.maintain_stored_certificate_counts);
            let shown = config.show();
            pki.auto_tidy.store(Arc::new(config));
            Ok(Response::with_warnings(shown, fields.warnings()))
        })
        .await
    }

    /// Begins a tidying if one is due by the clock.
    pub(in crate::engine::pki) async fn tidy_if_due(self: &Arc<Self>, call: &Call) -> Result<(), Fault> {
        let (config, now) = (self.auto_tidy.load_full(), validity::now());
        if !config.is_due(self.tidy.last(), now) || !self.tidy.has_settled(now, |started| config.not_before(started))? {
            return Ok(());
        }
        if self.start_tidy(call, &config.targets) {
            self.note_tidy().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn update(config: &AutoTidy, value: Value) -> Result<AutoTidy, String> {
        let data = value.as_object().cloned().unwrap();
        config.updated(&mut Fields::new(&data)).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_defaults_are_vaults() {
        let shown = Value::Object(AutoTidy::default().show());
        let expected = json!({
            "enabled": false, "interval_duration": 43200, "min_startup_backoff_duration": 300,
            "max_startup_backoff_duration": 900, "tidy_cert_store": false, "tidy_revoked_certs": false,
            "tidy_revoked_cert_issuer_associations": false, "tidy_expired_issuers": false,
            "tidy_move_legacy_ca_bundle": false, "tidy_acme": false, "tidy_revocation_queue": false,
            "tidy_cross_cluster_revoked_certs": false, "tidy_cert_metadata": false, "tidy_cmpv2_nonce_store": false,
            "safety_buffer": 259_200, "issuer_safety_buffer": 31_536_000, "acme_account_safety_buffer": 2_592_000,
            "revocation_queue_safety_buffer": 172_800, "pause_duration": "0s",
            "maintain_stored_certificate_counts": false, "publish_stored_certificate_count_metrics": false,
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_cannot_work_is_refused_and_what_is_not_named_stays() {
        let config = AutoTidy::default();
        for (body, told) in [
            (json!({"enabled": true}), "no tidy operations were requested"),
            (json!({"publish_stored_certificate_count_metrics": true}), "without first maintaining"),
            (json!({"min_startup_backoff_duration": "16m"}), "15m0s must be greater or equal to"),
            (json!({"max_startup_backoff_duration": 0}), "must be at least 1 second"),
            (json!({"safety_buffer": 0}), "given safety_buffer must be at least one second"),
            (json!({"interval_duration": -1}), "expected a duration"),
            (json!({"tidy_cert_metadata": true}), "Vault Enterprise"),
        ] {
            let refused = update(&config, body.clone()).unwrap_err();
            assert!(refused.contains(told), "{body}: {refused}");
        }
        let config = update(&config, json!({"enabled": "true", "tidy_cert_store": true})).unwrap();
        let config = update(&config, json!({"interval_duration": "1h"})).unwrap();
        assert!(config.enabled && config.targets.tidy_cert_store && config.interval_duration == 3600);
        assert!(update(&config, json!({"tidy_cert_store": false})).is_err());
    }

    #[test]
    fn the_interval_and_the_start_are_waited_for() {
        let config = AutoTidy { enabled: true, ..AutoTidy::default() };
        assert!(
            config.is_due(0, 1_800_000_000) && config.is_due(100, 100 + 43_200) && !config.is_due(100, 99 + 43_200)
        );
        assert!(config.is_due(2_000_000_000, 1_800_000_000));
        assert!(!AutoTidy { enabled: false, ..config.clone() }.is_due(0, 1_800_000_000));
        assert!(!AutoTidy { interval_duration: 0, ..config.clone() }.is_due(0, 1_800_000_000));
        assert!((0..100).all(|_| (1300..1900).contains(&config.not_before(1000).unwrap())));
        let exact = AutoTidy { max_startup_backoff_duration: 300, ..config };
        assert_eq!(exact.not_before(1000), Ok(1300));
    }
}
