"""`atoken-bench audit paper`: it finds what is known to be wrong, by rules that find the same in changed tables."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from decimal import ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BenchError
from reports import paper, paper_audit_data
from reports.paper import Table
from reports.paper_audit import Outcome, PaperAudit, agree, audit, summary
from reports.paper_audit_data import read_data, read_marks


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return PaperAudit().run()


def changed(name: str, key: str, header: str, text: str) -> dict[str, Table]:
    """The paper's tables with one figure replaced (of the first row of that key)."""
    tables = {name: paper.load(name) for name in paper.names()}
    table = tables[name]
    column = [one.header for one in table.columns].index(header)
    rows = list(table.rows)
    index = next(i for i, row in enumerate(rows) if row.key == key)
    values = (*rows[index].values[:column], text, *rows[index].values[column + 1 :])
    rows[index] = replace(rows[index], values=values)
    return {**tables, name: replace(table, rows=tuple(rows))}


@pytest.mark.parametrize(
    ("rule", "parts"),
    [
        # The contradictions that are known of the paper and that its tables or figures in the text show.
        ("text", ("32.6% MSRVT", "40.2")),
        ("text", ("28.19 PSNR", "28.28")),
        ("same figure", ("table 3, AToken-So/D", "27.00", "27.14", "27.00 is table 4's COCO / PSNR↑")),
        ("same figure", ("table 3, Cosmos-0.1-DV8×8", "31.42", "table 6, Cosmos-0.1-DV4×8×8", "31.20")),
        ("same figure", ("table 3, PE core L", "50.3", "table 7, PE-Core-L14", "49.1")),
        ("text", ("rises from 32.51", "32.29")),
        ("total", ("table 13, Wan2.1", "78.60% printed", "78.594 from its parts")),
        ("factors", ("table 3, Cosmos-0.1-CV8×8", "(1, 8, 8)", "(4, 8, 8)")),
        ("factors", ("table 3, Cosmos-0.1-DV8×8", "(1, 8, 8)", "(4, 8, 8)")),
        ("total", ("table 2, Stage 2", "99.9 from its parts")),
        ("name", ("VA-VAE", "VAAE")),
        # Those that nobody had written down.
        ("bold", ("table 4, Hunyuan", "0.916 is bold", "FLUX.1 [dev]", "0.917 is better")),
        ("bold", ("table 4, FLUX.1", "32.73 is bold", "Hunyuan", "33.25 is better")),
        ("bold", ("table 5, SigLIP 2 [384]", "71.2 is bold", "71.3 is better")),
        ("bold", ("table 5, AToken-So/C / Stage 2 [512]", "71.3 is not bold")),
    ],
)
def test_finds_by_rule(outcome: Outcome, rule: str, parts: tuple[str, ...]) -> None:
    found = [finding for finding in outcome.findings if all(part in finding.text for part in parts)]
    assert [finding.rule for finding in found] == [rule]


def test_finds_no_more_than_there_is(outcome: Outcome) -> None:
    found = Counter(finding.rule for finding in outcome.findings)
    assert found.pop("read") == 17
    assert found == {"same figure": 3, "bold": 4, "total": 4, "name": 5, "factors": 2, "text": 3}
    assert outcome.checked["same figure"] > 50
    assert all("\n" not in finding.line for finding in outcome.findings)
    assert summary(outcome).startswith("Found 21 by rules and 17 by reading. ")


