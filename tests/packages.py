"""Small packages in the registries' formats, and a server that hands them out."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from numpy.typing import NDArray

from noahnas.data.fetch import Package


def tar(files: Mapping[str, bytes], mode: str) -> bytes:
    """A tar archive, packed as `mode` says: "w:gz", "w:xz"."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def deb(files: Mapping[str, bytes]) -> bytes:
    """A Debian package: an ar archive of a version, the control and the data."""
    data = {f"./{name}": content for name, content in files.items()}
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tar({"./control": b"Package: tiny\n"}, "w:xz"),
        "data.tar.xz": lzma.compress(gzip.decompress(tar(data, "w:gz")), preset=0),
    }
    out = b"!<arch>\n"
    for name, content in parts.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


def wheel(name: str, version: str, files: Mapping[str, bytes]) -> bytes:
    """A wheel that pip accepts."""
    info = f"{name}-{version}.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, content in {**files, **meta}.items():
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
        archive.writestr(f"{info}/RECORD", "")
    return out.getvalue()


def pinned(registry: str, name: str, file: str, content: bytes) -> Package:
    """What to ask for to get `content`."""
    digest = hashlib.sha256(content).hexdigest()
    return Package(registry, name, "1.0", file, len(content), digest, "pool/t")  # type: ignore[arg-type]


def registry_page(name: str, tarball: bytes, address: str) -> bytes:
    """What an npm registry says of a package with one version."""
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    dist = {"tarball": f"{address}/{name}/-/{name}-1.0.0.tgz", "integrity": integrity}
    one = {"name": name, "version": "1.0.0", "dist": dist}
    page = {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": one}}
    return json.dumps(page).encode()


@contextmanager
def served(pages: dict[str, bytes], pause: float = 0) -> Iterator[str]:
    """The address of a server of `pages` by path; it waits `pause` seconds before every 64 KB."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Length", str(len(page or b"")))
            self.end_headers()
            for start in range(0, len(page or b""), 1 << 16):
                time.sleep(pause)
                try:
                    self.wfile.write((page or b"")[start : start + (1 << 16)])
                except OSError:
                    return  # whoever asked has gone

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def idx(array: NDArray[np.uint8]) -> bytes:
    """A gzipped IDX file of bytes."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(head + array.tobytes(), 1)
