//! What the log says of a service that does not serve a key, or all keys of a quota domain, and of one that throttles: a line when
//! that begins and one when it is over, none for each failure.

use std::sync::Arc;

use super::Service;
use super::pace::{Change, Gate, News};

/// Tells what there is to tell of the key called `title`, by its gate.
pub(super) fn tell(service: &Service, title: &str, gate: &Arc<Gate>, news: News) {
    if news == News::default() {
        return;
    }
    let (name, domain) = (service.settings.service.title(), service.domains.name_of(gate.domain()));
    match news.key {
        Some(Change::Began) => tracing::warn!(
            key = title,
            domain,
            reason = gate.key_failure(),
            "a key in a cloud failed several times in a row: it is tried again now and then"
        ),
        Some(Change::Over) => tracing::info!(key = title, domain, "a key in a cloud serves again"),
        None => {}
    }
    match news.domain {
        Some(Change::Began) => tracing::warn!(
            service = name,
            domain,
            reason = gate.domain_failure(),
            "a cloud's key service failed several times in a row: it is tried again now and then"
        ),
        Some(Change::Over) => tracing::info!(service = name, domain, "a cloud's key service serves again"),
        None => {}
    }
    match news.rate {
        Some(Change::Began) => tracing::warn!(
            service = name,
            domain,
            "a cloud's key service throttles: it is asked less, and requests wait within their deadlines"
        ),
        Some(Change::Over) => {
            tracing::info!(service = name, domain, "a cloud's key service takes its whole quota again")
        }
        None => {}
    }
}
