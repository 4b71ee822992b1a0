//! `limits { … }`: every bound, its default and its maximum, in one place.

use std::time::Duration;

use super::reader::Reader;

/// Values of one item of a batch: itself, and more fields than it has.
const VALUES_PER_ITEM: usize = 8;

/// `limits { … }`: every bound, each with a default and a stated maximum. Field names are those of the stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs queued in one lane. Default 4,096, at most 1,048,576.
    pub lane_jobs: usize,
    /// Of those, jobs of one namespace. Default 1,024, at most `lane_jobs`.
    pub lane_jobs_per_namespace: usize,
    /// Bytes of the messages that jobs queued in one lane carry, where the key signs a message whole (Ed25519). Default
    /// 128 MiB, at least 64 KiB, at most 64 GiB.
    pub lane_bytes: usize,
    /// Of those, bytes of one namespace; a longer message is refused. Default 32 MiB, what one HTTP body can bring; at most
    /// `lane_bytes`.
    pub lane_bytes_per_namespace: usize,
    /// Jobs one session takes at a time. Default 32, at most 1,024.
    pub batch_max: usize,
    /// Device time one session takes at a time. Default 1 ms, at most 100 ms.
    pub batch_time: Duration,
    /// How often one job is tried in all, where devices fail it, or its key has to be found again in a cloud. Default 4, at most 16.
    pub attempts: u8,
    /// The same where calls to a cloud fail. Between these tries are pauses, each longer: the deadline and the budget end them before.
    /// So of an operation whose tokens have to be brought up anew before they can do any. Default 16, at most 64.
    pub cloud_attempts: u8,
    /// Further tries of a namespace, in hundredths of the jobs it asks for. Default 10, at most 100; 0 together with
    /// `retry_burst` only.
    pub retry_percent: u32,
    /// Further tries a namespace may make in a burst, such as when a slot with many sessions is lost. Default 256, at most
    /// 65,536; 0 together with `retry_percent` only: then nothing is tried twice.
    pub retry_burst: u32,
    /// Deadline of a request that names none. Default 5 s.
    pub deadline: Duration,
    /// Longest deadline a request may name. Default 60 s, at most 600 s.
    pub deadline_max: Duration,
    /// Limit of one sign call. Default 3 s (profile luna 30 s), at most 600 s. `None` takes the profile's.
    pub call_sign: Option<Duration>,
    /// Limit of one key generation. Default 180 s, at most 3,600 s.
    pub call_generate: Duration,
    /// Limit of opening, logging in and finding. Default 30 s, at most 600 s.
    pub call_open: Duration,
    /// How long a drain may take. Default 15 s, at most 600 s.
    pub drain: Duration,
    /// Open connections. Default 4,096, at most 65,536.
    pub connections: usize,
    /// Of those, connections of one uid. Default 1,024.
    pub connections_per_uid: usize,
    /// Size of one frame in bytes. Default 1 MiB, at most 32 MiB.
    pub frame_bytes: usize,
    /// Size of an HTTP body in bytes. Default 32 MiB, at most 256 MiB.
    pub http_body_bytes: usize,
    /// Values in an HTTP body: every object, every list, and whatever is in them. Default 131,072, or eight for each of
    /// `batch_items` where that is more; at most 16,777,216.
    pub http_body_values: usize,
    /// What all HTTP bodies together may take that are read or answered, light ones apart, in bytes of memory: that of the
    /// text, and about 100 to 1,000 for each value. Default 128 MiB, at least the size of one body, at most 64 GiB.
    pub http_bodies_bytes: usize,
    /// Size of an HTTP head in bytes. Default 64 KiB, at most 1 MiB.
    pub http_head_bytes: usize,
    /// The longest snapshot of the store that is saved or restored, in bytes. Default 16 GiB, at most 1 TiB.
    pub snapshot_max: usize,
    /// Requests in flight on one framed connection. Default 256, at most 65,536.
    pub requests_per_connection: usize,
    /// Items of one `batch_input`, or certificate requests of one framed call. Default 10,000, at most 1,000,000.
    pub batch_items: usize,
    /// How long a client may take to send a request it began, or to read an answer. Default 30 s, at most 600 s.
    pub client_io: Duration,
    /// First pause between probes of what is missing. Default 1 s.
    pub probe_min: Duration,
    /// Longest pause between probes. Default 60 s.
    pub probe_max: Duration,
    /// Tokens that the managed keys of one namespace, and of all below it, may name, beside those that are members of a `kms_pool`. Each has threads,
    /// sessions and metrics of its own. Default 64, at most 4,096.
    pub tokens_per_namespace: usize,
    /// Namespaces beside the root, whoever made them. Default 10,000, at most 100,000.
    pub namespaces_max: usize,
    /// Of those, namespaces that lie in one that is not the root, at any depth. Default 1,000, at most `namespaces_max`.
    pub namespaces_per_namespace: usize,
    /// Mounts of one namespace, and of all below it; of the root, its own, as with all bounds of a namespace. Default 1,000, at most
    /// 100,000.
    pub mounts_per_namespace: usize,
    /// Managed keys of one namespace, and of all below it. Default 10,000, at most 100,000.
    pub managed_keys_per_namespace: usize,
    /// Roles of `auth/unix` in one namespace and all below it. Default 1,000, at most 100,000.
    pub unix_roles_per_namespace: usize,
    /// Live tokens of one uid in one namespace and all below it that it got by `auth/unix/login`. Default 1,000, at most 100,000.
    pub unix_logins_per_uid: usize,
    /// Managed keys of one token or pool that are served from the start; of more, the others are from when they are first
    /// asked for. Default 1,000, at most 100,000.
    pub managed_keys_at_start: usize,
    /// Tokens of clients of one namespace, and of all below it, beside those that hold wrapped answers. Default 50,000, at most 1,000,000.
    pub client_tokens_per_namespace: usize,
    /// Answers of one namespace, and of all below it, that are kept behind tokens. Default 10,000, at most 100,000.
    pub wrapped_answers_per_namespace: usize,
    /// Of those, answers for one who asks: one token, or one uid and all that was made by its logins. Default 1,000, at most
    /// `wrapped_answers_per_namespace`.
    pub wrapped_answers_per_asker: usize,
    /// Bytes of the answers of one namespace, and of all below it, that are kept behind tokens; each has at most 1 MiB. Default
    /// 256 MiB, at least 1 MiB, at most 64 GiB.
    pub wrapped_bytes_per_namespace: usize,
    /// Of those, bytes for one who asks. Default 64 MiB, at least 1 MiB, at most `wrapped_bytes_per_namespace`.
    pub wrapped_bytes_per_asker: usize,
    /// Token roles of one namespace, and of all below it. Default 1,000, at most 100,000.
    pub token_roles_per_namespace: usize,
    /// Policies of one namespace, and of all below it. Default 1,000, at most 50,000.
    pub policies_per_namespace: usize,
    /// Bytes of the texts of the policies of one namespace and of all below it, which are kept in memory. Default 16 MiB, at least 128 KiB, at most 1 GiB.
    pub policy_bytes_per_namespace: usize,
    /// Keys made at once for clients of `pki/issue`. Default: half the number of cores, at least 1; at most 64.
    pub key_generations: usize,
    /// What one PKI mount keeps of OCSP answers, in bytes; each takes about 1 KiB. Default 64 MiB, at most 64 GiB.
    pub ocsp_cache_bytes: usize,
    /// OCSP answers that one PKI mount signs at once; who asks beyond that is told to come later. Default 16, at most 4,096.
    pub ocsp_signatures: usize,
    /// The longest record that audit devices are given, in bytes; a request whose record would be longer is refused. Default
    /// 16 MiB, at least 64 KiB, at most 256 MiB.
    pub audit_record_bytes: usize,
    /// What may wait for one audit device, in bytes. Default 64 MiB, at least `audit_record_bytes`, at most 4 GiB.
    pub audit_queue_bytes: usize,
    /// Worker threads of the front. Default: the number of cores, at most 8; at most 64.
    pub workers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            lane_jobs: 4096,
            lane_jobs_per_namespace: 1024,
            lane_bytes: 128 << 20,
            lane_bytes_per_namespace: 32 << 20,
            batch_max: 32,
            batch_time: Duration::from_millis(1),
            attempts: 4,
            cloud_attempts: 16,
            retry_percent: 10,
            retry_burst: 256,
            deadline: Duration::from_secs(5),
            deadline_max: Duration::from_secs(60),
            call_sign: None,
            call_generate: Duration::from_secs(180),
            call_open: Duration::from_secs(30),
            drain: Duration::from_secs(15),
            connections: 4096,
            connections_per_uid: 1024,
            frame_bytes: 1 << 20,
            http_body_bytes: 32 << 20,
            http_body_values: 1 << 17,
            http_bodies_bytes: 128 << 20,
            snapshot_max: 16 << 30,
            http_head_bytes: 64 << 10,
            requests_per_connection: 256,
            batch_items: 10_000,
            client_io: Duration::from_secs(30),
            probe_min: Duration::from_secs(1),
            probe_max: Duration::from_secs(60),
            tokens_per_namespace: 64,
            namespaces_max: 10_000,
            namespaces_per_namespace: 1000,
            mounts_per_namespace: 1000,
            managed_keys_per_namespace: 10_000,
            unix_roles_per_namespace: 1000,
            unix_logins_per_uid: 1000,
            managed_keys_at_start: 1000,
            client_tokens_per_namespace: 50_000,
            wrapped_answers_per_namespace: 10_000,
            wrapped_answers_per_asker: 1000,
            wrapped_bytes_per_namespace: 256 << 20,
            wrapped_bytes_per_asker: 64 << 20,
            token_roles_per_namespace: 1000,
            policies_per_namespace: 1000,
            policy_bytes_per_namespace: 16 << 20,
            key_generations: (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1),
            ocsp_cache_bytes: 64 << 20,
            ocsp_signatures: 16,
            audit_record_bytes: 16 << 20,
            audit_queue_bytes: 64 << 20,
            workers: std::thread::available_parallelism().map_or(1, usize::from).min(8),
        }
    }
}

