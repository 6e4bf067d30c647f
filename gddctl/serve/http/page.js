"use strict";
// Sends an image, gets its class ids, and colours them here. Nothing leaves this server, nothing is stored.

const MAX_SIDE = 2048; // of what is drawn, pixels; phones refuse canvases of many more
const IGNORED = [0, 0, 0, 0];
const at = (id) => document.getElementById(id);
let models = [];
let shown = null; // {ids, width, height, classes, picture}
let last = null; // the newest image, chosen, dropped or pasted
let turn = 0; // the newest request; the answers of older ones are dropped

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").className = bad ? "bad" : "";
}

async function ask(path, options = {}) {
  const token = at("token").value.trim();
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { ...options, headers: { ...headers, ...(options.headers || {}) } });
  if (answer.ok) return answer;
  if (answer.status === 401) at("token-row").hidden = false;
  let words = `the server answers ${answer.status}`;
  try { words = (await answer.json()).error || words; } catch { /* no JSON: the number has to do */ }
  throw new Error(words);
}

async function loadModels() {
  models = await (await ask("models")).json();
  const select = at("model");
  const before = select.value;
  select.replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  if (models.some((model) => model.name === before)) select.value = before;
  at("model-row").hidden = models.length < 2;
  if (models.every((model) => model.state === "READY")) return say("");
  say("The model is still loading.");
  setTimeout(() => turn || loadModels().catch((error) => say(error.message, true)), 1000);
}

async function predict(file) {
  if (!file) return;
  last = file;
  const mine = ++turn;
  try {
    if (!models.length) await loadModels();
    const model = models.find((each) => each.name === at("model").value) || models[0];
    say(`Asking ${model.name} …`);
    const started = performance.now();
    const answer = await ask(`predict/${encodeURIComponent(model.name)}?output=raw`, { method: "POST", body: file });
    const [height, width] = answer.headers.get("X-Mask-Shape").split(",").map(Number);
    const ids = new Uint8Array(await answer.arrayBuffer());
    const seconds = (performance.now() - started) / 1000;
    const picture = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null); // some formats only the server reads
    if (mine !== turn) return;
    shown = { ids, width, height, classes: model.classes, picture };
    at("result").hidden = false;
    drawLegend();
    draw();
    say(`${file.name || "image"}: ${width} × ${height}, ${seconds.toFixed(2)} s${picture ? "" : "; the browser cannot show this kind of image, so the mask stands alone"}`);
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}

function draw() {
  if (!shown) return;
  const { ids, width, height, classes, picture } = shown;
  const shrink = Math.min(1, MAX_SIDE / Math.max(width, height));
  const wide = Math.max(1, Math.round(width * shrink));
  const high = Math.max(1, Math.round(height * shrink));
  const canvas = at("canvas");
  canvas.width = wide;
  canvas.height = high;
  const pen = canvas.getContext("2d");
  const opacity = Number(at("opacity").value) / 100;
  if (picture) pen.drawImage(picture, 0, 0, wide, high);
  const layer = new OffscreenCanvas(wide, high);
  layer.getContext("2d").putImageData(coloured(ids, width, height, wide, high, classes), 0, 0);
  pen.globalAlpha = picture ? opacity : 1;
  pen.drawImage(layer, 0, 0);
}

function coloured(ids, width, height, wide, high, classes) {
  const pixels = new ImageData(wide, high);
  const colours = Array.from({ length: 256 }, (_, id) => (id < classes.length ? [...classes[id].color, 255] : IGNORED));
  let place = 0;
  for (let y = 0; y < high; y++) {
    const row = Math.min(height - 1, Math.floor((y * height) / high)) * width;
    for (let x = 0; x < wide; x++, place += 4) {
      pixels.data.set(colours[ids[row + Math.min(width - 1, Math.floor((x * width) / wide))]], place);
    }
  }
  return pixels;
}

function drawLegend() {
  const { ids, classes } = shown;
  const counts = new Float64Array(256);
  for (const id of ids) counts[id]++;
  const rows = classes.map((each) => ({ ...each, share: counts[each.id] / ids.length })).filter((each) => each.share > 0);
  rows.sort((a, b) => b.share - a.share);
  at("legend").tBodies[0].replaceChildren(...rows.map(legendRow));
}

function legendRow({ name, color, share }) {
  const row = document.createElement("tr");
  const swatch = document.createElement("canvas"); // a style attribute would be against the page's own policy
  swatch.width = swatch.height = 1;
  const pen = swatch.getContext("2d");
  pen.fillStyle = `rgb(${color.join(" ")})`;
  pen.fillRect(0, 0, 1, 1);
  row.insertCell().append(swatch);
  row.insertCell().textContent = name;
  row.insertCell().textContent = `${(100 * share).toFixed(share < 0.001 ? 3 : 1)} %`;
  return row;
}

at("file").addEventListener("change", (event) => predict(event.target.files[0]));
at("opacity").addEventListener("input", draw);
at("model").addEventListener("change", () => predict(last));
at("token").addEventListener("change", () => loadModels().catch((error) => say(error.message, true)));
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); at("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  predict(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => predict(event.clipboardData.files[0]));
loadModels().catch((error) => say(error.message, true));
