"""EIP-4361 messages: what the grammar gives is read and written back, everything else is refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.plugins.auth.siwe import Malformed, SignInMessage, parse

WETH = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
BASE = SignInMessage(
    domain="service.org",
    address=WETH,
    statement="I accept the ServiceOrg Terms of Service: https://service.org/tos",
    uri="https://service.org/login",
    chain_id=1,
    nonce="32891757",
    issued_at="2021-09-30T16:25:24.000Z",
)
FULL = """service.org wants you to sign in with your Ethereum account:
0xe5A12547fe4E872D192E3eCecb76F2Ce1aeA4946

I accept the ServiceOrg Terms of Service: https://service.org/tos

URI: https://service.org/login
Version: 1
Chain ID: 1
Nonce: 12341234
Issued At: 2022-03-17T12:45:13.610Z
Expiration Time: 2023-03-17T12:45:13.610Z
Not Before: 2022-03-17T12:45:13.610Z
Request ID: some_id
Resources:
- https://service.org/login"""


def changed(**fields: object) -> SignInMessage:
    values = {name: getattr(BASE, name) for name in SignInMessage.__dataclass_fields__}
    return SignInMessage(**{**values, **fields})  # type: ignore[arg-type]


RESOURCES = ("ipfs://Qme7ss3ARVgxv6rXqVPiikMJ8u2NLgmgszg13pYrDKEoiu", "https://example.com/my-web2-claim.json")

