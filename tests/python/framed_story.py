"""The README's client of the framed API, as it stands there, against a daemon.

Usage: framed_story.py REPOSITORY SOCKET TOKEN FOLDER. The daemon has a Transit key `documents` (RSA-2048) and a PKI mount `pki` with a
role `servers`; FOLDER takes generated code.
"""

import re
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from grpc_tools import protoc

repository, path, token, folder = sys.argv[1:]
assert protoc.main(["protoc", f"-I{repository}/src/wire", f"--python_out={folder}", "keyway.proto"]) == 0
sys.path.insert(0, folder)
blocks = re.findall(r"```python\n(.*?)```", open(f"{repository}/README.md").read(), re.S)
client_code, use_code = [block for block in blocks if "keyway" in block]
assert len(client_code.splitlines()) <= 32


def request(name):
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


names = [f"host-{number}.example.com" for number in range(50)]
csrs = [request(name) for name in names]
room = {"token": token, "csrs": csrs}
exec(client_code, room)
exec(use_code.replace("/run/keyway/keyway.sock.framed", path), room)

client, keyway = room["client"], room["keyway"]
data = client.call(request=keyway.Request(verb=keyway.VERB_READ, path="transit/keys/documents")).body
public = re.search(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\\n", data).group().replace(b"\\n", b"\n")
key = serialization.load_pem_public_key(public)
key.verify(room["signature"], b"We agree.", padding.PKCS1v15(), hashes.SHA256())
for identity, csr in room["asked"].items():
    answer = room["answers"][identity]
    certificate = x509.load_der_x509_certificate(answer.certificate)
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(answer.chain[0]))
    assert certificate.public_key() == x509.load_der_x509_csr(csr).public_key()
chain = room["batch"].chain
for csr, result in zip(csrs, room["batch"].results, strict=True):
    certificate = x509.load_der_x509_certificate(result.certificate.certificate)
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(chain[0]))
    assert certificate.public_key() == x509.load_der_x509_csr(csr).public_key()
assert client.call(
    sign_certificates=keyway.SignCertificates(mount="pki", role="servers", csrs=[b"junk"])
).results[0].fault.label == "invalid_request"
try:
    client.call(sign=keyway.Sign(mount="transit", key="nobody", input=b""))
    raise AssertionError("a key that is not there signed")
except RuntimeError as refused:
    assert str(refused) == "invalid_request: signing key not found", refused
