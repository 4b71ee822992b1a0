//! Knows every member (one HSM slot each), its health and its keys; starts, restarts and retires members, and publishes
//! the routes requests follow: from a managed key to a lane and a key set.
//!
//! Control is actors ([`Supervisor`] stands before one); the data path is a bounded [`lane`] that session threads pull
//! from. This room must not know: engines, mounts, wires, or any backend but by its trait.

mod route;

pub use route::{KeyRoute, KeySpec, Pending, PreparedKey};
