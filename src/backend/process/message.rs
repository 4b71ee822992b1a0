//! What the daemon and a worker say to each other: [`Command`]s one way, [`Answer`]s the other.
//!
//! Both ends are the same program, so there are no versions. The daemon still believes no answer: a vendor's library that
//! went wild owns its worker. A frame has a bound, a public key is parsed, a kind that is unknown is [`Malformed`].

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes};

pub use super::codec::Malformed;
use super::codec::{Reader, put_bytes, put_option};
use super::fault;
use crate::backend::{
    BackendError, BatchJob, DeviceInfo, FoundKey, KeySelector, KeyTemplate, LoginAnswer, PinFlags, TokenIdentity,
};
use crate::config::Profile;
use crate::crypto;
use crate::model::{
    Cipher, Curve, Digest, Hash, KeyKind, KeyOperation, KeyUsage, KeyUsages, MlDsa, Secret, SecretBytes, SignInput,
    SignatureScheme, TokenSelector, wiped,
};

/// Most bytes of one operation's input.
pub const INPUT_MAX: usize = 64 << 20;
/// Most bytes of a frame: one operation of the longest input, or a batch of many short ones.
pub const FRAME_MAX: usize = INPUT_MAX + 4096;
/// Most bytes of an answer's frame, beyond those of the input it answers. What is longer the worker does not send.
pub const ANSWER_MAX: usize = 256 << 10;
/// The fewest bytes of one job of a batch.
const JOB_MIN: usize = 8 + 1 + 1 + 1 + 4;

/// What a worker is to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The shared object.
    pub library: PathBuf,
    /// What it is; `None` goes by what it says of itself.
    pub profile: Option<Profile>,
    /// Which of its tokens.
    pub token: TokenSelector,
    /// Whether its memory is to be kept from swap space, as the daemon's is.
    pub lock_memory: bool,
}

/// An operation of a batch, as the worker reads it.
#[derive(Clone, Debug)]
pub struct Job {
    /// The key.
    pub handle: u64,
    /// Its kind.
    pub kind: KeyKind,
    /// What to do with it.
    pub operation: KeyOperation,
}

impl Job {
    /// The same, as a session takes it.
    pub(super) fn lend(&self) -> BatchJob<'_> {
        BatchJob { handle: self.handle, kind: self.kind, operation: &self.operation }
    }
}

/// From the daemon to a worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// Load the library and open the token. The first command of a worker.
    Open(Settings),
    /// See [`crate::backend::Device::pin_flags`].
    PinFlags,
    /// One native login.
    Login(Secret),
    /// Open a session, on the socket that comes with this.
    OpenSession,
    /// See [`crate::backend::Session::find`]. This and what follows go to a session.
    Find(KeySelector),
    /// See [`crate::backend::Session::generate`].
    Generate(KeyTemplate),
    /// Run these, and answer each in their order.
    Perform(Vec<Job>),
    /// See [`crate::backend::Session::check_alive`].
    CheckAlive,
}

/// From a worker to the daemon.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The token is open.
    Opened(DeviceInfo),
    /// To [`Command::PinFlags`].
    PinFlags(PinFlags),
    /// To [`Command::Login`].
    LoggedIn(LoginAnswer),
    /// The session is open, or alive.
    Done,
    /// To [`Command::Find`] and [`Command::Generate`].
    Found(Option<FoundKey>),
    /// To one job of [`Command::Perform`].
    Output(Bytes),
    /// To any of them.
    Failed(BackendError),
    /// Before the first answer to a [`Command::Perform`], now and then: what [`crate::backend::Session::computes_here`] says.
    ComputesHere(bool),
}

