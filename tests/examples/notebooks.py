"""Run the notebooks and compare what comes out with what they hold; with --fill, write it there.

    python tests/examples/notebooks.py [NAME ...] [--fill]

They are kept with their outputs, so that they can be read where nobody runs them. Words must agree, and
numbers nearly: other machines round otherwise. Pictures must be there, at their size.
"""

import argparse
import base64
import io
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
NEARLY = 0.1  # as a share, or of the last digit shown
LARGEST = 300_000  # bytes of a notebook


def read(name: str) -> nbformat.NotebookNode:
    """A notebook as it is kept."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def executed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same with what comes out of it here, in a process and a folder of its own."""
    made = nbformat.from_dict(notebook)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # of the user's folder of settings nothing is read; without ipywidgets tqdm warns
    with tempfile.TemporaryDirectory() as folder:
        settings = {**os.environ, "IPYTHONDIR": folder, "PYTHONWARNINGS": "ignore:IProgress not found"}
        where = {"metadata": {"path": folder}}
        client = NotebookClient(made, timeout=600, resources=where, coalesce_streams=True)
        # files instead of ports, for which tests beside this one may race
        manager = client.create_kernel_manager()
        manager.transport, manager.ip = "ipc", f"{folder}/kernel"
        client.execute(env=settings)
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # when it ran
    made.metadata = notebook.metadata
    return made


def differences(kept: nbformat.NotebookNode, made: nbformat.NotebookNode) -> list[str]:
    """Where what came out is not what is kept, a sentence each."""
    found = []
    for i, (a, b) in enumerate(zip(kept.cells, made.cells, strict=True)):
        if a.cell_type == "code":
            shown, here = (list(map(_plain, cell.outputs)) for cell in (a, b))
            if len(shown) != len(here) or not all(map(_agree, shown, here)):
                found.append(f"cell {i} shows {shown}, and gives {here}")
    return found


def _plain(output) -> str:
    """What an output says; the size of a picture."""
    if output.output_type == "stream":
        return f"{output.name}: {output.text}"
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    for kind in ("image/png", "image/gif"):
        if kind in output.data:
            with Image.open(io.BytesIO(base64.b64decode(output.data[kind]))) as picture:
                return f"{kind}, {picture.width} x {picture.height}"
    return output.data["text/plain"]


def _agree(shown: str, here: str) -> bool:
    if NUMBER.sub("N", shown) != NUMBER.sub("N", here):
        return False
    return all(map(_near, NUMBER.findall(shown), NUMBER.findall(here)))


def _near(shown: str, here: str) -> bool:
    digits = len(shown.partition(".")[2])
    return abs(float(shown) - float(here)) <= max(NEARLY * abs(float(shown)), 10.0**-digits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--fill", action="store_true")
    args = parser.parse_args()
    for name in args.names:
        kept = read(name)
        made = executed(kept)
        for difference in differences(kept, made):
            print(f"{name}: {difference}")
        if args.fill:
            nbformat.write(made, FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    main()
