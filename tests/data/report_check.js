// Runs in a report's page: works its controls by the events that a user's hand makes, and leaves what it found in the
// document as JSON (element "checked"). tests/report.rs puts it there and compares.
(async () => {
  const pause = () => new Promise(done => setTimeout(done, 60));
  const { view, charts } = window.report;
  const byId = id => document.getElementById(id);
  const chart = id => charts().find(chart => chart.spec.id === id);
  // Points that a series draws, and whether it is shown.
  const points = one => one.series.map((series, i) => {
    const [x, y] = [one.plot.data[0], one.plot.data[i + 1]];
    const drawn = x.map((_, at) => at).filter(at => y[at] !== undefined);
    return { ...series, shown: one.plot.series[i + 1].show, x: drawn.map(at => x[at]), y: drawn.map(at => y[at]) };
  });
  // Pixels that are neither background nor grid nor text, which are all grey.
  const painted = ({ plot }) => {
    const { left, top, width, height } = plot.bbox;
    const pixels = plot.ctx.getImageData(left, top, width, height).data;
    let coloured = 0;
    for (let i = 0; i < pixels.length; i += 4) {
      const [r, g, b, a] = pixels.slice(i, i + 4);
      if (a > 100 && Math.max(r, g, b) - Math.min(r, g, b) > 60) coloured++;
    }
    return coloured;
  };
  const smooth = async place => {
    byId("smoothing").value = place;
    byId("smoothing").dispatchEvent(new Event("input", { bubbles: true }));
    await pause();
  };
  const mouse = async (type, one, x, y, target = one.plot.over) => {
    const box = one.plot.over.getBoundingClientRect();
    // uPlot leaves out events that do not move.
    target.dispatchEvent(new MouseEvent(type, { bubbles: true, button: 0, movementX: 1, movementY: 1,
      clientX: box.left + x * box.width, clientY: box.top + y * box.height }));
    await pause();
  };
  const found = { charts: {} };
  try {
    await pause();
    await smooth(0);
    for (const one of charts()) found.charts[one.spec.id] = { points: points(one), painted: painted(one) };
    await smooth(33);
    found.smoothing = view.smoothing;
    found.smoothed = points(chart("loss"));

    const loss = chart("loss");
    loss.log.click();
    await pause();
    found.log = { distribution: loss.plot.scales.y.distr, points: points(loss) };
    loss.log.click();
    await pause();

    await mouse("mouseenter", loss, 0.5, 0.5);
    await mouse("mousemove", loss, 1, 0.5);
    found.tip = loss.tip.hidden ? null : loss.tip.innerText;

    await mouse("mousemove", loss, 0.25, 0.5);
    await mouse("mousedown", loss, 0.25, 0.5);
    await mouse("mousemove", loss, 0.4, 0.5);
    await mouse("mousemove", loss, 0.5, 0.5);
    await mouse("mouseup", loss, 0.5, 0.5, document);
    found.zoom = { x: view.zoom, everywhere: charts().map(({ plot }) => [plot.scales.x.min, plot.scales.x.max]),
      reset: !byId("reset").hidden };
    await mouse("dblclick", loss, 0.5, 0.5);
    found.unzoomed = { x: view.zoom, everywhere: charts().map(({ plot }) => [plot.scales.x.min, plot.scales.x.max]) };

    const chips = [...byId("runs").children];
    found.chips = chips.map(chip => chip.textContent);
    chips[0]?.click();
    await pause();
    found.hidden = points(loss).map(({ run, kind, shown }) => ({ run, kind, shown }));
    chips[0]?.click();
    [...byId("axis").children].find(button => button.textContent === "Tokens").click();
    await pause();
    found.tokens = points(chart("lr"));

    const texts = () => [...document.querySelectorAll(".samples pre")].map(text => text.textContent);
    found.samples = { last: texts() };
    const sampled = document.querySelector(".samples").parentElement.querySelector("input");
    sampled.value = 0;
    sampled.dispatchEvent(new Event("input", { bubbles: true }));
    found.samples.first = texts();

    found.text = document.body.innerText;
    found.wide = document.documentElement.scrollWidth > window.innerWidth;
  } catch (error) {
    window.errors.push(String(error.stack ?? error));
  }
  found.errors = window.errors;
  const checked = document.createElement("script");
  checked.id = "checked";
  checked.type = "application/json";
  checked.textContent = JSON.stringify(found).replaceAll("<", "\\u003c");
  document.body.append(checked);
})();
