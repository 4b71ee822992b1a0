"""Holds a daemon to its own description of its API.

Usage: openapi_story.py SOCKET TOKEN LIBRARY LABEL [EXAMPLES [SEED]]. The daemon is a new one, with a token LABEL in LIBRARY. Every operation
of the description is asked many times with what schemathesis makes of it: with values that there are, so that it goes well at least
once; with any values that fit the description; and with values that do not. No answer may be a server's error, and all must have the
form that is described.
"""

import base64
import collections
import copy
import sys
import time

import hypothesis
import schemathesis
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from furniture import BASE, TIMEOUT, Client, furnish

PATH = "sys/internal/specs/openapi"
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
# Operations that never go well here, and why.
REFUSED = {
    "sys-write-init": "the daemon is initialised",
    "sys-write-namespaces-api-lock-lock": "the root namespace cannot be locked",
    "sys-write-namespaces-api-lock-unlock": "the root namespace is not locked",
    "sys-write-leases-renew": "no certificate is renewed",
    "sys-write-leases-renew-with-url-lease-id": "no certificate is renewed",
    "sys-read-auth-tune": "the path made up is a mount's, and no way to get a token",
    "sys-write-wrapping-wrap": "only a header asks for wrapping",
    "auth-write-token-renew-self": "a root token does not end",
    "sys-write-storage-raft-snapshot": "what is made up is no snapshot",
    "sys-write-storage-raft-snapshot-force": "what is made up is no snapshot",
    "pki-list-certs-unfinished": "nothing was cut short",
    "pki-write-keys-import": "no private key is imported",
    "transit-read-export": "no private key is exported",
}
# Fields whose values are a client's word for the status of an answer: an error of the server's there is what was asked for.
STATUSES = {"activecode", "sealedcode", "uninitcode", "partial_failure_response_code"}
# Asked when all others were, in this order: what they do, the others need undone.
LAST = [
    "sys-write-namespaces-api-lock-unlock-with-subpath",
    "sys-delete-namespaces",
    "sys-write-leases-revoke",
    "sys-write-leases-revoke-with-url-lease-id",
    "sys-write-leases-revoke-prefix",
    "transit-write-config-keys",
    "transit-write-keys-config",
    "transit-write-keys-rotate",
    "transit-write-keys-trim",
    "transit-delete-keys",
    "pki-write-roles",
    "pki-patch-roles",
    "pki-delete-roles",
    "pki-write-config-cluster",
    "pki-write-config-crl",
    "pki-write-config-urls",
    "pki-write-config-keys",
    "pki-write-root-rotate",
    "pki-write-root-replace",
    "pki-write-config-issuers",
    "pki-write-key",
    "pki-patch-issuer",
    "pki-write-issuer",
    "pki-write-issuer-revoke",
    "pki-delete-key",
    "pki-delete-issuer",
    "pki-delete-root",
    "sys-write-quotas-rate-limit",
    "sys-write-quotas-concurrency",
    "sys-delete-managed-keys",
    "sys-write-mounts-tune",
    "sys-delete-mounts",
    "sys-write-seal",
    "auth-write-token-revoke-self",
]


@schemathesis.serializer("application/ocsp-request")
def _(_context, value):
    """One that is known is in base64, since values of JSON are text."""
    return value if isinstance(value, bytes) else base64.b64decode(value)


class Known:
    """The values that there are, by the names of fields and parts of paths."""

    def __init__(self, everywhere, of):
        self.everywhere, self.of = everywhere, of

    def own(self, id):
        """Those of one operation, which it is always asked with."""
        begin = max((begin for begin in self.of if id.startswith(begin)), key=len, default=None)
        return self.of.get(begin, {})

    def schema(self, id, name, described):
        """What a value may be; None if the field is left out."""
        values = self.own(id).get(name, self.everywhere.get(name))
        if values is None:
            return None
        return described if values == "any" else {"enum": values}

    def narrow(self, document, fields):
        """The description, with only such values in paths; and in fields too, without those that have none."""
        document = copy.deepcopy(document)
        for item in document["paths"].values():
            shared = item.pop("parameters", [])
            for operation in filter(lambda member: isinstance(member, dict), item.values()):
                own = copy.deepcopy(shared + operation.get("parameters", []))
                operation["parameters"] = list(filter(None, (self.parameter(operation, each, fields) for each in own)))
                if fields:
                    self.narrow_body(document, operation)
        return document

    def parameter(self, operation, parameter, fields):
        if parameter["in"] == "path" or fields and parameter["name"] != "list":
            schema = self.schema(operation["operationId"], parameter["name"], parameter["schema"])
            assert schema or parameter["in"] == "query", f"{operation['operationId']} has no value for {parameter['name']}"
            return schema and {**parameter, "schema": schema}
        return parameter

    def narrow_body(self, document, operation):
        id = operation["operationId"]
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "$ref" not in content["schema"]:
                content["schema"] = self.schema(id, "body", content["schema"])
                continue
            schema = document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]
            narrowed = {name: self.schema(id, name, property) for name, property in schema["properties"].items()}
            properties = {name: schema for name, schema in narrowed.items() if schema}
            required = sorted(set(schema.get("required", [])) | set(self.own(id)) & set(properties))
            content["schema"] = {**schema, "properties": properties, "required": required, "additionalProperties": False}
            operation["requestBody"]["required"] = bool(required)


