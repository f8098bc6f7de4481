// Everything that is not a curve: numbers, configurations, sessions.

function statusPill(summary) {
  const pill = element("span", `pill ${summary.status}`);
  pill.textContent =
    summary.status === "stopped" || summary.status === "failed"
      ? `${summary.status} at step ${count(summary.step)}`
      : summary.status;
  if (summary.message) pill.title = summary.message;
  return pill;
}

// [label, value, what stands beneath it] of what is known of a run.
function facts(run) {
  const s = run.summary;
  const left =
    known(s.steps) && s.step > 0 && s.status === "running" ? (s.steps - s.step) * (s.seconds / s.step) : null;
  const memory = run.sessions.map(session => session.end?.peak_memory).filter(known);
  return [
    ["Step", count(s.step), known(s.steps) ? `of ${count(s.steps)} steps` : "steps"],
    ["Loss", known(s.loss) ? s.loss.toFixed(4) : "-", "training loss"],
    known(s.best_val_loss) && [
      "Best validation",
      s.best_val_loss.toFixed(4),
      `best validation, step ${count(s.best_val_step)}`,
    ],
    ["Tokens", short(s.tokens), "tokens trained"],
    known(s.tokens_per_s) && ["Tokens/s", number(s.tokens_per_s), "tokens/s, median of 100 steps"],
    known(s.mfu) && ["MFU", percent(s.mfu), "MFU, median of 100 steps"],
    ["Time", duration(s.seconds), known(left) ? `of training, about ${duration(left)} left` : "of training"],
    s.skipped > 0 && ["Skipped", count(s.skipped), "steps skipped (fp16 overflow)"],
    memory.length > 0 && ["Memory", bytes(Math.max(...memory)), "peak memory"],
  ].filter(Boolean);
}

function summaryOfOne(run) {
  const tiles = facts(run).map(([label, value, beneath]) => {
    const tile = element("div", "stat", element("b", "", value), element("span", "", beneath));
    if (label === "Step" && run.summary.steps) {
      const bar = element("progress");
      bar.max = run.summary.steps;
      bar.value = run.summary.step;
      bar.setAttribute("aria-label", "steps made");
      tile.append(bar);
    }
    return tile;
  });
  return element("div", "stats", ...tiles);
}

function summaryOfMany(runs) {
  const all = runs.map(run => new Map(facts(run).map(([label, value]) => [label, value])));
  const labels = ["Step", "Loss", "Best validation", "Tokens", "Tokens/s", "MFU", "Time", "Skipped", "Memory"].filter(
    label => all.some(of => of.has(label)),
  );
  const head = element(
    "tr",
    "",
    element("th", "", "Run"),
    element("th", "", "State"),
    ...labels.map(label => element("th", "", label)),
  );
  const rows = runs.map((run, index) => {
    const swatch = element("i", "swatch");
    swatch.style.background = `var(--run-${index % 8})`;
    return element(
      "tr",
      "",
      element("td", "name", swatch, " ", run.name),
      element("td", "", statusPill(run.summary)),
      ...labels.map(label => element("td", "number", all[index].get(label) ?? "")),
    );
  });
  return element("div", "table", element("table", "", head, ...rows));
}

// One run: its tables side by side. Several: a column each, with what differs marked.
function configurations(runs, view) {
  if (!runs.some(run => run.config.length)) return null;
  const box = element("div", "table");
  const head = element("div", "table-head", element("h2", "", "Configuration"));
  box.append(head);
  if (runs.length === 1) {
    const groups = new Map();
    for (const [key, value] of runs[0].config) {
      const dot = key.lastIndexOf(".");
      const group = dot < 0 ? "" : key.slice(0, dot);
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(element("tr", "", element("th", "", key.slice(dot + 1)), element("td", "number", value)));
    }
    box.append(
      element(
        "div",
        "groups",
        ...[...groups].map(([name, rows]) =>
          element("div", "", element("h3", "", name), element("table", "", ...rows)),
        ),
      ),
    );
    return box;
  }
  const configs = runs.map(run => new Map(run.config));
  const keys = [...new Set(runs.flatMap(run => run.config.map(([key]) => key)))];
  const differs = key => new Set(configs.map(config => config.get(key))).size > 1;
  const different = keys.filter(differs).length;
  const toggle = element("button", "", view.allKeys ? "only differences" : "all keys");
  toggle.type = "button";
  toggle.addEventListener("click", () => {
    view.allKeys = !view.allKeys;
    box.replaceWith(configurations(runs, view));
  });
  head.append(element("span", "quiet", `${different} of ${keys.length} keys differ`), toggle);
  const rows = keys
    .filter(key => view.allKeys || differs(key))
    .map(key => {
      const row = element("tr", differs(key) ? "differs" : "", element("th", "", key));
      row.append(...configs.map(config => element("td", "", config.get(key) ?? "-")));
      return row;
    });
  if (rows.length) {
    box.append(
      element("table", "", element("tr", "", element("th"), ...runs.map(run => element("th", "", run.name))), ...rows),
    );
  }
  return box;
}

