// The first view: the last minutes in four lines, load per thread, nodes, what fills the store, the latest errors.

import { $, ago, api, bytes, count, digitsOf, duration, el, moment, notice, onTheme } from "./util.js";
import { heatHeight, heatRow, heatRows, heatTime, heatmap, sparkline } from "./charts.js";

const KEPT = 900;
const history = [];
const opened = new Map();
let latest = null, heat = null, rows = [], shown = false, jump = () => {}, open = () => {};

const CARDS = [
  ["tasks", "Calls per second", (s) => s.finished, (v) => count(v), (t) => `${count(t.snapshot.counts.finished)} ended`],
  ["cpu", "CPUs in use", (s) => s.cpu, (v) => digitsOf(v), (t) => { const cpu = resource(t.snapshot, "cpu"); return cpu ? `of ${cpu.total}` : ""; }],
  ["store", "Object store", (s) => s.store_bytes, (v) => bytes(v), (t) => { const cap = t.snapshot.nodes.items.reduce((n, x) => n + x.store.capacity, 0); return cap ? `of ${bytes(cap)}` : ""; }],
  ["running", "Running", (s) => s.running, (v) => count(v), (t) => `${count(waiting(t.snapshot.counts))} wait`],
  ["failed", "Failures per second", (s) => s.failed, (v) => digitsOf(v), (t) => `${count(t.snapshot.counts.failed)} in all`],
];

const waiting = (c) => c.queued + c.waiting_resources + c.waiting_arguments;
function resource(snapshot, name) {
  return snapshot.nodes.items[0]?.resources.find((r) => r.name === name);
}

export async function startOverview(hooks) {
  ({ jump, open } = hooks);
  $("cards").replaceChildren(...CARDS.map(([id, label]) => el("div", { class: "card" },
    el("div", { class: "label" }, label),
    el("div", { class: "value" }, el("span", { id: `card-${id}` }, "–"), el("small", { id: `card-${id}-note` })), el("canvas", { id: `card-${id}-line`, role: "img", "aria-label": `${label}, the last two minutes` }))));
  const legend = $("heat-legend");
  legend.append("idle", ...[0.06, 0.3, 0.6, 0.96].map((a) => { const i = el("i", { color: "var(--accent)" }); i.style.opacity = a; return i; }), "busy");
  const canvas = $("heat");
  const fold = (row) => { opened.set(row.node, !row.open); paint(); };
  canvas.addEventListener("click", (e) => {
    if (!heat) return;
    const at = heatTime(canvas, heat, e.offsetX), row = heatRow(rows, e.offsetY);
    if (at !== null) jump(at, (heat.to - heat.from) / 20);
    else if (row?.node) fold(row);
  });
  canvas.addEventListener("pointermove", (e) => {
    if (!heat) return;
    const at = heatTime(canvas, heat, e.offsetX), row = heatRow(rows, e.offsetY);
    const k = at === null ? -1 : Math.min(heat.columns - 1, Math.floor(((at - heat.from) / (heat.to - heat.from)) * heat.columns));
    $("heat-hint").textContent = at !== null && row ? `${row.name} at ${moment(at, 1e6)}: ${Math.round(row.busy[k])} % busy · click to see it on the timeline` : row?.node ? `${count(row.threads)} threads · click to ${row.open ? "fold" : "open"}` : "";
  });
  canvas.addEventListener("keydown", (e) => {
    if (!heat) return;
    if (e.key === "Enter") jump((heat.from + heat.to) / 2, heat.to - heat.from);
    else if (e.key === " ") { e.preventDefault(); for (const row of rows.filter((r) => r.node)) opened.set(row.node, !row.open); paint(); }
  });
  canvas.addEventListener("pointerleave", () => ($("heat-hint").textContent = ""));
  onTheme(paint);
  addEventListener("resize", () => shown && paint());
  try { history.push(...await api("/api/history")); } catch { /* The stream brings the next. */ }
  setInterval(() => shown && !document.hidden && slow(), 2000);
}

export function overviewShown(on) {
  shown = on;
  if (on) { paint(); slow(); }
}

/** One tick of the stream. */
export function tick(t) {
  latest = t;
  if (t.keep) { history.push(t.sample); if (history.length > KEPT) history.shift(); }
  if (shown && !document.hidden) paint();
}

