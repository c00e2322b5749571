"""What an OpenID provider signed: read, and believed only if all of it is true. Pure: asks nobody.

Imported only where a provider is configured: what it needs is large.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, JoseError, SecurityWarning
from joserfc.jwk import JWKRegistry, Key

from llmchat.person import LATE_SECONDS

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""Of signatures: those that only the provider can make."""
KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""Of keys, by how the names of algorithms begin."""
MOST_KEYS = 100
SUBJECT_CHARACTERS = 1000
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, which JSON can name and nothing else can carry."""
UNREADABLE = JoseError, ValueError, TypeError, RecursionError
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"


class Untrue(Exception):
    """What a provider said cannot be believed. The words are ours, for the log."""


def keys_of(found: object) -> list[Key]:
    """Read the keys of a JWKS, but for those that sign nothing."""
    keys: list[Key] = []
    for each in found[:MOST_KEYS] if isinstance(found, list) else ():
        if isinstance(each, dict) and each.get("kty") in KINDS.values() and each.get("use") != "enc":
            with suppress(JoseError, ValueError, TypeError, KeyError):  # a kind that we do not know
                keys.append(JWKRegistry.import_key(each))
    return keys


def header_of(token: object, algorithms: Sequence[str]) -> Mapping[str, Any]:
    """Read with what a token is said to be signed. Raises Untrue."""
    try:
        header = jws.extract_compact(str(token).encode()).headers()
    except UNREADABLE:
        raise Untrue("its token is malformed") from None
    if header.get("alg") not in algorithms:
        raise Untrue("its token is signed in a way that it did not announce, or that proves nothing")
    return header


def fitting(keys: Iterable[Key], header: Mapping[str, Any]) -> list[Key]:
    """Choose the keys that may have signed a token."""
    algorithm, kid = header["alg"], header.get("kid")
    return [
        each
        for each in keys
        if each.key_type == KINDS[algorithm[:2]]
        and each.get("alg") in (None, algorithm)
        and (kid is None or each.get("kid") == kid)
    ]


def claims_of_visitor(
    token: str, keys: Iterable[Key], *, issuer: str, client_id: str, nonce: str, access_token: object
) -> dict[str, Any]:
    """Read an ID token: signed by one of the keys, for us, now, and for this sign-in. Raises Untrue."""
    decoded = _decoded(token, keys)
    claims = CodeIDToken(
        decoded.claims,
        decoded.header,
        {"iss": {"value": issuer}, "aud": {"value": client_id}},
        {"client_id": client_id, "nonce": nonce, "access_token": access_token},
    )
    try:
        claims.validate(leeway=LATE_SECONDS)
    except (JoseError, TypeError, ValueError) as error:
        raise Untrue(f"its token is not true: {error}") from None
    _check_subject(claims["sub"])
    return dict(claims)


def claims_of_leaver(token: str, keys: Iterable[Key], *, issuer: str, client_id: str) -> dict[str, Any]:
    """Read a logout token: signed by one of the keys, for us, now, and of somebody. Raises Untrue."""
    claims = _decoded(token, keys).claims
    told = jwt.JWTClaimsRegistry(
        leeway=LATE_SECONDS,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        sub={"essential": True},
        iat={"essential": True},
        exp={"essential": True},
        jti={"essential": True},
    )
    try:
        told.validate(claims)
    except JoseError as error:
        raise Untrue(f"its token is not true: {error}") from None
    _check_subject(claims["sub"])
    events = claims.get("events")
    if not isinstance(claims["jti"], str) or not claims["jti"]:
        raise Untrue("its token has no id")
    if "nonce" in claims or not isinstance(events, dict) or LOGOUT not in events:
        raise Untrue("its token is no logout token")
    return claims


def _check_subject(subject: object) -> None:
    known = isinstance(subject, str) and 0 < len(subject) <= SUBJECT_CHARACTERS
    if not known or SURROGATE.search(str(subject)):
        raise Untrue("it does not tell who it is about")


def _decoded(token: str, keys: Iterable[Key]) -> jwt.Token:
    for key in keys:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # EdDSA has a new name
            try:
                return jwt.decode(token, key, algorithms=list(ALGORITHMS))
            except BadSignatureError:
                continue
            except UNREADABLE:
                raise Untrue("its token is malformed") from None
    raise Untrue("its token is signed by nobody that it knows")
