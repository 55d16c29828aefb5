// Pictures enlarged by Panzoom (static/panzoom.min.js): versions of a sample in place of one another, then the next sample.
"use strict";

// Panzoom measures the picture: in the middle of a transition it would measure a size that is neither.
const AT_ONCE = { animate: false };

function zoom() {
  const dialog = document.querySelector("#zoom");
  const part = (name) => dialog.querySelector(name);
  const [image, caption, counter, versions, level] = ["img", ".caption", ".counter", ".versions", ".level"].map(part);
  const [before, after] = [".sample-before", ".sample-after"].map(part);
  const view = Panzoom(image, { maxScale: 32, minScale: 1, contain: "outside", cursor: "grab", animate: false });
  const all = (element) => [...element.querySelectorAll("a[data-zoom]")].filter((link) => link.checkVisibility());
  let samples = [];
  let sample = 0;
  let series = [];
  let place = 0;

  const said = () => { level.textContent = `${Math.round(100 * view.getScale())} %`; };
  const show = (next) => {
    place = (next + series.length) % series.length;
    const link = series[place];
    image.src = link.href;
    image.alt = link.dataset.caption;
    caption.textContent = link.dataset.caption;
    counter.textContent = `${place + 1} of ${series.length}`;
    [...versions.children].forEach((button, index) => button.setAttribute("aria-pressed", String(index === place)));
  };
  const open = (element, next) => {
    series = all(element);
    versions.replaceChildren(...series.map((link, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = link.dataset.label;
      button.addEventListener("click", () => show(index));
      return button;
    }));
    sample = samples.indexOf(element);
    before.hidden = after.hidden = samples.length < 2;
    before.disabled = sample <= 0;
    after.disabled = sample >= samples.length - 1;
    view.reset(AT_ONCE);
    said();
    show(Math.min(next, series.length - 1));
  };
  const go = (step) => {
    if (samples[sample + step]) open(samples[sample + step], place);
  };
  const size = (change) => { change(); said(); };

  // Links may be hidden now and shown later, and a sorted table has its rows in another order: looked up when asked.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-zoom]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const own = link.closest("[data-series]");
    const group = own.closest("[data-samples]");
    samples = group ? [...group.querySelectorAll("[data-series]")].filter((one) => all(one).length) : [own];
    dialog.showModal();
    open(own, all(own).indexOf(link));
  });
  part(".close").addEventListener("click", () => dialog.close());
  before.addEventListener("click", () => go(-1));
  after.addEventListener("click", () => go(1));
  part(".nearer").addEventListener("click", () => size(() => view.zoomIn(AT_ONCE)));
  part(".farther").addEventListener("click", () => size(() => view.zoomOut(AT_ONCE)));
  part(".whole").addEventListener("click", () => size(() => view.reset(AT_ONCE)));
  image.parentElement.addEventListener("wheel", (event) => size(() => view.zoomWithWheel(event)), { passive: false });
  image.addEventListener("dblclick", () => size(() => (view.getScale() > 1 ? view.reset(AT_ONCE) : view.zoom(4, AT_ONCE))));
  image.addEventListener("panzoomchange", said);
  const keys = {
    ArrowLeft: (event) => (event.shiftKey ? view.pan(48, 0, { relative: true }) : show(place - 1)),
    ArrowRight: (event) => (event.shiftKey ? view.pan(-48, 0, { relative: true }) : show(place + 1)),
    ArrowUp: (event) => (event.shiftKey ? view.pan(0, 48, { relative: true }) : go(-1)),
    ArrowDown: (event) => (event.shiftKey ? view.pan(0, -48, { relative: true }) : go(1)),
    "+": () => size(() => view.zoomIn(AT_ONCE)),
    "-": () => size(() => view.zoomOut(AT_ONCE)),
    0: () => size(() => view.reset(AT_ONCE)),
  };
  dialog.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key](event);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

zoom();
