// The controls of the data and the training: what they offer, show and say.

import { BATCHES, LIMITS, RATES, STRENGTHS } from "./state.js";

const byId = (name) => document.getElementById(name);

function offer(name, options) {
  byId(name).replaceChildren(...options.map(([value, text]) => new Option(text, value)));
}

// Fills the controls whose options are always the same.
export function fillControls(catalogue) {
  const sets = Object.entries(catalogue.sets).map(([name, { title }]) => [name, title]);
  offer("set", [...sets, ["drawn", "Draw your own"]]);
  offer(
    "map",
    Object.entries(catalogue.maps).map(([name, { title }]) => [name, title]),
  );
  offer(
    "activation",
    Object.keys(catalogue.activations).map((name) => [name, name]),
  );
  offer(
    "loss",
    Object.keys(catalogue.losses).map((name) => [name, name]),
  );
  offer(
    "optimizer",
    Object.entries(catalogue.optimizers).map(([name, { title }]) => [name, title]),
  );
  offer(
    "lr",
    RATES.map((rate) => [rate, rate]),
  );
  offer(
    "batch",
    BATCHES.map((size) => [size, size]),
  );
  for (const name of ["l1", "l2"])
    offer(
      name,
      STRENGTHS.map((by) => [by, by]),
    );
  offer(
    "dropout",
    Object.keys(catalogue.rates).map((rate) => [rate, rate]),
  );
}

// Shows a state in the controls.
export function showControls(state, data, catalogue) {
  const set = catalogue.sets[state.set];
  offer(
    "noise",
    (set ? set.noises : [0]).map((noise) => [noise, noise]),
  );
  const draws = set ? new Set(Object.keys(set.points).map((name) => name.split(" ")[1])) : ["0"];
  offer(
    "draw",
    [...draws].map((draw) => [draw, Number(draw) + 1]),
  );
  byId("noise").disabled = !set || set.noises.length < 2;
  byId("draw").disabled = draws.size < 2 || !set || (set.exact !== null && state.noise === 0);
  byId("map").disabled = data.kind !== "plane";
  for (const option of byId("loss").options) {
    const loss = catalogue.losses[option.value];
    option.disabled = data.task === "numbers" && loss.classes;
  }
  for (const name of [
    "set",
    "noise",
    "draw",
    "map",
    "activation",
    "loss",
    "optimizer",
    "lr",
    "batch",
    "l1",
    "l2",
    "dropout",
  ]) {
    byId(name).value = String(state[name]);
    if (byId(name).selectedIndex < 0) byId(name).selectedIndex = 0;
  }
  byId("feedback").checked = state.feedback;
  byId("drawing").hidden = state.set !== "drawn";
  byId("test-legend").hidden = !data.split;
  const depth = state.layers.length;
  byId("depth").textContent = `${depth} hidden layer${depth === 1 ? "" : "s"}`;
  byId("fewer").disabled = depth === 0;
  byId("more").disabled = depth === LIMITS.layers;
}

// Returns the values that a control changes. An optimizer brings its own learning rate.
export function readControls(state, catalogue, name) {
  const control = byId(name);
  if (name === "feedback") return { feedback: control.checked };
  if (["noise", "draw", "lr", "l1", "l2", "batch"].includes(name))
    return { [name]: Number(control.value) };
  if (name === "set") {
    const numbers = catalogue.sets[control.value]?.task === "numbers";
    const loss =
      numbers && catalogue.losses[state.loss].classes ? "half_squared_error" : state.loss;
    return { set: control.value, draw: 0, loss };
  }
  return { [name]: control.value };
}
