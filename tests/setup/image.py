"""Packs a module into an OCI image: image.py MODULE ARCHIVE COMMIT, with `cargo metadata --no-deps` on stdin.

The image is `FROM scratch` with `/plugin.wasm`, as Istio and Envoy Gateway look for it. The archive is an OCI
image layout that `docker load` reads too. No engine and no registry is asked, and nothing depends on time or
machine: the same module gives the same bytes.
"""

import hashlib
import io
import json
import sys
import tarfile
import zlib
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
NAME = "tollgate"


def tar(files: dict[str, bytes]) -> bytes:
    """A tar archive of these files, without owners and times."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def gzip(content: bytes) -> bytes:
    """Gzip without compression (RFC 1951, 3.2.4; RFC 1952): compressed bytes differ from one zlib to the next."""
    most = 0xFFFF
    packed = bytearray(b"\x1f\x8b\x08" + bytes(6) + b"\xff")
    for start in range(0, len(content), most):
        piece = content[start : start + most]
        packed.append(start + most >= len(content))
        packed += len(piece).to_bytes(2, "little") + (len(piece) ^ most).to_bytes(2, "little") + piece
    return bytes(packed + zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little"))


def as_json(document: dict | list) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def blob(content: bytes) -> str:
    """Where a layout keeps it."""
    return "blobs/" + digest(content).replace(":", "/")


def descriptor(media_type: str, content: bytes, **more) -> dict:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content), **more}


def labels(package: dict, commit: str) -> dict[str, str]:
    told = {
        "title": package["name"],
        "description": package["description"],
        "licenses": package["license"],
        "source": package["repository"],
        "version": package["version"],
        "revision": commit,
    }
    return {f"org.opencontainers.image.{name}": value for name, value in told.items()}


def image(module: bytes, package: dict, commit: str) -> bytes:
    """The archive."""
    files = tar({"plugin.wasm": module})
    layer = gzip(files)
    told = labels(package, commit)
    # Runs on no machine of its own; engines and registries want one named.
    config = as_json({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": told},
        "rootfs": {"type": "layers", "diff_ids": [digest(files)]},
        "history": [{"created_by": "COPY tollgate.wasm /plugin.wasm"}],
    })
    manifest = as_json({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": [descriptor(LAYER, layer)],
        # The variant of the Wasm image specification that is an ordinary image.
        "annotations": {**told, "module.wasm.image/variant": "compat"},
    })
    tag = f"{NAME}:{package['version']}"
    names = {"org.opencontainers.image.ref.name": package["version"], "io.containerd.image.name": f"docker.io/library/{tag}"}
    index = {"schemaVersion": 2, "manifests": [descriptor(MANIFEST, manifest, annotations=names)]}
    # What `docker load` reads.
    docker = [{"Config": blob(config), "RepoTags": [tag], "Layers": [blob(layer)]}]
    return tar({
        "oci-layout": as_json({"imageLayoutVersion": "1.0.0"}),
        "index.json": as_json(index),
        "manifest.json": as_json(docker),
        **{blob(content): content for content in (config, manifest, layer)},
    })


if __name__ == "__main__":
    source, target, commit = sys.argv[1:]
    (package,) = (one for one in json.load(sys.stdin)["packages"] if one["name"] == NAME)
    Path(target).write_bytes(image(Path(source).read_bytes(), package, commit))
