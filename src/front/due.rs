//! When the calls of a connection are late: one timer for all of them, where each would have its own that hardly ever ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use crate::dispatch::Answer;
use crate::model::{Deadline, Fault, Outcome};

/// The timer of a connection. It never ends later than a call is late, and may end sooner, in vain.
#[derive(Default)]
pub(super) struct Due(Option<(Instant, Pin<Box<Sleep>>)>);

impl Due {
    /// From now on it ends at this deadline at the latest.
    pub(super) fn watch(&mut self, deadline: Deadline) {
        let at = deadline.instant();
        match &mut self.0 {
            None => self.0 = Some((at, Box::pin(tokio::time::sleep_until(at.into())))),
            Some((known, sleep)) if at < *known => {
                sleep.as_mut().reset(at.into());
                *known = at;
            }
            Some(_) => {}
        }
    }

    /// Whether it has ended: then it watches nothing any more. Else it wakes who is polled in this context.
    pub(super) fn has_ended(&mut self, context: &mut Context<'_>) -> bool {
        let ended = self.0.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(context).is_ready());
        if ended {
            self.0 = None;
        }
        ended
    }
}

/// The answer to one operation, which is polled at its deadline if it is not there before.
pub(super) async fn by(deadline: Deadline, mut answer: Answer) -> Result<Outcome, Fault> {
    let mut due = Due::default();
    due.watch(deadline);
    std::future::poll_fn(|context| {
        if let Poll::Ready(result) = answer.as_mut().poll(context) {
            return Poll::Ready(result);
        }
        if due.has_ended(context) { answer.as_mut().poll(context) } else { Poll::Pending }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn after(millis: u64) -> Deadline {
        Deadline::after(Duration::from_millis(millis))
    }

    /// The end of what it watches.
    async fn end(due: &mut Due) -> Instant {
        std::future::poll_fn(|context| if due.has_ended(context) { Poll::Ready(()) } else { Poll::Pending }).await;
        Instant::now()
    }

    #[tokio::test]
    async fn it_ends_with_the_first_deadline_and_then_watches_none() {
        let (mut due, first) = (Due::default(), after(20));
        for deadline in [after(3_600_000), first, after(7_200_000)] {
            due.watch(deadline);
        }
        assert!(end(&mut due).await >= first.instant());
        assert!(due.0.is_none(), "those that are left are told again");
        // One that has passed already.
        due.watch(after(3_600_000));
        due.watch(first);
        end(&mut due).await;
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_asked_for_at_its_deadline_once_more() {
        let (deadline, mut polls) = (after(20), Vec::new());
        let answer = Box::pin(std::future::poll_fn(move |_| {
            polls.push(Instant::now());
            let is_late = polls.len() == 2 && deadline.passed(polls[1]);
            if is_late { Poll::Ready(Err(Fault::Sealed)) } else { Poll::Pending }
        }));
        assert!(matches!(by(deadline, answer).await, Err(Fault::Sealed)));
        assert!(matches!(
            by(deadline, Box::pin(std::future::ready(Err(Fault::NotInitialized)))).await,
            Err(Fault::NotInitialized)
        ));
    }
}
