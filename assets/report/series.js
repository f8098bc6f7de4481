// From the columns of runs to the points of a chart.

// What each chart shows. `smooth`: noisy enough to be smoothed. `stepped`: constant between changes.
const CHARTS = [
  {
    id: "loss",
    title: "Loss",
    unit: "nats a token",
    format: v => v.toFixed(4),
    smooth: true,
    validation: true,
    wide: true,
  },
  { id: "lr", title: "Learning rate", format: v => (v === 0 ? "0" : v.toExponential(3).replace("e+", "e")) },
  { id: "grad_norm", title: "Gradient norm", unit: "before clipping", format: number, smooth: true },
  { id: "tokens_per_s", title: "Speed", unit: "tokens a second", format: number, smooth: true },
  { id: "mfu", title: "MFU", unit: "share of the device's peak FLOP/s", format: percent, smooth: true },
  { id: "memory", title: "Memory", unit: "held by the device or, on the CPU, the process", format: bytes, stepped: true },
  {
    id: "loss_scale",
    title: "Loss scale",
    unit: "rings: skipped steps",
    format: count,
    stepped: true,
    skips: true,
    log: 2,
  },
  {
    id: "communication",
    title: "Exchange",
    unit: "share of a step spent between ranks",
    format: percent,
    smooth: true,
  },
];

// The horizontal axes. `increments`: the distances that marks may have, where round numbers are others than uPlot's.
const AXES = [
  {
    id: "step",
    title: "Steps",
    format: v => `step ${count(v)}`,
    marks: marks => marks.map(count),
    increments: Array.from({ length: 9 }, (_, power) => [1, 2, 5].map(digit => digit * 10 ** power)).flat(),
  },
  { id: "tokens", title: "Tokens", format: v => `${short(v)} tokens`, marks: shortMarks },
  {
    id: "seconds",
    title: "Time",
    format: duration,
    marks: marks => marks.map(duration),
    increments: [
      0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800,
      432000, 864000, 1728000,
    ],
  },
];

// Mean of the steps around each; one that is d steps away has the weight (1 - 1 / steps)^d: an exponential moving
// average from both sides, so that nothing is shifted to later steps. Gaps stay gaps.
function smoothed(values, step, steps) {
  if (steps <= 1) return values;
  const keep = 1 - 1 / steps;
  const sums = new Float64Array(values.length),
    weights = new Float64Array(values.length);
  const pass = (from, to, stride) => {
    let sum = 0,
      weight = 0,
      last = from;
    for (let i = from; i !== to; i += stride) {
      const fade = keep ** Math.abs(step[i] - step[last]);
      last = i;
      sum *= fade;
      weight *= fade;
      // Without the value itself, which would count from both sides.
      sums[i] += sum;
      weights[i] += weight;
      if (!known(values[i])) continue;
      sum += values[i];
      weight += 1;
    }
  };
  pass(0, values.length, 1);
  pass(values.length - 1, -1, -1);
  return values.map((value, i) => (known(value) ? (sums[i] + value) / (weights[i] + 1) : value));
}

// Whether a chart has anything to show of a run.
function shows(chart, run) {
  const curves = run.curves;
  if (chart.skips) return curves.loss_scale.some(scale => known(scale) && scale !== 1) || curves.skipped.some(Boolean);
  return curves[chart.id].some(known) || (chart.validation && curves.validation.loss.some(known));
}

// A logarithm shows positive numbers alone. Undefined is where a series has no point at all.
const positive = values => values.map(value => (value === undefined || value > 0 ? value : null));

// The points of a chart: uPlot's aligned data, and what each of its series is.
function chartPoints(chart, runs, view) {
  const tables = [],
    series = [];
  const log = view.log[chart.id];
  const add = (x, y, kind, run) => {
    tables.push([x, log ? positive(y) : y]);
    series.push({ kind, run });
  };
  runs.forEach((run, index) => {
    const { curves } = run;
    const x = curves[view.axis.id];
    const raw = curves[chart.id];
    if (chart.smooth) {
      add(x, raw, "raw", index);
      add(x, smoothed(raw, curves.step, view.smoothing), "smoothed", index);
    } else {
      add(x, raw, "plain", index);
    }
    if (chart.skips)
      add(
        x,
        raw.map((value, i) => (curves.skipped[i] ? value : undefined)),
        "skipped",
        index,
      );
    if (chart.validation) add(curves.validation[view.axis.id], curves.validation.loss, "validation", index);
  });
  const filled = tables.map(([x, y]) => (x.length ? [x, y] : [[], []]));
  return { data: uPlot.join(filled), series };
}

// From the first to the last point of all runs on the horizontal axis.
function domain(runs, axis) {
  let from = Infinity,
    to = -Infinity;
  for (const { curves } of runs) {
    const x = curves[axis.id].length ? curves[axis.id] : curves.validation[axis.id];
    if (!x.length) continue;
    from = Math.min(from, x[0]);
    to = Math.max(to, x[x.length - 1]);
  }
  if (from > to) return [0, 1];
  return from === to ? [from - 1, to + 1] : [from, to];
}
