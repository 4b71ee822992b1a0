//! Both ends of the pair: messages whole and hostile, and sessions with the worker's end on a thread of the test.

use std::os::unix::net::UnixStream;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::child::Process;
use super::message::{ANSWER_MAX, Answer, Command, INPUT_MAX, Job, Settings};
use super::pair::{self, Frames, put_frame};
use super::session::ProcessSession;
use super::{device, worker};
use crate::backend::fake::{FakeBackend, PIN};
use crate::backend::{
    Backend, BackendError, BatchJob, Device, DeviceInfo, Fate, FoundKey, KeySelector, KeyTemplate, PinFlags, Session,
    TokenIdentity,
};
use crate::backend::{LoginAnswer, WORKER_DIED};
use crate::config::Profile;
use crate::crypto::SoftwareKey;
use crate::model::{
    Cipher, Curve, Digest, Fault, Hash, KeyKind, KeyOperation, KeyUsage, KeyUsages, Namespace, SaltLength, Secret,
    SecretBytes, SignInput, SignatureScheme, TokenSelector,
};

const LIMIT: Duration = Duration::from_secs(60);
const P256: KeyKind = KeyKind::Ec(Curve::P256);

/// A process of the test's own to be watched and killed; the control pair; the worker's end of it.
fn process() -> (Arc<Process>, std::os::fd::OwnedFd) {
    let (control, theirs) = pair::control().unwrap();
    // It lives until its input closes, as it does when the test ends.
    let child = Program::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    (Process::watch("worker process of a test".into(), child, control).unwrap(), theirs)
}

/// How it ended, once it has.
fn end(process: &Process) -> String {
    let begun = Instant::now();
    loop {
        let text = process.died().fault.to_string();
        if !text.contains("closed its connection") {
            return text;
        }
        assert!(begun.elapsed() < LIMIT, "it lives on");
    }
}

fn settings() -> Settings {
    Settings {
        library: "/a/b.so".into(),
        profile: Some(Profile::Luna),
        token: TokenSelector::Label("ca".into()),
        lock_memory: true,
    }
}

/// A device whose worker is a thread that serves `token`.
fn device(token: &FakeBackend) -> Box<dyn Device> {
    let (process, theirs) = process();
    let token = token.clone();
    std::thread::spawn(move || worker::serve(theirs, |_| Arc::new(token)).unwrap());
    device::open(process, settings(), LIMIT).unwrap()
}

fn sign(input: &[u8]) -> KeyOperation {
    let input = SignInput::Digest(Digest::new(input).unwrap());
    KeyOperation::Sign { scheme: SignatureScheme::Ecdsa, hash: Hash::Sha2_256, input }
}

