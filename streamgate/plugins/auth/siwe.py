"""Sign-in messages: EIP-4361, written and read strictly.

The grammar is the one of the EIP: fixed order, line feeds only, no trailing one. `parse` is linear in the length of its
input. It says what a message says; whether the message is to be believed is another question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from eth_utils import is_checksum_address

MAX_BYTES = 4096
MAX_RESOURCES = 32
LARGEST_CHAIN_ID = 2**53 - 1

_FIRST = " wants you to sign in with your Ethereum account:"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}\Z")
_USERINFO = r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*"
_HOST = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)"
_AUTHORITY = re.compile(rf"(?:{_USERINFO}@)?{_HOST}(?::[0-9]{{0,5}})?\Z")
_URI = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.-]*:(?://(?:{_USERINFO}@)?(?:{_HOST})?(?::[0-9]{{0,5}})?(?=[/?#]|\Z))?"
    r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
    r"(?:#(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?\Z"
)
_STATEMENT = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;= -]*\Z")
_NUMBER = re.compile(r"[1-9][0-9]{0,15}\Z")
_NONCE = re.compile(r"[A-Za-z0-9]{8,128}\Z")
_REQUEST_ID = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*\Z")
_MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)


class Malformed(ValueError):
    """The text is no EIP-4361 message; the message says which part is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInMessage:
    """The fields of a message, as they stand in it. Times are RFC 3339 text; ``address`` is in EIP-55 form."""

    domain: str
    address: str
    uri: str
    chain_id: int
    nonce: str
    issued_at: str
    scheme: str | None = None
    statement: str | None = None
    expiration_time: str | None = None
    not_before: str | None = None
    request_id: str | None = None
    resources: tuple[str, ...] = ()

    def text(self) -> str:
        """The message to sign."""
        lines = [
            f"{self.scheme}://{self.domain}{_FIRST}" if self.scheme else f"{self.domain}{_FIRST}",
            self.address,
            "",
            *([] if self.statement is None else [self.statement]),
            "",
            f"URI: {self.uri}",
            "Version: 1",
            f"Chain ID: {self.chain_id}",
            f"Nonce: {self.nonce}",
            f"Issued At: {self.issued_at}",
        ]
        optional = (
            ("Expiration Time", self.expiration_time),
            ("Not Before", self.not_before),
            ("Request ID", self.request_id),
        )
        lines += [f"{label}: {value}" for label, value in optional if value is not None]
        if self.resources:
            lines += ["Resources:", *(f"- {resource}" for resource in self.resources)]
        return "\n".join(lines)


def parse(message: str) -> SignInMessage:
    """Read a message. Raises `Malformed` for anything that the grammar of EIP-4361 does not give."""
    if len(message) > MAX_BYTES or not message.isascii():
        raise Malformed("a message has at most 4096 characters, all of them ASCII")
    lines = _Lines(message.split("\n"))
    scheme, domain = _domain(lines.next("the first line"))
    address = lines.next("the address")
    if not re.match(r"0x[0-9a-fA-F]{40}\Z", address) or not is_checksum_address(address):
        raise Malformed("the address is not in EIP-55 form")
    lines.blank()
    statement = _statement(lines)
    uri = _uri(lines.field("URI"), "URI")
    if lines.field("Version") != "1":
        raise Malformed("the version is not 1")
    chain_id = lines.field("Chain ID")
    if not _NUMBER.match(chain_id) or int(chain_id) > LARGEST_CHAIN_ID:
        raise Malformed("the chain id is no positive decimal number")
    nonce = lines.field("Nonce")
    if not _NONCE.match(nonce):
        raise Malformed("the nonce has not at least 8 letters or digits")
    issued_at = _moment(lines.field("Issued At"), "Issued At")
    expiration_time = lines.optional("Expiration Time")
    not_before = lines.optional("Not Before")
    request_id = lines.optional("Request ID")
    if request_id is not None and not _REQUEST_ID.match(request_id):
        raise Malformed("the request id has characters that it must not")
    resources = _resources(lines)
    lines.end()
    return SignInMessage(
        scheme=scheme,
        domain=domain,
        address=address,
        statement=statement,
        uri=uri,
        chain_id=int(chain_id),
        nonce=nonce,
        issued_at=issued_at,
        expiration_time=None if expiration_time is None else _moment(expiration_time, "Expiration Time"),
        not_before=None if not_before is None else _moment(not_before, "Not Before"),
        request_id=request_id,
        resources=resources,
    )


class _Lines:
    """The lines of a message, read once from first to last."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0

    def next(self, what: str) -> str:
        if self._at >= len(self._lines):
            raise Malformed(f"{what} is missing")
        self._at += 1
        return self._lines[self._at - 1]

    def peek(self) -> str | None:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def blank(self) -> None:
        if self.next("a blank line") != "":
            raise Malformed("a blank line is missing")

    def field(self, label: str) -> str:
        line = self.next(label)
        if not line.startswith(f"{label}: "):
            raise Malformed(f"{label} is not where it must be")
        return line[len(label) + 2 :]

    def optional(self, label: str) -> str | None:
        line = self.peek()
        return self.field(label) if line is not None and line.startswith(f"{label}: ") else None

    def end(self) -> None:
        if self.peek() is not None:
            raise Malformed("something stands after the end")


def _domain(line: str) -> tuple[str | None, str]:
    if not line.endswith(_FIRST):
        raise Malformed("the first line is not that of a sign-in message")
    before = line[: -len(_FIRST)]
    scheme, found, domain = before.partition("://")
    if not found:
        scheme, domain = "", before
    if (found and not _SCHEME.match(scheme)) or not _AUTHORITY.match(domain):
        raise Malformed("the domain is no authority (RFC 3986)")
    return scheme or None, domain


def _statement(lines: _Lines) -> str | None:
    """The statement, which may be empty, and the blank line after it; or the one blank line where there is none."""
    first = lines.next("the statement")
    if first == "" and lines.peek() != "":
        return None
    if not _STATEMENT.match(first):
        raise Malformed("the statement has characters that it must not")
    lines.blank()
    return first


def _uri(text: str, what: str) -> str:
    if not _URI.match(text):
        raise Malformed(f"{what} is no URI (RFC 3986)")
    return text


def _moment(text: str, what: str) -> str:
    match = _MOMENT.match(text)
    try:
        if match is None:
            raise ValueError
        year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
        datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 (only whether there is such a moment)
    except ValueError:
        raise Malformed(f"{what} is no time (RFC 3339)") from None
    return text


def _resources(lines: _Lines) -> tuple[str, ...]:
    if lines.peek() != "Resources:":
        return ()
    lines.next("Resources")
    found: list[str] = []
    while (line := lines.peek()) is not None:
        if not line.startswith("- ") or len(found) >= MAX_RESOURCES:
            raise Malformed("a resource is not written as one")
        found.append(_uri(line[2:], "a resource"))
        lines.next("a resource")
    return tuple(found)
