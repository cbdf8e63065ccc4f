"""Files of an evaluation have names that any system takes, each its own."""

import re

from geokernels.runs.evaluate import safe
from geokernels.runs.own_files import PART


def test_names_of_files():
    assert safe("000000000007") == "000000000007"
    assert re.fullmatch(r"oig-structure=0.5,every=2-[0-9a-f]{12}", safe("oig:structure=0.5,every=2"))
    # one file of all that differ in signs, in the size of letters, or where they are cut; or as a digest does
    names = ["a b", "a-b", "a/b", "A-b", "a-b.", "é", "e\u0301", "", ".", "..", "../x", "x" * 300, "x" * 301]
    names += [safe(name) for name in names if safe(name) != name]
    files = [safe(name).lower() for name in names]
    assert len(set(files)) == len(names)
    for file in files:
        assert len(file.encode()) < 120
        assert re.fullmatch(PART, file)
