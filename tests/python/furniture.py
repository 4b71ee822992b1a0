"""A daemon with something of everything, and the values that requests to it may have."""

import base64
import os

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from vault import UnixAdapter

BASE = "http://keyway"
# In seconds: a busy machine takes its time for an RSA key, and that is no error.
TIMEOUT = 60
POLICY = 'path "transit/sign/app" { capabilities = ["update"] }'


class _Adapter(UnixAdapter):
    """Sends everything to one socket, by connections that are used again."""

    def __init__(self, socket):
        super().__init__()
        url = "http+unix://" + requests.utils.quote(socket, safe="")
        self._pool = super().get_connection_with_tls_context(requests.Request(url=url), None)

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
        return self._pool


class Client:
    """Asks for what must go well."""

    def __init__(self, socket, token):
        self.session = requests.Session()
        self.session.mount(BASE, _Adapter(socket))
        self.session.headers["X-Vault-Token"] = token
        self.session.headers["Keyway-Deadline-Ms"] = str(TIMEOUT * 1000)

    def ask(self, method, path, /, **data):
        where = {"params": data} if method == "GET" else {"json": data}
        answer = self.session.request(method, f"{BASE}/v1/{path}", timeout=TIMEOUT, **where)
        assert answer.status_code < 300, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else {"data": None}

    def write(self, path, /, **data):
        return self.ask("POST", path, **data)["data"]


def _csr_and_key(name):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signed.public_bytes(serialization.Encoding.PEM).decode(), pem.decode()


def _authority(client):
    client.write("pki/root/generate/kms", managed_key_name="ca", key_name="first", common_name="Root", issuer_name="top", ttl="80000h")
    client.write("pki/keys/generate/kms", managed_key_name="spare", key_name="spare")
    client.write("pki/config/crl", auto_rebuild=True, enable_delta=True)
    client.write("pki/roles/any", key_type="ec", allow_any_name=True, allowed_uri_sans="*", ttl="72h")
    client.write("pki/roles/old", key_type="ec")


def _transit(client):
    for name in ("doc", "aes", "mac"):
        client.write(f"transit/keys/{name}", type="managed_key", managed_key_name=name)
    for name in ("old", "long"):
        client.write(f"transit/keys/{name}", type="ecdsa-p256")
    client.write("transit/keys/certified", type="ecdsa-p256")
    csr = client.write("transit/keys/certified/csr")["csr"]
    signed = client.write("pki/sign/any", csr=csr, common_name="a.example.com")
    chain = signed["certificate"] + "\n" + signed["issuing_ca"]
    client.write("transit/keys/certified/set-certificate", certificate_chain=chain)
    client.write("transit/keys/old/config", deletion_allowed=True)
    client.write("transit/keys/long/rotate")
    client.write("transit/keys/long/config", min_decryption_version=2, min_encryption_version=2)
    return chain