/// Runs a batch, and answers what was told and the count.
fn batch(session: &mut dyn Session, jobs: &[BatchJob<'_>]) -> (Vec<Result<Bytes, BackendError>>, usize) {
    let mut told = Vec::new();
    let count = session.perform_batch(jobs, &mut |index, result| {
        assert_eq!(index, told.len());
        told.push(result);
    });
    (told, count)
}

fn causes(told: &[Result<Bytes, BackendError>]) -> Vec<&str> {
    told.iter().map(|result| result.as_ref().map_or_else(|error| error.cause, |_| "ok")).collect()
}

#[test]
fn a_session_behind_the_pair_is_a_session() {
    let token = FakeBackend::default();
    token.make("ca", b"7", P256).unwrap();
    let device = device(&token);
    assert_eq!((device.info().token.label.as_str(), device.info().profile), ("ca", Profile::Fake));
    assert_eq!(device.pin_flags().unwrap(), PinFlags::default());
    let refused = device.login(&Secret::from("0000")).unwrap_err();
    assert_eq!((refused.cause, refused.fate), ("credentials_refused", Fate::Retire));
    device.login(&Secret::from(PIN)).unwrap();
    assert_eq!(token.logins(), 2);

    let mut session = device.open_session().unwrap();
    let nothing = KeySelector { label: Some("b".into()), id: None, secret: false, cloud: None };
    assert!(session.find(&nothing).unwrap().is_none());
    let found = session
        .find(&KeySelector { label: None, id: Some(b"7".to_vec()), secret: false, cloud: None })
        .unwrap()
        .unwrap();
    assert_eq!((found.label.as_str(), found.kind), ("ca", P256));
    let made = session
        .generate(&KeyTemplate { kind: KeyKind::Ed25519, label: "ed".into(), uses: KeyUsages::default(), cloud: None })
        .unwrap();
    assert_eq!((made.label.as_str(), made.kind, token.generated()), ("ed", KeyKind::Ed25519, 1));

    let operation = sign(&[1; 32]);
    let signature = session.perform(found.handle, P256, &operation).unwrap();
    let KeyOperation::Sign { scheme, hash, input } = &operation else { panic!("{operation:?}") };
    let valid =
        crate::crypto::verify(found.public.as_ref().unwrap(), *scheme, SaltLength::Auto, *hash, input, &signature);
    assert!(valid.unwrap());
}

#[test]
fn an_error_that_ends_the_session_ends_the_batch() {
    let token = FakeBackend::default();
    token.make("ca", b"", P256).unwrap();
    let device = device(&token);
    let mut session = device.open_session().unwrap();
    let operation = sign(&[1; 32]);
    let job = BatchJob { handle: 0, kind: P256, operation: &operation };
    // The third is not there, which is nobody's session's fault.
    let jobs = [job, job, BatchJob { handle: 9, ..job }, job];
    let (told, count) = batch(session.as_mut(), &jobs);
    assert_eq!((causes(&told), count), (vec!["ok", "ok", "internal", "ok"], 4));
    token.fail_next(BackendError::new(Fate::Reopen, Fault::DeviceError { what: "C_Sign: CKR_DEVICE_ERROR".into() }));
    let before = token.performed();
    let (told, count) = batch(session.as_mut(), &jobs);
    assert_eq!((causes(&told), count, token.performed() - before), (vec!["device_error"], 1, 1));
    // A thousand at once, and messages that fill several frames.
    let (told, count) = batch(session.as_mut(), &vec![job; 1000]);
    assert!(count == 1000 && told.iter().all(Result::is_ok));
    token.make("ed", b"", KeyKind::Ed25519).unwrap();
    let input = SignInput::Message(vec![7; 100 << 10].into());
    let long = KeyOperation::Sign { scheme: SignatureScheme::Ed25519, hash: Hash::None, input };
    let jobs = [BatchJob { handle: 1, kind: KeyKind::Ed25519, operation: &long }; 7];
    let (told, count) = batch(session.as_mut(), &jobs);
    assert!(count == 7 && told.iter().all(Result::is_ok), "{:?}", causes(&told));
}

#[test]
fn an_answer_that_is_too_long_is_an_error_and_no_end() {
    let token = FakeBackend::default();
    token.make("ca", &vec![7; ANSWER_MAX], P256).unwrap();
    let device = device(&token);
    let mut session = device.open_session().unwrap();
    let selector = KeySelector { label: Some("ca".into()), id: None, secret: false, cloud: None };
    for _ in 0..2 {
        let error = session.find(&selector).unwrap_err();
        assert_eq!((error.cause, error.fate), ("device_error", Fate::Keep));
    }
}

#[test]
fn what_is_too_long_is_refused_before_it_is_sent() {
    let device = device(&FakeBackend::default());
    let mut session = device.open_session().unwrap();
    let input = SignInput::Message(vec![0; INPUT_MAX + 1].into());
    let operation = KeyOperation::Sign { scheme: SignatureScheme::Ed25519, hash: Hash::None, input };
    let error = session.perform(0, KeyKind::Ed25519, &operation).unwrap_err();
    assert!(matches!(error.fault, Fault::TooLarge { .. }) && error.fate == Fate::Keep, "{error:?}");
    let label = "ä".repeat(100 << 10);
    assert!(session.find(&KeySelector { label: Some(label), id: None, secret: false, cloud: None }).unwrap().is_none());
    let error = device.login(&Secret::new(vec![b'1'; pair::PACKET_MAX])).unwrap_err();
    assert!(matches!(error.fault, Fault::TooLarge { .. }) && error.fate == Fate::Keep, "{error:?}");
}

/// A session whose worker's end is in the test's hands.
fn session() -> (ProcessSession, UnixStream, Arc<Process>) {
    let (process, _) = process();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut frames = Frames::new(theirs.try_clone().unwrap());
    frames.send(&framed(&Answer::Done)).unwrap();
    let session = ProcessSession::open(ours, Arc::clone(&process)).unwrap();
    (session, theirs, process)
}

fn framed(answer: &Answer) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, |out| answer.encode(out));
    out
}