function paint() {
  if (!shown) return;
  const live = latest && !latest.keep ? [...history, latest.sample] : history;
  for (const [id, , value, text, note] of CARDS) {
    const last = live[live.length - 1];
    if (last) $(`card-${id}`).textContent = text(value(last));
    if (latest) $(`card-${id}-note`).textContent = note(latest);
    sparkline($(`card-${id}-line`), history.map(value), id === "cpu" ? resource(latest?.snapshot ?? { nodes: { items: [] } }, "cpu")?.total ?? 0 : 0);
  }
  if (latest) $("nodes").replaceChildren(...latest.snapshot.nodes.items.filter((n) => !n.away).flatMap(node));
  if (heat?.lanes.length) {
    rows = heatRows(heat, opened);
    $("heat").style.height = `${heatHeight(rows)}px`;
    heatmap($("heat"), heat, rows, (ns) => moment(ns, (heat.to - heat.from) / 4));
  }
  $("heat-empty").hidden = !heat || heat.lanes.length > 0;
}

function meter(name, value, part, second = 0) {
  const percent = (x) => `${Math.min(100, Math.max(0, x * 100)).toFixed(1)}%`;
  return el("div", { class: "meter" }, el("div", { class: "row" }, el("span", { title: name }, name), el("span", {}, value)),
    el("div", { class: "track", role: "meter", "aria-label": name, "aria-valuenow": Math.round(part * 100), "aria-valuemin": 0, "aria-valuemax": 100 },
      el("i", { class: "fill", width: percent(part) }), second ? el("i", { class: "fill second", width: percent(second) }) : null));
}

function node(n) {
  const s = n.store;
  const parts = n.resources.map((r) => meter(r.name === "cpu" ? "CPUs held" : r.name === "gpu" ? "GPUs held" : r.name, `${digitsOf(r.total - r.free)} of ${digitsOf(r.total)}`, r.total ? (r.total - r.free) / r.total : 0));
  const spilled = s.spilled_bytes ? `, ${bytes(s.spilled_bytes)} on disk` : "";
  return [el("div", { class: "node-name" }, n.name),
    el("div", { class: "threads" }, `${count(n.executors)} threads: ${n.busy} busy, ${n.blocked} blocked, ${n.idle} idle`), ...parts,
    meter("Store", `${bytes(s.used)} of ${bytes(s.capacity)}`, s.capacity ? s.used / s.capacity : 0),
    el("div", { class: "threads" }, `${count(s.objects)} object${s.objects === 1 ? "" : "s"}${s.pinned_bytes ? `, ${bytes(s.pinned_bytes)} pinned` : ""}${spilled}`)];
}

async function slow() {
  try {
    const [map, snapshot] = await Promise.all([api("/api/heat?columns=160"), api("/api/snapshot?parts=objects,errors&limit=6")]);
    heat = map;
    const nodes = heat.lanes.length ? heatRows(heat, opened).filter((row) => row.node) : [];
    $("heat-about").textContent = nodes.map((n) => `${n.name}: ${count(n.threads)} threads, ${Math.round(n.busy.reduce((a, b) => a + b, 0) / n.busy.length)} % busy.`).join(" ");
    const origins = snapshot.origins.items.slice(0, 6), most = Math.max(1, ...origins.map((o) => o.bytes));
    $("origins").replaceChildren(...(origins.length ? origins.map((o) => meter(o.origin, `${bytes(o.bytes)} in ${count(o.objects)}`, o.bytes / most)) : [el("p", { class: "quiet" }, "No object is in the store.")]));
    const errors = snapshot.errors.items.slice(0, 4);
    $("latest-errors").replaceChildren(...(errors.length ? errors.map((e) => el("div", { class: "meter" },
      el("div", { class: "row" }, el("button", { class: "link", title: e.function, onclick: () => open("errors") }, e.function || e.kind), el("span", {}, `${count(e.count)}×, ${ago(e.last, snapshot.taken)}`)),
      el("div", { class: "threads" }, e.cause.split("\n")[0].slice(0, 140)))) : [el("p", { class: "quiet" }, "Nothing has failed.")]));
    notice("overview", null);
    paint();
  } catch (e) {
    notice("overview", `The overview cannot be read: ${e.message}`);
  }
}

export const kept = () => history.length;
export { duration };
