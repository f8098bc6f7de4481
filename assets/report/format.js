// Elements, colours, and how numbers are written.

const byId = id => document.getElementById(id);

// An element with a class and children; text is never markup, since names of runs may be anything.
function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter(child => child != null));
  return made;
}

const probe = element("i");
probe.hidden = true;
document.body.append(probe);

// A colour of the style sheet as a canvas takes it.
function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

const runColour = index => colour(`--run-${index % 8}`);

function faint(rgb, alpha) {
  return rgb.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);
}

const known = value => value != null;
const count = value => Math.round(value).toLocaleString("en-US");
const percent = value => `${(100 * value).toFixed(1)}%`;

// Four significant digits.
function number(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(2).replace("e+", "e");
  return size >= 1000 ? count(value) : Number(value.toPrecision(4)).toString();
}

const PREFIXES = [
  [1e12, "T"],
  [1e9, "B"],
  [1e6, "M"],
  [1e3, "k"],
  [1, ""],
];

// 1.23M: three significant digits.
function short(value) {
  const [unit, prefix] = PREFIXES.find(([unit]) => Math.abs(value) >= unit) ?? [1, ""];
  return Number((value / unit).toPrecision(3)) + prefix;
}

// Marks of an axis that all have the same prefix, and as many digits as tell them apart.
function shortMarks(marks, step) {
  const [unit, prefix] = PREFIXES.find(([unit]) => Math.abs(marks[marks.length - 1]) >= unit) ?? [1, ""];
  const digits = Math.min(6, Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9)));
  return marks.map(mark => (mark === 0 ? "0" : (mark / unit).toFixed(digits) + prefix));
}

function duration(seconds) {
  const s = Math.round(seconds);
  const two = value => String(value).padStart(2, "0");
  if (s < 60) return seconds < 10 ? `${Number(seconds.toFixed(1))}s` : `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${two(s % 60)}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${two(Math.floor(s / 60) % 60)}m`;
  return `${Math.floor(s / 86400)}d${two(Math.floor(s / 3600) % 24)}h`;
}

const when = unix => new Date(1000 * unix).toLocaleString();

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit + 1 < units.length) {
    value /= 1024;
    unit++;
  }
  return `${value.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}
