"""A whole run: one part after the other, each kept as soon as it is there."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Optional

from tqdm import tqdm

from vqvae_gluon.bench import inference, limit, machine, parity, scaling, startup, training
from vqvae_gluon.bench.plan import Bench, Settings
from vqvae_gluon.bench.report import summary
from vqvae_gluon.bench.results import Results, Row
from vqvae_gluon.errors import RuntimeFailure, one_line
from vqvae_gluon.temporary import temporary_directory

Part = Callable[[Callable[[], object]], list[Row]]
_SCALED = "cifar10"  # whose cost by size is measured; else the last bundle's


def run(settings: Settings, output: Optional[Path], resume: bool, note: Callable[[str], None]) -> tuple[Results, bool]:
    """Measure.

    Args:
        output: directory for results.json, which is written after each part; None: nowhere.
        resume: go on with what is there.
        note: is told what is left out, and why.

    Returns:
        What was measured, and whether all of it could be.

    Raises:
        VQVAEError: a bundle or what is to be resumed cannot be used.
    """
    results = Results(machine.describe(settings.effort.threads), settings.to_json())
    whole = True
    with temporary_directory() as directory:

        def keep_note(text: str) -> None:
            if text not in results.notes:
                results.notes.append(text)
                note(text)

        bench = Bench(settings, directory, keep_note)
        if resume and output is not None:
            results.go_on(output)
        waiting = {name: part for name, part in _parts(bench).items() if name not in results.parts}
        with tqdm(waiting.items(), unit="part", leave=False, disable=None) as bar:
            for name, part in bar:
                bar.set_postfix_str(one_line(name))
                try:
                    results.parts[name] = part(bar.refresh)
                except KeyboardInterrupt:
                    whole = False
                    keep_note(f"interrupted in {name}; go on with --resume")
                    break
                except RuntimeFailure as failure:
                    whole = False
                    keep_note(f"{name} failed: {failure}")
                    continue
                if output is not None:
                    results.write(output, summary(results))
    return results, whole


def _parts(bench: Bench) -> dict[str, Part]:
    """What is to be done, by name, which begins with its section's."""
    parts: dict[str, Part] = {}
    sections = bench.settings.sections
    scaled = [one for one in bench.subjects if one.name == _SCALED] or bench.subjects[-1:]
    if "limit" in sections:
        parts["limit"] = partial(limit.measure, bench)
    if "inference" in sections:
        for subject in bench.subjects:
            for batch in bench.settings.batches:
                name = f"inference {subject.name} {batch}"
                parts[name] = partial(inference.measure, bench, subject, batch)
    if "training" in sections:
        for preset in training.PRESETS_MEASURED:
            parts[f"training {preset}"] = partial(training.measure, bench, preset)
    if "startup" in sections:
        for subject in bench.subjects[:1]:
            parts[f"startup {subject.name}"] = partial(startup.measure, bench, subject)
    if "scaling" in sections:
        for subject in scaled:
            parts[f"scaling {subject.name}"] = partial(scaling.measure, bench, subject)
    if "parity" in sections:
        for subject in scaled:
            parts[f"parity {subject.name}"] = partial(parity.measure, bench, subject)
    return parts
