"""Microsoft's clients on the emulated Azure: every operation, judged by `cryptography`.

Usage: azure_story.py URL CONTROL CA_FILE

The clients take the names they would take in Azure; here they resolve to the emulator.
"""

import hashlib
import json
import os
import socket
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from datetime import datetime, timedelta, timezone

URL, CONTROL, CA_FILE = sys.argv[1:4]
os.environ["REQUESTS_CA_BUNDLE"] = CA_FILE
PORT = urllib.parse.urlsplit(URL).port
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"

resolve = socket.getaddrinfo


def resolve_here(host, port, *args, **kwargs):
    """Names of Azure are this machine, and its ports the emulator's."""
    if str(host).endswith((".azure.net", ".microsoftonline.com")):
        host, port = "127.0.0.1", PORT
    return resolve(host, port, *args, **kwargs)


socket.getaddrinfo = resolve_here

from azure.core.exceptions import (  # noqa: E402
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.identity import (  # noqa: E402
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.keyvault.keys import KeyClient  # noqa: E402
from azure.keyvault.keys.crypto import CryptographyClient, SignatureAlgorithm  # noqa: E402
from azure.keyvault.keys.crypto._providers import NoLocalCryptography  # noqa: E402
from cryptography.exceptions import InvalidSignature  # noqa: E402
from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils  # noqa: E402

HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES = {
    "P-256": (ec.SECP256R1(), "ES256"),
    "P-384": (ec.SECP384R1(), "ES384"),
    "P-521": (ec.SECP521R1(), "ES512"),
    "P-256K": (ec.SECP256K1(), "ES256K"),
}
MESSAGE = b"what is signed"


def steer(method, path, body=None):
    """Says something to the control endpoint."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(CONTROL + path, data, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def digest(algorithm):
    """The digest of the message that an algorithm signs."""
    return hashlib.new("sha" + algorithm.removesuffix("K")[-3:], MESSAGE).digest()


def number(text):
    return int.from_bytes(text, "big")


def public_key(key):
    """The key as `cryptography` has it."""
    jwk = key.key
    if jwk.kty.startswith("RSA"):
        return rsa.RSAPublicNumbers(number(jwk.e), number(jwk.n)).public_key()
    curve, _ = CURVES[jwk.crv]
    return ec.EllipticCurvePublicNumbers(number(jwk.x), number(jwk.y), curve).public_key()


def check(public, algorithm, signature):
    """Raises InvalidSignature where a signature of the message is wrong."""
    if algorithm.startswith("ES"):
        half = len(signature) // 2
        der = utils.encode_dss_signature(number(signature[:half]), number(signature[half:]))
        size = algorithm.removesuffix("K")[2:]
        public.verify(der, MESSAGE, ec.ECDSA(HASHES[size]))
        return
    hash_function = HASHES[algorithm[2:]]
    pss = padding.PSS(padding.MGF1(hash_function), hash_function.digest_size)
    public.verify(signature, MESSAGE, pss if algorithm.startswith("PS") else padding.PKCS1v15(), hash_function)


def remote(client, key):
    """A client that asks the service for everything, also for what it could do itself."""
    made = CryptographyClient(key, client.credential_for_story, retry_total=0)
    made._local_provider = NoLocalCryptography()
    made._initialized = True
    return made


def vault(name, credential):
    client = KeyClient(f"https://{name}", credential, retry_total=0)
    client.credential_for_story = credential
    return client


def refused(kind, code, inner, ask):
    """Asks, and looks at why it is refused."""
    try:
        ask()
    except kind as error:
        assert error.error.code == code, error
        found = error.error.innererror
        assert (found or {}).get("code") == inner, error
        return error
    raise AssertionError(f"{code} was expected")


def asymmetric(client, hsm):
    """RSA and EC keys: signing, verifying, encrypting, wrapping."""
    made = client.create_rsa_key("rsa", size=2048, hardware_protected=hsm)
    assert made.key_type == ("RSA-HSM" if hsm else "RSA"), made.key_type
    crypto = remote(client, made)
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]:
        signature = crypto.sign(algorithm, digest(algorithm)).signature
        check(public_key(made), algorithm, signature)
        assert crypto.verify(algorithm, digest(algorithm), signature).is_valid
        other = bytes([signature[0] ^ 1]) + signature[1:]
        assert not crypto.verify(algorithm, digest(algorithm), other).is_valid
    for algorithm, scheme in {
        "RSA1_5": padding.PKCS1v15(),
        "RSA-OAEP": padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None),
        "RSA-OAEP-256": padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
    }.items():
        ciphertext = public_key(made).encrypt(MESSAGE, scheme)
        assert crypto.decrypt(algorithm, ciphertext).plaintext == MESSAGE
        assert crypto.unwrap_key(algorithm, ciphertext).key == MESSAGE
        assert crypto.decrypt(algorithm, crypto.encrypt(algorithm, MESSAGE).ciphertext).plaintext == MESSAGE
        assert crypto.unwrap_key(algorithm, crypto.wrap_key(algorithm, MESSAGE).encrypted_key).key == MESSAGE
    for curve, (_, algorithm) in CURVES.items():
        made = client.create_ec_key(f"ec-{curve}", curve=curve, hardware_protected=hsm)
        assert made.key.crv == curve and made.key_type == ("EC-HSM" if hsm else "EC")
        crypto = remote(client, made)
        signature = crypto.sign(algorithm, digest(algorithm)).signature
        check(public_key(made), algorithm, signature)
        assert crypto.verify(algorithm, digest(algorithm), signature).is_valid
        # What the client does by itself agrees.
        alone = CryptographyClient(made, client.credential_for_story)
        assert alone.verify(SignatureAlgorithm(algorithm), digest(algorithm), signature).is_valid
        refused(HttpResponseError, "BadParameter", None, lambda: crypto.sign("RS256", digest("RS256")))
        refused(HttpResponseError, "BadParameter", None, lambda: crypto.sign(algorithm, b"short"))
    error = refused(HttpResponseError, "BadParameter", None, lambda: crypto.sign("ES256", digest("ES256")))
    assert "incompatible" in error.message, error


def symmetric(client):
    """Keys of AES in a managed HSM."""
    for bits in [128, 192, 256]:
        made = client.create_oct_key(f"aes-{bits}", size=bits, hardware_protected=True)
        assert made.key_type == "oct-HSM" and made.key.k is None
        crypto = remote(client, made)
        gcm = crypto.encrypt(f"A{bits}GCM", MESSAGE, additional_authenticated_data=b"more")
        assert len(gcm.iv) == 12 and len(gcm.tag) == 16
        opened = crypto.decrypt(
            f"A{bits}GCM", gcm.ciphertext, iv=gcm.iv, authentication_tag=gcm.tag, additional_authenticated_data=b"more"
        )
        assert opened.plaintext == MESSAGE
        refused(
            HttpResponseError,
            "BadParameter",
            None,
            lambda: crypto.decrypt(f"A{bits}GCM", gcm.ciphertext, iv=gcm.iv, authentication_tag=gcm.tag),
        )
        iv = os.urandom(16)
        padded = crypto.encrypt(f"A{bits}CBCPAD", MESSAGE, iv=iv)
        assert crypto.decrypt(f"A{bits}CBCPAD", padded.ciphertext, iv=iv).plaintext == MESSAGE
        blocks = crypto.encrypt(f"A{bits}CBC", bytes(32), iv=iv)
        assert crypto.decrypt(f"A{bits}CBC", blocks.ciphertext, iv=iv).plaintext == bytes(32)
        if bits != 192:
            wrapped = crypto.wrap_key(f"A{bits}KW", bytes(32))
            assert crypto.unwrap_key(f"A{bits}KW", wrapped.encrypted_key).key == bytes(32)
        other = 128 if bits == 256 else 256
        refused(HttpResponseError, "BadParameter", None, lambda: crypto.encrypt(f"A{other}GCM", MESSAGE))
    made = client.create_oct_key("mac", size=256, hardware_protected=True, key_operations=["sign", "verify"])
    crypto = remote(client, made)
    for algorithm, length in {"HS256": 32, "HS384": 48, "HS512": 64}.items():
        mac = crypto.sign(algorithm, digest(algorithm)).signature
        assert len(mac) == length
        assert crypto.verify(algorithm, digest(algorithm), mac).is_valid
        assert not crypto.verify(algorithm, digest(algorithm), bytes(length)).is_valid
    refused(HttpResponseError, "Forbidden", "KeyOperationForbidden", lambda: crypto.encrypt("A256GCM", MESSAGE))
    assert len(client.get_random_bytes(32)) == 32


def lives(client):
    """Versions, updates, deletion and what comes after it."""
    first = client.create_ec_key("life", tags={"for": "a story"})
    second = client.create_ec_key("life")
    assert first.id != second.id and first.name == second.name
    assert client.get_key("life").id == second.id
    assert client.get_key("life", first.properties.version).properties.tags == {"for": "a story"}
    third = client.rotate_key("life")
    versions = {item.version for item in client.list_properties_of_key_versions("life")}
    assert versions == {key.properties.version for key in [first, second, third]}
    latest = f"{client.vault_url}/keys/life"
    signature = remote(client, latest).sign("ES256", digest("ES256")).signature
    check(public_key(third), "ES256", signature)

    client.update_key_properties("life", third.properties.version, enabled=False)
    crypto = remote(client, third)
    refused(HttpResponseError, "Forbidden", "KeyDisabled", lambda: crypto.sign("ES256", digest("ES256")))
    assert crypto.verify("ES256", digest("ES256"), signature).is_valid
    past = datetime.now(timezone.utc) - timedelta(hours=1)
    client.update_key_properties("life", third.properties.version, enabled=True, expires_on=past)
    refused(HttpResponseError, "Forbidden", "KeyExpired", lambda: crypto.sign("ES256", digest("ES256")))
    client.update_key_properties("life", second.properties.version, key_operations=["verify"])
    crypto = remote(client, second)
    refused(HttpResponseError, "Forbidden", "KeyOperationForbidden", lambda: crypto.sign("ES256", digest("ES256")))

    deleted = client.begin_delete_key("life", _polling_interval=0).result()
    assert deleted.recovery_id.endswith("/deletedkeys/life") and deleted.scheduled_purge_date
    refused(ResourceNotFoundError, "KeyNotFound", None, lambda: client.get_key("life"))
    refused(ResourceExistsError, "Conflict", "ObjectIsDeletedButRecoverable", lambda: client.create_ec_key("life"))
    assert [key.name for key in client.list_deleted_keys()] == ["life"]
    assert client.begin_recover_deleted_key("life", _polling_interval=0).result().id == third.id
    client.begin_delete_key("life", _polling_interval=0).wait()
    client.purge_deleted_key("life")
    refused(ResourceNotFoundError, "KeyNotFound", None, lambda: client.get_deleted_key("life"))
    refused(HttpResponseError, "BadParameter", None, lambda: client.create_key("bad", "EdDSA"))

    for index in range(30):
        client.create_ec_key(f"many-{index}")
    found = {item.name for item in client.list_properties_of_keys()}
    assert {f"many-{index}" for index in range(30)} <= found, found


def bad_days(client, name):
    """What is ordered through the control endpoint."""
    made = client.create_ec_key("bad-day")
    crypto = remote(client, made)

    def sign():
        return crypto.sign("ES256", digest("ES256")).signature

    for state, code, inner in [
        ("disabled", "Forbidden", "KeyDisabled"),
        ("revoked", "Forbidden", "ForbiddenByRbac"),
        ("deleted", "KeyNotFound", None),
    ]:
        steer("PUT", f"/keys/{name}/bad-day", {"state": state})
        refused(HttpResponseError, code, inner, sign)
    steer("PUT", f"/keys/{name}/bad-day", {"state": "enabled"})
    check(public_key(made), "ES256", sign())

    steer("POST", "/faults", {"trouble": {"kind": "wrong-signature"}, "which": {"next": 1}, "operation": "sign"})
    try:
        check(public_key(made), "ES256", sign())
        raise AssertionError("a wrong signature was expected")
    except InvalidSignature:
        pass
    check(public_key(made), "ES256", sign())

    fault = {"kind": "status", "status": 503, "retry_after_ms": 1500}
    steer("POST", "/faults", {"trouble": fault, "which": {"next": 1}, "key": f"{name}/bad-day"})
    error = refused(HttpResponseError, "ServiceUnavailable", None, sign)
    assert error.response.headers["Retry-After"] == "2", error.response.headers
    steer("PUT", "/quota", {"per_second": 0.001, "burst": 3, "bucket": name, "retry_after_ms": 1000})
    for _ in range(3):
        sign()
    error = refused(HttpResponseError, "Throttled", None, sign)
    assert error.status_code == 429 and error.response.headers["Retry-After"] == "1"
    steer("POST", "/reset")
    counted = steer("GET", "/report")["counts"]
    assert counted["operations"]["sign"]["throttled"] == 1, counted["operations"]
    assert counted["buckets"][name]["throttled"] == 1

    steer("PUT", "/service", {"ms": 150, "operation": "sign"})
    began = time.monotonic()
    sign()
    assert time.monotonic() - began >= 0.15
    steer("POST", "/reset")


def credentials(name):
    """All that a client can prove itself with."""
    with tempfile.TemporaryDirectory() as folder:
        token_file = os.path.join(folder, "token")
        with open(token_file, "w", encoding="ascii") as file:
            file.write("an assertion")
        workload = WorkloadIdentityCredential(tenant_id=TENANT, client_id="app", token_file_path=token_file)
        assert len(vault(name, workload).create_ec_key("workload").key.x) == 32
    os.environ["IDENTITY_ENDPOINT"] = URL + "/msi/token"
    os.environ["IDENTITY_HEADER"] = "anything"
    assert vault(name, ManagedIdentityCredential()).get_key("workload").name == "workload"
    wrong = ClientSecretCredential(TENANT, "app", "wrong")
    try:
        vault(name, wrong).get_key("workload")
        raise AssertionError("a wrong secret was taken")
    except ClientAuthenticationError as error:
        assert "AADSTS7000215" in str(error), error
    steer("POST", "/tokens/expire")
    fresh = ClientSecretCredential(TENANT, "app", "right")
    assert vault(name, fresh).get_key("workload").name == "workload"


def main():
    credential = ClientSecretCredential(TENANT, "app", "right")
    key_vault = vault("story.vault.azure.net", credential)
    managed = vault("story.managedhsm.azure.net", credential)
    asymmetric(key_vault, hsm=False)
    asymmetric(managed, hsm=True)
    symmetric(managed)
    refused(HttpResponseError, "BadParameter", None, lambda: key_vault.create_oct_key("aes", hardware_protected=True))
    lives(key_vault)
    bad_days(key_vault, "story")
    credentials("story.vault.azure.net")
    print("azure: well")


main()
