"""Personal data and secrets: found, not mistaken, never shown."""

import random
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.planted_quality import answer, asked
from tunesmith.data.quality import examine
from tunesmith.data.quality.private import hidden, is_card, is_iban, masked, personal, secrets

PERSONAL = {
    "jane.roe@corp-mail.org": "e-mail address",
    "j+news@mail.uni-jena.de": "e-mail address",
    "+49 30 901820": "phone number",
    "+1 212-736-5000": "phone number",
    "(212) 736-5000": "phone number",
    "212-736-5000": "phone number",
    "212.736.5000": "phone number",
    "4539 1488 0343 6467": "payment card",
    "4539-1488-0343-6467": "payment card",
    "3714 496353 98431": "payment card",
    "DE89 3704 0044 0532 0130 00": "IBAN",
    "GB82WEST12345698765432": "IBAN",
    "MT84MALT011000012345MTLCAST001S": "IBAN",
    "84.201.33.7": "IP address",
}
HARMLESS = [
    "jane@example.com",
    "jane@mail.example.org",
    "me@email.com",
    "a @ b.com",
    "(555) 123-4567",
    "212-555-0143",
    "123-456-7890",
    "4539 1488 0343 6468",
    "4111 1111 1111 1111",
    "355909190063746",
    "4539148803436467",
    "DE89 3704 0044 0532 0130 01",
    "127.0.0.1",
    "192.168.0.17",
    "1.2.3.4",
    "300.1.2.3",
    "3.14159265358979",
    "2026-11-20 15:00",
    "1939-1945, 1,000,000",
    "12345678 + 87654321",
    "10 000 000 000",
]
NAMES = string.ascii_letters + string.digits


def token(length: int, letters: str = NAMES) -> str:
    return "".join(random.Random(length).choices(letters, k=length))


SECRETS = {
    "AKIA" + token(16, "ABCDEFG234567"): "AWS access key",
    "-----BEGIN RSA PRIVATE KEY-----": "private key",
    "-----BEGIN PRIVATE KEY-----": "private key",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----": "private key",
    "ghp_" + token(36): "GitHub token",
    "github_pat_" + token(82): "GitHub token",
    "glpat-" + token(20): "GitLab token",
    "hf_" + token(34, string.ascii_letters): "Hugging Face token",
    "sk-proj-" + token(40) + "T3BlbkFJ" + token(40): "OpenAI key",
    "sk-ant-api03-" + token(95): "Anthropic key",
    "AIza" + token(35): "Google API key",
    "xoxb-123456789012-" + token(24): "Slack token",
    "https://hooks.slack.com/services/T" + token(9) + "/B" + token(9) + "/" + token(24): "Slack webhook",
    "sk_live_" + token(24): "Stripe key",
    "SG." + token(22) + "." + token(43): "SendGrid key",
    "npm_" + token(36): "npm token",
    "pypi-AgEIcHlwaS5vcmc" + token(60): "PyPI token",
    "https://discord.com/api/webhooks/123456789012345678/" + token(68): "Discord webhook",
    "123456789:AA" + token(33): "Telegram token",
    "eyJ" + token(30) + ".eyJ" + token(60) + "." + token(43): "JSON web token",
}


@pytest.mark.parametrize(("value", "kind"), PERSONAL.items())
@pytest.mark.parametrize("text", ["{}", "Call or write: {}.", "({}), he said", "a\n{}\nb"])
def test_personal_data_is_found(value: str, kind: str, text: str) -> None:
    assert [found.kind for found in personal(text.format(value))] == [kind]


@pytest.mark.parametrize("value", HARMLESS)
def test_what_is_harmless_isnt_mistaken(value: str) -> None:
    assert list(personal(f"See {value} there")) == []


def test_a_long_number_is_a_card_where_the_text_says_so() -> None:
    assert [found.kind for found in personal("credit card: 4539148803436467")] == ["payment card"]


