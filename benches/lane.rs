//! What the lane costs: a job pushed, pulled and answered, beside the same through a plain channel. `cargo bench --bench lane`.
//!
//! Each row takes turns with the channels in the same run, and its figure is the median of the rounds: machines are noisy,
//! ratios less so. "busy" keeps the queue full, so that nobody sleeps; "one by one" waits for each answer before the next
//! job, so that it prices two wake-ups.

#![allow(clippy::expect_used, reason = "a benchmark that cannot go on must say so")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use keyway::supervisor::measure::Probe;
use tokio::sync::oneshot;

const ROUNDS: usize = 15;
const JOBS: usize = 50_000;
const WINDOW: usize = 256;
const ONE_BY_ONE: usize = 4_000;

/// What travels through a plain channel: as much as a job that is answered.
type Plain = (u64, oneshot::Sender<u64>);

/// Runs one row, and answers the time a job took.
type Run = fn() -> Duration;

fn main() {
    let rows: [(&str, Run); 10] = [
        ("busy: lane, 1 namespace", || lane_busy(1, Part::Both)),
        ("busy: lane, 256 namespaces", || lane_busy(256, Part::Both)),
        ("busy: lane, of that the push", || lane_busy(1, Part::Push)),
        ("busy: lane, of that pull and answer", || lane_busy(1, Part::Pull)),
        ("busy: crossbeam, bounded", crossbeam_busy),
        ("busy: tokio mpsc, bounded", tokio_busy),
        ("one by one: lane, 1 namespace", || lane_one_by_one(1)),
        ("one by one: lane, 256 namespaces", || lane_one_by_one(256)),
        ("one by one: crossbeam, bounded", crossbeam_one_by_one),
        ("one by one: tokio mpsc, bounded", tokio_one_by_one),
    ];
    let mut took: Vec<Vec<Duration>> = vec![Vec::new(); rows.len()];
    for round in 0..=ROUNDS {
        for (row, (_, run)) in rows.iter().enumerate() {
            let each = run();
            // The first round warms the machine up.
            if round > 0 {
                took[row].push(each);
            }
        }
    }
    let medians: Vec<f64> = took.iter_mut().map(|all| median(all)).collect();
    println!("{:34} {:>12} {:>20}", "", "ns a job", "to crossbeam's");
    for ((name, _), ns) in rows.iter().zip(&medians) {
        let kind = name.split(':').next().unwrap_or_default();
        let beside = rows.iter().position(|(other, _)| other.starts_with(kind) && other.contains("crossbeam"));
        let base = medians[beside.expect("each kind has a crossbeam row")];
        println!("{name:34} {ns:>12.0} {:>20.2}", ns / base);
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a benchmark")]
fn median(all: &mut [Duration]) -> f64 {
    all.sort();
    all[all.len() / 2].as_nanos() as f64
}

/// Takes an answer that is there.
fn take<F: Future>(pending: F) {
    assert!(black_box(pending.now_or_never()).is_some(), "it was answered");
}

fn each(begun: Instant, jobs: usize) -> Duration {
    begun.elapsed() / u32::try_from(jobs).unwrap_or(u32::MAX)
}

/// Pushes a window full and serves it, on one thread: without any sleep. `part` says of which of the two the time counts.
fn lane_busy(namespaces: usize, part: Part) -> Duration {
    let probe = Probe::new(namespaces);
    let mut session = probe.session();
    busy(
        part,
        |job| probe.push(job).expect("room"),
        || {
            let mut served = 0;
            while served < WINDOW {
                served += session.serve().expect("jobs");
            }
        },
    )
}

fn crossbeam_busy() -> Duration {
    let (sender, receiver) = crossbeam_channel::bounded::<Plain>(4096);
    busy(
        Part::Both,
        |job| plain(job, |plain| sender.try_send(plain).expect("room")),
        || receiver.try_iter().for_each(answer),
    )
}

fn tokio_busy() -> Duration {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Plain>(4096);
    busy(
        Part::Both,
        |job| plain(job, |plain| sender.try_send(plain).expect("room")),
        || std::iter::from_fn(|| receiver.try_recv().ok()).for_each(answer),
    )
}

/// Which half of the work is timed.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Push,
    Pull,
    Both,
}

fn busy<F: Future>(part: Part, push: impl Fn(usize) -> F, mut serve: impl FnMut()) -> Duration {
    let mut took = Duration::ZERO;
    for window in 0..JOBS / WINDOW {
        let begun = Instant::now();
        let pending: Vec<_> = (0..WINDOW).map(|job| push(window + job)).collect();
        let pushed = Instant::now();
        serve();
        pending.into_iter().for_each(take);
        match part {
            Part::Push => took += pushed - begun,
            Part::Pull => took += pushed.elapsed(),
            Part::Both => took += begun.elapsed(),
        }
    }
    took / u32::try_from(JOBS / WINDOW * WINDOW).unwrap_or(u32::MAX)
}

fn plain(job: usize, send: impl FnOnce(Plain)) -> oneshot::Receiver<u64> {
    let (answer, waiting) = oneshot::channel();
    send((job as u64, answer));
    waiting
}

fn answer((job, answer): Plain) {
    // The asker is there: it waits in the same window.
    let _ = answer.send(job);
}

fn lane_one_by_one(namespaces: usize) -> Duration {
    let probe = Probe::new(namespaces);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = probe.session();
            while session.serve().is_some() {}
        });
        let begun = Instant::now();
        for job in 0..ONE_BY_ONE {
            let pending = probe.push(job).expect("room");
            let _ = black_box(wait(pending));
        }
        let took = each(begun, ONE_BY_ONE);
        probe.close();
        took
    })
}

fn crossbeam_one_by_one() -> Duration {
    let (sender, receiver) = crossbeam_channel::bounded::<Plain>(4096);
    one_by_one(sender, |sender, plain| sender.send(plain).expect("it lives"), move || receiver.iter().for_each(answer))
}

fn tokio_one_by_one() -> Duration {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Plain>(4096);
    one_by_one(
        sender,
        |sender, plain| sender.blocking_send(plain).expect("it lives"),
        move || std::iter::from_fn(|| receiver.blocking_recv()).for_each(answer),
    )
}

/// Asks and waits, while another thread serves until the sender is gone.
fn one_by_one<S>(sender: S, send: fn(&S, Plain), serve: impl FnOnce() + Send) -> Duration {
    std::thread::scope(|scope| {
        scope.spawn(serve);
        let begun = Instant::now();
        for job in 0..ONE_BY_ONE {
            let _ = black_box(wait(plain(job, |plain| send(&sender, plain))));
        }
        let took = each(begun, ONE_BY_ONE);
        drop(sender);
        took
    })
}

/// Waits for a future on this thread, parked.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
