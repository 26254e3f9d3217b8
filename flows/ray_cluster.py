"""A Ray cluster that somebody keeps: whether it is there, and whether its workers can do stages."""

from __future__ import annotations

import socket
from importlib.metadata import version
from urllib.parse import urlsplit

import ray
from prefect.settings import PREFECT_API_URL

from flows.errors import GridError
from flows.server import is_reachable

_SECONDS_TO_ANSWER = 5.0
_SECONDS_TO_GREET = 60.0


def check_address(address: str) -> None:
    """GridError unless it is one of a Ray cluster's forms, and something answers there."""
    if address == "auto":
        return
    form = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = form.hostname, form.port
    except ValueError:
        host, port = None, None
    if form.scheme not in ("", "ray") or host is None or port is None:
        raise GridError(
            f"{address}: write a Ray cluster's address as ray://host:10001 or host:6379"
        )
    try:
        socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise GridError(
            f"nothing answers at {address}, where a Ray cluster should be ({error}): start one "
            f"(`ray start --head`), or leave --address and RAY_ADDRESS out to have one started here"
        ) from None


def check_workers(address: str) -> None:
    """GridError unless a worker of the cluster has this package, and reaches Prefect."""
    url = str(PREFECT_API_URL.value())
    greet = ray.remote(num_cpus=0, max_retries=0)(_greet)
    try:
        theirs, reaches = ray.get(greet.remote(url), timeout=_SECONDS_TO_GREET)
    except ray.exceptions.GetTimeoutError:
        raise GridError(
            f"the Ray cluster at {address} starts no worker within {_SECONDS_TO_GREET:.0f} s: see "
            f"`ray status` there"
        ) from None
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise GridError(
            f"the workers of the Ray cluster at {address} cannot load circuit-grid: install it "
            f"there, in the Python that Ray runs on ({last})"
        ) from None
    if theirs != version("circuit-grid"):
        raise GridError(
            f"the workers at {address} have circuit-grid {theirs}, here it is "
            f"{version('circuit-grid')}: install the same"
        )
    if not reaches:
        raise GridError(
            f"the workers at {address} do not reach your Prefect server at {url}: set "
            f"PREFECT_API_URL to an address that is right on their machines, too"
        )


def _greet(url: str) -> tuple[str, bool]:
    """In a worker: which version it has, and whether it reaches a Prefect server."""
    return version("circuit-grid"), is_reachable(url)