@pytest.mark.parametrize(
    ("rule", "change", "part"),
    [
        ("same figure", ("table08", "Trellis-SLAT", "PSNR↑", "26.98"), "26.98 (Toys4k PSNR)"),
        ("same figure", ("table04", "UniTok", "ImageNet / rFID↓", "0.366"), "0.366 (ImageNet reconstruction rFID)"),
        ("bold", ("table12", "TokenBridge", "gFID↓", "2.24"), "2.24 is bold"),
        ("total", ("table13", "Hunyuan", "T2V: VBench / Total", "78.12%"), "78.12% printed, 78.022"),
        ("recall", ("table07", "PE-Core-B16", "MSVD / Text → Video / R@5", "85.1"), "84.1: it falls"),
        ("factors", ("table04", "Cosmos-0.1-CI16×16", "Comp. Ratio", "(1, 8, 8)"), "Cosmos-0.1-CI16×16"),
        ("text", ("table11", "AToken-So/C / Stage 3", "gFID↓", "1.57"), "1.56 gFID"),
    ],
)
def test_each_rule_finds_a_changed_figure(
    outcome: Outcome, rule: str, change: tuple[str, str, str, str], part: str
) -> None:
    new = set(PaperAudit(changed(*change)).run().findings) - set(outcome.findings)
    assert any(finding.rule == rule and part in finding.text for finding in new)


def test_what_rounding_cannot_explain_is_not_excused() -> None:
    wrong = PaperAudit(changed("table13", "Hunyuan", "T2V: VBench / Total", "78.12%")).run().findings
    (said,) = (finding.text for finding in wrong if "Hunyuan, VBench" in finding.text)
    assert "rounding" not in said


@given(st.decimals(-1000, 1000, places=6), st.integers(0, 5), st.integers(0, 5))
def test_a_figure_agrees_with_its_own_rounding(number: Decimal, places: int, fewer: int) -> None:
    one = number.quantize(Decimal(1).scaleb(-places))
    for rounding in (ROUND_HALF_UP, ROUND_HALF_EVEN, ROUND_HALF_DOWN):
        other = one.quantize(Decimal(1).scaleb(-min(places, fewer)), rounding=rounding)
        unit = Decimal(1).scaleb(-min(places, fewer))
        assert agree(one, other)
        assert agree(other, one)
        assert not agree(one, other + unit) or abs(one - other) * 2 == unit
        assert not agree(one, other + 2 * unit)


def test_agreement_is_at_the_coarser_precision() -> None:
    assert agree(Decimal("0.945"), Decimal("0.94"))  # as table 3 has table 4's 0.945
    assert agree(Decimal("0.176"), Decimal("0.18"))
    assert not agree(Decimal("0.174"), Decimal("0.18"))
    assert not agree(Decimal("50.3"), Decimal("50.2"))


def test_every_entry_of_what_was_read_has_a_source() -> None:
    for entry in read_data().known:
        assert entry["source"]
        assert entry["basis"] in ("read", "remembered")


def test_the_same_system_has_one_list_of_names() -> None:
    for one, other in combinations(read_data().systems, 2):
        assert not set(one) & set(other)


def test_broken_data_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    header = "table,row,method,column,value\n"
    with pytest.raises(BenchError, match=r"bold\.csv, line 2: table08 has no such figure"):
        read_marks(f"{header}table08,1,Trellis-SLAT,PSNR↑,27.00\n")
    with pytest.raises(BenchError, match="wants the columns"):
        read_marks("table,row\n")
    data = read_data()
    for broken, said in (
        (replace(data, quantities={"q": {"table08": "PSNR"}}), "q: table08 has no column 'PSNR'"),
        (replace(data, quantities={"q": {"table99": "PSNR"}}), "q: no table 'table99'"),
        (replace(data, systems=[["nobody"]]), "no table has a row 'nobody'"),
        (replace(data, distinguish={}), "two rows are 'OmniTokenizer†'; audit.yaml must tell them apart"),
    ):
        with pytest.raises(BenchError, match=said):
            PaperAudit(data=broken).run()
    monkeypatch.setattr(paper_audit_data, "_FILES", ("audit.yaml", "bold.csv", "bold.csv"))
    with pytest.raises(BenchError, match=r"known_contradictions\.yaml: wants basis"):
        audit(print)


def test_the_command() -> None:
    words = [sys.executable, "-m", "harness", "audit", "paper"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("Found 21 by rules and 17 by reading.")


def test_needs_no_torch() -> None:
    program = "import sys, reports.paper_audit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
