//! Where an engine is enabled, and under which settings.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Namespace;

/// One enabled engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The namespace it is in.
    pub namespace: Namespace,
    /// Its path in that namespace, ending in `/`: `pki/`, `teams/ca/`.
    pub path: String,
    /// The engine's type: `pki`, `transit`.
    pub engine: String,
    /// Never reused: the engine's records are kept under it.
    pub uuid: String,
    /// Vault's accessor, such as `pki_1a2b3c4d`.
    pub accessor: String,
    /// Free text of the operator's.
    pub description: String,
    /// Free settings handed to the engine.
    pub options: BTreeMap<String, String>,
    /// Tunable settings.
    pub config: MountConfig,
}

/// What `sys/mounts/:path/tune` changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountConfig {
    /// Lifetime given where a request names none; zero means the system's default.
    pub default_lease_ttl: Duration,
    /// Longest lifetime given; zero means the system's maximum.
    pub max_lease_ttl: Duration,
    /// Names of the managed keys this mount may use, apart from those of `any_mount`.
    pub allowed_managed_keys: Vec<String>,
    /// Names of the request headers that reach its engine.
    pub passthrough_request_headers: Vec<String>,
    /// Names of the headers that its engine's answers may carry.
    pub allowed_response_headers: Vec<String>,
    /// Members of requests whose values audit devices write as they are.
    pub audit_non_hmac_request_keys: Vec<String>,
    /// Members of answers, likewise.
    pub audit_non_hmac_response_keys: Vec<String>,
    /// Who is shown it in the list of mounts.
    pub listing: Listing,
    /// As its maker said, of no account: there is no other cluster to copy it to. Not to be changed.
    pub is_local: bool,
}

/// Who is shown a mount in `sys/internal/ui/mounts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// Those whose policies grant something below it; nobody asked for this.
    #[default]
    Unsaid,
    /// The same, said.
    Hidden,
    /// Anyone, with a token or without.
    Anyone,
}

impl Listing {
    /// Vault's words for it.
    pub const fn name(self) -> &'static str {
        match self {
            Listing::Unsaid => "",
            Listing::Hidden => "hidden",
            Listing::Anyone => "unauth",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Listing> {
        [Listing::Unsaid, Listing::Hidden, Listing::Anyone].into_iter().find(|listing| listing.name() == name)
    }
}

/// The one request header that an engine does anything with.
pub const IF_MODIFIED_SINCE: &str = "If-Modified-Since";
/// The one header that an engine's answers have.
pub const LAST_MODIFIED: &str = "Last-Modified";

/// The system's default lease TTL, as Vault's: 32 days.
const SYSTEM_DEFAULT_TTL: Duration = Duration::from_secs(32 * 24 * 3600);
/// The system's maximum lease TTL, as Vault's: 32 days.
const SYSTEM_MAX_TTL: Duration = Duration::from_secs(32 * 24 * 3600);

impl MountConfig {
    /// Whether this request header reaches the engine.
    pub fn passes(&self, header: &str) -> bool {
        self.passthrough_request_headers.iter().any(|name| name.eq_ignore_ascii_case(header))
    }

    /// Whether the engine's answers may carry this header.
    pub fn answers_with(&self, header: &str) -> bool {
        self.allowed_response_headers.iter().any(|name| name.eq_ignore_ascii_case(header))
    }

    /// The default TTL in force.
    pub fn effective_default_ttl(&self) -> Duration {
        if self.default_lease_ttl.is_zero() {
            SYSTEM_DEFAULT_TTL.min(self.effective_max_ttl())
        } else {
            self.default_lease_ttl
        }
    }

    /// The maximum TTL in force.
    pub fn effective_max_ttl(&self) -> Duration {
        if self.max_lease_ttl.is_zero() { SYSTEM_MAX_TTL } else { self.max_lease_ttl }
    }
}
