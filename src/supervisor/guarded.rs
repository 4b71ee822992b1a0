//! The keys that guard the store: of a seal. No managed key may stand for one, since whoever has it used opens what it has wrapped;
//! and none of its label may be made beside it, since the seal would not know its own any more.
//!
//! They are known by what they are, their check value, whatever library, token, label or id leads to them; and by their names,
//! so that most are refused before any token is asked.

use arc_swap::ArcSwap;

use super::check_value;
use crate::backend::{BackendError, DeviceInfo, Fate, FoundKey, KeySelector, KeyTemplate, Session};
use crate::model::{CheckValue, KeyIdentity, TokenSelector};

/// How a seal names its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardName {
    /// The name of its library.
    pub library: String,
    /// Its token.
    pub token: TokenSelector,
    /// Its label.
    pub key_label: String,
}

/// One such key.
#[derive(Clone, Debug)]
struct Guard {
    name: GuardName,
    /// What it was found to be, once it was.
    seen: Option<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    serial: String,
    token_label: String,
    key_id: Vec<u8>,
    /// `None` where the token lets it make none: then it lets no managed key, either.
    value: Option<CheckValue>,
}

/// All of them. Read by whoever registers, finds or generates a key; written by the seals.
#[derive(Default)]
pub struct Guarded(ArcSwap<Vec<Guard>>);

impl Guarded {
    /// There is a seal that names its key so. Nothing is known of the key yet.
    pub fn name(&self, name: GuardName) {
        self.put(Guard { name, seen: None });
    }

    /// The seal has found its key, in this session of the token.
    ///
    /// # Errors
    ///
    /// The session is gone. A key that makes no check value is no error.
    pub fn found(
        &self,
        name: &GuardName,
        info: &DeviceInfo,
        session: &mut dyn Session,
        found: &FoundKey,
    ) -> Result<(), BackendError> {
        let value = match check_value::first(session, found) {
            Ok(value) => Some(value),
            Err(error) if error.fate == Fate::Keep => None,
            Err(error) => return Err(error),
        };
        let (serial, token_label) = (info.token.serial.clone(), info.token.label.clone());
        let seen = Seen { serial, token_label, key_id: found.id.clone(), value };
        self.put(Guard { name: name.clone(), seen: Some(seen) });
        Ok(())
    }

    fn put(&self, guard: Guard) {
        self.0.rcu(|guards| {
            let others = guards.iter().filter(|known| known.name != guard.name).cloned();
            others.chain([guard.clone()]).collect::<Vec<_>>()
        });
    }

    /// Whether a managed key of this library and token, found so, names one, as far as names tell.
    pub fn names(&self, library: &str, token: &TokenSelector, selector: &KeySelector) -> bool {
        selector.secret && self.0.load().iter().any(|guard| guard.is_on(library, token) && guard.is_found_by(selector))
    }

    /// Whether this is one.
    pub fn is(&self, identity: &KeyIdentity) -> bool {
        let KeyIdentity::Secret(value) = identity else { return false };
        let guards = self.0.load();
        let mut known = guards.iter().filter_map(|guard| guard.seen.as_ref()?.value.as_ref());
        known.any(|guard| guard == value)
    }

    /// Whether a key made so on this token could be taken for one by its seal.
    pub(super) fn would_be_taken_for_one(&self, info: &DeviceInfo, template: &KeyTemplate) -> bool {
        let is_of = |guard: &Guard| guard.name.key_label == template.label && guard.is_token(info);
        template.kind.is_secret() && self.0.load().iter().any(is_of)
    }
}

impl Guard {
    /// Whether the two names may lead to its token. Slots are numbered in each library anew; a label or serial number that is the
    /// same in another library is the same token more often than not.
    fn is_on(&self, library: &str, token: &TokenSelector) -> bool {
        let (serial, label) = match &self.seen {
            Some(seen) => (Some(&seen.serial), Some(&seen.token_label)),
            None => (None, None),
        };
        match token {
            TokenSelector::Slot(_) | TokenSelector::Cloud(_) => {
                self.name.token == *token && self.name.library.eq_ignore_ascii_case(library)
            }
            TokenSelector::Label(named) => self.name.token == *token || label == Some(named),
            TokenSelector::Serial(named) => self.name.token == *token || serial == Some(named),
        }
    }

