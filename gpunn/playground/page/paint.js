// Colours, maps and charts on canvases.

export const BLUE = [31, 97, 160]; // class 1, positive numbers
export const ORANGE = [202, 97, 14]; // class 0, negative numbers
const WHITE = [250, 250, 248];
const INK = "#1d2430",
  FAINT = "#d9dbdf",
  SOFT = "#5b6472";

// Returns the colour of a number: -1 is orange, 0 nearly white, 1 blue.
export function shade(value) {
  const by = Number.isFinite(value) ? Math.min(1, Math.abs(value)) : 0;
  const to = value < 0 ? ORANGE : BLUE;
  return WHITE.map((from, k) => Math.round(from + (to[k] - from) * by * 0.85));
}

export const ink = (positive) => `rgb(${positive ? BLUE : ORANGE})`;

// Makes a canvas as sharp as the screen, and returns its context in CSS pixels.
export function sharp(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

const small = document.createElement("canvas");

// Paints numbers, row by row from the top, over a whole canvas. `bands` paints classes.
export function paintMap(canvas, values, rows, columns, scale, bands = false) {
  const { context, width, height } = sharp(canvas);
  small.width = columns;
  small.height = rows;
  const inner = small.getContext("2d");
  const image = inner.createImageData(columns, rows);
  for (let k = 0; k < rows * columns; ++k) {
    const value = values[k] / scale;
    const [r, g, b] = shade(bands ? Math.sign(value) * 0.6 : value);
    image.data.set([r, g, b, 255], 4 * k);
  }
  inner.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = !bands && columns > 20;
  context.drawImage(small, 0, 0, width, height);
}

// Paints one line over a canvas, or over what is there if it is not `fresh`; `low` and `high` are the
// ends of its vertical axis.
export function paintLine(canvas, values, low, high, fresh = true) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const context = fresh ? sharp(canvas).context : canvas.getContext("2d");
  if (fresh) {
    context.fillStyle = "#fafaf8";
    context.fillRect(0, 0, width, height);
  }
  const up = (v) => height * (1 - (v - low) / (high - low));
  stroke(context, values, (k) => (width * k) / (values.length - 1), up, INK, 1.8);
}

function stroke(context, values, across, up, color, width, dash = []) {
  context.beginPath();
  let open = false;
  for (let k = 0; k < values.length; ++k) {
    if (!Number.isFinite(values[k])) {
      open = false;
      continue;
    }
    if (open) context.lineTo(across(k), up(values[k]));
    else context.moveTo(across(k), up(values[k]));
    open = true;
  }
  Object.assign(context, { strokeStyle: color, lineWidth: width, lineJoin: "round" });
  context.setLineDash(dash);
  context.stroke();
  context.setLineDash([]);
}

// Paints a point. Points of the test are hollow.
export function paintPoint(context, x, y, positive, hollow, radius = 3.2) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = hollow ? "#fafaf8" : ink(positive);
  context.strokeStyle = hollow ? ink(positive) : "#fafaf8";
  context.lineWidth = hollow ? 1.4 : 0.9;
  context.fill();
  context.stroke();
}

// Paints the curves of the losses over the epochs, on a logarithmic axis.
export function paintLosses(canvas, losses, tests) {
  const { context, width, height } = sharp(canvas);
  const [left, right, top, bottom] = [46, width - 8, 8, height - 30];
  const positive = [...losses, ...tests].filter((v) => v > 0 && Number.isFinite(v));
  const high = 10 ** Math.ceil(Math.log10(Math.max(...positive, 1e-30)) - 1e-9) || 1;
  const least = Math.max(Math.min(...positive, high / 10), high * 1e-12);
  const low = 10 ** Math.min(Math.floor(Math.log10(least)), Math.log10(high) - 1);
  const [from, to] = positive.length ? [Math.log10(low), Math.log10(high)] : [-2, 0];
  const up = (v) =>
    bottom - ((bottom - top) * (Math.log10(Math.max(v, 1e-30)) - from)) / (to - from);
  const last = Math.max(losses.length, 10);
  const across = (k) => left + ((right - left) * k) / (last - 1);
  Object.assign(context, {
    font: "11px system-ui, sans-serif",
    fillStyle: SOFT,
    strokeStyle: FAINT,
    lineWidth: 1,
  });
  const every = Math.ceil((to - from) / 5);
  for (let power = Math.round(from); power <= to + 1e-9; power += every) {
    const y = Math.round(up(10 ** power)) + 0.5;
    context.beginPath();
    context.moveTo(left, y);
    context.lineTo(right, y);
    context.stroke();
    context.textAlign = "right";
    context.fillText(
      power >= -3 && power <= 3 ? String(Number((10 ** power).toPrecision(1))) : `1e${power}`,
      left - 6,
      y + 4,
    );
  }
  context.textAlign = "left";
  context.fillText("epoch 1", left, height - 12);
  context.textAlign = "right";
  context.fillText(String(last), right, height - 12);
  context.save();
  context.beginPath();
  context.rect(left, top - 2, right - left, bottom - top + 4);
  context.clip();
  stroke(context, tests, across, up, SOFT, 1.4, [4, 3]);
  stroke(context, losses, across, up, INK, 1.8);
  context.restore();
}
