//! What a managed key does. One that an operator registered does what its mechanism says. One that a mount made for itself does
//! what its token showed when the key was new, of all that keys of its kind do in Vault: what no token has shown is never
//! promised, and above all nothing is encrypted that could not be decrypted.

use super::key_type::KeyType;
use super::pkcs11::oaep_hash_name;
use crate::model::{CipherScheme, Fault, Hash, KeyKind, KeyOperation, RsaPadding, SignatureScheme};

/// One thing that keys do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Signatures, of any salt.
    Sign(SignatureScheme),
    /// Decryption of what is encrypted so.
    Decrypt(CipherScheme),
    /// HMACs.
    Mac(Hash),
}

/// One thing that a key of a mount's own may do.
#[derive(Debug)]
pub(super) struct Own {
    /// How it is stored and shown.
    pub(super) name: &'static str,
    pub(super) deed: Deed,
    /// Whether a client gets it that names nothing, as in Vault. Of several that stand for one another, the first that its token
    /// does counts.
    pub(super) default: bool,
}

const fn own(name: &'static str, deed: Deed, default: bool) -> Own {
    Own { name, deed, default }
}

const OAEP: CipherScheme = CipherScheme::RsaOaep { hash: Hash::Sha2_256 };
const OAEP_SHA_1: CipherScheme = CipherScheme::RsaOaep { hash: Hash::Sha1 };

/// In this order they are tried.
const RSA: &[Own] = &[
    own("sign-pss", Deed::Sign(SignatureScheme::RsaPss { salt: 32 }), true),
    own("sign-pkcs1v15", Deed::Sign(SignatureScheme::RsaPkcs1), false),
    own("decrypt-oaep-sha256", Deed::Decrypt(OAEP), true),
    own("decrypt-oaep-sha1", Deed::Decrypt(OAEP_SHA_1), true),
    own("decrypt-pkcs1v15", Deed::Decrypt(CipherScheme::RsaPkcs1), false),
];
const HMAC: &[Own] = &[
    own("hmac-sha256", Deed::Mac(Hash::Sha2_256), true),
    own("hmac-sha224", Deed::Mac(Hash::Sha2_224), false),
    own("hmac-sha384", Deed::Mac(Hash::Sha2_384), false),
    own("hmac-sha512", Deed::Mac(Hash::Sha2_512), false),
];

/// What a key of this kind does that a mount made, as far as its token can. Of the kinds with nothing here, each key does the one
/// thing that its mechanism does.
pub(super) const fn of_own(kind: KeyKind) -> &'static [Own] {
    match kind {
        KeyKind::Rsa { .. } => RSA,
        KeyKind::Hmac { .. } => HMAC,
        KeyKind::Ec(_) | KeyKind::Ed25519 | KeyKind::MlDsa(_) | KeyKind::Aes { .. } => &[],
    }
}

/// The deed of this name.
pub(super) fn own_named(name: &str) -> Option<&'static Own> {
    [RSA, HMAC].into_iter().flatten().find(|own| own.name == name)
}

/// Ways of doing one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ways<T> {
    /// What a client gets that names none.
    default: Option<T>,
    /// What it can name besides.
    others: Vec<T>,
}

impl<T: Copy> Ways<T> {
    const fn only(way: Option<T>) -> Ways<T> {
        Ways { default: way, others: Vec::new() }
    }

    fn of(ways: impl IntoIterator<Item = T>) -> Ways<T> {
        let mut ways = ways.into_iter();
        Ways { default: ways.next(), others: ways.collect() }
    }

    fn add(&mut self, way: T, default: bool) {
        if default {
            self.default = self.default.or(Some(way));
        } else {
            self.others.push(way);
        }
    }

    fn all(&self) -> impl Iterator<Item = T> {
        self.default.into_iter().chain(self.others.iter().copied())
    }

    fn is_empty(&self) -> bool {
        self.default.is_none() && self.others.is_empty()
    }
}

/// All that a managed key does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    key_type: KeyType,
    /// Whether its token has shown them, so that its mechanism is not all there is to say.
    shown: bool,
    signs: Ways<SignatureScheme>,
    ciphers: Ways<CipherScheme>,
    macs: Ways<Hash>,
}

impl Abilities {
    /// Those of a key that does what its mechanism does.
    pub(super) fn of_mechanism(
        key_type: KeyType,
        signs: Option<SignatureScheme>,
        cipher: Option<CipherScheme>,
        mac: Option<Hash>,
    ) -> Abilities {
        let (signs, ciphers, macs) = (Ways::only(signs), Ways::only(cipher), Ways::only(mac));
        Abilities { key_type, shown: false, signs, ciphers, macs }
    }

