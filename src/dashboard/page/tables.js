// Tables of what is there now, and the histograms of functions. A table is asked for while it is shown, and only then.

import { $, ago, api, bytes, color, count, duration, el, names, notice, onTheme, short, words } from "./util.js";
import { histogram } from "./charts.js";

const SHOWN = 300;
let task = () => {}, only = () => {}, current = null, timeline = null;

const id = (x) => el("button", { class: "link mono", onclick: () => task(x), title: "Show it on the timeline" }, x);
const state = (x) => el("span", { class: `state ${x}` }, words(x));
const fn = (name) => el("span", { title: name }, name);

const TABLES = {
  tasks: {
    part: "tasks", empty: "No call is waiting or running.", noun: "calls",
    columns: [
      ["Call", (t) => id(t.id), (t) => t.id, "id"], ["Function", (t) => fn(t.function), (t) => t.function],
      ["State", (t) => state(t.state), (t) => t.state], ["Since", (t, now) => ago(t.since, now), (t) => -(t.since ?? 0), "num"],
      ["Why is this waiting?", (t) => why(t), (t) => t.why ?? "", "text"], ["Runs on", (t) => t.runs_on ?? "–", (t) => t.runs_on ?? "", "muted"],
      ["Attempt", (t) => count(t.attempt), (t) => t.attempt, "num"],
    ],
  },
  actors: {
    part: "actors", empty: "There are no actors.", noun: "actors",
    columns: [
      ["Actor", (a) => el("span", { class: "mono" }, a.id), (a) => a.id, "id"], ["Type", (a) => fn(a.type_name), (a) => a.type_name], ["Name", (a) => a.name ?? "–", (a) => a.name ?? ""],
      ["State", (a) => state(a.state), (a) => a.state], ["Mailbox", (a) => (a.pending === null ? "–" : `${count(a.pending)}${a.max_pending ? ` of ${count(a.max_pending)}` : ""}`), (a) => a.pending ?? -1, "num"],
      ["Runs", (a) => a.running.join(", ") || "–", (a) => a.running.join()], ["Restarts", (a) => `${a.restarts} of ${a.max_restarts}`, (a) => a.restarts, "num"],
      ["Handles", (a) => count(a.handles), (a) => a.handles, "num"], ["Why it ended", (a) => a.cause ?? "", (a) => a.cause ?? "", "text"],
    ],
  },
  objects: {
    part: "objects", empty: "No object is in the store. Values of up to 512 bytes lie in their calls.", noun: "objects",
    columns: [
      ["Object", (o) => id(o.id), (o) => o.id, "id"], ["Size", (o) => bytes(o.bytes), (o) => o.bytes, "num"], ["Made by", (o) => o.origin, (o) => o.origin, "text"],
      ["References", (o) => (o.references === null ? "–" : count(o.references)), (o) => o.references ?? -1, "num"], ["Pins", (o) => (o.pins === null ? "–" : count(o.pins)), (o) => o.pins ?? -1, "num"],
      ["Place", (o) => state(o.place), (o) => o.place],
    ],
  },
  workers: {
    part: "workers", lines: 200, empty: "There are no worker processes: nothing is isolated.", noun: "worker processes",
    columns: [
      ["Process", (w) => el("span", { class: "mono" }, String(w.pid)), (w) => w.pid, "id"], ["Runs", (w) => w.runs ?? "nothing", (w) => w.runs ?? ""], ["Since", (w, now) => ago(w.since, now), (w) => -(w.since ?? 0), "num"],
      ["Memory", (w) => `${bytes(w.resident_bytes)}${w.memory_limit ? ` of ${bytes(w.memory_limit)}` : ""}`, (w) => w.resident_bytes ?? 0, "num"],
      ["Started", (w, now) => ago(w.started, now), (w) => -(w.started ?? 0), "num"],
      ["Last lines", (w) => (w.lines.length ? el("pre", { class: "log", tabindex: 0, "aria-label": `Output of process ${w.pid}` }, w.lines.join("\n")) : el("span", {}, "printed nothing")), (w) => w.lines.length, "text"],
    ],
  },
  errors: {
    part: "errors", empty: "Nothing has failed.", noun: "kinds of failure",
    columns: [
      ["Function", (e) => fn(e.function || "–"), (e) => e.function], ["What", (e) => el("span", { class: "state failed" }, e.kind), (e) => e.kind], ["Times", (e) => count(e.count), (e) => e.count, "num"],
      ["Last", (e, now) => ago(e.last, now), (e) => -e.last, "num"], ["First", (e, now) => ago(e.first, now), (e) => -e.first, "num"],
      ["Cause", (e) => el("pre", {}, e.cause), (e) => e.cause, "text"], ["Last call", (e) => (e.call ? id(e.call) : "–"), (e) => e.call ?? "", "id"],
    ],
  },
};

