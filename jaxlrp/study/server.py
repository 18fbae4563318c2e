"""A web server on this machine, which shows a study and records answers."""

from __future__ import annotations

import http.server
import json
import os
import re
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from jaxlrp._checks import as_path
from jaxlrp.dataset.errors import StoreError
from jaxlrp.study.answers import Book
from jaxlrp.study.page import PAGE
from jaxlrp.study.stimuli import Study

_LARGEST = 1 << 16  # bytes of a request
_LOCAL = ("127.0.0.1", "localhost")
_POLICY = "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers requests of the page. It does not tell conditions or right answers."""

    server: _Http
    server_version, sys_version = "jaxlrp", ""
    timeout = 30  # seconds, of a connection that says nothing

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, respond: Any) -> None:
        try:
            self._check_host()
            kind, body = respond(urlsplit(self.path).path)
            status = HTTPStatus.OK
        except _Refused as error:
            kind, body, status = "application/json", _json({"error": str(error)}), error.status
        except (StoreError, OSError) as error:
            kind, status = "application/json", HTTPStatus.INTERNAL_SERVER_ERROR
            body = _json({"error": f"the answer could not be written: {error}"})
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", _POLICY)
        self.end_headers()
        self.wfile.write(body)

    def _check_host(self) -> None:
        """Another site must not reach this server under a name of its own."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in _LOCAL:
            raise _Refused(HTTPStatus.FORBIDDEN, "this server is for this machine alone")

    def _get(self, path: str) -> tuple[str, bytes]:
        study = self.server.study
        if path == "/":
            return "text/html; charset=utf-8", PAGE.encode()
        if path == "/study":
            return "application/json", _json(
                {"title": study.title, "introduction": study.introduction}
            )
        found = re.fullmatch(r"/stimulus/([0-9]{1,9})\.png", path)
        if found and int(found[1]) < len(study.stimuli):
            return "image/png", study.png(int(found[1]))
        raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")

    def _post(self, path: str) -> tuple[str, bytes]:
        given = self._body()
        participant = str(given.get("participant", "")).strip()
        if not 1 <= len(participant) <= 64 or not participant.isprintable():
            raise _Refused(HTTPStatus.BAD_REQUEST, "a code must have 1 to 64 printable characters")
        if path == "/next":
            return "application/json", _json(self._next(participant))
        if path != "/answer":
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        index, answer, seconds = (given.get(name) for name in ("stimulus", "answer", "seconds"))
        whole = isinstance(index, int) and not isinstance(index, bool)
        timed = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not whole or not isinstance(answer, str) or not timed:
            raise _Refused(
                HTTPStatus.BAD_REQUEST,
                "stimulus, answer and seconds must be an integer, text, a number",
            )
        try:
            self.server.book.add(participant, int(index), answer, float(seconds))  # type: ignore[arg-type]
        except (ValueError, OverflowError) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
        return "application/json", _json({"recorded": True})

    def _next(self, participant: str) -> dict[str, Any]:
        index, done, total = self.server.book.next(participant)
        study = self.server.study
        options = [] if index is None else list(study.stimuli[index].options)
        return {
            "stimulus": index,
            "done": done,
            "total": total,
            "question": study.question,
            "options": options,
        }

    def _body(self) -> Mapping[str, Any]:
        """The JSON object of a request; a form of another site cannot send this type."""
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "requests must be application/json")
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > _LARGEST:
            if size.isdecimal():
                self.rfile.read(min(int(size), 16 * _LARGEST))  # or the reply would get lost
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"requests must have at most {_LARGEST} bytes"
            )
        try:
            given = json.loads(self.rfile.read(int(size)))
        except ValueError:
            raise _Refused(HTTPStatus.BAD_REQUEST, "requests must be JSON") from None
        if not isinstance(given, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, "requests must be a JSON object")
        return given

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: who answers when is in the file alone."""


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


class _Http(http.server.ThreadingHTTPServer):
    def __init__(self, port: int, study: Study, book: Book) -> None:
        self.study, self.book = study, book
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Server:
    """A server that is running. Leave the `with` block, or call `close`, to stop it.

    Attributes:
      url: of the page.
    """

    def __init__(self, http: _Http, book: Book) -> None:
        self._http, self._book = http, book
        self.url = f"http://127.0.0.1:{http.server_address[1]}/"
        self._thread = threading.Thread(target=http.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> None:
        """Returns at Ctrl-C, or when another thread calls `close`."""
        try:
            while self._thread.is_alive():
                self._thread.join(0.2)
        except KeyboardInterrupt:
            pass

    def close(self) -> None:
        """Stops the server. All confirmed answers are in the file."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._book.close()


def serve(
    study: Study, path: str | os.PathLike[str], *, port: int = 0, resume: bool = False
) -> Server:
    """Shows a study on a web page of this machine, and records answers to a file.

    Open `url` in a browser. A participant enters a code, and sees one stimulus after the other; whoever
    enters the same code again continues. Each answer is on disk before the page goes on, so nothing that
    was answered is lost if the server is killed; meanwhile the page sends its answer again until it
    is confirmed. Conditions and right answers are not sent to the page.

    The server is reachable from this machine alone, and has neither passwords nor encryption.

    Args:
      study: what is shown.
      path: of the file of answers, JSON lines. An existing one is not overwritten.
      port: of the server; 0 for any that is free. To resume where a browser still waits, pass the same one.
      resume: continue a file of the same study. It may not exist yet.

    Returns:
      A `Server`, which is running.

    Raises:
      FileExistsError: if the file exists and `resume` is False.
      jaxlrp.dataset.DifferentRunError, StoreError: if it holds another study, is damaged, or is in use.
      TypeError, ValueError, OSError: if an argument is invalid, or the port is taken.
      ImportError: without Pillow; it comes with the extra `plot`.

    Example:
      >>> import tempfile, urllib.request, numpy as np
      >>> from jaxlrp import study
      >>> gray = study.Stimulus(np.full((8, 8, 3), 128, np.uint8), ["dog", "cat"])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with study.serve(study.Study([gray]), f"{folder}/answers.jsonl") as server:
      ...         page = urllib.request.urlopen(server.url).read()
      >>> b"Your code" in page
      True
    """
    if not isinstance(study, Study):
        raise TypeError(f"study must be a study.Study, got {type(study).__name__}")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 2**16:
        raise ValueError(f"port must be an integer from 0 to {2**16 - 1}, got {port!r}")
    study.png(0)  # what is missing is missed before anybody is asked
    book = Book(as_path("path", path), study, resume)
    try:
        return Server(_Http(port, study, book), book)
    except BaseException:
        book.close()
        raise
