//! Pools and their members come and go, and what was counted of one goes with it. So each counts in a recorder of its own,
//! and an exposition is made of them all.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;

use super::hot::HotSeries;
use super::{METRICS, MetricKind, Telemetry};

/// What counts apart from all else, and is shown until it is let go of.
pub(super) struct Scope {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    hot: HotSeries,
}

impl Scope {
    fn new() -> Scope {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        Scope { recorder, handle, hot: HotSeries::default() }
    }

    pub(super) fn recorder(&self) -> &PrometheusRecorder {
        &self.recorder
    }

    pub(super) fn hot(&self) -> &HotSeries {
        &self.hot
    }

    fn render(&self) -> [String; 2] {
        [self.handle.render(), self.hot.render()]
    }
}

/// One member's own, since members come and go while their pool stays.
pub(super) struct MemberScope {
    library: String,
    token: String,
    pub(super) scope: Scope,
}

/// One pool's own recorder. It is exposed until [`Telemetry::end_pool`]; whoever still counts in it then counts for nobody.
pub struct PoolMetrics {
    name: String,
    scope: Scope,
    members: Mutex<Vec<Arc<MemberScope>>>,
    /// Of its namespaces.
    tenants: Mutex<Vec<Arc<Scope>>>,
}

impl PoolMetrics {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn recorder(&self) -> &PrometheusRecorder {
        self.scope.recorder()
    }

    /// Where a namespace counts; exposed until [`PoolMetrics::end_tenant`].
    pub(super) fn tenant_scope(&self) -> Arc<Scope> {
        let tenant = Arc::new(Scope::new());
        self.tenants.lock().push(Arc::clone(&tenant));
        tenant
    }

    pub(super) fn end_tenant(&self, tenant: &Arc<Scope>) {
        self.tenants.lock().retain(|known| !Arc::ptr_eq(known, tenant));
    }

    /// Where a member of this token counts; exposed until [`PoolMetrics::end_scope`].
    pub(super) fn member_scope(&self, library: &str, token: &str) -> Arc<MemberScope> {
        let (library, token, scope) = (library.to_owned(), token.to_owned(), Scope::new());
        let member = Arc::new(MemberScope { library, token, scope });
        self.members.lock().push(Arc::clone(&member));
        member
    }

    pub(super) fn end_scope(&self, member: &Arc<MemberScope>) {
        self.members.lock().retain(|known| !Arc::ptr_eq(known, member));
    }

    fn of_token(&self, library: &str, token: &str) -> Option<Arc<MemberScope>> {
        self.members.lock().iter().find(|known| known.library == library && known.token == token).cloned()
    }

    fn render(&self) -> Vec<String> {
        let members = self.members.lock().clone();
        let members = members.iter().flat_map(|member| member.scope.render());
        let tenants = self.tenants.lock().clone();
        let tenants = tenants.iter().flat_map(|tenant| tenant.render());
        self.scope.render().into_iter().chain(members).chain(tenants).collect()
    }
}

/// Those exposed now.
#[derive(Default)]
pub(super) struct Pools(Mutex<Vec<Arc<PoolMetrics>>>);

impl Pools {
    /// Whoever makes or ends a pool holds up others, and does not wait until all are rendered.
    pub(super) fn render(&self) -> Vec<String> {
        let pools = self.0.lock().clone();
        pools.iter().flat_map(|pool| pool.render()).collect()
    }

    /// Where a member of this token counts; the first of them, if there are several.
    pub(super) fn of_token(&self, library: &str, token: &str) -> Option<Arc<MemberScope>> {
        self.0.lock().iter().find_map(|pool| pool.of_token(library, token))
    }
}

impl Telemetry {
    /// Where a pool of this name counts.
    pub fn pool(&self, name: &str) -> Arc<PoolMetrics> {
        let pool = PoolMetrics {
            name: name.to_owned(),
            scope: Scope::new(),
            members: Mutex::default(),
            tenants: Mutex::default(),
        };
        let pool = Arc::new(pool);
        self.0.pools.0.lock().push(Arc::clone(&pool));
        pool
    }

    /// The pool is gone, and every series of it.
    pub fn end_pool(&self, pool: &Arc<PoolMetrics>) {
        self.0.pools.0.lock().retain(|known| !Arc::ptr_eq(known, pool));
    }
}

/// One exposition made of several: each metric once, with all of its series, and each series once. Members may be called the
/// same, such as one key in a cloud by two secrets of one account: they are one series, and their sum.
pub(super) fn merge(expositions: &[String]) -> String {
    let mut series: HashMap<&str, Series<'_>> = HashMap::new();
    for text in expositions {
        let mut metric = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                metric = rest.split(' ').next();
            } else if !line.starts_with('#') {
                series.entry(metric.unwrap_or_default()).or_default().add(line);
            }
        }
    }
    let mut merged = String::with_capacity(expositions.iter().map(String::len).sum());
    for info in METRICS {
        let Some(Series { lines, sums, .. }) = series.get(info.name) else { continue };
        let kind = match info.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(merged, "# HELP {0} {1}\n# TYPE {0} {kind}", info.name, info.help);
        for (place, (labels, value)) in lines.iter().enumerate() {
            let _ = match sums.get(&place) {
                Some(sum) => writeln!(merged, "{labels} {sum}"),
                None => writeln!(merged, "{labels} {value}"),
            };
        }
        merged.push('\n');
    }
    merged
}

/// The series of one metric, in the order in which they came.
#[derive(Default)]
struct Series<'t> {
    /// Name and labels, and the value.
    lines: Vec<(&'t str, &'t str)>,
    places: HashMap<&'t str, usize>,
    /// Of those that came more than once.
    sums: HashMap<usize, f64>,
}

impl<'t> Series<'t> {
    fn add(&mut self, line: &'t str) {
        let Some((labels, value)) = line.rsplit_once(' ') else { return };
        let next = self.lines.len();
        let place = *self.places.entry(labels).or_insert(next);
        if place == next {
            self.lines.push((labels, value));
            return;
        }
        let number = |text: &str| text.parse::<f64>().unwrap_or_default();
        let first = self.lines.get(place).map_or(0.0, |(_, value)| number(value));
        *self.sums.entry(place).or_insert(first) += number(value);
    }
}
