"""An OpenID provider on this machine, in the place of Hugging Face's: who is asked to sign in has signed in at once.

It issues real codes and tokens, signed with a key of its own, and refuses what a real one refuses: a wrong client, a
code that was used. The one surprising fact: it answers as whoever `user` names at that moment.
"""

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "the-space", "its-secret"


class OpenIdProvider:
    """Who signs in, and what the app has to know of the provider."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.user = ""
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.codes: dict[str, str] = {}  # code → nonce

    @property
    def environment(self) -> dict[str, str]:
        """What Hugging Face tells a Space whose card says hf_oauth."""
        return {
            "OAUTH_CLIENT_ID": CLIENT,
            "OAUTH_CLIENT_SECRET": SECRET,
            "OAUTH_SCOPES": "openid profile",
            "OPENID_PROVIDER_URL": self.url,
        }

    def configuration(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def authorize(self, query: dict[str, str]) -> str:
        """The address to go back to, with a code."""
        assert query["client_id"] == CLIENT
        code = secrets.token_hex(8)
        self.codes[code] = query["nonce"]
        return f"{query['redirect_uri']}{'&' if '?' in query['redirect_uri'] else '?'}" + urlencode(
            {"code": code, "state": query["state"]}
        )

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        """Access and ID token for a code."""
        nonce, now = self.codes.pop(form["code"]), int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "sub": self.user, "nonce": nonce, "iat": now, "exp": now + 3600}
        claims |= {"name": self.user, "preferred_username": self.user, "profile": "", "picture": ""}
        id_token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)
        return {"access_token": secrets.token_hex(8), "token_type": "bearer", "expires_in": 3600, "id_token": id_token}


@contextmanager
def openid_provider() -> Iterator[OpenIdProvider]:
    """A provider that listens on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(address.query).items()}
            match address.path:
                case "/.well-known/openid-configuration":
                    self.reply(provider.configuration())
                case "/keys":
                    self.reply({"keys": [provider.key.as_dict(private=False)]})
                case "/authorize":
                    self.send_response(302)
                    self.send_header("Location", provider.authorize(query))
                    self.end_headers()
                case _:
                    self.send_error(404)

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(sent).items()}
            basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
            if self.headers.get("Authorization") != f"Basic {basic}" or form.get("code") not in provider.codes:
                self.reply({"error": "invalid_grant"}, 400)
            else:
                self.reply(provider.token(form))

        def reply(self, content: dict[str, Any], status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = OpenIdProvider(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
