"""What `step.py` compares: groups of subjects, and the ratios beside their bars."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.harness.measure import Subject
from benchmarks.harness.ratios import Ratio
from benchmarks.harness.report import RESULTS

DTYPES = ("float32", "bfloat16")
BACKENDS = ("tensorflow", "jax", "torch")
LAYOUTS = {"NCHW": False, "channels_last": True}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the comparison."""

    groups: tuple[str, ...] = ("peer", "floor", "generation", "routing", "memory")
    """Which comparisons to run; see benchmarks/README.md. Also: backends."""
    batch: int = 64
    """Images per step."""
    large_batch: int = 256
    """The second batch size at which generation is compared."""
    channels: int = 16
    num_cells: int = 3
    """Cells per stage."""
    image_size: int = 32
    rank: int = 32
    num_shots: int = 64
    sampler: str = "fairnas"
    rounds: int = 5
    """Turns of each subject."""
    steps: int = 3
    """Steps per turn."""
    threads: int | None = None
    """Cores for the subject at work; all by default."""
    backends: tuple[str, ...] = BACKENDS
    """Keras backends; the first is the default one. All of them are compared in
    the groups routing and backends."""
    variants: str = "{}"
    """JSON: name -> options of our step (supernet_step.build), each measured
    beside the default options in the groups peer, floor, memory and backends."""
    output: pathlib.Path = RESULTS / "step.json"

    def sizes(self, **changes: Any) -> dict[str, Any]:
        """Return the options that all subjects share."""
        return {
            "batch": self.batch,
            "channels": self.channels,
            "num_cells": self.num_cells,
            "image_size": self.image_size,
            **changes,
        }


@dataclasses.dataclass(frozen=True)
class Group:
    """Subjects that take turns, and what is to be read from them."""

    subjects: list[Subject]
    ratios: list[Ratio]


def parsed_variants(text: str) -> dict[str, dict]:
    """Read the setting ``variants``.

    Raises:
        ValueError: It is no JSON object.
    """
    variants = json.loads(text)
    if not isinstance(variants, dict):
        raise ValueError(f"variants must be a JSON object. Received: {variants=}")
    return variants


def our_subject(
    settings: Settings, label: str, backend: str | None = None, **options: Any
) -> Subject:
    """Return our step; ``options`` are of its ``build``."""
    options = {
        "rank": settings.rank,
        "num_shots": settings.num_shots,
        "sampler": settings.sampler,
        **settings.sizes(),
        **options,
    }
    kind = "fixed_paths" if "style" in options else "supernet"
    return Subject(label, kind, options, backend or settings.backends[0])


def with_variants(
    settings: Settings, variants: dict[str, dict], label: str, **options: Any
) -> list[Subject]:
    """Return our step, and beside it each of the variants."""
    return [
        our_subject(settings, f"{label}{name and ', '}{name}", **{**options, **changes})
        for name, changes in {"": {}, **variants}.items()
    ]


def peer_subjects(settings: Settings, dtype: str) -> list[Subject]:
    """Return the PyTorch peer in both memory layouts."""
    return [
        Subject(
            f"PyTorch peer, {dtype}, {name}",
            "torch_peer",
            settings.sizes(dtype=dtype, channels_last=channels_last),
        )
        for name, channels_last in LAYOUTS.items()
    ]


def compiled_peer_subjects(settings: Settings, dtype: str) -> list[Subject]:
    """Return the PyTorch peer under torch.compile, channels last."""
    options = settings.sizes(dtype=dtype, channels_last=True, compiled=True)
    return [Subject(f"PyTorch peer, {dtype}, compiled", "torch_peer", options)]


def labels_of(subjects: list[Subject]) -> tuple[str, ...]:
    """Return the names of subjects."""
    return tuple(subject.label for subject in subjects)


def peer(settings: Settings, variants: dict[str, dict]) -> Iterator[tuple[str, Group]]:
    """Our step on the default backend against plain PyTorch, per dtype."""
    bars: dict[str, dict[str, Any]] = {
        "float32": {"at_least": 1.0, "aim": 1.3},
        "bfloat16": {"at_least": 1.5},
    }
    for dtype in DTYPES:
        ours = with_variants(settings, variants, f"ours, {dtype}", dtype=dtype)
        peers = peer_subjects(settings, dtype)
        ratio = Ratio(
            f"images/s of ours / peer, {dtype}",
            labels_of(peers),
            labels_of(ours),
            **bars[dtype],
        )
        yield f"peer_{dtype}", Group([*ours, *peers], [ratio])


