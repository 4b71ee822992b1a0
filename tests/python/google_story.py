"""Uses the emulator of Google Cloud KMS as Google's own client does, and checks what it makes with another implementation.

Usage: google_story.py URL CONTROL SERVICE_ACCOUNT_FILE FEDERATED_FILE, of a cloud-sim google with --shortest-destruction 0.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

# The metadata server's address is read when the client is loaded.
os.environ["GCE_METADATA_HOST"] = os.environ["GCE_METADATA_IP"] = sys.argv[1].removeprefix("http://")

import google.auth.transport.requests
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth import compute_engine, identity_pool
from google.cloud import kms_v1
from google.oauth2 import service_account

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

url, control, account_file, federated_file = sys.argv[1:]
Algorithm = kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm
State = kms_v1.CryptoKeyVersion.CryptoKeyVersionState
Purpose = kms_v1.CryptoKey.CryptoKeyPurpose
Level = kms_v1.ProtectionLevel
LOCATION = "projects/keyway-test/locations/europe-west3"
CLOUD = "https://www.googleapis.com/auth/cloud-platform"
HASHES = {"SHA256": hashes.SHA256(), "SHA384": hashes.SHA384(), "SHA512": hashes.SHA512()}


def crc32c(data):
    """CRC-32C (RFC 3720), bit by bit: one more implementation."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def steer(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    urllib.request.urlopen(urllib.request.Request(control + path, data=data, method=method)).read()


def client(credentials):
    options = ClientOptions(api_endpoint=url)
    return kms_v1.KeyManagementServiceClient(credentials=credentials, transport="rest", client_options=options)


def refused(status, call, *args, **kwargs):
    """Answers the error of a call that must be refused with this status."""
    try:
        call(*args, retry=None, **kwargs)
    except exceptions.GoogleAPICallError as error:
        # The client's own classes know the HTTP status only.
        assert error.response.json()["error"]["status"] == status, error
        return error
    raise AssertionError(f"{status} was expected of {call}")


account = service_account.Credentials.from_service_account_file(account_file, scopes=[CLOUD])
kms = client(account)
ring = kms.create_key_ring(parent=LOCATION, key_ring_id="ring", key_ring={}).name
assert kms.get_key_ring(name=ring).name == ring and [r.name for r in kms.list_key_rings(parent=LOCATION)] == [ring]
refused("ALREADY_EXISTS", kms.create_key_ring, parent=LOCATION, key_ring_id="ring", key_ring={})
refused("NOT_FOUND", kms.get_key_ring, name=ring + "s")


def make(key_id, purpose, algorithm, level=Level.HSM):
    key = kms.create_crypto_key(
        parent=ring,
        crypto_key_id=key_id,
        crypto_key={
            "purpose": purpose,
            "version_template": {"algorithm": algorithm, "protection_level": level},
            "destroy_scheduled_duration": {"seconds": 0},
            "labels": {"made": "here"},
        },
    )
    assert key.purpose == purpose and key.version_template.algorithm == algorithm and key.labels["made"] == "here"
    name = key.name + "/cryptoKeyVersions/1"
    deadline = time.time() + 60
    while kms.get_crypto_key_version(name=name).state == State.PENDING_GENERATION:
        assert time.time() < deadline, name
        time.sleep(0.05)
    version = kms.get_crypto_key_version(name=name)
    assert version.state == State.ENABLED and version.algorithm == algorithm and version.protection_level == level
    return key.name, name


def public(name, algorithm):
    answer = kms.get_public_key(name=name)
    assert answer.name == name and answer.algorithm == algorithm and answer.pem_crc32c == crc32c(answer.pem.encode())
    return serialization.load_pem_public_key(answer.pem.encode())


def verify(key, words, message, signature):
    """Whether a signature verifies as the name of the algorithm says."""
    if "ED25519" in words:
        return key.verify(signature, message)
    if "RAW" in words:
        return key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    digest = HASHES[words[-1]]
    if words[0] == "EC":
        return key.verify(signature, message, ec.ECDSA(digest))
    if "PSS" in words:
        salted = padding.PSS(padding.MGF1(digest), digest.digest_size)
        return key.verify(signature, message, salted, digest)
    return key.verify(signature, message, padding.PKCS1v15(), digest)


def sha(words, message):
    digest = hashes.Hash(HASHES[words[-1]])
    digest.update(message)
    return digest.finalize()


