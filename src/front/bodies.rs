//! Bodies of requests: who may send a heavy one, and how much all of them together take up.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::Shared;
use super::weight::Scales;
use crate::model::{Caller, Fault, Namespace};

/// Bodies that weigh no more than this are read whoever sends them, and not counted: enough for `sys/init`, and for every
/// request of a lone certificate or signature.
const LIGHT: usize = 64 << 10;
/// Bodies that are handed on as bytes, which anyone may send, are no longer than this: many times an OCSP request.
const SMALL: usize = 4 << 10;
/// What is reserved at a time.
const STEP: usize = 256 << 10;

/// The room for heavy bodies. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bodies(Arc<Room>);

struct Room {
    limit: usize,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    taken: usize,
    /// Of that, what is taken for each namespace.
    of: HashMap<Namespace, usize>,
}

/// What one request has taken of the room; given back when dropped. Kept until the request is answered, since what was read
/// of a body is there as long.
pub(super) struct Held {
    room: Arc<Room>,
    namespace: Namespace,
    bytes: usize,
}

impl Bodies {
    pub(super) fn new(limit: usize) -> Bodies {
        Bodies(Arc::new(Room { limit, books: Mutex::default() }))
    }

    fn hold(&self, namespace: &Namespace) -> Held {
        Held { room: Arc::clone(&self.0), namespace: namespace.tenant(), bytes: 0 }
    }
}

impl Held {
    /// Takes room for so many bytes in all, or says that there is none. The first body of a namespace may take all that is
    /// left; with more, it must leave as much as it has: so others always find room for some of theirs.
    fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let limit = self.room.limit;
        if bytes > limit {
            let what = format!(
                "the body takes more than {limit} bytes once it is read, which is all there is for bodies; send it in \
                 parts, or raise http_bodies_bytes"
            );
            return Err(Fault::TooLarge { what });
        }
        let more = bytes.next_multiple_of(STEP).min(limit) - self.bytes;
        let mut books = self.room.books.lock();
        let own = books.of.get(&self.namespace).copied().unwrap_or(0);
        let left = (limit - books.taken).checked_sub(more).filter(|left| own == self.bytes || own + more <= *left);
        if left.is_none() {
            let what = format!(
                "too little is left of the {limit} bytes there are for the bodies of all requests, of which {} has {own}; send \
                 fewer at once, or raise http_bodies_bytes",
                self.namespace
            );
            return Err(Fault::Unavailable { what });
        }
        books.taken += more;
        *books.of.entry(self.namespace.clone()).or_default() += more;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut books = self.room.books.lock();
        books.taken -= self.bytes;
        if let Some(own) = books.of.get_mut(&self.namespace) {
            *own -= self.bytes;
            if *own == 0 {
                books.of.remove(&self.namespace);
            }
        }
    }
}

/// A body that has arrived.
pub(super) struct Whole {
    pub(super) text: Bytes,
    pub(super) is_form: bool,
    pub(super) held: Held,
}

/// Takes room for what the data of a framed call takes once it is read, and for so many bytes `more`.
pub(super) fn hold(data: &[u8], more: usize, namespace: &Namespace, shared: &Shared) -> Result<Held, Fault> {
    let (mut held, mut scales) = (shared.bodies.hold(namespace), Scales::new(false));
    scales.add(data);
    check_values(&scales, shared.limits.http_body_values)?;
    let bytes = scales.bytes().saturating_add(more);
    if bytes > LIGHT {
        held.grow(bytes)?;
    }
    Ok(held)
}

fn check_values(scales: &Scales, limit: usize) -> Result<(), Fault> {
    if scales.values() <= limit {
        return Ok(());
    }
    let what = format!(
        "the body has more than {limit} values, counting objects, lists and what is in them; send it in parts, or raise \
         http_body_values"
    );
    Err(Fault::TooLarge { what })
}