impl Limits {
    /// Items of one batch that are with a token at once: enough to keep every session busy, and never more than a quarter of
    /// what the namespace may queue.
    pub fn batch_window(&self) -> usize {
        (self.lane_jobs_per_namespace / 4).clamp(1, 256)
    }

    /// Takes over what the stanza says.
    pub(super) fn read(&mut self, stanza: &mut Reader<'_>) {
        const MILLISECOND: Duration = Duration::from_millis(1);
        const SECOND: Duration = Duration::from_secs(1);
        const MIB: usize = 1 << 20;
        let seconds = Duration::from_secs;
        stanza.count("lane_jobs", 1..=1 << 20, &mut self.lane_jobs);
        // A lane made small by the operator makes its share small with it.
        self.lane_jobs_per_namespace = self.lane_jobs_per_namespace.min(self.lane_jobs);
        stanza.count("lane_jobs_per_namespace", 1..=self.lane_jobs, &mut self.lane_jobs_per_namespace);
        stanza.bytes("lane_bytes", 65_536..=65_536 * MIB, &mut self.lane_bytes);
        self.lane_bytes_per_namespace = self.lane_bytes_per_namespace.min(self.lane_bytes);
        stanza.bytes("lane_bytes_per_namespace", 4096..=self.lane_bytes, &mut self.lane_bytes_per_namespace);
        stanza.count("batch_max", 1..=1024, &mut self.batch_max);
        stanza.duration("batch_time", Duration::ZERO..=100 * MILLISECOND, &mut self.batch_time);
        stanza.small("attempts", 1..=16, &mut self.attempts);
        stanza.small("cloud_attempts", 1..=64, &mut self.cloud_attempts);
        stanza.small("retry_percent", 0..=100, &mut self.retry_percent);
        stanza.small("retry_burst", 0..=65_536, &mut self.retry_burst);
        self.check_retries(stanza);
        stanza.duration("deadline_max", MILLISECOND..=seconds(600), &mut self.deadline_max);
        self.deadline = self.deadline.min(self.deadline_max);
        stanza.duration("deadline", MILLISECOND..=self.deadline_max, &mut self.deadline);
        let mut call_sign = Duration::ZERO;
        stanza.duration("call_sign", MILLISECOND..=seconds(600), &mut call_sign);
        self.call_sign = (!call_sign.is_zero()).then_some(call_sign);
        stanza.duration("call_generate", SECOND..=seconds(3600), &mut self.call_generate);
        stanza.duration("call_open", SECOND..=seconds(600), &mut self.call_open);
        stanza.duration("drain", Duration::ZERO..=seconds(600), &mut self.drain);
        stanza.count("connections", 1..=65_536, &mut self.connections);
        self.connections_per_uid = self.connections_per_uid.min(self.connections);
        stanza.count("connections_per_uid", 1..=self.connections, &mut self.connections_per_uid);
        stanza.bytes("frame_bytes", 4096..=32 * MIB, &mut self.frame_bytes);
        stanza.bytes("http_body_bytes", 4096..=256 * MIB, &mut self.http_body_bytes);
        self.http_bodies_bytes = self.http_bodies_bytes.max(self.http_body_bytes);
        stanza.bytes("http_bodies_bytes", self.http_body_bytes..=65_536 * MIB, &mut self.http_bodies_bytes);
        stanza.bytes("snapshot_max", 4096..=1_048_576 * MIB, &mut self.snapshot_max);
        // hyper refuses a smaller read buffer.
        stanza.bytes("http_head_bytes", 8192..=MIB, &mut self.http_head_bytes);
        stanza.count("requests_per_connection", 1..=65_536, &mut self.requests_per_connection);
        stanza.count("batch_items", 1..=1_000_000, &mut self.batch_items);
        self.http_body_values = self.http_body_values.max(VALUES_PER_ITEM * self.batch_items);
        stanza.count("http_body_values", 64..=1 << 24, &mut self.http_body_values);
        stanza.duration("client_io", 100 * MILLISECOND..=seconds(600), &mut self.client_io);
        stanza.duration("probe_min", 10 * MILLISECOND..=seconds(60), &mut self.probe_min);
        self.probe_max = self.probe_max.max(self.probe_min);
        stanza.duration("probe_max", self.probe_min..=seconds(3600), &mut self.probe_max);
        stanza.count("tokens_per_namespace", 1..=4096, &mut self.tokens_per_namespace);
        stanza.count("namespaces_max", 1..=100_000, &mut self.namespaces_max);
        self.namespaces_per_namespace = self.namespaces_per_namespace.min(self.namespaces_max);
        stanza.count("namespaces_per_namespace", 0..=self.namespaces_max, &mut self.namespaces_per_namespace);
        stanza.count("mounts_per_namespace", 1..=100_000, &mut self.mounts_per_namespace);
        stanza.count("managed_keys_per_namespace", 1..=100_000, &mut self.managed_keys_per_namespace);
        stanza.count("unix_roles_per_namespace", 1..=100_000, &mut self.unix_roles_per_namespace);
        stanza.count("unix_logins_per_uid", 1..=100_000, &mut self.unix_logins_per_uid);
        stanza.count("managed_keys_at_start", 1..=100_000, &mut self.managed_keys_at_start);
        stanza.count("client_tokens_per_namespace", 1..=1_000_000, &mut self.client_tokens_per_namespace);
        self.read_wrapped(stanza);
        stanza.count("token_roles_per_namespace", 0..=100_000, &mut self.token_roles_per_namespace);
        stanza.count("policies_per_namespace", 0..=50_000, &mut self.policies_per_namespace);
        stanza.bytes("policy_bytes_per_namespace", MIB / 8..=1024 * MIB, &mut self.policy_bytes_per_namespace);
        stanza.count("key_generations", 1..=64, &mut self.key_generations);
        stanza.bytes("ocsp_cache_bytes", 4096..=65_536 * MIB, &mut self.ocsp_cache_bytes);
        stanza.count("ocsp_signatures", 1..=4096, &mut self.ocsp_signatures);
        stanza.bytes("audit_record_bytes", 65_536..=256 * MIB, &mut self.audit_record_bytes);
        self.audit_queue_bytes = self.audit_queue_bytes.max(self.audit_record_bytes);
        stanza.bytes("audit_queue_bytes", self.audit_record_bytes..=4096 * MIB, &mut self.audit_queue_bytes);
        stanza.count("workers", 1..=64, &mut self.workers);
    }

