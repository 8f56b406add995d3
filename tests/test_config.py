"""The configuration: every mistake names the file, the key, what was given and what is allowed."""

import os
from pathlib import Path

import pytest

from klake.errors import BadRequest, ConfigError, CredentialsMissing
from klake.jobs.config import find, load, vendor_table
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
