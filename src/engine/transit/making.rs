//! Keys that the mount is making. A token takes long for one, an RSA key above all, and longer than many a client waits. So what
//! was begun goes on when its asker leaves, and no key is left in the token that nobody has: whoever asks for the same key
//! again waits for it.

use std::collections::HashMap;

use futures_util::future::{BoxFuture, FutureExt, Shared};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::engine::hold;
use crate::model::{Fault, Response};

/// Keys of one mount that are being made at once.
const MAKING_MAX: usize = 64;

type Attempt = Shared<BoxFuture<'static, Result<Response, Fault>>>;

/// Those under way, by the names of their keys.
#[derive(Default)]
pub(super) struct Making(Mutex<UnderWay>);

#[derive(Default)]
struct UnderWay {
    by_name: HashMap<String, (AbortHandle, Attempt)>,
    /// Whether the mount is gone.
    closed: bool,
}

/// What is done about a key.
pub(super) enum Turn {
    /// What was asked for: here is how it ends.
    Mine(Attempt),
    /// Something that was asked for before: wait for it.
    Others(Attempt),
}

impl Making {
    /// What is under way for the key `name`; `begin` begins it if there is nothing.
    pub(super) fn turn<F>(&self, name: &str, begin: impl FnOnce() -> F) -> Result<Turn, Fault>
    where
        F: Future<Output = Result<Response, Fault>> + Send + 'static,
    {
        let UnderWay { by_name, closed } = &mut *self.0.lock();
        if *closed {
            return Err(Fault::Unavailable { what: "the mount was disabled".into() });
        }
        // Not all of those that ended had anybody left to see it.
        by_name.retain(|_, (task, _)| !task.is_finished());
        if let Some((_, attempt)) = by_name.get(name) {
            return Ok(Turn::Others(attempt.clone()));
        }
        if by_name.len() >= MAKING_MAX {
            let what = format!("the mount is making {MAKING_MAX} keys, as many as it may at once; try again later");
            return Err(Fault::Unavailable { what });
        }
        let task = tokio::spawn(hold::going_on(begin()));
        let handle = task.abort_handle();
        let cut_short = || Fault::Unavailable { what: "the making of the key was cut short; try again".into() };
        let attempt = async move { task.await.unwrap_or_else(|_| Err(cut_short())) }.boxed().shared();
        by_name.insert(name.to_owned(), (handle, attempt.clone()));
        Ok(Turn::Mine(attempt))
    }

    /// Cuts all of it short, since the mount goes: nothing is to be written for it any more.
    pub(super) fn close(&self) {
        let UnderWay { by_name, closed } = &mut *self.0.lock();
        *closed = true;
        by_name.drain().for_each(|(_, (task, _))| task.abort());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Something that ends when it is told to.
    fn begun(making: &Making, name: &str) -> (Option<oneshot::Sender<()>>, Result<Turn, Fault>) {
        let (end, ends) = oneshot::channel();
        let mut end = Some(end);
        let mut kept = None;
        let turn = making.turn(name, || {
            kept = end.take();
            async {
                let _ = ends.await;
                Ok(Response::Empty)
            }
        });
        (kept, turn)
    }

    #[tokio::test]
    async fn what_was_begun_goes_on_without_its_asker_and_others_wait_for_it() {
        let making = Making::default();
        let (end, turn) = begun(&making, "a");
        assert!(matches!(turn, Ok(Turn::Mine(_))));
        drop(turn);
        let (_, Ok(Turn::Others(others))) = begun(&making, "a") else { panic!("begun twice") };
        assert!(matches!(begun(&making, "b").1, Ok(Turn::Mine(_))));
        end.unwrap().send(()).unwrap();
        assert_eq!(others.await, Ok(Response::Empty));
        assert!(matches!(begun(&making, "a").1, Ok(Turn::Mine(_))));
    }

    #[tokio::test]
    async fn what_is_under_way_ends_with_the_mount() {
        let making = Making::default();
        let (_end, Ok(Turn::Mine(attempt))) = begun(&making, "a") else { panic!("not begun") };
        making.close();
        assert!(matches!(attempt.await, Err(Fault::Unavailable { .. })));
        assert!(begun(&making, "b").1.is_err());
    }

    #[tokio::test]
    async fn only_so_many_are_made_at_once() {
        let making = Making::default();
        let ends: Vec<_> = (0..MAKING_MAX).map(|number| begun(&making, &number.to_string()).0.unwrap()).collect();
        assert!(matches!(begun(&making, "more").1, Err(Fault::Unavailable { .. })));
        assert!(matches!(begun(&making, "0").1, Ok(Turn::Others(_))));
        let Ok(Turn::Others(last)) = begun(&making, "63").1 else { panic!("begun twice") };
        ends.into_iter().for_each(|end| end.send(()).unwrap());
        last.await.unwrap();
        assert!(matches!(begun(&making, "63").1, Ok(Turn::Mine(_))));
    }
}
