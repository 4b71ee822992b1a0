"""Checks certificates, CRLs and signatures by ML-DSA keys with another implementation of it.

Usage: post_quantum.py FOLDER, with root-N.pem, leaf-N.pem, crl-N.pem and signature-N (Transit's, on "a message to N" by the leaf's key), own-N.pem (a public key)
and own-signature-N (on "a message to own N").
"""

import base64
import pathlib
import sys

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

folder = pathlib.Path(sys.argv[1])
OIDS = {"44": "2.16.840.1.101.3.4.3.17", "65": "2.16.840.1.101.3.4.3.18", "87": "2.16.840.1.101.3.4.3.19"}
for number, oid in OIDS.items():
    root = x509.load_pem_x509_certificate((folder / f"root-{number}.pem").read_bytes())
    leaf = x509.load_pem_x509_certificate((folder / f"leaf-{number}.pem").read_bytes())
    revoked = x509.load_pem_x509_crl((folder / f"crl-{number}.pem").read_bytes())
    for signed in (root, leaf, revoked):
        assert signed.signature_algorithm_oid.dotted_string == oid
    for certificate in (root, leaf):
        root.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes)
    root.public_key().verify(revoked.signature, revoked.tbs_certlist_bytes)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and not usage.key_encipherment and not usage.key_agreement
    signature = base64.b64decode((folder / f"signature-{number}").read_text().rsplit(":", 1)[1])
    leaf.public_key().verify(signature, f"a message to {number}".encode())
    try:
        leaf.public_key().verify(signature, b"another message")
        raise AssertionError("a wrong message verified")
    except InvalidSignature:
        pass
    own = serialization.load_pem_public_key((folder / f"own-{number}.pem").read_bytes())
    signature = base64.b64decode((folder / f"own-signature-{number}").read_text().rsplit(":", 1)[1])
    own.verify(signature, f"a message to own {number}".encode())