function why(t) {
  if (!t.why) return el("span", { class: "quiet" }, t.state === "running" ? "it runs" : "–");
  return el("span", {}, t.why, ...t.waits_for.filter((w) => !t.why.includes(w)).flatMap((w) => [" ", id(w)]));
}

class Table {
  sort = null;
  text = "";
  rows = [];
  now = 0;
  last = "";
  constructor(name) {
    this.spec = TABLES[name];
    this.name = name;
    this.view = $(`view-${name}`);
    this.summary = el("span", { class: "summary", role: "status" });
    this.filter = el("input", { class: "filter", type: "search", placeholder: `Filter ${this.spec.noun}`, "aria-label": `Filter ${this.spec.noun}`, oninput: (e) => { this.text = e.target.value.toLowerCase(); this.show(); } });
    this.heads = this.spec.columns.map(([title, , , kind], i) => el("th", { scope: "col", class: kind === "num" ? "num" : null }, el("button", { onclick: () => this.by(i) }, title)));
    this.body = el("tbody");
    this.wrap = el("div", { class: "tablewrap" }, el("table", {}, el("thead", {}, el("tr", {}, ...this.heads)), this.body));
    this.none = el("p", { class: "empty", hidden: true }, this.spec.empty);
    this.view.append(el("div", { class: "toolbar" }, this.filter, this.summary), this.wrap, this.none);
  }
  by(column) {
    const down = this.sort?.column === column && !this.sort.down;
    this.sort = { column, down };
    this.heads.forEach((th, i) => (i === column ? th.setAttribute("aria-sort", down ? "descending" : "ascending") : th.removeAttribute("aria-sort")));
    this.show();
  }
  async load() {
    const lines = this.spec.lines ? `&lines=${this.spec.lines}` : "";
    const snapshot = await api(`/api/snapshot?parts=${this.spec.part}&limit=1000${lines}`);
    const list = snapshot[this.spec.part];
    this.rows = list.items;
    this.now = snapshot.taken;
    this.more = list.left_out;
    this.show();
  }
  show() {
    let rows = this.rows.filter((row) => !this.text || JSON.stringify(row).toLowerCase().includes(this.text));
    if (this.sort) {
      const key = this.spec.columns[this.sort.column][2], way = this.sort.down ? -1 : 1;
      rows = [...rows].sort((a, b) => { const x = key(a), y = key(b); return (x < y ? -1 : x > y ? 1 : 0) * way; });
    }
    const fits = rows.length;
    rows = rows.slice(0, SHOWN);
    const hidden = this.rows.length + (this.more || 0) - rows.length;
    this.summary.textContent = this.rows.length ? `${count(fits)} ${this.spec.noun}${hidden > 0 ? `, ${count(hidden)} are not shown` : ""}` : "";
    this.none.hidden = this.rows.length > 0;
    this.wrap.hidden = !this.rows.length;
    // Rows whose cells say the same stay, and with them what is selected or scrolled in them.
    const old = this.body.children;
    rows.forEach((row, i) => {
      const text = JSON.stringify([row, this.spec.columns.map(([, cell]) => { const x = cell(row, this.now); return typeof x === "string" ? x : 0; })]);
      if (old[i]?.dataset.row === text) return;
      const tr = el("tr", { "data-row": text }, ...this.spec.columns.map(([, cell, , kind]) => el("td", { class: kind }, cell(row, this.now))));
      if (old[i]) old[i].replaceWith(tr); else this.body.append(tr);
    });
    while (this.body.children.length > rows.length) this.body.lastChild.remove();
  }
}