    /// Those of a key that does several things in one way or another: the first of each is what a client gets that names none.
    pub(super) fn of_kind(
        key_type: KeyType,
        signs: impl IntoIterator<Item = SignatureScheme>,
        ciphers: impl IntoIterator<Item = CipherScheme>,
        macs: impl IntoIterator<Item = Hash>,
    ) -> Abilities {
        let (signs, ciphers, macs) = (Ways::of(signs), Ways::of(ciphers), Ways::of(macs));
        Abilities { key_type, shown: false, signs, ciphers, macs }
    }

    /// Those that a token has shown of a key that a mount made.
    pub(super) fn shown(key_type: KeyType, owns: &[&Own]) -> Abilities {
        let mut abilities = Abilities { shown: true, ..Abilities::of_mechanism(key_type, None, None, None) };
        for own in owns {
            match own.deed {
                Deed::Sign(scheme) => abilities.signs.add(scheme, own.default),
                Deed::Decrypt(scheme) => abilities.ciphers.add(scheme, own.default),
                Deed::Mac(hash) => abilities.macs.add(hash, own.default),
            }
        }
        abilities
    }

    /// The scheme used when the client names none. `salt` is the PSS salt length to use.
    pub(super) fn default_scheme(&self, key: &str, salt: u16) -> Result<SignatureScheme, Fault> {
        match self.signs.default {
            Some(SignatureScheme::RsaPss { .. }) => Ok(SignatureScheme::RsaPss { salt }),
            Some(scheme) => Ok(scheme),
            None if self.signs.is_empty() => Err(self.key_type.cannot("signing", key)),
            None => Err(not_by_default(key, "RSA PSS signatures", "signature_algorithm pkcs1v15")),
        }
    }

    /// The scheme of a test signature, which may say whether it is to be by PSS. A key for PSS alone is tested with PSS whether asked
    /// or not. `salt` is as for [`Abilities::default_scheme`].
    pub(super) fn tested_scheme(&self, key: &str, use_pss: Option<bool>, salt: u16) -> Result<SignatureScheme, Fault> {
        match use_pss {
            Some(true) => {
                let pss = SignatureScheme::RsaPss { salt };
                self.require_scheme(key, pss).map(|()| pss)
            }
            Some(false) if self.signs(SignatureScheme::RsaPkcs1) => Ok(SignatureScheme::RsaPkcs1),
            _ => self.default_scheme(key, salt),
        }
    }

    /// Refuses a scheme the key is not for; as [`Fault::NotSupported`], if it makes no signatures at all.
    pub(super) fn require_scheme(&self, key: &str, scheme: SignatureScheme) -> Result<(), Fault> {
        if self.signs.is_empty() {
            return Err(self.key_type.cannot("signing", key));
        }
        if self.signs(scheme) {
            return Ok(());
        }
        let asked = match scheme {
            SignatureScheme::RsaPkcs1 => "RSA PKCS#1 v1.5 signatures",
            SignatureScheme::RsaPss { .. } => "RSA PSS signatures",
            SignatureScheme::Ecdsa => "ECDSA signatures",
            SignatureScheme::Ed25519 => "Ed25519 signatures",
            SignatureScheme::MlDsa => "ML-DSA signatures",
        };
        Err(Fault::invalid(match (self.shown, self.key_type) {
            (true, _) => format!("managed key {key:?} makes no {asked}: its token does not"),
            (false, KeyType::Mechanism(mechanism)) => {
                format!("managed key {key:?} is registered for mechanism {mechanism}, which makes no {asked}")
            }
            (false, KeyType::Cloud(kind)) => format!("managed key {key:?} is {kind}, which makes no {asked}"),
        }))
    }

    /// Alike but for the salt, which is the client's.
    fn signs(&self, scheme: SignatureScheme) -> bool {
        self.signs.all().any(|known| std::mem::discriminant(&known) == std::mem::discriminant(&scheme))
    }

    /// How it encrypts and decrypts, with the padding that a client asks for.
    pub(super) fn cipher(&self, key: &str, asked: Option<RsaPadding>) -> Result<CipherScheme, Fault> {
        if self.ciphers.is_empty() {
            return Err(self.key_type.cannot("encryption", key));
        }
        let Some(asked) = asked else {
            let oaep = || not_by_default(key, "encryption with OAEP", "padding_scheme pkcs1v15");
            return self.ciphers.default.ok_or_else(oaep);
        };
        let fits = |scheme: &CipherScheme| match asked {
            RsaPadding::Oaep => matches!(scheme, CipherScheme::RsaOaep { .. }),
            RsaPadding::Pkcs1v15 => *scheme == CipherScheme::RsaPkcs1,
        };
        self.ciphers.all().find(fits).ok_or_else(|| {
            let does = match self.ciphers.default {
                _ if self.shown => {
                    return Fault::invalid(format!("managed key {key:?}: its token has no such padding"));
                }
                Some(CipherScheme::RsaOaep { .. }) => "OAEP",
                Some(CipherScheme::RsaPkcs1) => "PKCS#1 v1.5",
                _ => "AES, which has no such padding",
            };
            Fault::invalid(format!("managed key {key:?} is registered for {does}: leave padding_scheme out"))
        })
    }

