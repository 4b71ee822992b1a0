//! The locks of the lane. With the feature `shuttle` they are ones whose every interleaving a test can choose.

#[cfg(not(feature = "shuttle"))]
pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(feature = "shuttle")]
pub(super) use under_test::{Condvar, Mutex, MutexGuard};

/// The same in `shuttle`'s hands: the few methods the lane uses, with `parking_lot`'s signatures.
#[cfg(feature = "shuttle")]
mod under_test {
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::Duration;

    #[derive(Default)]
    pub(in super::super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    /// Empty only while a [`Condvar`] has it.
    pub(in super::super) struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

    #[derive(Default)]
    pub(in super::super) struct Condvar(shuttle::sync::Condvar);

    pub(in super::super) struct TimedOut(bool);

    impl<T> Mutex<T> {
        pub(in super::super) fn new(value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("nobody waits with it")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("nobody waits with it")
        }
    }

    impl TimedOut {
        pub(in super::super) fn timed_out(&self) -> bool {
            self.0
        }
    }

    impl Condvar {
        pub(in super::super) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let taken = guard.0.take().expect("nobody waits with it");
            guard.0 = Some(self.0.wait(taken).unwrap_or_else(PoisonError::into_inner));
        }

        /// Time stands still under `shuttle`: it waits until it is woken.
        pub(in super::super) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> TimedOut {
            self.wait(guard);
            TimedOut(false)
        }

        pub(in super::super) fn notify_one(&self) -> bool {
            self.0.notify_one();
            true
        }
    }
}