#[test]
fn a_worker_that_dies_in_a_batch_has_answered_what_it_has_answered() {
    let (mut session, theirs, process) = session();
    let operation = sign(&[1; 32]);
    let jobs = [BatchJob { handle: 0, kind: P256, operation: &operation }; 4];
    let (mut frames, ended) = (Frames::new(theirs), Arc::clone(&process));
    let worker = std::thread::spawn(move || {
        let Command::Perform(jobs) = Command::decode(frames.next(ANSWER_MAX).unwrap().unwrap()).unwrap() else {
            panic!("no batch")
        };
        // Two answers, and half of a third.
        let answer = framed(&Answer::Output(Bytes::from_static(&[3; 70])));
        frames.send(&[&answer[..], &answer, &answer[..9]].concat()).unwrap();
        process.kill();
        jobs.len()
    });
    let (told, count) = batch(&mut session, &jobs);
    assert_eq!((causes(&told), count), (vec!["ok", "ok", WORKER_DIED, WORKER_DIED], 4));
    assert_eq!(worker.join().unwrap(), 4);
    let error = session.perform(0, P256, &operation).unwrap_err();
    assert_eq!((error.cause, error.fate), (WORKER_DIED, Fate::Reinitialize));
    assert_eq!(end(&ended), "device error: worker process of a test was ended by signal 9 (SIGKILL)");
}

#[test]
fn whether_a_token_computes_here_is_told_before_a_batch_is_answered() {
    let (mut session, theirs, process) = session();
    let operation = sign(&[1; 32]);
    let jobs = [BatchJob { handle: 0, kind: P256, operation: &operation }; 2];
    let answer = framed(&Answer::Output(Bytes::from_static(&[3; 70])));
    let mut frames = Frames::new(theirs);
    for told in [Some(true), None, Some(false)] {
        let news = told.map(|here| framed(&Answer::ComputesHere(here))).unwrap_or_default();
        frames.send(&[&news[..], &answer, &answer].concat()).unwrap();
        let (ended, count) = batch(&mut session, &jobs);
        assert_eq!((causes(&ended), count), (vec!["ok", "ok"], 2));
        assert_eq!([session.computes_here(), session.computes_here()], [told, None]);
    }
    // Between two answers it is none.
    frames.send(&[&answer[..], &framed(&Answer::ComputesHere(true)), &answer].concat()).unwrap();
    let (ended, _) = batch(&mut session, &jobs);
    assert_eq!(causes(&ended), ["ok", WORKER_DIED]);
    assert!(end(&process).contains("SIGKILL"));
}

#[test]
fn a_worker_that_talks_nonsense_is_killed() {
    let key = SoftwareKey::generate(P256).unwrap();
    let found = |spki| {
        let public = Some(crate::model::PublicKey { spki, ..key.public().clone() });
        Answer::Found(Some(FoundKey {
            handle: 1,
            kind: P256,
            public,
            id: Vec::new(),
            label: String::new(),
            sealing: None,
        }))
    };
    let long = [&u32::MAX.to_le_bytes()[..], &[0; 64]].concat();
    let not_a_key = framed(&found(Bytes::from_static(b"no key")));
    let told_twice = framed(&Answer::ComputesHere(true)).repeat(2);
    let a_key = framed(&found(key.public().spki.clone()));
    for nonsense in [long, framed(&Answer::Done), a_key, not_a_key, told_twice, vec![1, 0, 0, 0, 99]] {
        let (mut session, theirs, process) = session();
        Frames::new(theirs.try_clone().unwrap()).send(&nonsense).unwrap();
        let error = session.perform(0, P256, &sign(&[1; 32])).unwrap_err();
        assert_eq!((error.cause, error.fate), (WORKER_DIED, Fate::Reinitialize));
        let text = error.fault.to_string();
        assert!(text.contains("answered what is no answer, and was killed"), "{text}");
        drop(theirs);
        assert!(end(&process).contains("SIGKILL"));
    }
}

#[test]
fn a_worker_that_does_not_open_in_time_is_killed() {
    let (process, theirs) = process();
    let watched = Arc::clone(&process);
    let error = device::open(process, settings(), Duration::from_millis(20)).map(drop).unwrap_err();
    assert_eq!((error.cause, error.fault.label().as_str()), (WORKER_DIED, "device_stuck"));
    assert!(end(&watched).contains("SIGKILL"));
    drop(theirs);
}

