"""Writes the software bill of materials of a module, CycloneDX 1.6 in JSON: sbom.py MODULE TARGET COMMIT.

It holds the crates that cargo links into the module for its target, with Cargo.lock's checksums, and Rust's standard
library; not what tests, tools and the command line need. No time and no random number is in it: the same module
gives the same document.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

NAME = "tollgate"


def cargo(*arguments: str) -> str:
    return subprocess.run(["cargo", *arguments], check=True, capture_output=True, text=True).stdout


def purl(crate: str, version: str) -> str:
    return f"pkg:cargo/{crate}@{version}"


def read_lock(text: str) -> dict[tuple[str, str], str]:
    """Checksums by name and version. Cargo writes one member a line."""
    checksums = {}
    for package in text.split("[[package]]")[1:]:
        members = dict(line.split(" = ", 1) for line in package.splitlines() if " = " in line)
        if "checksum" in members:
            name, version, checksum = (json.loads(members[member]) for member in ("name", "version", "checksum"))
            checksums[name, version] = checksum
    return checksums


def read_tree(text: str) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """What each crate links, by lines of depth, name and version with the root first."""
    links, path = {}, []
    for line in text.splitlines():
        depth, name, version = line.split()[:3]
        crate = (name, version.removeprefix("v"))
        del path[int(depth) :]
        if path:
            links[path[-1]].add(crate)
        links.setdefault(crate, set())
        path.append(crate)
    return links


def linked(target: str) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """The crates of the module."""
    edges = ("--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", " {p}")
    return read_tree(cargo("tree", "--locked", "--package", NAME, "--target", target, *edges))


def component(package: dict, checksum: str) -> dict:
    name, version = package["name"], package["version"]
    return {
        "type": "library",
        "bom-ref": purl(name, version),
        "name": name,
        "version": version,
        "purl": purl(name, version),
        "hashes": [{"alg": "SHA-256", "content": checksum}],
        # Crates of old write MIT/Apache-2.0.
        "licenses": [{"expression": package["license"].replace("/", " OR ")}],
    }


def standard_library() -> dict:
    lines = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout.splitlines()
    told = dict(line.split(": ", 1) for line in lines if ": " in line)
    version = told["release"]
    return {
        "type": "library",
        "bom-ref": f"pkg:generic/rust@{version}",
        "name": "Rust standard library",
        "version": version,
        "purl": f"pkg:generic/rust@{version}",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }


def document(module: bytes, target: str, commit: str) -> dict:
    links = linked(target)
    packages = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target))["packages"]
    known = {(package["name"], package["version"]): package for package in packages}
    checksums = read_lock(Path("Cargo.lock").read_text())
    root, *crates = links
    std, ours = standard_library(), known[root]
    module_ref = purl(*root)
    subject = {
        "type": "application",
        "bom-ref": module_ref,
        "name": NAME,
        "version": ours["version"],
        "description": ours["description"],
        "purl": module_ref,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(module).hexdigest()}],
        "licenses": [{"expression": ours["license"]}],
        "externalReferences": [{"type": "vcs", "url": ours["repository"]}],
        "properties": [{"name": "tollgate:commit", "value": commit}, {"name": "tollgate:target", "value": target}],
    }
    depends = {purl(*crate): sorted(purl(*link) for link in found) for crate, found in links.items()}
    depends[module_ref] = sorted([*depends[module_ref], std["bom-ref"]])
    depends[std["bom-ref"]] = []
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": [*(component(known[crate], checksums[crate]) for crate in sorted(crates)), std],
        "dependencies": [{"ref": ref, "dependsOn": found} for ref, found in sorted(depends.items())],
    }


if __name__ == "__main__":
    path, target, commit = sys.argv[1:]
    print(json.dumps(document(Path(path).read_bytes(), target, commit), indent=2))
