// Reads the values off a chart where the pointer is. Every chart reads without this file: its legend holds the last.
"use strict";

function chart(figure) {
  const area = figure.querySelector(".plot-area");
  const cursor = figure.querySelector(".cursor");
  const step = figure.querySelector(".at-step");
  const values = [...figure.querySelectorAll(".last")];
  const last = values.map((element) => element.textContent);
  const data = JSON.parse(figure.dataset.chart);
  const said = (value) => (Math.abs(value) >= 1e4 ? Math.round(value).toLocaleString("en") : String(value)).replace("-", "−");

  const show = (event) => {
    const box = area.getBoundingClientRect();
    const wanted = (100 * (event.clientX - box.left)) / box.width;
    let place = 0;
    data.x.forEach((x, index) => { if (Math.abs(x - wanted) < Math.abs(data.x[place] - wanted)) place = index; });
    cursor.hidden = false;
    cursor.style.left = `${data.x[place]}%`;
    step.textContent = `step ${data.steps[place].toLocaleString("en")}`;
    values.forEach((element, row) => {
      // Variants that log at other steps tell their nearest value before this one.
      let at = place;
      while (at >= 0 && data.values[row][at] === null) at -= 1;
      element.textContent = at < 0 ? "–" : said(data.values[row][at]);
    });
  };
  const rest = () => {
    cursor.hidden = true;
    step.textContent = "";
    values.forEach((element, row) => { element.textContent = last[row]; });
  };
  area.addEventListener("pointermove", show);
  area.addEventListener("pointerdown", show);
  area.addEventListener("pointerleave", rest);
}

document.querySelectorAll(".curve[data-chart]").forEach(chart);