def _tokens(client):
    """Tokens, each to be asked of something else, a role of tokens, and answers behind tokens."""
    client.write("auth/token/roles/any", allowed_policies_glob=["*"])
    client.write("auth/token/roles/old")
    made = [client.ask("POST", "auth/token/create", ttl="24h")["auth"] for _ in range(4)]
    wrapped = []
    for _ in range(3):
        asked = {"json": {"a": "b"}, "headers": {"X-Vault-Wrap-TTL": "24h"}, "timeout": TIMEOUT}
        answer = client.session.post(f"{BASE}/v1/sys/wrapping/wrap", **asked)
        wrapped.append(answer.json()["wrap_info"]["token"])
    for name in ("any", "old"):
        client.write(f"auth/unix/role/{name}", bound_uids=[os.geteuid()])
    stays, gone, gone_by_accessor, gone_alone = made
    of_it = {"token": [stays["client_token"]], "accessor": [stays["accessor"]]}
    return {
        "auth-": {"role_name": ["any"]},
        "auth-delete-unix-role": {"role_name": ["old"]},
        "auth-write-unix-login": {"role": ["any"]},
        "auth-write-unix-role": {"role_name": ["any", "new"], "bound_uids": [[os.geteuid()]], "token_policies": [["a"]]},
        "auth-delete-token-roles": {"role_name": ["old"]},
        "auth-write-token-create": {"role_name": ["any"], "policies": [["a"]], "type": ["service"]},
        "auth-write-token-lookup": of_it,
        "auth-write-token-renew": of_it,
        "auth-write-token-revoke": {"token": [gone["client_token"]]},
        "auth-write-token-revoke-accessor": {"accessor": [gone_by_accessor["accessor"]]},
        "auth-write-token-revoke-orphan": {"token": [gone_alone["client_token"]]},
        "auth-write-token-roles": {"role_name": ["any", "new"], "allowed_policies_glob": [["*"]]},
        "sys-write-capabilities-accessor": {"accessor": [stays["accessor"]], "paths": [["a"]]},
        "sys-write-wrapping-lookup": {"token": [wrapped[0]]},
        "sys-write-wrapping-rewrap": {"token": [wrapped[1]]},
        "sys-write-wrapping-unwrap": {"token": [wrapped[2]]},
    }


