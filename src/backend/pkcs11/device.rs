//! One slot with a token in it.

use std::sync::Arc;
use std::time::Instant;

use cryptoki_sys::{CK_SLOT_ID, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_OK, CKR_USER_PIN_NOT_INITIALIZED};
use parking_lot::Mutex;

use super::class::Function;
use super::client::{self, Initialized, Module};
use super::fault::{self, NativeError};
use super::generation::Renewal;
use super::return_value;
use super::session::{NativeSession, Pkcs11Session};
use super::table::Table;
use super::token_info::{self, TokenInfo};
use crate::backend::{BackendError, Device, DeviceInfo, Fate, LoginAnswer, PinFlags, Session};
use crate::config::Profile;
use crate::model::{Fault, Secret, TokenSelector};
use crate::telemetry::LibraryMetrics;

/// A cause with no return value behind it: slots were numbered anew.
const TOKEN_MOVED: &str = "token_moved";

pub(super) struct Pkcs11Device {
    anchor: Mutex<Option<Anchor>>,
    module: Arc<Initialized>,
    slot: CK_SLOT_ID,
    info: DeviceInfo,
    profile: Profile,
    /// How errors name it.
    place: String,
}

/// The session that keeps the login, which ends with the last session of the token. It is lent to whoever asks for a session first:
/// there are tokens with room for two.
struct Anchor {
    /// `None` while another is opened in its place.
    session: Option<Arc<NativeSession>>,
    is_new: bool,
    since: Instant,
}

/// What the anchor has for whoever asks for a session.
enum Lent {
    /// Its session, that nobody has used.
    New(Arc<NativeSession>),
    /// Its session, that somebody had and gave up: it is not to be trusted, and keeps the login until there is another.
    Used(Arc<NativeSession>),
}

impl Anchor {
    /// Nothing where somebody has its session.
    fn lend(&mut self) -> Option<Lent> {
        let session = self.session.take_if(|session| Arc::strong_count(session) == 1)?;
        if !std::mem::replace(&mut self.is_new, false) {
            return Some(Lent::Used(session));
        }
        self.session = Some(Arc::clone(&session));
        Some(Lent::New(session))
    }
}

/// Opens the token; initialises the module anew where that may bring the token, if nothing of the module is in use.
pub(super) fn open(
    module: &Arc<Module>,
    token: &TokenSelector,
    configured: Option<Profile>,
    metrics: &LibraryMetrics,
) -> Result<Box<dyn Device>, BackendError> {
    let _turn = module.turn();
    let mut generation = module.initialized(configured.unwrap_or_default(), metrics)?;
    let profile = configured.unwrap_or_else(|| token_info::detect(&generation.native.setup));
    let mut found = find_token(&generation, token, profile);
    let mut held_up = String::new();
    if generation.wants_renewal() || is_missing(&found) {
        (generation, held_up) = held_up_by(module.renew(generation, profile, metrics)?);
        if generation.is_lost() {
            return Err(lost(module, &held_up));
        }
        found = find_token(&generation, token, profile);
    }
    let library = module.path().display();
    let found = found.map_err(|error| fault::within(&format!("token {token} ({library})"), &held_up, error))?;
    let (slot, info) = found.map_err(|unreadable| {
        let what = format!(
            "token {token} is not there ({library}); insert or initialise it, or correct token_label or slot{unreadable}{held_up}"
        );
        BackendError::new(Fate::BackOff, Fault::Unavailable { what })
    })?;
    let info = device_info(slot, &info, profile);
    let place = format!("token {:?} (slot {}, serial {})", info.token.label, slot, info.token.serial);
    Ok(Box::new(Pkcs11Device { anchor: Mutex::default(), module: generation, slot, info, profile, place }))
}

/// The generation there is after a renewal, and what keeps an older one, to be said after a reason.
fn held_up_by(renewal: Renewal<Table>) -> (Arc<Initialized>, String) {
    match renewal {
        Renewal::Done(generation) => (generation, String::new()),
        Renewal::InUse(generation, others) => {
            let why = format!(
                "; the library reads its tokens anew when nothing of it is in use, and {others} sessions and tokens of it \
                 are: where one is inside a call that never returns, or for a token that was added, restart Keyway"
            );
            (generation, why)
        }
        Renewal::TooSoon(generation, rest) => {
            let why = format!("; the library is initialised anew in {} s at the earliest", rest.as_secs() + 1);
            (generation, why)
        }
    }
}

fn lost(module: &Module, held_up: &str) -> BackendError {
    let what = format!(
        "PKCS#11 library {}: it was finalised by other hands and must be initialised anew{held_up}",
        module.path().display()
    );
    let cause = return_value::name(CKR_CRYPTOKI_NOT_INITIALIZED);
    BackendError { fault: Fault::Unavailable { what }, fate: Fate::BackOff, cause }
}

/// The token; or that it is not there, and which others do not say who they are, to be said after it.
type Found = Result<Result<(CK_SLOT_ID, TokenInfo), String>, BackendError>;

/// Whether the module has perhaps read its tokens before this one came. Where it fails, it has noted itself what may help.
fn is_missing(found: &Found) -> bool {
    found.as_ref().is_ok_and(Result::is_err)
}