/// Reads a body to its end, in the time a client has for that. A heavy one is read only of a caller who may come in at all.
pub(super) async fn read(
    body: Incoming,
    may_be_form: bool,
    caller: &Caller,
    namespace: &Namespace,
    shared: &Shared,
) -> Result<Whole, Fault> {
    match tokio::time::timeout(shared.limits.client_io, collect(body, may_be_form, caller, namespace, shared)).await {
        Ok(read) => read,
        Err(_) => Err(Fault::DeadlineExceeded { stage: "arriving" }),
    }
}

async fn collect(
    mut body: Incoming,
    may_be_form: bool,
    caller: &Caller,
    namespace: &Namespace,
    shared: &Shared,
) -> Result<Whole, Fault> {
    let (limit, values) = (shared.limits.http_body_bytes, shared.limits.http_body_values);
    let (mut whole, mut held, mut judged) = (BytesMut::new(), shared.bodies.hold(namespace), false);
    let mut scales = Scales::new(may_be_form);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Fault::invalid(format!("the body broke off: {error}")))?;
        let Ok(bytes) = frame.into_data() else { continue };
        if whole.len() + bytes.len() > limit {
            return Err(Fault::TooLarge { what: format!("the body is over the limit of {limit} bytes") });
        }
        scales.add(&bytes);
        check_values(&scales, values)?;
        if scales.bytes() > LIGHT {
            if !judged {
                shared.door.welcome(caller, namespace)?;
                judged = true;
            }
            held.grow(scales.bytes())?;
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(Whole { text: whole.freeze(), is_form: scales.is_form(), held })
}

/// Reads a small body to its end, whoever sends it.
pub(super) async fn read_small(body: Incoming, shared: &Shared) -> Result<Bytes, Fault> {
    let collected = http_body_util::Limited::new(body, SMALL).collect();
    match tokio::time::timeout(shared.limits.client_io, collected).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Fault::TooLarge { what: format!("the body is over the limit of {SMALL} bytes") })
        }
        Ok(Err(error)) => Err(Fault::invalid(format!("the body broke off: {error}"))),
        Err(_) => Err(Fault::DeadlineExceeded { stage: "arriving" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_bodies_share_a_room_and_give_it_back() {
        let bodies = Bodies::new(4 * STEP);
        let [mut one, mut other] = ["a", "b"].map(|name| bodies.hold(&Namespace::from_path(name)));
        one.grow(STEP + 1).unwrap();
        one.grow(2 * STEP).unwrap();
        assert_eq!(one.bytes, 2 * STEP);
        other.grow(2 * STEP).unwrap();
        let refused = other.grow(2 * STEP + 1).unwrap_err();
        assert!(refused.retryable() && refused.to_string().contains("http_bodies_bytes"), "{refused}");
        drop(one);
        other.grow(4 * STEP).unwrap();
        let never = other.grow(4 * STEP + 1).unwrap_err();
        assert!(!never.retryable() && never.to_string().contains("http_bodies_bytes"), "{never}");
        drop(other);
        assert!(bodies.0.books.lock().taken == 0 && bodies.0.books.lock().of.is_empty());
        // A room that is no multiple of a step can be filled too.
        Bodies::new(STEP + 2).hold(&Namespace::root()).grow(STEP + 1).unwrap();
    }

    #[test]
    fn whatever_a_namespace_holds_others_find_room() {
        let bodies = Bodies::new(64 * STEP);
        let flood = |name: &str| {
            let mut held = Vec::new();
            loop {
                let mut one = bodies.hold(&Namespace::from_path(name));
                match one.grow(STEP) {
                    Ok(()) => held.push(one),
                    Err(refused) => {
                        assert!(refused.retryable() && refused.to_string().contains(name), "{refused}");
                        return held;
                    }
                }
            }
        };
        let loud = flood("loud");
        assert_eq!(loud.len(), 32);
        assert_eq!(flood("other").len(), 16);
        let other = flood("other");
        assert_eq!(flood("third").len(), 8);
        drop((loud, other));
        assert!(bodies.0.books.lock().of.is_empty());
    }
}
