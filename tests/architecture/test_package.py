"""The distribution: the content of wheel and sdist, and an installation of the wheel outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest
from support.environment import unmeasured
from support.waiting import PATIENCE_S, until

from tailrace.streams.log.browse import scan
from tailrace.streams.log.url import open_log

ROOT = Path(__file__).parents[2]
LINKED = ("streams", "inference", "retrain", "monitoring")
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "tailrace", *LINKED)
CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")
READINGS = ["reading,at,level,hot,known"]
READINGS += [f"r{n},{1_767_225_600 + 60 * n},{n % 7},{int(n % 7 > 3)},{1_767_225_630 + 60 * n}" for n in range(200)]


def command(*arguments: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """Run a command that must succeed; return its standard output."""
    done = subprocess.run(
        arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(sources: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build a wheel without the package index."""
    pip = (sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-index")
    arguments = (*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), ".")
    return subprocess.run(arguments, cwd=sources, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the files that a distribution is built from, symbolic links included."""
    return copied_sources(tmp_path / "checkout")


def copied_sources(copy: Path) -> Path:
    """Copy the files that a distribution is built from, symbolic links included."""
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=CACHES)
        else:
            shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from such a copy."""
    directory = tmp_path_factory.mktemp("wheel")
    done = build(copied_sources(directory / "checkout"), directory / "dist")
    assert done.returncode == 0, done.stderr
    (path,) = (directory / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new virtual environment that holds the wheel, and sees the dependencies of this one."""
    tmp_path = tmp_path_factory.mktemp("environment")
    directory = tmp_path / "venv"
    venv.create(directory, symlinks=True)
    python = directory / "bin" / "python"
    paths = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(command(python, "-c", paths, cwd=tmp_path).strip())
    # A line of a .pth file adds a directory, but not the .pth files in it: the checkout stays invisible.
    dependencies = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", "--ignore-installed")
    command(*pip, wheel, cwd=tmp_path)
    return directory / "bin"


def modules_and_data() -> set[str]:
    """Every file of the five folders under git's control, or beside them, by its place in the package."""
    found = set[str]()
    for name in ("tailrace", *LINKED):
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
                inside = path.relative_to(ROOT).as_posix()
                if not inside.startswith(tuple(f"tailrace/{linked}/" for linked in LINKED)):
                    found.add(inside if name == "tailrace" else f"tailrace/{inside}")
    return found


def test_the_wheel_holds_tailrace_alone_and_whole(wheel: Path) -> None:
    """The wheel has one top-level package, with every module and data file of the five folders and `py.typed`."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {PurePosixPath(name).parts[0] for name in names} == {"tailrace"}
    assert names == modules_and_data()
    assert {"tailrace/py.typed", "tailrace/demo/flights.csv.gz", "tailrace/streams/log/base.py"} < names


def test_the_sdist_holds_tailrace_alone_and_builds_the_same_wheel(sources: Path, wheel: Path, tmp_path: Path) -> None:
    """The sdist holds real directories instead of the links, and a wheel built from it has the same files."""
    code = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    command(sys.executable, "-c", code, cwd=sources)
    (path,) = (sources / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    packages = {entry.name for entry in unpacked.iterdir() if entry.is_dir() and entry.suffix != ".egg-info"}
    assert packages == {"tailrace"}
    assert not any((unpacked / "tailrace" / name).is_symlink() for name in LINKED)
    done = build(unpacked, tmp_path / "again")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(next((tmp_path / "again").glob("*.whl"))) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


def test_a_checkout_without_symbolic_links_is_refused(sources: Path, tmp_path: Path) -> None:
    """If git wrote the links as text files, the build fails and names the option of `git clone` that helps."""
    for name in LINKED:
        link = sources / "tailrace" / name
        target = os.readlink(link)
        link.unlink()
        link.write_text(target)
    done = build(sources, tmp_path / "dist")
    assert done.returncode != 0
    assert "git clone -c core.symlinks=true" in done.stdout + done.stderr
    assert not list((tmp_path / "dist").glob("*.whl"))


@pytest.mark.parametrize("name", LINKED)
def test_imports_by_the_folder_s_name_are_an_error(name: str) -> None:
    """ruff reports `import streams` and its siblings, which give a second copy of every class."""
    ruff = (sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json", "--select=TID251", "-")
    for line in (f"import {name}", f"from {name} import base"):
        done = subprocess.run(ruff, cwd=ROOT, input=line, capture_output=True, text=True, check=False)
        assert [
            (found["code"], f"import tailrace.{name}" in found["message"]) for found in json.loads(done.stdout)
        ] == [("TID251", True)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's directory with a data file, and with modules that have the names of our folders."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "readings.csv").write_text("\n".join([*READINGS, ""]))
    for name in ("streams", "inference", "retrain"):
        (directory / f"{name}.py").write_text('raise ImportError("a module of the user, not of the package")\n')
    (directory / "monitoring").mkdir()
    (directory / "monitoring" / "__init__.py").write_text('raise ImportError("a package of the user")\n')
    return directory


@contextmanager
def running(scripts: Path, project: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`tailrace run`; it ends with the block."""
    start = (str(scripts / "tailrace"), "run")
    quiet = subprocess.DEVNULL
    roles = subprocess.Popen(start, cwd=project, env=environment, stdout=quiet, stderr=subprocess.PIPE, text=True)
    try:
        yield roles
    finally:
        if roles.poll() is None:
            roles.kill()
        roles.communicate()


@pytest.mark.long
def test_an_installed_wheel_works_outside_the_checkout(scripts: Path, project: Path) -> None:
    """From an environment that does not see the checkout: `--version`, `init --from`, the generated test, `run` and
    `send` work beside the user's own `streams.py`, `inference.py`, `retrain.py` and `monitoring/`."""
    python, tailrace = scripts / "python", scripts / "tailrace"
    environment = {key: value for key, value in unmeasured().items() if key != "PYTHONPATH"}
    environment["TAILRACE_MONITORING__PORT"] = "0"

    def done(*arguments: str | Path) -> str:
        return command(*arguments, cwd=project, environment=environment)

    origin = done(python, "-c", "import tailrace.streams; print(tailrace.streams.__file__)").strip()
    assert Path(origin).is_relative_to(scripts.parent)
    assert done(tailrace, "--version") == done(python, "-m", "tailrace", "--version")
    columns = ("--label", "hot", "--id", "reading", "--time", "at", "--label-time", "known")
    done(tailrace, "init", "--from", "readings.csv", *columns)
    assert "passed" in done(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_pipeline.py")

    with running(scripts, project, environment) as roles:
        done(tailrace, "send", "readings.csv")
        log = open_log(f"sqlite:///{project}/.tailrace/log.db")
        until(lambda: len(list(scan(log, "readings.predictions"))) == 200, check=lambda: _lives(roles))
        log.close()
        roles.send_signal(signal.SIGTERM)
        assert roles.wait(PATIENCE_S) == 0


@pytest.mark.long
def test_the_generated_pipeline_is_typed(scripts: Path, project: Path) -> None:
    """`mypy --strict` accepts what `tailrace init` writes, with the types of the installed package."""
    command(scripts / "tailrace", "init", ".", cwd=project)
    config = project / "mypy.ini"  # torch's modules take minutes, and the generated pipeline names none of its types
    config.write_text("[mypy]\nstrict = true\n[mypy-torch.*]\nfollow_imports = skip\n")
    mypy = (sys.executable, "-m", "mypy", "--python-executable", scripts / "python", "--cache-dir", ".mypy")
    assert "Success" in command(*mypy, "--config-file", config, "pipeline.py", cwd=project)


def _lives(roles: subprocess.Popen[str]) -> None:
    assert roles.poll() is None, roles.communicate()
