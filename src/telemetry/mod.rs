//! What can be seen from outside: every metric in one list with closed label sets, log lines, and their exposition.
//!
//! A hot path increments a handle that was registered before; nothing here looks a metric up by name at run time. This
//! room must not know who counts, or why.

mod audit;
mod exposition;
mod hot;
mod key_sets;
mod labels;
mod libraries;
mod list;
pub mod log;
mod parts;
mod pools;
mod process;
mod reloads;
mod scopes;
mod services;
mod stored;
mod unix_logins;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Key, Label, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::model::Wire;
use hot::{Buckets, Count, Histogram, HotSeries};
use key_sets::KeySets;

pub use exposition::{Exposition, ExpositionError};
pub use key_sets::KeySetFigures;
pub use labels::{AuditLabel, LoginLabel, OcspLabel, OperationLabel, OutcomeLabel, Refusal, TidyLabel};
pub use libraries::LibraryMetrics;
pub use list::{METRICS, MetricInfo, MetricKind};
pub use pools::{MemberLabels, MemberMetrics, RefusedLabel, SessionCounts, TenantMetrics};
pub use scopes::PoolMetrics;
pub use services::{ConnectionMetrics, CredentialFigures, QuotaDomainFigures, ServiceFigures};
pub use unix_logins::UnixLoginLabel;

/// Where the daemon counts. One per daemon; cheap to clone.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    requests: Vec<OnceLock<Count>>,
    request_seconds: Vec<OnceLock<Histogram>>,
    certificates: Counter,
    revocations: Counter,
    crls: Counter,
    ocsp: [Counter; OcspLabel::ALL.len()],
    tidies: [Counter; TidyLabel::ALL.len()],
    tidied: [Counter; 2],
    tokens_refused: Counter,
    quota_refused: [Counter; 2],
    connections: [Gauge; 2],
    connections_refused: [Counter; Refusal::ALL.len()],
    malformed: [Counter; 2],
    store: [Gauge; 4],
    audit: audit::AuditFigures,
    unix_logins: unix_logins::UnixLoginFigures,
    reloads: reloads::Reloads,
    hot: HotSeries,
    key_sets: KeySets,
    stored: stored::Stored,
    pools: scopes::Pools,
    services: services::Services,
}

impl Telemetry {
    /// A fresh set of metrics, all at zero.
    pub fn new() -> Telemetry {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let inner = Inner {
            requests: empty_cells(OperationLabel::ALL.len() * OutcomeLabel::COUNT * 2),
            request_seconds: empty_cells(OperationLabel::ALL.len() * 2),
            certificates: counter(&recorder, list::CERTIFICATES, &[]),
            revocations: counter(&recorder, list::REVOCATIONS, &[]),
            crls: counter(&recorder, list::CRLS, &[]),
            ocsp: OcspLabel::ALL.map(|label| counter(&recorder, list::OCSP, &[("result", label.label())])),
            tidies: TidyLabel::ALL.map(|label| counter(&recorder, list::TIDIES, &[("result", label.label())])),
            tidied: [list::CERTIFICATES_TIDIED, list::REVOCATIONS_TIDIED].map(|name| counter(&recorder, name, &[])),
            tokens_refused: counter(&recorder, list::TOKENS_REFUSED, &[]),
            quota_refused: ["rate-limit", "concurrency"]
                .map(|kind| counter(&recorder, list::QUOTA_REFUSED, &[("kind", kind)])),
            connections: WIRES.map(|wire| gauge(&recorder, list::CONNECTIONS, &[("wire", wire.label())])),
            connections_refused: Refusal::ALL
                .map(|reason| counter(&recorder, list::CONNECTIONS_REFUSED, &[("reason", reason.label())])),
            malformed: WIRES.map(|wire| counter(&recorder, list::MALFORMED, &[("wire", wire.label())])),
            store: [list::STORE_COMMITS, list::STORE_GROUPS, list::STORE_RECORDS, list::STORE_DAMAGED]
                .map(|name| gauge(&recorder, name, &[])),
            audit: audit::AuditFigures::new(&recorder),
            unix_logins: unix_logins::UnixLoginFigures::new(&recorder),
            reloads: reloads::Reloads::new(&recorder),
            hot: HotSeries::default(),
            key_sets: KeySets::default(),
            stored: stored::Stored::default(),
            pools: scopes::Pools::default(),
            services: services::Services::default(),
            handle,
            recorder,
        };
        let telemetry = Telemetry(Arc::new(inner));
        telemetry.constant_gauges();
        telemetry
    }

