//! What a request holds as long as its work goes on, though its asker has left or was answered: its place among those that may
//! be under way at once.

use std::any::Any;
use std::sync::Arc;

type Held = Arc<dyn Any + Send + Sync>;

tokio::task_local! {
    static HELD: Held;
}

/// Runs `work`, and holds `held` until it and what it leaves to go on by itself have ended.
pub async fn holding<W: Future>(held: impl Any + Send + Sync, work: W) -> W::Output {
    HELD.scope(Arc::new(held), work).await
}

/// Work that goes on without its asker: it holds what that holds. Called where the asker runs.
pub(super) fn going_on<W: Future>(work: W) -> impl Future<Output = W::Output> {
    let held = HELD.try_with(Arc::clone).ok();
    async move {
        match held {
            Some(held) => HELD.scope(held, work).await,
            None => work.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::engine::table;
    use crate::model::Response;

    #[tokio::test]
    async fn a_place_is_held_until_work_that_nobody_waits_for_has_ended() {
        let (place, (end, ends)) = (Arc::new(()), oneshot::channel::<()>());
        let (done, is_done) = oneshot::channel();
        let work = async move {
            // Nested, as where one waits for the other.
            let inner = tokio::spawn(going_on(async move { ends.await.is_ok() }));
            let ended = inner.await.is_ok_and(|ended| ended);
            done.send(ended).ok();
            Ok(Response::Empty)
        };
        let mut asker = Box::pin(holding(Arc::clone(&place), table::to_the_end(work)));
        assert!((&mut asker).now_or_never().is_none());
        tokio::task::yield_now().await;
        drop(asker);
        assert_eq!(Arc::strong_count(&place), 2, "the asker left, the work goes on");
        end.send(()).unwrap();
        assert_eq!(is_done.await, Ok(true));
        while Arc::strong_count(&place) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_holds_nothing_is_held_up_by_nothing() {
        assert_eq!(going_on(async { 1 }).await, 1);
        assert_eq!(holding((), async { going_on(async { 2 }).await }).await, 2);
    }
}
