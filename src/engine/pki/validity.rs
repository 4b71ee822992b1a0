//! Validity periods: from requests, roles and mounts to `notBefore` and `notAfter` (RFC 5280, 4.1.2.5).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use der::asn1::{GeneralizedTime, UtcTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::asn1::{encode, sequence, unencodable};
use crate::model::{Fault, MountConfig};

/// 9999-12-31T23:59:59Z: the last moment X.509 can write, meaning "no end" (RFC 5280, 4.1.2.5).
pub(super) const LAST: u64 = 253_402_300_799;
/// 2050-01-01T00:00:00Z: from here on times are GeneralizedTime.
const GENERALIZED_FROM: u64 = 2_524_608_000;
/// How far back a certificate may begin: a year.
const NOT_BEFORE_MAX: u64 = 366 * 24 * 3600;

/// A validity period, in Unix seconds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

/// What a request and its role say of the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish<'a> {
    /// The request's `ttl`.
    pub(super) ttl: Option<Duration>,
    /// The request's `not_after`.
    pub(super) not_after: Option<&'a str>,
    /// The role's `ttl` in seconds; 0 is none.
    pub(super) role_ttl: u64,
    /// The role's `max_ttl` in seconds; 0 is none.
    pub(super) role_max_ttl: u64,
    /// The role's `not_after`; it goes before the request's, and no maximum bounds it: an operator set it.
    pub(super) role_not_after: &'a str,
    /// `not_before_duration` in seconds.
    pub(super) not_before: u64,
}

/// What happens to a certificate that would end after its issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// It is not issued.
    Refuse,
    /// It is cut to the issuer's end.
    Cut,
    /// It ends when it was to.
    Keep,
}

/// The clock, in Unix seconds.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A moment in RFC 3339, in Unix seconds; not before now's era nor beyond the year 9999.
pub(super) fn parse_not_after(text: &str) -> Result<u64, Fault> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok().and_then(|time| u64::try_from(time.unix_timestamp()).ok());
    moment.filter(|moment| *moment <= LAST).ok_or_else(|| {
        Fault::invalid(format!("not_after {text:?} is not a time such as 2030-12-31T23:59:59Z, up to the year 9999"))
    })
}

/// Refuses a `not_before_duration` that reaches back too far.
pub(super) fn check_not_before(seconds: u64) -> Result<(), Fault> {
    if seconds > NOT_BEFORE_MAX {
        return Err(Fault::invalid(format!("not_before_duration is at most {NOT_BEFORE_MAX} seconds")));
    }
    Ok(())
}

