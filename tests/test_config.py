"""The configuration: every mistake names the file, the key, what was given and what is allowed."""

import os
from pathlib import Path

import pytest

from klake.errors import BadRequest, ConfigError, CredentialsMissing
from klake.jobs.config import find, load, vendor_table
from klake.jobs.desk import open_desk
from klake.schemas.freq import Freq
from klake.schemas.quota import Quota
from klake.schemas.settings import VendorOptions

GOOD = """
[lake]
path = "lake"
[vendors.qos]
kind = "qos"
key = "env:QOS_TEST_KEY"
quota = [[10, "60s"], [60, 30]]
[universe.mine]
symbols = ["600519.SH"]
[jobs.daily]
vendor = "qos"
universe = "mine"
freq = ["1d", "60min"]
start = "2020-01-01"
"""


def config(folder: Path, text: str) -> Path:
    file = folder / "klake.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_good_file_is_read(tmp_path: Path) -> None:
    settings = load(config(tmp_path, GOOD))

    assert settings.jobs["daily"].freq == (Freq.D1, Freq.H1)
    assert settings.lake_path == str(tmp_path / "lake")


def test_the_nearest_file_upwards_is_found(tmp_path: Path) -> None:
    file = config(tmp_path, GOOD)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)

    assert find(below) == file


def test_the_environment_lies_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAKE_LAKE__PATH", "elsewhere")

    assert load(config(tmp_path, GOOD)).lake_path == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "old, new, key, says",
    [
        ('path = "lake"', 'pth = "lake"', "lake.pth", "path"),
        ("[universe.mine]", "[univers.mine]", "univers", "universe"),
        ('start = "2020-01-01"', 'start = "soon"', "jobs.daily.start", "date"),
        ('freq = ["1d", "60min"]', 'freq = ["1M"]', "freq", "1mo"),
        ('universe = "mine"', 'universe = "yours"', "jobs.daily.universe", "mine"),
        ('vendor = "qos"', 'vendor = "quos"', "jobs.daily.vendor", "qos"),
        ("[vendors.qos]", "[vendors.Qos]", "vendors.Qos", "a-z"),
        ('start = "2020-01-01"', 'start = "2020-01-01"\nend = "2019-01-01"', "jobs.daily.end", "before"),
        ('kind = "qos"', "", "vendors.qos.kind", "kind"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, old: str, new: str, key: str, says: str) -> None:
    file = config(tmp_path, GOOD.replace(old, new, 1))

    with pytest.raises(ConfigError) as caught:
        load(file)

    assert str(file) in str(caught.value)
    assert key in str(caught.value)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["[lake\n", "a = = 2", "\x00"])
def test_a_file_that_is_not_toml_is_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="TOML"):
        load(config(tmp_path, text))


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.toml")


def test_a_key_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QOS_TEST_KEY", "secret-value")

    assert vendor_table(load(config(tmp_path, GOOD)), "qos")["key"] == "secret-value"


def test_a_key_that_is_not_set_says_which_line_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QOS_TEST_KEY", raising=False)

    with pytest.raises(CredentialsMissing, match="export QOS_TEST_KEY="):
        vendor_table(load(config(tmp_path, GOOD)), "qos")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("secret-value\n")
    settings = load(config(tmp_path, GOOD.replace("env:QOS_TEST_KEY", "file:key")))

    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        vendor_table(settings, "qos")
    secret.chmod(0o600)

    assert vendor_table(settings, "qos")["key"] == "secret-value"


def test_an_unknown_vendor_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="qos"):
        vendor_table(load(config(tmp_path, GOOD)), "mm")


def test_a_quota_is_read_with_its_unit() -> None:
    options = VendorOptions.model_validate({"kind": "qos", "quota": [[10, "60s"], [60, 30], [5, "1m"]]})

    assert options.quota == (Quota(10, 60.0), Quota(60, 30.0), Quota(5, 60.0))


@pytest.mark.parametrize(
    "old, new",
    [
        ('key = "env:QOS_TEST_KEY"', 'api_key = "realsecret-9876"'),
        ('start = "2020-01-01"', 'start = "2020-01-01"\nkey = "realsecret-9876"'),
        ("[vendors.qos]", '[vendors]\nqos = "realsecret-9876"\n[other]'),
        ("quota = [[10", 'capability = { app_key = "realsecret-9876" }\nquota = [[10'),
        ("quota = [[10", 'url = ["realsecret-9876"]\nquota = [[10'),
        ('key = "env:QOS_TEST_KEY"', 'key = "realsecret-9876 密"'),
    ],
)
def test_a_misplaced_secret_is_never_repeated(
    tmp_path: Path, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QOS_TEST_KEY", "realsecret-9876")
    file = config(tmp_path, GOOD.replace(old, new, 1))

    with pytest.raises(ConfigError) as caught:
        desk = open_desk(file)
        desk.vendor("qos")

    assert "9876" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("quota", ['[10, "60s"]', '[[0, "60s"]]', '[[10, "soon"]]', "10", "[[10]]"])
def test_a_quota_of_another_form_says_which_is_right(
    tmp_path: Path, quota: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QOS_TEST_KEY", "a-key")
    file = config(tmp_path, GOOD.replace('quota = [[10, "60s"], [60, 30]]', f"quota = {quota}"))

    with pytest.raises(ConfigError) as caught:
        open_desk(file).vendor("qos")

    assert "vendors.qos.quota" in str(caught.value)


def test_a_list_of_symbols_may_come_from_a_chinese_spreadsheet(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes("名称,symbol\n贵州茅台,600519.SH\n腾讯,700.HK\n".encode("gb18030"))
    file = config(tmp_path, GOOD.replace('symbols = ["600519.SH"]', 'file = "mine.csv"'))
    desk = open_desk(file)

    assert [str(s) for s in desk.symbols(desk.job("daily"))] == ["00700.HK", "600519.SH"]


def test_a_row_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("name,symbol\nMoutai\n")
    desk = open_desk(config(tmp_path, GOOD.replace('symbols = ["600519.SH"]', 'file = "mine.csv"')))

    with pytest.raises(ConfigError, match="Moutai"):
        desk.symbols(desk.job("daily"))
