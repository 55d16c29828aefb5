// Sorting by tablesort (static/tablesort.min.js), and the filter. Every table reads without this file.
"use strict";

const SECTION = "tr.section";
const EMPTY = "\u0000"; // the key of a cell without a value; tablesort takes the shown text where it finds none

// Numbers by size, all else as people count: "a2" before "a10". Infinity is a number.
Tablesort.extend("mixed", () => true, (a, b) => {
  const [m, n] = [Number(a), Number(b)];
  const order = Number.isNaN(m) || Number.isNaN(n) ? a.localeCompare(b, "en", { numeric: true }) : m - n || 0;
  return a === b ? 0 : -order; // tablesort's "ascending" is the reverse of what its comparison gives
});

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const sorter = {};
  for (const row of original) {
    for (const cell of row.cells) if (!("v" in cell.dataset)) cell.dataset.v = EMPTY;
  }
  for (const head of heads) {
    const button = head.querySelector("button");
    head.dataset.sortMethod = button ? "mixed" : "none";
    if (!button) continue;
    // Before tablesort's own listener: best first, then the other way round, then as it was.
    head.addEventListener("click", (event) => {
      const first = button.dataset.first || "ascending";
      const now = head.getAttribute("aria-sort");
      sorter.options.descending = first === "descending";
      if (now && now !== first) {
        event.stopImmediatePropagation();
        head.removeAttribute("aria-sort");
        body.replaceChildren(...original);
      }
    }, { capture: true });
    // Enter and space press the button, and a press is a click: tablesort must not take the key as a second one.
    button.addEventListener("keydown", (event) => event.stopPropagation());
  }
  table.addEventListener("beforeSort", () => body.replaceChildren(...original.filter((row) => !row.matches(SECTION))));
  table.addEventListener("afterSort", () => {
    const column = heads.findIndex((head) => head.hasAttribute("aria-sort"));
    // Rows without a value stay at the end whichever way the column is sorted.
    body.append(...[...body.rows].filter((row) => row.cells[column].dataset.v === EMPTY));
  });
  Object.assign(sorter, { options: { sortAttribute: "data-v" } });
  new Tablesort(table, sorter.options);
  // The buttons take the focus.
  for (const head of heads) head.removeAttribute("tabindex");
}

function filter() {
  const box = document.querySelector("#filter");
  if (!box) return;
  const input = box.querySelector("input");
  const said = box.querySelector("output");
  const tables = [...document.querySelectorAll("table[data-filter]")];
  const others = [...document.querySelectorAll("[data-tokenizer]")];
  const norm = (text) => text.toLowerCase().normalize("NFKD").replace(/\s+/g, " ").trim();
  const rows = tables.flatMap((table) => [...table.tBodies[0].rows]).filter((row) => !row.matches(SECTION));
  const name = (row) => norm((row.querySelector("th[scope=row]") || row).textContent);
  if (!rows.length) return;
  box.hidden = false;
  const apply = () => {
    const wanted = norm(input.value);
    const fits = (text) => text.includes(wanted);
    for (const row of rows) row.hidden = !fits(name(row));
    for (const other of others) other.hidden = !fits(norm(other.dataset.tokenizer));
    for (const table of tables) {
      let section = null;
      let any = false;
      const close = () => { if (section) section.hidden = !any; };
      for (const row of table.tBodies[0].rows) {
        if (row.matches(SECTION)) { close(); section = row; any = false; } else any ||= !row.hidden;
      }
      close();
    }
    const shown = rows.filter((row) => !row.hidden).length;
    said.textContent = wanted ? `${shown} of ${rows.length} rows` : "";
  };
  input.addEventListener("input", apply);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { input.value = ""; apply(); }
  });
  apply(); // a browser may keep what was typed before the page was left
}

document.querySelectorAll("table.sortable").forEach(sortable);
filter();
