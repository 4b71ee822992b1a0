//! How long a token lives: Vault's arithmetic, in whole seconds.

use crate::model::Fault;

/// How long a token lives if nothing else is said: 32 days, as in Vault.
pub(super) const DEFAULT_TTL: u64 = 768 * 3600;
/// The longest a token lives, or is renewed for at once if it has a period: 32 days, as in Vault.
pub(super) const MAX_TTL: u64 = 768 * 3600;

/// What is asked of a token's life. Zero stands for what is not said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// For how long from now, as the one who asks says it.
    pub(super) increment: u64,
    /// For how long it was made.
    pub(super) ttl: u64,
    /// The longest that whoever made it lets it be renewed, all in all, unless it has a period.
    pub(super) max_ttl: u64,
    /// For how long it is renewed each time, without end.
    pub(super) period: u64,
    /// The longest it may live, all in all.
    pub(super) explicit_max_ttl: u64,
    /// When it was made.
    pub(super) start: u64,
}

/// Seconds from `now` that the token is to live, and what its owner should know about that.
pub(super) fn effective(wanted: &Wanted, now: u64) -> Result<(u64, Vec<String>), Fault> {
    let mut warnings = Vec::new();
    let explicit = (wanted.explicit_max_ttl > 0).then_some(wanted.explicit_max_ttl);
    let (ttl, limit) = if wanted.period > 0 {
        if wanted.period > MAX_TTL {
            warnings.push(format!(
                "period of \"{}\" exceeded the effective max_ttl of \"{}\"; period value is capped accordingly",
                spell(wanted.period),
                spell(MAX_TTL)
            ));
        }
        (wanted.period.min(MAX_TTL), explicit)
    } else {
        let asked = [wanted.increment, wanted.ttl].into_iter().find(|seconds| *seconds > 0);
        let longest = [wanted.max_ttl, wanted.explicit_max_ttl].into_iter().filter(|seconds| *seconds > 0);
        (asked.unwrap_or(DEFAULT_TTL), Some(longest.fold(MAX_TTL, u64::min)))
    };
    let Some(limit) = limit else { return Ok((ttl, warnings)) };
    let left = wanted.start.saturating_add(limit).saturating_sub(now);
    if left == 0 {
        return Err(Fault::invalid("past the max TTL, cannot renew"));
    }
    if ttl > left {
        warnings.push(format!(
            "TTL of \"{}\" exceeded the effective max_ttl of \"{}\"; TTL value is capped accordingly",
            spell(ttl),
            spell(left)
        ));
    }
    Ok((ttl.min(left), warnings))
}

/// Seconds as Go writes a duration: `1h0m0s`.
fn spell(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(wanted: Wanted, now: u64) -> (u64, usize) {
        let (ttl, warnings) = effective(&wanted, now).unwrap();
        (ttl, warnings.len())
    }

    #[test]
    fn a_token_lives_as_long_as_is_asked_within_the_longest() {
        let start = 1000;
        assert_eq!(seconds(Wanted { start, ..Wanted::default() }, start), (DEFAULT_TTL, 0));
        assert_eq!(seconds(Wanted { ttl: 60, start, ..Wanted::default() }, start), (60, 0));
        assert_eq!(seconds(Wanted { ttl: 60, increment: 90, start, ..Wanted::default() }, start), (90, 0));
        assert_eq!(seconds(Wanted { ttl: MAX_TTL + 1, start, ..Wanted::default() }, start), (MAX_TTL, 1));
        assert_eq!(seconds(Wanted { ttl: 60, explicit_max_ttl: 50, start, ..Wanted::default() }, start), (50, 1));
        assert_eq!(seconds(Wanted { max_ttl: 40, explicit_max_ttl: 50, start, ..Wanted::default() }, start), (40, 1));
    }

    #[test]
    fn renewing_ends_at_the_longest_life_but_with_a_period_only_at_an_explicit_one() {
        let wanted = Wanted { ttl: 60, start: 0, ..Wanted::default() };
        assert_eq!(seconds(wanted, MAX_TTL - 10), (10, 1));
        assert!(effective(&wanted, MAX_TTL).unwrap_err().to_string().contains("past the max TTL"));
        let periodic = Wanted { period: 60, increment: 5, ..wanted };
        assert_eq!(seconds(periodic, 10 * MAX_TTL), (60, 0));
        assert_eq!(seconds(Wanted { period: MAX_TTL + 1, ..wanted }, 0), (MAX_TTL, 1));
        let bounded = Wanted { explicit_max_ttl: 100, ..periodic };
        assert_eq!(seconds(bounded, 70), (30, 1));
        assert!(effective(&bounded, 100).is_err());
    }

    #[test]
    fn durations_are_spelled_as_go_does() {
        assert_eq!([5, 60, 3600, 768 * 3600].map(spell), ["5s", "1m0s", "1h0m0s", "768h0m0s"]);
    }
}
