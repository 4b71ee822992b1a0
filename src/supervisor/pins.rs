//! PINs belong to the token: who is logged in with which PIN, and which PINs were refused.
//!
//! A refused PIN is never tried again, by any key, in any process: three tries lock most tokens.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::model::{Fault, Secret};

/// The keyed hash of a PIN, together with the token's serial number.
pub type PinHash = [u8; 32];

/// What survives restarts about PINs. Implemented over the store.
pub trait PinMemory: Send + Sync {
    /// The keyed hash of `pin` for the token `serial`.
    fn hash(&self, serial: &str, pin: &Secret) -> Result<PinHash, Fault>;

    /// Whether the token refused this PIN once.
    fn refused(&self, serial: &str, hash: &PinHash) -> Result<bool, Fault>;

    /// Remembers, durably, that it did.
    fn remember(&self, serial: &str, hash: &PinHash) -> Result<(), Fault>;

    /// The PIN that the token took last.
    fn taken(&self, serial: &str) -> Result<Option<PinHash>, Fault>;

    /// Remembers, durably, that it took this one.
    fn remember_taken(&self, serial: &str, hash: &PinHash) -> Result<(), Fault>;

    /// How often this PIN was tried and no answer came: the token may have counted each.
    fn unanswered(&self, serial: &str, hash: &PinHash) -> Result<u8, Fault>;

    /// Remembers, durably, that it was so often.
    fn remember_unanswered(&self, serial: &str, hash: &PinHash, tries: u8) -> Result<(), Fault>;
}

/// Logins without an answer after which a PIN is not tried again: most tokens lock at the third wrong one.
pub(super) const UNANSWERED_MAX: u8 = 2;

/// The tokens this process is logged in to. Login is application-wide in PKCS#11: some modules answer a second login
/// with any PIN, even a wrong one, by "already logged in", so only this table tells whether a PIN is right.
#[derive(Debug, Default)]
pub(super) struct Logins {
    tokens: Mutex<HashMap<TokenKey, Entry>>,
    /// Whose turn it is to log in to a token, by its serial.
    turns: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// Whose turn it is to look for a key there, and to generate it.
    turns_to_generate: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// PINs that tokens refused, by serial, should [`PinMemory`] be unable to remember one.
    refused: Mutex<HashSet<(String, PinHash)>>,
    /// PINs that an operator had tried in spite of tries without an answer, by serial: one more for each start.
    forced: Mutex<HashSet<(String, PinHash)>>,
    /// PINs that tokens took since the start, by serial.
    taken: Mutex<HashSet<(String, PinHash)>>,
    logins: AtomicU64,
}

/// One native login, and the members that live by it.
#[derive(Debug)]
struct Entry {
    /// Tells it from those before and after it.
    number: u64,
    pin: PinHash,
    members: usize,
}

/// A library, the process it is loaded in, and a token's serial.
type TokenKey = (String, u32, String);

/// What a member that wants to log in finds.
pub(super) enum Standing {
    /// Nobody is logged in: log in, then [`Logins::enter`].
    Nobody,
    /// Another member is, with the same PIN: nothing to do.
    Same(Login),
    /// Another member is, with another PIN.
    Other,
}

/// The turn at a token; those that nobody holds or waits for are forgotten.
fn turn(turns: &Mutex<HashMap<String, Arc<Mutex<()>>>>, serial: &str) -> Arc<Mutex<()>> {
    let mut turns = turns.lock();
    turns.retain(|_, turn| Arc::strong_count(turn) > 1);
    Arc::clone(turns.entry(serial.to_owned()).or_default())
}

impl Logins {
    /// To be held while one logs in to this token.
    pub(super) fn turn(&self, serial: &str) -> Arc<Mutex<()>> {
        turn(&self.turns, serial)
    }

    /// To be held while one looks for a key in this token, and generates it where there is none.
    pub(super) fn turn_to_generate(&self, serial: &str) -> Arc<Mutex<()>> {
        turn(&self.turns_to_generate, serial)
    }

    /// Where `pin` stands at the token `serial` of `library`, as this process has loaded it.
    pub(super) fn standing(self: &Arc<Self>, library: &str, process: u32, serial: &str, pin: &PinHash) -> Standing {
        let token = (library.to_owned(), process, serial.to_owned());
        let mut tokens = self.tokens.lock();
        match tokens.get_mut(&token) {
            None => Standing::Nobody,
            Some(entry) if same(&entry.pin, pin) => {
                entry.members += 1;
                let number = entry.number;
                Standing::Same(Login { logins: Arc::clone(self), token, number, pin: *pin })
            }
            Some(_) => Standing::Other,
        }
    }

    /// Takes note that a token forgot the login of this number. One made since is another.
    pub(super) fn forget(&self, library: &str, process: u32, serial: &str, number: u64) {
        let token = (library.to_owned(), process, serial.to_owned());
        let mut tokens = self.tokens.lock();
        if tokens.get(&token).is_some_and(|entry| entry.number == number) {
            tokens.remove(&token);
        }
    }

    /// Notes a login that has succeeded, for as long as the answer lives.
    pub(super) fn enter(self: &Arc<Self>, library: &str, process: u32, serial: &str, pin: PinHash) -> Login {
        let token = (library.to_owned(), process, serial.to_owned());
        self.taken.lock().insert((serial.to_owned(), pin));
        let number = self.logins.fetch_add(1, Ordering::Relaxed);
        self.tokens.lock().insert(token.clone(), Entry { number, pin, members: 1 });
        Login { logins: Arc::clone(self), token, number, pin }
    }

