// What every part of the page uses: elements, numbers for people, colours, questions to the server.

export const $ = (id) => document.getElementById(id);

/** Makes an element: `el("a", { class: "x", onclick }, "text", child)`. Text is text, never markup. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "color") node.style.background = value;
    else if (key === "width") node.style.width = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function announce(text) {
  $("announce").textContent = text;
}

/** A duration in nanoseconds: `1.24 ms`. */
export function duration(ns) {
  if (ns === null || ns === undefined || Number.isNaN(ns)) return "–";
  const abs = Math.abs(ns);
  if (abs < 1e3) return `${Math.round(ns)} ns`;
  if (abs < 1e6) return `${digits(ns / 1e3)} µs`;
  if (abs < 1e9) return `${digits(ns / 1e6)} ms`;
  if (abs < 60e9) return `${digits(ns / 1e9)} s`;
  const s = Math.round(abs / 1e9);
  const parts = s < 3600 ? [[Math.floor(s / 60), "min"], [s % 60, "s"]]
    : s < 86400 ? [[Math.floor(s / 3600), "h"], [Math.floor(s / 60) % 60, "min"]]
    : [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"]];
  return (ns < 0 ? "−" : "") + parts.filter(([n], i) => n || !i).map(([n, unit]) => `${n} ${unit}`).join(" ");
}

function digits(x) {
  const abs = Math.abs(x);
  return abs >= 100 ? x.toFixed(0) : abs >= 10 ? x.toFixed(1) : x.toFixed(2);
}

/** A time since the node's start: `12.345 678 s`, as exact as `step` asks for. */
export function moment(ns, step = 1e3) {
  if (Math.abs(ns) < 1e9 && step < 1e9) {
    const ms = step >= 1e6 ? 0 : step >= 1e5 ? 1 : step >= 1e4 ? 2 : step >= 1e3 ? 3 : 6;
    return `${(ns / 1e6).toFixed(ms)} ms`;
  }
  const places = step >= 1e9 ? 0 : step >= 1e6 ? 3 : step >= 1e3 ? 6 : 9;
  const s = ns / 1e9;
  if (s >= 3600) {
    const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
    return `${h}:${String(m).padStart(2, "0")}:${(s % 60).toFixed(Math.min(places, 6)).padStart(places ? Math.min(places, 6) + 3 : 2, "0")}`;
  }
  return `${s.toFixed(places)} s`;
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return i === 0 ? `${n} B` : `${digits(n)} ${units[i]}`;
}

export function count(n) {
  if (n === null || n === undefined) return "–";
  if (n < 1e6) return Math.round(n).toLocaleString("en").replaceAll(",", " ");
  return n < 1e9 ? `${digits(n / 1e6)} M` : `${digits(n / 1e9)} G`;
}

/** How long ago a moment of the server's clock was, both in microseconds. */
export function ago(then, now) {
  if (!then) return "–";
  const s = Math.max(0, (now - then) / 1e6);
  return s < 1 ? "now" : `${duration(s < 60 ? Math.floor(s) * 1e9 : s * 1e9).replace(/\.\d+/, "")} ago`;
}

/** The last part of a path, and the whole in a title. */
export const short = (name) => name.split("::").slice(-2).join("::");
export const last = (name) => name.slice(name.lastIndexOf("::") + (name.includes("::") ? 2 : 1));

const STATES = { "waiting-arguments": "waits for arguments", "waiting-resources": "waits for resources" };
/** A state in words. */
export const words = (state) => STATES[state] ?? state;

export async function api(path, signal) {
  const response = await fetch(path, { signal, headers: { accept: "application/json" } }).catch((e) => {
    throw e.name === "AbortError" ? e : new Error("the program has ended, or cannot be reached");
  });
  if (response.status === 401) { location.href = "/login"; throw new Error("a token is needed"); }
  if (response.ok) return response.json();
  const refusal = await response.json().catch(() => ({}));
  throw new Error(refusal.error || `${response.status} ${response.statusText}`);
}

const notices = new Map();
/** Shows or takes back a message about one thing. */
export function notice(about, text) {
  if (text) notices.set(about, text); else notices.delete(about);
  const latest = [...notices.values()].pop();
  $("notice").textContent = latest || "";
  $("notice").hidden = !latest;
}

// Hues that are told apart, without red, which is for what fails, in the order in which functions get them.
const HUES = [206, 34, 158, 264, 88, 184, 304, 52, 232, 128, 282, 170];
const palettes = new Map();

export const dark = () => document.documentElement.dataset.scheme === "dark";

/** A function's colour, by its number: the same in every view. */
export function color(number) {
  const key = dark() ? "d" : "l";
  if (!palettes.has(key)) {
    palettes.set(key, Array.from({ length: 48 }, (_, i) => {
      const hue = HUES[i % HUES.length] + Math.floor(i / HUES.length) * 9;
      const dim = Math.floor(i / HUES.length) % 2;
      return key === "d" ? `hsl(${hue} ${38 - dim * 8}% ${58 - dim * 8}%)` : `hsl(${hue} ${46 - dim * 8}% ${66 - dim * 8}%)`;
    }));
  }
  return palettes.get(key)[number % 48];
}

let css = null;
/** The colours of the style sheet, for canvases. */
export function colors() {
  if (!css) {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    css = Object.fromEntries(["bg", "surface", "raised", "text", "muted", "faint", "line", "line-strong", "accent", "accent-soft", "bad", "bad-soft", "warn", "hover", "path"].map((n) => [n, get(n)]));
  }
  return css;
}

const themed = [];
/** Calls back when the colours have changed. */
export const onTheme = (f) => themed.push(f);
export function themeChanged() {
  css = null;
  for (const f of themed) f();
}

/** A canvas's context, sized for the screen; null while it is not shown. */
export function context(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return null;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return { ctx, width, height };
}

/** Names of functions by number, as the last answer had them. */
export const names = { all: [] , of(i) { return this.all[i] ?? "?"; }, number(name) { return Math.max(0, this.all.indexOf(name)); } };

/** A number that may have parts: `3`, `0.25`, `12.5`. */
export const digitsOf = (x) => (Number.isInteger(x) ? count(x) : x >= 100 ? count(x) : x.toFixed(x >= 10 ? 1 : 2).replace(/\.?0+$/, "") || "0");
