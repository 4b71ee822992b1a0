//! What services allow by default, in one table.
//!
//! Quotas are counted in units of cost. Where a service weighs requests, as an Azure vault does, a dear one costs more units
//! than a cheap one; everywhere else each costs 1.

use std::time::Duration;

/// What may be asked of a quota domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quota {
    /// Units a second.
    pub(crate) per_second: f64,
    /// Units that may go at once after a pause; at least 1.
    pub(crate) burst: f64,
    /// Requests in flight at most; what is really allowed adapts, below it.
    pub(crate) max_in_flight: usize,
    /// The span over which the service counts. Less of calm than that says nothing of its mood.
    pub(crate) window: Duration,
}

/// Requests in flight at most, unless configured.
pub(crate) const MAX_IN_FLIGHT: usize = 512;
/// The least and the most that can be configured, in units a second.
pub(crate) const PER_SECOND: (f64, f64) = (0.1, 1_000_000.0);

impl Quota {
    /// So many units a second, counted by the second. At once go as many as come in a twentieth of one: services allow more,
    /// and what they allow beyond that is for the unevenness of the way there.
    pub(crate) const fn per_second(per_second: f64) -> Quota {
        let burst = if per_second > 20.0 { per_second / 20.0 } else { 1.0 };
        Quota { per_second, burst, max_in_flight: MAX_IN_FLIGHT, window: Duration::from_secs(1) }
    }

    const fn counted_over(self, seconds: u64) -> Quota {
        Quota { window: Duration::from_secs(seconds), ..self }
    }

    /// Itself, with each value brought to where it can be worked with.
    #[must_use]
    pub(crate) fn bounded(self) -> Quota {
        let within = |value: f64, least: f64, most: f64| if value.is_nan() { least } else { value.clamp(least, most) };
        Quota {
            per_second: within(self.per_second, PER_SECOND.0, PER_SECOND.1),
            burst: within(self.burst, 1.0, PER_SECOND.1),
            max_in_flight: self.max_in_flight.clamp(1, 65_536),
            window: self.window.clamp(Duration::from_millis(100), Duration::from_secs(60)),
        }
    }
}

/// A row of [`DEFAULTS`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct DefaultQuota {
    /// The backend, as managed keys name it.
    pub(crate) backend: &'static str,
    /// Which keys and operations.
    pub(crate) family: &'static str,
    /// The quota of that.
    pub(crate) quota: Quota,
    /// Units that one request of this family costs.
    pub(crate) cost: u32,
}

const fn row(backend: &'static str, family: &'static str, quota: Quota, cost: u32) -> DefaultQuota {
    DefaultQuota { backend, family, quota, cost }
}

const fn aws_row(family: &'static str, per_second: f64) -> DefaultQuota {
    row("awskms", family, Quota::per_second(per_second), 1)
}

/// 4,000 operations in ten seconds of the cheapest kind.
const VAULT: Quota = Quota::per_second(400.0).counted_over(10);
const POOL: Quota = Quota::per_second(1000.0);

const fn vault_row(family: &'static str, cost: u32) -> DefaultQuota {
    row("azurekeyvault", family, VAULT, cost)
}

const fn pool_row(family: &'static str, cost: u32) -> DefaultQuota {
    row("azurekeyvault", family, POOL, cost)
}

const fn google_row(family: &'static str, per_second: f64) -> DefaultQuota {
    row("gcpckms", family, Quota::per_second(per_second), 1)
}

/// What the services document (AWS KMS request quotas; Key Vault service limits and Managed HSM scaling guidance), all of it
/// adjustable there, so configurable here. Google's quotas are dynamic since 2026 and documented as no number: 1,000 a
/// second is what its fixed ones were, and what it accepts is found out.
pub(crate) const DEFAULTS: &[DefaultQuota] = &[
    aws_row("rsa", 1_000.0),
    aws_row("ecc", 1_000.0),
    aws_row("ml-dsa", 1_000.0),
    aws_row("symmetric", 10_000.0),
    // DescribeKey and GetPublicKey have as much each, and a look-up takes one of both.
    aws_row("look-up", 2_000.0),
    aws_row("creation", 5.0),
    vault_row("ec", 1),
    vault_row("ec-hsm", 2),
    vault_row("rsa-2048", 1),
    vault_row("rsa-2048-hsm", 2),
    vault_row("rsa-3072", 4),
    vault_row("rsa-3072-hsm", 8),
    vault_row("rsa-4096", 8),
    vault_row("rsa-4096-hsm", 16),
    vault_row("look-up", 1),
    row("azurekeyvault", "creation", Quota::per_second(1.0).counted_over(10), 1),
    pool_row("managed look-up", 1),
    pool_row("managed rsa-2048", 1),
    pool_row("managed rsa-3072", 3),
    pool_row("managed rsa-4096", 7),
    pool_row("managed p-256", 3),
    pool_row("managed p-384", 6),
    pool_row("managed p-521", 5),
    pool_row("managed oct", 1),
    google_row("cryptographic", 1_000.0),
    // 300 reads in a minute: 60 at once, when a daemon starts, and 240. A look-up takes two.
    row("gcpckms", "look-up", Quota { burst: 60.0, ..Quota::per_second(4.0).counted_over(60) }, 2),
    // 60 writes in a minute.
    row("gcpckms", "creation", Quota::per_second(1.0).counted_over(60), 1),
];

