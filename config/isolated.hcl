# An HSM whose vendor's library runs in worker processes: its crash or hang costs the restart of one of them. Profile `luna` has
# one worker a token unless told; this has two. `isolation = "none"` would have the library in the daemon.

listener "unix" {
  address      = "/run/keyway/keyway.sock"
  socket_mode  = "0660"
  socket_group = "keyway"
}

storage "redb" {
  path = "/var/lib/keyway/keyway.redb"
}

seal "file" {
  path = "/var/lib/keyway/seal.key"
}

kms_library "pkcs11" {
  name    = "luna"
  library = "/usr/safenet/lunaclient/lib/libCryptoki2_64.so"
  profile = "luna"
  pin     = "env:KEYWAY_LUNA_PIN" # Taken out of the workers' environment: they are told it over a socket pair.

  isolation = "process" # the default of this profile
  workers   = 2 # of each token; the others log in only once the first has

  # For the workers only, beside the daemon's own environment.
  env = {
    ChrystokiConfigurationPath = "/etc/luna"
  }
}

telemetry {
  prometheus_listener = "127.0.0.1:9464"
}
