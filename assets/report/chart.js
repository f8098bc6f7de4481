// One chart: a card with uPlot in it.

class Chart {
  constructor(spec, runs, view, zoom, reset) {
    Object.assign(this, { spec, runs, view, zoom, reset, plot: null, rows: null });
    this.now = element("span", "now");
    this.log = element("button", "", "log");
    this.log.type = "button";
    this.log.title = "Logarithmic or linear";
    this.log.addEventListener("click", () => {
      view.log[spec.id] = !view.log[spec.id];
      this.rows = null;
      this.build();
    });
    const head = element("div", "card-head", element("h2", "", spec.title), element("span", "unit", spec.unit ?? ""));
    this.key = element("span", "key");
    head.append(this.key, element("span", "right", this.now, this.log));
    this.place = element("div", "plot");
    this.card = element("section", spec.wide ? "card wide" : "card", head, this.place);
    this.card.id = `chart-${spec.id}`;
    this.tip = element("div", "tip");
    this.tip.hidden = true;
  }

  // Draws everything anew: another axis, theme or scale.
  build() {
    this.plot?.destroy();
    this.log.setAttribute("aria-pressed", Boolean(this.view.log[this.spec.id]));
    const { data, series } = chartPoints(this.spec, this.runs, this.view);
    this.series = series;
    const size = this.size();
    this.plot = new uPlot({ ...size, ...this.options(series) }, data, this.place);
    this.plot.over.append(this.tip);
    this.touch();
    this.show();
    this.showKey();
    this.readOut();
  }

  // New numbers, or another smoothing, with the zoom as it is.
  update() {
    const { data, series } = chartPoints(this.spec, this.runs, this.view);
    if (series.length !== this.series.length) return this.build();
    this.plot.batch(() => {
      this.plot.setData(data, false);
      this.show();
      this.setZoom();
    });
    this.showKey();
    this.readOut();
  }

  size() {
    const width = Math.max(200, this.place.clientWidth);
    return { width, height: this.spec.wide ? Math.max(240, Math.min(420, width * 0.42)) : 215 };
  }

  resize() {
    this.plot?.setSize(this.size());
  }

  // The stretch of the horizontal axis is that of all charts, `rows` of this one alone.
  setZoom() {
    const [min, max] = this.view.zoom ?? domain(this.runs, this.view.axis);
    this.plot.batch(() => {
      this.plot.setScale("x", { min, max });
      if (this.rows) this.plot.setScale("y", { min: this.rows[0], max: this.rows[1] });
    });
  }

  isShown({ kind, run }) {
    return !this.view.hidden.has(this.runs[run].name) && (kind !== "raw" || this.view.smoothing > 1);
  }

  show() {
    this.series.forEach((one, i) => {
      const show = this.isShown(one);
      if (this.plot.series[i + 1].show !== show) this.plot.setSeries(i + 1, { show });
    });
  }

  options(series) {
    const { spec, view } = this;
    const axis = {
      stroke: colour("--quiet"),
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { show: false },
      font: FONT,
    };
    const [min, max] = view.zoom ?? domain(this.runs, view.axis);
    const logarithmic = view.log[spec.id];
    return {
      padding: [10, 24, 0, 0],
      legend: { show: false },
      scales: {
        x: { time: false, min, max, range: (_, from, to) => (known(from) ? [from, to] : [min, max]) },
        y: {
          ...(logarithmic ? { distr: 3, log: spec.log ?? 10 } : {}),
          range: (_, from, to) => this.rows ?? (logarithmic ? logRange(from, to) : linearRange(from, to)),
        },
      },
      axes: [
        {
          ...axis,
          size: 30,
          space: plot => (plot.width < 500 ? 58 : 78),
          incrs: view.axis.increments,
          values: (_, marks, __, ___, step) => (marks.length ? view.axis.marks(marks, step) : []),
        },
        { ...axis, size: 62, space: logarithmic ? 26 : 34, values: (_, marks) => axisMarks(spec, marks) },
      ],
      series: [{}, ...series.map(one => this.lineOf(one))],
      cursor: {
        y: false,
        drag: { x: true, y: true, uni: 40, setScale: false, dist: 8 },
        // The others follow the pointer, but a drag is one chart's.
        sync: {
          key: "steps",
          scales: ["x", null],
          filters: { pub: type => type === "mousemove" || type === "mouseleave" },
        },
        focus: { prox: -1 },
        hover: { prox: 26, skip: [undefined, null] },
        points: { size: 7, width: 2 },
        bind: { dblclick: () => () => this.reset() },
      },
      hooks: { setSelect: [plot => this.selected(plot)], setCursor: [() => this.moved()] },
    };
  }

