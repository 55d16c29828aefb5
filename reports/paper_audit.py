"""`atoken-bench audit paper`: the paper's tables against each other, by rules; nothing in here names a figure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from itertools import combinations, pairwise

from harness.errors import BenchError
from reports import paper
from reports.paper import Row, Table
from reports.paper_audit_data import AuditData, read_data

_RECALL = re.compile(r"R@(\d+)")
_FACTORS = re.compile(r"\d+(?:[×x]\d+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One contradiction, or what looks like one.

    Attributes:
        rule: which rule found it: ``same figure``, ``bold``, ``total``, ``recall``, ``name``, ``factors``, ``text``;
            ``read`` where somebody has read it.
        text: one line with both places and values.
    """

    rule: str
    text: str

    @property
    def line(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A printed figure and where it stands."""

    table: Table
    row: Row
    name: str
    column: int
    text: str

    @property
    def number(self) -> Decimal:
        return Decimal(self.text.removesuffix("%"))

    def __str__(self) -> str:
        return f"table {self.table.number}, {self.name}, {self.table.columns[self.column].header}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the audit found, and of each rule how many times it was tried."""

    findings: tuple[Finding, ...]
    checked: Mapping[str, int]


class PaperAudit:
    """The rules over one set of tables.

    Args:
        tables: by name; the paper's where left out.
        data: aliases, quantities, totals, claims and marks; those that ship where left out.
    """

    def __init__(self, tables: Mapping[str, Table] | None = None, data: AuditData | None = None) -> None:
        self.tables = {name: paper.load(name) for name in paper.names()} if tables is None else tables
        self.data = read_data() if data is None else data

    def run(self) -> Outcome:
        """Apply every rule.

        Raises:
            BenchError: a data file names a table, row or column that is not there.
        """
        rules: dict[str, Callable[[], Iterator[Finding | None]]] = {
            "same figure": self.same_figures,
            "bold": self.bold,
            "total": self.totals,
            "recall": self.recalls,
            "name": self.names,
            "factors": self.factors,
            "text": self.claims,
        }
        findings: list[Finding] = []
        checked = {}
        for name, rule in rules.items():
            outcome = list(rule())
            checked[name] = len(outcome)
            findings += [finding for finding in outcome if finding is not None]
        findings += [
            Finding(rule="read", text=f"{entry['where']}: {entry['says']} ({entry['basis']}: {entry['source']})")
            for entry in self.data.known
        ]
        return Outcome(findings=tuple(findings), checked=checked)

    def name(self, table: Table, row: Row) -> str:
        """A row's name: its key and, where the table has rows of one name, what tells them apart."""
        column = self.data.distinguish.get(table.name)
        if column is None:
            return row.key
        return f"{row.key} [{row.values[self._column(table, column, 'distinguish')]}]"

    def same_figures(self) -> Iterator[Finding | None]:
        """The same system and quantity in two tables agree at the coarser precision of the two."""
        for quantity, columns in self.data.quantities.items():
            places: dict[str, list[Place]] = {}
            for table_name, header in columns.items():
                table = self._table(table_name, quantity)
                column = self._column(table, header, quantity)
                here: set[str] = set()
                for row in table.rows:
                    name = self.name(table, row)
                    system = self._systems.get(name, name)
                    if table.printed(row, column) is None:
                        continue
                    if system in here:
                        raise BenchError(f"{table.name}: two rows are {system!r}; audit.yaml must tell them apart")
                    here.add(system)
                    places.setdefault(system, []).append(self._place(table, row, column))
            for found in places.values():
                for one, other in combinations(found, 2):
                    yield None if agree(one.number, other.number) else self._differ(quantity, one, other)

    def _differ(self, quantity: str, one: Place, other: Place) -> Finding:
        hints = [hint for a, b in ((one, other), (other, one)) if (hint := _elsewhere(a, b))]
        return Finding(rule="same figure", text="; ".join([f"{one}; {other} ({quantity})", *hints]))

    def bold(self) -> Iterator[Finding | None]:
        """A bold figure is the best of the rows that it is ranked with, and so is every figure that equals it."""
        marked = {(mark.table, mark.row, mark.column) for mark in self.data.marks}
        for table_name, scope in self.data.bold.items():
            table = self._table(table_name, "bold")
            scopes: dict[str, list[int]] = {}
            for index, row in enumerate(table.rows):
                scopes.setdefault(self._scope(table, row, scope), []).append(index)
            for column, header in enumerate(table.columns):
                for rows in scopes.values() if header.metric else ():
                    places = {i: self._place(table, table.rows[i], column) for i in rows}
                    places = {i: place for i, place in places.items() if place.text != "-"}
                    bold = [i for i in places if (table.name, i, header.header) in marked]
                    if not bold:
                        continue
                    best = (max if header.higher_is_better else min)(place.number for place in places.values())
                    top = min((i not in bold, i) for i, place in places.items() if place.number == best)[1]
                    for i, place in places.items():
                        if i in bold and place.number != best:
                            yield Finding(rule="bold", text=f"{place} is bold; {places[top]} is better")
                        elif i not in bold and place.number == best and any(places[j].number == best for j in bold):
                            yield Finding(rule="bold", text=f"{place} is not bold; its equal {places[top]} is")
                        else:
                            yield None

    def _scope(self, table: Table, row: Row, scope: str) -> str:
        if scope == "all":
            return ""
        if scope == "group":
            return row.group
        if scope == "discrete":
            return str(row.values[self._column(table, "Token Type", "bold")] in self.data.discrete)
        return row.values[self._column(table, scope, "bold")]

    def totals(self) -> Iterator[Finding | None]:
        """A total is what its parts give, at its own precision."""
        for total in self.data.totals:
            table = self._table(total["table"], total["name"])
            parts = {self._column(table, header, total["name"]): weight for header, weight in total["parts"].items()}
            target = next((i for i, column in enumerate(table.columns) if column.header == total["total"]), None)
            for row in table.rows:
                texts = {column: row.values[column].removesuffix("%") for column in parts}
                if all(text == "-" for text in texts.values()):
                    continue
                printed = total["total"] if target is None else row.values[target]
                values = {column: Decimal(text) for column, text in texts.items() if text != "-"}
                made = sum((values[c] * parts[c] for c in values), Decimal()) / total["divide"]
                stated = Decimal(printed.removesuffix("%"))
                if _rounded(made, _unit(stated)) == stated:
                    yield None
                    continue
                slack = sum((_unit(values[c]) / 2 * parts[c] for c in values), Decimal()) / total["divide"]
                explained = abs(made - stated) <= slack + (_unit(stated) / 2 if target is not None else 0)
                why = "; the rounding of the parts may explain it" if explained else ""
                word = "wanted" if target is None else "printed"
                where = f"table {table.number}, {self.name(table, row)}, {total['name']}: {printed} {word}"
                yield Finding(rule="total", text=f"{where}, {made.normalize():f} from its parts{why}")

    def recalls(self) -> Iterator[Finding | None]:
        """Recall does not fall with the number of answers that are looked at."""
        for table in self.tables.values():
            groups: dict[str, list[tuple[int, int]]] = {}
            for index, column in enumerate(table.columns):
                if (match := _RECALL.fullmatch(column.label)) and column.metric:
                    groups.setdefault(column.group, []).append((int(match[1]), index))
            for columns in groups.values():
                ordered = [index for _, index in sorted(columns)]
                for row in table.rows:
                    places = [self._place(table, row, index) for index in ordered if row.values[index] != "-"]
                    for low, high in pairwise(places):
                        falls = low.number > high.number
                        yield Finding(rule="recall", text=f"{low}; {high}: it falls") if falls else None

    def names(self) -> Iterator[Finding | None]:
        """One system has one name, but for capitals, signs and what is added behind it."""
        tables: dict[str, list[str]] = {}
        for table in self.tables.values():
            for row in table.rows:
                tables.setdefault(self.name(table, row), []).append(f"table {table.number}")
        for names in self.data.systems:
            if missing := [name for name in names if name not in tables]:
                raise BenchError(f"audit.yaml: no table has a row {missing[0]!r}")
            plain = [_plain(name) for name in names]
            if all(text.startswith(min(plain, key=len)) for text in plain):
                yield None
            else:
                places = "; ".join(f"{', '.join(tables[name])}: {name}" for name in names)
                yield Finding(rule="name", text=f"one system, {places}")

    def factors(self) -> Iterator[Finding | None]:
        """Compression factors in a system's name are those of its row."""
        for table in self.tables.values():
            column = next((i for i, column in enumerate(table.columns) if column.header == "Comp. Ratio"), None)
            for row in table.rows if column is not None else ():
                assert column is not None
                match = _FACTORS.search(row.method)
                if match is None or row.values[column] == "-":
                    continue
                named = [int(factor) for factor in re.split("[×x]", match[0])]
                named = [1] * (3 - len(named)) + named
                stated = [int(factor) for factor in re.findall(r"\d+", row.values[column])]
                where = f"table {table.number}, {row.method}: the name says ({', '.join(map(str, named))})"
                text = f"{where}, column Comp. Ratio {row.values[column]}"
                yield None if named == stated else Finding(rule="factors", text=text)

    def claims(self) -> Iterator[Finding | None]:
        """A figure of the running text is the table's at the coarser precision of the two."""
        for claim in self.data.claims:
            what = f"claim {claim['words']!r}"
            table = self._table(claim["table"], what)
            column = self._column(table, claim["column"], what)
            rows = [row for row in table.rows if self.name(table, row) == claim["row"]]
            if len(rows) != 1:
                raise BenchError(f"audit.yaml, {what}: {table.name} has {len(rows)} rows {claim['row']!r}")
            place = self._place(table, rows[0], column)
            text = f'{claim["where"]}: "{claim["words"]}"; {place}'
            yield None if agree(Decimal(claim["value"]), place.number) else Finding(rule="text", text=text)

    @cached_property
    def _systems(self) -> dict[str, str]:
        return {name: names[0] for names in self.data.systems for name in names}

    def _place(self, table: Table, row: Row, column: int) -> Place:
        return Place(table=table, row=row, name=self.name(table, row), column=column, text=row.values[column])

    def _table(self, name: str, what: str) -> Table:
        if name not in self.tables:
            raise BenchError(f"audit.yaml, {what}: no table {name!r}")
        return self.tables[name]

    def _column(self, table: Table, header: str, what: str) -> int:
        for index, column in enumerate(table.columns):
            if column.header == header:
                return index
        raise BenchError(f"audit.yaml, {what}: {table.name} has no column {header!r}")


def agree(one: Decimal, other: Decimal) -> bool:
    """Whether two printed figures can be roundings of one number: the finer one lies within half a unit of the coarser.

    A figure that was itself rounded to a half may have gone either way.
    """
    return one == other if _unit(one) == _unit(other) else abs(one - other) <= max(_unit(one), _unit(other)) / 2


def _unit(number: Decimal) -> Decimal:
    """One in the last printed place."""
    return Decimal(1).scaleb(int(number.as_tuple().exponent))


def _rounded(number: Decimal, unit: Decimal) -> Decimal:
    return number.quantize(unit, rounding=ROUND_HALF_UP)


def _elsewhere(one: Place, other: Place) -> str:
    """Where in the other's row the one's figure stands under the same metric: it may have been taken from there."""
    columns = other.table.columns
    label = columns[other.column].label
    same = [
        column.header
        for i, column in enumerate(columns)
        if column.metric and column.label == label and i != other.column and other.row.values[i] == one.text
    ]
    return f"{one.text} is table {other.table.number}'s {same[0]} of that row" if same else ""


def _plain(name: str) -> str:
    """A name without its mark, capitals and signs."""
    return re.sub(r"[^a-z0-9]", "", name.partition(" [")[0].replace("×", "x").lower())


def audit(echo: Callable[[str], None]) -> None:
    """Print a line for each finding, then what was checked.

    Raises:
        BenchError: a table or a data file that is broken.
    """
    outcome = PaperAudit().run()
    for finding in outcome.findings:
        echo(finding.line)
    echo(summary(outcome))


def summary(outcome: Outcome) -> str:
    """``Found 12 by rules, 17 by reading. Checked: ...``."""
    read = sum(finding.rule == "read" for finding in outcome.findings)
    checked = ", ".join(f"{name} {count}" for name, count in outcome.checked.items())
    return f"Found {len(outcome.findings) - read} by rules and {read} by reading. Places checked by rule: {checked}."
