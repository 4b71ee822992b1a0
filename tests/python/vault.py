"""hvac, Vault's client in Python, over a Unix socket."""

import socket
from urllib.parse import unquote, urlsplit

import hvac
import requests
import urllib3
from requests.adapters import HTTPAdapter


class _Connection(urllib3.connection.HTTPConnection):
    def __init__(self, path, **options):
        super().__init__("localhost", **options)
        self._path = path

    def _new_conn(self):
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(30)
        connected.connect(self._path)
        return connected


class _Pool(urllib3.HTTPConnectionPool):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self._path = path

    def _new_conn(self):
        return _Connection(self._path)


class UnixAdapter(HTTPAdapter):
    """Sends requests for http+unix://%2Fpath%2Fto%2Fsocket to that socket."""

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
        return _Pool(unquote(urlsplit(request.url).netloc))

    def request_url(self, request, proxies):
        return request.path_url


def client(path, token=None, namespace=None):
    session = requests.Session()
    session.mount("http+unix://", UnixAdapter())
    url = "http+unix://" + requests.utils.quote(path, safe="")
    return hvac.Client(url=url, token=token, namespace=namespace, session=session)
