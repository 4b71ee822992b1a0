"""What hvac offers that Keyway has, over Keyway's socket.

Usage: hvac_story.py SOCKET TOKEN LABEL. The daemon has a token of this label in the library `hsm`, and the managed keys `ca` and `next-ca` (P-256), `documents` (RSA-2048, PKCS#1 v1.5),
`aes` and `next-aes` (AES-256, GCM) and `mac` (HMAC-SHA-256), which every mount may use.
"""

import base64
import sys

import hvac.exceptions as errors
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.x509.oid import NameOID

from vault import client as vault_client


def b64(data):
    return base64.b64encode(data).decode()


def refused(error, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except error as found:
        return str(found)
    raise AssertionError(f"{call.__qualname__} was not refused with {error.__name__}")


def request(name, san=True):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def certificate(pem):
    return x509.load_pem_x509_certificate(pem.encode())


def system(client, socket):
    assert client.is_authenticated() and client.sys.is_initialized() and not client.sys.is_sealed()
    assert client.sys.read_health_status(method="GET")["initialized"]
    assert client.sys.read_seal_status()["sealed"] is False
    assert client.auth.token.lookup_self()["data"]["policies"] == ["root"]
    for engine in ("pki", "transit"):
        client.sys.enable_secrets_engine(engine, path=engine, config={"max_lease_ttl": "87600h"})
    client.sys.enable_secrets_engine("pki", path="lower", config={"max_lease_ttl": "87600h"})
    mounts = client.sys.list_mounted_secrets_engines()["data"]
    assert {"pki/", "lower/", "transit/"} <= set(mounts)
    client.sys.tune_mount_configuration("pki", default_lease_ttl="24h", description="the root")
    assert client.sys.read_mount_configuration("pki")["data"]["default_lease_ttl"] == 86400
    refused(errors.InvalidRequest, client.sys.enable_secrets_engine, "pki", path="pki")
    refused(errors.InvalidPath, client.secrets.transit.read_key, "nobody")
    refused(errors.Forbidden, vault_client(socket, "wrong").sys.list_mounted_secrets_engines)
    managed = client.list("sys/managed-keys/pkcs11")["data"]["keys"]
    assert {"ca", "documents", "aes", "mac"} <= set(managed)
    assert client.read("sys/managed-keys/pkcs11/ca")["data"]["pin"] in ("", "redacted")
    assert client.read("sys/managed-keys/pkcs11/nobody") is None


def snapshots(client):
    client.sys.create_or_update_policy("saved", 'path "a" { capabilities = ["read"] }')
    with client.sys.take_raft_snapshot() as taken:
        assert taken.status_code == 200
        snapshot = taken.content
    client.sys.create_or_update_policy("later", 'path "a" { capabilities = ["read"] }')
    refused(errors.InvalidRequest, client.sys.restore_raft_snapshot, snapshot[:-1])
    assert client.sys.restore_raft_snapshot(snapshot).status_code == 204
    assert client.sys.force_restore_raft_snapshot(snapshot).status_code == 204
    names = client.sys.list_policies()["data"]["keys"]
    assert "saved" in names and "later" not in names
    client.sys.delete_policy("saved")


def tokens(client, socket):
    made = client.auth.token
    auth = made.create(policies=["root"], ttl="1h", meta={"of": "a job"}, display_name="job")["auth"]
    assert auth["policies"] == ["root"] and auth["renewable"] and auth["lease_duration"] == 3600
    own = vault_client(socket, auth["client_token"])
    known = own.auth.token.lookup_self()["data"]
    assert known["meta"] == {"of": "a job"} and known["display_name"] == "token-job" and 0 < known["ttl"] <= 3600
    assert made.lookup(auth["client_token"])["data"]["accessor"] == auth["accessor"]
    assert made.lookup_accessor(auth["accessor"])["data"]["policies"] == ["root"]
    assert auth["accessor"] in made.list_accessors()["data"]["keys"]
    assert made.renew(auth["client_token"], increment="2h")["auth"]["client_token"] == auth["client_token"]
    assert own.auth.token.renew_self(increment="30m")["auth"]["lease_duration"] == 1800
    assert made.renew_accessor(auth["accessor"])["auth"]["lease_duration"] == 3600
    assert "lease is not renewable" in refused(errors.InvalidRequest, made.renew_self)
    below = own.auth.token.create(ttl="1h")["auth"]
    beside = own.auth.token.create_orphan(ttl="1h")["auth"]
    assert beside["orphan"] and not below["orphan"]
    own.auth.token.revoke_self()
    assert "permission denied" in refused(errors.Forbidden, own.auth.token.lookup_self)
    assert "bad token" in refused(errors.Forbidden, made.lookup, below["client_token"])
    assert "invalid accessor" in refused(errors.Forbidden, made.lookup_accessor, below["accessor"])
    child = vault_client(socket, beside["client_token"]).auth.token.create(ttl="1h")["auth"]
    made.revoke_and_orphan_children(beside["client_token"])
    assert made.lookup(child["client_token"])["data"]["orphan"]
    made.revoke_accessor(child["accessor"])
    made.revoke(child["client_token"])
    made.create_or_update_role("ci", allowed_policies=["ops"], orphan=True, token_period=300)
    assert made.read_role("ci")["data"]["allowed_policies"] == ["ops"] and made.list_roles()["data"]["keys"] == ["ci"]
    by_role = made.create(role_name="ci")["auth"]
    assert by_role["policies"] == ["default", "ops"] and by_role["lease_duration"] == 300
    poor = vault_client(socket, by_role["client_token"])
    refused(errors.Forbidden, poor.sys.list_mounted_secrets_engines)
    made.delete_role("ci")
    refused(errors.InvalidPath, made.read_role, "ci")
    refused(errors.InvalidRequest, made.create, type="batch")


def wrapping(client, socket):
    info = client.sys.wrap({"a": "secret"}, ttl=60)["wrap_info"]
    assert info["ttl"] == 60 and info["creation_path"] == "sys/wrapping/wrap"
    known = client.write_data("sys/wrapping/lookup", data={"token": info["token"]})["data"]
    assert known["creation_ttl"] == 60 and known["creation_time"] == info["creation_time"]
    assert vault_client(socket, info["token"]).sys.unwrap()["data"] == {"a": "secret"}
    assert "wrapping token is not valid" in refused(errors.InvalidRequest, client.sys.unwrap, info["token"])
    wrapped = client.auth.token.create(ttl="1h", wrap_ttl="60s")
    assert wrapped["auth"] is None
    token = client.sys.unwrap(wrapped["wrap_info"]["token"])["auth"]["client_token"]
    assert client.auth.token.lookup(token)["data"]["accessor"] == wrapped["wrap_info"]["wrapped_accessor"]


def authority(client):
    pki = client.secrets.pki
    root = pki.generate_root("kms", "hvac Root", {"managed_key_name": "ca", "ttl": "87600h"})["data"]
    root_certificate = certificate(root["certificate"])
    assert root_certificate.subject.rfc4514_string() == "CN=hvac Root"
    refused(errors.InvalidRequest, pki.generate_root, "exported", "Nobody's")
    assert certificate(pki.read_ca_certificate()) == root_certificate
    assert certificate(pki.read_ca_certificate_chain()) == root_certificate
    urls = {"issuing_certificates": ["http://ca.example/ca"], "crl_distribution_points": ["http://ca.example/crl"]}
    pki.set_urls(urls)
    assert pki.read_urls()["data"]["issuing_certificates"] == urls["issuing_certificates"]
    issuers = pki.list_issuers()["data"]
    assert issuers["keys"] == [root["issuer_id"]] and issuers["key_info"][root["issuer_id"]]["is_default"]
    pki.update_issuer("default", {"issuer_name": "top"})
    assert pki.read_issuer("top")["data"]["issuer_id"] == root["issuer_id"]
    refused(errors.InvalidRequest, pki.read_issuer, "nobody")
    return root_certificate


def intermediate(client, root_certificate):
    pki = client.secrets.pki
    asked = pki.generate_intermediate("kms", "hvac Lower", {"managed_key_name": "next-ca"}, mount_point="lower")
    signed = pki.sign_intermediate(asked["data"]["csr"], "hvac Lower", {"ttl": "8760h"})["data"]
    lower = certificate(signed["certificate"])
    lower.verify_directly_issued_by(root_certificate)
    pki.set_signed_intermediate(signed["certificate"] + "\n" + signed["issuing_ca"], mount_point="lower")
    role = {"allowed_domains": "example.com", "allow_subdomains": True, "key_type": "ec", "ttl": "72h"}
    pki.create_or_update_role("web", role, mount_point="lower")
    assert pki.list_roles(mount_point="lower")["data"]["keys"] == ["web"]
    assert pki.read_role("web", mount_point="lower")["data"]["ttl"] == 72 * 3600
    pki.sign_self_issued(root_certificate.public_bytes(serialization.Encoding.PEM).decode())
    return lower


def leaves(client, lower):
    pki = client.secrets.pki
    issued = pki.sign_certificate("web", request("a.example.com"), "a.example.com", mount_point="lower")["data"]
    certificate(issued["certificate"]).verify_directly_issued_by(lower)
    assert len(issued["ca_chain"]) == 2
    refused(errors.InvalidRequest, pki.sign_certificate, "web", request("a.other.org"), "a.other.org", mount_point="lower")
    refused(errors.InvalidRequest, pki.sign_certificate, "nobody", request("a.b"), "a.b", mount_point="lower")
    verbatim = pki.sign_verbatim(request("anything.local"), mount_point="lower")["data"]
    certificate(verbatim["certificate"]).verify_directly_issued_by(lower)
    made = pki.generate_certificate("web", "b.example.com", mount_point="lower")["data"]
    key = serialization.load_pem_private_key(made["private_key"].encode(), None)
    assert key.public_key() == certificate(made["certificate"]).public_key() and made["private_key_type"] == "ec"
    read = pki.read_certificate(issued["serial_number"], mount_point="lower")["data"]
    assert certificate(read["certificate"]) == certificate(issued["certificate"]) and read["revocation_time"] == 0
    assert issued["serial_number"] in pki.list_certificates(mount_point="lower")["data"]["keys"]
    refused(errors.InvalidPath, pki.read_certificate, "7f:01", mount_point="lower")
    return issued["serial_number"]


def leases(client):
    pki, system = client.secrets.pki, client.sys
    role = {"allowed_domains": "example.com", "allow_subdomains": True, "key_type": "ec", "generate_lease": True}
    pki.create_or_update_role("leased", role, mount_point="lower")
    made = [pki.generate_certificate("leased", f"{name}.example.com", mount_point="lower") for name in "abc"]
    serials = [answer["data"]["serial_number"] for answer in made]
    one = made[0]["lease_id"]
    assert one == "lower/issue/leased/" + serials[0].replace(":", "")
    assert made[0]["lease_duration"] > 86400 and made[0]["renewable"] is False
    known = system.read_lease(one)["data"]
    assert known["id"] == one and known["renewable"] is False and 0 < known["ttl"] <= made[0]["lease_duration"]
    assert system.list_leases("lower/issue/")["data"]["keys"] == ["leased/"]
    assert len(system.list_leases("lower/issue/leased")["data"]["keys"]) == 3
    assert "not renewable" in refused(errors.InvalidRequest, system.renew_lease, one)
    assert "lease not found" in refused(errors.InvalidRequest, system.renew_lease, "lower/issue/leased/00")
    assert "invalid lease" in refused(errors.InvalidRequest, system.read_lease, "nowhere/issue/leased/00")
    assert system.revoke_lease(one).status_code == 204 and system.revoke_lease(one).status_code == 204

    def is_revoked(serial):
        return pki.read_certificate(serial, mount_point="lower")["data"]["revocation_time"] > 0

    assert [is_revoked(serial) for serial in serials] == [True, False, False]
    refused(errors.InvalidRequest, system.read_lease, one)
    assert system.revoke_prefix("lower/issue/").status_code == 204
    assert all(is_revoked(serial) for serial in serials)
    refused(errors.InvalidPath, system.list_leases, "lower/")
    pki.delete_role("leased", mount_point="lower")


def revocation(client, serial):
    pki = client.secrets.pki
    pki.set_crl_configuration(expiry="48h", mount_point="lower")
    assert pki.read_crl_configuration(mount_point="lower")["data"]["expiry"] == "48h"
    assert pki.revoke_certificate(serial, mount_point="lower")["data"]["revocation_time"] > 0
    refused(errors.InvalidRequest, pki.revoke_certificate, "7f:01", mount_point="lower")
    pki.rotate_crl(mount_point="lower")
    assert pki.tidy({"tidy_cert_store": True, "tidy_revoked_certs": True}, mount_point="lower").status_code == 202
    revoked = x509.load_pem_x509_crl(pki.read_crl(mount_point="lower").encode())
    assert revoked.get_revoked_certificate_by_serial_number(int(serial.replace(":", ""), 16)) is not None
    pki.delete_role("web", mount_point="lower")
    pki.delete_root(mount_point="lower")
    assert refused(errors.InvalidPath, pki.list_roles, mount_point="lower") is not None


def signing(client):
    transit = client.secrets.transit
    client.write("transit/keys/documents", type="managed_key", managed_key_name="documents")
    refused(errors.InvalidRequest, transit.create_key, "nobody", key_type="chacha20-poly1305")
    refused(errors.InvalidRequest, transit.sign_data, "nobody", b64(b"x"))
    document = transit.read_key("documents")["data"]
    assert document["type"] == "managed_key" and "documents" in transit.list_keys()["data"]["keys"]
    public = document["keys"]["1"]["public_key"]
    signed = transit.sign_data("documents", b64(b"a contract"), signature_algorithm="pkcs1v15")["data"]["signature"]
    raw = base64.b64decode(signed.rsplit(":", 1)[1])
    serialization.load_pem_public_key(public.encode()).verify(raw, b"a contract", padding.PKCS1v15(), hashes.SHA256())
    verify = transit.verify_signed_data
    options = {"signature": signed, "signature_algorithm": "pkcs1v15"}
    assert verify("documents", b64(b"a contract"), **options)["data"]["valid"]
    assert not verify("documents", b64(b"another"), **options)["data"]["valid"]
    batch = [{"input": b64(b"one"), "reference": "1"}, {"input": "?"}]
    results = transit.sign_data("documents", batch_input=batch, signature_algorithm="pkcs1v15")["data"]["batch_results"]
    assert results[0]["reference"] == "1" and results[0]["signature"].startswith("vault:v1:") and results[1]["error"]


def encryption(client):
    transit = client.secrets.transit
    client.write("transit/keys/vault", type="managed_key", managed_key_name="aes")
    sealed = transit.encrypt_data("vault", b64(b"a secret"), associated_data=b64(b"about"))["data"]["ciphertext"]
    opened = transit.decrypt_data("vault", sealed, associated_data=b64(b"about"))["data"]["plaintext"]
    assert base64.b64decode(opened) == b"a secret"
    refused(errors.InvalidRequest, transit.decrypt_data, "vault", sealed)
    client.write("transit/keys/vault/rotate", managed_key_name="next-aes")
    plain = transit.encrypt_data("vault", b64(b"more"))["data"]
    assert plain["key_version"] == 2
    first = transit.encrypt_data("vault", b64(b"old"), key_version=1)["data"]["ciphertext"]
    again = transit.rewrap_data("vault", first)["data"]["ciphertext"]
    assert again.startswith("vault:v2:") and transit.decrypt_data("vault", again)["data"]["plaintext"] == b64(b"old")
    transit.update_key_configuration("vault", min_decryption_version=2)
    client.write("transit/keys/vault/config", min_encryption_version=2)
    refused(errors.InvalidRequest, transit.decrypt_data, "vault", first)
    transit.trim_key("vault", min_version=2)
    data_key = transit.generate_data_key("vault", "plaintext")["data"]
    assert transit.decrypt_data("vault", data_key["ciphertext"])["data"]["plaintext"] == data_key["plaintext"]
    batch = transit.encrypt_data("vault", batch_input=[{"plaintext": b64(b"1")}, {"plaintext": b64(b"2")}])
    assert len(batch["data"]["batch_results"]) == 2
    refused(errors.InvalidRequest, transit.delete_key, "vault")
    transit.update_key_configuration("vault", deletion_allowed=True)
    transit.delete_key("vault")
    refused(errors.InvalidPath, transit.read_key, "vault")


def macs(client):
    transit = client.secrets.transit
    client.write("transit/keys/mac", type="managed_key", managed_key_name="mac")
    made = transit.generate_hmac("mac", b64(b"message"))["data"]["hmac"]
    assert transit.verify_signed_data("mac", b64(b"message"), hmac=made)["data"]["valid"]
    assert not transit.verify_signed_data("mac", b64(b"massage"), hmac=made)["data"]["valid"]
    assert len(base64.b64decode(transit.generate_random_bytes(16)["data"]["random_bytes"])) == 16
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"x")
    assert transit.hash_data(b64(b"x"), "sha2-256", "hex")["data"]["sum"] == digest.finalize().hex()


