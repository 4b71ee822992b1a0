//! Since when what anyone may fetch is what it is, so that those who have it already need not fetch it again (RFC 9110, 13.1.3):
//! where the mount is tuned to let `If-Modified-Since` in.
//!
//! Times are kept in memory alone, and begin anew with the daemon: each client fetches once more after a restart, and none can
//! hold on to what a store of an earlier day, put back, does not have.

use super::authority::Authority;
use super::crl::Crl;
use super::validity;
use crate::engine::Call;
use crate::engine::table::Target;
use crate::model::{Fault, LAST_MODIFIED, Response};

/// A change is told of, and counts as seen, so many seconds after the one in which it began to show. Dates have whole seconds
/// only: within its own, and while answers made just before are still on their way, old and new have the same date.
const SETTLED: u64 = 2;

/// What an asker has already, and may be told.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    /// In Unix seconds.
    has_since: Option<u64>,
    /// Whether answers may say since when they are what they are.
    may_know: bool,
}

impl Asker {
    /// Who asks at this target.
    pub(super) fn of(call: &Call, target: &Target) -> Asker {
        Asker { has_since: target.if_modified_since, may_know: call.mount.config.answers_with(LAST_MODIFIED) }
    }

    /// Answers what `make` makes of something that `changed` in this Unix second, unless the asker has it.
    pub(super) async fn answer(
        self,
        changed: u64,
        make: impl AsyncFnOnce() -> Result<Response, Fault>,
    ) -> Result<Response, Fault> {
        match self.unchanged(changed, validity::now()) {
            Some(unchanged) => Ok(unchanged),
            None => Ok(self.dated(changed, validity::now(), make().await?)),
        }
    }

    /// The answer to who has it. A date to come says nothing (RFC 9110, 13.1.3, by way of 8.8.2.1).
    fn unchanged(self, changed: u64, now: u64) -> Option<Response> {
        self.has_since.filter(|since| (settled(changed)..=now).contains(since))?;
        Some(Response::NotModified { changed: self.may_know.then_some(settled(changed)) })
    }

    fn dated(self, changed: u64, now: u64, response: Response) -> Response {
        let is_nothing = matches!(&response, Response::Raw { body, .. } if body.is_empty());
        if !self.may_know || is_nothing || settled(changed) > now {
            return response;
        }
        Response::Dated { changed: settled(changed), response: Box::new(response) }
    }
}

fn settled(changed: u64) -> u64 {
    changed.saturating_add(SETTLED)
}

impl Authority {
    /// When the CRL that an issuer has here began to be the one it has, in Unix seconds: by a new CRL, or by another issuer's being
    /// meant.
    pub(super) fn crl_changed(&self, crl: Option<&Crl>) -> u64 {
        crl.map_or(self.changed, |crl| crl.shown.max(self.changed))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Data;

    fn asker(has_since: Option<u64>, may_know: bool) -> Asker {
        Asker { has_since, may_know }
    }

    #[test]
    fn only_what_has_settled_counts_as_had() {
        for (since, now, is_unchanged) in
            [(100, 200, false), (101, 200, false), (102, 200, true), (200, 200, true), (201, 200, false)]
        {
            let answer = asker(Some(since), true).unchanged(100, now);
            assert_eq!(answer, is_unchanged.then_some(Response::NotModified { changed: Some(102) }), "{since}");
        }
        assert_eq!(asker(None, true).unchanged(100, 200), None);
        assert_eq!(asker(Some(150), false).unchanged(100, 200), Some(Response::NotModified { changed: None }));
        assert_eq!(asker(Some(150), true).unchanged(u64::MAX, 200), None);
    }

    #[test]
    fn a_date_is_told_once_it_has_come_and_of_something() {
        let answer = || Response::data(Data::from_iter([("a".to_owned(), json!(1))]));
        let dated = Response::Dated { changed: 102, response: Box::new(answer()) };
        assert_eq!(asker(None, true).dated(100, 102, answer()), dated);
        assert_eq!(asker(None, true).dated(100, 101, answer()), answer());
        assert_eq!(asker(None, false).dated(100, 200, answer()), answer());
        let nothing = || Response::Raw { content_type: "x/y", body: bytes::Bytes::new() };
        assert_eq!(asker(None, true).dated(100, 200, nothing()), nothing());
    }
}
