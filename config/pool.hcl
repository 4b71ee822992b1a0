# A CA whose keys are in two partitions of an HSM, and two teams that share them three to one.

listener "unix" {
  address      = "/run/keyway/keyway.sock"
  socket_mode  = "0660"
  socket_group = "keyway"
}

listener "unix" {
  address      = "/run/keyway/keyway.sock.framed"
  protocol     = "framed"
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
  name              = "luna"
  library           = "/usr/safenet/lunaclient/lib/libCryptoki2_64.so"
  profile           = "luna"
  pin               = "env:KEYWAY_LUNA_PIN"
  verify_after_sign = "always" # costs this host a verification each; the HSM nothing
}

# Managed keys name the pool as their library. Each key must be on both partitions: generate it on one, and copy it to the
# other with the vendor's tool.
kms_pool "ca" {
  member {
    library     = "luna"
    token_label = "ca-1"
  }

  member {
    library      = "luna"
    token_label  = "ca-2"
    max_sessions = 16
  }
}

namespace "team-a" {
  weight = 3
}

namespace "team-b" {}

telemetry {
  prometheus_listener = "127.0.0.1:9464"
}

# Enough for two seconds of one partition's work.
limits {
  lane_jobs               = 4096
  lane_jobs_per_namespace = 2048
}