/// A time in RFC 3339, UTC, as Vault writes it in answers.
pub(super) fn rfc3339(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

impl Validity {
    /// The period that `wish` asks for, within the role's and the mount's bounds. A life cut to a maximum comes with a
    /// warning, as Vault has it.
    pub(super) fn plan(wish: &Wish<'_>, mount: &MountConfig, now: u64) -> Result<(Validity, Option<String>), Fault> {
        if wish.ttl.is_some_and(|ttl| !ttl.is_zero()) && (wish.not_after.is_some() || !wish.role_not_after.is_empty()) {
            return Err(Fault::invalid(
                "Either ttl or not_after should be provided. Both should not be provided in the same request.",
            ));
        }
        let mount_max = mount.effective_max_ttl().as_secs();
        let max = if wish.role_max_ttl == 0 { mount_max } else { wish.role_max_ttl.min(mount_max) };
        let (asked, max) = if !wish.role_not_after.is_empty() {
            (parse_not_after(wish.role_not_after)?, LAST)
        } else if let Some(text) = wish.not_after {
            (parse_not_after(text)?, now.saturating_add(max).min(LAST))
        } else {
            let ttl = wish.ttl.map_or(0, |ttl| ttl.as_secs());
            let ttl = [ttl, wish.role_ttl].into_iter().find(|ttl| *ttl != 0);
            let ttl = ttl.unwrap_or_else(|| mount.effective_default_ttl().as_secs());
            (now.saturating_add(ttl), now.saturating_add(max).min(LAST))
        };
        let not_after = asked.min(max);
        let warning = (asked > max).then(|| {
            format!(
                "TTL \"{}s\" is longer than permitted maxTTL \"{}s\", so maxTTL is being used",
                asked.saturating_sub(now),
                max.saturating_sub(now)
            )
        });
        if not_after <= now {
            return Err(Fault::invalid(format!("not_after {} is in the past", rfc3339(not_after))));
        }
        Ok((Validity { not_before: now.saturating_sub(wish.not_before), not_after }, warning))
    }

    /// This, where its issuer ends at `issuer_ends`: refused, cut with a warning, or left as it is, if it ends later.
    pub(super) fn bounded(self, issuer_ends: u64, beyond: Beyond) -> Result<(Validity, Option<String>), Fault> {
        let told = || (rfc3339(self.not_after), rfc3339(issuer_ends));
        match beyond {
            _ if self.not_after <= issuer_ends => Ok((self, None)),
            Beyond::Keep => Ok((self, None)),
            Beyond::Cut if issuer_ends > now() => {
                let (asked, ends) = told();
                let warning = format!("the certificate would end at {asked}, after its issuer: it was cut to {ends}");
                Ok((Validity { not_after: issuer_ends, ..self }, Some(warning)))
            }
            Beyond::Cut | Beyond::Refuse => {
                let (asked, ends) = told();
                Err(Fault::invalid(format!(
                    "cannot satisfy request, as TTL would result in notAfter of {asked} that is beyond the expiration of the \
                     CA certificate at {ends}"
                )))
            }
        }
    }

    /// DER of the Validity.
    pub(super) fn encode(self) -> Result<Vec<u8>, Fault> {
        sequence(&[&encode_time(self.not_before)?, &encode_time(self.not_after)?])
    }
}

/// DER of a Time: UTCTime through 2049, GeneralizedTime from 2050 on.
pub(super) fn encode_time(seconds: u64) -> Result<Vec<u8>, Fault> {
    let span = Duration::from_secs(seconds);
    if seconds < GENERALIZED_FROM {
        encode(&UtcTime::from_unix_duration(span).map_err(unencodable)?)
    } else {
        encode(&GeneralizedTime::from_unix_duration(span).map_err(unencodable)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const HOUR: u64 = 3600;

    fn mount(default: u64, max: u64) -> MountConfig {
        MountConfig {
            default_lease_ttl: Duration::from_secs(default),
            max_lease_ttl: Duration::from_secs(max),
            ..MountConfig::default()
        }
    }

    fn plan(wish: &Wish<'_>) -> Result<(u64, bool), Fault> {
        let (validity, warning) = Validity::plan(wish, &mount(HOUR, 10 * HOUR), NOW)?;
        Ok((validity.not_after - NOW, warning.is_some()))
    }

    #[test]
    fn the_request_goes_before_the_role_and_the_role_before_the_mount() {
        let ttl = |hours| Some(Duration::from_secs(hours * HOUR));
        assert_eq!(plan(&Wish::default()), Ok((HOUR, false)));
        assert_eq!(plan(&Wish { role_ttl: 2 * HOUR, ..Wish::default() }), Ok((2 * HOUR, false)));
        assert_eq!(plan(&Wish { role_ttl: 2 * HOUR, ttl: ttl(3), ..Wish::default() }), Ok((3 * HOUR, false)));
    }

    #[test]
    fn the_smaller_maximum_cuts_with_a_warning() {
        let ttl = |hours| Some(Duration::from_secs(hours * HOUR));
        assert_eq!(plan(&Wish { ttl: ttl(50), ..Wish::default() }), Ok((10 * HOUR, true)));
        assert_eq!(plan(&Wish { ttl: ttl(50), role_max_ttl: 5 * HOUR, ..Wish::default() }), Ok((5 * HOUR, true)));
        assert_eq!(plan(&Wish { ttl: ttl(50), role_max_ttl: 50 * HOUR, ..Wish::default() }), Ok((10 * HOUR, true)));
        let far = rfc3339(NOW + 50 * HOUR);
        assert_eq!(plan(&Wish { not_after: Some(&far), ..Wish::default() }), Ok((10 * HOUR, true)));
    }

    #[test]
    fn a_roles_own_end_is_bounded_by_the_issuer_alone() {
        let within = rfc3339(NOW + 50 * HOUR);
        assert_eq!(plan(&Wish { role_not_after: &within, ..Wish::default() }), Ok((50 * HOUR, false)));
    }

    #[test]
    fn what_would_outlive_its_issuer_is_refused_cut_or_kept() {
        let ends = now() + 10 * HOUR;
        let long = Validity { not_before: now(), not_after: ends + 1 };
        let fault = long.bounded(ends, Beyond::Refuse).unwrap_err();
        assert!(fault.to_string().contains("beyond the expiration of the CA certificate"), "{fault}");
        let (cut, warning) = long.bounded(ends, Beyond::Cut).unwrap();
        assert!(cut.not_after == ends && warning.is_some());
        assert_eq!(long.bounded(ends, Beyond::Keep), Ok((long, None)));
        assert_eq!(cut.bounded(ends, Beyond::Refuse), Ok((cut, None)));
        // An issuer that has ended has no life to give.
        assert!(long.bounded(now() - 1, Beyond::Cut).is_err());
    }

    #[test]
    fn contradictions_and_the_past_are_refused() {
        let end = rfc3339(NOW + HOUR);
        let both = Wish { ttl: Some(Duration::from_secs(1)), not_after: Some(&end), ..Wish::default() };
        assert!(plan(&both).is_err());
        let past = rfc3339(NOW - 1);
        assert!(plan(&Wish { not_after: Some(&past), ..Wish::default() }).is_err());
        assert!(parse_not_after("9999-12-31T23:59:59Z").is_ok());
        assert!(parse_not_after("1960-01-01T00:00:00Z").is_err());
        assert!(check_not_before(NOT_BEFORE_MAX + 1).is_err());
    }

    #[test]
    fn times_change_their_form_in_2050() {
        assert_eq!(encode_time(GENERALIZED_FROM - 1).unwrap(), b"\x17\x0d491231235959Z");
        assert_eq!(encode_time(GENERALIZED_FROM).unwrap(), b"\x18\x0f20500101000000Z");
        assert_eq!(encode_time(LAST).unwrap(), b"\x18\x0f99991231235959Z");
    }
}
