"""How fast is a training step, and how much memory does it take?

    python -m benchmarks.step
    python -m benchmarks.step --groups floor routing --rounds 7

Compares our step with a plain PyTorch supernet, with the bare convolutions it
is made of, with plain weight sharing and with architectures fixed at compile
time. Prints one table of ratios beside their bars and writes a section per
comparison to results/benchmarks/step.json; other sections of the file stay.
benchmarks/README.md says what each ratio means.
"""

import time

import tyro

from benchmarks.harness.groups import GROUPS, Settings, parsed_variants
from benchmarks.harness.measure import measure
from benchmarks.harness.report import print_table, provenance, replace_sections


def main(settings: Settings) -> None:
    """Run the chosen groups.

    Raises:
        ValueError: A group is unknown, or ``variants`` is no JSON object.
    """
    unknown = sorted(set(settings.groups) - set(GROUPS))
    if unknown:
        raise ValueError(f"groups must be among {sorted(GROUPS)}. Received: {unknown}")
    variants = parsed_variants(settings.variants)
    sections = {}
    for group in settings.groups:
        for name, comparison in GROUPS[group](settings, variants):
            start = time.perf_counter()
            results = measure(
                comparison.subjects, settings.rounds, settings.steps, settings.threads
            )
            sections[name] = {
                **provenance(settings, time.perf_counter() - start),
                "results": [result.as_dict() for result in results],
                "ratios": [ratio.evaluate(results) for ratio in comparison.ratios],
            }
            replace_sections(settings.output, {name: sections[name]})
    print_table("Training step", sections)


if __name__ == "__main__":
    main(tyro.cli(Settings))
