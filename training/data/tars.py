"""Tar files as WebDataset writes them: where the members lie, and whether the file is whole."""

from __future__ import annotations

import tarfile
from pathlib import Path

Place = tuple[int, int]
"""Where a member's content lies in its tar file: offset and size in bytes."""


def check_end(archive: tarfile.TarFile) -> None:
    """Look for the zeros that end a tar file, after the last member was read: tarfile stops silently at damaged headers.

    Raises:
        tarfile.ReadError: they are not there; the file is cut short or damaged.
    """
    file = archive.fileobj
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end-of-archive mark after {archive.offset} bytes; it is cut short or damaged")


def places_in_tar(path: Path) -> dict[str, Place]:
    """Find the files in an uncompressed tar in one pass over its headers; of a name that comes twice, the first counts.

    Hard links stand for the file that they name. Symbolic links are left out.

    Raises:
        OSError, tarfile.TarError: it cannot be read to its end mark.
    """
    places: dict[str, Place] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            if member.isfile():
                places.setdefault(member.name, (member.offset_data, member.size))
            elif member.islnk() and member.linkname in places:
                places.setdefault(member.name, places[member.linkname])
        check_end(archive)
    return places
