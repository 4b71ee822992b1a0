//! Audit devices: what is asked and what is answered, written down before it counts.
//!
//! While a device is on, a request runs only once one of them has its record, and an answer leaves only once one has that of
//! the answer. Records are formed where the request is served and handed over a bounded queue to the thread of each device,
//! which writes all that waits by one call. They are given to the system, and not forced onto the disk: what the machine
//! loses when its power fails is as much as of any log. Every value in them is an HMAC under a key of the device's own.
//!
//! This room must not know: any wire, any engine, or what a path means.

mod device;
mod devices;
mod entry;
mod file;
mod hash;
mod options;
mod queue;
mod recording;
mod sink;
mod socket;
mod syslog;
#[cfg(test)]
mod tests;
mod ticket;

pub use devices::{Audit, NewDevice, ShownDevice};
pub use recording::{Answered, Asked, Bearer, Place, Recorder, Recording};
pub use ticket::Taken;
