//! Quotas: token buckets, one for each thing a cloud meters by itself (a vault; an account's RSA requests in a region).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// So many requests per second, and so many at once after a pause.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quota {
    /// Requests per second; absent: as many as come.
    pub(crate) per_second: Option<f64>,
    /// The most that are saved up; the quota of one second if absent.
    pub(crate) burst: Option<f64>,
    /// What a refusal says about when to come again; nothing if absent.
    pub(crate) retry_after_ms: Option<u64>,
    /// The bucket it is for; absent: each that has no quota of its own.
    pub(crate) bucket: Option<String>,
}

impl Quota {
    fn burst(&self) -> f64 {
        self.burst.or(self.per_second).unwrap_or(f64::INFINITY).max(1.0)
    }
}

/// The quotas that are set, and what is left of each bucket.
#[derive(Default)]
pub(crate) struct Quotas {
    set: BTreeMap<String, Quota>,
    general: Option<Quota>,
    buckets: BTreeMap<String, Bucket>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// A request over its quota, and when the service says to come again.
#[derive(Debug, PartialEq)]
pub(crate) struct Over {
    pub(crate) retry_after: Option<Duration>,
}

impl Quotas {
    /// Replaces a quota. What a bucket has saved up stays, as far as the new burst allows.
    pub(crate) fn set(&mut self, quota: Quota) {
        match &quota.bucket {
            Some(bucket) => drop(self.set.insert(bucket.clone(), quota)),
            None => self.general = Some(quota),
        }
    }

    /// All that is set.
    pub(crate) fn all(&self) -> Vec<&Quota> {
        self.general.iter().chain(self.set.values()).collect()
    }

    /// Takes one token of a bucket, if it has one.
    pub(crate) fn take(&mut self, bucket: &str, now: Instant) -> Result<(), Over> {
        let Some(quota) = self.set.get(bucket).or(self.general.as_ref()) else { return Ok(()) };
        let Some(per_second) = quota.per_second else { return Ok(()) };
        let full = quota.burst();
        let left = self.buckets.entry(bucket.to_owned()).or_insert(Bucket { tokens: full, at: now });
        let passed = now.saturating_duration_since(left.at).as_secs_f64();
        left.tokens = (left.tokens + passed * per_second).min(full);
        left.at = now;
        if left.tokens < 1.0 {
            return Err(Over { retry_after: quota.retry_after_ms.map(Duration::from_millis) });
        }
        left.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(per_second: f64, burst: f64, bucket: Option<&str>) -> Quota {
        Quota {
            per_second: Some(per_second),
            burst: Some(burst),
            retry_after_ms: Some(1500),
            bucket: bucket.map(str::to_owned),
        }
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut quotas = Quotas::default();
        quotas.set(quota(10.0, 3.0, None));
        let start = Instant::now();
        let taken = |quotas: &mut Quotas, ms| quotas.take("v", start + Duration::from_millis(ms));
        for _ in 0..3 {
            assert_eq!(taken(&mut quotas, 0), Ok(()));
        }
        assert_eq!(taken(&mut quotas, 0), Err(Over { retry_after: Some(Duration::from_millis(1500)) }));
        assert!(taken(&mut quotas, 50).is_err());
        assert_eq!(taken(&mut quotas, 101), Ok(()));
        assert!(taken(&mut quotas, 102).is_err());
    }

    #[test]
    fn a_smaller_quota_takes_what_was_saved_up() {
        let mut quotas = Quotas::default();
        let now = Instant::now();
        quotas.set(quota(1000.0, 1000.0, None));
        assert_eq!(quotas.take("v", now), Ok(()));
        quotas.set(quota(1.0, 1.0, Some("v")));
        assert_eq!(quotas.take("v", now), Ok(()));
        assert!(quotas.take("v", now).is_err());
        assert_eq!(quotas.take("w", now), Ok(()), "another bucket has the general quota");
    }
}
