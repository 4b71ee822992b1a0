//! Series that every request counts in, from many threads: to count is an addition or two, to what is its thread's own.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::formatting::sanitize_label_value;
use parking_lot::Mutex;

use super::parts::Parts;

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

/// A series of a counter. Cheap to clone; clones are the same series.
#[derive(Clone)]
pub(super) struct Count(Arc<Series>);

/// A series of a histogram, likewise.
#[derive(Clone)]
pub(super) struct Histogram(Arc<Series>);

struct Series {
    name: &'static str,
    /// As they are written, `name="value"` with commas between.
    labels: String,
    /// Upper bounds, in nanoseconds; `None` for a counter.
    bounds: Option<&'static [u64]>,
    /// A counter's number; or one for each bound, one for what is beyond, and the nanoseconds in all.
    cells: Parts,
}

impl Count {
    /// Counts one.
    pub(super) fn increment(&self) {
        self.0.cells.own().add(0, 1);
    }
}

impl Histogram {
    /// Counts one duration.
    pub(super) fn record(&self, span: Duration) {
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let bounds = self.0.bounds.unwrap_or_default();
        let own = self.0.cells.own();
        own.add(bounds.partition_point(|bound| *bound < nanoseconds), 1);
        own.add(bounds.len() + 1, nanoseconds);
    }
}

/// The series of one exposition.
#[derive(Default)]
pub(super) struct HotSeries(Mutex<Vec<Arc<Series>>>);

impl HotSeries {
    /// The counter of this name and these labels; made if there is none.
    pub(super) fn count(&self, name: &'static str, labels: &[(&str, &str)]) -> Count {
        Count(self.get(name, labels, None))
    }

    /// The same of a histogram.
    pub(super) fn histogram(&self, name: &'static str, buckets: Buckets, labels: &[(&str, &str)]) -> Histogram {
        let bounds: &[u64] = match buckets {
            Buckets::Fine => &FINE,
            Buckets::Coarse => &COARSE,
        };
        Histogram(self.get(name, labels, Some(bounds)))
    }

    fn get(&self, name: &'static str, labels: &[(&str, &str)], bounds: Option<&'static [u64]>) -> Arc<Series> {
        let written = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", sanitize_label_value(value)));
        let labels = written.collect::<Vec<_>>().join(",");
        let mut all = self.0.lock();
        if let Some(known) = all.iter().find(|known| known.name == name && known.labels == labels) {
            return Arc::clone(known);
        }
        let cells = Parts::new(bounds.map_or(1, |bounds| bounds.len() + 2));
        let series = Arc::new(Series { name, labels, bounds, cells });
        all.push(Arc::clone(&series));
        series
    }

    /// Their exposition in Prometheus' text format.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let mut all = self.0.lock().clone();
        all.sort_by_key(|series| series.name);
        for named in all.chunk_by(|a, b| a.name == b.name) {
            let Some(first) = named.first() else { continue };
            let kind = if first.bounds.is_some() { "histogram" } else { "counter" };
            // Writing to a string does not fail.
            let _ = writeln!(text, "# TYPE {} {kind}", first.name);
            named.iter().for_each(|series| series.render(&mut text));
        }
        text
    }
}

impl Series {
    fn render(&self, text: &mut String) {
        let Series { name, labels, bounds, cells } = self;
        let Some(bounds) = bounds else {
            let _ = writeln!(text, "{name}{{{labels}}} {}", cells.sum(0));
            return;
        };
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        let written = bounds.iter().map(|bound| seconds(*bound).to_string()).chain(["+Inf".to_owned()]);
        for (place, bound) in written.enumerate() {
            total += cells.sum(place);
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
        }
        let sum = seconds(cells.sum(bounds.len() + 1));
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
        let series = HotSeries::default();
        let coarse = series.histogram("x_seconds", Buckets::Coarse, &[("pool", "a\"b")]);
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
        assert_eq!(series.render(), expected);
    }

    #[test]
    fn a_counter_is_what_all_threads_counted() {
        let series = HotSeries::default();
        let [ok, _failed] = ["ok", "failed"].map(|result| series.count("x_total", &[("result", result)]));
        std::thread::scope(|scope| (0..3).for_each(|_| _ = scope.spawn(|| ok.increment())));
        let expected = "# TYPE x_total counter\nx_total{result=\"ok\"} 3\nx_total{result=\"failed\"} 0\n";
        assert_eq!(series.render(), expected);
    }

    #[test]
    fn the_same_series_is_there_once() {
        let series = HotSeries::default();
        let of = |label| series.histogram("x_seconds", Buckets::Fine, &[("class", label)]);
        of("bulk").record(Duration::from_micros(60));
        of("bulk").record(Duration::from_micros(60));
        of("control").record(Duration::from_micros(60));
        let text = series.render();
        assert!(text.contains("x_seconds_bucket{class=\"bulk\",le=\"0.0001\"} 2"), "{text}");
        assert_eq!(text.matches("# TYPE").count(), 1, "{text}");
        assert_eq!(text.matches("_count{").count(), 2, "{text}");
    }
}