fn find_token(module: &Initialized, token: &TokenSelector, profile: Profile) -> Found {
    let setup = &module.native.setup;
    let slots = token_info::slots(setup, profile).map_err(|error| client::note(module, error))?;
    let is_meant = |slot: CK_SLOT_ID, info: &TokenInfo| match token {
        TokenSelector::Slot(number) => slot == *number,
        TokenSelector::Label(label) => info.label() == *label && info.is_initialized(),
        TokenSelector::Serial(serial) => info.serial() == *serial && info.is_initialized(),
        TokenSelector::Cloud(_) => false,
    };
    let (mut matching, mut unreadable) = (Vec::new(), Vec::new());
    for slot in slots {
        match TokenInfo::read(setup, slot, profile) {
            Ok(info) if is_meant(slot, &info) => matching.push((slot, info)),
            Ok(_) => {}
            // It holds nobody else up: some modules answer nonsense for some slots.
            Err(error) => unreadable.push(format!("slot {slot}: {}", error.error.fault)),
        }
    }
    if matching.len() > 1 {
        let named = |(slot, info): &(CK_SLOT_ID, TokenInfo)| format!("slot {slot} (serial {})", info.identity().serial);
        let all: Vec<String> = matching.iter().map(named).collect();
        let what = format!(
            "token {token} is ambiguous: {}; name it by its serial, or by its slot where they have the same",
            all.join(", ")
        );
        return Err(BackendError::new(Fate::BackOff, Fault::Unavailable { what }));
    }
    let unreadable = || match unreadable.as_slice() {
        [] => String::new(),
        some => format!("; or it is one of those that do not say who they are ({})", some.join("; ")),
    };
    Ok(matching.pop().ok_or_else(unreadable))
}

fn device_info(slot: CK_SLOT_ID, info: &TokenInfo, profile: Profile) -> DeviceInfo {
    DeviceInfo { token: info.identity(), slot, max_sessions: info.max_sessions(), profile }
}

impl Pkcs11Device {
    /// Notes what an error says of the module, and says where it happened.
    fn note(&self, error: NativeError) -> BackendError {
        fault::at(&self.place, client::note(&self.module, error))
    }

    fn token_info(&self) -> Result<TokenInfo, NativeError> {
        TokenInfo::read(&self.module.native.setup, self.slot, self.profile)
    }

    /// Opens the session that keeps the login in the place of `old`; which is closed before only where the token has no room for both:
    /// then others keep the login, or it is made anew.
    fn replace(&self, old: &Arc<NativeSession>) -> Result<Arc<NativeSession>, BackendError> {
        let mut opened = self.native_session();
        if opened.as_ref().is_err_and(|error| error.fate == Fate::BackOff) {
            old.close();
            opened = self.native_session();
        }
        let opened = opened.map(Arc::new);
        if let Some(anchor) = self.anchor.lock().as_mut().filter(|anchor| anchor.session.is_none()) {
            anchor.session = Some(Arc::clone(opened.as_ref().unwrap_or(old)));
        }
        opened
    }

    /// A session, surely with this token: by the time the slot's number may have become another token's, which would sign
    /// with keys of its own under our handles, and count our PIN as a wrong one.
    fn native_session(&self) -> Result<NativeSession, BackendError> {
        let session = NativeSession::open(&self.module, self.slot, self.profile).map_err(|error| self.note(error))?;
        let info = self.token_info().map_err(|error| self.note(error))?;
        let now = info.identity();
        if now == self.info.token {
            return Ok(session);
        }
        let what = format!("{}: its slot now has token {:?} (serial {})", self.place, now.label, now.serial);
        Err(BackendError { fault: Fault::DeviceError { what }, fate: Fate::Reinitialize, cause: TOKEN_MOVED })
    }
}

impl Device for Pkcs11Device {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn outdate(&self) {
        self.module.outdate();
    }

    fn pin_flags(&self) -> Result<PinFlags, BackendError> {
        let info =
            client::check_present(&self.module, self.profile, Function::GetTokenInfo).and_then(|()| self.token_info());
        let info = info.map_err(|error| self.note(error))?;
        Ok(PinFlags { final_try: info.is_final_try(), locked: info.is_locked() })
    }

    fn login(&self, pin: &Secret) -> Result<LoginAnswer, BackendError> {
        let mut anchor = self.anchor.lock();
        let session = self.native_session()?;
        let rv = session.table().setup.login(session.handle(), pin.expose());
        // What fails and is no failure says that somebody is logged in.
        let answer = if rv == CKR_OK { LoginAnswer::Taken } else { LoginAnswer::Already };
        if let Err(error) = fault::check(self.profile, Function::Login, rv) {
            if error.rv == Some(CKR_USER_PIN_NOT_INITIALIZED) {
                // SoftHSM goes on saying so when the PIN has been set by another process.
                self.module.outdate();
            }
            return Err(fault::at(&self.place, session.note(error)));
        }
        self.module.note_work();
        *anchor = Some(Anchor { session: Some(Arc::new(session)), is_new: true, since: Instant::now() });
        Ok(answer)
    }

    fn open_session(&self) -> Result<Box<dyn Session>, BackendError> {
        let (login, lent) = {
            let mut anchor = self.anchor.lock();
            (anchor.as_ref().map(|anchor| anchor.since), anchor.as_mut().and_then(Anchor::lend))
        };
        let session = match lent {
            Some(Lent::New(session)) => session,
            Some(Lent::Used(old)) => self.replace(&old)?,
            None => Arc::new(self.native_session()?),
        };
        Ok(Box::new(Pkcs11Session::new(session, self.profile, login)))
    }

    fn is_lost(&self) -> bool {
        !self.module.is_present()
    }
}
