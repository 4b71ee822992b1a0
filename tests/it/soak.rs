//! Faults by chance, one after the other, beside load at four fifths of what slots carry; every answer is checked. Some of
//! them are met in every run; an hour of each course by
//! `cargo test --release --test it soak::an_hour -- --ignored --nocapture --test-threads 3`, which also prints figures. With
//! `KEYWAY_SOAK_SECONDS` they take so long.

use std::time::{Duration, Instant};

use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::sample::select;
use proptest::strategy::{BoxedStrategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::daemon::wait_for;
use crate::load::{Load, Running};
use crate::rig::{Rig, TOKENS};

/// Two slots of four sessions, which take so long for a signature: they carry 500 a second, of which so much is asked.
const SERVICE: &str = "service 16ms";
const MOST_OF_BOTH: Duration = Duration::from_micros(2_500);
const MOST_OF_ONE: Duration = Duration::from_millis(5);
/// What slots that are gone leave to do waits; a session that hangs is given up in time for its request.
const LIMITS: &str = "lane_jobs = 8000\n lane_jobs_per_namespace = 8000\n call_sign = \"500ms\"";
const SESSIONS: &str = "max_sessions = 4";
const IN_PROCESSES: &str = "isolation = \"process\"\n max_sessions = 4";

/// What a device says when something is wrong, and a number that no standard names.
const ANSWERS: [&str; 15] = [
    "CKR_DEVICE_ERROR",
    "CKR_GENERAL_ERROR",
    "CKR_FUNCTION_FAILED",
    "CKR_FUNCTION_CANCELED",
    "CKR_SESSION_HANDLE_INVALID",
    "CKR_SESSION_CLOSED",
    "CKR_OPERATION_ACTIVE",
    "CKR_USER_NOT_LOGGED_IN",
    "CKR_KEY_HANDLE_INVALID",
    "CKR_OBJECT_HANDLE_INVALID",
    "CKR_DEVICE_MEMORY",
    "CKR_HOST_MEMORY",
    "CKR_TOKEN_NOT_PRESENT",
    "CKR_PIN_EXPIRED",
    "0x80000123",
];
const FUNCTIONS: [&str; 7] = [
    "C_Sign",
    "C_SignInit",
    "C_OpenSession",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_GetAttributeValue",
    "C_GetTokenInfo",
];
const WHICH: [&str; 4] = ["nth 1", "nth 5", "first 3", "every 30"];

/// One fault, in the simulator's words, and what ends it.
#[derive(Clone, Debug)]
struct Fault {
    begins: String,
    ends: String,
}

impl Fault {
    fn new(begins: String, ends: &str) -> Fault {
        Fault { begins, ends: ends.to_owned() }
    }
}

/// How many faults are met, or for how long.
#[derive(Clone, Copy)]
enum Course {
    Faults(u32),
    Seconds(u64),
}

impl Course {
    fn hour() -> Course {
        let seconds = std::env::var("KEYWAY_SOAK_SECONDS").map(|seconds| seconds.parse().unwrap());
        Course::Seconds(seconds.unwrap_or(3600))
    }

    fn goes_on(self, faults: u32, since: Instant) -> bool {
        match self {
            Course::Faults(most) => faults < most,
            Course::Seconds(most) => since.elapsed() < Duration::from_secs(most),
        }
    }

    /// What is asked while a fault lasts, and before the next: up to half a second of it, or up to four.
    fn calls(self) -> std::ops::Range<u64> {
        match self {
            Course::Faults(_) => 20..200,
            Course::Seconds(_) => 200..1_600,
        }
    }
}

fn slots() -> impl Strategy<Value = &'static str> {
    select(&TOKENS[..])
}

/// What devices do, but for the end of their library.
fn faults() -> BoxedStrategy<Fault> {
    let forgets = select(&["drop-sessions", "forget-login", "forget-handles"][..]);
    let forgets = (forgets, slots()).prop_map(|(what, slot)| Fault::new(format!("{what} slot {slot}"), "clear"));
    let leaves = slots().prop_map(|slot| Fault::new(format!("remove slot {slot}"), &format!("return slot {slot}")));
    let slows =
        slots().prop_map(|slot| Fault::new(format!("slot {slot} service 100ms"), &format!("slot {slot} {SERVICE}")));
    let hangs = (slots(), 1..20)
        .prop_map(|(slot, number)| Fault::new(format!("hang C_Sign slot {slot} nth {number}"), "release"));
    let is_late = (select(&["C_Sign", "C_SignInit"][..]), slots(), select(&ANSWERS[..]), 1..30);
    let is_late = is_late.prop_map(|(function, slot, answer, number)| {
        Fault::new(format!("late {function} slot {slot} {answer} nth {number}"), "clear")
    });
    let fails = (select(&FUNCTIONS[..]), slots(), select(&ANSWERS[..]), select(&WHICH[..]));
    let fails = fails.prop_map(|(function, slot, answer, which)| {
        Fault::new(format!("fail {function} slot {slot} {answer} {which}"), "clear")
    });
    prop_oneof![3 => forgets, 1 => leaves, 1 => slows, 1 => hangs, 1 => is_late, 2 => fails].boxed()
}

