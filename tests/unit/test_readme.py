"""The README's tables, names and links against the code, so that they can't go stale."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from consumer.cli.main import COMMANDS
from consumer.delivery.names import Topics
from consumer.kafka.topics import planned_specs
from consumer.settings import FeedSettings, KafkaSettings, PubSubSettings, SharingSettings
from tests.readme_tables import README, tables, with_tables

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_code() -> None:
    """``python -m tests.readme_tables`` mends it."""
    assert with_tables(TEXT) == TEXT


def test_every_setting_has_a_meaning_of_its_own() -> None:
    rows = [line.split(" | ") for line in tables()["configuration"].splitlines()[2:]]
    meanings = [row[2] for row in rows if not row[0].startswith("| `kafka.retention.")]
    assert len(set(meanings)) == len(meanings)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^a-z0-9-]", each)[0] for each in [*project["dependencies"], *_extras(project)]}
    section = TEXT.partition("## Dependencies")[2].partition("\n## ")[0]
    told = {
        name for line in section.splitlines() if line.startswith("| `") for name in re.findall(r"`([a-z-]+)`", line)
    }
    # avro is named twice, in a reason too; what counts is that no name is missing and none is foreign
    assert declared == told & declared
    assert told - declared <= {"verify", "demo"}


def _extras(project: dict[str, dict[str, list[str]]]) -> list[str]:
    return [each for extra in project["optional-dependencies"].values() for each in extra]


def test_the_topics_are_those_the_service_makes() -> None:
    topics = Topics("salesforce.", PubSubSettings().topics)
    section = TEXT.partition("| topic (`salesforce.messaging-session.…`)")[2].partition("\n\n")[0]
    told = re.findall(r"^\| `([a-z-]+)` \| (delete|compact)(?:, (\d+) d)?", section, re.MULTILINE)
    made = [
        (spec.name.rpartition(".")[2], spec.cleanup, str(spec.retention_ms // 86_400_000) if spec.retention_ms else "")
        for spec in planned_specs(
            topics,
            KafkaSettings(bootstrap_servers="localhost:9092"),
            shared=SharingSettings().wanted,
            fed=FeedSettings().wanted,
        )
    ]
    assert sorted(told) == sorted(made)


def test_every_command_and_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    code = re.findall(r"`([^`\n]+)`", TEXT) + re.findall(r"^(?!#)(.+)$", "\n".join(_blocks("sh")), re.MULTILINE)
    for line in code:
        for command in re.findall(r"\bsession-consumer ([a-z]+)", line):
            assert command in COMMANDS, line
        for target in re.findall(r"(?:^|\s)make (?:-s )?([a-z]+)", line.partition("#")[0]):
            assert target in targets, line


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:deploy|tests|consumer|schemas|proto|\.ci)/[\w./-]+)`", TEXT)))
)
def test_every_path_it_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_link_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-")
        for line in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert link.removeprefix("#") in headings or Path(ROOT / link).exists()
