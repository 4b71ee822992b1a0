//! Knows every member (one HSM slot, in this process or in a worker's), its health and its keys; starts, restarts and retires
//! members, and publishes the routes requests follow: from a managed key to the lane of a pool and a key set.
//!
//! Control is actors: [`Supervisor`] is the handle of one (`overseer.rs`) that knows a slot actor per member. Data is threads: requests
//! push jobs into a pool's bounded lane, and the session threads of its members pull them. Nothing of a request passes an actor.
//!
//! Who looks for…
//! - the order of service: `schedule.rs`; the queue around it, and who is woken: `lane.rs`; failed jobs that wait for their
//!   next try: `resting.rs`; members that are left alone for a while: `shut.rs`
//! - leave for operations that flow control gives: `admission.rs`
//! - tokens that compute on this host's cores: `computing.rs`
//! - what happens when something fails: one job in `session_thread.rs`, a member in `health.rs` (the machine),
//!   `slot_actor.rs` and `coming_up.rs` (what it does), calls that hang in `watchdog.rs`
//! - which member holds which key: `slot_keys.rs`, `route.rs`; a key's first use: `first_use.rs`
//! - keys that guard the store and are no managed key's: `guarded.rs`
//! - which tokens are in use, and since when: `pools.rs`; how one is let go of: `leaving.rs`;
//!   one that has two names: `same_token.rs`
//! - being sealed: `unloading.rs`
//! - another configuration: `reconfigure.rs`, and what it makes of the table of pools: `regroup.rs`
//! - PINs: `pins.rs`, `login.rs`
//! - what is seen of it all from outside: `view.rs`
//!
//! This room must not know: engines, mounts, wires, or any backend but by its trait.

mod check_value;
mod checks;
mod coming_up;
mod computing;
mod control;
mod first_use;
mod guarded;
mod health;
#[cfg(test)]
mod health_tests;
mod job;
mod lane;
#[cfg(test)]
mod lane_bytes_tests;
mod lane_limits;
#[cfg(test)]
mod lane_retries_tests;
#[cfg(test)]
mod lane_seats_tests;
#[cfg(test)]
mod lane_shuttle;
#[cfg(test)]
mod lane_tests;
mod learning;
mod leaving;
mod login;
#[doc(hidden)]
pub mod measure;
mod overseer;
#[cfg(test)]
mod overseer_tests;
mod pins;
mod pool;
mod pools;
#[cfg(test)]
mod pools_tests;
mod presence;
mod proof;
mod reconfigure;
mod regroup;
#[cfg(test)]
mod regroup_tests;
mod resting;
mod route;
mod same_token;
mod seats;
mod seen;
mod session_thread;
mod shut;
mod slot_actor;
mod slot_keys;
#[cfg(test)]
mod slot_keys_tests;
#[expect(clippy::module_inception, reason = "the supervisor is the noun of this room, and one of its files")]
mod supervisor;
mod sync;
mod together;
mod unloading;
mod view;
mod watch;
mod watchdog;

// What a key specification is made of: whoever writes one needs no other word of the backend's.
pub use crate::backend::{KeySelector, KeyTemplate};
pub use guarded::{GuardName, Guarded};
pub use job::Pending;
#[cfg(test)]
pub(crate) use pins::NoMemory;
pub use pins::{PinHash, PinMemory};
pub use route::{FoundAt, KeyRoute, KeySpec, PreparedKey};
pub use supervisor::{Change, Library, LibraryInfo, Plan, Remade, Supervisor};
pub use together::together;
pub use view::KeyPlace;
