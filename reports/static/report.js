// Sorting, the light/dark switch, error maps and the zoom dialog. Every page reads without this file.
"use strict";

const SECTION = "tr.section";

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  table.querySelectorAll("thead button[data-column]").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const column = Number(button.dataset.column);
      const first = button.dataset.first || "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const now = head.getAttribute("aria-sort") || "none";
      const next = now === "none" ? first : now === first ? second : "none";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      if (next === "none") {
        body.replaceChildren(...original);
        return;
      }
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const rows = original.filter((row) => !row.matches(SECTION));
      const key = (row) => row.cells[column].dataset.v;
      // Rows without a value stay at the end whichever way the column is sorted.
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        const [m, n] = [Number(x), Number(y)];
        const order = Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y, "en", { numeric: true }) : m - n || 0;
        return sign * (x === y ? 0 : order);
      });
      body.replaceChildren(...rows);
    });
  });
}

function theme() {
  const button = document.querySelector("#theme");
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const set = (value) => {
    document.documentElement.dataset.theme = value;
    button.textContent = value === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${value === "dark" ? "light" : "dark"} colours`);
  };
  set(stored() || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  button.hidden = false;
  button.addEventListener("click", () => {
    const value = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    set(value);
    try { localStorage.setItem("theme", value); } catch { /* a browser may forbid storage for files */ }
  });
}

function errorMaps() {
  document.querySelectorAll("input[data-errors]").forEach((box) => {
    box.closest("label").hidden = false;
    const show = () => box.closest("section").classList.toggle("errors", box.checked);
    box.addEventListener("change", show);
    show();
  });
}

function zoom() {
  const dialog = document.querySelector("#zoom");
  const [image, caption, counter] = ["img", ".caption", ".counter"].map((part) => dialog.querySelector(part));
  let series = [];
  let place = 0;
  const show = (next) => {
    place = (next + series.length) % series.length;
    const link = series[place];
    image.src = link.href;
    image.alt = link.dataset.caption;
    caption.textContent = link.dataset.caption;
    counter.textContent = `${place + 1} of ${series.length}`;
  };
  document.querySelectorAll("a[data-zoom]").forEach((link) => {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      series = [...link.closest("[data-series]").querySelectorAll("a[data-zoom]")]
        .filter((other) => other === link || other.checkVisibility());
      show(series.indexOf(link));
      dialog.showModal();
    });
  });
  dialog.querySelector(".previous").addEventListener("click", () => show(place - 1));
  dialog.querySelector(".next").addEventListener("click", () => show(place + 1));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(place - 1);
    if (event.key === "ArrowRight") show(place + 1);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

document.querySelectorAll("table.sortable").forEach(sortable);
theme();
errorMaps();
zoom();