class Story:
    def __init__(self, client, examples, seed):
        self.client, self.examples, self.seed = client, examples, seed
        self.statuses = collections.defaultdict(collections.Counter)
        self.told, self.never = {}, {}
        self.slowest = collections.Counter()
        self.wrong = []

    def ask_all(self, document, known):
        """Asks for everything: each operation with what is known first."""
        narrow = operations(known.narrow(document, fields=True))
        wide = operations(known.narrow(document, fields=False))
        for id in sorted(narrow, key=lambda id: LAST.index(id) if id in LAST else -1):
            self.ask(narrow[id], GenerationMode.POSITIVE)
            if min(self.statuses[id], default=500) >= 300:
                self.never[id] = self.told.get(id)
            self.ask(wide[id], GenerationMode.POSITIVE)
            self.ask(wide[id], GenerationMode.NEGATIVE)

    def ask(self, operation, mode):
        id = id_of(operation)

        @hypothesis.seed(self.seed)
        @hypothesis.settings(
            max_examples=self.examples,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def asked(case):
            begun = time.monotonic()
            answer = case.call(base_url=f"{BASE}/v1", session=self.client.session, timeout=TIMEOUT)
            self.slowest[id] = max(self.slowest[id], time.monotonic() - begun)
            self.statuses[id][answer.status_code] += 1
            self.told[id] = answer.content[:300]
            if id == "sys-write-seal":
                self.client.ask("POST", "sys/unseal")
            if not names_a_status(case):
                case.validate_response(answer, checks=CHECKS)

        try:
            asked()
        except hypothesis.errors.Unsatisfiable:
            # There is nothing to get wrong in a request that says nothing.
            assert mode is GenerationMode.NEGATIVE, id
        except (Exception, BaseExceptionGroup) as wrong:
            each = "\n".join(str(one) for one in getattr(wrong, "exceptions", []))
            self.wrong.append(f"{id}, {mode.value}: {wrong}\n{each}")
            print(self.wrong[-1], flush=True)


def id_of(operation):
    return operation.definition.raw["operationId"]


def operations(document):
    schema = schemathesis.openapi.from_dict(document)
    # The token is not for guessing.
    schema.config.generation.update(with_security_parameters=False)
    found = [found.ok() for found in schema.get_all_operations()]
    return {id_of(operation): operation for operation in found}


def names_a_status(case):
    return any(isinstance(said, dict) and STATUSES & said.keys() for said in (case.query, case.body))


def main(socket, token, library, label, examples="3", seed="1"):
    client = Client(socket, token)
    known = Known(*furnish(client, library, label))
    document = client.ask("GET", PATH)
    validate(document)
    # Described no more than others of its kind, and there to be unmounted.
    client.write("sys/mounts/old", type="pki")
    story = Story(client, int(examples), int(seed))
    story.ask_all(document, known)
    for id, statuses in sorted(story.statuses.items()):
        print(id, f"{story.slowest[id]:.3f} s", dict(sorted(statuses.items())))
    assert story.statuses.keys() == operations(document).keys()
    unexpected = {id: told for id, told in story.never.items() if id not in REFUSED}
    assert not unexpected, "\n".join(f"{id} never went well: {told}" for id, told in sorted(unexpected.items()))
    assert story.never.keys() == REFUSED.keys(), f"went well after all: {REFUSED.keys() - story.never.keys()}"
    assert not story.wrong, "\n\n".join(story.wrong)


main(*sys.argv[1:])