GOOD = {
    "as simple as it gets": BASE,
    "resources": changed(resources=RESOURCES),
    "no fraction of a second": changed(issued_at="2021-09-30T16:25:24Z"),
    "a time zone": changed(issued_at="2021-09-30T16:25:24-02:00"),
    "an address for a domain": changed(domain="127.0.0.1"),
    "somebody at a domain": changed(domain="test@127.0.0.1"),
    "a port": changed(domain="127.0.0.1:8080"),
    "localhost and a port": changed(domain="localhost:8080"),
    "somebody, a domain and a port": changed(domain="test@127.0.0.1:8080"),
    "no statement": changed(statement=None),
    "an empty statement": changed(statement=""),
    "an IPv6 domain": changed(domain="[::cafe]", statement=None),
    "an IPv6 URI": changed(uri="https://[::cafe]", statement=None),
    "an IPv4 URI": changed(uri="https://127.0.0.1", statement=None),
    "a URI with a port": changed(uri="https://127.0.0.1:4361", statement=None),
    "a URI with query and fragment": changed(uri="https://127.0.0.1/?query=one#begin", statement=None),
    "another chain": changed(chain_id=4, statement=None),
    "another site": changed(
        domain="www.tally.xyz",
        address="0xc95EB884FE852e241D409234bfC7045CB9E31BD7",
        statement="Sign in with Ethereum to Tally",
        uri="https://tally.xyz",
        nonce="15050747",
        issued_at="2022-06-30T14:08:51.382Z",
    ),
    "a scheme": changed(scheme="https", domain="example.com", uri="https://example.com/login"),
    "a scheme in the statement only": changed(domain="localhost:3030", statement="See http://localhost:3030/tos"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_message_is_read_as_it_was_written(name: str) -> None:
    message = GOOD[name]
    assert parse(message.text()) == message


def test_every_optional_field_is_read() -> None:
    message = parse(FULL)
    assert message.text() == FULL
    assert (message.expiration_time, message.not_before) == ("2023-03-17T12:45:13.610Z", "2022-03-17T12:45:13.610Z")
    assert (message.request_id, message.resources) == ("some_id", ("https://service.org/login",))


LINES = FULL.split("\n")


def without(index: int) -> str:
    return "\n".join("" if i == index else line for i, line in enumerate(LINES))


def swapped(a: int, b: int) -> str:
    lines = list(LINES)
    lines[a], lines[b] = lines[b], lines[a]
    return "\n".join(lines)


BAD = {
    "no domain": FULL.replace("service.org wants", " wants", 1),
    "no address": without(1),
    "no URI": without(5),
    "no version": without(6),
    "no chain id": without(7),
    "no nonce": without(8),
    "no time of issue": without(9),
    "URI after version": swapped(5, 6),
    "version after chain id": swapped(6, 7),
    "nonce before chain id": FULL.replace("Chain ID: 1\nNonce: 12341234", "Nonce: 12341234Chain ID: 1\n"),
    "nonce after time of issue": swapped(8, 9),
    "time of issue after expiry": swapped(9, 10),
    "expiry after not before": swapped(10, 11),
    "not before after request id": swapped(11, 12),
    "resources before request id": "\n".join([*LINES[:12], *LINES[13:], LINES[12]]),
    "a domain that is no authority": FULL.replace("service.org wants", "#notrfc4501 wants", 1),
    "an address without its checksum": FULL.replace("0xe5A12547fe4E872D192E3eCecb76F2Ce1aeA4946", LINES[1].lower()),
    "an address with a wrong checksum": FULL.replace("0xe5A1", "0xE5A1"),
    "a short address": FULL.replace("A4946\n", "A494\n"),
    "a line break in the statement": FULL.replace("Service: https", "Service: \nhttps"),
    "something that is no URI": FULL.replace("URI: https://service.org/login", "URI: :not_a_rfc3986_valid_uri_"),
    "another version": FULL.replace("Version: 1", "Version: 3"),
    "a chain id that is no number": FULL.replace("Chain ID: 1", "Chain ID: ?"),
    "a chain id with a leading zero": FULL.replace("Chain ID: 1", "Chain ID: 01"),
    "a chain id in another notation": FULL.replace("Chain ID: 1", "Chain ID: 1e4"),
    "a hexadecimal chain id": FULL.replace("Chain ID: 1", "Chain ID: 0x10"),
    "a chain id with a tail": FULL.replace("Chain ID: 1", "Chain ID: 137abc"),
    "a short nonce": FULL.replace("12341234", "1234567"),
    "a nonce with dashes": FULL.replace("12341234", "1234-1234"),
    "a time of issue in words": FULL.replace(
        "Issued At: 2022-03-17T12:45:13.610Z", "Issued At: Wed Oct 05 2011 16:48:00 GMT+0200 (CEST)"
    ),
    "an expiry in words": FULL.replace("2023-03-17T12:45:13.610Z", "Wed Oct 05 2011 16:48:00 GMT+0200 (CEST)"),
    "a not before in words": FULL.replace("Not Before: 2022-03-17T12:45:13.610Z", "Not Before: Wed Oct 05 2011"),
    "a day that there is not": FULL.replace("2023-03-17", "2023-02-31"),
    "a leap second": FULL.replace("12:45:13", "12:45:60"),
    "resources on one line": FULL.replace("Resources:\n- ", "Resources: - "),
    "a first resource that is no URI": FULL.replace("- https://service.org/login", "- :not_a_valid_uri"),
    "a second resource that is no URI": FULL + "\n- :not_a_valid_uri",
    "a line feed at the end": FULL + "\n",
    "carriage returns": FULL.replace("\n", "\r\n"),
    "something after the end": FULL + "\nand more",
    "labels in lower case": FULL.replace("Nonce:", "nonce:"),
    "letters that are not ASCII": FULL.replace("service.org", "sérvice.org"),
    "nothing": "",
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(Malformed):
        parse(BAD[name])


def test_a_long_message_is_refused_at_once() -> None:
    began = time.perf_counter()
    for filler in ("a" * 20_000, "\n" * 20_000, "- x:" * 5_000, "%" * 20_000):
        with pytest.raises(Malformed):
            parse(FULL + filler)
    assert time.perf_counter() - began < 0.05


def test_reading_is_linear() -> None:
    hostile = FULL.replace("https://service.org/login", "a:" + "%41" * 1000, 1)
    began = time.perf_counter()
    parse(hostile)
    with pytest.raises(Malformed):
        parse(hostile.replace("%41\n", "%4\n", 1))
    assert time.perf_counter() - began < 0.05


@given(st.integers(0, len(FULL) - 1), st.characters(max_codepoint=127))
def test_whatever_is_read_is_exactly_what_was_written(at: int, character: str) -> None:
    mutated = FULL[:at] + character + FULL[at + 1 :]
    try:
        message = parse(mutated)
    except Malformed:
        return
    assert message.text() == mutated