impl Command {
    /// Appends it to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Command::Open(settings) => {
                out.put_u8(0);
                put_bytes(out, settings.library.as_os_str().as_bytes());
                put_option(out, settings.profile, put_profile);
                put_token(out, &settings.token);
                out.put_u8(u8::from(settings.lock_memory));
            }
            Command::PinFlags => out.put_u8(1),
            Command::Login(pin) => {
                out.put_u8(2);
                put_bytes(out, pin.expose());
            }
            Command::OpenSession => out.put_u8(3),
            Command::Find(selector) => {
                out.put_u8(4);
                put_option(out, selector.label.as_deref(), |out, label| put_bytes(out, label.as_bytes()));
                put_option(out, selector.id.as_deref(), put_bytes);
                out.put_u8(selector.secret.into());
            }
            Command::Generate(template) => {
                out.put_u8(5);
                put_kind(out, template.kind);
                put_bytes(out, template.label.as_bytes());
                out.put_u8(template.uses.iter().fold(0, |bits, usage| bits | 1 << (usage as u8 - 1)));
            }
            Command::Perform(jobs) => {
                let lent: Vec<BatchJob<'_>> = jobs.iter().map(Job::lend).collect();
                put_jobs(out, &lent);
            }
            Command::CheckAlive => out.put_u8(7),
        }
    }

    /// Reads what [`Command::encode`] wrote.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Command, Malformed> {
        let mut reader = Reader::new(bytes);
        let command = match reader.u8()? {
            0 => Command::Open(Settings {
                library: Path::new(OsStr::from_bytes(reader.bytes()?)).to_owned(),
                profile: reader.option(profile)?,
                token: token(&mut reader)?,
                lock_memory: reader.flag()?,
            }),
            1 => Command::PinFlags,
            2 => Command::Login(Secret::new(reader.bytes()?)),
            3 => Command::OpenSession,
            4 => Command::Find(KeySelector {
                label: reader.option(Reader::text)?,
                id: reader.option(|reader| reader.bytes().map(<[u8]>::to_vec))?,
                secret: reader.flag()?,
                cloud: None,
            }),
            5 => Command::Generate(KeyTemplate {
                kind: kind(&mut reader)?,
                label: reader.text()?,
                uses: usages(reader.u8()?),
                cloud: None,
            }),
            6 => Command::Perform(jobs(&mut reader, bytes.len())?),
            7 => Command::CheckAlive,
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(command)
    }
}

impl Answer {
    /// Appends it to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Answer::Opened(info) => {
                out.put_u8(0);
                let TokenIdentity { manufacturer, model, serial, label } = &info.token;
                [manufacturer, model, serial, label].iter().for_each(|name| put_bytes(out, name.as_bytes()));
                out.put_u64_le(info.slot);
                put_option(out, info.max_sessions, |out, max| out.put_u64_le(max as u64));
                put_profile(out, info.profile);
            }
            Answer::PinFlags(flags) => {
                out.put_u8(1);
                out.put_u8(flags.final_try.into());
                out.put_u8(flags.locked.into());
            }
            Answer::Done => out.put_u8(2),
            Answer::Found(found) => {
                out.put_u8(3);
                put_option(out, found.as_ref(), |out, found| {
                    out.put_u64_le(found.handle);
                    put_kind(out, found.kind);
                    put_option(out, found.public.as_ref(), |out, public| put_bytes(out, &public.spki));
                    put_bytes(out, &found.id);
                    put_bytes(out, found.label.as_bytes());
                });
            }
            Answer::Output(output) => {
                out.put_u8(4);
                put_bytes(out, output);
            }
            Answer::Failed(error) => {
                out.put_u8(5);
                fault::put_error(out, error);
            }
            Answer::LoggedIn(answer) => {
                out.put_u8(6);
                out.put_u8((*answer == LoginAnswer::Already).into());
            }
            Answer::ComputesHere(here) => {
                out.put_u8(7);
                out.put_u8((*here).into());
            }
        }
    }

    /// Reads what [`Answer::encode`] wrote, and believes none of it.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Answer, Malformed> {
        let mut reader = Reader::new(bytes);
        let answer = match reader.u8()? {
            0 => {
                let (manufacturer, model) = (reader.text()?, reader.text()?);
                let token = TokenIdentity::new(&manufacturer, &model, &reader.text()?, &reader.text()?);
                let slot = reader.u64()?;
                let max_sessions = reader.option(|reader| usize::try_from(reader.u64()?).map_err(|_| Malformed))?;
                Answer::Opened(DeviceInfo { token, slot, max_sessions, profile: profile(&mut reader)? })
            }
            1 => Answer::PinFlags(PinFlags { final_try: reader.flag()?, locked: reader.flag()? }),
            2 => Answer::Done,
            3 => Answer::Found(reader.option(|reader| {
                let (handle, kind) = (reader.u64()?, kind(reader)?);
                let public = reader.option(|reader| crypto::parse_spki(reader.bytes()?).map_err(|_| Malformed))?;
                // A secret key has no public half, and every other key has one of its kind.
                if public.as_ref().map(|public| public.kind) != (!kind.is_secret()).then_some(kind) {
                    return Err(Malformed);
                }
                let id = reader.bytes()?.to_vec();
                Ok(FoundKey::new(handle, kind, public, id, &reader.text()?))
            })?),
            // It may be a plaintext.
            4 => Answer::Output(wiped(reader.bytes()?.to_vec())),
            5 => Answer::Failed(fault::error(&mut reader)?),
            6 if reader.flag()? => Answer::LoggedIn(LoginAnswer::Already),
            6 => Answer::LoggedIn(LoginAnswer::Taken),
            7 => Answer::ComputesHere(reader.flag()?),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(answer)
    }
}

