"""The library reads these when it is imported: no network, and no cache but one of the tests' own."""

import atexit
import os
import shutil
import tempfile

_HOME = tempfile.mkdtemp(prefix="rnnpipe-huggingface-")
os.environ.update(HF_HOME=_HOME, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
