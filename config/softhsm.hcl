# A CA on one host, its keys in a SoftHSM2 token. For a real HSM, change `library` and `profile`.

# Vault's HTTP API: for operators, and for clients made for Vault.
listener "unix" {
  address      = "/run/keyway/keyway.sock"
  protocol     = "http"
  socket_mode  = "0660"
  socket_group = "keyway"
}

# The framed API, which `keyway pki sign-batch` and fast clients use.
listener "unix" {
  address      = "/run/keyway/keyway.sock.framed"
  protocol     = "framed"
  socket_mode  = "0660"
  socket_group = "keyway"
}

storage "redb" {
  path = "/var/lib/keyway/keyway.redb"
}

# The root key of the store. Back it up apart from the store: one is worth nothing without the other.
seal "file" {
  path = "/var/lib/keyway/seal.key"
}

# Managed keys name this library. With a `pin` here, they need none of their own.
kms_library "pkcs11" {
  name    = "softhsm"
  library = "/usr/lib/softhsm/libsofthsm2.so"
  profile = "softhsm"
  pin     = "env:KEYWAY_SOFTHSM_PIN" # also "file:/path" and, under systemd, "credential:NAME"
  # Runs in worker processes, one a core: isolation = "none" would have it in the daemon.
}

telemetry {
  prometheus_listener = "127.0.0.1:9464"
}

# CA certificates and CRLs are written below this folder, for any web server to hand out.
publish_dir = "/var/lib/keyway/published"

# Every bound has a safe default; these are two of them.
limits {
  deadline = "5s"
  drain    = "15s"
}

log_level  = "info"
log_format = "json"
