"""Fetches two releases of a package and leaves their tars, uncompressed, as `old` and `new` in the directory given."""

import gzip
import os
import subprocess
import sys

PACKAGE, RELEASES = "django", {"old": "5.1.1", "new": "5.1.2"}

folder = sys.argv[1]
pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
for name, release in RELEASES.items():
    into = f"{folder}/{release}"
    subprocess.run([*pip, "-d", into, f"{PACKAGE}=={release}"], check=True, stdout=subprocess.DEVNULL)
    (archive,) = os.listdir(into)
    with gzip.open(f"{into}/{archive}") as packed, open(f"{folder}/{name}", "wb") as out:
        out.write(packed.read())
