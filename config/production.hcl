# A CA in production: two makes of HSM, a pool that outlives the loss of either, two teams, and a web server that hands out the
# CRLs. keyway.service runs it. Change it and `systemctl reload keyway`: libraries, pools, their PINs and the limits of calls are
# taken over at once; the log names what needs a restart.

# Vault's HTTP API, for the operators and clients that are in the group.
listener "unix" {
  address      = "/run/keyway/keyway.sock"
  socket_mode  = "0660"
  socket_group = "keyway"
}

# The framed API, for whoever issues certificates or signs by the thousand.
listener "unix" {
  address      = "/run/keyway/keyway.sock.framed"
  protocol     = "framed"
  socket_mode  = "0660"
  socket_group = "keyway"
}

storage "redb" {
  path = "/var/lib/keyway/keyway.redb"
}

# Back it up apart from the store: one is worth nothing without the other.
seal "file" {
  path = "/var/lib/keyway/seal.key"
}

kms_library "pkcs11" {
  name    = "luna"
  library = "/usr/safenet/lunaclient/lib/libCryptoki2_64.so"
  profile = "luna"
  # From the unit's LoadCredential=. A PIN by "file:" is read at each reload; a credential when the unit starts.
  pin     = "credential:luna-pin"

  # Worker processes are the default of both profiles: a crash or hang of the vendor's code costs one of them.
  env = {
    ChrystokiConfigurationPath = "/etc/luna"
  }
}

kms_library "pkcs11" {
  name              = "nshield"
  library           = "/opt/nfast/toolkits/pkcs11/libcknfast.so"
  profile           = "nshield"
  pin               = "credential:nshield-pin"
  verify_after_sign = "always" # costs this host a verification each; the HSM nothing
}

# The CA's keys, in all three tokens. Keyway generates a key on one of them; copying it to the others is the vendors' tools' work.
# A key that only one make can hold names its token instead: library = "luna", token_label = "ca-1".
kms_pool "ca" {
  member {
    library     = "luna"
    token_label = "ca-1"
  }

  member {
    library     = "luna"
    token_label = "ca-2"
  }

  member {
    library      = "nshield"
    token_label  = "ca"
    max_sessions = 16
  }
}

namespace "issuing" {
  weight = 3
}

namespace "documents" {}

limits {
  # Below what clients wait for, so that they are told rather than left.
  deadline     = "5s"
  deadline_max = "30s"

  # A load balancer's patience with a host that goes.
  drain = "15s"

  # The hosts' own users; the group's clients keep their connections.
  connections         = 8192
  connections_per_uid = 4096

  # Two seconds of what the pool signs.
  lane_jobs               = 8192
  lane_jobs_per_namespace = 4096
}

# Prometheus scrapes it; dashboards/ has the alerts.
telemetry {
  prometheus_listener = "127.0.0.1:9464"
}

# CA certificates and CRLs, for any web server.
publish_dir = "/var/lib/keyway/published"

log_level  = "info"
log_format = "json"
