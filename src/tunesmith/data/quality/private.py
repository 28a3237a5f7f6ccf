"""Personal data and secrets inside texts. What is found is never given whole."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

from .patterns import patterns

_EMAIL = re.compile(r"\b[A-Za-z0-9][\w.+-]{0,63}@((?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24})\b")
_NOBODY = re.compile(
    r"(?:^|\.)(?:example(?:\.\w+)?|test|invalid|localhost)$|^(?:e?mail|(?:your|my)?(?:domain|company|website))\.com$",
    re.IGNORECASE,
)
"""Domains that examples are written with: those of RFC 2606, and what people make up."""
_NUMBER = re.compile(r"(?<![\w.,/=-])\+?\(?\d[\d ().-]{5,22}\d(?![\w/%]|[.,-]\d)")
_ADDRESS = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}")
_PHONE = re.compile(
    r"\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}|(?:1[ .-])?\(\d{3}\) ?\d{3}[ .-]\d{4}|"
    r"(?:1-)?\d{3}-\d{3}-\d{4}|\d{3}\.\d{3}\.\d{4}"
)
_FICTION = re.compile(r"555\D?01\d\d$|555\D?5555$|123\D?456\D?7890?|123\D?4567$|(\d)\1{5}")
"""Numbers kept for fiction, and those that people write when they mean none."""
_CARD = re.compile(r"\d{4}([ -])(?:\d{4}\1){2}\d{4}|3[47]\d{2}([ -])\d{6}\2\d{5}")
_CARD_WORDS = re.compile(r"card|visa|amex|credit|debit|cvv|expir", re.IGNORECASE)
_BEFORE = 60
_CARD_STARTS = re.compile(r"4|5[1-5]|2[2-7]|3[47]|6(?:011|4[4-9]|5)|35|3[0689]")
_TEST_CARDS = frozenset({"4111111111111111", "4242424242424242", "4012888888881881", "5555555555554444"})
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


class Private(NamedTuple):
    """Something that shouldn't be in training data: what kind it is, where it stands, and its first characters."""

    kind: str
    start: int
    end: int
    shown: str


def personal(text: str) -> Iterator[Private]:
    """E-mail addresses, phone numbers, payment cards, IBANs and public IP addresses in a text.

    Cards must pass Luhn's check and IBANs that of ISO 7064; addresses and numbers kept for examples don't count.
    """
    if "@" in text:
        for match in _EMAIL.finditer(text):
            if not _NOBODY.search(match[1]):
                yield masked("e-mail address", match[0], match.start())
    for match in _NUMBER.finditer(text):
        # A bracket that isn't closed within the number isn't a part of it.
        number = match[0] if ")" in match[0] else match[0].lstrip("(")
        kind = _number_kind(number, text[max(0, match.start() - _BEFORE) : match.start()])
        if kind:
            yield masked(kind, number, match.end() - len(number))
    for match in _IBAN.finditer(text):
        if is_iban(match[0]):
            yield masked("IBAN", match[0], match.start())


def secrets(text: str) -> Iterator[Private]:
    """Keys and tokens of known vendors in a text."""
    for kind, pattern in patterns().secrets:
        for match in pattern.finditer(text):
            yield masked(kind, match[0], match.start())


def masked(kind: str, value: str, start: int) -> Private:
    """What may be shown of a value: its first two characters."""
    return Private(kind, start, start + len(value), f"{value[:2]}…")


def hidden(text: str) -> str:
    """A text with all personal data and secrets masked."""
    return _without(text, [*personal(text), *secrets(text)])


def without_secrets(text: str) -> str:
    """A text with all secrets masked."""
    return _without(text, list(secrets(text)))


def _without(text: str, private: list[Private]) -> str:
    for found in sorted(private, key=lambda found: found.start, reverse=True):
        text = text[: found.start] + found.shown + text[found.end :]
    return text


def _number_kind(number: str, before: str) -> str | None:
    """What a number is, by its form, its digits and the text before it."""
    digits = re.sub(r"\D", "", number)
    if _ADDRESS.fullmatch(number):
        return "IP address" if _is_public(number) else None
    # One long number in ten passes Luhn's check, so digits alone aren't enough.
    grouped = _CARD.fullmatch(number) or (number.isdigit() and _CARD_WORDS.search(before))
    if grouped and is_card(digits):
        return "payment card"
    if _PHONE.fullmatch(number) and not _FICTION.search(number) and 8 <= len(digits) <= 13:
        return "phone number"
    return None


def is_card(digits: str) -> bool:
    """Whether digits are a payment card's number: 15 or 16 of a known issuer, Luhn's check, and no test number."""
    if len(digits) not in (15, 16) or not _CARD_STARTS.match(digits) or digits in _TEST_CARDS:
        return False
    doubled = [int(digit) * (2 if at % 2 else 1) for at, digit in enumerate(reversed(digits))]
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN, by its check digits (ISO 13616: 97 divides it, the letters written as numbers)."""
    code = text.replace(" ", "")
    return 15 <= len(code) <= 34 and int("".join(str(int(sign, 36)) for sign in code[4:] + code[:4])) % 97 == 1


def _is_public(address: str) -> bool:
    try:
        # Names of versions look like addresses with small numbers; those of hosts rarely are all below ten.
        return ipaddress.ip_address(address).is_global and max(map(int, address.split("."))) > 31
    except ValueError:
        return False
