//! PINs belong to the token: who is logged in with which PIN, and which PINs were refused.
//!
//! A refused PIN is never tried again, by any key, in any process: three tries lock most tokens. So it is remembered for what
//! stays with a token wherever it is seen ([`TokenIdentity`]). A login is another matter: it is a slot's, in one process
//! ([`Place`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::backend::TokenIdentity;
use crate::model::{Fault, Secret};

/// The keyed hash of a PIN, together with the token's serial number: to be compared among those of one token.
pub type PinHash = [u8; 32];

/// What survives restarts about PINs. Implemented over the store.
pub trait PinMemory: Send + Sync {
    /// The keyed hash of `pin` for this token.
    fn hash(&self, token: &TokenIdentity, pin: &Secret) -> Result<PinHash, Fault>;

    /// Whether the token refused this PIN once.
    fn refused(&self, token: &TokenIdentity, hash: &PinHash) -> Result<bool, Fault>;

    /// Remembers, durably, that it did.
    fn remember(&self, token: &TokenIdentity, hash: &PinHash) -> Result<(), Fault>;

    /// The PIN that the token took last.
    fn taken(&self, token: &TokenIdentity) -> Result<Option<PinHash>, Fault>;

    /// Remembers, durably, that it took this one.
    fn remember_taken(&self, token: &TokenIdentity, hash: &PinHash) -> Result<(), Fault>;

    /// How often this PIN was tried and no answer came: the token may have counted each.
    fn unanswered(&self, token: &TokenIdentity, hash: &PinHash) -> Result<u8, Fault>;

    /// Remembers, durably, that it was so often.
    fn remember_unanswered(&self, token: &TokenIdentity, hash: &PinHash, tries: u8) -> Result<(), Fault>;
}

/// Logins without an answer after which a PIN is not tried again: most tokens lock at the third wrong one.
pub(super) const UNANSWERED_MAX: u8 = 2;

/// The tokens this process is logged in to. Login is application-wide in PKCS#11: some modules answer a second login
/// with any PIN, even a wrong one, by "already logged in", so only this table tells whether a PIN is right.
#[derive(Debug, Default)]
pub(super) struct Logins {
    tokens: Mutex<HashMap<Place, Entry>>,
    /// Whose turn it is to log in to a token.
    turns: Turns,
    /// Whose turn it is to look for a key there, and to generate it.
    turns_to_generate: Turns,
    /// PINs that tokens refused, should [`PinMemory`] be unable to remember one.
    refused: Mutex<HashSet<(TokenIdentity, PinHash)>>,
    /// PINs that an operator had tried in spite of tries without an answer: one more for each start.
    forced: Mutex<HashSet<(TokenIdentity, PinHash)>>,
    /// PINs that tokens took since the start.
    taken: Mutex<HashSet<(TokenIdentity, PinHash)>>,
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

type Turns = Mutex<HashMap<TokenIdentity, Arc<Mutex<()>>>>;

/// Where a login stands. Two slots of a library that both hold a token are two tokens, each to be logged in to, however much
/// alike they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// In lower case.
    pub(super) library: String,
    /// In which process, and which code of it: a worker process is one member's.
    pub(super) process: u32,
    /// The number of the slot there.
    pub(super) slot: u64,
    /// The token in it.
    pub(super) token: TokenIdentity,
}

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
fn turn(turns: &Turns, token: &TokenIdentity) -> Arc<Mutex<()>> {
    let mut turns = turns.lock();
    turns.retain(|_, turn| Arc::strong_count(turn) > 1);
    Arc::clone(turns.entry(token.clone()).or_default())
}

impl Logins {
    /// To be held while one logs in to this token.
    pub(super) fn turn(&self, token: &TokenIdentity) -> Arc<Mutex<()>> {
        turn(&self.turns, token)
    }

