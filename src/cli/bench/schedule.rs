//! When the requests of a rate are due, and a clock that wakes at such a time.

use std::cell::Cell;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe;

use super::args::Arrivals;
use super::random::Random;

/// The times of requests, from the beginning on, without end.
pub(super) struct Schedule {
    rate: f64,
    arrivals: Arrivals,
    number: u64,
    /// Of the last one, in seconds.
    at: f64,
    random: Random,
}

impl Schedule {
    /// So many a second. The same seed gives the same times.
    pub(super) fn new(rate: f64, arrivals: Arrivals, seed: u64) -> Schedule {
        Schedule { rate, arrivals, number: 0, at: 0.0, random: Random::new(seed) }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match self.arrivals {
            // Each by itself, so that no error adds up.
            Arrivals::Fixed => {
                #[expect(clippy::cast_precision_loss, reason = "exact for the first 2^53")]
                let number = self.number as f64;
                self.at = number / self.rate;
            }
            Arrivals::Poisson => self.at += -self.random.fraction().ln() / self.rate,
        }
        self.number += 1;
        Duration::try_from_secs_f64(self.at).ok()
    }
}

/// A timer of the kernel's. The runtime's own only knows milliseconds.
pub(super) struct Timer {
    /// Given to the runtime as the end of a pipe: there, too, all it does is become readable.
    clock: pipe::Receiver,
    /// The time it is set for, until it has been waited for.
    armed: Cell<Option<Instant>>,
}

impl Timer {
    /// Must be called inside a runtime.
    pub(super) fn new() -> std::io::Result<Timer> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Timer { clock: pipe::Receiver::from_owned_fd_unchecked(timer)?, armed: Cell::new(None) })
    }

    /// Waits until `when`.
    pub(super) async fn until(&self, when: Instant) -> std::io::Result<()> {
        let left = when.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        if self.armed.replace(Some(when)) != Some(when) {
            let value = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
            timerfd_settime(&self.clock, TimerfdTimerFlags::empty(), &once)?;
        }
        loop {
            self.clock.readable().await?;
            match self.clock.try_read(&mut [0; 8]) {
                // It was readable for an earlier time.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => {
                    self.armed.set(None);
                    return read.map(drop);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_arrivals_are_even_and_do_not_drift() {
        let times: Vec<Duration> = Schedule::new(3.0, Arrivals::Fixed, 1).take(3001).collect();
        assert_eq!(times[0], Duration::ZERO);
        assert_eq!(times[3000], Duration::from_secs(1000));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread() {
        let times: Vec<f64> =
            Schedule::new(1000.0, Arrivals::Poisson, 7).take(100_000).map(|time| time.as_secs_f64()).collect();
        let mean = times.last().unwrap() / 100_000.0;
        assert!((mean * 1000.0 - 1.0).abs() < 0.02, "{mean}");
        // Of exponential gaps, one in e is longer than the mean.
        let long = times.windows(2).filter(|pair| pair[1] - pair[0] > 1e-3).count();
        assert!((35_000..38_500).contains(&long), "{long}");
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_timer_never_wakes_early() {
        let timer = Timer::new().unwrap();
        for microseconds in [0, 50, 300, 1700] {
            let when = Instant::now() + Duration::from_micros(microseconds);
            timer.until(when).await.unwrap();
            assert!(Instant::now() >= when);
        }
    }
}