@pytest.mark.parametrize(("value", "kind"), SECRETS.items())
def test_secrets_are_found_in_rows_and_never_shown(value: str, kind: str) -> None:
    assert [found.kind for found in secrets(f"use {value} here")] == [kind]
    rows = asked(20)
    rows[6] = rows[6] | {"completion": f"{rows[6]['completion']} Use {value} here."}
    quality, findings = examine(rows, range(1, 21), "rows.jsonl")
    assert quality.secrets == {kind: 1}
    (finding,) = findings
    assert finding.code == "D040"
    assert "row 7" in finding.what
    assert value[:4] not in finding.model_dump_json() + quality.model_dump_json()


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn and a task-force",
        "AKIA",
        "ghp_short",
        "hf_hub_download(repo_id)",
        "eyJhbGci",
        "npm_config_cache",
        "SG.1",
    ],
)
def test_what_only_begins_like_a_secret_is_none(text: str) -> None:
    assert list(secrets(text)) == []


def test_personal_data_is_counted_by_rows_and_shown_masked() -> None:
    rows = asked(20)
    for at in (1, 4):
        rows[at] = rows[at] | {"completion": f"{rows[at]['completion']} jane.roe@corp-mail.org or +49 30 901820"}
    rows[9] = rows[9] | {
        "prompt": [{"role": "system", "content": "84.201.33.7"}, {"role": "user", "content": "Hm? 84.201.33.9"}]
    }
    quality, findings = examine(rows, [f"a.jsonl:{number}" for number in range(1, 21)], "2 files")
    assert quality.personal_data == {"e-mail address": 2, "phone number": 2, "IP address": 1}
    (finding,) = [found for found in findings if found.code == "D039"]
    assert "3 of 20 rows" in finding.what
    assert "rows a.jsonl:2, a.jsonl:5, a.jsonl:10" in finding.what
    assert "as ja…" in finding.what
    assert "jane" not in finding.model_dump_json() + quality.model_dump_json()


@given(st.text(min_size=3))
def test_a_mask_shows_two_characters(value: str) -> None:
    assert masked("kind", value, 7) == ("kind", 7, 7 + len(value), value[:2] + "…")


@pytest.mark.parametrize("value", [*PERSONAL, *SECRETS])
def test_examples_in_findings_show_nothing_private(value: str) -> None:
    refusal = f"I'm sorry, but I can't provide {value}"
    shown = [
        refusal,
        f"Caf\ufffd {value}",
        answer(1) + f" and {value}" * 60,
    ]
    assert hidden(f"({value}) or {value}") == f"({value[:2]}…) or {value[:2]}…" or "/" in value
    for text in shown:
        rows = [*asked(20), {"prompt": "Why not?", "completion": text}]
        findings = examine(rows, range(1, 22), "rows.jsonl")[1]
        assert {"D029", "D030", "D031"} & {found.code for found in findings}
        assert all(value[3:12] not in found.model_dump_json() for found in findings), [found.what for found in findings]


@given(st.from_regex(r"4\d{14}", fullmatch=True))
def test_one_check_digit_in_ten_makes_a_card(digits: str) -> None:
    assert sum(is_card(digits + str(last)) for last in range(10)) <= 1
    assert sum(is_card(digits + str(last)) for last in range(10)) == 1 or digits + "1" == "411111111111111" + "1"


@given(st.integers(2, 98), st.from_regex(r"[0-9]{18}", fullmatch=True))
def test_an_iban_has_its_check_digits(check: int, account: str) -> None:
    right = 98 - int(f"{account}131400") % 97
    assert is_iban(f"DE{check:02}{account}") == (check == right)


@pytest.mark.parametrize(
    "piece",
    [
        "sk-",
        "eyJ-",
        "eyJaaaaaaaaaaa.",
        "1",
        "1 ",
        "1.",
        "(",
        "a@",
        "a.",
        "DE89 ",
        "ghp_",
        "[Your ",
        "<your ",
        "{{ a",
        "xoxb-1-",
        "```",
        "SG.",
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    row = {"prompt": "Why?", "completion": piece * (300_000 // len(piece))}
    began = time.process_time()
    examine([row], [1], "rows")
    assert time.process_time() - began < 3
