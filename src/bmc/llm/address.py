"""Address of the endpoint, and its name without secrets."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit, urlunsplit

OPENAI = "https://api.openai.com/v1"
VARIABLE = "OPENAI_BASE_URL"  # the official client reads it, too


class Address(NamedTuple):
    """An endpoint."""

    url: str  # without its query
    query: dict[str, str]  # goes with every request, for gateways that want an API version or a key there
    origin: str | None  # what names it: `base_url`, the environment variable, or None for OpenAI's own


def address(base_url: str | None) -> Address:
    """Return the endpoint of a recipe: its `base_url`, else `OPENAI_BASE_URL`, else OpenAI's own."""
    given, origin = base_url, "base_url"
    if given is None:
        given, origin = os.environ.get(VARIABLE, "").strip(), VARIABLE
    if not given:
        return Address(OPENAI, {}, None)
    parts = urlsplit(given)
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return Address(url, dict(parse_qsl(parts.query, keep_blank_values=True)), origin)


def endpoint_name(base_url: str | None) -> str:
    """Return the endpoint without user, password, query and fragment, for messages and records."""
    found = address(base_url)
    return without_secrets(found.url) if found.origin else "api.openai.com"


def without_secrets(url: str) -> str:
    """Return scheme, host and path of a URL."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def where(base_url: str | None) -> str:
    """Return the endpoint for a plan, and what names it if that isn't the recipe."""
    name = endpoint_name(base_url)
    return f"{name} (by the environment variable {VARIABLE})" if address(base_url).origin == VARIABLE else name


def address_fault(base_url: str | None) -> str | None:
    """Return what is wrong with the address, without repeating a secret in it; None if nothing is."""
    found = address(base_url)
    named = "is" if found.origin == "base_url" else f"is not set, and {VARIABLE} is"
    if found.origin and not re.match(r"https?://[^/\s]+", found.url):
        return f"{named} no address of a server; write it like http://localhost:8000/v1"
    try:
        urlsplit(found.url).port  # noqa: B018
    except ValueError:
        return f"{named} an address whose port is no number up to 65535; write it like http://localhost:8000/v1"
    if "@" in urlsplit(found.url).netloc:
        what = "an address with a user or a password, which would replace the key"
        return f"{named} {what}; write {without_secrets(found.url)}, and put the key into the variable of api_key_env"
    return None
