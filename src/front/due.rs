//! When the calls of a connection are late: one timer for all of them, where each would have its own that hardly ever ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use crate::dispatch::Answer;
use crate::model::{Deadline, Fault, Outcome};

/// The first deadline of a connection's calls, or one that was before it. A connection that is busy looks at the clock itself; one that
/// waits is woken.
#[derive(Default)]
pub(super) struct Due {
    at: Option<Instant>,
    /// Wakes it: then, or sooner in vain.
    sleep: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Due {
    /// From now on this deadline is watched, too.
    pub(super) fn watch(&mut self, deadline: Deadline) {
        let at = deadline.instant();
        self.at = Some(self.at.map_or(at, |known| known.min(at)));
    }

    /// Whether the first deadline has passed at `now`: then none is watched any more.
    pub(super) fn has_passed(&mut self, now: Instant) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    /// Wakes who is polled in this context at the first deadline.
    pub(super) fn wakes(&mut self, context: &mut Context<'_>) {
        let Some(at) = self.at else { return };
        let (known, sleep) = self.sleep.get_or_insert_with(|| (at, Box::pin(tokio::time::sleep_until(at.into()))));
        if at < *known {
            sleep.as_mut().reset(at.into());
            *known = at;
        }
        while sleep.as_mut().poll(context).is_ready() {
            if at <= *known {
                return context.waker().wake_by_ref();
            }
            sleep.as_mut().reset(at.into());
            *known = at;
        }
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
        if due.has_passed(Instant::now()) {
            return answer.as_mut().poll(context);
        }
        due.wakes(context);
        Poll::Pending
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

    /// When what it watches has passed, by who sleeps until then.
    async fn end(due: &mut Due) -> Instant {
        std::future::poll_fn(|context| {
            if due.has_passed(Instant::now()) {
                return Poll::Ready(());
            }
            due.wakes(context);
            Poll::Pending
        })
        .await;
        Instant::now()
    }

    #[tokio::test]
    async fn it_wakes_at_the_first_deadline_and_then_watches_none() {
        let (mut due, first) = (Due::default(), after(20));
        for deadline in [after(3_600_000), first, after(7_200_000)] {
            due.watch(deadline);
        }
        assert!(end(&mut due).await >= first.instant());
        assert!(!due.has_passed(Instant::now() + Duration::from_secs(86_400)), "those that are left are told again");
        // One that has passed already.
        due.watch(after(3_600_000));
        due.watch(first);
        end(&mut due).await;
    }

    #[tokio::test]
    async fn a_timer_that_was_set_for_another_call_wakes_in_vain_and_is_set_anew() {
        let (mut due, first, second) = (Due::default(), after(20), after(60));
        due.watch(first);
        std::future::poll_fn(|context| {
            due.wakes(context);
            Poll::Ready(())
        })
        .await;
        // That one was answered.
        due.at = None;
        due.watch(second);
        assert!(end(&mut due).await >= second.instant());
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
