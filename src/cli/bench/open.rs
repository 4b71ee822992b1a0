//! Requests at a rate, whatever the answers do, as from many clients that know nothing of each other.
//!
//! A closed loop that meets a stall waits with it, and so leaves out the very requests that would have suffered: its
//! percentiles look well (coordinated omission). Here every request has a time when it is due. It is sent then, however
//! many answers are missing, and its latency counts from that time on, not from when the generator came to send it.

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::schedule::{Schedule, Timer};
use super::tally::Tally;
use super::{ANSWER_MAX, Failure};
use crate::client::ClientError;

/// Requests without an answer beyond which no more are sent: those that are due by then are sent late.
const IN_FLIGHT_MAX: usize = 1 << 16;

/// Sends what is due within `span`. `ask` is given the client's place and the request's number.
pub(super) async fn run<A, F>(schedule: Schedule, clients: usize, span: Duration, ask: A) -> Result<Tally, Failure>
where
    A: Fn(usize, u64) -> F,
    F: Future<Output = Result<bool, ClientError>>,
{
    let tally = RefCell::new(Tally::new()?);
    let timer = Timer::new()?;
    let begun = Instant::now();
    let one = async |number: usize, due: Instant| {
        tally.borrow_mut().sent(due.elapsed());
        let answer = ask(number % clients, number as u64).await;
        tally.borrow_mut().answered(answer, due.elapsed());
    };
    let mut due = schedule.take_while(|offset| *offset < span).map(|offset| begun + offset).enumerate().peekable();
    let mut in_flight = FuturesUnordered::new();
    while let Some((_, next)) = due.peek().copied() {
        tokio::select! {
            biased;
            woken = timer.until(next), if in_flight.len() < IN_FLIGHT_MAX => {
                woken?;
                let now = Instant::now();
                while in_flight.len() < IN_FLIGHT_MAX
                    && let Some((number, due)) = due.next_if(|(_, due)| *due <= now)
                {
                    in_flight.push(one(number, due));
                }
                // Sent at once, and answers are read even where there is always something due.
                while let Some(Some(())) = in_flight.next().now_or_never() {}
                tokio::task::yield_now().await;
            }
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
        }
    }
    let rest = async { while in_flight.next().await.is_some() {} };
    // What is not answered by then is lost; the tally knows by itself.
    let _ = tokio::time::timeout(ANSWER_MAX, rest).await;
    drop(in_flight);
    let mut tally = tally.into_inner();
    tally.took = begun.elapsed().max(span);
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::cli::bench::args::Arrivals;

    const STALL: Duration = Duration::from_millis(300);
    const SPAN: Duration = Duration::from_millis(400);

    #[tokio::test(flavor = "current_thread")]
    async fn a_stall_shows_in_the_latency_of_all_who_were_due_in_it() {
        // A server that answers nothing during 300 ms from its first request on.
        let first = Cell::new(None);
        let stalled = |_, _| {
            let begun = first.get().unwrap_or_else(Instant::now);
            first.set(Some(begun));
            async move {
                tokio::time::sleep(STALL.saturating_sub(begun.elapsed())).await;
                Ok(true)
            }
        };
        let tally = run(Schedule::new(1000.0, Arrivals::Fixed, 1), 1, SPAN, stalled).await.unwrap();
        assert_eq!((tally.asked, tally.done, tally.lost()), (400, 400, 0));
        // Three quarters were due during the stall, evenly: half of all waited 100 ms and more. However slow the machine
        // is, none can have waited less.
        assert!(tally.latency.value_at_quantile(0.5) >= 90_000, "{}", tally.latency.value_at_quantile(0.5));
        assert!(tally.latency.max() >= 290_000);
        assert_eq!(tally.lag.len(), 400);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn requests_go_to_the_clients_in_turn() {
        let seen = RefCell::new(Vec::new());
        let tally = run(Schedule::new(1e6, Arrivals::Fixed, 1), 3, Duration::from_micros(7), |client, number| {
            seen.borrow_mut().push((client, number));
            std::future::ready(Ok(true))
        });
        assert_eq!(tally.await.unwrap().done, 7);
        assert_eq!(*seen.borrow(), [(0, 0), (1, 1), (2, 2), (0, 3), (1, 4), (2, 5), (0, 6)]);
    }
}
