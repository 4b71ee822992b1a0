# The root key of the store wrapped by a key in the HSM: without the HSM the store is worth nothing. A start while the HSM is away
# is sealed, says so in the log and in sys/health, and unseals by itself when it is back.

listener "unix" {
  address      = "/run/keyway/keyway.sock"
  socket_mode  = "0660"
  socket_group = "keyway"
}

storage "redb" {
  path = "/var/lib/keyway/keyway.redb"
}

seal "pkcs11" {
  library      = "luna" # the name of a kms_library, or the path of a shared object
  token_label  = "ca-1" # or serial, or slot
  key_label    = "keyway-seal"
  generate_key = true # AES of 256 bits, sensitive, not extractable; made for a new store only. Back it up as the vendor says.
}

# To come from a key file: keep its stanza for one start, disabled. Then take it out, and keep the file as long as any copy of the
# store from before.
#
# seal "file" {
#   path     = "/var/lib/keyway/seal.key"
#   disabled = true
# }

kms_library "pkcs11" {
  name    = "luna"
  library = "/usr/safenet/lunaclient/lib/libCryptoki2_64.so"
  profile = "luna"
  pin     = "env:KEYWAY_LUNA_PIN"
}

telemetry {
  prometheus_listener = "127.0.0.1:9464"
}
