//! Histograms that every request counts in, from many threads: to count is two additions, and needs no memory that somebody
//! has to tidy up later.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics_exporter_prometheus::formatting::sanitize_label_value;
use parking_lot::Mutex;

/// Upper bounds in nanoseconds: 50 us, doubling 20 times, to 26 s. What is beyond has a bucket of its own.
static FINE: [u64; 20] = doubling();
/// Those of device time by namespace, of which the sum matters: 1, 10, 100 ms and 1 s.
static COARSE: [u64; 4] = [1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

const fn doubling<const N: usize>() -> [u64; N] {
    let mut bounds = [50_000; N];
    let mut place = 1;
    while place < N {
        bounds[place] = bounds[place - 1] * 2;
        place += 1;
    }
    bounds
}

/// How finely a histogram tells durations apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Buckets {
    Fine,
    Coarse,
}

/// One series. Cheap to clone; clones are the same series.
#[derive(Clone)]
pub(super) struct Histogram(Arc<Cells>);

struct Cells {
    name: &'static str,
    /// As they are written, `name="value"` with commas between.
    labels: String,
    bounds: &'static [u64],
    /// One for each bound, and one for what is beyond.
    counts: Box<[AtomicU64]>,
    /// Nanoseconds in all.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub(super) fn record(&self, span: Duration) {
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.0.bounds.partition_point(|bound| *bound < nanoseconds);
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.0.sum.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// The series of one exposition.
#[derive(Default)]
pub(super) struct Histograms(Mutex<Vec<Histogram>>);

impl Histograms {
    /// The series of this name and these labels; made if there is none.
    pub(super) fn get(&self, name: &'static str, buckets: Buckets, labels: &[(&str, &str)]) -> Histogram {
        let written = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", sanitize_label_value(value)));
        let labels = written.collect::<Vec<_>>().join(",");
        let mut series = self.0.lock();
        if let Some(known) = series.iter().find(|known| known.0.name == name && known.0.labels == labels) {
            return known.clone();
        }
        let bounds: &[u64] = match buckets {
            Buckets::Fine => &FINE,
            Buckets::Coarse => &COARSE,
        };
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        let histogram = Histogram(Arc::new(Cells { name, labels, bounds, counts, sum: AtomicU64::new(0) }));
        series.push(histogram.clone());
        histogram
    }

    /// Their exposition in Prometheus' text format.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let mut series = self.0.lock().clone();
        series.sort_by_key(|histogram| histogram.0.name);
        for named in series.chunk_by(|a, b| a.0.name == b.0.name) {
            let name = named.first().map_or("", |histogram| histogram.0.name);
            // Writing to a string does not fail.
            let _ = writeln!(text, "# TYPE {name} histogram");
            named.iter().for_each(|histogram| histogram.0.render(&mut text));
        }
        text
    }
}

impl Cells {
    fn render(&self, text: &mut String) {
        let Cells { name, labels, .. } = self;
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        let bounds = self.bounds.iter().map(|bound| seconds(*bound).to_string()).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.counts) {
            total += count.load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
        }
        let sum = seconds(self.sum.load(Ordering::Relaxed));
        // The count is that of the buckets, also while somebody counts.
        let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {total}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ns, which is 104 days")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_a_bound_is_within_its_bucket() {
        let histograms = Histograms::default();
        let coarse = histograms.get("x_seconds", Buckets::Coarse, &[("pool", "a\"b")]);
        for nanoseconds in [1, 1_000_000, 1_000_001, 2_000_000_000] {
            coarse.record(Duration::from_nanos(nanoseconds));
        }
        let expected = "# TYPE x_seconds histogram\n\
            x_seconds_bucket{pool=\"a\\\"b\",le=\"0.001\"} 2\n\
            x_seconds_bucket{pool=\"a\\\"b\",le=\"0.01\"} 3\n\
            x_seconds_bucket{pool=\"a\\\"b\",le=\"0.1\"} 3\n\
            x_seconds_bucket{pool=\"a\\\"b\",le=\"1\"} 3\n\
            x_seconds_bucket{pool=\"a\\\"b\",le=\"+Inf\"} 4\n\
            x_seconds_sum{pool=\"a\\\"b\"} 2.002000002\n\
            x_seconds_count{pool=\"a\\\"b\"} 4\n";
        assert_eq!(histograms.render(), expected);
    }

    #[test]
    fn the_same_series_is_there_once() {
        let histograms = Histograms::default();
        let series = |label| histograms.get("x_seconds", Buckets::Fine, &[("class", label)]);
        series("bulk").record(Duration::from_micros(60));
        series("bulk").record(Duration::from_micros(60));
        series("control").record(Duration::from_micros(60));
        let text = histograms.render();
        assert!(text.contains("x_seconds_bucket{class=\"bulk\",le=\"0.0001\"} 2"), "{text}");
        assert_eq!(text.matches("# TYPE").count(), 1, "{text}");
        assert_eq!(text.matches("_count{").count(), 2, "{text}");
    }
}
