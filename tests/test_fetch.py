from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from noahnas.data.archives import members
from noahnas.data.fetch import MIRROR, Package, obtain
from noahnas.errors import DataError
from noahnas.progress import Progress, silent

from .packages import deb, pinned, registry_page, served, tar, wheel

FILES = {"tiny/a.bin": b"a" * 5, "tiny/b.bin": b"b" * 3_000_000}


def everything(name: str) -> bool:
    return True


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A Debian package on a mirror in a folder."""
    content = deb(FILES)
    (tmp_path / "mirror" / "pool" / "t").mkdir(parents=True)
    (tmp_path / "mirror" / "pool" / "t" / "tiny.deb").write_bytes(content)
    monkeypatch.setenv(MIRROR, (tmp_path / "mirror").as_uri())
    return pinned("Debian", "tiny", "tiny.deb", content)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tiny.whl", wheel("tiny", "1.0", FILES)),
        ("tiny.tgz", tar(FILES, "w:gz")),
        ("tiny.deb", deb(FILES)),
    ],
)
def test_members_are_read_from_each_kind_of_package(
    tmp_path: Path, file: str, content: bytes
) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    assert dict(members(path, lambda name: name.startswith("tiny/"))) == FILES
    assert dict(members(path, lambda name: name == "tiny/a.bin")) == {"tiny/a.bin": b"a" * 5}
    with pytest.raises(DataError, match=r"tiny\.\w+: tiny/b\.bin has 3,000,000 bytes; at most 9"):
        dict(members(path, lambda name: name.startswith("tiny/"), limit=9))
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{file}: .*(cannot be unpacked|damaged)"):
        dict(members(path, everything))


@pytest.mark.parametrize("file", ["x.whl", "x.tgz", "x.deb"])
def test_what_is_no_package_is_named(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=file):
        dict(members(tmp_path / file, everything))


def test_a_name_that_leads_out_of_the_archive_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "evil.tgz"
    path.write_bytes(tar({"../evil.txt": b"x"}, "w:gz"))
    assert dict(members(path, everything)) == {"../evil.txt": b"x"}
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "evil.tgz"]


def test_pip_brings_a_wheel_from_the_index_that_the_user_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = wheel("tinypictures", "1.0", FILES)
    file = "tinypictures-1.0-py3-none-any.whl"
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / file).write_bytes(content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    told: list[Progress] = []
    package = pinned("PyPI", "tinypictures", file, content)
    assert obtain(package, tmp_path / "got", told.append).read_bytes() == content
    assert names(tmp_path / "got") == [file]
    assert (told[-1].stage, told[-1].done) == ("tinypictures", told[-1].total)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_brings_a_tarball_from_the_registry_that_the_user_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"package/package.json": b'{"name": "tiny-pictures", "version": "1.0.0"}'}
    content = tar(files, "w:gz")
    pages: dict[str, bytes] = {"/tiny-pictures/-/tiny-pictures-1.0.0.tgz": content}
    with served(pages) as address:
        pages["/tiny-pictures"] = registry_page("tiny-pictures", content, address)
        monkeypatch.setenv("npm_config_registry", address)
        package = pinned("npm", "tiny-pictures", "tiny-pictures-1.0.0.tgz", content)
        path = obtain(package, tmp_path, silent)
    assert path.read_bytes() == content
    assert names(tmp_path) == ["tiny-pictures-1.0.0.tgz"]


def test_what_a_client_says_when_it_fails_is_told_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    package = pinned("PyPI", "tinypictures", "tinypictures-1.0-py3-none-any.whl", b"")
    with pytest.raises(DataError) as caught:
        obtain(package, tmp_path, silent)
    assert "No matching distribution found for tinypictures==1.0" in str(caught.value)
    assert f"put {package.file} (sha256 {package.sha256}) into a folder" in str(caught.value)
    assert names(tmp_path) == []


def test_a_missing_client_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for registry, client in (("npm", "npm"), ("Debian", "apt-get")):
        with pytest.raises(DataError, match=f"needs {client}, which is missing: .*--packages"):
            obtain(pinned(registry, "tiny", "tiny", b""), tmp_path / "got", silent)


def test_a_package_that_is_there_and_whole_is_not_asked_for_again(
    tiny: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = obtain(tiny, tmp_path / "got", silent)
    monkeypatch.setenv(MIRROR, "http://127.0.0.1:9")  # nobody listens there
    told: list[Progress] = []
    assert obtain(tiny, tmp_path / "got", told.append) == path
    assert told == []


def test_a_damaged_package_is_named_and_fetched_anew(tiny: Package, tmp_path: Path) -> None:
    path = obtain(tiny, tmp_path / "got", silent)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    told: list[Progress] = []
    obtain(tiny, tmp_path / "got", told.append)
    assert path.read_bytes() == whole
    assert f"{path} has another digest" in told[-1].note


def test_a_package_with_another_digest_is_refused_and_leaves_nothing(
    tiny: Package, tmp_path: Path
) -> None:
    source = tmp_path / "mirror" / "pool" / "t" / "tiny.deb"
    source.write_bytes(source.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=rf"tiny\.deb has sha256 .* not the pinned {tiny.sha256}"):
        obtain(tiny, tmp_path / "got", silent)
    assert names(tmp_path / "got") == []


def test_a_package_that_came_in_part_is_refused(tiny: Package, tmp_path: Path) -> None:
    source = tmp_path / "mirror" / "pool" / "t" / "tiny.deb"
    source.write_bytes(source.read_bytes()[:1000])
    with pytest.raises(DataError, match=rf"only 1,000 of {tiny.size:,} bytes of tiny\.deb came"):
        obtain(tiny, tmp_path / "got", silent)
    assert names(tmp_path / "got") == []


def test_a_mirror_without_the_package_is_named(
    tiny: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served({}) as address:
        monkeypatch.setenv(MIRROR, address)
        with pytest.raises(DataError, match=rf"from {address}/pool/t/tiny\.deb: HTTP Error 404"):
            obtain(tiny, tmp_path / "got", silent)
    assert names(tmp_path / "got") == []


def test_ctrl_c_in_a_download_leaves_nothing(tiny: Package, tmp_path: Path) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(tiny, tmp_path / "got", stop)
    assert names(tmp_path / "got") == []


def test_a_killed_download_is_made_good_by_the_next_call(tmp_path: Path) -> None:
    content = deb({"tiny/noise.bin": os.urandom(2_000_000)})
    package, got = pinned("Debian", "tiny", "tiny.deb", content), tmp_path / "got"
    code = (
        "from pathlib import Path; from noahnas.data.fetch import Package, obtain;"
        "from noahnas.progress import silent;"
        f"obtain({package!r}, Path({str(got)!r}), silent)"
    )
    with served({"/pool/t/tiny.deb": content}, pause=0.2) as address:
        environment = os.environ | {MIRROR: address}
        child = subprocess.Popen([sys.executable, "-c", code], env=environment)
        limit = time.monotonic() + 60
        while not list(got.glob(".part-*/tiny.deb")) and time.monotonic() < limit:
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert [p.name[:5] for p in got.iterdir()] == [".part"]  # what a kill leaves
    with served({"/pool/t/tiny.deb": content}) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv(MIRROR, address)
        assert obtain(package, got, silent).read_bytes() == content
    assert names(got) == ["tiny.deb"]
