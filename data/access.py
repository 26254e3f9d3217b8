"""What the system or a server refuses, as one sentence, and whether it may pass.

The system says so by a number. A server says so in words, which Arrow hands on; of those, the ones
that name the request itself as wrong (no such bucket, no permission) will be said again.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from data.errors import StoreAccessError, StoreUnavailableError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_FINAL = _FORBIDDEN | {
    errno.EEXIST,
    errno.EFBIG,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSYS,
    errno.ENOTDIR,
    errno.ENOTSUP,
    errno.EXDEV,
}
_SERVER = re.compile(
    r"AWS Error (?P<code>\w+) during \w+ operation"
    r"(?: \(HTTP status (?P<status>\d+)\))?: (?P<said>.+)",
    re.DOTALL,
)
_DENIED_CODES = {
    "ACCESS_DENIED",
    "INCOMPLETE_SIGNATURE",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "INVALID_SIGNATURE",
    "MISSING_AUTHENTICATION_TOKEN",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
}
_DENIED = {"401", "403"}
_MAY_PASS = {"408", "425", "429"}  # of the refusals 4xx
_ELSEWHERE = "choose another place with --store or CIRCUIT_GRID_STORE"


@contextmanager
def reaching(what: str, done: str, store: str) -> Iterator[None]:
    """Turn what is refused within into a StoreAccessError: `what` cannot be `done` to the `store`.

    A StoreUnavailableError where it may pass. That there is no such file is let through.
    """
    try:
        yield
    except (FileNotFoundError, StoreAccessError):
        raise
    except OSError as error:
        raise refusal(error, f"{what} cannot be {done} the store {store!r}") from error


def refusal(error: OSError, sentence: str) -> StoreAccessError:
    """A sentence, what the system says added to it, and what to do."""
    said = _SERVER.search(str(error)) if error.errno is None else None
    status = (said["status"] or "") if said else ""
    kind: type[StoreAccessError] = StoreAccessError
    if error.errno in _FULL:
        kind, advice = StoreUnavailableError, "make room, then run again"
    elif error.errno in _FORBIDDEN:
        advice = f"permit it, or {_ELSEWHERE}"
    elif error.errno == errno.EISDIR:
        advice = f"remove what is in its place, or {_ELSEWHERE}"
    elif error.errno in _FINAL:
        advice = _ELSEWHERE
    elif said and (said["code"] in _DENIED_CODES or status in _DENIED):
        advice = (
            "give credentials that it accepts (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), or"
            f" {_ELSEWHERE}"
        )
    elif said and said["code"] == "NO_SUCH_BUCKET":
        advice = f"make the bucket, or {_ELSEWHERE}"
    elif status.startswith("4") and status not in _MAY_PASS:
        advice = _ELSEWHERE
    else:
        kind = StoreUnavailableError
        advice = f"see that it can be reached, then run again, or {_ELSEWHERE}"
    reason = error.strerror or _server_said(said, str(error))
    return kind(f"{sentence}: {reason}; {advice}.", reason, advice)


def _server_said(said: re.Match[str] | None, message: str) -> str:
    """What a server says, in its own words, without what only its makers read."""
    words = re.sub(r"^curlCode: \d+, ", "", said["said"] if said else message)
    words = re.split(r" \(Request ID|; Details: |\n", words, maxsplit=1)[0].strip().rstrip(".")
    if said and words in ("", "No response body"):
        return said["code"].replace("_", " ").lower()
    return words or "the server does not say why"