def floor(settings: Settings, variants: dict[str, dict]) -> Iterator[tuple[str, Group]]:
    """Our step against its convolutions, BatchNorms and pools alone."""
    ours = with_variants(settings, variants, "ours")
    floors = [
        Subject(
            f"floor{', joined' * joined}",
            "floor",
            settings.sizes(joined=joined),
            settings.backends[0],
        )
        for joined in (False, True)
    ]
    ratio = Ratio(
        "step / floor", labels_of(ours), labels_of(floors), at_most=1.6, aim=1.3
    )
    yield "floor", Group([*ours, *floors], [ratio])


def generation(
    settings: Settings, variants: dict[str, dict]
) -> Iterator[tuple[str, Group]]:
    """Compare generated kernels with plain weight sharing, many shots with one."""
    del variants
    shots, rank = settings.num_shots, settings.rank
    bars = {settings.batch: (1.15, 1.10), settings.large_batch: (1.05, 1.03)}
    for batch, (to_shared, to_one) in bars.items():
        generated = f"N={shots}, h={rank}, batch {batch}"
        one, shared = f"N=1, h={rank}, batch {batch}", f"shared, batch {batch}"
        yield (
            f"generation_{batch}",
            Group(
                [
                    our_subject(settings, generated, batch=batch),
                    our_subject(settings, one, batch=batch, num_shots=1),
                    our_subject(settings, shared, batch=batch, generator="shared"),
                ],
                [
                    Ratio(
                        f"N={shots} / shared, batch {batch}",
                        (generated,),
                        (shared,),
                        at_most=to_shared,
                    ),
                    Ratio(
                        f"N={shots} / N=1, batch {batch}",
                        (generated,),
                        (one,),
                        at_most=to_one,
                    ),
                ],
            ),
        )


def routing(
    settings: Settings, variants: dict[str, dict]
) -> Iterator[tuple[str, Group]]:
    """Drawn architectures against fixed ones, per backend."""
    del variants
    for backend in settings.backends:
        drawn = our_subject(settings, f"drawn, {backend}", backend)
        fixed = [
            our_subject(settings, f"fixed {style}, {backend}", backend, style=style)
            for style in ("set", "paths")
        ]
        at_most = 1.2 if backend == settings.backends[0] else None
        ratio = Ratio(
            f"drawn / fixed, {backend}",
            (drawn.label,),
            labels_of(fixed),
            at_most=at_most,
        )
        yield f"routing_{backend}", Group([drawn, *fixed], [ratio])


def memory(
    settings: Settings, variants: dict[str, dict]
) -> Iterator[tuple[str, Group]]:
    """Peak memory above data and weights, ours against the peer."""
    ours = with_variants(settings, variants, "ours")
    peers = peer_subjects(settings, "float32")
    ratios = [
        Ratio(
            f"peak memory, {subject.label} / peer",
            (subject.label,),
            labels_of(peers),
            quantity="peak_bytes",
            at_most=1.5,
        )
        for subject in ours
    ]
    yield "memory", Group([*ours, *peers], ratios)


def backends(
    settings: Settings, variants: dict[str, dict]
) -> Iterator[tuple[str, Group]]:
    """Our step on every backend, in both dtypes."""
    for dtype in DTYPES:
        ours = {
            backend: with_variants(
                settings, variants, f"{backend}, {dtype}", backend=backend, dtype=dtype
            )
            for backend in settings.backends
        }
        first, *others = ours
        ratios = [
            Ratio(
                f"{text}, {backend} / {first}, {dtype}",
                labels_of(ours[backend]),
                labels_of(ours[first]),
                quantity=quantity,
            )
            for quantity, text in (
                ("seconds", "step time"),
                ("peak_bytes", "peak memory"),
            )
            for backend in others
        ]
        subjects = [subject for group in ours.values() for subject in group]
        yield f"backends_{dtype}", Group(subjects, ratios)


GROUPS: dict[
    str, Callable[[Settings, dict[str, dict]], Iterator[tuple[str, Group]]]
] = {
    "peer": peer,
    "floor": floor,
    "generation": generation,
    "routing": routing,
    "memory": memory,
    "backends": backends,
}
