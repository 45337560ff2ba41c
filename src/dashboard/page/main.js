// The page: which view is shown, keys, colours, and the stream of counts.

import { $, api, announce, count, names, notice, themeChanged } from "./util.js";
import { timeline } from "./timeline.js";
import { showDetail, startDetail } from "./detail.js";
import { startSearch } from "./search.js";
import { kept, overviewShown, startOverview, tick } from "./overview.js";
import { showTable, startTables, tableStats } from "./tables.js";

// --- colours --------------------------------------------------------------------------------------------------------------

const SCHEMES = ["auto", "light", "dark"];
const ICONS = {
  auto: '<circle cx="8" cy="8" r="5.5"/><path d="M8 2.5v11" /><path d="M8 3.4a4.6 4.6 0 0 1 0 9.2z" fill="currentColor" stroke="none"/>',
  light: '<circle cx="8" cy="8" r="3"/><path d="M8 1.2v1.6M8 13.2v1.6M1.2 8h1.6M13.2 8h1.6M3.2 3.2l1.1 1.1M11.7 11.7l1.1 1.1M3.2 12.8l1.1-1.1M11.7 4.3l1.1-1.1"/>',
  dark: '<path d="M13.2 9.6A5.6 5.6 0 0 1 6.4 2.8a5.6 5.6 0 1 0 6.8 6.8z"/>',
};
const prefers = matchMedia("(prefers-color-scheme: dark)");
let scheme = "auto";
try { scheme = localStorage.getItem("mobula-scheme") || "auto"; } catch { /* The page may not keep anything; the system decides. */ }
if (!SCHEMES.includes(scheme)) scheme = "auto";

function applyScheme() {
  document.documentElement.dataset.scheme = scheme === "auto" ? (prefers.matches ? "dark" : "light") : scheme;
  $("theme").innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true">${ICONS[scheme]}</svg>`;
  $("theme").setAttribute("aria-label", `Colour scheme: ${scheme === "auto" ? "as the system" : scheme}`);
  themeChanged();
}
function nextScheme() {
  scheme = SCHEMES[(SCHEMES.indexOf(scheme) + 1) % SCHEMES.length];
  try { localStorage.setItem("mobula-scheme", scheme); } catch { /* As above. */ }
  applyScheme();
  announce($("theme").getAttribute("aria-label"));
}
applyScheme();
prefers.addEventListener("change", applyScheme);
$("theme").addEventListener("click", nextScheme);

// --- views ----------------------------------------------------------------------------------------------------------------

const tabs = [...document.querySelectorAll("#tabs button")];
const views = tabs.map((tab) => tab.dataset.view);
let view = null;

function show(name) {
  if (!views.includes(name)) name = "overview";
  if (view === name) return;
  view = name;
  for (const tab of tabs) {
    const on = tab.dataset.view === name;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $(`view-${tab.dataset.view}`).hidden = !on;
  }
  if (location.hash.slice(1) !== name) history.replaceState(null, "", `#${name}`);
  timeline.active = name === "timeline";
  overviewShown(name === "overview");
  showTable(name);
}
for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => show(tab.dataset.view));
  tab.addEventListener("keydown", (e) => {
    const next = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[e.key];
    if (next === undefined) return;
    e.preventDefault();
    const to = tabs[(next + tabs.length) % tabs.length];
    to.focus();
    show(to.dataset.view);
  });
}
addEventListener("hashchange", () => show(location.hash.slice(1)));

// --- a chosen call --------------------------------------------------------------------------------------------------------

const choose = (id) => { show("timeline"); timeline.select(id, true); };
startDetail((id) => timeline.select(id, view === "timeline"));
timeline.start((about) => showDetail(about, () => { timeline.select(null); $("timeline").focus(); }));
async function only(name) {
  show("timeline");
  if (!names.all.length) names.all = (await api("/api/timeline?from=0&to=0&limit=1")).functions;
  const number = names.all.indexOf(name);
  timeline.only(number < 0 ? null : number);
}
const search = startSearch({ task: choose, fn: only });
startTables({ task: choose, only, timeline });
startOverview({ open: show, jump: (at, span) => { show("timeline"); timeline.go(at - span / 2, at + span / 2); } });