    fn is_token(&self, info: &DeviceInfo) -> bool {
        match &self.seen {
            Some(seen) => seen.serial == info.token.serial && seen.token_label == info.token.label,
            None => match &self.name.token {
                TokenSelector::Label(label) => *label == info.token.label,
                TokenSelector::Serial(serial) => *serial == info.token.serial,
                // Not known: better one label too many refused than a seal that does not open.
                TokenSelector::Slot(_) => true,
                TokenSelector::Cloud(_) => false,
            },
        }
    }

    /// A label and an id find what has both; of such a label none may be made, whatever the id.
    fn is_found_by(&self, selector: &KeySelector) -> bool {
        match (&selector.label, &selector.id) {
            (Some(label), _) => *label == self.name.key_label,
            (None, Some(id)) => self.seen.as_ref().is_some_and(|seen| !id.is_empty() && seen.key_id == *id),
            (None, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::backend::fake::FakeBackend;
    use crate::model::TokenSelector::{Label, Serial, Slot};
    use crate::model::{KeyKind, KeyUsages};

    const AES: KeyKind = KeyKind::Aes { bits: 256 };

    fn by(label: Option<&str>, id: Option<&[u8]>) -> KeySelector {
        KeySelector { label: label.map(Into::into), id: id.map(<[u8]>::to_vec), secret: true, cloud: None }
    }

    #[test]
    fn a_seal_s_key_is_known_by_its_names_and_by_what_it_is() {
        let token = FakeBackend::default();
        token.make("seal", b"77", AES).unwrap();
        token.make("other", b"78", AES).unwrap();
        let name = GuardName { library: "HSM".into(), token: Slot(0), key_label: "seal".into() };
        let guarded = Guarded::default();
        guarded.name(name.clone());
        let seal = by(Some("seal"), None);
        assert!(guarded.names("hsm", &Slot(0), &seal) && !guarded.names("elsewhere", &Slot(0), &seal));
        let device = token.open(&Slot(0)).unwrap();
        let mut session = device.open_session().unwrap();
        let find = |session: &mut dyn Session, label: &str| session.find(&by(Some(label), None)).unwrap().unwrap();
        let found = find(session.as_mut(), "seal");
        guarded.found(&name, device.info(), session.as_mut(), &found).unwrap();
        let info = device.info().clone();
        for token in [Label(info.token.label.clone()), Serial(info.token.serial.clone())] {
            assert!(guarded.names("elsewhere", &token, &seal));
            assert!(guarded.names("elsewhere", &token, &by(Some("seal"), Some(b"1"))));
            assert!(guarded.names("elsewhere", &token, &by(None, Some(b"77"))));
            assert!(!guarded.names("elsewhere", &token, &by(None, Some(b"78"))));
            assert!(!guarded.names("elsewhere", &token, &by(Some("other"), None)));
            assert!(!guarded.names("elsewhere", &token, &KeySelector { secret: false, ..seal.clone() }));
        }
        let mut is = |label: &str| {
            let found = find(session.as_mut(), label);
            guarded.is(&KeyIdentity::Secret(check_value::first(session.as_mut(), &found).unwrap()))
        };
        assert!(is("seal") && !is("other"));
        let template =
            |label: &str, kind| KeyTemplate { kind, label: label.into(), uses: KeyUsages::NONE, cloud: None };
        assert!(guarded.would_be_taken_for_one(&info, &template("seal", AES)));
        assert!(guarded.would_be_taken_for_one(&info, &template("seal", KeyKind::Hmac { bits: 256 })));
        assert!(!guarded.would_be_taken_for_one(&info, &template("other", AES)));
        assert!(!guarded.would_be_taken_for_one(&info, &template("seal", KeyKind::Ed25519)));
        let mut elsewhere = info;
        elsewhere.token.serial = "another".into();
        assert!(!guarded.would_be_taken_for_one(&elsewhere, &template("seal", AES)));
    }
}
