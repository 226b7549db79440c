"""Proxies from Debian's packages, each as a child process, with the site that the documentation shows for it.

A site is a file in docs/how-to/proxies, for port 80, ``example.org`` and a server at ``127.0.0.1:8000``. Only these are put into other
words here, and a second listener with TLS is put beside the first; *around* is what a distribution's main file has besides.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from programs import free_ports, program
from serving import PATIENCE, Command, run, wait_until

SITES = Path(__file__).parents[2] / "docs/how-to/proxies"
HOST = "example.org"
UPSTREAM = "127.0.0.1:8000"

Address = tuple[str, int]


@dataclass(frozen=True)
class Ports:
    """Where a proxy listens on 127.0.0.1. *pem* has a certificate and its key."""

    plain: int
    tls: int
    pem: Path


@dataclass(frozen=True)
class Proxy:
    """*program* is what Debian calls it, run with *arguments* in a folder with a file ``main``: that is *around*, with the *site* in the
    place of ``{site}``. *listen* puts the ports in; *tcp* is how the upstream is written, *unix* how it is where that is a Unix socket.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    site: str
    around: str
    listen: Callable[[str, Ports], str]
    tcp: str
    unix: str

    def configured(self, upstream: Address | str, ports: Ports) -> str:
        """What stands in ``main`` for a server at *upstream*."""
        at = self.unix.format(upstream) if isinstance(upstream, str) else self.tcp.format("{}:{}".format(*upstream))
        site = _replaced((SITES / self.site).read_text(), self.tcp.format(UPSTREAM), at)
        return self.around.replace("{site}", self.listen(site, ports))

    def path(self) -> str:
        return program(self.program)


@dataclass(frozen=True)
class Running:
    """A proxy that runs."""

    command: Command
    address: Address
    tls_address: Address
    pem: Path


@contextlib.contextmanager
def running(proxy: Proxy, upstream: Address | str, pem: Path, folder: Path) -> Iterator[Running]:
    """Run *proxy* in *folder*, in front of *upstream*, until the block ends."""
    plain, tls = free_ports(2)
    ports = Ports(plain, tls, pem)
    (folder / "main").write_text(proxy.configured(upstream, ports))
    arguments = [argument.replace("{folder}", str(folder)) for argument in proxy.arguments]
    with run([proxy.path(), *arguments], cwd=folder, env={"HOME": str(folder)}) as command:

        def listening() -> bool:
            assert command.process.poll() is None, command.output
            return all(_answers(port) for port in (ports.plain, ports.tls))

        wait_until(listening, proxy.name)
        yield Running(command, ("127.0.0.1", ports.plain), ("127.0.0.1", ports.tls), pem)
        command.signal(signal.SIGTERM)  # its workers would outlive a kill
        command.exit_code()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(PATIENCE)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _replaced(text: str, there: str, here: str) -> str:
    assert there in text, f"{there!r} is not in {text}"
    return text.replace(there, here)


def _nginx_listens(site: str, ports: Ports) -> str:
    tls = f"listen 127.0.0.1:{ports.tls} ssl; ssl_certificate {ports.pem}; ssl_certificate_key {ports.pem};"
    return _replaced(site, "listen 80;", f"listen 127.0.0.1:{ports.plain}; {tls}")


def _apache_listens(site: str, ports: Ports) -> str:
    plain = _replaced(site, "<VirtualHost *:80>", f"<VirtualHost *:{ports.plain}>")
    tls = f"<VirtualHost *:{ports.tls}>\nSSLEngine on\nSSLCertificateFile {ports.pem}"
    listen = f"Listen 127.0.0.1:{ports.plain}\nListen 127.0.0.1:{ports.tls}\n"
    return listen + plain + _replaced(site, "<VirtualHost *:80>", tls)


def _haproxy_listens(site: str, ports: Ports) -> str:
    tls = f"bind 127.0.0.1:{ports.tls} ssl crt {ports.pem}"
    return _replaced(site, "bind :80\n", f"bind 127.0.0.1:{ports.plain}\n    {tls}\n")


def _caddy_listens(site: str, ports: Ports) -> str:
    snippets, name, rest = site.partition(f"\n{HOST} {{\n")
    assert name, site
    plain = f"\nhttp://{HOST}:{ports.plain} {{\n\tbind 127.0.0.1\n"
    tls = f"\nhttps://{HOST}:{ports.tls} {{\n\tbind 127.0.0.1\n\ttls {ports.pem} {ports.pem}\n"
    return snippets + plain + rest + tls + rest


_NGINX = """
daemon off;
pid nginx.pid;
worker_processes 1;
error_log stderr;
events {}
http {
access_log off;
client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
{site}
}
"""

_APACHE_MODULES = ("mpm_event", "authz_core", "alias", "proxy", "proxy_http", "headers", "filter", "deflate", "ssl")

# It refuses to serve as root, and ignores the account where somebody else starts it.
_APACHE = "\n".join(
    [
        *(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in _APACHE_MODULES),
        "User www-data",
        "Group www-data",
        "ServerName localhost",
        "PidFile apache.pid",
        "ErrorLog /dev/stderr",
        "{site}",
    ]
)

_CADDY = """{
	admin off
	auto_https off
}
{site}
"""

PROXIES = [
    Proxy(
        "nginx",
        "nginx",
        ("-p", "{folder}", "-c", "main"),
        "nginx.conf",
        _NGINX,
        _nginx_listens,
        "server {};",
        "server unix:{};",
    ),
    Proxy(
        "apache",
        "apache2",
        ("-d", "{folder}", "-f", "main", "-DFOREGROUND"),
        "apache.conf",
        _APACHE,
        _apache_listens,
        "http://{}/",
        "unix:{}|http://hello/",
    ),
    Proxy(
        "haproxy",
        "haproxy",
        ("-db", "-f", "main"),
        "haproxy.cfg",
        "{site}",
        _haproxy_listens,
        "server hello {}",
        "server hello {}",
    ),
    Proxy(
        "caddy",
        "caddy",
        ("run", "--adapter", "caddyfile", "--config", "main"),
        "Caddyfile",
        _CADDY,
        _caddy_listens,
        "reverse_proxy {}",
        "reverse_proxy unix/{}",
    ),
]
