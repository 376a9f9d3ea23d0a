"""Loader of a user's pipeline file: "path.py:name" or "package.module:name"; the name defaults to `pipeline`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import BadPipeline, DeclarationError

DEFAULT_ATTRIBUTE = "pipeline"


def load_pipeline(reference: str) -> Pipeline:
    """Load the declared pipeline. Raise BadPipeline, whose message names the file, the line if known, and the fix."""
    where, separator, attribute = reference.rpartition(":")
    if not separator or not attribute.isidentifier():
        where, attribute = reference, DEFAULT_ATTRIBUTE
    module = _import_file(Path(where)) if where.endswith(".py") or "/" in where else _import_name(where)
    pipeline = getattr(module, attribute, None)
    if pipeline is None:
        others = [name for name, value in vars(module).items() if isinstance(value, Pipeline)]
        hint = f"it has {', '.join(others)}: write {where}:{others[0]}" if others else "assign your Pipeline(...) to it"
        raise BadPipeline(f"{where} has no {attribute!r}; {hint}")
    if not isinstance(pipeline, Pipeline):
        raise BadPipeline(
            f"{where}: {attribute!r} has the type {type(pipeline).__name__}, not Pipeline; "
            "assign your Pipeline(...) to it"
        )
    return pipeline


def module_name(path: Path) -> str:
    """Return the module name of a pipeline file: equal in every process, and unique to the path."""
    return f"tailrace_user_{path.stem}_{zlib.crc32(str(path.resolve()).encode()):08x}"


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadPipeline(
            f"no pipeline file {str(path)!r}: write one with `tailrace init`, or name yours with --pipeline"
        )
    name = module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadPipeline(f"{path} is not a Python file: name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before running it: msgspec resolves the annotations of its classes there
    try:
        with _on_path(path.resolve().parent), _as_bad_pipeline(str(path), str(path.resolve())):
            spec.loader.exec_module(module)
    except BadPipeline:
        del sys.modules[name]
        raise
    return module


def _import_name(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise BadPipeline(f"{name!r} does not name a pipeline: write path.py:pipeline or package.module:pipeline")
    with _on_path(Path.cwd()), _as_bad_pipeline(name, name.replace(".", "/") + ".py"):
        return importlib.import_module(name)


@contextmanager
def _on_path(directory: Path) -> Iterator[None]:
    """Let the file import modules of its directory while it is being imported, as a script could."""
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))


@contextmanager
def _as_bad_pipeline(where: str, suffix: str) -> Iterator[None]:
    """Convert any error of a user's file to BadPipeline, with the line in the file whose path ends in `suffix`."""
    try:
        yield
    except SyntaxError as error:
        raise BadPipeline(
            f"{error.filename or where}, line {error.lineno}: {error.msg}; correct the Python there"
        ) from error
    except DeclarationError as error:
        raise BadPipeline(f"{where}{_line(error, suffix)}: {error}") from error
    except ModuleNotFoundError as error:
        fix = "install it, or run from the directory that holds it"
        raise BadPipeline(f"{where}{_line(error, suffix)}: there is no module {error.name!r}; {fix}") from error
    except Exception as error:
        raise BadPipeline(
            f"{where}{_line(error, suffix)}: {type(error).__name__}: {error}; correct the file"
        ) from error


def _line(error: BaseException, suffix: str) -> str:
    """Return ", line N" of the last frame in the file whose path ends in `suffix`; empty if there is none."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if str(Path(f.filename).resolve()).endswith(suffix)]
    return f", line {frames[-1].lineno}" if frames else ""
