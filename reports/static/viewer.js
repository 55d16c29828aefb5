// The viewer of an asset's Gaussians: loads the library and the file when it is opened, and draws while it is moved.
"use strict";

const FOCAL = 0.5 / Math.tan(Math.PI / 9); // of cameras with a field of view of 40 degrees
const FRONT = { alpha: 0, beta: Math.PI / 9, radius: 2 }; // where the turntable begins
const AWAKE = 500; // milliseconds that drawing goes on once the camera rests: a worker sorts the Gaussians meanwhile

function load(address) {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = done;
    script.onerror = () => failed(new Error(`${address} cannot be loaded`));
    document.head.append(script);
  });
}

// Runs what makes the library's workers. It gives them to the browser as blobs, which Chromium refuses to pages from
// disk, or else as data: addresses, which are taken everywhere.
function withoutBlobs(make) {
  const blobs = URL.createObjectURL;
  URL.createObjectURL = () => "";
  try { make(); } finally { URL.createObjectURL = blobs; }
}

async function start(box, canvas) {
  if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser has no WebGL 2");
  await Promise.all([load(box.dataset.library), load(box.dataset.file)]);
  const splat = await import(`data:text/javascript;base64,${window.splatLibrary}`);
  const bytes = Uint8Array.from(atob(window.embedded[box.dataset.name]), (letter) => letter.charCodeAt(0));
  canvas.hidden = false;
  const [scene, camera] = [new splat.Scene(), new splat.Camera()];
  // No second argument: its default fades the picture in.
  const renderer = new splat.WebGLRenderer(canvas, []);
  renderer.backgroundColor = new splat.Color32(...box.dataset.ground.split(" ").map(Number));
  // The library takes the focal length once: the canvas keeps its size, and the page stretches it.
  renderer.setSize(768, 768);
  camera.data.fx = camera.data.fy = FOCAL * 768;
  // "polycam" is a file with z up, as ours; the library's own axes have y down.
  const count = splat.PLYLoader.LoadFromArrayBuffer(bytes.buffer, scene, "polycam").data.vertexCount;

  let controls = null;
  let until = 0;
  let drawing = false;
  const draw = () => {
    const before = camera.position;
    controls.update(); // the library's camera glides to where it was sent
    if (camera.position.subtract(before).magnitude() > 1e-5) until = performance.now() + AWAKE;
    renderer.render(scene, camera);
    canvas.dataset.drawn = renderer.renderProgram.depthIndex.length; // how many the worker has sorted
    drawing = performance.now() < until || Number(canvas.dataset.drawn) < count;
    canvas.ariaBusy = drawing;
    if (drawing) requestAnimationFrame(draw);
  };
  const wake = () => {
    until = performance.now() + AWAKE;
    canvas.ariaBusy = true;
    if (!drawing) { drawing = true; requestAnimationFrame(draw); }
  };
  const look = ({ alpha, beta, radius }) => {
    if (controls) controls.dispose();
    const tilt = Math.min(1.5, Math.max(-1.5, beta));
    controls = new splat.OrbitControls(camera, canvas, alpha, tilt, Math.min(8, Math.max(0.5, radius)), false);
    controls.maxZoom = 8;
    wake();
  };
  const now = () => {
    const { x, y, z } = camera.position;
    const radius = Math.hypot(x, y, z);
    return { alpha: Math.atan2(x, -z), beta: Math.asin(-y / radius), radius };
  };
  const keys = {
    ArrowLeft: (at) => ({ ...at, alpha: at.alpha + 0.1 }),
    ArrowRight: (at) => ({ ...at, alpha: at.alpha - 0.1 }),
    ArrowUp: (at) => ({ ...at, beta: at.beta + 0.1 }),
    ArrowDown: (at) => ({ ...at, beta: at.beta - 0.1 }),
    "+": (at) => ({ ...at, radius: at.radius / 1.1 }),
    "-": (at) => ({ ...at, radius: at.radius * 1.1 }),
    Home: () => FRONT,
  };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    look(keys[event.key](now()));
  });
  for (const name of ["mousedown", "mousemove", "touchstart", "touchmove"]) canvas.addEventListener(name, wake);
  // The wheel scrolls the page until the viewer has been clicked.
  canvas.parentElement.addEventListener("wheel", (event) => {
    if (document.activeElement === canvas) wake();
    else event.stopPropagation();
  }, { capture: true });
  canvas.addEventListener("mousedown", () => canvas.focus({ preventScroll: true }));

  const turntable = document.querySelector(".player .seek");
  // The view that the turntable shows: alpha is 0 at its first.
  look({ ...FRONT, alpha: (2 * Math.PI * Number(turntable.value)) / (Number(turntable.max) + 1) });
  withoutBlobs(() => renderer.render(scene, camera));
  return { front: () => look(FRONT), bytes };
}

function viewer(box) {
  const part = (name) => box.querySelector(name);
  const [canvas, open, reset, save, said] = ["canvas", ".open", ".reset", ".save", ".said"].map(part);
  part(".transport").hidden = false;
  open.addEventListener("click", async () => {
    open.disabled = true;
    open.textContent = "Opening …";
    try {
      const shown = await start(box, canvas);
      open.hidden = true;
      reset.hidden = save.hidden = false;
      said.textContent += ": drag to turn; click, then the wheel goes nearer or farther; arrow keys, + and −";
      reset.addEventListener("click", shown.front);
      save.addEventListener("click", () => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([shown.bytes], { type: "application/octet-stream" }));
        link.download = box.dataset.save;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      });
      canvas.focus({ preventScroll: true });
    } catch (error) {
      canvas.hidden = true;
      open.hidden = true;
      said.textContent = `The viewer cannot be opened: ${error.message}. The turntable above shows the same asset.`;
    }
  });
}

document.querySelectorAll(".viewer").forEach(viewer);