    fn read_wrapped(&mut self, stanza: &mut Reader<'_>) {
        const MIB: usize = 1 << 20;
        let Limits { wrapped_answers_per_namespace: answers, wrapped_bytes_per_namespace: bytes, .. } = self;
        stanza.count("wrapped_answers_per_namespace", 0..=100_000, answers);
        stanza.bytes("wrapped_bytes_per_namespace", MIB..=65_536 * MIB, bytes);
        let (answers, bytes) = (*answers, *bytes);
        self.wrapped_answers_per_asker = self.wrapped_answers_per_asker.min(answers);
        stanza.count("wrapped_answers_per_asker", 0..=answers, &mut self.wrapped_answers_per_asker);
        self.wrapped_bytes_per_asker = self.wrapped_bytes_per_asker.min(bytes);
        stanza.bytes("wrapped_bytes_per_asker", MIB..=bytes, &mut self.wrapped_bytes_per_asker);
    }

    /// Every bound by its name, as people write it.
    pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
        vec![
            ("lane_jobs", self.lane_jobs.to_string()),
            ("lane_jobs_per_namespace", self.lane_jobs_per_namespace.to_string()),
            ("lane_bytes", self.lane_bytes.to_string()),
            ("lane_bytes_per_namespace", self.lane_bytes_per_namespace.to_string()),
            ("batch_max", self.batch_max.to_string()),
            ("batch_time", format!("{:?}", self.batch_time)),
            ("attempts", self.attempts.to_string()),
            ("cloud_attempts", self.cloud_attempts.to_string()),
            ("retry_percent", self.retry_percent.to_string()),
            ("retry_burst", self.retry_burst.to_string()),
            ("deadline", format!("{:?}", self.deadline)),
            ("deadline_max", format!("{:?}", self.deadline_max)),
            ("call_sign", self.call_sign.map_or("the profile's".into(), |call_sign| format!("{call_sign:?}"))),
            ("call_generate", format!("{:?}", self.call_generate)),
            ("call_open", format!("{:?}", self.call_open)),
            ("drain", format!("{:?}", self.drain)),
            ("connections", self.connections.to_string()),
            ("connections_per_uid", self.connections_per_uid.to_string()),
            ("frame_bytes", self.frame_bytes.to_string()),
            ("http_body_bytes", self.http_body_bytes.to_string()),
            ("http_body_values", self.http_body_values.to_string()),
            ("http_bodies_bytes", self.http_bodies_bytes.to_string()),
            ("http_head_bytes", self.http_head_bytes.to_string()),
            ("snapshot_max", self.snapshot_max.to_string()),
            ("requests_per_connection", self.requests_per_connection.to_string()),
            ("batch_items", self.batch_items.to_string()),
            ("client_io", format!("{:?}", self.client_io)),
            ("probe_min", format!("{:?}", self.probe_min)),
            ("probe_max", format!("{:?}", self.probe_max)),
            ("tokens_per_namespace", self.tokens_per_namespace.to_string()),
            ("namespaces_max", self.namespaces_max.to_string()),
            ("namespaces_per_namespace", self.namespaces_per_namespace.to_string()),
            ("mounts_per_namespace", self.mounts_per_namespace.to_string()),
            ("managed_keys_per_namespace", self.managed_keys_per_namespace.to_string()),
            ("unix_roles_per_namespace", self.unix_roles_per_namespace.to_string()),
            ("unix_logins_per_uid", self.unix_logins_per_uid.to_string()),
            ("managed_keys_at_start", self.managed_keys_at_start.to_string()),
            ("client_tokens_per_namespace", self.client_tokens_per_namespace.to_string()),
            ("wrapped_answers_per_namespace", self.wrapped_answers_per_namespace.to_string()),
            ("wrapped_answers_per_asker", self.wrapped_answers_per_asker.to_string()),
            ("wrapped_bytes_per_namespace", self.wrapped_bytes_per_namespace.to_string()),
            ("wrapped_bytes_per_asker", self.wrapped_bytes_per_asker.to_string()),
            ("token_roles_per_namespace", self.token_roles_per_namespace.to_string()),
            ("policies_per_namespace", self.policies_per_namespace.to_string()),
            ("policy_bytes_per_namespace", self.policy_bytes_per_namespace.to_string()),
            ("key_generations", self.key_generations.to_string()),
            ("ocsp_cache_bytes", self.ocsp_cache_bytes.to_string()),
            ("ocsp_signatures", self.ocsp_signatures.to_string()),
            ("audit_record_bytes", self.audit_record_bytes.to_string()),
            ("audit_queue_bytes", self.audit_queue_bytes.to_string()),
            ("workers", self.workers.to_string()),
        ]
    }

    /// What is earned by the one is saved up to the other: with only one of them 0, the other would be of no effect.
    fn check_retries(&self, stanza: &mut Reader<'_>) {
        let Limits { retry_percent, retry_burst, .. } = self;
        let (field, why) = match (retry_percent, retry_burst) {
            (1.., 0) => ("retry_burst", format!("0 leaves no room for what retry_percent = {retry_percent} allows")),
            (0, 1..) => ("retry_percent", format!("0 never refills retry_burst = {retry_burst}")),
            _ => return,
        };
        stanza.refuse_field(field, format!("{field}: {why}; make it 1 or more, or both 0 to have nothing tried twice"));
    }
}
