"""Verdicts on request lines, Host and other fields.

Each row: message, our verdict, h11's, waitress's, and why they differ.
"""

from __future__ import annotations

from request_readers import ACCEPT, REFUSE, WAIT
from verdict_case import (
    AUTHORITY,
    BARE_CR,
    CONNECTION,
    CONTROL,
    DOUBLED,
    EMPTY_LINES,
    FOLDED,
    FRAGMENT,
    HOST_COUNT,
    HOST_FORM,
    HOST_STRICT,
    LINE_END,
    METHOD_CASE,
    METHOD_LENGTH,
    NO_TUNNEL,
    NO_VERSION,
    TARGET_CONTROL,
    TARGET_FORM,
    TARGET_LENGTH,
    TOO_LARGE,
    TOO_MANY_EMPTY_LINES,
    USER,
    VERSION,
    WHITE_SPACE,
    Case,
    head,
    line,
)

_LINE = len("GET / HTTP/1.1")
_FIELD = len(head("X: "))

LINES = [
    Case("plain", head(), ACCEPT, ACCEPT, ACCEPT),
    Case("empty line before", b"\r\n" + head(), ACCEPT, REFUSE, ACCEPT, EMPTY_LINES),
    Case("four empty lines before", b"\r\n" * 4 + head(), ACCEPT, REFUSE, ACCEPT, EMPTY_LINES),
    Case("five empty lines before", b"\r\n" * 5 + head(), 400, REFUSE, ACCEPT, TOO_MANY_EMPTY_LINES),
    Case("LF before", b"\n" + head(), 400, REFUSE, ACCEPT, LINE_END),
    Case("CR before", b"\r" + head(), 400, REFUSE, ACCEPT, BARE_CR),
    Case("LF CR before", b"\n\r" + head(), 400, REFUSE, ACCEPT, LINE_END),
    Case("CR LF LF before", b"\r\n\n" + head(), 400, REFUSE, ACCEPT, LINE_END),
    Case("LF for every CR LF", head().replace(b"\r\n", b"\n"), 400, ACCEPT, WAIT, LINE_END),
    Case("LF ends the request line", b"GET / HTTP/1.1\nHost: test\r\n\r\n", 400, ACCEPT, REFUSE, LINE_END),
    Case("CR ends the request line", b"GET / HTTP/1.1\rHost: test\r\n\r\n", 400, REFUSE, REFUSE),
    Case("CR CR LF ends the request line", line("GET / HTTP/1.1\r"), 400, REFUSE, ACCEPT, BARE_CR),
    Case("LF in the target", line("GET /\n HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("CR in the target", line("GET /\r HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("LF ends a field", head("X: a\nY: b"), 400, ACCEPT, REFUSE, LINE_END),
    Case("CR ends a field", head("X: a\rY: b"), 400, REFUSE, REFUSE),
    Case("LF CR ends a field", head("X: a\n\rY: b"), 400, REFUSE, REFUSE),
    Case("CR CR LF ends a field", head("X: a\r"), 400, REFUSE, REFUSE),
    Case("LF LF ends the head", b"GET / HTTP/1.1\r\nHost: test\n\n", 400, ACCEPT, WAIT, LINE_END),
    Case("LF CR LF ends the head", b"GET / HTTP/1.1\r\nHost: test\n\r\n", 400, ACCEPT, WAIT, LINE_END),
    Case("CR LF LF ends the head", b"GET / HTTP/1.1\r\nHost: test\r\n\n", 400, ACCEPT, WAIT, LINE_END),
    Case("a line of CR", b"GET / HTTP/1.1\r\nHost: test\r\n\r\r\n\r\n", 400, REFUSE, REFUSE),
    Case("NEL is no line end", head("X: a\x85Y: b"), ACCEPT, ACCEPT, ACCEPT),
]

CONTROLS = [
    Case("tab and 8-bit bytes in a value", head("X: \xe4\tb\xff"), ACCEPT, ACCEPT, ACCEPT),
    *(
        Case(f"{control!r} in the target", line(f"GET /{control} HTTP/1.1"), 400, REFUSE, ACCEPT, TARGET_CONTROL)
        for control in "\0\1\b\v\f\x1b\x1f\x7f"
    ),
    *(Case(f"{control!r} in a value", head(f"X: a{control}b"), 400, REFUSE, REFUSE) for control in "\0\v\f"),
    *(
        Case(f"{control!r} in a value", head(f"X: a{control}b"), 400, ACCEPT, REFUSE, CONTROL)
        for control in "\1\b\x1b\x1f\x7f"
    ),
    *(Case(f"{control!r} ends a value", head(f"X: a{control}"), 400, REFUSE, REFUSE) for control in "\0\v\f"),
    *(Case(f"{control!r} in a name", head(f"X{control}Y: a"), 400, REFUSE, REFUSE) for control in "\0\1\v\x7f"),
    Case("NUL before", b"\0" + head(), 400, REFUSE, REFUSE),
    Case("NUL in the method", line("G\0ET / HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("NUL behind the version", line("GET / HTTP/1.1\0"), 400, REFUSE, REFUSE),
    Case("8-bit byte in the method", line("G\xcbT / HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("8-bit byte in the target", line("GET /\xe4 HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("8-bit digit in the version", line("GET / HTTP/1.\xb9"), 400, REFUSE, REFUSE),
    Case("hello of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + head(), 400, REFUSE, REFUSE),
]

REQUEST_LINES = [
    Case("two spaces before the target", line("GET  / HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("two spaces behind the target", line("GET /  HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("space in the target", line("GET /a b HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("space before the method", line(" GET / HTTP/1.1"), 400, REFUSE, ACCEPT, WHITE_SPACE),
    Case("tab before the method", line("\tGET / HTTP/1.1"), 400, REFUSE, ACCEPT, WHITE_SPACE),
    Case("space behind the version", line("GET / HTTP/1.1 "), 400, REFUSE, ACCEPT, WHITE_SPACE),
    Case("tab behind the version", line("GET / HTTP/1.1\t"), 400, REFUSE, ACCEPT, WHITE_SPACE),
    Case("tab in the target", line("GET /\t HTTP/1.1"), 400, REFUSE, ACCEPT, TARGET_CONTROL),
    Case("tabs for spaces", line("GET\t/\tHTTP/1.1"), 400, REFUSE, REFUSE),
    Case("vertical tabs for spaces", line("GET\v/\vHTTP/1.1"), 400, REFUSE, REFUSE),
    Case("no-break space for a space", line("GET\xa0/ HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("method alone", line("GET"), 400, REFUSE, REFUSE),
    Case("no method", line(" / HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("no target", line("GET HTTP/1.1"), 400, REFUSE, ACCEPT, NO_VERSION),
    Case("empty target", line("GET  HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("no version", line("GET /"), 400, REFUSE, ACCEPT, NO_VERSION),
    Case("empty version", line("GET / "), 400, REFUSE, ACCEPT, NO_VERSION),
    *(
        Case(f"version {version}", line(f"GET / HTTP/{version}"), 505, ACCEPT, ACCEPT, VERSION)
        for version in ("0.9", "1.2", "1.9", "2.0", "3.0")
    ),
    Case("preface of HTTP/2", line("PRI * HTTP/2.0"), 505, ACCEPT, ACCEPT, VERSION),
    *(
        Case(f"version {version!r}", line(f"GET / {version}"), 400, REFUSE, REFUSE)
        for version in ("http/1.1", "Http/1.1", "HTTPS/1.1", "ICY/1.1", "HTTP/ 1.1", "HTTP 1.1", "HTTP/1,1", "HTTP/1_1")
    ),
    *(
        Case(f"version {version!r}", line(f"GET / {version}"), 400, REFUSE, REFUSE)
        for version in ("HTTP/1", "HTTP/1.", "HTTP/1.10", "HTTP/01.1", "HTTP/1.1x", "HTTP/-1.1", "HTTP/+1.1")
    ),
    Case("lower-case method", line("get / HTTP/1.1"), ACCEPT, ACCEPT, REFUSE, METHOD_CASE),
    Case("method of two words", line("M-SEARCH / HTTP/1.1"), ACCEPT, ACCEPT, ACCEPT),
    Case("parenthesis in the method", line("G(T / HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("colon behind the method", line("GET: / HTTP/1.1"), 400, REFUSE, REFUSE),
    Case("quoted method", line('"GET" / HTTP/1.1'), 400, REFUSE, REFUSE),
    Case("method of 32 bytes", line("A" * 32 + " / HTTP/1.1"), ACCEPT, ACCEPT, ACCEPT),
    Case("method of 33 bytes", line("A" * 33 + " / HTTP/1.1"), 400, ACCEPT, ACCEPT, METHOD_LENGTH),
    Case("method of 9000 bytes", line("A" * 9000 + " / HTTP/1.1"), 414, ACCEPT, ACCEPT, TARGET_LENGTH),
    Case("line of 8190 bytes", line(f"GET /{'a' * (8190 - _LINE)} HTTP/1.1"), ACCEPT, ACCEPT, ACCEPT),
    Case("line of 8191 bytes", line(f"GET /{'a' * (8191 - _LINE)} HTTP/1.1"), 414, ACCEPT, ACCEPT, TARGET_LENGTH),
    Case("line of 8190 and a CR", line(f"GET /{'a' * (8190 - _LINE)} HTTP/1.1\r"), 414, REFUSE, ACCEPT, TARGET_LENGTH),
    Case("LF in a line too long", line(f"GET /\n{'a' * 8190} HTTP/1.1"), 400, REFUSE, REFUSE),
]

TARGETS = [
    Case("absolute", line("GET http://test/a?b HTTP/1.1"), ACCEPT, ACCEPT, ACCEPT),
    Case("absolute in capitals", line("GET HTTP://TEST/ HTTP/1.1"), ACCEPT, ACCEPT, ACCEPT),
    Case("absolute without path", line("GET https://test?x HTTP/1.1"), ACCEPT, ACCEPT, ACCEPT),
    Case("two slashes", line("GET //other/a HTTP/1.1"), ACCEPT, ACCEPT, ACCEPT),
    Case("escaped NUL", line("GET /%00 HTTP/1.1"), ACCEPT, ACCEPT, ACCEPT),
    Case("broken escapes", line("GET /%zz% HTTP/1.1"), ACCEPT, ACCEPT, ACCEPT),
    Case("fragment", line("GET /a#b HTTP/1.1"), 400, ACCEPT, ACCEPT, FRAGMENT),
    Case("empty fragment", line("GET /# HTTP/1.1"), 400, ACCEPT, ACCEPT, FRAGMENT),
    Case("fragment of an absolute URL", line("GET http://test/#b HTTP/1.1"), 400, ACCEPT, ACCEPT, FRAGMENT),
    Case("fragment that hides a host", line("GET http://test#@other/ HTTP/1.1"), 400, ACCEPT, ACCEPT, FRAGMENT),
    *(
        Case(f"target {target}", line(f"GET {target} HTTP/1.1"), 400, ACCEPT, ACCEPT, TARGET_FORM)
        for target in ("test:80", "test", "a/b", "?q", "ftp://test/", "http:/a", "\\\\test", "javascript:alert(1)", "*")
    ),
    Case("authority form with POST", line("POST test:80 HTTP/1.1"), 400, ACCEPT, ACCEPT, TARGET_FORM),
    Case("OPTIONS *", line("OPTIONS * HTTP/1.1"), ACCEPT, ACCEPT, ACCEPT),
    Case("OPTIONS *?a", line("OPTIONS *?a HTTP/1.1"), 400, ACCEPT, ACCEPT, TARGET_FORM),
    Case("CONNECT", line("CONNECT test:80 HTTP/1.1"), 501, ACCEPT, ACCEPT, NO_TUNNEL),
    Case("CONNECT with a path", line("CONNECT / HTTP/1.1"), 501, ACCEPT, ACCEPT, NO_TUNNEL),
    Case("TRACE", line("TRACE / HTTP/1.1"), 501, ACCEPT, ACCEPT, NO_TUNNEL),
]

HOSTS = [
    Case("no Host in 1.0", head(first="GET / HTTP/1.0", host=None), ACCEPT, ACCEPT, ACCEPT),
    Case("no Host in 1.1", head(host=None), 400, REFUSE, ACCEPT, HOST_COUNT),
    Case("no Host, absolute", head(first="GET http://test/ HTTP/1.1", host=None), 400, REFUSE, ACCEPT, HOST_COUNT),
    Case("no Host, absolute, 1.0", head(first="GET http://test/ HTTP/1.0", host=None), ACCEPT, ACCEPT, ACCEPT),
    Case("two equal Hosts", head("Host: test"), 400, REFUSE, ACCEPT, HOST_COUNT),
    Case("two Hosts", head("Host: other"), 400, REFUSE, ACCEPT, HOST_COUNT),
    Case("two Hosts in 1.0", head("host: other", first="GET / HTTP/1.0"), 400, REFUSE, ACCEPT, HOST_COUNT),
    Case("Host_ is another field", head("Host_: other"), ACCEPT, ACCEPT, ACCEPT),
    Case("empty Host", head(host="Host:"), ACCEPT, ACCEPT, ACCEPT),
    Case("empty Host, absolute", head(first="GET http://test/ HTTP/1.1", host="Host:"), 400, ACCEPT, ACCEPT, AUTHORITY),
    *(
        Case(f"Host: {host}", head(host=f"Host: {host}"), ACCEPT, ACCEPT, ACCEPT)
        for host in ("[::1]:8000", "127.0.0.1:80", "a_b", "test.")
    ),
    *(
        Case(f"Host: {host}", head(host=f"Host: {host}"), 400, ACCEPT, ACCEPT, HOST_FORM)
        for host in (
            "test/x",
            "test?x",
            "test#x",
            "a@test",
            "http://test",
            "te st",
            "te\tst",
            "test, other",
            "te\\st",
            'te"st',
        )
    ),
    *(
        Case(f"Host: {host}", head(host=f"Host: {host}"), 400, ACCEPT, ACCEPT, HOST_FORM)
        for host in (
            "test:65536",
            "test:999999",
            "test:http",
            "test:+80",
            "test:8_0",
            "test:8\xb2",
            "test:80:80",
            ":80",
            "t\xe4st",
        )
    ),
    *(
        Case(f"Host: {host}", head(host=f"Host: {host}"), 400, ACCEPT, ACCEPT, HOST_FORM)
        for host in ("::1", "[1::2::3]", "[::1", "[::1]x", "[fe80::1%eth0]", "[]", "<test>")
    ),
    *(
        Case(f"Host: {host}", head(host=f"Host: {host}"), 400, ACCEPT, ACCEPT, HOST_STRICT)
        for host in ("test:", "te%73t", "[v1.a]", "-test", "test-", ".test", "te!st")
    ),
    Case("Host of 255 bytes", head(host="Host: " + "a" * 255), ACCEPT, ACCEPT, ACCEPT),
    Case("Host of 262 bytes", head(host="Host: " + "a" * 262), 400, ACCEPT, ACCEPT, HOST_STRICT),
    *(
        Case(f"{url} is not Host", line(f"GET {url} HTTP/1.1"), 400, ACCEPT, ACCEPT, AUTHORITY)
        for url in (
            "http://other/",
            "http://test:81/",
            "http://test:80/",
            "http:///",
            "http://te%73t/",
            "http://te|st/",
        )
    ),
    Case("target with a user", line("GET http://a@test/ HTTP/1.1"), 400, ACCEPT, ACCEPT, USER),
    Case("target with a user like Host", line("GET http://test@other/ HTTP/1.1"), 400, ACCEPT, ACCEPT, USER),
    Case("target with a broken address", line("GET http://[::1/ HTTP/1.1"), 400, ACCEPT, REFUSE, AUTHORITY),
]

FIELDS = [
    Case("empty value", head("X:"), ACCEPT, ACCEPT, ACCEPT),
    Case("space before the colon", head("X : a"), 400, REFUSE, REFUSE),
    Case("tab before the colon", head("X\t: a"), 400, REFUSE, REFUSE),
    Case("empty name", head(": a"), 400, REFUSE, REFUSE),
    Case("no colon", head("X"), 400, REFUSE, REFUSE),
    *(
        Case(f"name {name}", head(f"{name}: a"), 400, REFUSE, REFUSE)
        for name in ("X Y", "X(", '"X"', "X/Y", "X@", "X\xe4", "X;", "X=", "{X}", "X\xa0")
    ),
    Case("name with _", head("X_Y: a"), ACCEPT, ACCEPT, ACCEPT),
    Case("name of _", head("_: a"), ACCEPT, ACCEPT, ACCEPT),
    Case("folded by a space", head("X: a", " b"), 400, ACCEPT, ACCEPT, FOLDED),
    Case("folded by a tab", head("X: a", "\tb"), 400, ACCEPT, ACCEPT, FOLDED),
    Case("folded and empty", head("X: a", " "), 400, ACCEPT, ACCEPT, FOLDED),
    Case("folded like a field", head(" X: a"), 400, ACCEPT, ACCEPT, FOLDED),
    Case("folded Host", head(host="Host:\r\n test"), 400, ACCEPT, ACCEPT, FOLDED),
    Case("folded first field", head(host=" Host: test"), 400, REFUSE, REFUSE),
    Case("space alone behind the request line", line("GET / HTTP/1.1\r\n "), 400, REFUSE, REFUSE),
    Case("100 fields", head(*["X: a"] * 99), ACCEPT, ACCEPT, ACCEPT),
    Case("101 fields", head(*["X: a"] * 100), 431, ACCEPT, ACCEPT, TOO_LARGE),
    Case("101 fields and a LF", head("X: a\nY: b", *["X: a"] * 99), 400, ACCEPT, REFUSE, LINE_END),
    Case("32 KiB", head("X: " + "a" * (32768 - _FIELD)), ACCEPT, ACCEPT, ACCEPT),
    Case("32 KiB and a byte", head("X: " + "a" * (32769 - _FIELD)), 431, ACCEPT, ACCEPT, TOO_LARGE),
    Case("name of 32 KiB", head("X" * 32768 + ": a"), 431, ACCEPT, ACCEPT, TOO_LARGE),
    Case("32 KiB behind a LF", head("X: a\nY: " + "b" * 32768), 400, ACCEPT, REFUSE, LINE_END),
    Case("two Accepts", head("Accept: a", "Accept: b"), ACCEPT, ACCEPT, ACCEPT),
    Case("two Cookies", head("Cookie: a=1", "Cookie: b=2"), ACCEPT, ACCEPT, ACCEPT),
    *(
        Case(f"two {name}", head(f"{name}: a", f"{name.lower()}: a"), 400, ACCEPT, ACCEPT, DOUBLED)
        for name in (
            "Authorization",
            "Content-Type",
            "From",
            "Max-Forwards",
            "Origin",
            "Range",
            "Referer",
            "User-Agent",
        )
    ),
    *(
        Case(f"two {name}", head(f"{name}: a", f"{name.lower()}: a"), 400, ACCEPT, ACCEPT, DOUBLED)
        for name in ("If-Modified-Since", "If-Range", "If-Unmodified-Since", "Proxy-Authorization")
    ),
]

CONNECTIONS = [
    *(
        Case(f"Connection: {options}", head(f"Connection: {options}"), ACCEPT, ACCEPT, ACCEPT)
        for options in ("close", "keep-alive, X-Hop", "TE", "Upgrade, HTTP2-Settings", ", ,", "")
    ),
    *(
        Case(f"Connection: {options}", head(f"Connection: {options}"), 400, ACCEPT, ACCEPT, CONNECTION)
        for options in (
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Content-Type",
            "Authorization",
            "close, COOKIE",
            "Range",
        )
    ),
    *(
        Case(f"Connection: {options}", head(f"Connection: {options}"), 400, ACCEPT, ACCEPT, CONNECTION)
        for options in (
            "X-Forwarded-For",
            "close,\tx-forwarded-proto",
            "Forwarded",
            "X-Real-IP",
            "Cache-Control",
            "Origin",
            "Expect",
        )
    ),
    Case("second Connection", head("Connection: close", "Connection: Cookie"), 400, ACCEPT, ACCEPT, CONNECTION),
]

CASES = [*LINES, *CONTROLS, *REQUEST_LINES, *TARGETS, *HOSTS, *FIELDS, *CONNECTIONS]
