"""The fixed words of plan, sync, status and demo in the language that KLAKE_LANG asks for."""

from typing import Final

from .render import padded, tongue

__all__ = ["label", "reasons", "word", "words"]

_ZH: Final = {
    # heads of columns
    "vendor": "供应商", "freq": "周期", "symbols": "标的", "chains": "任务链", "bars": "K 线", "sessions": "交易日",
    "expected": "应有", "stored": "已存", "empty": "无数据", "missing": "缺少", "fresh": "新鲜度",
    # labels of lines
    "requests": "请求", "pages": "数据页", "quota": "配额", "finish": "完成", "usable": "可用", "unspelled": "无法表示", "run": "运行",
    "parked": "已搁置", "unverified": "未核实", "note": "说明",
    # how a lake stands
    "up to date": "最新", "not synced": "未同步", "sandbox lake": "沙盒数据湖", "lake": "数据湖",
    # clocks
    "sandbox": "沙盒", "machine": "本机", "last run (the sandbox does not answer)": "上次运行（沙盒没有应答）",
    # reasons of schemas.coverage
    "holiday": "休市", "halt": "停牌", "not yet listed": "尚未上市", "delisted": "已退市",
    "vendor says none": "供应商确认没有", "beyond the vendor's horizon": "早于供应商所能提供",
    # a run as it goes
    "fetching": "下载中", "reading": "读取中",
}  # fmt: skip


def word(en: str) -> str:
    """Return a fixed word as the reader wants it; one that is not known stays as it is."""
    return tongue(en, _ZH.get(en, en))


def words(*en: str) -> tuple[str, ...]:
    """Return several fixed words, in their order."""
    return tuple(word(one) for one in en)


def label(en: str, columns: int = 10) -> str:
    """Return a word that begins a line, with blanks up to `columns` columns of the terminal."""
    return padded(f"{word(en)} ", columns)


def reasons(counts: dict[str, int]) -> str:
    """Return why sessions are empty: `1,200 holiday, 3 halt`; nothing for none."""
    return tongue(", ", "，").join(f"{n:,} {word(reason)}" for reason, n in sorted(counts.items()))