// --- functions ----------------------------------------------------------------------------------------------------------

let wholeRecording = true, shownFunctions = [];

async function loadFunctions() {
  const span = wholeRecording ? "" : `?from=${Math.max(0, Math.floor(timeline.view.from))}&to=${Math.ceil(Math.max(0, timeline.view.to))}`;
  const answer = await api(`/api/functions${span}`);
  shownFunctions = answer.functions;
  $("functions-summary").textContent = `${count(shownFunctions.length)} functions, by the time they took. Lines mark the median and the 99th of 100.`;
  const list = $("functions");
  if (!shownFunctions.length) return list.replaceChildren(el("p", { class: "quiet fn" }, "No call has ended in this time."));
  let low = Infinity, high = 0;
  for (const f of shownFunctions) f.slots.forEach((n, i) => { if (n) { low = Math.min(low, i); high = Math.max(high, i + 1); } });
  low = Math.max(0, Math.floor(low / 4) * 4);
  high = Math.min(answer.floor.length - 1, Math.ceil(high / 4) * 4);
  const title = el("div", { class: "fn title" }, el("span", {}, "Function"), el("span", {}, "Completion time"), ...["Calls", "Failed", "Total", "Median", "99 %", "Longest"].map((t) => el("span", { class: "num" }, t)));
  const rows = shownFunctions.map((f) => {
    const canvas = el("canvas", { class: "histo", role: "img", "aria-label": `${f.name}: half took up to ${duration(f.p50)}, 99 of 100 up to ${duration(f.p99)}, the longest ${duration(f.max)}` });
    const number = Math.max(0, names.all.indexOf(f.name));
    const row = el("div", { class: "fn" },
      el("span", { class: "name" }, el("i", { color: color(f.function) }), el("button", { class: "link", title: `${f.name}: show only this on the timeline`, onclick: () => only(f.name) }, f.name)),
      canvas, ...[count(f.count), f.failed, duration(f.total), duration(f.p50), duration(f.p99), duration(f.max)].map((v, i) => el("span", { class: i === 1 && v ? "num bad" : "num" }, i === 1 ? count(v) : v)));
    return { row, paint: () => histogram(canvas, f.slots, low, high, color(f.function ?? number), answer.floor, [f.p50, f.p99]) };
  });
  list.replaceChildren(title, ...rows.map((r) => r.row));
  for (const r of rows) r.paint();
}

// --- which is shown -----------------------------------------------------------------------------------------------------

const tables = new Map();

async function load() {
  const view = current;
  if (!view) return;
  try {
    if (view === "functions") await loadFunctions();
    else {
      if (!tables.has(view)) tables.set(view, new Table(view));
      await tables.get(view).load();
    }
    notice("table", null);
  } catch (e) {
    notice("table", `This cannot be read: ${e.message}`);
  }
}

export function startTables(hooks) {
  ({ task, only, timeline } = hooks);
  const both = [$("functions-all"), $("functions-window")];
  both.forEach((button, i) => button.addEventListener("click", () => {
    wholeRecording = i === 0;
    both.forEach((b, n) => b.setAttribute("aria-pressed", String(n === i)));
    load();
  }));
  let loading = false;
  setInterval(async () => {
    if (loading || document.hidden || !current) return;
    loading = true;
    await load();
    loading = false;
  }, 2000);
  onTheme(() => current === "functions" && load());
}

/** Shows the table of a view; null for none. */
export function showTable(view) {
  current = view === "functions" || TABLES[view] ? view : null;
  load();
}

export const tableStats = () => ({ rows: current && tables.get(current) ? tables.get(current).body.children.length : 0, functions: shownFunctions.length });
export { short };