    /// To be held while one looks for a key in this token, and generates it where there is none.
    pub(super) fn turn_to_generate(&self, token: &TokenIdentity) -> Arc<Mutex<()>> {
        turn(&self.turns_to_generate, token)
    }

    /// Where `pin` stands there.
    pub(super) fn standing(self: &Arc<Self>, place: &Place, pin: &PinHash) -> Standing {
        let mut tokens = self.tokens.lock();
        match tokens.get_mut(place) {
            None => Standing::Nobody,
            Some(entry) if same(&entry.pin, pin) => {
                entry.members += 1;
                let number = entry.number;
                Standing::Same(Login { logins: Arc::clone(self), place: place.clone(), number, pin: *pin })
            }
            Some(_) => Standing::Other,
        }
    }

    /// Takes note that a token forgot the login of this number. One made since is another.
    pub(super) fn forget(&self, place: &Place, number: u64) {
        let mut tokens = self.tokens.lock();
        if tokens.get(place).is_some_and(|entry| entry.number == number) {
            tokens.remove(place);
        }
    }

    /// Notes a login that has succeeded, for as long as the answer lives.
    pub(super) fn enter(self: &Arc<Self>, place: &Place, pin: PinHash) -> Login {
        self.taken.lock().insert((place.token.clone(), pin));
        let number = self.logins.fetch_add(1, Ordering::Relaxed);
        self.tokens.lock().insert(place.clone(), Entry { number, pin, members: 1 });
        Login { logins: Arc::clone(self), place: place.clone(), number, pin }
    }

    /// Whether the token refused this PIN since the start.
    pub(super) fn refused(&self, token: &TokenIdentity, pin: &PinHash) -> bool {
        self.refused.lock().contains(&(token.clone(), *pin))
    }

    /// Whether the token took this PIN since the start.
    pub(super) fn took(&self, token: &TokenIdentity, pin: &PinHash) -> bool {
        self.taken.lock().contains(&(token.clone(), *pin))
    }

    /// This PIN is tried because an operator will have it so.
    pub(super) fn force(&self, token: &TokenIdentity, pin: PinHash) {
        self.forced.lock().insert((token.clone(), pin));
    }

    /// Whether it was since the start.
    pub(super) fn was_forced(&self, token: &TokenIdentity, pin: &PinHash) -> bool {
        self.forced.lock().contains(&(token.clone(), *pin))
    }

    /// Whether the token has taken another PIN than this one since the start, and never this one.
    pub(super) fn took_another(&self, token: &TokenIdentity, pin: &PinHash) -> bool {
        let taken = self.taken.lock();
        !taken.contains(&(token.clone(), *pin)) && taken.iter().any(|(of, _)| of == token)
    }

    /// Remembers that it did.
    pub(super) fn remember(&self, token: &TokenIdentity, pin: PinHash) {
        self.refused.lock().insert((token.clone(), pin));
    }
}

