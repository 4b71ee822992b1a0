# Everything below one folder, for trying things out by hand with a SoftHSM2 token of your own.
# `keyway server -dev` does the same without a file, and makes the token too.
#
#   softhsm2-util --init-token --free --label keyway-dev --so-pin 12345678 --pin 1234
#   mkdir -p /tmp/keyway && keyway server -config config/dev.hcl

listener "unix" {
  address = "/tmp/keyway/keyway.sock"
}

listener "unix" {
  address  = "/tmp/keyway/keyway.sock.framed"
  protocol = "framed"
}

storage "redb" {
  path = "/tmp/keyway/keyway.redb"
}

seal "file" {
  path = "/tmp/keyway/seal.key"
}

kms_library "pkcs11" {
  name    = "dev"
  library = "/usr/lib/softhsm/libsofthsm2.so"
  profile = "softhsm"
  pin     = "1234" # A PIN in the file is warned about: see softhsm.hcl.
}

telemetry {
  prometheus_listener = "127.0.0.1:9464"
}

publish_dir = "/tmp/keyway/published"
log_level   = "debug"
