//! What it costs to judge a path by a token's policies, in ns. `cargo bench --bench policy`.
//!
//! Rules name keys of a mount; a third of them each is exact, ends in `*`, and has a `+`. What is asked for is spread over all
//! of them. Each figure is the median of the rounds.

#![allow(clippy::expect_used, reason = "a benchmark that cannot go on must say so")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use keyway::identity::policy::{Acl, Policy};

/// Many short ones: few of them are interrupted on a busy machine.
const ROUNDS: usize = 401;
const JUDGED: usize = 2_000;
/// As many as one policy may have.
const RULES_OF_ONE: usize = 2_000;

fn main() {
    println!("{:>10} {:>12} {:>12} {:>12} {:>12}", "rules", "exact", "prefix", "segments", "no rule");
    for rules in [1, 100, 10_000] {
        let acl = acl(rules);
        let ns = |path: &dyn Fn(usize) -> String| {
            let paths: Vec<String> = (0..1_000).map(|n| path(n * 7_919 % rules.max(1))).collect();
            median(&acl, &paths)
        };
        println!(
            "{rules:>10} {:>12.0} {:>12.0} {:>12.0} {:>12.0}",
            ns(&|n| format!("transit/sign/key-{}", n / 3 * 3)),
            ns(&|n| format!("transit/encrypt/team-{}-key", n / 3 * 3 + 1)),
            ns(&|n| format!("team-{}/transit/sign/key", n / 3 * 3 + 2)),
            ns(&|n| format!("pki/sign/role-{n}")),
        );
    }
}

/// An ACL of so many rules.
fn acl(rules: usize) -> Acl {
    let texts: Vec<String> = (0..rules)
        .map(|n| match n % 3 {
            0 => format!("transit/sign/key-{n}"),
            1 => format!("transit/encrypt/team-{n}-*"),
            _ => format!("team-{n}/+/sign/key"),
        })
        .map(|path| format!("path \"{path}\" {{ capabilities = [\"update\"] }}\n"))
        .collect();
    let policies: Vec<Policy> =
        texts.chunks(RULES_OF_ONE).map(|some| Policy::parse(&some.concat()).expect("a policy")).collect();
    Acl::new(&policies)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a benchmark")]
fn median(acl: &Acl, paths: &[String]) -> f64 {
    let round = || -> Duration {
        let begun = Instant::now();
        for path in paths.iter().cycle().take(JUDGED) {
            black_box(acl.find(black_box(path), false));
        }
        begun.elapsed()
    };
    let mut took: Vec<Duration> = (0..ROUNDS).map(|_| round()).collect();
    took.sort();
    took[ROUNDS / 2].as_nanos() as f64 / JUDGED as f64
}
