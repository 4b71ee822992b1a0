//! Bodies of HTTP requests: who may send a long one, and how much all of them together take up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Shared;
use crate::model::{Caller, Fault, Namespace};

/// Bodies up to this are read whoever sends them, and not counted: enough for `sys/init`, and for every request of a lone
/// certificate or signature.
const SHORT: usize = 64 << 10;
/// What is reserved at a time.
const STEP: usize = 256 << 10;

/// The room for long bodies. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bodies(Arc<Room>);

struct Room {
    limit: usize,
    taken: AtomicUsize,
}

/// What one request has taken of the room; given back when dropped. Kept until the request is answered, since what was read
/// of a body is as long.
pub(super) struct Held {
    room: Arc<Room>,
    bytes: usize,
}

impl Bodies {
    pub(super) fn new(limit: usize) -> Bodies {
        Bodies(Arc::new(Room { limit, taken: AtomicUsize::new(0) }))
    }

    fn hold(&self) -> Held {
        Held { room: Arc::clone(&self.0), bytes: 0 }
    }
}

impl Held {
    /// Takes room for so many bytes in all, or says that there is none.
    fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let more = more.next_multiple_of(STEP);
        let limit = self.room.limit;
        let taken = self.room.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(more).filter(|taken| *taken <= limit)
        });
        if taken.is_err() {
            let what = format!(
                "the bodies of requests take up {limit} bytes already; send fewer at once, or raise http_bodies_bytes"
            );
            return Err(Fault::Unavailable { what });
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body to its end, in the time a client has for that. A long one is read only of a caller who may come in at all.
pub(super) async fn read(
    body: Incoming,
    caller: &Caller,
    namespace: &Namespace,
    shared: &Shared,
) -> Result<(Bytes, Held), Fault> {
    match tokio::time::timeout(shared.limits.client_io, collect(body, caller, namespace, shared)).await {
        Ok(read) => read,
        Err(_) => Err(Fault::DeadlineExceeded { stage: "arriving" }),
    }
}

async fn collect(
    mut body: Incoming,
    caller: &Caller,
    namespace: &Namespace,
    shared: &Shared,
) -> Result<(Bytes, Held), Fault> {
    let limit = shared.limits.http_body_bytes;
    let (mut whole, mut held, mut judged) = (BytesMut::new(), shared.bodies.hold(), false);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Fault::invalid(format!("the body broke off: {error}")))?;
        let Ok(bytes) = frame.into_data() else { continue };
        let len = whole.len() + bytes.len();
        if len > limit {
            return Err(Fault::TooLarge { what: format!("the body is over the limit of {limit} bytes") });
        }
        if len > SHORT {
            if !judged {
                shared.door.welcome(caller, namespace)?;
                judged = true;
            }
            held.grow(len)?;
        }
        whole.extend_from_slice(&bytes);
    }
    Ok((whole.freeze(), held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_bodies_share_a_room_and_give_it_back() {
        let bodies = Bodies::new(4 * STEP);
        let (mut one, mut other) = (bodies.hold(), bodies.hold());
        one.grow(STEP + 1).unwrap();
        one.grow(2 * STEP).unwrap();
        assert_eq!(one.bytes, 2 * STEP);
        other.grow(2 * STEP).unwrap();
        let refused = other.grow(2 * STEP + 1).unwrap_err();
        assert!(refused.retryable() && refused.to_string().contains("http_bodies_bytes"), "{refused}");
        drop(one);
        other.grow(4 * STEP).unwrap();
        drop(other);
        assert_eq!(bodies.0.taken.load(Ordering::Relaxed), 0);
    }
}
