"""The paper's tables over NAS-Bench-201 as runs of nas_bench_201.py (§4.1, A.2).

And tables that are not the paper's: how far a weight moves, controls, generators
without distillation or with another conditioning.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from recipes.nas_bench_201 import PRESETS, Settings

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
# Paths of one machine: stored commands have these words in their place.
PLACEHOLDERS = {
    "data_dir": "DIR",
    "table": "TABLE",
    "split_file": "LISTS",
    "extra_archs": "ARCHS",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a table.

    Args:
        label: Its name in the report.
        paper: Its name in data/paper_tables.csv, or None.
        variant: Its runs' name; a line of another table may have the same.
        changes: Its settings where they differ from the base.
    """

    label: str
    paper: str | None
    variant: str
    changes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table or figure.

    Args:
        key: Its name on command lines.
        title: Its name in the paper and what it varies.
        entries: Its lines; all are compared with the first.
        optional: Whether it runs only when it is asked for by its key.
    """

    key: str
    title: str
    entries: tuple[Entry, ...]
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of nas_bench_201.py.

    Args:
        variant: What is varied.
        seed: Its seed.
        settings: All of its settings.
        tables: Keys of the tables that need it.
    """

    variant: str
    seed: int
    settings: Settings
    tables: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run's name, unique in the matrix."""
        return self.settings.name