for (const [id, does] of Object.entries({
  "zoom-in": () => timeline.zoom(0.6), "zoom-out": () => timeline.zoom(1 / 0.6), "zoom-fit": () => timeline.fit(),
  follow: () => timeline.follow(!timeline.following), "clear-filter": () => timeline.only(null),
})) $(id).addEventListener("click", does);
$("show-data").addEventListener("change", (e) => { timeline.show.data = e.target.checked; timeline.redraw(); });
$("show-submit").addEventListener("change", (e) => { timeline.show.submit = e.target.checked; timeline.redraw(); });
$("download").addEventListener("click", () => {
  const { from, to } = timeline.view;
  $("download").href = `/api/trace.json?from=${Math.max(0, Math.floor(from))}&to=${Math.max(0, Math.ceil(to))}`;
});

// --- keys -----------------------------------------------------------------------------------------------------------------

const help = $("help");
$("help-open").addEventListener("click", () => help.showModal());
$("help-close").addEventListener("click", () => help.close());
help.addEventListener("click", (e) => e.target === help && help.close());
addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || help.open) return;
  if (e.target.matches("input, select, textarea")) return;
  if (e.key === "/") { e.preventDefault(); $("search").focus(); $("search").select(); }
  else if (e.key === "?") help.showModal();
  else if (e.key === "t") nextScheme();
  else if (e.key === "Escape") timeline.selected ? timeline.select(null) : timeline.only(null);
  else if (e.key >= "1" && e.key <= String(views.length)) show(views[Number(e.key) - 1]);
  else if (view === "timeline" && !e.target.matches("button, a, [role=tab]")) timeline.key(e);
});

// --- the stream -----------------------------------------------------------------------------------------------------------

let ticks = 0, pid = 0;
function live(state, text) {
  $("live").dataset.state = state;
  $("live").lastElementChild.textContent = text;
}
const events = new EventSource("/events");
events.addEventListener("open", () => live("on", "live"));
events.addEventListener("error", () => live("off", "not connected"));
events.addEventListener("message", (e) => {
  const t = JSON.parse(e.data);
  if (!t) return live("off", "no answer");
  const { program, counts } = t.snapshot;
  // Another program at the same address: nothing that is here is of it.
  if (pid && program.pid !== pid) return location.reload();
  pid = program.pid;
  ticks++;
  live("on", "live");
  $("program").textContent = program.name || "Mobula";
  $("pid").textContent = program.pid ? `process ${program.pid}` : "";
  document.title = `${program.name || "Mobula"} · Mobula`;
  $("error-count").hidden = !counts.failed;
  $("error-count").textContent = counts.failed > 999 ? "999+" : counts.failed;
  $("error-count").setAttribute("aria-label", `${count(counts.failed)} failed calls`);
  tick(t);
});

show(location.hash.slice(1) || "overview");
notice("start", null);

// What a test may look at: numbers only, and the ways a person has.
window.mobula = {
  stats: () => ({
    view, ticks, history: kept(), ...timeline.on, lanes: timeline.lanes.length, from: timeline.view.from, to: timeline.view.to, begin: timeline.bounds.begin, last: timeline.bounds.last, now: timeline.bounds.now,
    recorded: timeline.data?.recorded ?? 0, loaded: timeline.data?.boxes.length ?? 0, loadedEdges: timeline.data?.edges.length ?? 0, loadedDense: timeline.data?.dense.length ?? 0,
    selected: timeline.selected, path: timeline.task?.path.length ?? 0, taskEdges: timeline.task?.edges.length ?? 0,
    frames: timeline.frames, slowestFrame: timeline.slowest, requests: timeline.requests, failures: timeline.failures, found: search.found(), ...tableStats(),
  }),
  show, choose, timeline, names: () => names.all,
};
