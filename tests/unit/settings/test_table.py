"""The table keeps its promises: every row is complete, its default is valid and written as it would be written back."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from flask_prodserve.settings import TABLE, Setting, Settings
from flask_prodserve.settings.declaration import PREFIX
from flask_prodserve.settings.table import GROUP_TITLES

ROWS = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
GROUPS = pytest.mark.parametrize("group", [member.name for member in dataclasses.fields(Settings)])


@ROWS
def test_default_is_written_as_people_write_it(row: Setting) -> None:
    """A default goes through the parser of its own kind and comes back as the text that stands in the table."""
    told = row.declaration
    value = Settings().value(row)
    if told.default is None:
        assert value is None
        assert told.unset
        assert row.write(None) == told.unset
    else:
        assert value == told.kind.parse(told.default)
        assert row.write(value) == told.default


@ROWS
def test_says_what_and_why(row: Setting) -> None:
    """A setting has a summary and a reason for its default: whole sentences, each on one line, and not the same."""
    told = row.declaration
    for text in (told.summary, told.why):
        assert text.endswith(".")
        assert text == " ".join(text.split())
    assert told.summary != told.why


@ROWS
def test_one_name_everywhere(row: Setting) -> None:
    """The spellings of a name differ by prefix and case only; an option that one gives repeatedly may have the singular."""
    assert row.name == row.name.upper()
    assert row.key == "PRODSERVE_" + row.name
    assert row.argument == row.name.lower()
    assert row.option in ("--" + row.argument.replace("_", "-"), row.declaration.option)
    assert TABLE[row.name] is row


def test_options_are_unique() -> None:
    """No two settings share an option, nor a short one, nor a form that switches one off."""
    options = Counter[str]()
    for row in TABLE.values():
        options.update([row.option, *([row.declaration.short] if row.declaration.short else [])])
        if row.declaration.kind.flag:
            options.update([row.option.replace("--", "--no-", 1)])
    assert [option for option, count in options.items() if count > 1] == []
    assert not {"--help", "--app", "--debug", "--env-file", "-A", "-e"} & options.keys(), "these are Flask's"


def test_no_name_starts_with_the_prefix() -> None:
    """The prefix stands in front of a name once, so PRODSERVE_PRODSERVE_X is never right."""
    assert [name for name in TABLE if name.startswith(PREFIX)] == []


def test_names_are_unique_across_groups() -> None:
    """No group repeats another's setting: the table would hold only the last."""
    groups = [getattr(Settings(), group.name) for group in dataclasses.fields(Settings)]
    names = [member.name for group in groups for member in dataclasses.fields(group)]
    assert Counter(names).most_common(1)[0][1] == 1
    assert len(names) == len(TABLE)


@GROUPS
def test_groups_are_frozen(group: str) -> None:
    """Neither a group nor the settings can be changed once they are resolved."""
    settings = Settings()
    members = getattr(settings, group)
    member = dataclasses.fields(members)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(members, member, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, group, members)
    assert hash(members) is not None


@GROUPS
def test_groups_have_titles(group: str) -> None:
    """Each group has a title for the reference: its docstring without the full stop."""
    assert GROUP_TITLES[group]
    assert not GROUP_TITLES[group].endswith(".")


def test_settings_of_values() -> None:
    """Settings are made from values by name; what is missing has its default."""
    settings = Settings.of({"THREADS": 3, "PORT": 80})
    assert (settings.workers.threads, settings.bind.port) == (3, 80)
    assert settings.limits == Settings().limits
    assert settings.bind.host == Settings().bind.host
    assert Settings.of({}) == Settings()


def test_addresses() -> None:
    """The server listens on BIND, or else on HOST and PORT."""
    settings = Settings.of({"HOST": "::1", "PORT": 80})
    assert [(address.host, address.port) for address in settings.bind.addresses] == [("::1", 80)]  # type: ignore[union-attr]  # TCP
    bind = TABLE["BIND"].declaration.kind.parse("unix:/a,:80")
    assert Settings.of({"BIND": bind}).bind.addresses == bind