def keys_of_its_own(client, token_label):
    """What clients write that never heard of managed keys, on mounts whose options name a token."""
    transit, pki = client.secrets.transit, client.secrets.pki
    options = {"kms_library": "hsm", "token_label": token_label}
    message = "has no token in which it could make keys of its own"
    assert message in refused(errors.InvalidRequest, transit.create_key, "doc", key_type="ecdsa-p256")
    for engine in ("pki", "transit"):
        client.sys.enable_secrets_engine(engine, path=f"own-{engine}", options=options)
    at = {"mount_point": "own-transit"}
    transit.create_key("doc", key_type="ecdsa-p256", **at)
    assert transit.read_key("doc", **at)["data"]["type"] == "ecdsa-p256"
    signed = transit.sign_data("doc", b64(b"a contract"), **at)["data"]["signature"]
    assert transit.verify_signed_data("doc", b64(b"a contract"), signature=signed, **at)["data"]["valid"]
    transit.create_key("vault", auto_rotate_period="24h", **at)
    document = transit.read_key("vault", **at)["data"]
    assert document["type"] == "aes256-gcm96" and isinstance(document["keys"]["1"], int)
    assert document["auto_rotate_period"] == 24 * 3600
    first = transit.encrypt_data("vault", b64(b"a secret"), **at)["data"]["ciphertext"]
    transit.rotate_key("vault", **at)
    again = transit.rewrap_data("vault", first, **at)["data"]["ciphertext"]
    assert again.startswith("vault:v2:")
    assert transit.decrypt_data("vault", first, **at)["data"]["plaintext"] == b64(b"a secret")
    refused(errors.InvalidRequest, transit.create_key, "out", exportable=True, **at)
    transit.update_key_configuration("vault", deletion_allowed=True, **at)
    transit.delete_key("vault", **at)
    refused(errors.InvalidPath, transit.read_key, "vault", **at)
    rsa_of_its_own(client, at)
    root = pki.generate_root("internal", "hvac Own", {"key_type": "ec"}, mount_point="own-pki")["data"]
    assert certificate(root["certificate"]).subject.rfc4514_string() == "CN=hvac Own" and "private_key" not in root
    refused(errors.InvalidRequest, pki.generate_root, "exported", "Nobody's", mount_point="own-pki")