#[test]
fn a_login_that_hangs_ends_its_worker() {
    let (process, theirs) = process();
    let watched = Arc::clone(&process);
    let token = TokenIdentity::new("maker", "model", "1", "ca");
    let info = DeviceInfo { token, slot: 3, max_sessions: None, profile: Profile::Luna };
    let mut packet = Vec::new();
    Answer::Opened(info).encode(&mut packet);
    // It has opened its token before it is asked to, and answers nothing else.
    pair::send(&theirs, &packet, None).unwrap();
    let device = device::open(process, settings(), Duration::from_millis(50)).unwrap();
    for error in [device.login(&Secret::from("1234")).unwrap_err(), device.open_session().map(drop).unwrap_err()] {
        assert_eq!((error.cause, error.fault.label().as_str()), (WORKER_DIED, "device_stuck"));
    }
    assert!(end(&watched).contains("SIGKILL"));
    drop(theirs);
}

#[test]
fn a_worker_ends_with_its_device() {
    let token = FakeBackend::default();
    let (process, theirs) = process();
    let served = std::thread::spawn(move || worker::serve(theirs, |_| Arc::new(token)));
    let device = device::open(Arc::clone(&process), settings(), LIMIT).unwrap();
    let session = device.open_session().unwrap();
    drop(session);
    assert!(!device.is_lost());
    drop(device);
    assert_eq!(served.join().unwrap(), Ok(()));
    // The process of this test does not listen, as one whose library hangs would not.
    process.kill();
    assert!(end(&process).contains("SIGKILL") && !process.is_alive());
}

#[test]
fn a_worker_that_is_told_nonsense_ends() {
    for packet in [&[99][..], &[1], &[2, 200, 0, 0, 0]] {
        let (control, theirs) = pair::control().unwrap();
        pair::send(&control, packet, None).unwrap();
        let open: fn(&Settings) -> Arc<dyn Backend> = |_| Arc::new(FakeBackend::default());
        assert!(worker::serve(theirs, open).is_err(), "{packet:?}");
    }
}

/// A message that reads the same again.
fn same<T: std::fmt::Debug>(encode: impl Fn(&T, &mut Vec<u8>), decode: impl Fn(&[u8]) -> Option<T>, message: &T) {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    let read = decode(&bytes).unwrap_or_else(|| panic!("{message:?} is refused"));
    assert_eq!(format!("{message:?}"), format!("{read:?}"));
    // Cut short or longer, it is none.
    assert!(decode(&bytes[..bytes.len() - 1]).is_none(), "{message:?}");
    bytes.push(0);
    assert!(decode(&bytes).is_none(), "{message:?}");
}

#[test]
fn commands_arrive_as_they_were_sent() {
    let job = |scheme, hash, input| Job {
        handle: 7,
        kind: KeyKind::Rsa { bits: 3072 },
        operation: KeyOperation::Sign { scheme, hash, input },
    };
    let digest = |len: usize| SignInput::Digest(Digest::new(&vec![7; len]).unwrap());
    let mut jobs: Vec<Job> =
        Hash::ALL.map(|hash| job(SignatureScheme::RsaPkcs1, hash, digest(hash.digest_bytes()))).into();
    jobs.push(job(SignatureScheme::RsaPss { salt: 300 }, Hash::Sha2_512, digest(64)));
    jobs.push(job(SignatureScheme::Ed25519, Hash::None, SignInput::Message(Bytes::from_static(b"whole"))));
    for kind in
        [P256, KeyKind::Ec(Curve::P384), KeyKind::Ec(Curve::P521), KeyKind::Ec(Curve::Secp256k1), KeyKind::Ed25519]
    {
        jobs.push(Job { kind, ..job(SignatureScheme::Ecdsa, Hash::Sha1, digest(20)) });
    }
    let ciphers = [
        Cipher::RsaPkcs1,
        Cipher::RsaOaep { hash: Hash::Sha1 },
        Cipher::AesGcm { iv: [1; 12], associated_data: Bytes::from_static(b"aad") },
        Cipher::AesCbc { iv: [2; 16], padded: true },
        Cipher::AesBlock,
    ];
    let secret = |operation| Job { handle: 9, kind: KeyKind::Aes { bits: 192 }, operation };
    for cipher in ciphers {
        let plaintext = SecretBytes::new(vec![7; 16]);
        jobs.push(secret(KeyOperation::Encrypt { cipher: cipher.clone(), plaintext }));
        jobs.push(secret(KeyOperation::Decrypt { cipher, ciphertext: Bytes::from_static(b"ciphertext") }));
    }
    let mac = KeyOperation::Mac { hash: Hash::Sha2_384, message: SecretBytes::new(b"message".to_vec()) };
    jobs.push(Job { kind: KeyKind::Hmac { bits: 384 }, ..secret(mac) });
    let commands = [
        Command::Open(settings()),
        Command::Open(Settings { profile: None, token: TokenSelector::Serial("4711".into()), ..settings() }),
        Command::Open(Settings { token: TokenSelector::Slot(u64::MAX), ..settings() }),
        Command::PinFlags,
        Command::Login(Secret::from("1234")),
        Command::OpenSession,
        Command::Find(KeySelector {
            label: Some("Prüfung".into()),
            id: Some(vec![0, 255]),
            secret: false,
            cloud: None,
        }),
        Command::Find(KeySelector { label: None, id: None, secret: true, cloud: None }),
        Command::Generate(KeyTemplate { kind: P256, label: "ca".into(), uses: KeyUsages::default(), cloud: None }),
        Command::Generate(KeyTemplate {
            kind: KeyKind::Hmac { bits: 256 },
            label: "mac".into(),
            uses: KeyUsages::NONE.with(KeyUsage::Mac).with(KeyUsage::Encrypt),
            cloud: None,
        }),
        Command::Perform(jobs),
        Command::Perform(Vec::new()),
        Command::CheckAlive,
    ];
    for command in &commands {
        same(Command::encode, |bytes| Command::decode(bytes).ok(), command);
    }
    let Command::Login(pin) = &commands[4] else { panic!() };
    let mut bytes = Vec::new();
    Command::Login(pin.clone()).encode(&mut bytes);
    let Ok(Command::Login(read)) = Command::decode(&bytes) else { panic!() };
    assert_eq!(read.expose(), b"1234");
}

