//! What must hold of any bytes that strangers send, or that come from a worker process: each function takes them, and panics
//! where it does not. The fuzz targets call these, and so does a test with every file of the corpus.

mod router;

use bytes::{Bytes, BytesMut};
use keyway::backend::process::message::{Answer, Command};
use keyway::engine::{pki, transit};
use keyway::front;
use keyway::model::{Data, Fields, Marshaling};
use keyway::wire::{frame, proto};
use prost::Message;
use serde_json::Value;

pub use router::{MOUNTS, NAMESPACES, Route, check, expected};

/// What takes the bytes of one target.
pub type Target = fn(&[u8]);

/// The targets, by their names.
pub const TARGETS: [(&str, Target); 8] = [
    ("ciphertext", ciphertext),
    ("csr", csr),
    ("frame", frame),
    ("http", http),
    ("ocsp", ocsp),
    ("path", path),
    ("pem", pem),
    ("worker", worker),
];

/// Certificate requests: any bytes are refused or taken; what is taken names a key that reads back.
pub fn csr(bytes: &[u8]) {
    if let Ok(key) = pki::requested_key(bytes) {
        assert_eq!(keyway::crypto::parse_spki(&key.spki).expect("a key taken reads back").kind, key.kind);
    }
}

/// OCSP requests, which anyone may send: any bytes are refused or taken.
pub fn ocsp(bytes: &[u8]) {
    let _ = pki::is_ocsp_request(bytes);
}

/// What operators and clients paste: bundles of certificates, a certificate with its private key (after a NUL), a request.
/// Certificates that are taken read the same again when each is written by itself.
pub fn pem(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(certificates) = pki::imported_certificates(text) {
        assert!(!certificates.is_empty());
        for certificate in &certificates {
            let alone = keyway::crypto::pem("CERTIFICATE", certificate);
            assert_eq!(pki::imported_certificates(&alone).as_deref(), Ok(std::slice::from_ref(certificate)));
        }
    }
    if let Ok(request) = pki::pem_request(text) {
        csr(&request);
    }
    if let Some((certificate, private_key)) = text.split_once('\0') {
        let _ = pki::holds_key_of(certificate, private_key);
    }
}

/// Transit's texts, and batches of them in JSON: any are read or refused, and what is read is written the same again.
pub fn ciphertext(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok((version, made)) = transit::read_ciphertext(text) {
        let written = transit::write_text(version, &made, Marshaling::Asn1);
        assert_eq!(transit::read_ciphertext(&written), Ok((version, made)));
    }
    if let Ok((version, made)) = transit::read_hmac(text) {
        let written = transit::write_text(version, &made, Marshaling::Asn1);
        assert_eq!(transit::read_hmac(&written), Ok((version, made)));
    }
    for marshaling in [Marshaling::Asn1, Marshaling::Jws] {
        if let Ok((version, made)) = transit::read_signature(text, marshaling) {
            let written = transit::write_text(version, &made, marshaling);
            assert_eq!(transit::read_signature(&written, marshaling), Ok((version, made)));
        }
    }
    const ITEMS: usize = 8;
    if let Ok(data) = serde_json::from_slice::<Data>(bytes)
        && let Ok(items) = transit::read_batch(&data, ITEMS)
    {
        assert!(items.len() <= ITEMS);
    }
}

/// What of HTTP is read here: a target, and after a line end a body. A path that is taken means one thing; a body is weighed
/// as no less than it is, however it is cut; and what it says is read or refused, whatever a field is taken for.
pub fn http(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (target, body) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    if let Ok(target) = std::str::from_utf8(target) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if let Ok(Some(path)) = front::read_path(path) {
            let may_be_request = path.contains("ocsp/M");
            let is_plain = path.split('/').all(|part| !["", ".", ".."].contains(&part));
            assert!((is_plain || may_be_request) && !path.chars().any(char::is_control), "{path:?}");
        }
        if let Ok(data) = front::read_query(query) {
            read_fields(&data);
        }
    }
    for may_be_form in [false, true] {
        let whole = front::read_body(&[body], may_be_form);
        let pieces: Vec<&[u8]> = body.chunks(5).collect();
        assert_eq!(front::read_body(&pieces, may_be_form), whole);
        if let Ok(data) = whole.data {
            let found = data.values().map(values).sum::<usize>() + usize::from(!data.is_empty() && !whole.is_form);
            assert!(found <= whole.values, "{found} values weighed as {}", whole.values);
            read_fields(&data);
        }
    }
}

/// What is addressed by a header's namespace and, after a line end, a target: what a plain model says, whatever they are.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (header, target) = text.split_once('\n').unwrap_or(("", text));
    check(header, target);
}

/// The values of JSON: itself and what is in it.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(members) => members.values().map(values).sum(),
        _ => 0,
    }
}

/// Every field is taken for every kind there is.
fn read_fields(data: &Data) {
    let mut fields = Fields::new(data);
    for name in ["a", "b", "c", "ttl", "csr"] {
        let (_, _) = (fields.boolean(name), fields.integer(name));
        if let Ok(Some(text)) = fields.filled(name) {
            assert!(!text.is_empty());
        }
        if let Ok(Some(list)) = fields.list(name) {
            assert!(list.iter().all(|item| !item.is_empty()));
        }
        if let Ok(Some(span)) = fields.duration(name) {
            assert_eq!(span.subsec_nanos(), 0);
        }
        if let Ok(Some(object)) = fields.object(name) {
            let _ = Fields::new(object).warnings();
        }
        let _ = fields.refuse(&[name]);
    }
    let _ = fields.warnings();
}

/// The framed wire: any bytes are frames and calls, or errors; however they are cut, the frames are the same; and what is a
/// call reads the same again when it is written.
pub fn frame(bytes: &[u8]) {
    let mut whole = Vec::new();
    let good = frames(&mut BytesMut::from(bytes), &mut whole);

    let (mut cut, mut buffer) = (Vec::new(), BytesMut::new());
    let still_good = bytes.chunks(7).all(|chunk| {
        buffer.extend_from_slice(chunk);
        frames(&mut buffer, &mut cut)
    });
    assert_eq!((good, &whole), (still_good, &cut));

    for frame in whole {
        if let Ok(call) = proto::Call::decode(frame) {
            assert_eq!(proto::Call::decode(call.encode_to_vec().as_slice()).as_ref(), Ok(&call));
            // Whatever it asks for is understood or refused.
            let _ = keyway::wire::parse_call(call.operation);
        }
    }
}

fn frames(buffer: &mut BytesMut, found: &mut Vec<Bytes>) -> bool {
    const LIMIT: usize = 64 << 10;
    loop {
        match frame::next_frame(buffer, LIMIT) {
            Ok(Some(frame)) => found.push(frame),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// What a worker process and the daemon say to each other: any bytes are a message or none; and what is a message reads the
/// same again when it is written.
pub fn worker(bytes: &[u8]) {
    if let Ok(command) = Command::decode(bytes) {
        let mut again = Vec::new();
        command.encode(&mut again);
        assert_eq!(again, bytes);
    }
    if let Ok(answer) = Answer::decode(bytes) {
        // A text may have lost its control characters, and a cause that no table has its name: once, not twice.
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        answer.encode(&mut once);
        Answer::decode(&once).expect("an answer read is an answer").encode(&mut twice);
        assert_eq!(once, twice);
    }
}