def rsa_of_its_own(client, at):
    """One RSA key signs and decrypts, by each of Vault's ways; and an HMAC key makes each of the HMACs."""
    transit = client.secrets.transit
    transit.create_key("rsa", key_type="rsa-2048", **at)
    document = transit.read_key("rsa", **at)["data"]
    assert document["type"] == "rsa-2048" and document["supports_signing"] and document["supports_decryption"]
    version = document["keys"]["1"]
    public = serialization.load_pem_public_key(version["public_key"].encode())
    exported = client.read("own-transit/export/public-key/rsa")["data"]["keys"]
    assert exported == {"1": version["public_key"]}
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
    for algorithm, scheme in ((None, pss), ("pss", pss), ("pkcs1v15", padding.PKCS1v15())):
        options = {"signature_algorithm": algorithm} if algorithm else {}
        signed = transit.sign_data("rsa", b64(b"a contract"), **options, **at)["data"]["signature"]
        public.verify(base64.b64decode(signed.rsplit(":", 1)[1]), b"a contract", scheme, hashes.SHA256())
        verified = transit.verify_signed_data("rsa", b64(b"a contract"), signature=signed, **options, **at)
        assert verified["data"]["valid"]
    oaep_hash = {"sha1": hashes.SHA1, "sha256": hashes.SHA256}[version["rsa_oaep_hash"]]
    oaep = padding.OAEP(padding.MGF1(oaep_hash()), oaep_hash(), None)
    outside = "vault:v1:" + b64(public.encrypt(b"a secret", oaep))
    here = transit.encrypt_data("rsa", b64(b"a secret"), **at)["data"]["ciphertext"]
    for sealed in (outside, here):
        assert transit.decrypt_data("rsa", sealed, **at)["data"]["plaintext"] == b64(b"a secret")
    old = {"plaintext": b64(b"old"), "padding_scheme": "pkcs1v15"}
    old = client.write_data("own-transit/encrypt/rsa", data=old)["data"]["ciphertext"]
    read = client.write_data("own-transit/decrypt/rsa", data={"ciphertext": old, "padding_scheme": "pkcs1v15"})
    assert read["data"]["plaintext"] == b64(b"old")
    refused(errors.InvalidRequest, transit.decrypt_data, "rsa", old, **at)
    data_key = transit.generate_data_key("rsa", "plaintext", **at)["data"]
    assert transit.decrypt_data("rsa", data_key["ciphertext"], **at)["data"]["plaintext"] == data_key["plaintext"]
    transit.rotate_key("rsa", **at)
    assert transit.rewrap_data("rsa", here, **at)["data"]["ciphertext"].startswith("vault:v2:")
    client.write_data("own-transit/keys/mac", data={"type": "hmac"})
    for algorithm in ("sha2-224", "sha2-256", "sha2-384", "sha2-512"):
        made = transit.generate_hmac("mac", b64(b"message"), algorithm=algorithm, **at)["data"]["hmac"]
        checked = transit.verify_signed_data("mac", b64(b"message"), hmac=made, hash_algorithm=algorithm, **at)
        assert checked["data"]["valid"]