# DigestInfo of SHA-256 (RFC 8017, 9.2).
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
message = b"a message"
for algorithm in Algorithm:
    words = algorithm.name.split("_")
    if "SIGN" not in words or words[0] not in ("RSA", "EC"):
        continue
    key, name = make(algorithm.name.lower(), Purpose.ASYMMETRIC_SIGN, algorithm)
    published = public(name, algorithm)
    if words[-1] in HASHES:
        digest = sha(words, message)
        request = {"name": name, "digest": {words[-1].lower(): digest}, "digest_crc32c": crc32c(digest)}
        answer = kms.asymmetric_sign(request=request)
        assert answer.verified_digest_crc32c and answer.name == name and answer.protection_level == Level.HSM
        assert answer.signature_crc32c == crc32c(answer.signature)
        verify(published, words, message, answer.signature)
        wrong = {"name": name, "digest": {words[-1].lower(): digest}, "digest_crc32c": crc32c(digest) ^ 1}
        refused("INVALID_ARGUMENT", kms.asymmetric_sign, request=wrong)
        short = {"name": name, "digest": {words[-1].lower(): digest[1:]}}
        refused("INVALID_ARGUMENT", kms.asymmetric_sign, request=short)
        other = {"name": name, "digest": {"sha384" if words[-1] != "SHA384" else "sha256": b"1" * 32}}
        refused("INVALID_ARGUMENT", kms.asymmetric_sign, request=other)
    else:
        refused("INVALID_ARGUMENT", kms.asymmetric_sign, request={"name": name, "digest": {"sha256": b"1" * 32}})
    data = DIGEST_INFO + sha(["SHA256"], message) if "RAW" in words else message
    answer = kms.asymmetric_sign(request={"name": name, "data": data, "data_crc32c": crc32c(data)})
    assert answer.verified_data_crc32c and answer.signature_crc32c == crc32c(answer.signature)
    verify(published, words, message, answer.signature)
    try:
        verify(published, words, b"another message", answer.signature)
        raise AssertionError("a wrong message verified")
    except InvalidSignature:
        pass
    refused("FAILED_PRECONDITION", kms.mac_sign, name=name, data=message)

for algorithm in Algorithm:
    words = algorithm.name.split("_")
    if "OAEP" in words:
        key, name = make(algorithm.name.lower(), Purpose.ASYMMETRIC_DECRYPT, algorithm)
        digest = hashes.SHA1() if words[-1] == "SHA1" else HASHES[words[-1]]
        sealed = public(name, algorithm).encrypt(message, padding.OAEP(padding.MGF1(digest), digest, None))
        answer = kms.asymmetric_decrypt(
            request={"name": name, "ciphertext": sealed, "ciphertext_crc32c": crc32c(sealed)}
        )
        assert answer.plaintext == message and answer.plaintext_crc32c == crc32c(message)
        assert answer.verified_ciphertext_crc32c
        refused("INVALID_ARGUMENT", kms.asymmetric_decrypt, name=name, ciphertext=b"1" * 256)
    elif words[0] == "HMAC":
        key, name = make(algorithm.name.lower(), Purpose.MAC, algorithm)
        answer = kms.mac_sign(request={"name": name, "data": message, "data_crc32c": crc32c(message)})
        assert answer.verified_data_crc32c and answer.mac_crc32c == crc32c(answer.mac)
        assert len(answer.mac) * 8 == (160 if words[1] == "SHA1" else int(words[1][3:]))
        right = kms.mac_verify(
            request={"name": name, "data": message, "mac": answer.mac, "mac_crc32c": crc32c(answer.mac)}
        )
        assert right.success and right.verified_success_integrity and right.verified_mac_crc32c
        assert not kms.mac_verify(name=name, data=b"another", mac=answer.mac).success
        refused("INVALID_ARGUMENT", kms.mac_verify, name=name, data=message, mac=b"short")
        refused("FAILED_PRECONDITION", kms.get_public_key, name=name)
    elif words[0] == "AES" and words[2] in ("GCM", "CBC", "CTR"):
        key, name = make(algorithm.name.lower(), Purpose.RAW_ENCRYPT_DECRYPT, algorithm)
        plaintext, aad = b"sixteen bytes ok", b"aad" if words[2] == "GCM" else b""
        request = {"name": name, "plaintext": plaintext, "additional_authenticated_data": aad}
        answer = kms.raw_encrypt(request=request | {"plaintext_crc32c": crc32c(plaintext)})
        assert answer.verified_plaintext_crc32c and answer.ciphertext_crc32c == crc32c(answer.ciphertext)
        request = {
            "name": name,
            "ciphertext": answer.ciphertext,
            "initialization_vector": answer.initialization_vector,
            "additional_authenticated_data": aad,
        }
        assert kms.raw_decrypt(request=request).plaintext == plaintext
        if words[2] == "GCM":
            assert answer.tag_length == 16 and len(answer.ciphertext) == len(plaintext) + 16
            refused("INVALID_ARGUMENT", kms.raw_decrypt, request=request | {"additional_authenticated_data": b"x"})

