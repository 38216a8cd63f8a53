// The state of the page: what is trained, and how. It stands in the address behind #.

export const LIMITS = { layers: 5, units: 8 };
const NAMES = ["set", "map", "activation", "loss", "optimizer", "dropout"];
const DEFAULTS = {
  ...{ set: "spiral", noise: 0.1, draw: 0, map: "plain", layers: [8, 8], activation: "tanh" },
  ...{ loss: "half_squared_error", optimizer: "adam", lr: 0.03, l1: 0, l2: 0, batch: 16 },
  ...{ dropout: "0", feedback: false, seed: 1, points: [] },
};
export const RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3];
export const STRENGTHS = [0, 0.00001, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1];
export const BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 200];

// Returns the state of an address. What is unknown or outside its range becomes the default.
export function parse(text, catalogue) {
  const given = new URLSearchParams(text.replace(/^#/, ""));
  const state = structuredClone(DEFAULTS);
  const registry = {
    set: { ...catalogue.sets, drawn: {} },
    map: catalogue.maps,
    activation: catalogue.activations,
    loss: catalogue.losses,
    optimizer: catalogue.optimizers,
    dropout: catalogue.rates,
  };
  for (const name of NAMES) {
    const value = given.get(name);
    if (value !== null && Object.hasOwn(registry[name], value)) state[name] = value;
  }
  const among = { lr: RATES, l1: STRENGTHS, l2: STRENGTHS, batch: BATCHES };
  for (const [name, values] of Object.entries(among)) {
    if (values.includes(Number(given.get(name) ?? NaN))) state[name] = Number(given.get(name));
  }
  const seed = Number(given.get("seed") ?? NaN);
  if (Number.isSafeInteger(seed) && seed >= 0) state.seed = seed;
  state.feedback = given.get("feedback") === "1";
  if (given.has("layers")) state.layers = sizes(given.get("layers"));
  if (given.has("points")) state.points = points(given.get("points"));
  const set = catalogue.sets[state.set];
  if (set) {
    const noise = Number(given.get("noise") ?? NaN);
    if (set.noises.includes(noise)) state.noise = noise;
    else if (!set.noises.includes(state.noise))
      state.noise = set.noises[Math.min(1, set.noises.length - 1)];
    const draw = Number(given.get("draw") ?? 0);
    if (Object.hasOwn(set.points, key(state.noise, draw))) state.draw = draw;
  }
  return state;
}

// Returns the name of the points of a data set for a noise and a draw, as sets.py writes it.
export function key(noise, draw) {
  return `${Number.isInteger(noise) ? noise.toFixed(1) : noise} ${draw}`;
}

// Returns the text behind # for a state: all that differs from the defaults.
export function format(state) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (
      name === "points"
        ? state.set !== "drawn"
        : name === "set"
          ? false
          : same(value, DEFAULTS[name])
    )
      continue;
    parts.set(name, written(name, value));
  }
  return parts.toString();
}

function same(a, b) {
  return JSON.stringify(a) === JSON.stringify(b);
}

function written(name, value) {
  if (name === "layers") return value.join("-");
  if (name === "points")
    return value
      .map(([x, y, label]) => [x * 100, y * 100, label].map(Math.round).join(","))
      .join(";");
  return typeof value === "boolean" ? String(Number(value)) : String(value);
}

function sizes(text) {
  const found = text.split("-").filter(Boolean).map(Number).slice(0, LIMITS.layers);
  return found.filter((n) => Number.isInteger(n) && n >= 1 && n <= LIMITS.units);
}

function points(text) {
  const found = text.split(";").map((part) => part.split(",").map(Number));
  return found
    .filter(
      ([x, y, label]) => Math.abs(x) <= 140 && Math.abs(y) <= 140 && (label === 0 || label === 1),
    )
    .map(([x, y, label]) => [x / 100, y / 100, label])
    .slice(0, 400);
}
