"""Downloads with a pinned hash: resumed where they broke off, complete only when the hash is right."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from mien.core.artifacts import base
from mien.core.errors import InputError
from mien.core.progress import meter

_BLOCK = 1 << 16
_TRIES = 4
_TIMEOUT_S = 30


def download(url: str, path: Path, *, sha256: str) -> bool:
    """Fetch `url` to `path`; False when the right file was there already.

    A partial download is kept in `<path>.part` and resumed, after a broken connection or in the next call.
    Raises `InputError` when the server does not answer or the hash is wrong.
    """
    if path.is_file():
        if base.sha256_file(path) == sha256:
            return False
        raise InputError(
            f"{path} exists and is another file than {url}.",
            rule=f"Its sha256 should be {sha256}.",
            fix="Move it away.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(1, _TRIES + 1):
        try:
            _fetch(url, part)
            break
        except urllib.error.HTTPError as error:
            raise InputError(
                f"{url} answered {error.code} {error.reason}.", fix="Try later, or fetch it by hand."
            ) from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            if attempt == _TRIES:
                reason = getattr(error, "reason", None) or error
                raise InputError(
                    f"{url} cannot be fetched: {reason}.", fix="Run the command again: it goes on where it broke off."
                ) from None
    digest = base.sha256_file(part)
    if digest != sha256:
        part.unlink()
        raise InputError(
            f"{url} gave a file with sha256 {digest}.",
            rule=f"It should be {sha256}.",
            fix="It has changed, or was damaged on the way.",
        )
    with base.atomic(path) as temporary:
        part.replace(temporary)
    return True


def _fetch(url: str, part: Path) -> None:
    """Append what is missing to `part`."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(
        url, headers={"Range": f"bytes={have}-", "User-Agent": "mien"} if have else {"User-Agent": "mien"}
    )
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all bytes are there; the hash is checked next
        raise
    with answer:
        resumed = have and answer.status == http.HTTPStatus.PARTIAL_CONTENT
        length = int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if resumed else "wb") as file, meter("downloading", length) as progress:
            while block := answer.read(_BLOCK):
                file.write(block)
                progress.advance(len(block))
                length -= len(block)
        if length > 0:
            raise http.client.IncompleteRead(b"", length)
