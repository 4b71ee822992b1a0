//! Keyway: private keys that live in HSMs, for the programs of a host. The README is for those who run it; this is the map
//! for those who change it.
//!
//! # The journey of one request
//!
//! ```text
//! client ─ Unix socket ─► front ─► dispatch ─► engine ─► managed_keys ─► lane ─► session thread ─► C_Sign
//! ```
//!
//! [`front`] turns bytes into one [`model::Operation`], and one [`model::Outcome`] into bytes. [`dispatch`] admits it, asks
//! [`identity`] who comes and [`namespace`] what is mounted where, runs it, and counts how it ended. An [`engine`] knows what
//! "issue" and "sign" mean; a managed key is a handle to it, from [`managed_keys`]. The handle's route leads to the lane of a
//! pool, in [`supervisor`], from which the session threads of its members pull, in fair order, what they have proven to hold the
//! key for; they call the [`backend`]. The answer goes back to
//! the task that waits for it, many to one wake-up.
//!
//! # The rooms
//!
//! Each may name only those above it in this list that its entry in `tests/tidy.rs` allows.
//!
//! - [`model`]: the nouns. No I/O, no runtime.
//! - [`wire`]: frames, protobuf messages and Vault's JSON envelope: what front and client share.
//! - [`config`]: the configuration file, validated.
//! - [`crypto`]: public keys, digests, and the checking of signatures in software.
//! - [`socket`]: a Unix socket of a runtime, on either side.
//! - [`apart`]: what takes a request long to compute, in turn by namespace.
//! - [`pace`]: how the daemon's threads share the cores with tokens that compute on them.
//! - [`telemetry`]: every metric in one list; logs.
//! - [`store`]: encrypted records with versions, in one file, many commits to a transaction.
//! - [`backend`]: kinds of places where keys live: PKCS#11, in this process or in workers, and keys in memory for measuring.
//! - [`supervisor`]: actors that own tokens, the lanes of their pools, and their session threads.
//! - [`managed_keys`]: named keys: settings, bindings, first use, handles.
//! - [`namespace`], [`identity`]: tenants, their mounts and quotas; tokens and policies.
//! - [`audit`]: devices that record what is asked and answered, before it counts.
//! - [`engine`]: PKI and Transit, which know nothing of each other.
//! - [`system`]: the `sys/*` paths.
//! - [`dispatch`], [`front`]: the way in.
//! - [`daemon`]: assembles all this from below, has the configuration read again while it serves, and takes it down from above.
//! - [`client`]: the client of both wires. [`cli`]: the `keyway` command.
//!
//! # What always holds
//!
//! - Every job is answered exactly once, if need be by being dropped. What may run twice runs again elsewhere when a token fails it.
//! - A member uses a key for nobody before it has proven, in this login, that it holds it; and a session encrypts, decrypts and
//!   makes MACs with no handle that has not proven itself in it.
//! - Every queue has a bound, and whoever meets it is told at once. Nothing on the way in waits.
//! - Requests read snapshots; only actors change what they show. No lock is held across an await.
//! - A certificate leaves after its record is durable; a CRL after its number is. A revocation is forgotten only after a CRL
//!   made past its certificate's end has listed it. No CRL is made before every revocation is in memory.
//! - One login call for a wrong PIN, ever. Secrets are in no log, error or metric.
pub mod apart;
pub mod audit;
pub mod backend;
pub mod cli;
pub mod client;
pub mod config;
pub mod crypto;
pub mod daemon;
pub mod dispatch;
pub mod engine;
pub mod front;
pub mod identity;
pub mod managed_keys;
pub mod model;
pub mod namespace;
pub mod pace;
pub mod socket;
pub mod store;
pub mod supervisor;
pub mod system;
pub mod telemetry;
pub mod wire;
