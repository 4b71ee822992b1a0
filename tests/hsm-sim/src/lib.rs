//! hsm-sim: a PKCS#11 module for tests; not built yet.
