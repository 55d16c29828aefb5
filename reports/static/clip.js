// The page of a clip or an asset: plays it, moves the curves' cursors with it, goes where a curve is clicked, and
// turns a turntable as it is dragged.
"use strict";

function clip(player) {
  const video = player.querySelector("video");
  if (!video) return;
  const part = (name) => player.querySelector(name);
  const [transport, play, seek, time, view, speed] =
    [".transport", ".play", ".seek", ".time", ".view", ".speed"].map(part);
  const rate = Number(player.dataset.rate);
  const last = Number(player.dataset.frames) - 1;
  const unit = player.dataset.unit;
  const turns = "turn" in player.dataset;
  const plots = [...document.querySelectorAll(".curve[data-values]")].map((figure) => ({
    area: figure.querySelector(".plot-area"),
    cursor: figure.querySelector(".cursor"),
    at: figure.querySelector(".at"),
    values: JSON.parse(figure.dataset.values),
    frames: Number(figure.querySelector(".plot-area").dataset.frames),
  }));
  let frame = 0;

  const show = (next) => {
    // A turntable goes round.
    frame = turns ? (next + 100 * (last + 1)) % (last + 1) : Math.min(last, Math.max(0, next));
    seek.value = frame;
    const where = turns ? `from ${Math.round((360 * frame) / (last + 1))}°` : `${(frame / rate).toFixed(2)} s`;
    time.textContent = `${unit} ${frame} of ${last + 1}, ${where}`;
    for (const plot of plots) {
      plot.cursor.style.left = `${(100 * (frame + 0.5)) / plot.frames}%`;
      plot.at.textContent = plot.values[frame] ?? "";
    }
  };
  const go = (next) => {
    show(next);
    // The middle of the frame: times in the file are whole milliseconds.
    video.currentTime = (frame + 0.5) / rate;
  };
  const follow = () => {
    show(Math.floor(video.currentTime * rate + 0.05));
    if (!video.paused) requestAnimationFrame(follow);
  };

  // The browser's own controls lie on the picture; these lie below it.
  video.controls = false;
  transport.hidden = false;
  document.querySelectorAll(".scripted, .cursor").forEach((element) => { element.hidden = false; });

  const toggle = () => {
    if (video.paused) video.play().catch(() => {}); // a pause that comes before the first frame ends it
    else video.pause();
  };
  play.addEventListener("click", toggle);
  const drag = turns ? turntable() : null;
  video.addEventListener("click", () => { if (!drag || !drag.moved) toggle(); });
  video.addEventListener("play", () => { play.textContent = "Pause"; requestAnimationFrame(follow); });
  video.addEventListener("pause", () => { play.textContent = "Play"; });
  part(".transport").addEventListener("click", (event) => {
    const step = event.target.closest("[data-step]");
    if (!step) return;
    video.pause();
    go(frame + Number(step.dataset.step));
  });
  seek.addEventListener("input", () => { video.pause(); go(Number(seek.value)); });
  speed.addEventListener("change", () => { video.playbackRate = Number(speed.value); });
  const look = (value) => { player.dataset.view = value; view.value = value; };
  view.addEventListener("change", () => look(view.value));

  function turntable() {
    const held = { moved: false };
    video.addEventListener("pointerdown", (event) => {
      Object.assign(held, { x: event.clientX, frame, moved: false });
      video.setPointerCapture(event.pointerId);
    });
    video.addEventListener("pointermove", (event) => {
      if (!(event.buttons & 1)) return;
      const panel = video.clientWidth / (player.dataset.view === "all" ? 3 : 1);
      // Across a panel is half a turn, and the near side follows the hand.
      const steps = Math.round(((event.clientX - held.x) / panel) * ((last + 1) / 2));
      if (!steps && !held.moved) return;
      held.moved = true;
      video.pause();
      if (frame !== held.frame - steps) go(held.frame - steps);
    });
    return held;
  }

  for (const plot of plots) {
    const place = (event) => {
      const box = plot.area.getBoundingClientRect();
      go(Math.floor(((event.clientX - box.left) / box.width) * plot.frames));
    };
    plot.area.addEventListener("pointerdown", (event) => {
      video.pause();
      plot.area.setPointerCapture(event.pointerId);
      place(event);
    });
    plot.area.addEventListener("pointermove", (event) => { if (event.buttons & 1) place(event); });
  }

  // Another tokenizer's page opens at the same frame, in the same view.
  document.querySelectorAll("a[data-keep]").forEach((link) => {
    link.addEventListener("click", () => { link.hash = `frame-${frame}-${player.dataset.view}`; });
  });
  const kept = location.hash.match(/^#frame-(\d+)-(all|original|reconstruction|error)$/);
  if (kept) {
    look(kept[2]);
    go(Number(kept[1]));
  } else {
    // Three panels are thumbnails on a phone: begin with one, the others are a tap away.
    if (matchMedia("(max-width: 40rem)").matches) look("reconstruction");
    // The poster is this frame, without loss; playing begins at the first.
    show(Number(player.dataset.start));
  }
}

document.querySelectorAll(".player").forEach(clip);
