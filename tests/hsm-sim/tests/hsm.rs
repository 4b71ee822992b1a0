//! A program's side: the simulator loaded in this process.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::OnceLock;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, Result};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_OK};

use crate::sim::{self, PIN, Sim};

/// The tokens of every HSM here; each holds the keys `ca` and `other`.
pub(crate) const TOKENS: [&str; 2] = ["one", "two"];
pub(crate) const KEYS: [&str; 2] = ["ca", "other"];
/// What is signed.
pub(crate) const HASH: [u8; 32] = [7; 32];
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The module as cargo builds it.
pub(crate) fn built() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        sim::build("hsm-sim");
        // This test is in `deps` below the folder of what was built.
        let test = std::env::current_exe().unwrap();
        test.parent().unwrap().parent().unwrap().join("libhsm_sim.so")
    };
    BUILT.get_or_init(build).clone()
}

pub(crate) struct Hsm {
    pub(crate) sim: Sim,
    context: RefCell<Option<Pkcs11>>,
    pub(crate) folder: tempfile::TempDir,
}

impl Hsm {
    pub(crate) fn null() -> Hsm {
        let folder = tempfile::tempdir().unwrap();
        let sim = Sim::null(&built(), &folder.path().join("hsm.so"), &TOKENS, &KEYS);
        Hsm::of(sim, folder)
    }

    pub(crate) fn softhsm() -> Hsm {
        let folder = tempfile::tempdir().unwrap();
        let sim = Sim::softhsm(&built(), &folder.path().join("hsm.so"), &TOKENS);
        let hsm = Hsm::of(sim, folder);
        for token in TOKENS {
            let session = hsm.logged_in(token);
            KEYS.iter().for_each(|label| generate(&session, label));
        }
        hsm
    }

    pub(crate) fn of(sim: Sim, folder: tempfile::TempDir) -> Hsm {
        let hsm = Hsm { sim, context: RefCell::default(), folder };
        hsm.initialize();
        hsm
    }

    pub(crate) fn initialize(&self) {
        let context = Pkcs11::new(&self.sim.module).unwrap();
        context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        *self.context.borrow_mut() = Some(context);
    }

    pub(crate) fn initialize_anew(&self) {
        self.context.take().unwrap().finalize().unwrap();
        self.initialize();
    }

    pub(crate) fn context(&self) -> Pkcs11 {
        self.context.borrow().clone().unwrap()
    }

    /// The slot of a token, if it is there.
    pub(crate) fn slot_if_there(&self, token: &str) -> Option<Slot> {
        let context = self.context();
        let slots = context.get_slots_with_token().unwrap();
        slots.into_iter().find(|slot| context.get_token_info(*slot).is_ok_and(|info| info.label() == token))
    }

    pub(crate) fn slot(&self, token: &str) -> Slot {
        self.slot_if_there(token).unwrap_or_else(|| panic!("token {token} is not there"))
    }

    pub(crate) fn session(&self, token: &str) -> Session {
        self.context().open_rw_session(self.slot(token)).unwrap()
    }

    pub(crate) fn logged_in(&self, token: &str) -> Session {
        let session = self.session(token);
        login(&session).unwrap();
        session
    }
}

/// The module's functions themselves, for what `cryptoki` would believe.
pub(crate) fn functions(hsm: &Hsm) -> CK_FUNCTION_LIST {
    // SAFETY: the module is loaded already, and stays so.
    let library = unsafe { libloading::Library::new(&hsm.sim.module) }.unwrap();
    type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
    // SAFETY: every PKCS#11 module exports it with this signature.
    let get = unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList\0") }.unwrap();
    let mut list = std::ptr::null_mut();
    // SAFETY: a valid place; the list lives as long as the module.
    unsafe {
        assert_eq!(get(&raw mut list), CKR_OK);
        *list
    }
}

pub(crate) fn login(session: &Session) -> Result<()> {
    session.login(UserType::User, Some(&AuthPin::from(PIN)))
}

pub(crate) fn generate(session: &Session, label: &str) {
    let named = [Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(label.into())];
    let public = [&named[..], &[Attribute::EcParams(P256.to_vec()), Attribute::Verify(true)]].concat();
    let private = [&named[..], &[Attribute::Sign(true), Attribute::Private(true)]].concat();
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
}

pub(crate) fn find(session: &Session, label: &str) -> Option<ObjectHandle> {
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.into())];
    session.find_objects(&template).unwrap().first().copied()
}

pub(crate) fn key(session: &Session) -> ObjectHandle {
    find(session, KEYS[0]).unwrap()
}

pub(crate) fn label(session: &Session, key: ObjectHandle) -> String {
    match session.get_attributes(key, &[AttributeType::Label]).unwrap().as_slice() {
        [Attribute::Label(label)] => String::from_utf8(label.clone()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Signs, which is a C_SignInit and two C_Sign: `cryptoki` asks for the length first.
pub(crate) fn sign(session: &Session, key: ObjectHandle) -> Result<Vec<u8>> {
    session.sign(&Mechanism::Ecdsa, key, &HASH)
}

/// The public key's point.
pub(crate) fn point(session: &Session, label: &str) -> Vec<u8> {
    let template = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Label(label.into())];
    let public = session.find_objects(&template).unwrap();
    match session.get_attributes(public[0], &[AttributeType::EcPoint]).unwrap().as_slice() {
        // An OCTET STRING.
        [Attribute::EcPoint(point)] => point[2..].to_vec(),
        other => panic!("{other:?}"),
    }
}

/// Whether a signature of [`HASH`] is by the key of this label.
pub(crate) fn is_by(session: &Session, label: &str, signature: &[u8]) -> bool {
    use aws_lc_rs::digest::{Digest, SHA256};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
    let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point(session, label)).unwrap();
    public.verify_digest_sig(&Digest::import_less_safe(&HASH, &SHA256).unwrap(), signature).is_ok()
}

/// What a call came to: `Ok`, or the name of the return value.
pub(crate) fn told<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "Ok".into(),
        Err(Error::Pkcs11(error, _)) => format!("{error:?}"),
        Err(other) => panic!("{other:?}"),
    }
}