/// A member's part in a login.
#[derive(Debug)]
pub(super) struct Login {
    logins: Arc<Logins>,
    place: Place,
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
        if let Some(entry) = tokens.get_mut(&self.place).filter(|entry| entry.number == self.number) {
            entry.members -= 1;
            if entry.members == 0 {
                tokens.remove(&self.place);
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
    fn hash(&self, _token: &TokenIdentity, pin: &Secret) -> Result<PinHash, Fault> {
        let mut hash = [0; 32];
        hash.iter_mut().zip(pin.expose()).for_each(|(to, from)| *to = *from);
        Ok(hash)
    }

    fn refused(&self, _token: &TokenIdentity, _hash: &PinHash) -> Result<bool, Fault> {
        Ok(false)
    }

    fn remember(&self, _token: &TokenIdentity, _hash: &PinHash) -> Result<(), Fault> {
        Ok(())
    }

    fn taken(&self, _token: &TokenIdentity) -> Result<Option<PinHash>, Fault> {
        Ok(None)
    }

    fn remember_taken(&self, _token: &TokenIdentity, _hash: &PinHash) -> Result<(), Fault> {
        Ok(())
    }

    fn unanswered(&self, _token: &TokenIdentity, _hash: &PinHash) -> Result<u8, Fault> {
        Ok(0)
    }

    fn remember_unanswered(&self, _token: &TokenIdentity, _hash: &PinHash, _tries: u8) -> Result<(), Fault> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: PinHash = [1; 32];
    const WRONG: PinHash = [2; 32];

    fn token(serial: &str, label: &str) -> TokenIdentity {
        TokenIdentity::new("maker", "model", serial, label)
    }

    fn place(slot: u64, label: &str) -> Place {
        Place { library: "hsm".into(), process: 0, slot, token: token("0000000000000000", label) }
    }

    fn is_other(logins: &Arc<Logins>, pin: &PinHash) -> bool {
        matches!(logins.standing(&place(0, "s"), pin), Standing::Other)
    }

    #[test]
    fn turns_that_nobody_takes_are_forgotten() {
        let logins = Logins::default();
        let held = logins.turn_to_generate(&token("1", "held"));
        let _guard = held.lock();
        (0..100).for_each(|serial| drop(logins.turn_to_generate(&token(&serial.to_string(), ""))));
        assert!(logins.turns_to_generate.lock().len() <= 2);
        // Whoever comes meanwhile waits for the same.
        assert!(logins.turn_to_generate(&token("1", "held")).try_lock().is_none());
    }

    #[test]
    fn a_pin_is_vouched_for_by_no_other_pins_login() {
        let logins = Arc::new(Logins::default());
        let (s, other) = (place(0, "s").token, place(0, "other").token);
        assert!(!logins.took_another(&s, &WRONG), "nobody was logged in before");
        drop(logins.enter(&place(0, "s"), RIGHT));
        assert!(logins.took_another(&s, &WRONG));
        assert!(!logins.took_another(&s, &RIGHT) && !logins.took_another(&other, &WRONG));
    }

    #[test]
    fn who_lived_by_a_login_that_was_forgotten_does_not_end_the_one_after_it() {
        let logins = Arc::new(Logins::default());
        let one = logins.enter(&place(0, "s"), RIGHT);
        let Standing::Same(other) = logins.standing(&place(0, "s"), &RIGHT) else { panic!("nobody is logged in") };
        logins.forget(&place(0, "s"), one.number());
        drop(one);
        let again = logins.enter(&place(0, "s"), RIGHT);
        // It finds out later, and must not take the new login for the one it knew.
        logins.forget(&place(0, "s"), other.number());
        drop(other);
        assert!(is_other(&logins, &WRONG));
        drop(again);
        assert!(matches!(logins.standing(&place(0, "s"), &WRONG), Standing::Nobody));
    }

    #[test]
    fn a_refused_pin_is_known_without_a_store() {
        let logins = Logins::default();
        let s = token("1", "s");
        assert!(!logins.refused(&s, &WRONG));
        logins.remember(&s, WRONG);
        assert!(logins.refused(&s, &WRONG) && !logins.refused(&s, &RIGHT));
        let others = [token("2", "s"), token("1", "t"), TokenIdentity { model: "other".into(), ..s.clone() }];
        assert!(others.iter().all(|other| !logins.refused(other, &WRONG)));
    }

    #[test]
    fn each_slot_is_logged_in_to_however_much_its_token_is_like_another() {
        let logins = Arc::new(Logins::default());
        let _one = logins.enter(&place(0, "s"), RIGHT);
        assert!(matches!(logins.standing(&place(0, "s"), &RIGHT), Standing::Same(_)));
        for other in [place(1, "s"), place(1, "t"), place(0, "t"), Place { process: 1, ..place(0, "s") }] {
            assert!(matches!(logins.standing(&other, &RIGHT), Standing::Nobody), "{other:?}");
            assert!(matches!(logins.standing(&other, &WRONG), Standing::Nobody), "{other:?}");
        }
    }
}
