"""Work done once more in another process, whose strings have other hashes.

The parent sends JSON to the standard input of `python -m rnnpipe.testing.child`: where the thing is, its options, and
which function of ours is called with both. The answer is what that function returned or raised.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnpipe.plugins.discovery import file_source
from rnnpipe.testing.report import Failure, Skipped

_FILE_MODULE = "rnnpipe_plugins_dir_"  # how the names of the modules of single-file plugins begin


def elsewhere(function: str, thing: Any, options: Mapping[str, Any], module: str | None = None) -> Any:
    """Return what `function` ("module:name") gives for a thing and its options in another process, as JSON holds it.

    module: where the thing stands, if not where it says. Raises Skipped if it cannot be imported from there, or its
    options cannot be sent, and Failure with what the function raised.
    """
    try:
        request = json.dumps({**_address(thing, module), "options": dict(options), "function": function})
    except TypeError as error:
        raise Skipped(f"its options cannot be sent to another process: {error}") from None
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        [sys.executable, "-m", "rnnpipe.testing.child"],
        input=json.dumps({"path": sys.path}) + "\n" + request,
        env={**os.environ, "PYTHONHASHSEED": other},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        end = done.stderr.strip().splitlines()[-1:] or ["nothing said"]
        raise Failure("the same as in this process", f"exit code {done.returncode}: {end[0]}", "another process")
    answer = json.loads(done.stdout)
    if "unimportable" in answer:
        raise Skipped(f"another process cannot import it: {answer['unimportable']}")
    if "raised" in answer:
        raise Failure("the same as in this process", answer["raised"], "another process")
    return answer["returned"]


def _address(thing: Any, module_name: str | None) -> dict[str, str]:
    """Return where another process finds a thing; raise Skipped if it cannot."""
    module = sys.modules.get(module_name or getattr(thing, "__module__", None) or "")
    if module is None or module.__name__ == "__main__":
        raise Skipped("another process cannot import it: it belongs to no module")
    name = getattr(thing, "__qualname__", None)
    name = name or next((name for name, value in vars(module).items() if value is thing), "nothing")
    if "<" in name:
        raise Skipped(f"another process cannot import it: {name} is defined inside a function")
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not thing:
        raise Skipped(f"another process cannot import it: {module.__name__} has no such name for it")
    file = (module.__file__ or "") if module.__name__.startswith(_FILE_MODULE) else ""
    return {"module": module.__name__, "name": name, "file": file}


def _find(path: str, file: str) -> Any:
    """Import what "module:name" names, its module from a file if one is given."""
    module, _, name = path.partition(":")
    found: Any = file_source(Path(file)).load() if file else importlib.import_module(module)
    return functools.reduce(getattr, name.split("."), found)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        thing = _find(f"{request['module']}:{request['name']}", request["file"])
    except Exception as error:  # the plugin's own: anything may come out of code that is not ours
        return {"unimportable": f"{type(error).__name__}: {error}"}
    try:
        return {"returned": _find(request["function"], "")(thing, request["options"])}
    except Exception as error:
        return {"raised": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Read a request from standard input; write the answer to standard output, and nothing else there."""
    sys.path[:] = json.loads(sys.stdin.readline())["path"]
    with contextlib.redirect_stdout(sys.stderr):
        answer = _answer(json.loads(sys.stdin.read()))
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
