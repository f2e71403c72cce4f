"""Build what is released, and try it as a new user would: `make release URL=ADDRESS_OF_THE_REPOSITORY`.

From the last commit, in a folder that is thrown away: the source distribution and the wheel, with README's links and
pictures made absolute; `twine check`; the wheel installed in a new environment; README's commands run there. What
passes lies in dist/. Nothing is uploaded.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")
COMMANDS = (
    ("--version",),
    ("list",),
    ("fit", "--config", "glyphs/protonet_5way1shot"),
    ("compare", "lightning_logs"),
)
"""Those of README that need no data, as they stand there."""


def absolute(text: str, url: str, tag: str) -> str:
    """A page whose links to files of the repository work elsewhere.

    >>> absolute("![a](docs/a.png) [b](docs/b.md#c) [d](#e)", "https://host.org/x", "v1")
    '![a](https://host.org/x/raw/v1/docs/a.png) [b](https://host.org/x/blob/v1/docs/b.md#c) [d](#e)'
    """
    return LINK.sub(
        lambda m: f"{m[1]}[{m[2]}]({url}/{'raw' if m[1] else 'blob'}/{tag}/{m[3]})", text
    )


def with_urls(pyproject: str, url: str, tag: str) -> str:
    """pyproject.toml with the project's addresses."""
    places = {
        "Homepage": url,
        "Documentation": f"{url}/tree/{tag}/docs",
        "Changelog": f"{url}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{url}/issues",
    }
    lines = "\n".join(f'{name} = "{address}"' for name, address in places.items())
    return pyproject.replace("[project.scripts]", f"[project.urls]\n{lines}\n\n[project.scripts]")


def python_of(readme: str) -> str:
    """README's example in Python."""
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    return str(code)


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command, and end with its status where it fails."""
    print("$", *command, flush=True)
    done = subprocess.run(command, cwd=cwd, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed: nothing is released")


def exported(folder: Path, url: str) -> Path:
    """The last commit's files, with addresses."""
    source = folder / "source"
    source.mkdir()
    archive = folder / "source.tar"
    run("git", "archive", "--output", archive, "HEAD", cwd=ROOT)
    shutil.unpack_archive(archive, source)
    version = re.search(r'^version = "(.+)"', (source / "pyproject.toml").read_text(), re.M)
    assert version is not None
    tag = f"v{version[1]}"
    for name, change in (("README.md", absolute), ("pyproject.toml", with_urls)):
        path = source / name
        path.write_text(change(path.read_text(), url, tag))
    return source


def try_out(wheel: Path, readme: str, folder: Path) -> None:
    """Install the wheel in a new environment and run README's commands in an empty folder."""
    environment, empty = folder / "environment", folder / "empty"
    empty.mkdir()
    venv.create(environment, with_pip=True)
    binaries = environment / "bin"
    run(binaries / "python", "-m", "pip", "install", "--quiet", wheel, cwd=empty)
    for arguments in COMMANDS:
        run(binaries / "fewshot", *arguments, cwd=empty)
    script = empty / "readme.py"
    script.write_text(python_of(readme))
    run(binaries / "python", script, cwd=empty)


def main() -> None:
    """Build, check, try, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--url", required=True, help="the repository's address, for links")
    url = parser.parse_args().url.rstrip("/")
    if not re.fullmatch(r"https://\S+", url):
        sys.exit(f"the address {url!r} does not begin with https://; make release URL=https://...")
    if subprocess.check_output(["git", "status", "--porcelain"], cwd=ROOT):
        sys.exit("there are changes that are not committed; what is released is a commit")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, built = exported(folder, url), folder / "dist"
        run(sys.executable, "-m", "build", "--outdir", built, cwd=source)
        files = sorted(built.iterdir())
        run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=folder)
        (wheel,) = built.glob("*.whl")
        try_out(wheel, (ROOT / "README.md").read_text(), folder)
        kept = ROOT / "dist"
        kept.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, kept)
            print(f"dist/{file.name}")


if __name__ == "__main__":
    main()
