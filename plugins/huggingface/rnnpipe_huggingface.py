"""The dataset `huggingface`: a column of text of any dataset that the library `datasets` can load.

The library is imported when the dataset is built, not with this module: listing plugins costs nothing of it.
"""

import functools
import sys
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

from rnnpipe import hookimpl
from rnnpipe.data.base import PARTS, Part
from rnnpipe.data.text_files import parse_split
from rnnpipe.errors import InputError, UsageError, unknown_name

_USUAL = {"train": ("train",), "valid": ("validation", "valid", "dev"), "test": ("test",)}
_TEXT = ("string", "large_string", "string_view")


class HuggingFace:
    """Rows of one column, a document each, in the dataset's own order; rows without text are passed over.

    path: a name on the Hub, a folder that `save_to_disk` wrote, a folder of data files, or a format (json, csv,
    parquet, text) of `data_files`. config: which of a dataset's configurations. revision: of a dataset on the Hub.

    splits: the dataset's own names for train, valid and test, where they are not the usual ones. split: shares such as
    8:1:1, for a dataset that has one split, which is then divided contiguously by rows. No code of a dataset is run.
    """

    def __init__(
        self,
        *,
        path: str,
        data_files: str | list[str] | dict | None = None,
        config: str | None = None,
        column: str = "text",
        splits: dict | None = None,
        split: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.library = import_library()
        self.path = path
        self.column = column
        self.loading = {"name": config, "data_files": data_files, "revision": revision}
        self.splits = splits or {}
        self.shares = parse_split(split) if split else None
        for part in self.splits:
            if part not in PARTS:
                raise unknown_name("part", part, PARTS)
        if split and splits:
            raise UsageError("dataset 'huggingface': split divides the only split there is; leave out it or splits.")

    def documents(self, split: Part) -> Iterator[str]:
        """Yield the documents of one part; raise InputError if the dataset cannot be read."""
        if split in self._parts:
            for batch in self._parts[split].iter(batch_size=1000):
                yield from filter(None, batch[self.column])

    @functools.cached_property
    def _parts(self):
        """Return the rows of each part, less all columns but the one."""
        loaded = self._load()
        parts = self._divide(loaded) if self.shares else self._choose(loaded)
        for dataset in parts.values():
            self._check_column(dataset)
        return {part: dataset.with_format(None).select_columns(self.column) for part, dataset in parts.items()}

    def _load(self):
        """Return the dataset's splits by name."""
        folder = Path(self.path)
        saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
        try:
            if saved:
                loaded = self.library.load_from_disk(self.path)
            else:
                loaded = self.library.load_dataset(self.path, **self.loading)
        except Exception as error:  # what it raises for a wrong name, a damaged file or no network are many types
            reason = str(error.__cause__ or error).partition("\n")[0]
            raise InputError(f"dataset 'huggingface': cannot load '{self.path}': {reason}.") from error
        return loaded if isinstance(loaded, dict) else {"train": loaded}

    def _choose(self, loaded):
        """Return the splits that are the parts, by the names given or else the usual ones."""
        parts = {}
        for part in PARTS:
            names = [name for name in _USUAL[part] if name in loaded]
            if wanted := self.splits.get(part):
                if wanted not in loaded:
                    raise unknown_name(f"split of '{self.path}'", wanted, loaded)
                names = [wanted]
            if names:
                parts[part] = loaded[names[0]]
        if "train" not in parts:
            raise UsageError(
                f"dataset 'huggingface': '{self.path}' has no split 'train' but {', '.join(loaded)}; name one with "
                "splits.train=NAME."
            )
        return parts

    def _divide(self, loaded):
        """Return the rows of the only split, divided contiguously."""
        if len(loaded) > 1:
            raise UsageError(
                f"dataset 'huggingface': '{self.path}' has the splits {', '.join(loaded)}; leave out split, which "
                "divides a dataset that has one."
            )
        (rows,) = loaded.values()
        ends = [len(rows) * share // sum(self.shares) for share in accumulate(self.shares, initial=0)]
        return {part: rows.select(range(*ends)) for part, ends in zip(PARTS, pairwise(ends), strict=False)}

    def _check_column(self, dataset):
        texts = [name for name, kind in dataset.features.items() if getattr(kind, "dtype", None) in _TEXT]
        if self.column not in texts:
            state = "is not text" if self.column in dataset.features else "is not there"
            raise InputError(
                f"dataset 'huggingface': '{self.path}': column '{self.column}' {state}; columns of text: "
                f"{', '.join(texts) or 'none'}; others: "
                f"{', '.join(name for name in dataset.features if name not in texts) or 'none'}."
            )


def import_library():
    """Return the library `datasets`; raise UsageError that says how to install it."""
    try:
        import datasets
        from datasets import load_dataset  # noqa: F401 - a folder named datasets can be imported as well
    except ImportError as error:
        raise UsageError("dataset 'huggingface' needs the library datasets: pip install datasets.") from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


@hookimpl
def register_datasets():
    return {"huggingface": HuggingFace}