    fn constant_gauges(&self) {
        let version = env!("CARGO_PKG_VERSION");
        gauge(&self.0.recorder, list::BUILD_INFO, &[("version", version)]).set(1.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge(&self.0.recorder, list::START_TIME, &[]).set(now.as_secs_f64());
    }

    /// The exposition in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        process::observe(|name, value| gauge(&self.0.recorder, name, &[]).set(value));
        let mut expositions = self.0.pools.render();
        expositions.push(self.0.handle.render());
        expositions.push(self.0.hot.render());
        expositions.push(self.0.key_sets.render());
        expositions.push(self.0.stored.render());
        expositions.push(self.0.services.render());
        scopes::merge(&expositions)
    }

    /// One operation was answered, `total` after it arrived.
    pub fn request_finished(&self, operation: OperationLabel, outcome: OutcomeLabel, wire: Wire, total: Duration) {
        let (op, out, via) = (operation.index(), outcome.index(), wire_index(wire));
        if let Some(cell) = self.0.requests.get((op * OutcomeLabel::COUNT + out) * 2 + via) {
            let labels = [("operation", operation.label()), ("outcome", outcome.label()), ("wire", wire.label())];
            cell.get_or_init(|| self.0.hot.count(list::REQUESTS, &labels)).increment();
        }
        if let Some(cell) = self.0.request_seconds.get(op * 2 + via) {
            let labels = [("operation", operation.label()), ("wire", wire.label())];
            cell.get_or_init(|| self.0.hot.histogram(list::REQUEST_SECONDS, Buckets::Fine, &labels)).record(total);
        }
    }

    /// A certificate was issued.
    pub fn certificate_issued(&self) {
        self.0.certificates.increment(1);
    }

    /// A certificate was revoked.
    pub fn certificate_revoked(&self) {
        self.0.revocations.increment(1);
    }

    /// A CRL was signed.
    pub fn crl_signed(&self) {
        self.0.crls.increment(1);
    }

    /// An OCSP request was answered.
    pub fn ocsp_answered(&self, label: OcspLabel) {
        if let Some(counter) = self.0.ocsp.get(label as usize) {
            counter.increment(1);
        }
    }

    /// Tidy removed so many certificates and revocations.
    pub fn tidied(&self, certificates: u64, revocations: u64) {
        let [of_certificates, of_revocations] = &self.0.tidied;
        of_certificates.increment(certificates);
        of_revocations.increment(revocations);
    }

    /// Tidy ended on a mount.
    pub fn tidy_ended(&self, label: TidyLabel) {
        if let Some(counter) = self.0.tidies.get(label as usize) {
            counter.increment(1);
        }
    }

    /// A request came without a good token.
    pub fn token_refused(&self) {
        self.0.tokens_refused.increment(1);
    }

    /// A quota refused a request: a rate limit, or a bound of requests at once.
    pub fn quota_refused(&self, by_rate: bool) {
        let [rate_limit, concurrency] = &self.0.quota_refused;
        if by_rate { rate_limit } else { concurrency }.increment(1);
    }

    /// A connection was accepted.
    pub fn connection_opened(&self, wire: Wire) {
        self.0.connections[wire_index(wire)].increment(1.0);
    }

    /// A connection has ended.
    pub fn connection_closed(&self, wire: Wire) {
        self.0.connections[wire_index(wire)].decrement(1.0);
    }

    /// A connection was turned away.
    pub fn connection_refused(&self, reason: Refusal) {
        self.0.connections_refused[reason as usize].increment(1);
    }

    /// Bytes came that are no request of this wire.
    pub fn malformed(&self, wire: Wire) {
        self.0.malformed[wire_index(wire)].increment(1);
    }

    /// Every managed key that is served, and who holds it. Those not named are gone.
    pub fn key_sets(&self, sets: Vec<KeySetFigures>) {
        self.0.key_sets.replace(sets);
    }

    /// So many managed keys could not be read from the store.
    pub fn managed_keys_unread(&self, keys: usize) {
        gauge(&self.0.recorder, list::MANAGED_KEYS_UNREAD, &[]).set(count(keys));
    }

    /// What the store has done since it was opened, and how many damaged records were found in it.
    pub fn store(&self, commits: u64, groups: u64, records: u64, damaged: u64) {
        for (gauge, value) in self.0.store.iter().zip([commits, groups, records, damaged]) {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 commits")]
            gauge.set(value as f64);
        }
    }
}

impl Default for Telemetry {
    fn default() -> Telemetry {
        Telemetry::new()
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Telemetry")
    }
}

const WIRES: [Wire; 2] = [Wire::Http, Wire::Framed];

fn wire_index(wire: Wire) -> usize {
    match wire {
        Wire::Http => 0,
        Wire::Framed => 1,
    }
}

fn empty_cells<T>(len: usize) -> Vec<OnceLock<T>> {
    std::iter::repeat_with(OnceLock::new).take(len).collect()
}