#[test]
fn answers_arrive_as_they_were_sent() {
    let key = SoftwareKey::generate(P256).unwrap();
    let found = FoundKey {
        handle: 3,
        kind: P256,
        public: Some(key.public().clone()),
        id: vec![1],
        label: "ca".into(),
        sealing: None,
    };
    let token = TokenIdentity::new("maker", "model", "1", "ca");
    let info = |max_sessions, profile| DeviceInfo { token: token.clone(), slot: u64::MAX, max_sessions, profile };
    let what = || "C_Sign: CKR_DEVICE_ERROR (0x30)".to_owned();
    let (one, two) = (what(), what());
    let faults = [
        Fault::Unavailable { what: what() },
        Fault::DeviceError { what: what() },
        Fault::DeviceStuck { what: what() },
        Fault::CredentialsRefused { what: what() },
        Fault::NotSupported { what: what() },
        Fault::InvalidRequest { reason: what() },
        Fault::NotDecrypted { what: what() },
        Fault::TooLarge { what: what() },
        Fault::NotFound { what: String::new() },
        Fault::Internal { what: what() },
        Fault::KeyUnavailable { key: one.clone(), reason: two.clone() },
        Fault::KeyMismatch { key: one, reason: two },
    ];
    let fates =
        [Fate::Keep, Fate::FindAgain, Fate::Reopen, Fate::LoginAgain, Fate::Reinitialize, Fate::BackOff, Fate::Retire];
    let mut answers = vec![
        Answer::Opened(info(Some(16), Profile::CloudHsm)),
        Answer::Opened(info(None, Profile::Generic)),
        Answer::PinFlags(PinFlags { final_try: true, locked: false }),
        Answer::LoggedIn(LoginAnswer::Taken),
        Answer::LoggedIn(LoginAnswer::Already),
        Answer::Done,
        Answer::Found(Some(found)),
        Answer::Found(Some(FoundKey {
            handle: 4,
            kind: KeyKind::Aes { bits: 256 },
            public: None,
            id: Vec::new(),
            label: "secret".into(),
            sealing: None,
        })),
        Answer::Found(None),
        Answer::Output(Bytes::from_static(&[9; 512])),
        Answer::ComputesHere(true),
        Answer::ComputesHere(false),
    ];
    for fault in faults {
        answers.push(Answer::Failed(BackendError::keep(fault)));
    }
    for (fate, cause) in fates.into_iter().zip([
        "CKR_DEVICE_ERROR",
        "CKR_VENDOR_DEFINED",
        "worker_died",
        "key_mismatch",
        "internal",
        "CKR_PENDING",
    ]) {
        answers.push(Answer::Failed(BackendError { fault: Fault::DeviceError { what: what() }, fate, cause }));
    }
    for answer in &answers {
        same(Answer::encode, |bytes| Answer::decode(bytes).ok(), answer);
    }
}

