// The light/dark switch and error maps. Every page reads without this file.
"use strict";

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

theme();
errorMaps();
