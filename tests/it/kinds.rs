//! Kinds of keys, and all that the product's own tables claim of them; and where such keys are.

use keyway::managed_keys::Mechanism;
use keyway::model::{CipherScheme, CloudKind, CloudService, Hash, KeyKind, KeyUsage, KeyUsages, SignatureScheme};
use serde_json::{Value, json};

use crate::cloud_rig::{AwsRig, CloudRig};
use crate::daemon::{Daemon, Setup};
use crate::token::{self, Token};

/// A kind of key, and what it claims to do.
pub(crate) struct Kind {
    pub(crate) name: String,
    /// What a registration says of it, beside the place.
    pub(crate) fields: Value,
    /// What refusals call it.
    pub(crate) told: String,
    /// What key it is, where it is one of a few that have no certificates.
    pub(crate) uncertified: Option<&'static str>,
    pub(crate) signs: Vec<(SignatureScheme, Hash)>,
    pub(crate) ciphers: Vec<CipherScheme>,
    pub(crate) macs: Vec<Hash>,
    /// Most bytes of a message, where its service says.
    pub(crate) message_max: Option<usize>,
}

/// All hashes of a message.
pub(crate) fn hashes() -> impl Iterator<Item = Hash> + Clone {
    Hash::ALL.into_iter().filter(|hash| *hash != Hash::None)
}

/// Of keys that sign, one kind has no certificates: X.509's profiles do not know its curve.
fn uncertified(kind: &str) -> Option<&'static str> {
    ["secp256k1"].into_iter().find(|curve| kind == *curve)
}

impl Kind {
    /// Whether certificates are signed with it.
    pub(crate) fn certifies(&self) -> bool {
        !self.signs.is_empty() && self.uncertified.is_none()
    }

    pub(crate) fn of_cloud(kind: &CloudKind, more: &Value) -> Kind {
        let signs = kind.signs.iter().flat_map(|way| match way.scheme {
            // Of a digest only the value counts.
            SignatureScheme::Ecdsa => hashes().map(|hash| (SignatureScheme::Ecdsa, hash)).collect(),
            scheme => vec![(scheme, way.hash)],
        });
        let usages: Vec<&str> = kind.does.usages().iter().map(KeyUsage::name).collect();
        let mut fields = match kind.service {
            CloudService::GcpCkms => json!({"algorithm": kind.native}),
            CloudService::AwsKms | CloudService::AzureKeyVault => {
                json!({"key_type": kind.key_type, "curve": "", "usages": usages})
            }
        };
        match kind.kind {
            _ if kind.service == CloudService::GcpCkms => {}
            KeyKind::Ec(curve) => fields["curve"] = curve.name().replace('-', "").into(),
            KeyKind::Rsa { bits } | KeyKind::Aes { bits } | KeyKind::Hmac { bits } => fields["key_bits"] = bits.into(),
            KeyKind::Ed25519 | KeyKind::MlDsa(_) => {}
        }
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Kind {
            name: format!("{}-{:?}", kind.native, kind.does).replace('_', "-").to_lowercase(),
            fields,
            told: kind.native.to_owned(),
            uncertified: uncertified(&kind.kind.to_string()),
            signs: signs.collect(),
            ciphers: kind.decrypts.iter().map(|(scheme, _)| *scheme).collect(),
            macs: kind.macs.iter().map(|(hash, _)| *hash).collect(),
            message_max: Some(kind.message_max),
        }
    }

    /// A key in a token, by the mechanism it is registered for. A token may know fewer hashes of PSS than there are.
    pub(crate) fn of_token(name: &str, mechanism: u64, more: &Value) -> Kind {
        let (mut signs, mut ciphers, mut macs) = (Vec::new(), Vec::new(), Vec::new());
        match mechanism {
            0x0001 => {
                signs.extend(Hash::ALL.map(|hash| (SignatureScheme::RsaPkcs1, hash)));
                ciphers.push(CipherScheme::RsaPkcs1);
            }
            0x0009 => ciphers.push(CipherScheme::RsaOaep { hash: token::oaep_hash() }),
            0x000d => {
                let known = [Hash::Sha1, Hash::Sha2_224, Hash::Sha2_256, Hash::Sha2_384, Hash::Sha2_512];
                signs.extend(known.map(|hash| (SignatureScheme::RsaPss { salt: 0 }, hash)));
            }
            0x0221 => macs.push(Hash::Sha1),
            0x0251 => macs.push(Hash::Sha2_256),
            0x0256 => macs.push(Hash::Sha2_224),
            0x0261 => macs.push(Hash::Sha2_384),
            0x0271 => macs.push(Hash::Sha2_512),
            0x1041 => signs.extend(hashes().map(|hash| (SignatureScheme::Ecdsa, hash))),
            0x1057 => signs.push((SignatureScheme::Ed25519, Hash::None)),
            0x1082 => ciphers.push(CipherScheme::AesCbc { padded: false }),
            0x1085 => ciphers.push(CipherScheme::AesCbc { padded: true }),
            0x1087 => ciphers.push(CipherScheme::AesGcm),
            other => panic!("mechanism {other:#06x} does something, and nobody asks for it"),
        }
        let kind = Mechanism(mechanism);
        let usages: Vec<&str> = kind.uses().iter().map(KeyUsage::name).collect();
        let mut fields = json!({"mechanism": format!("{mechanism:#06x}"), "usages": usages, "pin": token::PIN});
        if mechanism == 0x0009 {
            fields["rsa_oaep_hash"] = token::oaep_hash().name().replace("sha2-", "sha").into();
        }
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (name, told) = (name.to_owned(), kind.to_string());
        let uncertified = uncertified(fields["curve"].as_str().unwrap_or_default());
        Kind { name, fields, told, uncertified, signs, ciphers, macs, message_max: None }
    }