key, name = make("symmetric", Purpose.ENCRYPT_DECRYPT, Algorithm.GOOGLE_SYMMETRIC_ENCRYPTION)
assert kms.get_crypto_key(name=key).primary.name == name
request = {"name": key, "plaintext": message, "additional_authenticated_data": b"aad"}
checksums = {"plaintext_crc32c": crc32c(message), "additional_authenticated_data_crc32c": crc32c(b"aad")}
sealed = kms.encrypt(request=request | checksums)
assert sealed.name == name and sealed.verified_plaintext_crc32c and sealed.ciphertext_crc32c == crc32c(sealed.ciphertext)
assert sealed.verified_additional_authenticated_data_crc32c
refused("INVALID_ARGUMENT", kms.encrypt, request=request | {"plaintext_crc32c": 1})
request = {"name": key, "ciphertext": sealed.ciphertext, "additional_authenticated_data": b"aad"}
opened = kms.decrypt(request=request | {"ciphertext_crc32c": crc32c(sealed.ciphertext)})
assert opened.plaintext == message and opened.plaintext_crc32c == crc32c(message) and opened.used_primary
refused("INVALID_ARGUMENT", kms.decrypt, request=request | {"additional_authenticated_data": b"other"})
second = kms.create_crypto_key_version(parent=key, crypto_key_version={})
assert second.name.endswith("/2") and len(list(kms.list_crypto_key_versions(parent=key))) == 2
assert kms.update_crypto_key_primary_version(name=key, crypto_key_version_id="2").primary.name == second.name
assert kms.encrypt(name=key, plaintext=b"").name == second.name
assert not kms.decrypt(request=request).used_primary

# States.
change = {"name": name, "state": State.DISABLED}
assert kms.update_crypto_key_version(crypto_key_version=change, update_mask={"paths": ["state"]}).state == State.DISABLED
error = refused("FAILED_PRECONDITION", kms.decrypt, request=request)
assert error.message.endswith(f"{name} is not enabled, current state is: DISABLED."), error.message
kms.update_crypto_key_version(crypto_key_version=change | {"state": State.ENABLED}, update_mask={"paths": ["state"]})
assert kms.decrypt(request=request).plaintext == message
assert kms.destroy_crypto_key_version(name=name).state == State.DESTROY_SCHEDULED
assert kms.get_crypto_key_version(name=name).state == State.DESTROYED
refused("FAILED_PRECONDITION", kms.restore_crypto_key_version, name=name)
error = refused("FAILED_PRECONDITION", kms.decrypt, request=request)
assert "current state is: DESTROYED" in error.message
assert len(list(kms.list_crypto_keys(request={"parent": ring, "page_size": 5}))) > 30

# Random bytes.
drawn = kms.generate_random_bytes(location=LOCATION, length_bytes=64, protection_level=Level.HSM)
assert len(drawn.data) == 64 and drawn.data_crc32c == crc32c(drawn.data)
refused("INVALID_ARGUMENT", kms.generate_random_bytes, location=LOCATION, length_bytes=7, protection_level=Level.HSM)

# What somebody steers.
ed = ring + "/cryptoKeys/ec_sign_ed25519"
version = ed + "/cryptoKeyVersions/1"
sign = {"name": version, "data": message}
steer("PUT", "/keys/" + ed, {"state": "revoked"})
error = refused("PERMISSION_DENIED", kms.asymmetric_sign, request=sign)
assert "cloudkms.cryptoKeyVersions.useToSign" in error.message and error.reason == "IAM_PERMISSION_DENIED", error
steer("PUT", "/keys/" + ed, {"state": "enabled"})
steer("PUT", "/quota", {"per_second": 0.001, "burst": 1, "bucket": "keyway-test/europe-west3"})
kms.asymmetric_sign(request=sign)
refused("RESOURCE_EXHAUSTED", kms.asymmetric_sign, request=sign)
steer("POST", "/reset")

# Who may ask.
def listed(token):
    """The status of a request with a token: the client would look for another."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        return urllib.request.urlopen(urllib.request.Request(f"{url}/v1/{LOCATION}/keyRings", headers=headers)).status
    except urllib.error.HTTPError as error:
        assert json.load(error)["error"]["status"] == "UNAUTHENTICATED"
        return error.code


assert listed(None) == 401 and listed("made up") == 401
steer("POST", "/tokens/expire")
exchanged = service_account.Credentials.from_service_account_file(account_file, scopes=[CLOUD])
exchanged = exchanged.with_always_use_jwt_access(False)
exchanged.refresh(google.auth.transport.requests.Request())
federated = identity_pool.Credentials.from_file(federated_file, scopes=[CLOUD])
machine = compute_engine.Credentials()
for credentials in (exchanged, federated, machine):
    asking = client(credentials)
    assert asking.asymmetric_sign(request=sign).signature
    assert listed(credentials.token) == 200
steer("POST", "/tokens/expire")
assert listed(machine.token) == 401
print("google: well")