/// Regions in which AWS allows more symmetric operations.
const AWS_LARGE: [&str; 3] = ["us-east-1", "us-west-2", "eu-west-1"];
const AWS_MIDDLE: [&str; 6] =
    ["us-east-2", "ap-southeast-1", "ap-southeast-2", "ap-northeast-1", "eu-central-1", "eu-west-2"];

/// The quota of a family in a region of AWS.
pub(crate) fn aws(family: &str, region: &str) -> Option<Quota> {
    let found = find("awskms", family)?;
    Some(match family {
        "symmetric" if AWS_LARGE.contains(&region) => Quota::per_second(100_000.0),
        "symmetric" if AWS_MIDDLE.contains(&region) => Quota::per_second(20_000.0),
        _ => found.quota,
    })
}

/// The quota of a vault or a managed HSM, and what a request of this family costs there.
pub(crate) fn azure(family: &str) -> Option<(Quota, u32)> {
    find("azurekeyvault", family).map(|found| (found.quota, found.cost))
}

/// The quota of a family in a region of a Google project, or in all of it, and what a request costs.
pub(crate) fn google(family: &str) -> Option<(Quota, u32)> {
    find("gcpckms", family).map(|found| (found.quota, found.cost))
}

fn find(backend: &str, family: &str) -> Option<&'static DefaultQuota> {
    DEFAULTS.iter().find(|row| row.backend == backend && row.family == family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_services() {
        assert_eq!(aws("rsa", "eu-north-1").unwrap().per_second, 1_000.0);
        assert_eq!(aws("symmetric", "eu-north-1").unwrap().per_second, 10_000.0);
        assert_eq!(aws("symmetric", "eu-west-2").unwrap().per_second, 20_000.0);
        assert_eq!(aws("symmetric", "us-east-1").unwrap().per_second, 100_000.0);
        assert_eq!(aws("dsa", "us-east-1"), None);
        assert_eq!(google("cryptographic").unwrap().0.per_second, 1_000.0);
        // No minute has more than 300 reads.
        let (reads, _) = google("look-up").unwrap();
        assert!(reads.burst + 60.0 * reads.per_second <= 300.0);
        // In ten seconds: 2,000 with RSA-2048 in an HSM, 500 and 250 with longer ones, twice as many in software.
        for (family, in_ten_seconds) in [
            ("rsa-2048-hsm", 2_000.0),
            ("rsa-3072-hsm", 500.0),
            ("rsa-4096-hsm", 250.0),
            ("ec-hsm", 2_000.0),
            ("rsa-2048", 4_000.0),
        ] {
            let (quota, cost) = azure(family).unwrap();
            assert_eq!(quota.per_second * 10.0 / f64::from(cost), in_ten_seconds, "{family}");
            assert_eq!(quota.window, Duration::from_secs(10));
        }
    }

    #[test]
    fn the_readme_says_of_quotas_what_the_table_says() {
        let readme = include_str!("../../../../README.md");
        let said: Vec<&str> = readme.lines().filter(|line| line.starts_with("| quota `")).collect();
        let shown = |row: &DefaultQuota| {
            let DefaultQuota { backend, family, quota, cost } = row;
            format!("| quota `{backend}` | {family} | {} | {cost} |", quota.per_second)
        };
        assert_eq!(said, DEFAULTS.iter().map(shown).collect::<Vec<_>>(), "correct the README's table");
    }

    #[test]
    fn every_default_is_within_bounds_and_named_once() {
        for (index, row) in DEFAULTS.iter().enumerate() {
            assert_eq!(row.quota.bounded(), row.quota, "{row:?}");
            let twin = |other: &DefaultQuota| (other.backend, other.family) == (row.backend, row.family);
            assert_eq!(DEFAULTS.iter().position(twin), Some(index), "{row:?}");
        }
        let wild = Quota { per_second: f64::NAN, burst: -1.0, max_in_flight: 0, window: Duration::ZERO }.bounded();
        assert_eq!((wild.per_second, wild.burst, wild.max_in_flight), (0.1, 1.0, 1));
    }
}
