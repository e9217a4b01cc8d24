"""Convert a saved model under TensorFlow; started by `_bridge`.

The only argument is a folder with `request.json`, `model.keras`, `images.npy`
and `representative.npy`; `outputs.npy` and `result.json` are written into it,
the exported file to the request's path.
"""

import json
import pathlib
import sys

import keras
import numpy as np

from keras_khyper.export._conversion import Settings, convert_and_run


def main(folder: pathlib.Path) -> None:
    """Answer the request in `folder`."""
    request = json.loads((folder / "request.json").read_text())
    path = pathlib.Path(request.pop("path"))
    run = convert_and_run(
        keras.models.load_model(folder / "model.keras", compile=False),
        path,
        Settings.from_dict(request),
        np.load(folder / "images.npy"),
        np.load(folder / "representative.npy"),
    )
    np.save(folder / "outputs.npy", run.outputs)
    (folder / "result.json").write_text(json.dumps({"latency_ms": run.latency_ms}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
