// The page: its state, its controls, and new numbers while a run goes on.

let data = JSON.parse(byId("data").textContent);
const view = {
  axis: AXES[0],
  smoothing: 1,
  zoom: null,
  hidden: new Set(),
  allKeys: false,
  // By run: the step whose samples are shown, unless it is the last; and the box that shows them.
  sampled: new Map(),
  samples: new Map(),
  log: Object.fromEntries(CHARTS.map(chart => [chart.id, Boolean(chart.log)])),
};
let charts = [];

// The slider's 0 to 100 are memories of 1 to 1000 steps.
const memoryOf = place => Math.round(10 ** ((3 * place) / 100));
const placeOf = memory => Math.round((100 * Math.log10(memory)) / 3);

function setZoom(zoom) {
  view.zoom = zoom;
  charts.forEach(chart => chart.setZoom());
  byId("reset").hidden = zoom === null && !charts.some(chart => chart.rows);
}

function resetZoom() {
  charts.forEach(chart => {
    chart.rows = null;
  });
  setZoom(null);
}

function setSmoothing(memory) {
  view.smoothing = memory;
  byId("smoothing-value").textContent = memory === 1 ? "off" : `${memory} steps`;
}

function showRuns() {
  const { runs } = data;
  byId("title").textContent = runs.length === 1 ? runs[0].name : `${runs.length} runs`;
  byId("status").replaceChildren(...(runs.length === 1 ? [statusPill(runs[0].summary)] : []));
  byId("notes").replaceChildren(...notes(runs));
  byId("summary").replaceChildren(runs.length === 1 ? summaryOfOne(runs[0]) : summaryOfMany(runs));
  const titled = (what, run) => (runs.length > 1 ? `${what}: ${run.name}` : what);
  byId("details").replaceChildren(
    ...[
      ...runs.map(run => samples(run, view, titled("Samples", run))),
      ...runs.map(run => timeByPart(run, titled("Time by part", run))),
      configurations(runs, view),
      sessions(runs),
    ].filter(Boolean),
  );
  byId("footer").textContent =
    `trainer ${data.version}, ${data.live ? "live" : `written ${when(data.generated)}`}; charts drawn by uPlot (MIT)`;
}

function showChips() {
  if (data.runs.length === 1) return;
  byId("runs").replaceChildren(
    ...data.runs.map((run, index) => {
      const swatch = element("i", "swatch");
      swatch.style.background = `var(--run-${index % 8})`;
      const chip = element("button", "chip", swatch, run.name);
      chip.type = "button";
      const press = () => chip.setAttribute("aria-pressed", !view.hidden.has(run.name));
      press();
      chip.addEventListener("click", () => {
        if (!view.hidden.delete(run.name)) view.hidden.add(run.name);
        press();
        charts.forEach(chart => chart.show());
      });
      return chip;
    }),
  );
}

function makeCharts() {
  charts.forEach(chart => chart.plot.destroy());
  const wanted = CHARTS.filter(chart => data.runs.some(run => shows(chart, run)));
  charts = wanted.map(chart => new Chart(chart, data.runs, view, setZoom, resetZoom));
  byId("charts").replaceChildren(...charts.map(chart => chart.card));
  charts.forEach(chart => chart.build());
}

function showAxes() {
  byId("axis").replaceChildren(
    ...AXES.map(axis => {
      const button = element("button", "", axis.title);
      button.type = "button";
      button.setAttribute("aria-pressed", view.axis === axis);
      button.addEventListener("click", () => {
        view.axis = axis;
        resetZoom();
        showAxes();
        charts.forEach(chart => chart.build());
      });
      return button;
    }),
  );
}

// New numbers: the charts stay as they are, unless another one has something to show.
function renew(fresh) {
  data = fresh;
  showRuns();
  const wanted = CHARTS.filter(chart => data.runs.some(run => shows(chart, run))).map(chart => chart.id);
  if (wanted.join() !== charts.map(chart => chart.spec.id).join()) return makeCharts();
  charts.forEach(chart => {
    chart.runs = data.runs;
    chart.update();
  });
}

// Asks the program that serves this page; it answers 204 while nothing is new.
async function watch() {
  let state = data.state;
  for (;;) {
    await new Promise(done => setTimeout(done, document.hidden ? 10000 : 1000));
    try {
      const answer = await fetch(`data?state=${encodeURIComponent(state)}`, { cache: "no-store" });
      if (answer.status === 200) {
        const fresh = await answer.json();
        state = fresh.state;
        renew(fresh);
      }
      byId("footer").classList.remove("failed");
    } catch {
      byId("footer").textContent =
        "trainer report --watch has ended or does not answer; this page shows what it said last";
      byId("footer").classList.add("failed");
    }
  }
}

let pending = false;
function drawSmoothing() {
  pending = false;
  charts.filter(chart => chart.spec.smooth).forEach(chart => chart.update());
}

byId("smoothing").addEventListener("input", event => {
  // At most once a frame: the slider must not wait for the curves.
  if (!pending) requestAnimationFrame(drawSmoothing);
  pending = true;
  setSmoothing(memoryOf(Number(event.target.value)));
});
byId("reset").addEventListener("click", resetZoom);
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  charts.forEach(chart => chart.build());
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(chart => chart.build()));
new ResizeObserver(() => charts.forEach(chart => chart.resize())).observe(byId("charts"));

// A hundredth of the longest run to begin with.
const longest = Math.max(...data.runs.map(run => run.curves.step.length), 1);
setSmoothing(memoryOf(placeOf(Math.min(100, Math.max(1, longest / 100)))));
byId("smoothing").value = placeOf(view.smoothing);
showRuns();
showChips();
showAxes();
makeCharts();
if (data.live) watch();
// For the browser's console, and for the tests.
window.report = { data: () => data, view, charts: () => charts };
