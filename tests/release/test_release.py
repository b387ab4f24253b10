"""What `make image` and `make sbom` wrote, held to the module in dist/."""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
MODULE = DIST / "tollgate.wasm"
CRATE = re.compile(rb"/cargo/([A-Za-z0-9_-]+?)-(\d+\.\d+\.\d+[^/]*)/")


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Image:
    """The archive, each blob checked against its name."""

    def __init__(self, path: Path):
        with tarfile.open(path) as archive:
            self.files = {member.name: archive.extractfile(member).read() for member in archive}
        for name, content in self.files.items():
            if name.startswith("blobs/"):
                assert name == "blobs/" + digest(content).replace(":", "/")
        (self.entry,) = self.json("index.json")["manifests"]
        self.manifest = json.loads(self.blob(self.entry))
        self.config = json.loads(self.blob(self.manifest["config"]))
        (self.layer,) = self.manifest["layers"]

    def json(self, name: str):
        return json.loads(self.files[name])

    def blob(self, descriptor: dict) -> bytes:
        content = self.files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert len(content) == descriptor["size"]
        return content


@pytest.fixture(scope="module")
def image():
    return Image(DIST / "tollgate-image.tar")


@pytest.fixture(scope="module")
def sbom():
    return json.loads((DIST / "tollgate.cdx.json").read_text())


def test_the_image_holds_the_module_and_nothing_else(image):
    files = gzip.decompress(image.blob(image.layer))
    assert image.config["rootfs"]["diff_ids"] == [digest(files)]
    with tarfile.open(fileobj=io.BytesIO(files)) as layer:
        (member,) = layer
        assert (member.name, member.mode) == ("plugin.wasm", 0o644)
        assert layer.extractfile(member).read() == MODULE.read_bytes()


def test_gateways_know_the_image_for_one_of_theirs(image):
    assert image.json("oci-layout") == {"imageLayoutVersion": "1.0.0"}
    assert image.layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert image.manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert image.manifest["annotations"]["module.wasm.image/variant"] == "compat"


def test_its_labels_tell_what_it_is(image):
    labels = image.config["config"]["Labels"]
    manifest = (ROOT / "Cargo.toml").read_text()
    for label, member in (
        ("title", "name"),
        ("version", "version"),
        ("description", "description"),
        ("licenses", "license"),
        ("source", "repository"),
    ):
        assert labels[f"org.opencontainers.image.{label}"] == re.search(rf'^{member} = "(.*)"$', manifest, re.M)[1]
    revision = labels["org.opencontainers.image.revision"]
    assert revision.encode() in MODULE.read_bytes(), "the module was built from another commit"
    assert labels.items() <= image.manifest["annotations"].items()


def test_nothing_in_it_depends_on_the_time(image):
    assert "created" not in image.config
    with tarfile.open(DIST / "tollgate-image.tar") as archive:
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in archive} == {(0, 0, 0, "")}


def docker(*command: str) -> str:
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout


def has_docker() -> bool:
    try:
        docker("info")
        return True
    except (OSError, subprocess.CalledProcessError):
        return False


@pytest.mark.skipif(not has_docker() and not os.environ.get("REQUIRE_DOCKER"), reason="NOT CHECKED: no Docker engine")
def test_docker_loads_it(image, tmp_path):
    (tags,) = (one["RepoTags"] for one in image.json("manifest.json"))
    if docker("image", "ls", "--quiet", tags[0]).strip():
        pytest.skip(f"NOT CHECKED: there is an image {tags[0]} already")
    docker("load", "--input", str(DIST / "tollgate-image.tar"))
    try:
        container = docker("create", tags[0], "none").strip()
        docker("cp", f"{container}:/plugin.wasm", str(tmp_path / "plugin.wasm"))
        docker("rm", container)
        (told,) = json.loads(docker("image", "inspect", tags[0]))
    finally:
        docker("rmi", "--force", tags[0])
    assert (tmp_path / "plugin.wasm").read_bytes() == MODULE.read_bytes()
    assert told["Config"]["Labels"] == image.config["config"]["Labels"]


def test_the_bill_is_of_this_module(sbom):
    subject = sbom["metadata"]["component"]
    assert subject["hashes"] == [{"alg": "SHA-256", "content": digest(MODULE.read_bytes()).partition(":")[2]}]


def test_the_bill_names_what_the_module_holds(sbom):
    """Crates leave their path where they can panic."""
    inside = {(name.decode(), version.decode()) for name, version in CRATE.findall(MODULE.read_bytes())}
    assert len(inside) >= 3
    assert inside <= {(one["name"], one["version"]) for one in sbom["components"]}


def test_the_bill_names_nothing_that_is_not_linked(sbom):
    names = {one["name"] for one in sbom["components"]}
    assert {"proxy-wasm", "rsa", "p256", "serde_json", "Rust standard library"} <= names
    # Of the command line, of the tests, of the build.
    assert names.isdisjoint({"clap", "ureq", "rustls", "boon", "jsonwebtoken", "aws-lc-rs", "wasmtime", "serde_derive", "syn"})


def test_the_bill_is_complete_and_says_no_time(sbom):
    lock = (ROOT / "Cargo.lock").read_text()
    refs = {one["bom-ref"] for one in sbom["components"]} | {sbom["metadata"]["component"]["bom-ref"]}
    for one in sbom["components"]:
        assert one["licenses"][0]["expression"]
        if one["purl"].startswith("pkg:cargo/"):
            text = f'name = "{one["name"]}"\nversion = "{one["version"]}"\n'
            package = lock[lock.index(text) :].partition("\n\n")[0]
            assert f'checksum = "{one["hashes"][0]["content"]}"' in package
    assert {one["ref"] for one in sbom["dependencies"]} == refs
    reached, next_ones = set(), [sbom["metadata"]["component"]["bom-ref"]]
    depends = {one["ref"]: one["dependsOn"] for one in sbom["dependencies"]}
    while next_ones:
        ref = next_ones.pop()
        if ref not in reached:
            reached.add(ref)
            next_ones += depends[ref]
    assert reached == refs
    assert "serialNumber" not in sbom and "timestamp" not in sbom["metadata"]