/// The same, and libraries that end their process.
fn faults_and_deaths() -> BoxedStrategy<Fault> {
    let dies = (slots(), 1..30)
        .prop_map(|(slot, number)| Fault::new(format!("abort C_Sign slot {slot} nth {number}"), "clear"));
    prop_oneof![8 => faults(), 1 => dies].boxed()
}

/// All calls of one slot, until they are released. The other carries what is asked meanwhile.
fn hangs_of_one() -> BoxedStrategy<Fault> {
    Just(Fault::new("hang C_Sign slot one".to_owned(), "release")).boxed()
}

/// What the daemon takes of its host.
#[derive(Debug)]
struct Taken {
    bytes: f64,
    threads: f64,
    descriptors: f64,
}

impl Taken {
    fn by(rig: &Rig) -> Taken {
        let [bytes, threads, descriptors] =
            ["keyway_resident_memory_bytes", "keyway_threads", "keyway_open_fds"].map(|name| rig.sum(name, &[]));
        Taken { bytes, threads, descriptors }
    }

    /// Threads and descriptors of what was given up end soon after; the allocator keeps some memory.
    fn is_no_more_than(&self, before: &Taken) -> bool {
        self.bytes < before.bytes + f64::from(64 << 20)
            && self.threads <= before.threads + 8.0
            && self.descriptors <= before.descriptors + 8.0
    }
}

/// Meets faults while the load goes on. The choice is the same in every run; what each meets is not.
fn meet(rig: &Rig, load: &Running, course: Course, faults: &BoxedStrategy<Fault>) -> u32 {
    let mut chance = TestRunner::deterministic();
    let (mut met, mut minutes, begun) = (0, 0, Instant::now());
    while course.goes_on(met, begun) {
        let (fault, calls) = (faults, [course.calls(), course.calls()]).new_tree(&mut chance).unwrap().current();
        rig.sim.steer(&fault.begins);
        load.until_asked(calls[0]);
        rig.sim.steer(&fault.ends);
        rig.sim.steer("clear");
        load.until_asked(calls[1]);
        met += 1;
        if begun.elapsed() >= Duration::from_secs(60) * (minutes + 1) {
            minutes += 1;
            eprintln!("{minutes} min, {met} faults, {} signatures, {:?}", load.done(), Taken::by(rig));
        }
    }
    met
}

/// A course of faults costs nobody a signature, and the daemon nothing that lasts.
async fn soak(stanza: &'static str, pace: Duration, course: Course, faults: BoxedStrategy<Fault>) {
    let rig = Rig::pool(LIMITS, stanza).await;
    rig.sim.steer("slot * parallel 4");
    rig.sim.steer(&format!("slot * {SERVICE}"));
    let load = Load { connections: 2, depth: 4_000, pace: Some(pace), ..Load::default() }.start(&rig).await;
    load.until_done(400);
    let before = Taken::by(&rig);
    let met = meet(&rig, &load, course, &faults);
    for token in TOKENS {
        rig.until_member(token, |member| member["state"] == "serving" && member["sessions"] == 4).await;
    }
    let tally = load.stop();
    eprintln!("{met} faults: {tally:#?}\n{before:?} before, {:?} after", Taken::by(&rig));
    tally.assert_none_lost();
    wait_for("the end of what was given up", || Taken::by(&rig).is_no_more_than(&before).then_some(()));
    assert_eq!(rig.sum("keyway_wrong_signatures_total", &[]), 0.0);
}

#[tokio::test]
async fn faults_by_chance_lose_no_request() {
    soak(SESSIONS, MOST_OF_BOTH, Course::Faults(12), faults()).await;
}

#[tokio::test]
async fn faults_by_chance_in_worker_processes_lose_no_request() {
    soak(IN_PROCESSES, MOST_OF_BOTH, Course::Faults(12), faults_and_deaths()).await;
}

#[tokio::test]
#[ignore = "takes an hour"]
async fn an_hour_of_faults() {
    soak(SESSIONS, MOST_OF_BOTH, Course::hour(), faults()).await;
}

#[tokio::test]
#[ignore = "takes an hour"]
async fn an_hour_of_faults_in_worker_processes() {
    soak(IN_PROCESSES, MOST_OF_BOTH, Course::hour(), faults_and_deaths()).await;
}

#[tokio::test]
#[ignore = "takes an hour"]
async fn an_hour_of_hangs_of_one_slot() {
    soak(SESSIONS, MOST_OF_ONE, Course::hour(), hangs_of_one()).await;
}
