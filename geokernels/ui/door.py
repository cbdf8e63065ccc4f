"""Who may ask the page's server for what, in front of everything that Gradio does."""

import re
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import unquote, urlsplit

Send = Callable[[dict], Awaitable]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# nothing is fetched from elsewhere, whatever a page holds; Gradio's own scripts stand in the page
OF_PAGES = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
# a file is opened as if it came from elsewhere: a report's scripts run, and can ask this server for nothing
OF_FILES = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; media-src data:"
)
ALWAYS = {b"x-content-type-options": b"nosniff", b"referrer-policy": b"no-referrer"}
FILE, ELSEWHERE = "/gradio_api/file=", "/gradio_api/proxy="
ADDRESS = re.compile(r"\s*[a-zA-Z][a-zA-Z0-9+.-]*:")  # what another server is called by


class Door:
    """An ASGI application in front of another.

    Args:
        app: The other.
        hosts: Names by which the server may be called, against pages elsewhere whose name was made to lead
            here; None for all.
    """

    def __init__(self, app, hosts: Collection[str] | None = LOOPBACK):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope, receive: Callable[[], Awaitable], send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        said = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        refused = self._refused(said, path)
        if refused is not None:
            await _refuse(send, scope["type"], refused)
            return
        policy = OF_FILES if path.startswith(FILE) else OF_PAGES

        async def guarded(message: dict) -> None:
            if message["type"] == "http.response.start":
                own = {b"content-security-policy": policy.encode(), **ALWAYS}
                kept = [pair for pair in message["headers"] if pair[0].lower() not in own]
                message["headers"] = [*kept, *own.items()]
            await send(message)

        await self.app(scope, receive, guarded)

    def _refused(self, said: dict[str, str], path: str) -> str | None:
        """Why a request is refused; None where it is not."""
        host = urlsplit(f"//{said.get('host', '')}").hostname
        if self.hosts is not None and host not in self.hosts:
            return "this page is on this computer alone"
        origin = said.get("origin")
        if origin is not None and urlsplit(origin).netloc != said.get("host"):
            return "another site may not ask"
        file = unquote(path.removeprefix(FILE)) if path.startswith(FILE) else ""
        if path.startswith(ELSEWHERE) or ADDRESS.match(file):
            return "nothing is fetched from elsewhere"
        return None


async def _refuse(send: Send, kind: str, why: str) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": f"Refused: {why}.\n".encode()})
