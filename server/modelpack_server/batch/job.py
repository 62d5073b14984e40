"""The door: a plan is carried out into files, a folder or a table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelpack import coerce
from modelpack.model import Model
from modelpack_server.batch import plan as plans
from modelpack_server.batch import progress, rejects, writers
from modelpack_server.batch.into_folder import into_folder
from modelpack_server.batch.into_remote import into_remote
from modelpack_server.batch.into_table import into_table
from modelpack_server.batch.making import Maker
from modelpack_server.batch.options import Options, Summary, with_engine
from modelpack_server.batch.plan import Plan
from modelpack_server.batch.processes import Processes

__all__ = ["predict_files", "run"]


def predict_files(
    model: Model,
    inputs: Sequence[str | Path],
    output: str | Path,
    options: Options = Options(),  # noqa: B008 - frozen
) -> Summary:
    """Score files into files, in bounded memory, and return what was done.

    The output appears only when it is whole. An error leaves nothing behind but, of a folder, what is finished: the
    same call goes on from there.

    Raises:
        UsageError: the inputs or the output cannot be what they should be.
        InputError: a row that does not fit the signature, by file and row number, unless ``options.on_error`` says
            where to write such rows; or a file that cannot be read.
        ModelError: the model raised, with file and rows.
    """
    return run(model, plans.make(inputs, output, options), options)


def run(model: Model, plan: Plan, options: Options) -> Summary:
    """Carry out a plan."""
    if options.workers is not None:
        with Processes(options.workers) as engine:
            return run(model, plan, with_engine(replace(options, workers=None), engine))
    params = coerce.params(options.params, model.signature)
    if plan.table:
        return into_table(model, plan, params, options)
    if plan.folder and plan.remote is not None:
        return into_remote(model, plan, params, options)
    if plan.folder:
        return into_folder(model, plan, params, options)
    return _into_files(model, plan, params, options)


def _into_files(model: Model, plan: Plan, params: Mapping[str, Any], options: Options) -> Summary:
    started = time.perf_counter()
    rows = 0
    with (
        # The rejects get their name first: an output that is there is complete in every way.
        plan.open(options) as destination,
        rejects.opened(options.on_error, options.max_rejects, overwrite=options.overwrite) as refused,
        progress.start(plan.sources, show=options.progress) as shown,
    ):
        maker = Maker(model, params, options, shown)
        for part in plan.parts:
            with destination.open(part.stem, part.kind) as file, writers.writer(part.kind, file) as out:
                rows += maker.make(part, out, refused)
    return Summary(
        rows=rows,
        rejected=refused.count,
        files=plan.files,
        seconds=time.perf_counter() - started,
        package=model.digest,
        outputs=plan.outputs,
        rejects=str(options.on_error) if options.on_error else None,
    )
