"""Streams behind a proxy that buffers: nginx as it comes, where it is installed.

``HERMES_WS_TESTS_NGINX`` names the program if it is not on the path.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.conftest import MakeServer
from tests.wire import Server, soon, wait_for

NGINX = os.environ.get("HERMES_WS_TESTS_NGINX") or shutil.which("nginx") or "/usr/sbin/nginx"

pytestmark = pytest.mark.skipif(not Path(NGINX).exists(), reason="nginx is not installed")

CONFIGURATION = """
daemon off;
pid DIR/nginx.pid;
error_log DIR/error.log;
events {}
http {
    access_log off;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    gzip on;
    gzip_types *;
    gzip_proxied any;
    server {
        listen 127.0.0.1:PORT;
        location / { proxy_pass URL; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /deaf/ { proxy_pass URL/; proxy_http_version 1.1; proxy_ignore_headers X-Accel-Buffering; }
    }
}
"""


@pytest.fixture
def proxied(make_server: MakeServer, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server, and nginx in front of it."""
    server = make_server(settings="[compat]\nkeepalive_s = 0.3\n")
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    text = CONFIGURATION.replace("DIR", str(tmp_path)).replace("URL", server.url).replace("PORT", str(port))
    (tmp_path / "nginx.conf").write_text(text)
    command = [NGINX, "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(tmp_path / "nginx.conf")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    yield server, f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


def _listens(url: str) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0


async def _client(server: Server, url: str) -> httpx2.AsyncClient:
    await wait_for(lambda: _listens(url))
    headers = {"Authorization": f"Bearer {server.key}", "Accept-Encoding": "gzip"}
    return httpx2.AsyncClient(base_url=url, headers=headers, timeout=3, trust_env=False)


async def test_events_come_through_a_buffering_proxy_while_the_run_still_waits(proxied: tuple[Server, str]) -> None:
    async with await _client(*proxied) as http:
        run_id = (await http.post("/v1/runs", json={"input": "/say first\n/ask Go on?"})).json()["run_id"]
        async with http.stream("GET", f"/v1/runs/{run_id}/events") as stream, soon():
            assert stream.headers["cache-control"] == "no-cache, no-transform"
            assert stream.headers["x-content-type-options"] == "nosniff"
            lines: list[str] = []
            async for line in stream.aiter_lines():
                lines.append(line)
                if line == ": keepalive":
                    break
    assert any("clarify.request" in line for line in lines)


async def test_without_the_header_that_says_so_it_holds_them_back(proxied: tuple[Server, str]) -> None:
    async with await _client(*proxied) as http:
        run_id = (await http.post("/v1/runs", json={"input": "/say first\n/ask Go on?"})).json()["run_id"]
        with pytest.raises(httpx2.ReadTimeout):
            await http.get(f"/deaf/v1/runs/{run_id}/events", timeout=1.5)
