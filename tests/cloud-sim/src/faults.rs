//! Faults: what is to happen to which requests.

use serde::{Deserialize, Serialize};

use crate::server::Subject;

/// A fault, and the requests it is for: those that match all that is said here.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) trouble: Trouble,
    #[serde(default)]
    pub(crate) which: Which,
    /// The operation, in the cloud's own word: `sign`, `asymmetricSign`, `Sign`.
    pub(crate) operation: Option<String>,
    /// What is metered together: a vault, a project's location, a region.
    pub(crate) bucket: Option<String>,
    /// The key, as the cloud names it.
    pub(crate) key: Option<String>,
}

/// What happens.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Trouble {
    /// The answer is this status, with the error body of the cloud, and nothing is done.
    Status {
        status: u16,
        /// The cloud's own word for the error, where it has several for one status.
        code: Option<String>,
        retry_after_ms: Option<u64>,
    },
    /// As if the quota were used up.
    Throttle { retry_after_ms: Option<u64> },
    /// The connection is reset instead of an answer, and nothing is done.
    Reset,
    /// It is done, and then the connection is reset.
    ResetAfter,
    /// The answer comes later by so much.
    Slow { ms: u64 },
    /// The answer's signature, MAC, ciphertext or plaintext has one wrong bit.
    WrongSignature,
    /// Another key of the same kind is used, and its public key shown.
    OtherKey,
    /// Behind the answer come so many blanks, which change nothing of its meaning.
    Long { bytes: usize },
    /// The answer is this instead, and nothing is done.
    Answer {
        status: u16,
        #[serde(default)]
        body: String,
        /// Where it says that the client is to go.
        location: Option<String>,
    },
    /// The answer's checksum is wrong, where the cloud sends one; and it says that ours was.
    WrongChecksum,
    /// A new connection is closed before its first byte.
    Refuse,
    /// A new connection ends in the TLS handshake.
    TlsAbort,
    /// A new connection is shown a certificate that nobody trusts.
    TlsStranger,
}

impl Trouble {
    /// Whether it is for connections, not for requests.
    fn of_connections(&self) -> bool {
        matches!(self, Trouble::Refuse | Trouble::TlsAbort | Trouble::TlsStranger)
    }
}

/// Which of those that match, counted from the fault's beginning.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Which {
    /// Every one until told otherwise.
    #[default]
    All,
    /// The next so many.
    Next(u64),
    /// Each so-many-th.
    Every(u64),
}

/// The faults that are in force.
#[derive(Default)]
pub(crate) struct Faults {
    rules: Vec<Rule>,
    last: u64,
}

#[derive(Serialize)]
pub(crate) struct Rule {
    pub(crate) id: u64,
    pub(crate) fault: Fault,
    /// How many requests or connections it was looked at for.
    matched: u64,
    /// How many of them it happened to.
    happened: u64,
}

impl Faults {
    /// Adds a fault; answers its number.
    pub(crate) fn add(&mut self, fault: Fault) -> u64 {
        self.last += 1;
        self.rules.push(Rule { id: self.last, fault, matched: 0, happened: 0 });
        self.last
    }

    /// Takes one back, or all.
    pub(crate) fn remove(&mut self, id: Option<u64>) {
        self.rules.retain(|rule| id.is_some_and(|id| id != rule.id));
    }

    pub(crate) fn all(&self) -> &[Rule] {
        &self.rules
    }

    /// What happens to a request, in the order in which it was ordered.
    pub(crate) fn of_request(&mut self, subject: &Subject) -> Vec<Trouble> {
        self.happening(|fault| !fault.trouble.of_connections() && fault.is_for(subject))
    }

    /// What happens to a new connection.
    pub(crate) fn of_connection(&mut self) -> Option<Trouble> {
        self.happening(|fault| fault.trouble.of_connections()).into_iter().next()
    }

    fn happening(&mut self, is_for: impl Fn(&Fault) -> bool) -> Vec<Trouble> {
        self.rules.iter_mut().filter(|rule| is_for(&rule.fault)).filter_map(Rule::happens).collect()
    }
}

impl Rule {
    fn happens(&mut self) -> Option<Trouble> {
        self.matched += 1;
        let happens = match self.fault.which {
            Which::All => true,
            Which::Next(count) => self.matched <= count,
            Which::Every(each) => each > 0 && self.matched.is_multiple_of(each),
        };
        self.happened += u64::from(happens);
        happens.then(|| self.fault.trouble.clone())
    }
}

impl Fault {
    fn is_for(&self, subject: &Subject) -> bool {
        let same =
            |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| Some(wanted) == is);
        same(&self.operation, Some(&subject.operation))
            && same(&self.bucket, subject.bucket.as_deref())
            && same(&self.key, subject.key.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        serde_json::from_str(text).unwrap()
    }

    fn subject(operation: &str, key: &str) -> Subject {
        Subject { operation: operation.into(), bucket: Some("v".into()), key: Some(key.into()) }
    }

    #[test]
    fn faults_are_for_what_they_say() {
        let mut faults = Faults::default();
        let first = faults.add(fault(r#"{"trouble": {"kind": "reset"}, "operation": "sign", "which": {"next": 1}}"#));
        faults.add(fault(r#"{"trouble": {"kind": "slow", "ms": 5}, "key": "v/k", "which": {"every": 2}}"#));
        assert_eq!(faults.of_request(&subject("verify", "v/other")), []);
        assert_eq!(faults.of_request(&subject("sign", "v/k")), [Trouble::Reset]);
        assert_eq!(faults.of_request(&subject("sign", "v/k")), [Trouble::Slow { ms: 5 }]);
        assert_eq!(faults.of_connection(), None);
        faults.remove(Some(first));
        assert_eq!(faults.all().len(), 1);
        faults.add(fault(r#"{"trouble": {"kind": "tls-abort"}}"#));
        assert_eq!(faults.of_connection(), Some(Trouble::TlsAbort));
        assert_eq!(faults.of_request(&subject("sign", "v/other")), []);
    }
}
