//! Answers already signed, kept so that a flood of the same questions costs few signatures.

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

/// What an entry takes beside its key and its answer: the map, the links, the allocations.
const ENTRY_BYTES: usize = 200;

/// Signed answers to requests without nonce for one certificate, those asked for least lately dropped first.
pub(super) struct Cache {
    bytes_max: usize,
    state: Mutex<State>,
}

struct State {
    /// By the DER of the CertID, which says issuer, serial number and hash.
    answers: LruCache<Vec<u8>, Kept>,
    bytes: usize,
    /// Counts how often all was forgotten.
    generation: u64,
}

/// A signed answer, and while what it may be given again.
pub(super) struct Kept {
    pub(super) answer: Bytes,
    /// Unix seconds.
    pub(super) until: u64,
    /// When the certificate was revoked, if the answer says so.
    pub(super) revoked: Option<u64>,
}

impl Cache {
    /// An empty one that takes so many bytes at most.
    pub(super) fn new(bytes_max: usize) -> Cache {
        Cache { bytes_max, state: Mutex::new(State { answers: LruCache::unbounded(), bytes: 0, generation: 0 }) }
    }

    /// The answer for a certificate that was revoked then, or is not revoked. One that says anything else is never given.
    pub(super) fn get(&self, id: &[u8], now: u64, revoked: Option<u64>) -> Option<Bytes> {
        let mut state = self.state.lock();
        let kept = state.answers.get(id)?;
        if now < kept.until && kept.revoked == revoked {
            return Some(kept.answer.clone());
        }
        state.remove(id);
        None
    }

    /// To be asked for before an answer is made of what may change.
    pub(super) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Keeps an answer, unless all was forgotten since `generation`.
    pub(super) fn keep(&self, generation: u64, id: &[u8], kept: Kept) {
        let mut state = self.state.lock();
        if state.generation != generation {
            return;
        }
        state.remove(id);
        state.bytes += size(id, &kept);
        state.answers.put(id.to_vec(), kept);
        while state.bytes > self.bytes_max {
            let Some((id, kept)) = state.answers.pop_lru() else { break };
            state.bytes -= size(&id, &kept);
        }
    }

    /// Drops everything, and whatever is being made.
    pub(super) fn forget(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.bytes = 0;
        state.answers.clear();
    }
}

impl State {
    fn remove(&mut self, id: &[u8]) {
        if let Some((id, kept)) = self.answers.pop_entry(id) {
            self.bytes -= size(&id, &kept);
        }
    }
}

fn size(id: &[u8], kept: &Kept) -> usize {
    ENTRY_BYTES + id.len() + kept.answer.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: usize, revoked: Option<u64>) -> Kept {
        Kept { answer: vec![7; bytes].into(), until: 100, revoked }
    }

    #[test]
    fn an_answer_is_given_while_it_is_true_and_fresh() {
        let cache = Cache::new(1 << 20);
        cache.keep(cache.generation(), b"a", kept(10, None));
        assert!(cache.get(b"a", 99, None).is_some() && cache.get(b"b", 99, None).is_none());
        assert!(cache.get(b"a", 99, Some(5)).is_none(), "revoked since");
        assert!(cache.get(b"a", 99, None).is_none(), "gone with that");
        cache.keep(cache.generation(), b"a", kept(10, Some(5)));
        assert!(cache.get(b"a", 99, Some(5)).is_some() && cache.get(b"a", 100, Some(5)).is_none());
        assert_eq!(cache.state.lock().bytes, 0);
    }

    #[test]
    fn what_was_begun_before_all_was_forgotten_is_not_kept() {
        let cache = Cache::new(1 << 20);
        let before = cache.generation();
        cache.forget();
        cache.keep(before, b"a", kept(10, None));
        assert!(cache.get(b"a", 0, None).is_none());
    }

    #[test]
    fn it_takes_no_more_than_it_may_and_drops_what_is_asked_for_least() {
        let cache = Cache::new(3 * (ENTRY_BYTES + 101));
        for id in [b"a", b"b", b"c"] {
            cache.keep(cache.generation(), id, kept(100, None));
        }
        assert!(cache.get(b"a", 0, None).is_some());
        cache.keep(cache.generation(), b"d", kept(100, None));
        let present = [b"a", b"b", b"c", b"d"].map(|id| cache.get(id, 0, None).is_some());
        assert_eq!(present, [true, false, true, true]);
        assert_eq!(cache.state.lock().bytes, 3 * (ENTRY_BYTES + 101));
        // One larger than all the room is not kept at all.
        cache.keep(cache.generation(), b"e", kept(10_000, None));
        let state = cache.state.lock();
        assert_eq!((state.bytes, state.answers.len()), (0, 0));
    }
}