def furnish(client, library, label):
    """Makes mounts, keys, an authority and what it signed. Answers values for fields and parts of paths by their names ("any" is
    whatever fits the description); and those of one operation, by its id or how that begins, which it is to have always."""
    at = {"library": library, "token_label": label, "allow_generate_key": True, "any_mount": True}
    p256 = {"mechanism": "0x1041", "curve": "P256"}
    for name, key in {
        "ca": p256,
        "next": p256,
        "spare": p256,
        "doc": p256,
        "aes": {"mechanism": "0x1087", "key_bits": 256, "usages": "encrypt,decrypt"},
        "mac": {"mechanism": "0x0251", "key_bits": 256, "usages": "mac"},
    }.items():
        client.write(f"sys/managed-keys/pkcs11/{name}", key_label=name, **at, **key)
    for name in ("tenant", "unwanted"):
        client.write(f"sys/namespaces/{name}")
    options = {"kms_library": library, "token_label": label}
    client.write("sys/mounts/pki", type="pki", config={"max_lease_ttl": "87600h"}, options=options)
    client.write("sys/mounts/transit", type="transit", options=options)
    _authority(client)
    chain = _transit(client)
    csr, private_key = _csr_and_key("a.example.com")
    signed, revoked, revocable = [client.write("pki/sign/any", csr=csr) for _ in range(3)]
    client.write("pki/revoke", serial_number=revoked["serial_number"])
    root = signed["issuing_ca"]
    certificates = [x509.load_pem_x509_certificate(pem.encode()) for pem in (signed["certificate"], root)]
    client.write("pki/roles/leased", key_type="ec", allow_any_name=True, generate_lease=True, ttl="72h")
    lease = client.ask("POST", "pki/sign/leased", csr=csr)["lease_id"]
    crl = client.session.get(f"{BASE}/v1/pki/crl/pem").text
    asked = ocsp.OCSPRequestBuilder().add_certificate(*certificates, hashes.SHA1()).build()
    asked = asked.public_bytes(serialization.Encoding.DER)
    client.write("sys/policies/acl/app", policy=POLICY)
    client.write("sys/audit/kept", type="file", options={"file_path": "discard"})
    message = base64.b64encode(b"a message").decode()
    signature = client.write("transit/sign/doc", input=message)["signature"]
    ciphertext = client.write("transit/encrypt/aes", plaintext=message)["ciphertext"]
    by_managed_key = {"managed_key_name": ["next"], "exported": ["kms"]}
    everywhere = {
        # Parts of paths.
        "role": ["any"],
        "issuer_ref": ["default", "top"],
        "key_ref": ["default", "first"],
        "serial": [signed["serial_number"]],
        "req": [base64.b64encode(asked).decode()],
        "namespace": ["tenant"],
        "subpath": ["tenant"],
        "path": ["pki", "transit"],
        "type": ["pkcs11"],
        "urlalgorithm": ["sha2-256", "sha2-512"],
        "urlbytes": ["16"],
        "source": ["platform"],
        # Fields.
        "alt_names": [["b.example.com"]],
        "country": [["DE"]],
        "custom_metadata": [{"owner": "ca"}],
        "csr": [csr],
        "description": "any",
        "exclude_cn_from_sans": "any",
        "format": "any",
        "generic_mount_paths": "any",
        "hash_algorithm": ["sha2-256", "sha2-384"],
        "ip_sans": [["127.0.0.1"]],
        "limit": [5],
        "max_lease_ttl": ["87600h"],
        "prehashed": [False],
        "ttl": [3600],
        "use_pss": [False],
    }
    of = {
        "pki-": {"name": ["any"]},
        "pki-delete-key": {"key_ref": ["spare"]},
        "pki-delete-roles": {"name": ["old"]},
        "pki-read-cert": {"serial": [signed["serial_number"], "ca", "ca_chain", "crl", "delta-crl"]},
        "pki-read-cert-raw": {"serial": [signed["serial_number"]]},
        "pki-write-config-ca": {"pem_bundle": [root]},
        "pki-write-config-crl": {"expiry": ["48h"], "max_crl_entries": [1000]},
        "pki-write-config-issuers": {"default": ["top"]},
        "pki-write-config-keys": {"default": ["first"]},
        "pki-write-config-urls": {"issuing_certificates": [["http://ca.example/ca"]]},
        "pki-write-intermediate-cross-sign": {"key_ref": ["first"], "common_name": ["Cross"]},
        "pki-write-intermediate-generate": {"common_name": ["Below"], **by_managed_key},
        "pki-write-intermediate-set-signed": {"certificate": [root]},
        "pki-write-issue": {"common_name": ["a.example.com"]},
        "pki-write-issuer": {"issuer_name": ["top"]},
        "pki-write-issuer-issue": {"common_name": ["a.example.com"]},
        "pki-write-issuer-revoke": {"issuer_ref": ["default"]},
        "pki-write-issuer-sign": {"common_name": ["a.example.com"]},
        "pki-write-issuer-sign-self-issued": {"certificate": [root]},
        "pki-write-issuer-resign-crls": {"crls": [[crl]]},
        "pki-write-issuer-sign-revocation-list": {"revoked_certs": [[{"serial_number": "01", "revocation_time": "0"}]]},
        "pki-write-issuers-generate-intermediate": {"common_name": ["Below"], **by_managed_key},
        "pki-write-issuers-generate-root": {"common_name": ["Another"], **by_managed_key},
        "pki-write-issuers-import": {"pem_bundle": [root]},
        "pki-write-key": {"key_name": ["first"], "key_ref": ["first"]},
        "pki-write-keys-generate": by_managed_key,
        "pki-write-ocsp": {"body": [base64.b64encode(asked).decode()]},
        "pki-write-revoke": {"serial_number": [revocable["serial_number"]]},
        "pki-write-revoke-with-key": {"serial_number": [signed["serial_number"]], "private_key": [private_key]},
        "pki-write-roles": {"name": ["any", "new"], "key_type": ["ec"], "allow_any_name": [True]},
        "pki-write-root-generate": {"common_name": ["Another"], **by_managed_key},
        "pki-write-root-replace": {"default": ["top"]},
        "pki-write-root-rotate": {"common_name": ["Another"], **by_managed_key},
        "pki-write-root-sign-self-issued": {"certificate": [root]},
        "pki-write-root-sign-intermediate": {"common_name": ["Below"]},
        "pki-write-issuer-sign-intermediate": {"common_name": ["Below"]},
        "sys-": {"name": ["ca", "doc"]},
        "sys-read-polic": {"name": ["app", "default"]},
        "sys-write-polic": {"name": ["new"], "policy": [POLICY]},
        "sys-delete-polic": {"name": ["old"]},
        "sys-write-capabilities": {"token": [client.session.headers["X-Vault-Token"]], "paths": [["sys/mounts"]]},
        "sys-write-audit": {"path": ["new"], "type": ["file"], "options": [{"file_path": "discard"}]},
        "sys-write-audit-hash": {"path": ["kept"], "input": ["a text"]},
        "sys-delete-audit": {"path": ["new"]},
        "sys-read-quotas": {"name": ["slow"]},
        "sys-write-quotas-rate-limit": {"name": ["slow"], "path": ["transit/sign/old"], "rate": [1000], "type": ["rate-limit"], "group_by": ["none"]},
        "sys-write-quotas-concurrency": {"name": ["slow"], "path": ["transit/sign/old"], "requests": [1000], "type": ["concurrency"]},
        "sys-delete-quotas": {"name": ["gone"]},
        "sys-list-leases-lookup": {"prefix": ["pki", lease.rsplit("/", 1)[0]]},
        "sys-write-leases-revoke-prefix": {"prefix": [lease.rsplit("/", 1)[0]]},
        "sys-write-leases-lookup": {"lease_id": [lease]},
        "sys-write-leases-re": {"lease_id": [lease], "url_lease_id": [lease]},
        "sys-delete-namespaces": {"namespace": ["unwanted"]},
        "sys-delete-managed-keys": {"name": ["new"]},
        "sys-delete-mounts": {"path": ["old"]},
        "sys-write-managed-keys": {
            "name": ["new"],
            "key_label": ["new"],
            "library": [library],
            "mechanism": ["0x1041"],
            "token_label": [label],
            "curve": ["P256"],
        },
        "sys-write-managed-keys-test-sign": {"name": ["ca", "doc"]},
        "sys-write-mounts": {"path": ["new", "nested/new"], "type": ["pki", "transit"]},
        "sys-write-mounts-tune": {"path": ["pki", "transit"]},
        "transit-": {"name": ["doc"], "type": ["signing-key"], "version": ["1", "latest"]},
        "transit-delete-keys": {"name": ["old"]},
        "transit-write-datakey": {"name": ["aes"], "plaintext": ["plaintext", "wrapped"], "bits": [128, 256, 512]},
        "transit-write-decrypt": {"name": ["aes"], "ciphertext": [ciphertext]},
        "transit-write-encrypt": {"name": ["aes"], "plaintext": [message]},
        "transit-write-hash": {"input": [message]},
        "transit-write-hmac": {"name": ["mac"], "input": [message]},
        "transit-write-keys": {"name": ["made"], "type": ["ecdsa-p256"]},
        "transit-write-keys-config": {"name": ["old"], "deletion_allowed": [True]},
        "transit-write-keys-csr": {"name": ["doc"]},
        "transit-write-keys-rotate": {"name": ["old"]},
        "transit-write-keys-trim": {"name": ["long"], "min_available_version": [1, 2]},
        "transit-write-rewrap": {"name": ["aes"], "ciphertext": [ciphertext]},
        "transit-write-keys-set-certificate": {"name": ["certified"], "certificate_chain": [chain]},
        "transit-read-export-certificate-chain": {"name": ["certified"], "version": ["1", "latest"]},
        "transit-write-cache-config": {"size": [0, 500]},
        "transit-write-sign": {"name": ["doc"], "input": [message]},
        "transit-write-verify": {"name": ["doc"], "input": [message], "signature": [signature]},
    }
    client.write("sys/quotas/rate-limit/slow", path="transit/sign/old", rate=1000)
    client.write("sys/quotas/concurrency/slow", path="transit/sign/old", requests=1000)
    return everywhere, {**of, **_tokens(client)}