def policies(client, socket):
    """What is written of a policy, and what a token then may."""
    system = client.sys
    text = 'path "transit/keys/doc" { capabilities = ["read"] }'
    system.create_or_update_policy("app", text)
    assert {"app", "default", "root"} <= set(system.list_policies()["data"]["policies"])
    assert system.read_policy("app")["data"]["rules"] == text
    system.create_or_update_acl_policy("app", {"path": {"transit/keys/doc": {"capabilities": ["list"]}}})
    assert "app" in system.list_acl_policies()["data"]["keys"]
    assert "list" in system.read_acl_policy("app")["data"]["policy"]
    told = refused(errors.InvalidRequest, system.create_or_update_policy, "app", "path {}")
    assert "line 1, column 1" in told, told
    token = client.auth.token.create(policies=["app"], ttl="1h")["auth"]["client_token"]
    told = system.get_capabilities(["transit/keys/doc", "sys/mounts"], token=token)["data"]
    assert told == {"transit/keys/doc": ["list"], "sys/mounts": ["deny"]}, told
    app = vault_client(socket, token)
    assert app.sys.get_capabilities(["transit/keys/doc"])["data"]["capabilities"] == ["list"]
    refused(errors.Forbidden, app.sys.list_mounted_secrets_engines)
    refused(errors.Forbidden, app.sys.list_policies)
    system.delete_policy("app")
    assert client.read("sys/policies/acl/app") is None


def main(socket, token, token_label):
    client = vault_client(socket, token)
    system(client, socket)
    tokens(client, socket)
    wrapping(client, socket)
    root = authority(client)
    lower = intermediate(client, root)
    serial = leaves(client, lower)
    leases(client)
    revocation(client, serial)
    signing(client)
    encryption(client)
    macs(client)
    keys_of_its_own(client, token_label)
    policies(client, socket)
    snapshots(client)
    client.sys.disable_secrets_engine("pki")


main(*sys.argv[1:])