    /// The hash of the HMACs it makes: the one asked for, or its own.
    pub(super) fn mac_hash(&self, key: &str, asked: Option<Hash>) -> Result<Hash, Fault> {
        if self.macs.is_empty() {
            return Err(self.key_type.cannot("making HMACs", key));
        }
        // Of keys that mounts make it is that of every one of Vault's.
        let hash = asked.or(self.macs.default).unwrap_or(Hash::Sha2_256);
        if self.macs.all().any(|known| known == hash) {
            return Ok(hash);
        }
        let does: Vec<&str> = self.macs.all().map(Hash::name).collect();
        let (does, asked) = (does.join(", "), hash.name());
        Err(Fault::invalid(match self.shown {
            true => format!("managed key {key:?} makes HMACs with {does}, and not with {asked}: its token does not"),
            false => {
                format!("managed key {key:?} makes HMACs with {does}, and not with {asked}: leave the algorithm out")
            }
        }))
    }

    /// Whether it does this; refuses where it does nothing of the sort.
    pub(super) fn does(&self, key: &str, operation: &KeyOperation) -> Result<bool, Fault> {
        match operation {
            KeyOperation::Sign { scheme, .. } => self.require_scheme(key, *scheme).map(|()| true),
            KeyOperation::Encrypt { .. } | KeyOperation::Decrypt { .. } if self.ciphers.is_empty() => {
                Err(self.key_type.cannot("encryption", key))
            }
            KeyOperation::Encrypt { cipher, .. } | KeyOperation::Decrypt { cipher, .. } => {
                Ok(self.ciphers.all().any(|known| Some(known) == cipher.scheme()))
            }
            KeyOperation::Mac { .. } if self.macs.is_empty() => Err(self.key_type.cannot("making HMACs", key)),
            KeyOperation::Mac { hash, .. } => Ok(self.macs.all().any(|known| known == *hash)),
        }
    }

    /// The hash of OAEP, of a key that does that.
    pub(super) fn oaep_hash(&self) -> Option<Hash> {
        self.ciphers.all().find_map(|scheme| match scheme {
            CipherScheme::RsaOaep { hash } => Some(hash),
            _ => None,
        })
    }

    /// What a client of a key that a mount made should know, since in Vault it is otherwise.
    pub(super) fn warnings(&self, kind: KeyKind) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.shown {
            return warnings;
        }
        let mut warn = |text: &str| warnings.push(text.to_owned());
        match kind {
            KeyKind::Rsa { .. } => {
                if self.signs.default.is_none() {
                    warn("the token makes no RSA PSS signatures: sign and verify with signature_algorithm pkcs1v15");
                }
                match self.oaep_hash() {
                    Some(Hash::Sha2_256) => {}
                    Some(hash) => warnings.push(format!(
                        "the token decrypts OAEP with {hash} and not with sha256: {hash} is used, and is to be used by whoever \
                         encrypts with the public key",
                        hash = oaep_hash_name(hash)
                    )),
                    None if self.ciphers.is_empty() => warn("the token decrypts nothing with RSA keys: this one only signs"),
                    None => warn("the token decrypts no OAEP: encrypt and decrypt with padding_scheme pkcs1v15"),
                }
            }
            _ => {
                let lacking = of_own(kind).iter().filter_map(|own| match own.deed {
                    Deed::Mac(hash) if !self.macs.all().any(|known| known == hash) => Some(hash.name()),
                    _ => None,
                });
                let lacking: Vec<&str> = lacking.collect();
                if !lacking.is_empty() {
                    let lacking = lacking.join(", ");
                    warnings.push(format!("the token makes no HMACs with {lacking} by a key of this size"));
                }
            }
        }
        warnings
    }
}

fn not_by_default(key: &str, what: &str, name: &str) -> Fault {
    Fault::invalid(format!("managed key {key:?}: its token does no {what}, which is the default: name {name}"))
}

#[cfg(test)]
#[path = "abilities_tests.rs"]
mod tests;
