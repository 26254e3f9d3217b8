"""An S3 server on this machine: moto's, at a free port, for as long as it is needed."""

import contextlib
import io
import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from moto.server import ThreadedMotoServer
from werkzeug.serving import WSGIRequestHandler

BUCKET = "circuits"
_ASKED: dict[int, list[str]] = {}  # requests by port


def _log_request(self: WSGIRequestHandler, *_: object) -> None:
    """Keep a request in place of printing it."""
    _ASKED.setdefault(self.server.port, []).append(f"{self.command} {self.path}")


WSGIRequestHandler.log_request = _log_request  # type: ignore[method-assign]


@dataclass(frozen=True)
class S3Server:
    """A running server with one bucket, and how to speak of it."""

    server: ThreadedMotoServer
    port: int
    asked: list[str]  # the requests so far, each its method and path

    def url(self, folder: str, bucket: str = BUCKET, user: str = "name:secret-word@") -> str:
        """The URL of a store; the server takes any credentials unless `guarded`."""
        where = f"scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"
        return f"s3://{user}{bucket}/{folder}?{where}"

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Within it, the credentials in URLs are refused."""
        self._ask("/moto-api/reset-auth", "POST", b"0")
        try:
            yield
        finally:
            self._ask("/moto-api/reset-auth", "POST", b"inf")

    def objects(self) -> list[str]:
        """The objects there are, from the server's own books."""
        from moto.s3.models import s3_backends

        return sorted(s3_backends["123456789012"]["aws"].buckets[BUCKET].keys)

    def changed(self, path: str, at: datetime | None = None) -> datetime:
        """When an object was changed last; from now on at another time, if one is given."""
        from moto.s3.models import s3_backends

        there = s3_backends["123456789012"]["aws"].buckets[BUCKET].keys[path]
        if at is not None:
            there.last_modified = at
        return there.last_modified

    def make_bucket(self) -> None:
        """Make the bucket."""
        self._ask(f"/{BUCKET}", "PUT", b"")

    def stop(self) -> None:
        """Go away."""
        self.server.stop()

    def _ask(self, path: str, method: str, body: bytes) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, method=method)
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/x")
        request.add_header("Content-Type", "text/plain")
        with urllib.request.urlopen(request, timeout=30):
            pass


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server of one's own."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0)
    with contextlib.redirect_stdout(io.StringIO()):
        server.start()
    port = server.get_host_and_port()[1]
    running = S3Server(server, port, _ASKED.setdefault(port, []))
    running.make_bucket()
    try:
        yield running
    finally:
        server.stop()
