"""AWS's client on cloud-sim in front of ministack: signatures, errors and credentials, judged by `cryptography`.

Usage: aws_story.py URL CONTROL

The access key AKIDTEST with the secret `secret` may ask; the container shows `shown`, the web identity `workload`.
"""

import datetime
import hashlib
import json
import os
import sys
import tempfile
import urllib.request

URL, CONTROL = sys.argv[1:3]
# Nothing from this machine's own configuration.
for name in list(os.environ):
    if name.startswith("AWS_"):
        del os.environ[name]
os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull, AWS_DEFAULT_REGION="eu-west-1")

import boto3  # noqa: E402
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError  # noqa: E402
from cryptography.exceptions import InvalidSignature  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils  # noqa: E402

ONCE = Config(retries={"max_attempts": 0}, connect_timeout=10, read_timeout=10)
MESSAGE = b"what is signed"
DIGEST = hashlib.sha256(MESSAGE).digest()


def steer(method, path, body=None):
    """Says something to the control endpoint."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(CONTROL + path, data, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def client(access_key="AKIDTEST", secret="secret", token=None, region="eu-west-1"):
    return boto3.client(
        "kms",
        endpoint_url=URL,
        region_name=region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=ONCE,
    )


def refused(code, ask):
    """Asks, and expects to be refused with this word."""
    try:
        ask()
    except ClientError as error:
        said = error.response["Error"]["Code"]
        assert said == code, f"{said} instead of {code}: {error}"
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    raise AssertionError(f"not refused with {code}")


def signatures(kms):
    """Every kind of key signs, and its signatures are right."""
    for spec, algorithm in [
        ("ECC_SECG_P256K1", "ECDSA_SHA_256"),
        ("ECC_NIST_P256", "ECDSA_SHA_256"),
        ("RSA_2048", "RSASSA_PSS_SHA_256"),
        ("RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256"),
    ]:
        key = kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
        public = serialization.load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])

        def sign():
            return kms.sign(KeyId=key, Message=DIGEST, MessageType="DIGEST", SigningAlgorithm=algorithm)["Signature"]

        def verify(signature):
            hashed = utils.Prehashed(hashes.SHA256())
            if spec.startswith("ECC"):
                return public.verify(signature, DIGEST, ec.ECDSA(hashed))
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            return public.verify(signature, DIGEST, pss if "PSS" in algorithm else padding.PKCS1v15(), hashed)

        verify(sign())
        steer("POST", "/faults", {"trouble": {"kind": "wrong-signature"}, "which": {"next": 1}})
        try:
            verify(sign())
            raise AssertionError("the signature should have been spoiled")
        except InvalidSignature:
            pass
        verify(sign())
        steer("POST", "/reset")
    return key


def symmetric(kms):
    """Symmetric keys encrypt for themselves alone, and authenticate what they encrypt with its context."""
    key, other = [kms.create_key(KeySpec="SYMMETRIC_DEFAULT")["KeyMetadata"]["KeyId"] for _ in range(2)]
    made = kms.encrypt(KeyId=key, Plaintext=MESSAGE)
    assert made["KeyId"].endswith(key) and made["EncryptionAlgorithm"] == "SYMMETRIC_DEFAULT"
    sealed = made["CiphertextBlob"]
    assert kms.encrypt(KeyId=key, Plaintext=MESSAGE)["CiphertextBlob"] != sealed and MESSAGE not in sealed
    opened = kms.decrypt(CiphertextBlob=sealed)
    assert opened["Plaintext"] == MESSAGE and opened["KeyId"].endswith(key)
    kms.create_alias(AliasName="alias/sealing", TargetKeyId=key)
    assert kms.decrypt(CiphertextBlob=sealed, KeyId="alias/sealing")["Plaintext"] == MESSAGE
    context = {"purpose": "test", "of": "whom"}
    bound = kms.encrypt(KeyId=key, Plaintext=MESSAGE, EncryptionContext=context)["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=bound, EncryptionContext=dict(reversed(context.items())))["Plaintext"] == MESSAGE
    spoiled = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for blob, more in [(spoiled, {}), (bound, {}), (sealed, {"EncryptionContext": context}), (b"nothing", {})]:
        refused("InvalidCiphertextException", lambda: kms.decrypt(CiphertextBlob=blob, **more))
    refused("IncorrectKeyException", lambda: kms.decrypt(CiphertextBlob=sealed, KeyId=other))
    longest = b"x" * 4096
    sealed = kms.encrypt(KeyId=key, Plaintext=longest)["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == longest
    refused("ValidationException", lambda: kms.encrypt(KeyId=key, Plaintext=longest + b"x"))
    kms.disable_key(KeyId=key)
    refused("DisabledException", lambda: kms.decrypt(CiphertextBlob=sealed))
    kms.enable_key(KeyId=key)
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    refused("KMSInvalidStateException", lambda: kms.encrypt(KeyId=key, Plaintext=MESSAGE))
    # Copies of a multi-Region key are one key, and each is in its own region.
    key = kms.create_key(MultiRegion=True)["KeyMetadata"]["KeyId"]
    kms.replicate_key(KeyId=key, ReplicaRegion="us-east-1")
    elsewhere = client(region="us-east-1")
    sealed = elsewhere.encrypt(KeyId=key, Plaintext=MESSAGE)["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=sealed, KeyId=key)["Plaintext"] == MESSAGE
    sealed = kms.encrypt(KeyId=other, Plaintext=MESSAGE)["CiphertextBlob"]
    refused("InvalidCiphertextException", lambda: elsewhere.decrypt(CiphertextBlob=sealed))


def operations_of(kms):
    """What ministack does passes through."""
    made = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["KeyId"]
    mac = kms.generate_mac(KeyId=made, Message=MESSAGE, MacAlgorithm="HMAC_SHA_256")["Mac"]
    assert kms.verify_mac(KeyId=made, Message=MESSAGE, MacAlgorithm="HMAC_SHA_256", Mac=mac)["MacValid"]


def states(kms):
    """States of a key, by id and by an alias that is known to be it."""
    key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/ca", TargetKeyId=key)
    assert kms.describe_key(KeyId="alias/ca")["KeyMetadata"]["KeyId"] == key
    for name in [key, "alias/ca"]:

        def sign():
            return kms.sign(KeyId=name, Message=DIGEST, MessageType="DIGEST", SigningAlgorithm="ECDSA_SHA_256")

        sign()
        for state, code in [
            ("disabled", "DisabledException"),
            ("pending-deletion", "KMSInvalidStateException"),
            ("deleted", "NotFoundException"),
            ("revoked", "AccessDeniedException"),
        ]:
            steer("PUT", f"/keys/{key}", {"state": state})
            assert refused(code, sign) == 400
        steer("PUT", f"/keys/{key}", {"state": "enabled"})
        sign()


def refusals(key):
    """Who may not ask, and what the service's bad days are like."""
    kms = client()

    def list_keys():
        return kms.list_keys()

    assert refused("UnrecognizedClientException", client("AKIDOTHER").list_keys) == 400
    refused("InvalidSignatureException", client(secret="other").list_keys)
    refused("UnrecognizedClientException", client(token="stray").list_keys)
    # botocore sets its clock by the service's Date header, and asks again by itself; not without retries.
    for offset in [-600_000, 600_000]:
        steer("PUT", "/clock", {"offset_ms": offset})
        refused("InvalidSignatureException", list_keys)
    steer("POST", "/reset")
    list_keys()

    steer("PUT", "/quota", {"per_second": 0.001, "burst": 1, "bucket": "eu-west-1/rsa"})

    def sign():
        return kms.sign(KeyId=key, Message=DIGEST, MessageType="DIGEST", SigningAlgorithm="RSASSA_PSS_SHA_256")

    sign()
    assert refused("ThrottlingException", sign) == 400
    list_keys()
    steer("POST", "/reset")
    sign()

    for status, code, expected in [
        (500, None, "KMSInternalException"),
        (500, "DependencyTimeoutException", "DependencyTimeoutException"),
        (503, None, "ServiceUnavailableException"),
        (400, "KeyUnavailableException", "KeyUnavailableException"),
    ]:
        trouble = {"kind": "status", "status": status, "code": code}
        steer("POST", "/faults", {"trouble": trouble, "which": {"next": 1}, "operation": "Sign"})
        assert refused(expected, sign) == status
    for kind in ["reset", "reset-after"]:
        steer("POST", "/faults", {"trouble": {"kind": kind}, "which": {"next": 1}, "operation": "Sign"})
        try:
            sign()
            raise AssertionError("the connection should have been reset")
        except (ConnectionClosedError, EndpointConnectionError):
            pass
    steer("POST", "/reset")
    sign()


