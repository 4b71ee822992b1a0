//! Clients that keep a number of requests in flight: the next goes out when one is answered. For rates and ratios; how long
//! requests wait under a load that does not wait for answers, only [`super::open`] tells.

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::spec::Load;
use super::tally::Tally;
use super::{ANSWER_MAX, Failure};
use crate::client::ClientError;

/// Keeps `load` in flight for `span`. `ask` is given the client's place and the request's number.
pub(super) async fn run<A, F>(load: Load, span: Duration, ask: A) -> Result<Tally, Failure>
where
    A: Fn(usize, u64) -> F,
    F: Future<Output = Result<bool, ClientError>>,
{
    let tally = RefCell::new(Tally::new()?);
    let begun = Instant::now();
    let asker = async |place: usize| {
        let mut number = place as u64;
        while begun.elapsed() < span {
            tally.borrow_mut().asked += 1;
            let asked = Instant::now();
            let answer = ask(place % load.clients, number).await;
            let broken = matches!(answer, Err(ClientError::Broken { .. }));
            tally.borrow_mut().answered(answer, asked.elapsed());
            if broken {
                // Nothing will come over this connection any more.
                return;
            }
            number += load.in_flight() as u64;
        }
    };
    let all = join_all((0..load.in_flight()).map(asker));
    // What is not answered by then is lost; the tally knows by itself.
    let _ = tokio::time::timeout(span + ANSWER_MAX, all).await;
    let mut tally = tally.into_inner();
    tally.took = begun.elapsed();
    Ok(tally)
}
