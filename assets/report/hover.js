// What a chart says under the pointer, a finger, or where the pointer is on another chart.

Object.assign(Chart.prototype, {
  moved() {
    const { cursor } = this.plot;
    const here = cursor.left >= 0 && known(cursor.idx);
    this.readOut(here ? cursor.idxs : null);
    // On the chart under the pointer or the finger alone; the others move along, without an event of their own.
    if (cursor.event) Chart.pointed = this;
    const mine = here && Chart.pointed === this;
    this.tip.hidden = !mine;
    if (mine) this.fillTip();
  },

  // The values of one run: of series `i` at its own index.
  valueAt(i, idxs) {
    const at = idxs[i + 1];
    return known(at) ? this.plot.data[i + 1][at] : null;
  },

  fillTip() {
    const { plot, spec, view } = this;
    const { idx, idxs, left, top } = plot.cursor;
    const rows = [];
    this.runs.forEach((run, index) => {
      if (view.hidden.has(run.name)) return;
      const of = kind => {
        const i = this.series.findIndex(one => one.run === index && one.kind === kind);
        return i < 0 || !plot.series[i + 1].show ? null : this.valueAt(i, idxs);
      };
      const main = of("plain") ?? of("smoothed"),
        raw = of("raw"),
        validation = of("validation");
      const skipped = known(of("skipped")) && idxs.length > 0;
      if (!known(main) && !known(validation)) return;
      const swatch = element("i", "swatch");
      swatch.style.background = runColour(index);
      const name = this.runs.length > 1 ? run.name : spec.validation ? "train" : spec.title;
      const row = element(
        "tr",
        "",
        element("td", "", swatch, name),
        element("td", "", known(raw ?? main) ? spec.format(raw ?? main) : ""),
      );
      row.append(element("td", "quiet", known(raw) ? `smooth ${spec.format(main)}` : skipped ? "skipped" : ""));
      rows.push(row);
      if (known(validation)) {
        const ring = element("i", "swatch ring");
        ring.style.borderColor = runColour(this.runs.length > 1 ? index : 1);
        rows.push(element("tr", "", element("td", "", ring, "validation"), element("td", "", spec.format(validation))));
      }
    });
    const table = element("table", "", ...rows);
    this.tip.replaceChildren(element("div", "quiet", view.axis.format(plot.data[0][idx])), table);
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const over = plot.over.getBoundingClientRect();
    const right = left + 16 + width < over.width;
    this.tip.style.left = `${right ? left + 16 : Math.max(0, left - width - 16)}px`;
    this.tip.style.top = `${Math.min(Math.max(0, top + 12), Math.max(0, over.height - height - 4))}px`;
  },

  // A single run's value in the card's head: under the pointer, else the last one.
  readOut(idxs = null) {
    if (this.runs.length > 1) return;
    const wanted = this.series.map((one, i) => ({ ...one, i })).filter(one => ["plain", "smoothed"].includes(one.kind));
    const last = values => values.findLastIndex(known);
    const text = wanted.map(({ i }) => {
      const value = idxs ? this.valueAt(i, idxs) : this.plot.data[i + 1][last(this.plot.data[i + 1])];
      return known(value) ? this.spec.format(value) : "";
    });
    this.now.textContent = text.join(" ");
  },

  // One finger moves the cursor, two zoom; up and down scrolls the page.
  touch() {
    const { over } = this.plot;
    const place = touch => touch.clientX - over.getBoundingClientRect().left;
    let pinch = null;
    const hover = touch => {
      Chart.pointed = this;
      const box = over.getBoundingClientRect();
      this.plot.setCursor({ left: place(touch), top: touch.clientY - box.top }, true, true);
    };
    over.addEventListener(
      "touchstart",
      event => {
        if (event.touches.length === 2) {
          pinch = [...event.touches].map(touch => this.plot.posToVal(place(touch), "x")).sort((a, b) => a - b);
        } else {
          hover(event.touches[0]);
        }
      },
      { passive: true },
    );
    over.addEventListener(
      "touchmove",
      event => {
        if (!pinch) return hover(event.touches[0]);
        if (event.touches.length < 2) return;
        // The two values stay under the two fingers.
        const [a, b] = [...event.touches].map(place).sort((x, y) => x - y);
        if (b - a < 12 || pinch[0] === pinch[1]) return;
        const scale = (pinch[1] - pinch[0]) / (b - a);
        const from = pinch[0] - a * scale;
        const [first, last] = domain(this.runs, this.view.axis);
        const zoom = [Math.max(first, from), Math.min(last, from + over.clientWidth * scale)];
        this.zoom(zoom[0] <= first && zoom[1] >= last ? null : zoom);
      },
      { passive: true },
    );
    over.addEventListener(
      "touchend",
      event => {
        if (!event.touches.length) pinch = null;
      },
      { passive: true },
    );
  },
});
