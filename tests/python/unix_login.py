"""A program that logs in with hvac by who the kernel says it is.

Usage: unix_login.py SOCKET ROLE. The role gives the policy `reader`, which may read sys/mounts.
"""

import sys

import hvac.exceptions as errors

from vault import client as vault_client

path, role = sys.argv[1:]
client = vault_client(path, None)

try:
    client.sys.list_mounted_secrets_engines()
    raise AssertionError("nobody is let in without a token")
except errors.Forbidden:
    pass
try:
    client.adapter.login("/v1/auth/unix/login", use_token=True, json={"role": "unheard-of"})
    raise AssertionError("there is no such role")
except errors.Forbidden as refused:
    assert "no login" in str(refused), refused
answer = client.adapter.login("/v1/auth/unix/login", use_token=True, json={"role": role})
assert client.token == answer["auth"]["client_token"]
assert answer["auth"]["token_policies"] == ["default", "reader"], answer
assert client.is_authenticated()
assert "data" in client.sys.list_mounted_secrets_engines()
assert client.auth.token.lookup_self()["data"]["meta"]["role"] == role
assert client.auth.token.renew_self()["auth"]["lease_duration"] > 0
client.auth.token.revoke_self()
assert not client.is_authenticated()