def tables(base: Settings) -> tuple[Table, ...]:
    """Return the tables for a base whose rank and shots stand for h = 32 and N = 64.

    Where channels are fewer the rank must be too, or it never binds: so Table 6 has
    a quarter, a half and all of the base's rank, Table 7 an eighth to all of its
    shots.
    """
    main = Entry("Kshot-Hypernet", "Kshot-Hypernet", "kshot_hypernet", {})
    kshot = {"generator": "kshot", "num_shots": 12}
    ranks = [max(1, base.rank * share // 4) for share in (1, 2, 4)]
    shots = [max(1, base.num_shots * share // 8) for share in (1, 2, 4, 8)]
    hypernets = tuple(
        Entry(
            f"h = {rank}",
            f"Rank = {paper}",
            f"hypernet_h{rank}",
            {"generator": "hypernet", "rank": rank},
        )
        for rank, paper in zip(ranks, (8, 16, 32), strict=True)
    )
    shared = {"generator": "shared"}
    literal = {
        "scaling": "literal",
        "encoder_learning_rate_multiplier": 1.0,
        "gradient_scaling": "sum",
    }
    return (
        Table(
            "table_2",
            "Table 2: generator",
            (
                _entry("weight sharing", "shared", {"generator": "shared"}),
                _entry("Kshot (N = 12)", "kshot_12", kshot),
                main,
            ),
        ),
        Table(
            "table_3",
            "Table 3: distillation",
            (
                _entry("w/o KD", "no_distillation", {"distillation": False}),
                dataclasses.replace(main, label="w/ KD", paper="w/ our KD"),
            ),
        ),
        Table(
            "figure_7",
            "Figure 7: sampler",
            (
                Entry("FairNAS", None, "fairnas", {"sampler": "fairnas"}),
                dataclasses.replace(main, label="Focus-Fair", paper=None),
            ),
        ),
        Table(
            "table_6",
            "Table 6: rank, hypernetwork without shots",
            hypernets,
            optional=True,
        ),
        Table(
            "table_7",
            "Table 7: number of shots",
            tuple(
                Entry(f"N = {n}", f"N = {paper}", f"shots_{n}", {"num_shots": n})
                for n, paper in zip(shots, (8, 16, 32, 64), strict=True)
            ),
            optional=True,
        ),
        Table(
            "no_distillation",
            "Without distillation: generator, subnets learning the true labels",
            (
                Entry(
                    "weight sharing",
                    None,
                    "shared_no_distillation",
                    {"generator": "shared", "distillation": False},
                ),
                Entry(
                    "Kshot-Hypernet", None, "no_distillation", {"distillation": False}
                ),
            ),
            optional=True,
        ),
        Table(
            "step",
            "How far a weight moves: weight sharing",
            (
                Entry(
                    "mean loss",
                    None,
                    "shared_mean",
                    {**shared, "gradient_scaling": "mean"},
                ),
                Entry("mean over users", None, "shared", shared),
                Entry(
                    "mean over users, by softmax(beta)",
                    None,
                    "shared_shares",
                    {**shared, "gradient_scaling": "shares"},
                ),
                Entry(
                    "summed losses",
                    None,
                    "shared_sum",
                    {**shared, "gradient_scaling": "sum"},
                ),
            ),
            optional=True,
        ),
        Table(
            "conditioning",
            "Conditioning: kernels that differ by architecture from the start",
            (
                Entry("weight sharing", None, "shared", shared),
                dataclasses.replace(main, paper=None),
                Entry(
                    "Kshot-Hypernet, centered",
                    None,
                    "centered",
                    {"generator": "centered_kshot_hypernet"},
                ),
                Entry(
                    "Kshot-Hypernet, centered, residual step 4",
                    None,
                    "centered_step_4",
                    {"generator": "centered_kshot_hypernet", "residual_step": 4.0},
                ),
                Entry(
                    "the same, encoder by Adam",
                    None,
                    "centered_adam",
                    {
                        "generator": "centered_kshot_hypernet",
                        "residual_step": 4.0,
                        "encoder_optimizer": "adam",
                    },
                ),
            ),
            optional=True,
        ),
        Table(
            "controls",
            "Controls: weight sharing at other learning rates; the paper to the letter",
            (
                Entry("weight sharing", None, "shared", shared),
                *(
                    Entry(
                        f"learning rate x {factor}",
                        None,
                        f"shared_rate_{name}",
                        {**shared, "learning_rate": factor * base.learning_rate},
                    )
                    for factor, name in ((0.5, "half"), (2, "double"))
                ),
                Entry("literal Kshot-Hypernet", None, "literal", literal),
            ),
            optional=True,
        ),
    )


def _entry(label: str, variant: str, changes: Mapping[str, Any]) -> Entry:
    return Entry(label, label, variant, changes)


def unique_variants(base: Settings, all_tables: tuple[Table, ...]) -> tuple[Table, ...]:
    """Give lines with the same settings the same variant, the first one's."""
    variants: dict[Settings, str] = {}
    # The base first: whatever changes nothing is the method itself.
    variants[base] = "kshot_hypernet"
    merged = []
    for table in all_tables:
        entries = []
        for entry in table.entries:
            settings = dataclasses.replace(base, **entry.changes)
            variant = variants.setdefault(settings, entry.variant)
            entries.append(dataclasses.replace(entry, variant=variant))
        merged.append(dataclasses.replace(table, entries=tuple(entries)))
    return tuple(merged)


def rows(
    base: Settings, all_tables: tuple[Table, ...], seeds: int, only: Collection[str]
) -> list[Row]:
    """Return the runs, each once, in the order in which they should run.

    One seed after the other, of each the method itself first.

    Args:
        base: Settings of every run; the matrix changes a few.
        all_tables: As `unique_variants` returns them.
        seeds: Seeds of each row: 0, 1, ...
        only: Keys of the tables to run; all but the optional ones if empty.

    Raises:
        ValueError: A key is unknown.
    """
    keys = [table.key for table in all_tables]
    if set(only) - set(keys):
        raise ValueError(
            f"Tables must be among {keys}. Received: {sorted(set(only) - set(keys))}"
        )
    found: dict[tuple[str, int], Row] = {}
    default = [table.key for table in all_tables if not table.optional]
    chosen = [table for table in all_tables if table.key in (only or default)]
    for table in chosen:
        for seed in range(seeds):
            for entry in table.entries:
                place = (entry.variant, seed)
                name = f"{entry.variant}_seed{seed}"
                changes = {**entry.changes, "seed": seed, "name": name}
                settings = dataclasses.replace(base, **changes)
                before = found.get(place, Row(*place, settings, ()))
                needed = (*before.tables, table.key)
                found[place] = dataclasses.replace(before, tables=needed)
    return sorted(
        found.values(), key=lambda row: (row.seed, row.variant != "kshot_hypernet")
    )


def base_settings(preset: str, overrides: Mapping[str, Any]) -> Settings:
    """Return a preset with the method's own generator, distillation and sampler.

    Raises:
        ValueError: The preset or a field is unknown.
    """
    if preset not in PRESETS:
        raise ValueError(
            f"The base must be one of {list(PRESETS)}. Received: base={preset}"
        )
    method = {
        "generator": "kshot_hypernet",
        "sampler": "focus_fair",
        "distillation": True,
    }
    fields = {field.name for field in dataclasses.fields(Settings)}
    if set(overrides) - fields:
        raise ValueError(
            "Overrides must be fields of nas_bench_201.py's settings. "
            f"Received: {sorted(set(overrides) - fields)}"
        )
    return dataclasses.replace(PRESETS[preset][1], **{**method, **overrides})


def parse_overrides(words: Collection[str]) -> dict[str, Any]:
    """Read FIELD=VALUE words; a value is JSON, else text.

    Raises:
        ValueError: A word has no equals sign.
    """
    found = {}
    for word in words:
        field, sign, text = word.partition("=")
        if not sign:
            raise ValueError(f"An override must be FIELD=VALUE. Received: {word}")
        try:
            found[field] = json.loads(text)
        except json.JSONDecodeError:
            found[field] = text
    return found


def arguments(preset: str, settings: Settings, shown: bool = False) -> list[str]:
    """Return the arguments of nas_bench_201.py for a run.

    Args:
        preset: The preset that the flags start from.
        settings: The run's settings.
        shown: For the reader on another machine: data lie where words in capitals
            say, other paths are relative to the repository, or the recipe's own if
            they lie outside of it.
    """
    words = [preset]
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if value == getattr(PRESETS[preset][1], field.name):
            continue
        flag = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif shown and field.name in PLACEHOLDERS:
            words += [f"--{flag}", PLACEHOLDERS[field.name]]
        elif shown and isinstance(value, pathlib.Path):
            if value.is_relative_to(REPOSITORY):
                words += [f"--{flag}", str(value.relative_to(REPOSITORY))]
        else:
            words += [f"--{flag}", str(value)]
    return words


def command(preset: str, settings: Settings) -> str:
    """Return the command that runs one row alone, from the repository."""
    words = arguments(preset, settings, shown=True)
    return " ".join(["python -m recipes.nas_bench_201", *words])