/// What an error becomes on its way.
fn crossed(error: BackendError) -> BackendError {
    let mut bytes = Vec::new();
    Answer::Failed(error).encode(&mut bytes);
    match Answer::decode(&bytes) {
        Ok(Answer::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_speaks_for_its_token_only() {
    let namespace = Namespace::root();
    let overloaded = Fault::Overloaded { namespace, limit: 1, unit: "queued jobs", retry_after: LIMIT };
    for fault in [overloaded, Fault::PermissionDenied, Fault::Sealed, Fault::NotInitialized] {
        assert_eq!(crossed(BackendError::keep(fault)).fault.label().as_str(), "internal");
    }
    // Metrics count no word of a library's own making, and its text is one short line.
    let what = format!("C_Sign:\nforged line\u{1b}[2J {}", "ä".repeat(2000));
    let error = crossed(BackendError { fault: Fault::DeviceError { what }, fate: Fate::Keep, cause: "CKR_OF_MY_OWN" });
    let text = error.fault.to_string();
    assert_eq!(error.cause, "other");
    assert!(text.starts_with("device error: C_Sign: forged line [2J ä") && text.len() < 1100, "{text}");
}

#[test]
fn what_a_worker_says_of_its_token_is_fit_to_be_shown() {
    let (serial, label) = (format!("7\n7{}", "0".repeat(9000)), format!("c\u{1b}[2Ja\0\u{9b}{}", "ä".repeat(9000)));
    let (manufacturer, model) = ("m\r".repeat(9000), "\u{7}".repeat(9000));
    let token = TokenIdentity { manufacturer, model, serial, label };
    let wild = DeviceInfo { token, slot: 1, max_sessions: Some(3), profile: Profile::Luna };
    let mut bytes = Vec::new();
    Answer::Opened(wild).encode(&mut bytes);
    let Ok(Answer::Opened(read)) = Answer::decode(&bytes) else { panic!("it is an answer") };
    let (serial, label) = (format!("77{}", "0".repeat(14)), format!("c[2Ja{}", "ä".repeat(27)));
    let token = TokenIdentity { manufacturer: "m".repeat(32), model: String::new(), serial, label };
    assert_eq!(read, DeviceInfo { token, slot: 1, max_sessions: Some(3), profile: Profile::Luna });
}

#[test]
fn what_a_worker_says_of_a_key_is_fit_to_be_shown() {
    let key = SoftwareKey::generate(P256).unwrap();
    let label = format!("c\u{1b}[2Ja\n{}", "ä".repeat(9000));
    let wild = FoundKey {
        handle: 3,
        kind: P256,
        public: Some(key.public().clone()),
        id: vec![0, 1],
        label: label.clone(),
        sealing: None,
    };
    let mut bytes = Vec::new();
    Answer::Found(Some(wild)).encode(&mut bytes);
    let Ok(Answer::Found(Some(read))) = Answer::decode(&bytes) else { panic!("it is an answer") };
    let shown = format!("c[2Ja{}", "ä".repeat(251));
    assert_eq!((read.label.as_str(), read.id), (shown.as_str(), vec![0, 1]));
    // As one that is found in the daemon itself.
    assert_eq!(FoundKey::new(3, P256, None, Vec::new(), &label).label, shown);
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..8u8) {
        let bytes = [&[kind][..], &bytes].concat();
        if let Ok(command) = Command::decode(&bytes) {
            let mut again = Vec::new();
            command.encode(&mut again);
            prop_assert_eq!(&again, &bytes);
        }
        if let Ok(answer) = Answer::decode(&bytes) {
            // Its text may have lost control characters, and its cause its name: once, not twice.
            let (mut once, mut twice) = (Vec::new(), Vec::new());
            answer.encode(&mut once);
            Answer::decode(&once).unwrap().encode(&mut twice);
            prop_assert_eq!(once, twice);
        }
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut(
        contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40_000), 0..8),
        cut in 1..5000usize,
    ) {
        let mut sent = Vec::new();
        contents.iter().for_each(|content| put_frame(&mut sent, |out| out.extend_from_slice(content)));
        let (ours, theirs) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || {
            let mut frames = Frames::new(theirs);
            sent.chunks(cut).for_each(|chunk| frames.send(chunk).unwrap());
        });
        let (mut frames, mut read) = (Frames::new(ours), Vec::new());
        while let Some(frame) = frames.next(40_000).unwrap() {
            read.push(frame.to_vec());
        }
        writer.join().unwrap();
        prop_assert_eq!(read, contents);
    }
}