    /// Whether the token refused this PIN since the start.
    pub(super) fn refused(&self, serial: &str, pin: &PinHash) -> bool {
        self.refused.lock().contains(&(serial.to_owned(), *pin))
    }

    /// Whether the token took this PIN since the start.
    pub(super) fn took(&self, serial: &str, pin: &PinHash) -> bool {
        self.taken.lock().contains(&(serial.to_owned(), *pin))
    }

    /// This PIN is tried because an operator will have it so.
    pub(super) fn force(&self, serial: &str, pin: PinHash) {
        self.forced.lock().insert((serial.to_owned(), pin));
    }

    /// Whether it was since the start.
    pub(super) fn was_forced(&self, serial: &str, pin: &PinHash) -> bool {
        self.forced.lock().contains(&(serial.to_owned(), *pin))
    }

    /// Whether the token has taken another PIN than this one since the start, and never this one.
    pub(super) fn took_another(&self, serial: &str, pin: &PinHash) -> bool {
        let taken = self.taken.lock();
        !taken.contains(&(serial.to_owned(), *pin)) && taken.iter().any(|(of, _)| of == serial)
    }

    /// Remembers that it did.
    pub(super) fn remember(&self, serial: &str, pin: PinHash) {
        self.refused.lock().insert((serial.to_owned(), pin));
    }
}

/// A member's part in a login.
#[derive(Debug)]
pub(super) struct Login {
    logins: Arc<Logins>,
    token: TokenKey,
    number: u64,
    pin: PinHash,
}

impl Login {
    /// Tells this login from others.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether `pin` is the one that logged in. Constant time.
    pub(super) fn is(&self, pin: &PinHash) -> bool {
        same(&self.pin, pin)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let mut tokens = self.logins.tokens.lock();
        // One that the token forgot meanwhile is not the one that was made since.
        if let Some(entry) = tokens.get_mut(&self.token).filter(|entry| entry.number == self.number) {
            entry.members -= 1;
            if entry.members == 0 {
                tokens.remove(&self.token);
            }
        }
    }
}

fn same(a: &PinHash, b: &PinHash) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Remembers nothing; a PIN's hash is its first bytes.
#[cfg(test)]
pub(crate) struct NoMemory;

#[cfg(test)]
impl PinMemory for NoMemory {
    fn hash(&self, _serial: &str, pin: &Secret) -> Result<PinHash, Fault> {
        let mut hash = [0; 32];
        hash.iter_mut().zip(pin.expose()).for_each(|(to, from)| *to = *from);
        Ok(hash)
    }

    fn refused(&self, _serial: &str, _hash: &PinHash) -> Result<bool, Fault> {
        Ok(false)
    }

    fn remember(&self, _serial: &str, _hash: &PinHash) -> Result<(), Fault> {
        Ok(())
    }

    fn taken(&self, _serial: &str) -> Result<Option<PinHash>, Fault> {
        Ok(None)
    }

    fn remember_taken(&self, _serial: &str, _hash: &PinHash) -> Result<(), Fault> {
        Ok(())
    }

    fn unanswered(&self, _serial: &str, _hash: &PinHash) -> Result<u8, Fault> {
        Ok(0)
    }

    fn remember_unanswered(&self, _serial: &str, _hash: &PinHash, _tries: u8) -> Result<(), Fault> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: PinHash = [1; 32];
    const WRONG: PinHash = [2; 32];

    fn is_other(logins: &Arc<Logins>, pin: &PinHash) -> bool {
        matches!(logins.standing("hsm", 0, "s", pin), Standing::Other)
    }

    #[test]
    fn turns_that_nobody_takes_are_forgotten() {
        let logins = Logins::default();
        let held = logins.turn_to_generate("held");
        let _guard = held.lock();
        (0..100).for_each(|serial| drop(logins.turn_to_generate(&serial.to_string())));
        assert!(logins.turns_to_generate.lock().len() <= 2);
        // Whoever comes meanwhile waits for the same.
        assert!(logins.turn_to_generate("held").try_lock().is_none());
    }

    #[test]
    fn a_pin_is_vouched_for_by_no_other_pins_login() {
        let logins = Arc::new(Logins::default());
        assert!(!logins.took_another("s", &WRONG), "nobody was logged in before");
        drop(logins.enter("hsm", 0, "s", RIGHT));
        assert!(logins.took_another("s", &WRONG));
        assert!(!logins.took_another("s", &RIGHT) && !logins.took_another("other", &WRONG));
    }

    #[test]
    fn who_lived_by_a_login_that_was_forgotten_does_not_end_the_one_after_it() {
        let logins = Arc::new(Logins::default());
        let one = logins.enter("hsm", 0, "s", RIGHT);
        let Standing::Same(other) = logins.standing("hsm", 0, "s", &RIGHT) else { panic!("nobody is logged in") };
        logins.forget("hsm", 0, "s", one.number());
        drop(one);
        let again = logins.enter("hsm", 0, "s", RIGHT);
        // It finds out later, and must not take the new login for the one it knew.
        logins.forget("hsm", 0, "s", other.number());
        drop(other);
        assert!(is_other(&logins, &WRONG));
        drop(again);
        assert!(matches!(logins.standing("hsm", 0, "s", &WRONG), Standing::Nobody));
    }

    #[test]
    fn a_refused_pin_is_known_without_a_store() {
        let logins = Logins::default();
        assert!(!logins.refused("s", &WRONG));
        logins.remember("s", WRONG);
        assert!(logins.refused("s", &WRONG) && !logins.refused("s", &RIGHT) && !logins.refused("t", &WRONG));
    }
}