def credentials():
    """Instances, containers and web identities get credentials that work until they expire."""

    def session(**environment):
        os.environ.update(environment)
        try:
            made = boto3.Session(region_name="eu-west-1")
            frozen = made.get_credentials().get_frozen_credentials()
        finally:
            for name in environment:
                del os.environ[name]
        return client(frozen.access_key, frozen.secret_key, frozen.token)

    with tempfile.NamedTemporaryFile("w") as identity, tempfile.NamedTemporaryFile("w") as other:
        identity.write("workload")
        identity.flush()
        other.write("somebody")
        other.flush()
        role = {"AWS_ROLE_ARN": "arn:aws:iam::000000000000:role/keys", "AWS_ENDPOINT_URL_STS": URL}
        found = [
            session(AWS_EC2_METADATA_SERVICE_ENDPOINT=URL),
            session(
                AWS_CONTAINER_CREDENTIALS_FULL_URI=URL + "/container/credentials",
                AWS_CONTAINER_AUTHORIZATION_TOKEN="shown",
            ),
            session(AWS_WEB_IDENTITY_TOKEN_FILE=identity.name, **role),
        ]
        refused("InvalidIdentityToken", lambda: session(AWS_WEB_IDENTITY_TOKEN_FILE=other.name, **role))
    sts = boto3.client(
        "sts",
        endpoint_url=URL,
        region_name="eu-west-1",
        aws_access_key_id="AKIDTEST",
        aws_secret_access_key="secret",
        config=ONCE,
    )
    arn = "arn:aws:iam::000000000000:role/keys"
    given = sts.assume_role(RoleArn=arn, RoleSessionName="keys")["Credentials"]
    assert given["Expiration"] > datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=50)
    found.append(client(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]))
    for kms in found:
        kms.list_keys()
    steer("POST", "/tokens/expire")
    for kms in found:
        assert refused("ExpiredTokenException", kms.list_keys) == 400
    assert [number(steer("GET", "/report"), name) for name in ("instance-token", "container-credentials")] == [1, 1]
    steer("POST", "/reset")


def number(report, operation):
    return report["counts"]["operations"][operation]["asked"]


kms = client()
key = signatures(kms)
symmetric(kms)
operations_of(kms)
states(kms)
refusals(key)
credentials()
print("aws: well")
