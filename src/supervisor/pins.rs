//! PINs belong to the token: who is logged in with which PIN, and which PINs were refused.
//!
//! A refused PIN is never tried again, by any key, in any process: three tries lock most tokens.

use std::collections::HashMap;
use std::sync::Arc;

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
}

/// The tokens this process is logged in to. Login is application-wide in PKCS#11: some modules answer a second login
/// with any PIN, even a wrong one, by "already logged in", so only this table tells whether a PIN is right.
#[derive(Debug, Default)]
pub(super) struct Logins {
    tokens: Mutex<HashMap<TokenKey, (PinHash, usize)>>,
    /// Whose turn it is to log in to a token, by its serial.
    turns: Mutex<HashMap<String, Arc<Mutex<()>>>>,
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

impl Logins {
    /// To be held while one logs in to this token.
    pub(super) fn turn(&self, serial: &str) -> Arc<Mutex<()>> {
        Arc::clone(self.turns.lock().entry(serial.to_owned()).or_default())
    }

    /// Where `pin` stands at the token `serial` of `library`, as the process `worker` has loaded it.
    pub(super) fn standing(self: &Arc<Self>, library: &str, worker: u32, serial: &str, pin: &PinHash) -> Standing {
        let token = (library.to_owned(), worker, serial.to_owned());
        let mut tokens = self.tokens.lock();
        match tokens.get_mut(&token) {
            None => Standing::Nobody,
            Some((hash, members)) if same(hash, pin) => {
                *members += 1;
                Standing::Same(Login { logins: Arc::clone(self), token, pin: *pin })
            }
            Some(_) => Standing::Other,
        }
    }

    /// Takes note that a token forgot its login, whoever had made it.
    pub(super) fn forget(&self, library: &str, worker: u32, serial: &str) {
        self.tokens.lock().remove(&(library.to_owned(), worker, serial.to_owned()));
    }

    /// Notes a login that has succeeded, for as long as the answer lives.
    pub(super) fn enter(self: &Arc<Self>, library: &str, worker: u32, serial: &str, pin: PinHash) -> Login {
        let token = (library.to_owned(), worker, serial.to_owned());
        let mut tokens = self.tokens.lock();
        tokens.entry(token.clone()).or_insert((pin, 0)).1 += 1;
        Login { logins: Arc::clone(self), token, pin }
    }
}

/// A member's part in a login.
#[derive(Debug)]
pub(super) struct Login {
    logins: Arc<Logins>,
    token: TokenKey,
    pin: PinHash,
}

impl Login {
    /// Whether `pin` is the one that logged in. Constant time.
    pub(super) fn is(&self, pin: &PinHash) -> bool {
        same(&self.pin, pin)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let mut tokens = self.logins.tokens.lock();
        if let Some((_, members)) = tokens.get_mut(&self.token) {
            *members -= 1;
            if *members == 0 {
                tokens.remove(&self.token);
            }
        }
    }
}

fn same(a: &PinHash, b: &PinHash) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}