  lineOf({ kind, run }) {
    const single = this.runs.length === 1;
    const line = runColour(run);
    const plain = { stroke: line, width: 1.75, points: { show: false } };
    switch (kind) {
      case "raw":
        return { ...plain, stroke: faint(line, 0.28), width: 1 };
      case "skipped":
        return {
          stroke: colour("--bad"),
          paths: () => null,
          points: { show: true, space: 0, size: 7, width: 2, fill: colour("--card") },
        };
      case "validation": {
        const stroke = single ? runColour(1) : line;
        return {
          stroke,
          width: 1.5,
          dash: [5, 4],
          spanGaps: true,
          points: { show: true, space: 8, size: 6, width: 2, fill: colour("--card") },
        };
      }
      default:
        return this.spec.stepped ? { ...plain, paths: uPlot.paths.stepped({ align: -1 }) } : plain;
    }
  }

  selected(plot) {
    const { left, top, width, height } = plot.select;
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    if (width < 4 || height < 4) return;
    // A drag along one axis leaves the other as it is; along both it zooms the values of this chart as well.
    const over = plot.over.getBoundingClientRect();
    if (height < over.height - 1) this.rows = [plot.posToVal(top + height, "y"), plot.posToVal(top, "y")];
    this.zoom(width < over.width - 1 ? [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")] : this.view.zoom);
  }

  // What the lines of the loss mean.
  showKey() {
    this.key.replaceChildren();
    if (!this.spec.validation || !this.runs.some(run => run.curves.validation.step.length)) return;
    const single = this.runs.length === 1;
    const mark = (className, tint) => {
      const made = element("i", className);
      made.style.background = made.style.borderColor = tint;
      return made;
    };
    const train = single ? runColour(0) : colour("--quiet"),
      validation = single ? runColour(1) : colour("--quiet");
    this.key.append(
      element("span", "", mark("swatch", train), "train"),
      element("span", "", mark("swatch ring", validation), "validation"),
    );
  }
}

const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

function linearRange(from, to) {
  if (!known(from)) return [0, 1];
  return from === to
    ? [from - Math.abs(from || 1) / 2, to + Math.abs(to || 1) / 2]
    : uPlot.rangeNum(from, to, 0.06, true);
}

// Half a tenth of the range to either side, not whole powers of ten: losses would shrink to a line.
function logRange(from, to) {
  if (!known(from) || from <= 0) return [0.1, 1];
  const room = from === to ? 2 : (to / from) ** 0.05;
  return [from / room, to * room];
}

function axisMarks(spec, marks) {
  const shown = marks.filter(known);
  const largest = Math.max(...shown.map(Math.abs));
  if (spec.format === percent) return marks.map(mark => (known(mark) ? `${Number((100 * mark).toPrecision(4))}%` : ""));
  if (largest > 0 && largest < 0.01) return marks.map(mark => (known(mark) ? number(mark) : ""));
  if (spec.format === bytes) return marks.map(mark => (known(mark) ? bytes(mark) : ""));
  if (spec.format === count) return marks.map(mark => (known(mark) ? count(mark) : ""));
  return marks.map(mark =>
    known(mark) ? (Math.abs(mark) >= 1000 ? short(mark) : Number(mark.toPrecision(6)).toString()) : "",
  );
}
