"""Short ways to write golds of the code checker."""

import json


def unit(*lines, **more):
    return json.dumps({"tests": lines, **more})


def programs(*pairs, **more):
    return json.dumps({"inputs": [given for given, _ in pairs], "outputs": [wanted for _, wanted in pairs], **more})


ADD = "def add(a, b):\n    return a + b"
ADDING = unit("assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'")
