"""What surrounds an experiment: result files with their origin, resumable runs."""

from keras_khyper.experiments.result_files import (
    provenance,
    record,
    write_json,
    write_text,
)
from keras_khyper.experiments.run_folder import (
    Stopwatch,
    lock_folder,
    open_folder,
    read_history,
    read_trained,
    save_supernet,
)
from keras_khyper.experiments.settings import (
    changed_settings,
    make_generator,
    read_settings,
    restore_settings,
    setting_defaults,
    stored_settings,
)
from keras_khyper.experiments.subnet_files import (
    read_archs,
    read_subnets,
    write_subnets,
)

__all__ = [
    "Stopwatch",
    "changed_settings",
    "lock_folder",
    "make_generator",
    "open_folder",
    "provenance",
    "read_archs",
    "read_history",
    "read_settings",
    "read_subnets",
    "read_trained",
    "record",
    "restore_settings",
    "save_supernet",
    "setting_defaults",
    "stored_settings",
    "write_json",
    "write_subnets",
    "write_text",
]