    /// The usages that go with what it does.
    pub(crate) fn usages(&self) -> KeyUsages {
        let signs = self.signs.iter().flat_map(|_| [KeyUsage::Sign, KeyUsage::Verify]);
        let ciphers = self.ciphers.iter().flat_map(|_| [KeyUsage::Encrypt, KeyUsage::Decrypt]);
        signs.chain(ciphers).chain(self.macs.iter().map(|_| KeyUsage::Mac)).collect()
    }

    pub(crate) fn is_rsa(&self) -> bool {
        let rsa =
            |scheme: &SignatureScheme| matches!(scheme, SignatureScheme::RsaPkcs1 | SignatureScheme::RsaPss { .. });
        self.signs.iter().any(|(scheme, _)| rsa(scheme))
    }

    /// What each way to encrypt is asked for by. Of several that are asked for alike, a client gets the first.
    pub(crate) fn paddings(&self) -> Vec<(CipherScheme, Option<&'static str>)> {
        let mut paddings: Vec<(CipherScheme, Option<&str>)> = Vec::new();
        for scheme in &self.ciphers {
            let asked = match scheme {
                CipherScheme::RsaOaep { .. } => Some("oaep"),
                CipherScheme::RsaPkcs1 => Some("pkcs1v15"),
                _ => None,
            };
            if paddings.iter().all(|(_, known)| *known != asked) {
                paddings.push((*scheme, asked));
            }
        }
        paddings
    }

    /// Whether it signs by PSS and nothing else.
    pub(crate) fn is_pss(&self) -> bool {
        self.is_rsa() && self.signs.iter().all(|(scheme, _)| *scheme != SignatureScheme::RsaPkcs1)
    }
}

/// Where keys are.
pub(crate) enum Holder {
    Token { daemon: Daemon, token: Token },
    Aws(AwsRig),
    Cloud(CloudRig),
}

impl Holder {
    pub(crate) fn daemon(&self) -> &Daemon {
        match self {
            Holder::Token { daemon, .. } => daemon,
            Holder::Aws(aws) => &aws.daemon,
            Holder::Cloud(cloud) => &cloud.daemon,
        }
    }

    pub(crate) fn fields(&self, kind: &Kind) -> Value {
        let mut fields = match self {
            Holder::Token { .. } => Daemon::fields(&kind.name, &kind.fields),
            Holder::Aws(aws) => aws.fields(&kind.name, &kind.fields),
            Holder::Cloud(cloud) => cloud.fields(&kind.name, &kind.fields),
        };
        // PKI and Transit share it.
        fields["allow_raw_signing"] = true.into();
        fields
    }

    pub(crate) fn path(&self, name: &str) -> String {
        match self {
            Holder::Token { .. } => format!("sys/managed-keys/pkcs11/{name}"),
            Holder::Aws(aws) => aws.path(name),
            Holder::Cloud(cloud) => cloud.path(name),
        }
    }

    /// Keys that were made, by whatever of these the holder calls it.
    pub(crate) fn made(&self) -> u64 {
        let made = |cloud: &CloudRig| ["CreateKey", "create", "createCryptoKey"].map(|call| cloud.cloud.asked(call));
        match self {
            Holder::Token { token, .. } => token.calls("C_GenerateKeyPair") + token.calls("C_GenerateKey"),
            Holder::Aws(aws) => made(aws).iter().sum(),
            Holder::Cloud(cloud) => made(cloud).iter().sum(),
        }
    }

    /// Ends the daemon at once and starts another on what it left.
    pub(crate) fn restart(self) -> Holder {
        match self {
            Holder::Token { daemon, token } => {
                let root_token = daemon.root_token.clone();
                drop(daemon);
                let mut daemon = Daemon::start(&token, Setup::default());
                daemon.root_token = root_token;
                Holder::Token { daemon, token }
            }
            Holder::Aws(aws) => Holder::Aws(aws.restart()),
            Holder::Cloud(cloud) => Holder::Cloud(cloud.restart()),
        }
    }
}
