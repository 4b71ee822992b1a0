//! Time: how long things shall take, and sleeping just so long.

use std::cell::Cell;
use std::f64::consts::TAU;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds of the monotonic clock, which all processes share.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the time; this clock is on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Sleeps until `then`, as exactly as the kernel can.
pub(crate) fn sleep_until(then: u64) {
    thread_local!(static SHARP: Cell<bool> = const { Cell::new(false) });
    if !SHARP.replace(true) {
        // The kernel may put a thread's timers off by 50 us if this is not set.
        // SAFETY: takes a number, and changes nothing but this thread's timers.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    }
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(then / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: (then % 1_000_000_000).cast_signed(),
    };
    loop {
        // SAFETY: `time` is a valid time; with an absolute one nothing is written back.
        let woken = unsafe {
            libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const time, std::ptr::null_mut())
        };
        if woken != libc::EINTR {
            return;
        }
    }
}

/// How long something takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Span {
    Fixed(Duration),
    /// With this mean; `sigma` is the deviation of the logarithm.
    Lognormal {
        mean: Duration,
        sigma: f64,
    },
}

impl Span {
    /// One sample, in nanoseconds.
    pub(crate) fn nanoseconds(self) -> u64 {
        match self {
            Span::Fixed(time) => nanoseconds(time),
            Span::Lognormal { mean, sigma } => {
                let factor = (sigma * normal() - sigma * sigma / 2.0).exp();
                nanoseconds(Duration::try_from_secs_f64(mean.as_secs_f64() * factor).unwrap_or(mean))
            }
        }
    }
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A sample of the normal distribution (Box and Muller).
fn normal() -> f64 {
    (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos()
}

/// A sample between 0, which it never is, and 1 (splitmix64; the same in every run).
fn uniform() -> f64 {
    static STATE: AtomicU64 = AtomicU64::new(0);
    let mut x = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (((x ^ (x >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// A duration as `30s`, `1.5ms`, `200us`, `0`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write it as 200us, 1.5ms, 30s or 5m");
    let end = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| wrong())?;
    let unit = match &text[end..] {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "" if number == 0.0 => 1.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}
