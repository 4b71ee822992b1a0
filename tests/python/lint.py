"""Lints certificates, CRLs and OCSP responses with pkilint.

Usage: lint.py KIND:PATH..., where KIND is pkix (RFC 5280), serverauth (the CA/Browser Forum's), crl or ocsp, and PATH is of a PEM
or DER file. Prints every finding that is an error as PATH, severity and code.
"""

import sys

from pkilint import finding_filter, loader, pkix
from pkilint.cabf import serverauth
from pkilint.pkix import certificate, crl, extension, name, ocsp


def pkix_validator(_):
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


def serverauth_validator(document):
    kind = serverauth.determine_certificate_type(document)
    return certificate.create_pkix_certificate_validator_container(
        serverauth.create_decoding_validators(), serverauth.create_validators(kind)
    )


def crl_validator(_):
    return crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )


def ocsp_validator(_):
    return ocsp.create_pkix_ocsp_response_validator_container(
        [
            ocsp.create_response_decoder(),
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [],
    )


KINDS = {
    "pkix": (loader.load_certificate, pkix_validator),
    "serverauth": (loader.load_certificate, serverauth_validator),
    "crl": (loader.load_crl, crl_validator),
    "ocsp": (loader.load_ocsp_response, ocsp_validator),
}


def findings(kind, path):
    load, validator = KINDS[kind]
    with open(path, "rb") as file:
        document = load(file.read(), path)
    results = validator(document).validate(document.root)
    if kind == "serverauth":
        filters = serverauth.create_serverauth_finding_filters(serverauth.determine_certificate_type(document))
        results, _ = finding_filter.filter_results(filters, results)
    for result in results:
        for described in result.finding_descriptions:
            if described.finding.severity.name in ("FATAL", "ERROR"):
                yield described.finding.severity.name, described.finding.code


def main(arguments):
    for argument in arguments:
        kind, path = argument.split(":", 1)
        for severity, code in findings(kind, path):
            print(path, severity, code)


main(sys.argv[1:])