function sessions(runs) {
  const rows = runs.flatMap(run =>
    run.sessions.map((session, index) => {
      const end = session.end;
      const ongoing = !end && run.summary.status === "running" && index === run.sessions.length - 1;
      const how = end ? `${end.outcome} after step ${count(end.step)}` : ongoing ? "running" : "ended without a word";
      const cells = [
        when(session.started),
        `from step ${count(session.step + 1)}, ${how}`,
        session.device,
        session.ranks > 1 ? count(session.ranks) : "",
        session.host,
        session.system,
        `trainer ${session.version}`,
        known(end?.peak_memory) ? bytes(end.peak_memory) : "",
      ];
      if (runs.length > 1) cells.unshift(run.name);
      return element("tr", "", ...cells.map(cell => element("td", "", cell)));
    }),
  );
  if (!rows.length) return null;
  const names = ["Begun", "Steps", "Device", "Ranks", "Host", "System", "Version", "Peak memory"];
  if (runs.length > 1) names.unshift("Run");
  const head = element("tr", "", ...names.map(name => element("th", "", name)));
  return element(
    "div",
    "table",
    element("div", "table-head", element("h2", "", "Sessions")),
    element("table", "", head, ...rows),
  );
}

// What the reader should know about the curves.
function notes(runs) {
  const lines = [];
  for (const run of runs) {
    const name = runs.length > 1 ? `${run.name}: ` : "";
    if (run.summary.message) lines.push(`${name}${run.summary.status}: ${run.summary.message}`);
    if (run.thinned) {
      lines.push(
        `${name}${count(run.thinned.kept)} of ${count(run.thinned.of)} steps are drawn: of each stretch ` +
          "those with the lowest and highest loss and gradient norm.",
      );
    }
    if (!run.curves.step.length) lines.push(`${name}no step yet`);
  }
  return lines.map(line => element("p", "note", line));
}

// What a run wrote at its validations: one at a time, the last one first.
function samples(run, view, title) {
  if (!run.samples.length) return null;
  // A live page is renewed every second, and a slider that is replaced is dropped by the hand that moves it.
  const kept = view.samples.get(run.name);
  if (kept?.count === run.samples.length) return kept.box;
  const steps = [...new Set(run.samples.map(sample => sample.step))].sort((a, b) => a - b);
  const slider = element("input");
  Object.assign(slider, { type: "range", min: 0, max: steps.length - 1, step: 1 });
  slider.setAttribute("aria-label", "validation");
  // New numbers leave the reader at the step that was chosen.
  const chosen = steps.indexOf(view.sampled.get(run.name));
  slider.value = chosen < 0 ? steps.length - 1 : chosen;
  const step = element("span", "quiet");
  const texts = element("div", "samples");
  const show = () => {
    const at = steps[Number(slider.value)];
    step.textContent = `after step ${count(at)}`;
    texts.replaceChildren(
      ...run.samples
        .filter(sample => sample.step === at)
        .map(sample => element("pre", "", element("span", "quiet", sample.prompt), sample.text)),
    );
  };
  slider.addEventListener("input", () => {
    const last = Number(slider.value) === steps.length - 1;
    view.sampled.set(run.name, last ? undefined : steps[Number(slider.value)]);
    show();
  });
  show();
  const head = element("div", "table-head slider", element("h2", "", title), step);
  if (steps.length > 1) head.append(slider);
  const box = element("div", "table", head, texts);
  view.samples.set(run.name, { box, count: run.samples.length });
  return box;
}

// Where the time of a run's profiled steps went.
function timeByPart(run, title) {
  if (!run.parts) return null;
  const { parts, profiled_step_ms: ms, profiled_steps: steps } = run.parts;
  const shown = parts.filter(part => part.share >= 0.001);
  const rows = shown.map(part => {
    const bar = element("i", "bar");
    bar.style.width = `${(100 * part.share).toFixed(2)}%`;
    const rate = value => (known(value) ? number(value) : "");
    const cells = [part.ms.toFixed(2), percent(part.share), number(part.calls), rate(part.gflops), rate(part.gb_per_s)];
    return element(
      "tr",
      "",
      element("td", "name", part.part),
      element("td", "bars", bar),
      ...cells.map(cell => element("td", "number", cell)),
    );
  });
  if (shown.length < parts.length) {
    const rest = `${count(parts.length - shown.length)} others, each below 0.1%`;
    rows.push(element("tr", "", element("td", "quiet", rest)));
  }
  const names = [element("th", "", "Part"), element("th")].concat(
    ["ms", "Share", "Calls", "GFLOP/s", "GB/s"].map(name => element("th", "number", name)),
  );
  return element(
    "div",
    "table",
    element(
      "div",
      "table-head",
      element("h2", "", title),
      element("span", "quiet", `${ms.toFixed(2)} ms a step, mean of ${count(steps)}, one operation at a time`),
    ),
    element("table", "parts", element("tr", "", ...names), ...rows),
  );
}