/// Appends [`Command::Perform`], without a copy of the jobs.
pub(super) fn put_jobs(out: &mut Vec<u8>, jobs: &[BatchJob<'_>]) {
    out.put_u8(6);
    out.put_u32_le(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
    for job in jobs {
        out.put_u64_le(job.handle);
        put_kind(out, job.kind);
        put_operation(out, job.operation);
    }
}

fn put_operation(out: &mut Vec<u8>, operation: &KeyOperation) {
    match operation {
        KeyOperation::Sign { scheme, hash, input } => {
            out.put_u8(0);
            put_scheme(out, *scheme);
            put_hash(out, *hash);
            out.put_u8(matches!(input, SignInput::Message(_)).into());
        }
        KeyOperation::Encrypt { cipher, .. } => {
            out.put_u8(1);
            put_cipher(out, cipher);
        }
        KeyOperation::Decrypt { cipher, .. } => {
            out.put_u8(2);
            put_cipher(out, cipher);
        }
        KeyOperation::Mac { hash, .. } => {
            out.put_u8(3);
            put_hash(out, *hash);
        }
    }
    put_bytes(out, operation.input());
}

fn operation(reader: &mut Reader<'_>) -> Result<KeyOperation, Malformed> {
    Ok(match reader.u8()? {
        0 => {
            let (scheme, hash) = (scheme(reader)?, hash(reader)?);
            let input = match reader.flag()? {
                true => SignInput::Message(Bytes::copy_from_slice(reader.bytes()?)),
                false => SignInput::Digest(Digest::new(reader.bytes()?).ok_or(Malformed)?),
            };
            KeyOperation::Sign { scheme, hash, input }
        }
        1 => KeyOperation::Encrypt { cipher: cipher(reader)?, plaintext: SecretBytes::new(reader.bytes()?.to_vec()) },
        2 => KeyOperation::Decrypt { cipher: cipher(reader)?, ciphertext: Bytes::copy_from_slice(reader.bytes()?) },
        3 => KeyOperation::Mac { hash: hash(reader)?, message: SecretBytes::new(reader.bytes()?.to_vec()) },
        _ => return Err(Malformed),
    })
}

fn put_cipher(out: &mut Vec<u8>, cipher: &Cipher) {
    match cipher {
        Cipher::RsaPkcs1 => out.put_u8(0),
        Cipher::RsaOaep { hash } => {
            out.put_u8(1);
            put_hash(out, *hash);
        }
        Cipher::AesGcm { iv, associated_data } => {
            out.put_u8(2);
            put_bytes(out, iv);
            put_bytes(out, associated_data);
        }
        Cipher::AesCbc { iv, padded } => {
            out.put_u8(3);
            put_bytes(out, iv);
            out.put_u8((*padded).into());
        }
        Cipher::AesBlock => out.put_u8(4),
        Cipher::ServiceAead { associated_data } => {
            out.put_u8(5);
            put_bytes(out, associated_data);
        }
    }
}

fn cipher(reader: &mut Reader<'_>) -> Result<Cipher, Malformed> {
    Ok(match reader.u8()? {
        0 => Cipher::RsaPkcs1,
        1 => Cipher::RsaOaep { hash: hash(reader)? },
        2 => Cipher::AesGcm {
            iv: reader.bytes()?.try_into().map_err(|_| Malformed)?,
            associated_data: Bytes::copy_from_slice(reader.bytes()?),
        },
        3 => Cipher::AesCbc { iv: reader.bytes()?.try_into().map_err(|_| Malformed)?, padded: reader.flag()? },
        4 => Cipher::AesBlock,
        5 => Cipher::ServiceAead { associated_data: Bytes::copy_from_slice(reader.bytes()?) },
        _ => return Err(Malformed),
    })
}

fn put_hash(out: &mut Vec<u8>, hash: Hash) {
    out.put_u8(Hash::ALL.iter().position(|known| *known == hash).map_or(u8::MAX, |position| position as u8));
}

fn hash(reader: &mut Reader<'_>) -> Result<Hash, Malformed> {
    Hash::ALL.get(usize::from(reader.u8()?)).copied().ok_or(Malformed)
}

fn usages(bits: u8) -> KeyUsages {
    KeyUsage::ALL.into_iter().filter(|usage| bits & 1 << (*usage as u8 - 1) != 0).collect()
}

fn jobs(reader: &mut Reader<'_>, frame: usize) -> Result<Vec<Job>, Malformed> {
    let count = usize::try_from(reader.u32()?).map_err(|_| Malformed)?;
    if count > frame / JOB_MIN {
        return Err(Malformed);
    }
    let mut jobs = Vec::with_capacity(count);
    for _ in 0..count {
        jobs.push(Job { handle: reader.u64()?, kind: kind(reader)?, operation: operation(reader)? });
    }
    Ok(jobs)
}

fn put_scheme(out: &mut Vec<u8>, scheme: SignatureScheme) {
    match scheme {
        SignatureScheme::RsaPkcs1 => out.put_u8(0),
        SignatureScheme::RsaPss { salt } => {
            out.put_u8(1);
            out.put_u16_le(salt);
        }
        SignatureScheme::Ecdsa => out.put_u8(2),
        SignatureScheme::Ed25519 => out.put_u8(3),
        SignatureScheme::MlDsa => out.put_u8(4),
    }
}

fn scheme(reader: &mut Reader<'_>) -> Result<SignatureScheme, Malformed> {
    Ok(match reader.u8()? {
        0 => SignatureScheme::RsaPkcs1,
        1 => SignatureScheme::RsaPss { salt: reader.u16()? },
        2 => SignatureScheme::Ecdsa,
        3 => SignatureScheme::Ed25519,
        4 => SignatureScheme::MlDsa,
        _ => return Err(Malformed),
    })
}

fn put_kind(out: &mut Vec<u8>, kind: KeyKind) {
    match kind {
        KeyKind::Rsa { bits } => {
            out.put_u8(0);
            out.put_u32_le(bits);
        }
        KeyKind::Ec(Curve::P256) => out.put_u8(1),
        KeyKind::Ec(Curve::P384) => out.put_u8(2),
        KeyKind::Ec(Curve::P521) => out.put_u8(3),
        KeyKind::Ed25519 => out.put_u8(4),
        KeyKind::Aes { bits } => {
            out.put_u8(5);
            out.put_u32_le(bits);
        }
        KeyKind::Hmac { bits } => {
            out.put_u8(6);
            out.put_u32_le(bits);
        }
        KeyKind::MlDsa(MlDsa::MlDsa44) => out.put_u8(7),
        KeyKind::MlDsa(MlDsa::MlDsa65) => out.put_u8(8),
        KeyKind::MlDsa(MlDsa::MlDsa87) => out.put_u8(9),
        KeyKind::Ec(Curve::Secp256k1) => out.put_u8(10),
    }
}

fn kind(reader: &mut Reader<'_>) -> Result<KeyKind, Malformed> {
    Ok(match reader.u8()? {
        0 => KeyKind::Rsa { bits: reader.u32()? },
        1 => KeyKind::Ec(Curve::P256),
        2 => KeyKind::Ec(Curve::P384),
        3 => KeyKind::Ec(Curve::P521),
        4 => KeyKind::Ed25519,
        5 => KeyKind::Aes { bits: reader.u32()? },
        6 => KeyKind::Hmac { bits: reader.u32()? },
        7 => KeyKind::MlDsa(MlDsa::MlDsa44),
        8 => KeyKind::MlDsa(MlDsa::MlDsa65),
        9 => KeyKind::MlDsa(MlDsa::MlDsa87),
        10 => KeyKind::Ec(Curve::Secp256k1),
        _ => return Err(Malformed),
    })
}

fn put_token(out: &mut Vec<u8>, token: &TokenSelector) {
    match token {
        TokenSelector::Label(label) => {
            out.put_u8(0);
            put_bytes(out, label.as_bytes());
        }
        TokenSelector::Serial(serial) => {
            out.put_u8(1);
            put_bytes(out, serial.as_bytes());
        }
        TokenSelector::Slot(slot) => {
            out.put_u8(2);
            out.put_u64_le(*slot);
        }
        // No worker process opens one: its library would find no such token.
        TokenSelector::Cloud(key) => {
            out.put_u8(0);
            put_bytes(out, key.to_string().as_bytes());
        }
    }
}

fn token(reader: &mut Reader<'_>) -> Result<TokenSelector, Malformed> {
    Ok(match reader.u8()? {
        0 => TokenSelector::Label(reader.text()?),
        1 => TokenSelector::Serial(reader.text()?),
        2 => TokenSelector::Slot(reader.u64()?),
        _ => return Err(Malformed),
    })
}

/// By its name in the configuration.
fn put_profile(out: &mut Vec<u8>, profile: Profile) {
    put_bytes(out, profile.traits().name.as_bytes());
}

fn profile(reader: &mut Reader<'_>) -> Result<Profile, Malformed> {
    let name = reader.bytes()?;
    // The fake one serves in tests only, and never in a worker process.
    let mut known = Profile::ALL.into_iter().chain([Profile::Fake]);
    known.find(|profile| profile.traits().name.as_bytes() == name).ok_or(Malformed)
}
