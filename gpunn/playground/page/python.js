// The same network as a Python program with gpunn. A test runs it and compares its losses.

export function program(state, catalogue, epochs) {
  const { lines, task } = data(state, catalogue);
  const loss = catalogue.losses[state.loss];
  const signs = task === "classes" && loss.signs;
  return [
    "import numpy as np",
    "",
    "import gpunn as gn",
    "",
    ...lines,
    `targets = ${signs ? "(2 * y - 1)" : "y"}[:, None].astype(np.float32)`,
    "x = x.astype(np.float32)",
    ...parts(state),
    "",
    `gn.manual_seed(${state.seed})`,
    ...network(state, catalogue),
    "",
    "trainer = gn.Trainer(",
    "    net,",
    `    loss="${state.loss}",`,
    `    optimizer=${catalogue.optimizers[state.optimizer].line.replace("{lr}", state.lr)},`,
    ...penalty(state),
    `    seed=${state.seed},`,
    ")",
    `history = trainer.fit(${fit(state, epochs)})`,
    'print("loss of the last epoch:", history["loss"][-1])',
    "",
  ].join("\n");
}

function data(state, catalogue) {
  if (state.set === "drawn") {
    const rows = (pick) => state.points.map(pick).join(", ");
    const x = `x = np.array([${rows(([a, b]) => `[${a}, ${b}]`)}])`;
    return { lines: [x, `y = np.array([${rows(([, , label]) => label)}])`], task: "classes" };
  }
  const set = catalogue.sets[state.set];
  const text = set.exact && state.noise === 0 ? set.exact : set.lines;
  const filled = text.replaceAll("{noise}", decimal(state.noise)).replaceAll("{seed}", state.draw);
  return { lines: filled.split("\n"), task: set.task };
}

function decimal(number) {
  return Number.isInteger(number) ? number.toFixed(1) : String(number);
}

// Large sets are split: every third row is for the test.
function parts(state) {
  if (!isSplit(state)) return ["train = np.full(len(x), True)"];
  return ["train = np.arange(len(x)) % 3 < 2"];
}

export function isSplit({ set, noise }) {
  return set !== "drawn" && set !== "patterns" && !(set === "xor" && noise === 0);
}

function network(state, catalogue) {
  const set = catalogue.sets[state.set];
  const width = set ? Object.values(set.points)[0].inputs : 2;
  const map = width === 2 ? catalogue.maps[state.map] : null;
  let inputs = map ? map.size : width;
  const lines = map && map.layer ? [`    ${map.layer},`] : [];
  state.layers.forEach((units, k) => {
    const kind = state.feedback && k > 0 ? "FeedbackLinear" : "Linear";
    lines.push(`    gn.nn.${kind}(${inputs}, ${units}, "${state.activation}"),`);
    if (Number(state.dropout)) lines.push(`    gn.nn.Dropout(${state.dropout}),`);
    inputs = units;
  });
  const kind = state.feedback && state.layers.length ? "FeedbackLinear" : "Linear";
  lines.push(`    gn.nn.${kind}(${inputs}, 1),`);
  return ["net = gn.nn.Sequential(", ...lines, ")"];
}

function penalty({ l1, l2 }) {
  const terms = [l1 ? `gn.optim.L1(${l1})` : "", l2 ? `gn.optim.L2(${l2})` : ""].filter(Boolean);
  return terms.length ? [`    regularizer=${terms.join(" + ")},`] : [];
}

function fit(state, epochs) {
  const held = isSplit(state) ? ", validation=(x[~train], targets[~train])" : "";
  const given = `epochs=${epochs}, batch_size=${state.batch}`;
  return `x[train], targets[train]${held}, ${given}`;
}