fn count(value: usize) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 bytes")]
fn count_bytes(value: usize) -> f64 {
    value as f64
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect::<Vec<_>>();
    Key::from_parts(name, labels)
}

fn counter(recorder: &PrometheusRecorder, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
    recorder.register_counter(&key(name, labels), &list::METADATA)
}

fn gauge(recorder: &PrometheusRecorder, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
    recorder.register_gauge(&key(name, labels), &list::METADATA)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Class, MemberState};

    const MEMBER: MemberLabels<'static> = MemberLabels { library: "dev", token: "keyway-dev", worker: 0 };

    #[test]
    fn what_was_counted_is_exposed_under_closed_labels() {
        let telemetry = Telemetry::new();
        telemetry.request_finished(OperationLabel::Sign, OutcomeLabel::Ok, Wire::Framed, Duration::from_micros(120));
        let pool = telemetry.pool("dev");
        let member = pool.member(MEMBER);
        member.job_finished(Duration::from_micros(90), Class::Bulk, true);
        member.stands(MemberState::Serving, None, SessionCounts { serving: 2, ..SessionCounts::default() }, 3);
        member.evicted("CKR_SESSION_CLOSED");
        member.login(Some("CKR_USER_NOT_LOGGED_IN"), LoginLabel::Ok);
        telemetry.library("HSM").initialised(true);
        let tenant = pool.tenant("team-a/");
        tenant.job_started(Duration::from_micros(20), Class::Interactive);
        tenant.retried();
        tenant.job_finished(Duration::from_millis(2));
        let text = telemetry.render();
        const OF: &str = r#"pool="dev",library="dev",token="keyway-dev",worker="0""#;
        for line in [
            r#"keyway_requests_total{operation="sign",outcome="ok",wire="framed"} 1"#.to_owned(),
            r#"keyway_request_duration_seconds_bucket{operation="sign",wire="framed",le="0.0002"} 1"#.to_owned(),
            format!(r#"keyway_job_device_seconds_count{{{OF},class="bulk"}} 1"#),
            format!(r#"keyway_member_state{{{OF},state="serving"}} 1"#),
            format!(r#"keyway_sessions{{{OF},state="serving"}} 2"#),
            format!(r#"keyway_session_evictions_total{{{OF},cause="CKR_SESSION_CLOSED"}} 1"#),
            format!(r#"keyway_logins_total{{{OF},cause="CKR_USER_NOT_LOGGED_IN",result="ok"}} 1"#),
            format!(r#"keyway_logins_total{{{OF},cause="start",result="refused"}} 0"#),
            r#"keyway_job_queue_seconds_count{pool="dev",namespace="team-a/",class="interactive"} 1"#.to_owned(),
            r#"keyway_tenant_device_seconds_sum{pool="dev",namespace="team-a/"} 0.002"#.to_owned(),
            r#"keyway_retries_total{pool="dev",namespace="team-a/",result="tried"} 1"#.to_owned(),
            r#"keyway_module_initialisations_total{library="hsm",result="ok"} 1"#.to_owned(),
        ] {
            assert!(text.contains(&line), "{line} is missing from\n{text}");
        }
    }

    fn key_set(key: &str) -> KeySetFigures {
        KeySetFigures { pool: "dev".into(), namespace: "root".into(), key: key.into(), members: 2, holders: 1 }
    }

    #[test]
    fn a_key_that_is_gone_leaves_no_line_behind() {
        let telemetry = Telemetry::new();
        telemetry.key_sets(vec![key_set("old"), key_set("kept")]);
        telemetry.key_sets(vec![key_set("kept")]);
        let text = telemetry.render();
        assert!(text.contains("keyway_key_members{pool=\"dev\",namespace=\"root\",key=\"kept\"} 2"), "{text}");
        assert!(text.contains("keyway_key_holders{pool=\"dev\",namespace=\"root\",key=\"kept\"} 1"), "{text}");
        assert!(!text.contains(r#"key="old""#), "{text}");
    }

    #[test]
    fn a_mount_that_says_no_longer_what_it_has_leaves_no_line_behind() {
        let telemetry = Telemetry::new();
        telemetry.stored("root", "pki/", Some((7, 2)));
        telemetry.stored("root", "old/", Some((1, 0)));
        telemetry.stored("root", "old/", None);
        let text = telemetry.render();
        assert!(text.contains(r#"keyway_certificates_stored{namespace="root",mount="pki/"} 7"#), "{text}");
        assert!(text.contains(r#"keyway_revocations_stored{namespace="root",mount="pki/"} 2"#), "{text}");
        assert!(!text.contains("old/"), "{text}");
    }

    #[test]
    fn a_pool_that_is_gone_leaves_no_series_behind_and_the_others_stand_under_one_head() {
        let telemetry = Telemetry::new();
        let pools = ["one", "two"].map(|name| {
            let pool = telemetry.pool(name);
            pool.tenant("root").job_finished(Duration::from_millis(2));
            let member = pool.member(MemberLabels { token: name, ..MEMBER });
            member.login(None, LoginLabel::Ok);
            member.job_finished(Duration::from_millis(2), Class::Bulk, true);
            telemetry.library("dev").worker_started(name, true);
            (pool, member)
        });
        let text = telemetry.render();
        for name in ["keyway_logins_total", "keyway_tenant_device_seconds", "keyway_worker_starts_total"] {
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{text}");
        }
        assert!(text.contains(r#"token="one""#) && text.contains(r#"token="two""#), "{text}");
        telemetry.end_pool(&pools[0].0);
        // Whoever still works for it counts for nobody.
        pools[0].1.job_finished(Duration::from_millis(2), Class::Control, true);
        telemetry.library("dev").worker_started("one", true);
        let text = telemetry.render();
        assert!(!text.contains(r#""one""#) && text.contains(r#"token="two""#), "{text}");
    }

    /// As Prometheus would have it, which takes nothing of an exposition where a series is there twice.
    #[test]
    fn members_that_are_called_the_same_are_one_series_and_their_sum() {
        let telemetry = Telemetry::new();
        let members = ["one", "one", "two"].map(|pool| telemetry.pool(pool).member(MEMBER));
        for member in &members {
            member.login(None, LoginLabel::Ok);
            member.job_finished(Duration::from_millis(2), Class::Bulk, true);
            member.stands(MemberState::Serving, None, SessionCounts { serving: 2, ..SessionCounts::default() }, 3);
        }
        let text = telemetry.render();
        let mut seen = std::collections::HashSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(series), "{series} is there twice");
        }
        let of = |pool: &str| format!(r#"pool="{pool}",library="dev",token="keyway-dev",worker="0""#);
        for line in [
            format!(r#"keyway_logins_total{{{},cause="start",result="ok"}} 2"#, of("one")),
            format!(r#"keyway_sessions{{{},state="serving"}} 4"#, of("one")),
            format!(r#"keyway_job_device_seconds_count{{{},class="bulk"}} 2"#, of("one")),
            format!(r#"keyway_job_device_seconds_bucket{{{},class="bulk",le="+Inf"}} 2"#, of("one")),
            format!(r#"keyway_logins_total{{{},cause="start",result="ok"}} 1"#, of("two")),
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} is missing from\n{text}");
        }
    }

    #[test]
    fn a_member_that_is_gone_leaves_its_pool_and_the_next_of_its_labels_begins_anew() {
        let telemetry = Telemetry::new();
        let pool = telemetry.pool("dev");
        let counted = |telemetry: &Telemetry| {
            let text = telemetry.render();
            let lines =
                text.lines().filter(|line| line.starts_with("keyway_logins_total{") && line.contains(r#""ok""#));
            lines.filter_map(|line| line.rsplit(' ').next().map(str::to_owned)).collect::<Vec<_>>()
        };
        let old = pool.member(MEMBER);
        old.login(None, LoginLabel::Ok);
        telemetry.library("dev").worker_started("keyway-dev", true);
        assert_eq!(counted(&telemetry), ["1"]);
        old.end();
        old.login(None, LoginLabel::Ok);
        assert!(counted(&telemetry).is_empty() && !telemetry.render().contains("keyway_worker_starts_total{"));
        pool.tenant("root").refused();
        let _new = pool.member(MEMBER);
        assert_eq!(counted(&telemetry), ["0"]);
        assert!(telemetry.render().contains(r#"keyway_lane_refused_total{pool="dev",namespace="root"} 1"#));
    }

    #[test]
    fn every_metric_exposed_is_in_the_list_with_its_help() {
        let telemetry = Telemetry::new();
        let pool = telemetry.pool("dev");
        pool.member(MEMBER).stands(MemberState::Probing, None, SessionCounts::default(), 0);
        pool.tenant("root").depth([1, 2, 3], 4);
        telemetry.key_sets(vec![key_set("k")]);
        telemetry.stored("root", "pki/", Some((1, 1)));
        pool.lane_limits(4096, 1024);
        pool.lane_bytes_limits(1 << 27, 1 << 25);
        telemetry.library("dev").worker_started("keyway-dev", true);
        telemetry.request_finished(OperationLabel::Read, OutcomeLabel::Ok, Wire::Http, Duration::ZERO);
        let text = telemetry.render();
        for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(|rest| rest.split(' ').next()) {
            let name = name.expect("a name follows");
            let known = METRICS.iter().any(|metric| metric.name == name);
            assert!(known, "{name} is not in the list");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
        }
    }
}
