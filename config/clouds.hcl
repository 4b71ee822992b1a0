# Keys in AWS KMS, Azure Key Vault and Google Cloud KMS. Without its stanza a service is there all the same, with the defaults.
listener "unix" {
  address     = "unix:///run/keyway/keyway.sock"
  socket_mode = "0660"
}

listener "unix" {
  address     = "unix:///run/keyway/framed.sock"
  protocol    = "framed"
  socket_mode = "0660"
}

storage "redb" {
  path = "/var/lib/keyway/keyway.redb"
}

seal "file" {
  path = "/var/lib/keyway/seal.key"
}

# A tenant with keys in the daemon's own AWS account. It could bring credentials of its own without being named anywhere.
namespace "team-a" {}

kms_service "awskms" {
  namespaces      = ["root", "team-a"]
  own_credentials = ["team-a"]

  # Others use the account's quota, too: half of what AWS allows.
  quota "rsa" {
    per_second = 500
  }
  quota "ecc" {
    per_second = 500
  }
}

kms_service "azurekeyvault" {
  namespaces        = ["root"]
  verify_after_sign = "always"
}

kms_service "gcpckms" {
  namespaces = ["root"]
  call       = "2s"

  # For bursts: so many connections are there ahead of need, and kept behind a gateway that ends idle ones after 30 s.
  warm_connections = 8
  warm_interval    = "20s"
}

telemetry {
  prometheus_listener = "127.0.0.1:9464"
}
