"""Doing one stage, wherever that is: lease it, look once more, build, publish.

Whatever goes wrong leaves as one `StageError`, which any process can read: a sentence for what was
foreseen, a traceback for what was not, and whether it may pass. Where memory runs out, the stage is
built again with half as many examples at a time, down to one.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from circuits.errors import CircuitError
from circuits.memory import at_most, is_out_of_memory, let_go
from data import StoreError, provenance
from data.errors import ArtifactLostError, StoreUnavailableError
from flows.errors import GridError, Lost, StageError
from flows.measuring import measured
from flows.plan import finished, read_through
from flows.runner import Done, Order
from flows.workbench import Workbench, workbench
from tasks import TaskError

_MAY_PASS = {
    *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN),
    *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EMFILE),
}


def carry_out(order: Order, in_worker: bool = False) -> Done | None:
    """Do a stage unless it is done; None if another process is doing it. Raises StageError."""
    try:
        return _carry_out(order)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        # The boundary of a stage: whatever it meets, the others of the grid go on. A worker is
        # ended by its owner, so what looks like an interruption is the stage's own doing.
        if isinstance(error, KeyboardInterrupt) and not in_worker:
            raise
        failure = _told(error)
        let_go(error)  # its frames hold tensors, even a model
    raise failure


def _told(error: BaseException) -> StageError:
    """What people and the dispatcher are told of an error."""
    if isinstance(error, StageError):
        return StageError(error.sentence, error.story, error.may_pass, error.lost)
    if is_out_of_memory(error):
        return StageError(f"there was not memory enough ({_said(error)})", may_pass=True)
    if isinstance(error, ArtifactLostError):
        return StageError(str(error), lost=Lost(error.kind, error.key, error.reason))
    if isinstance(error, TaskError | CircuitError | StoreError | GridError):
        return StageError(str(error), may_pass=isinstance(error, StoreUnavailableError))
    story = "".join(traceback.format_exception(error))
    may_pass = isinstance(error, OSError) and error.errno in _MAY_PASS
    return StageError(f"{type(error).__name__}: {_said(error)}", story, may_pass)


def _said(error: BaseException) -> str:
    """The first line of what an error says, whatever happens when it is asked."""
    try:
        return (str(error).strip().splitlines() or ["no message"])[0]
    except Exception:
        return "no message that can be read"


def _carry_out(order: Order) -> Done | None:
    stage = order.stage
    assert stage.key is not None, f"{stage.label} was asked for before its inputs were there"
    bench = workbench(order.location, order.memory_budget)
    bench.models.bound(order.max_models, order.max_bytes)
    lease = bench.store.lease(stage.key)
    if lease is None:
        return None
    with lease:
        if order.doubted:
            read_through(bench.store, stage)
        found = finished(bench.store, stage)  # another process may just have finished it
        if found is not None:
            return Done(found, reused=True)
        stage.prepare()
        device = None
        if stage.runs is not None:
            device = str(bench.model(stage.runs).device)  # loading is not the stage's own time
            if order.next_model is not None:
                bench.models.expect(order.next_model)
        with measured(device) as cost:
            tables, most_examples = build_within_memory(order, bench)
        about = provenance(
            stage.name,
            stage.scope,
            cost.seconds,
            cost.peak_bytes,
            device,
            None if stage.runs is None else stage.runs.dtype,
            stage.parts,
            most_examples,
        )
        return Done(bench.store.write_all(stage.key, tables, about), most_examples=most_examples)


def build_within_memory(
    order: Order, bench: Workbench
) -> tuple[Mapping[str, pa.Table], int | None]:
    """The stage's tables, and how many examples at a time they took if memory ran out on the way.

    Raises StageError where not even one example fits; whatever else the stage raises.
    """
    most = order.most_examples
    while True:
        with at_most(most) as cap:
            try:
                return order.stage.build(bench), most
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                sentence = _said(error)
                let_go(error)
        if cap.half is None:
            raise StageError(
                f"there is not memory enough even for one example at a time ({sentence}): free "
                f"some, or use another device or dtype",
                may_pass=True,
            )
        most = cap.half


def with_half(order: Order, n_examples: int | None) -> Order:
    """The order with half as many examples at a time, for a process that the system killed."""
    at_once = order.most_examples or n_examples or 2
    return replace(order, most_examples=max(1, at_once // 2))
