//! How keys stand, as their service last said it when it was asked for them: a key that is to be deleted is told of while there is
//! time to save it, also one that nobody uses now.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Found;
use crate::backend::BackendError;

/// Causes of errors by which a service says how a key stands.
pub(crate) const DISABLED: &str = "key_disabled";
pub(crate) const PENDING_DELETION: &str = "key_pending_deletion";
pub(crate) const OUT_OF_USE: &str = "key_state";

/// The states, the graver behind the lesser; as metrics name them.
const STATES: [&str; 6] = ["unknown", "enabled", "out_of_use", "disabled", "absent", "pending_deletion"];
const UNKNOWN: u8 = 0;
/// Keys of one service that have series; of more, those that stand worst.
const SERIES_MAX: usize = 1024;
/// Most letters of a key's name that are shown. Those that are alike so far are one.
const LETTERS: usize = 128;
const ENABLED: u8 = 1;
const ABSENT: u8 = 4;

/// The keys of one service, by the names that metrics have for them.
#[derive(Default)]
pub(super) struct KeyStates(Mutex<Known>);

#[derive(Default)]
struct Known {
    cells: BTreeMap<String, Vec<Weak<AtomicU8>>>,
    /// How many cells there are, also of keys that are gone.
    count: usize,
    /// How many there were when those of keys that are gone were last taken out.
    swept: usize,
}

impl Known {
    /// One more. Those of keys that are gone are taken out when there are twice as many as there were: so each costs little.
    fn add(&mut self, key: String, cell: &Arc<AtomicU8>) {
        if self.count > 2 * self.swept {
            self.cells.retain(|_, cells| {
                cells.retain(|cell| cell.strong_count() > 0);
                !cells.is_empty()
            });
            self.count = self.cells.values().map(Vec::len).sum();
            self.swept = self.count;
        }
        self.cells.entry(key).or_default().push(Arc::downgrade(cell));
        self.count += 1;
    }
}

/// How one key stands, seen as long as this is kept.
pub(super) struct KeyState {
    key: String,
    now: Arc<AtomicU8>,
}

impl KeyStates {
    pub(super) fn watch(&self, key: &str) -> KeyState {
        let now = Arc::new(AtomicU8::new(UNKNOWN));
        self.0.lock().add(key.chars().take(LETTERS).collect(), &now);
        KeyState { key: key.to_owned(), now }
    }

    /// The keys whose state is known, the gravest first; of those that are called the same, the gravest counts.
    pub(super) fn all(&self) -> Vec<(String, &'static str)> {
        let known = self.0.lock();
        let gravest = |cells: &Vec<Weak<AtomicU8>>| {
            let states = cells.iter().filter_map(Weak::upgrade).map(|cell| cell.load(Ordering::Relaxed));
            states.max().filter(|state| *state != UNKNOWN)
        };
        let name = |state: u8| STATES.get(usize::from(state)).copied().unwrap_or(STATES[0]);
        let states = known.cells.iter().filter_map(|(key, cells)| Some((key, gravest(cells)?)));
        let mut states: Vec<(&String, u8)> = states.collect();
        states.sort_by_key(|(_, state)| Reverse(*state));
        states.truncate(SERIES_MAX);
        states.into_iter().map(|(key, state)| (key.clone(), name(state))).collect()
    }
}

impl KeyState {
    /// Takes note of what the service said when it was asked for the key; what says nothing of its state changes none. One that
    /// was never there is not one that is gone.
    pub(super) fn note(&self, found: &Result<Option<Found>, BackendError>) {
        let state = match found {
            Ok(Some(_)) => ENABLED,
            Ok(None) if self.is_known() => ABSENT,
            Ok(None) => return,
            Err(error) => match error.cause {
                OUT_OF_USE => 2,
                DISABLED => 3,
                PENDING_DELETION => 5,
                _ => return,
            },
        };
        let before = self.now.swap(state, Ordering::Relaxed);
        if before == state {
            return;
        }
        match found {
            Err(error) => tracing::error!(key = self.key, reason = %error.fault, "A KEY IN A CLOUD IS OUT OF USE"),
            Ok(None) => tracing::error!(key = self.key, "A KEY IN A CLOUD IS GONE"),
            Ok(Some(_)) if before != UNKNOWN => tracing::info!(key = self.key, "a key in a cloud is in use again"),
            Ok(Some(_)) => {}
        }
    }

    /// Whether the service ever said how the key stands.
    pub(super) fn is_known(&self) -> bool {
        self.now.load(Ordering::Relaxed) != UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Fate;
    use crate::model::{CloudService, Fault};

    fn found() -> Result<Option<Found>, BackendError> {
        Ok(Some(Found::new("k".into(), &CloudService::AwsKms.kinds()[0], None)))
    }

    fn refused(cause: &'static str) -> Result<Option<Found>, BackendError> {
        Err(BackendError { fault: Fault::absent(), fate: Fate::Keep, cause })
    }

    #[test]
    fn a_key_stands_as_its_service_said_last() {
        let states = KeyStates::default();
        let key = states.watch("k");
        let now = || states.all().into_iter().map(|(_, state)| state).collect::<Vec<_>>();
        key.note(&Ok(None));
        key.note(&refused("timeout"));
        assert!(now().is_empty());
        for (said, state) in [
            (found(), "enabled"),
            (refused("timeout"), "enabled"),
            (refused(DISABLED), "disabled"),
            (refused(PENDING_DELETION), "pending_deletion"),
            (refused("connection"), "pending_deletion"),
            (Ok(None), "absent"),
            (refused(OUT_OF_USE), "out_of_use"),
            (found(), "enabled"),
        ] {
            key.note(&said);
            assert_eq!(now(), [state]);
        }
    }

    #[test]
    fn there_are_never_more_series_than_may_be() {
        let states = KeyStates::default();
        let held: Vec<KeyState> = (0..SERIES_MAX + 10).map(|number| states.watch(&format!("{number:0200}"))).collect();
        held.iter().for_each(|key| key.note(&found()));
        // They are alike as far as names are shown.
        assert_eq!(states.all(), [("0".repeat(LETTERS), "enabled")]);
        let held: Vec<KeyState> = (0..SERIES_MAX + 10).map(|number| states.watch(&number.to_string())).collect();
        held.iter().for_each(|key| key.note(&found()));
        let last = held.last().unwrap();
        last.note(&refused(PENDING_DELETION));
        let all = states.all();
        assert_eq!((all.len(), &all[0]), (SERIES_MAX, &(last.key.clone(), "pending_deletion")));
    }

    #[test]
    fn keys_that_come_and_go_leave_nothing() {
        let states = KeyStates::default();
        let _stays = states.watch("k");
        (0..1000).for_each(|number| drop((states.watch("k"), states.watch(&number.to_string()))));
        let left: usize = states.0.lock().cells.values().map(Vec::len).sum();
        assert!(left <= 8, "{left}");
    }

    #[test]
    fn of_keys_that_are_called_the_same_the_gravest_counts() {
        let states = KeyStates::default();
        let [one, other] = [states.watch("k"), states.watch("k")];
        one.note(&refused(PENDING_DELETION));
        other.note(&found());
        assert_eq!(states.all(), [("k".to_owned(), "pending_deletion")]);
        drop(one);
        assert_eq!(states.all(), [("k".to_owned(), "enabled")]);
        drop(other);
        assert!(states.all().is_empty());
    }
}
