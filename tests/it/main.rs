//! Stories of Keyway as its users live them: a real daemon, a real token, real sockets, openssl as the judge.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must say so")]

mod audit;
mod audit_faults;
mod authorities;
mod batches;
mod bench;
mod bulk;
mod client_tokens;
mod clients;
mod codes;
mod corpus;
mod daemon;
mod deaths;
mod encryption;
mod endpoints;
mod fairness;
mod hardware;
mod hostile;

mod isolation;
mod leases;
mod lengths;
mod life;
mod lint;
mod load;
mod losses;
mod names;
mod namespaces;
mod observed;
mod ocsp;
mod openssl;
mod outages;
mod own_keys;
mod own_rsa;
mod pins;
mod policies;
mod pools;
mod post_quantum;
mod python;
mod quotas;
mod reload;
mod rig;
mod signing;
mod sim;
mod storage;
mod tenants;
#[path = "../tidy.rs"]
mod tidy;
mod tidying;
mod token;
mod tokens;
mod transit_certificates;
mod wrong_keys;
