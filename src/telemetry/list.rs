//! The one list of metrics. Names follow Prometheus' conventions: base units, `_total` for counters.

use metrics::{Level, Metadata};

pub(super) static METADATA: Metadata<'static> = Metadata::new("keyway", Level::INFO, None);

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts into buckets.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricInfo {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

pub(super) const REQUESTS: &str = "keyway_requests_total";
pub(super) const REQUEST_SECONDS: &str = "keyway_request_duration_seconds";
pub(super) const JOBS: &str = "keyway_jobs_total";
pub(super) const JOB_QUEUE_SECONDS: &str = "keyway_job_queue_seconds";
pub(super) const JOB_DEVICE_SECONDS: &str = "keyway_job_device_seconds";
pub(super) const TENANT_DEVICE_SECONDS: &str = "keyway_tenant_device_seconds";
pub(super) const LANE_DEPTH: &str = "keyway_lane_depth";
pub(super) const LANE_LIMIT: &str = "keyway_lane_limit";
pub(super) const LANE_BYTES: &str = "keyway_lane_bytes";
pub(super) const LANE_BYTES_LIMIT: &str = "keyway_lane_bytes_limit";
pub(super) const MEMBER_STATE: &str = "keyway_member_state";
pub(super) const MEMBER_REFUSED: &str = "keyway_member_refused";
pub(super) const MEMBER_COMPUTES_HERE: &str = "keyway_member_computes_here";
pub(super) const MEMBER_KEYS: &str = "keyway_member_keys";
pub(super) const SESSIONS: &str = "keyway_sessions";
pub(super) const SESSIONS_STUCK: &str = "keyway_sessions_stuck_total";
pub(super) const LOGINS: &str = "keyway_logins_total";
pub(super) const BRING_UPS: &str = "keyway_member_bring_ups_total";
pub(super) const EVICTIONS: &str = "keyway_session_evictions_total";
pub(super) const THROTTLES: &str = "keyway_device_throttles_total";
pub(super) const WRONG_SIGNATURES: &str = "keyway_wrong_signatures_total";
pub(super) const KEY_MISMATCHES: &str = "keyway_key_mismatches_total";
pub(super) const BREAKER: &str = "keyway_breaker_opened_total";
pub(super) const LANE_REFUSED: &str = "keyway_lane_refused_total";
pub(super) const RETRIES: &str = "keyway_retries_total";
pub(super) const KEY_MEMBERS: &str = "keyway_key_members";
pub(super) const KEY_HOLDERS: &str = "keyway_key_holders";
pub(super) const INITIALISATIONS: &str = "keyway_module_initialisations_total";
pub(super) const WORKER_STARTS: &str = "keyway_worker_starts_total";
pub(super) const SERVICE_REQUESTS: &str = "keyway_service_requests_total";
pub(super) const SERVICE_FAILURES: &str = "keyway_service_failures_total";
pub(super) const SERVICE_KEYS_OPEN: &str = "keyway_service_keys_open";
pub(super) const SERVICE_RATE: &str = "keyway_service_rate_allowed";
pub(super) const SERVICE_QUOTA: &str = "keyway_service_quota";
pub(super) const SERVICE_WAITING: &str = "keyway_service_waiting";
pub(super) const SERVICE_IN_FLIGHT: &str = "keyway_service_in_flight";
pub(super) const SERVICE_IN_FLIGHT_LIMIT: &str = "keyway_service_in_flight_limit";
pub(super) const SERVICE_BREAKER_OPEN: &str = "keyway_service_breaker_open";
pub(super) const SERVICE_CONNECTIONS: &str = "keyway_service_connections_total";
pub(super) const SERVICE_CONNECT_SECONDS: &str = "keyway_service_connect_duration_seconds";
pub(super) const KEY_STATE: &str = "keyway_service_key_state";
pub(super) const CREDENTIAL_FETCHES: &str = "keyway_service_credential_fetches_total";
pub(super) const CREDENTIALS_LEFT: &str = "keyway_service_credentials_left_seconds";
pub(super) const CERTIFICATES: &str = "keyway_certificates_issued_total";
pub(super) const REVOCATIONS: &str = "keyway_certificates_revoked_total";
pub(super) const CRLS: &str = "keyway_crls_signed_total";
pub(super) const OCSP: &str = "keyway_ocsp_responses_total";
pub(super) const TIDIES: &str = "keyway_tidy_runs_total";
pub(super) const CERTIFICATES_TIDIED: &str = "keyway_certificates_tidied_total";
pub(super) const REVOCATIONS_TIDIED: &str = "keyway_revocations_tidied_total";
pub(super) const CERTIFICATES_STORED: &str = "keyway_certificates_stored";
pub(super) const REVOCATIONS_STORED: &str = "keyway_revocations_stored";
pub(super) const TOKENS_REFUSED: &str = "keyway_tokens_refused_total";
pub(super) const UNIX_LOGINS: &str = "keyway_unix_logins_total";
pub(super) const QUOTA_REFUSED: &str = "keyway_quota_refused_total";
pub(super) const CONNECTIONS: &str = "keyway_connections";
pub(super) const CONNECTIONS_REFUSED: &str = "keyway_connections_refused_total";
pub(super) const MALFORMED: &str = "keyway_malformed_requests_total";
pub(super) const STORE_COMMITS: &str = "keyway_store_commits";
pub(super) const STORE_GROUPS: &str = "keyway_store_groups";
pub(super) const STORE_RECORDS: &str = "keyway_store_records_written";
pub(super) const MANAGED_KEYS_UNREAD: &str = "keyway_managed_keys_unread";
pub(super) const STORE_DAMAGED: &str = "keyway_store_records_damaged";
pub(super) const AUDIT_RECORDS: &str = "keyway_audit_records_total";
pub(super) const AUDIT_WRITES: &str = "keyway_audit_writes_total";
pub(super) const AUDIT_FAILURES: &str = "keyway_audit_failures_total";
pub(super) const AUDIT_REFUSED: &str = "keyway_audit_refused_total";
pub(super) const BUILD_INFO: &str = "keyway_build_info";
pub(super) const START_TIME: &str = "keyway_start_time_seconds";
pub(super) const RELOADS: &str = "keyway_config_reloads_total";
pub(super) const RELOAD_OK: &str = "keyway_config_last_reload_ok";
pub(super) const RELOADED_TIME: &str = "keyway_config_loaded_time_seconds";
pub(super) const RESTART_NEEDED: &str = "keyway_config_restart_needed";
pub(super) const PROCESS_MEMORY: &str = "keyway_resident_memory_bytes";
pub(super) const PROCESS_FDS: &str = "keyway_open_fds";
pub(super) const PROCESS_THREADS: &str = "keyway_threads";

const fn metric(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> MetricInfo {
    MetricInfo { name, kind, labels, help }
}

use MetricKind::{Counter, Gauge, Histogram};

/// Every metric Keyway exposes.
pub const METRICS: &[MetricInfo] = &[
    metric(REQUESTS, Counter, &["operation", "outcome", "wire"], "Operations answered, by how they ended."),
    metric(REQUEST_SECONDS, Histogram, &["operation", "wire"], "Time from an operation's arrival to its answer."),
    metric(
        JOBS,
        Counter,
        &["pool", "library", "token", "worker", "result"],
        "Private-key operations that the member's sessions ran.",
    ),
    metric(
        JOB_QUEUE_SECONDS,
        Histogram,
        &["pool", "namespace", "class"],
        "Time private-key operations waited in their lane.",
    ),
    metric(
        JOB_DEVICE_SECONDS,
        Histogram,
        &["pool", "library", "token", "worker", "class"],
        "Time the device took for private-key operations.",
    ),
    metric(
        TENANT_DEVICE_SECONDS,
        Histogram,
        &["pool", "namespace"],
        "Device time given to the namespace, by its private-key operations. Coarse: its sum is what counts.",
    ),
    metric(LANE_DEPTH, Gauge, &["pool", "namespace", "class"], "Jobs queued in the lane, sampled."),
    metric(LANE_LIMIT, Gauge, &["pool", "of"], "Most jobs the lane queues: of the whole pool, and of one namespace."),
    metric(
        LANE_BYTES,
        Gauge,
        &["pool", "namespace"],
        "Bytes of the messages of jobs queued in the lane, sampled. Digests are none: they lie in the job itself.",
    ),
    metric(
        LANE_BYTES_LIMIT,
        Gauge,
        &["pool", "of"],
        "Most bytes of messages the lane queues: of the whole pool, and of one namespace.",
    ),
    metric(LANE_REFUSED, Counter, &["pool", "namespace"], "Jobs refused because a bound of the lane was reached."),
    metric(
        RETRIES,
        Counter,
        &["pool", "namespace", "result"],
        "Jobs that failed through no fault of their own: tried again, or refused that.",
    ),
    metric(KEY_MEMBERS, Gauge, &["pool", "namespace", "key"], "Members asked to hold the managed key."),
    metric(KEY_HOLDERS, Gauge, &["pool", "namespace", "key"], "Members that have proven to hold the managed key."),
    metric(MEMBER_STATE, Gauge, &["pool", "library", "token", "worker", "state"], "1 for the state the member is in."),
    metric(
        MEMBER_REFUSED,
        Gauge,
        &["pool", "library", "token", "worker", "reason"],
        "1 for what the member waits for an operator for: its PIN, a signature that was another key's, or what the log says.",
    ),
    metric(
        MEMBER_COMPUTES_HERE,
        Gauge,
        &["pool", "library", "token", "worker"],
        "1 if the member's calls are computed on this host's own cores: then the daemon's threads wait for them.",
    ),
    metric(MEMBER_KEYS, Gauge, &["pool", "library", "token", "worker"], "Managed keys the member has proven to hold."),
    metric(SESSIONS, Gauge, &["pool", "library", "token", "worker", "state"], "Sessions of the member, by state."),
    metric(
        SESSIONS_STUCK,
        Counter,
        &["pool", "library", "token", "worker"],
        "Sessions given up because a call did not return.",
    ),
    metric(
        SERVICE_REQUESTS,
        Counter,
        &["service", "domain", "outcome"],
        "Requests to a cloud's key service by quota domain: sent, of these throttled and failed; not sent: breaker open.",
    ),
    metric(
        SERVICE_FAILURES,
        Counter,
        &["pool", "library", "token", "worker", "cause"],
        "Calls of keys in clouds that failed on the way or in the service, by what they met.",
    ),
    metric(
        SERVICE_KEYS_OPEN,
        Gauge,
        &["service", "domain"],
        "Keys whose requests fail at once, since none was answered.",
    ),
    metric(SERVICE_RATE, Gauge, &["service", "domain"], "Units a second that flow control lets through now."),
    metric(SERVICE_QUOTA, Gauge, &["service", "domain"], "Units a second of the quota as configured."),
    metric(SERVICE_WAITING, Gauge, &["service", "domain"], "Requests that wait for their turn."),
    metric(SERVICE_IN_FLIGHT, Gauge, &["service", "domain"], "Requests under way."),
    metric(SERVICE_IN_FLIGHT_LIMIT, Gauge, &["service", "domain"], "So many requests may be under way now."),
    metric(
        SERVICE_BREAKER_OPEN,
        Gauge,
        &["service", "domain"],
        "1 while requests fail at once, since none was answered.",
    ),
    metric(
        SERVICE_CONNECTIONS,
        Counter,
        &["service", "result"],
        "New connections to a cloud's key service, and, but for Google's tokens, to whoever gives out credentials for it: \
         made, or failed or given up.",
    ),
    metric(
        SERVICE_CONNECT_SECONDS,
        Histogram,
        &["service"],
        "Time until a new connection was there: name, TCP and TLS. A call that waits for one takes so much longer.",
    ),
    metric(
        KEY_STATE,
        Gauge,
        &["service", "key", "state"],
        "1 for the state that a key in a cloud is in, as its service last said: enabled, disabled, pending_deletion, absent, \
         out_of_use.",
    ),
    metric(
        CREDENTIAL_FETCHES,
        Counter,
        &["service", "owner", "identity", "result"],
        "Fetches of credentials for a cloud's key service: the daemon's own, or a managed key's.",
    ),
    metric(
        CREDENTIALS_LEFT,
        Gauge,
        &["service", "owner", "identity"],
        "How long the credentials at hand are good, where that is known.",
    ),
    metric(
        EVICTIONS,
        Counter,
        &["pool", "library", "token", "worker", "cause"],
        "Sessions given up or opened anew, by what the token answered.",
    ),
    metric(
        LOGINS,
        Counter,
        &["pool", "library", "token", "worker", "cause", "result"],
        "Login calls into the token, by why the member was brought up. Refused: by the token, for good.",
    ),
    metric(
        BRING_UPS,
        Counter,
        &["pool", "library", "token", "worker", "cause", "result"],
        "Times the member was brought up, or could not be, by why: the start, or what took it down.",
    ),
    metric(
        INITIALISATIONS,
        Counter,
        &["library", "result"],
        "Times the library's module was initialised in the daemon. In worker processes: each start is one.",
    ),
    metric(WORKER_STARTS, Counter, &["library", "token", "result"], "Worker processes started."),
    metric(
        THROTTLES,
        Counter,
        &["pool", "library", "token", "worker"],
        "Times the device said that it is asked too much.",
    ),
    metric(
        WRONG_SIGNATURES,
        Counter,
        &["pool", "library", "token", "worker"],
        "Signatures that did not verify after they were made. Any is an alarm.",
    ),
    metric(
        KEY_MISMATCHES,
        Counter,
        &["pool", "library", "token", "worker"],
        "Proofs that found another key than the one recorded, or than another member's, or whose signature was another \
         key's. Any is an alarm.",
    ),
    metric(
        BREAKER,
        Counter,
        &["pool", "library", "token", "worker"],
        "Times the member was taken down because too many of its sessions failed.",
    ),
    metric(CERTIFICATES, Counter, &[], "Certificates issued."),
    metric(REVOCATIONS, Counter, &[], "Certificates revoked."),
    metric(CRLS, Counter, &[], "Certificate revocation lists signed."),
    metric(OCSP, Counter, &["result"], "OCSP requests answered, by how: signed, kept from before, or refused."),
    metric(TIDIES, Counter, &["result"], "Times tidy ran on a mount, by how it ended."),
    metric(CERTIFICATES_TIDIED, Counter, &[], "Certificates that had ended, removed from the store by tidy."),
    metric(REVOCATIONS_TIDIED, Counter, &[], "Revocations of certificates that had ended, removed by tidy."),
    metric(
        CERTIFICATES_STORED,
        Gauge,
        &["namespace", "mount"],
        "Certificates stored, of mounts that are to publish it (config/auto-tidy).",
    ),
    metric(REVOCATIONS_STORED, Gauge, &["namespace", "mount"], "Revocations stored, of the same mounts."),
    metric(TOKENS_REFUSED, Counter, &[], "Requests refused for want of a good token."),
    metric(UNIX_LOGINS, Counter, &["result"], "Logins by process (auth/unix), by what became of them."),
    metric(QUOTA_REFUSED, Counter, &["kind"], "Requests refused by a quota."),
    metric(CONNECTIONS, Gauge, &["wire"], "Connections open."),
    metric(CONNECTIONS_REFUSED, Counter, &["reason"], "Connections turned away."),
    metric(MALFORMED, Counter, &["wire"], "Requests that could not be read."),
    metric(STORE_COMMITS, Gauge, &[], "Commits the store was asked for since it was opened."),
    metric(STORE_GROUPS, Gauge, &[], "Durable transactions those commits were written in."),
    metric(STORE_RECORDS, Gauge, &[], "Records those commits wrote."),
    metric(
        STORE_DAMAGED,
        Gauge,
        &[],
        "Records that did not open when all were last encrypted under a new key; the older keys are kept for them.",
    ),
    metric(
        MANAGED_KEYS_UNREAD,
        Gauge,
        &[],
        "Managed keys whose records this build could not read at its start: nobody can use them.",
    ),
    metric(AUDIT_RECORDS, Counter, &["type"], "Records that audit devices wrote."),
    metric(AUDIT_WRITES, Counter, &["type"], "Calls those records were written by: many records may share one."),
    metric(
        AUDIT_FAILURES,
        Counter,
        &["type"],
        "Records that an audit device did not write, and files it could not open.",
    ),
    metric(
        AUDIT_REFUSED,
        Counter,
        &[],
        "Requests refused, or their answers withheld, since no audit device recorded them.",
    ),
    metric(BUILD_INFO, Gauge, &["version"], "Always 1; the version is in the label."),
    metric(START_TIME, Gauge, &[], "When the daemon started, in Unix time."),
    metric(RELOADS, Counter, &["result"], "Times the configuration was read again: taken over, or refused as a whole."),
    metric(RELOAD_OK, Gauge, &[], "1 unless the configuration was refused when it was last read again."),
    metric(RELOADED_TIME, Gauge, &[], "When the configuration in force was read, in Unix time."),
    metric(
        RESTART_NEEDED,
        Gauge,
        &[],
        "Settings of the configuration that differ from those in force until a restart.",
    ),
    metric(PROCESS_MEMORY, Gauge, &[], "Resident memory of the daemon."),
    metric(PROCESS_FDS, Gauge, &[], "File descriptors the daemon has open."),
    metric(PROCESS_THREADS, Gauge, &[], "Threads of the daemon."),
];
