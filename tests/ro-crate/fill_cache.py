"""Puts the JSON-LD context of RO-Crate 1.1 into the validator's cache, so that it needs no network.

usage: fill_cache.py CONTEXT.jsonld CACHE
"""

import io
import sys
from pathlib import Path

from requests.adapters import HTTPAdapter
from requests_cache import CachedSession
from urllib3 import HTTPResponse

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


class FromFile(HTTPAdapter):
    """Answers every request with one file."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def send(self, request, **kwargs):
        headers = {"Content-Type": "application/ld+json"}
        body = io.BytesIO(self.path.read_bytes())
        raw = HTTPResponse(body, headers, 200, reason="OK", preload_content=False, request_url=request.url)
        return self.build_response(request, raw)


def main():
    context, cache = map(Path, sys.argv[1:])
    session = CachedSession(cache_name=str(cache), backend="sqlite", expire_after=-1)
    session.mount(CONTEXT, FromFile(context))
    session.get(CONTEXT).raise_for_status()


main()
