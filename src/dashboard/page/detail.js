// The panel about one call.

import { $, bytes, color, count, duration, el, moment, names, short, words } from "./util.js";

let go = () => {};
/** `go(id)` shows another call. */
export function startDetail(f) {
  go = f;
}

export function showDetail(about, close) {
  const panel = $("detail");
  panel.hidden = !about;
  if (!about) return panel.replaceChildren();
  const shut = el("button", { class: "icon", "aria-label": "Close", onclick: close }, "×");
  if (about.failed) {
    return panel.replaceChildren(el("header", {}, el("div", {}, el("h2", {}, "Not known"), el("span", { class: "id" }, about.id)), shut), el("p", { class: "quiet" }, about.failed));
  }
  const r = about.recorded, now = about.now;
  if (about.object && !now) return thing(panel, about.object, shut);
  const state = now?.state ?? r.outcome;
  panel.replaceChildren(
    el("header", {}, el("div", {}, el("h2", {}, r?.function ?? now.function), el("span", { class: "id" }, r?.id ?? now.id)), shut),
    el("dl", { class: "facts" }, ...facts(r, now, state)),
    ...(r?.runs.length ? phases(r) : []),
    ...why(r, now),
    ...(r?.error ? [el("div", { class: "fault", role: "note" }, r.error)] : []),
    ...(r ? path(r) : []),
    ...(r?.parent ? links("Submitted by", [r.parent], 0) : []),
    ...links("Takes", r?.inputs ?? [], r?.inputs_left_out),
    ...links("Taken by", r?.consumers ?? [], r?.consumers_left_out),
    ...links("Submitted", r?.children ?? [], r?.children_left_out),
  );
}

/** An object that the program made by hand. */
function thing(panel, o, shut) {
  const rows = [["Size", bytes(o.bytes)], ["Made", moment(o.at)], ["Made on", o.made_on], ["Taken by", o.consumers.length + o.consumers_left_out ? `${count(o.consumers.length + o.consumers_left_out)} calls` : "nobody yet"]];
  panel.replaceChildren(
    el("header", {}, el("div", {}, el("h2", {}, o.origin), el("span", { class: "id" }, o.id)), shut),
    el("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    ...links("Taken by", o.consumers, o.consumers_left_out));
}

function facts(r, now, state) {
  const list = [["State", el("span", { class: `state ${state}` }, words(state))]];
  const add = (name, value) => value !== null && value !== undefined && value !== "" && list.push([name, value]);
  if (r?.runs.length) {
    const first = r.runs[0], last = r.runs[r.runs.length - 1];
    add("Took", duration(last.end - first.start));
    add("Began", moment(first.start));
    if (r.runs.length > 1) add("Runs", count(r.runs.length));
  }
  if (now?.runs_on) add("Runs on", now.runs_on);
  if (r?.submitted_from) add("Submitted from", r.submitted_from);
  if (r?.actor ?? now?.actor) add("Actor", el("span", { class: "mono" }, r?.actor ?? now.actor));
  if (r?.bytes) add("Result", bytes(r.bytes));
  if (now?.attempt > 1) add("Attempt", count(now.attempt));
  return list.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
}

function phases(r) {
  const first = r.runs[0], last = r.runs[r.runs.length - 1];
  const parts = [];
  if (r.submitted && r.ready > r.submitted) parts.push(["p-queue", "waited for arguments", r.ready - r.submitted]);
  const ready = r.ready || r.submitted;
  if (ready && first.start > ready) parts.push(["p-ready", "waited to run", first.start - ready]);
  const reading = r.runs.reduce((n, run) => n + run.reading, 0), storing = r.runs.reduce((n, run) => n + run.storing, 0);
  if (reading) parts.push(["p-read", "read arguments", reading]);
  parts.push(["p-run", "executed", Math.max(0, last.end - first.start - reading - storing)]);
  if (storing) parts.push(["p-store", "stored the result", storing]);
  const all = parts.reduce((n, [, , ns]) => n + ns, 0) || 1;
  return [
    el("div", { class: "phases", role: "img", "aria-label": parts.map(([, name, ns]) => `${name} ${duration(ns)}`).join(", ") },
      ...parts.map(([kind, , ns]) => el("i", { class: kind, width: `${(ns / all) * 100}%` }))),
    el("div", { class: "phase-list" }, ...parts.flatMap(([kind, name, ns]) => [el("i", { class: kind }), el("span", {}, name), el("span", {}, duration(ns)), el("span", {}, percent(ns / all))])),
  ];
}

/** A share that is neither all nor nothing does not look so. */
const percent = (part) => (part > 0 && part < 0.005 ? "<1 %" : part < 1 && part >= 0.995 ? ">99 %" : `${Math.round(part * 100)} %`);

function why(r, now) {
  const text = now?.why ?? r?.waiting;
  if (!text || (!now && r.outcome !== "waiting")) return [];
  const waits = (now?.waits_for ?? []).map((id) => el("button", { class: "link mono", onclick: () => go(id) }, id));
  return [el("div", { class: "why" }, el("b", {}, "Why it waits"), sentence(text), ...waits.flatMap((w) => [" ", w]))];
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function link(n) {
  const number = names.all.indexOf(n.name);
  const long = n.what === "object" ? bytes(n.bytes) : n.end !== null && n.start !== null ? duration(n.end - n.start) : n.outcome;
  const dot = el("i", { class: n.what, color: n.outcome === "failed" ? "var(--bad)" : color(Math.max(0, number)) });
  const name = el("span", { class: "name", title: n.name }, short(n.name));
  const num = el("span", { class: "num" }, long);
  const known = n.what !== "unknown";
  return el("li", {}, el("button", { onclick: known ? () => go(n.id) : undefined, disabled: !known, title: n.id }, dot, name, num));
}

function links(title, list, left) {
  if (!list.length) return [];
  const shown = list.slice(0, 8);
  const box = el("ul", { class: "links" }, ...shown.map(link));
  const rest = list.length - shown.length;
  const more = rest > 0 ? el("button", { class: "link", onclick: (e) => { box.append(...list.slice(8).map(link)); e.target.remove(); } }, `${rest} more`) : null;
  return [el("h3", {}, `${title}${list.length > 1 ? ` · ${count(list.length + (left || 0))}` : ""}`), box, more ?? "", left ? el("p", { class: "more" }, `${count(left)} are not listed`) : ""];
}

function path(r) {
  if (r.path.length < 2) return [];
  const whole = r.path[0].end - r.path[r.path.length - 1].start || 1;
  const busy = r.path.reduce((n, s) => n + s.end - s.start, 0);
  const step = (s) => el("li", {}, el("button", { onclick: () => go(s.id), title: `${names.of(s.function)} ${s.id}` },
    el("i", { color: color(s.function) }), el("span", { class: "name" }, short(names.of(s.function))),
    el("span", { class: "num" }, `${duration(s.end - s.start)}${s.gap > 1000 ? ` + ${duration(s.gap)}` : ""}`)));
  const list = el("ul", { class: "links" }, ...r.path.slice(0, 8).map(step));
  const rest = r.path.length - 8;
  const more = rest > 0 ? el("button", { class: "link", onclick: (e) => { list.append(...r.path.slice(8, 200).map(step)); e.target.remove(); } }, `${count(rest)} earlier steps`) : "";
  return [el("section", { class: "chain", "aria-label": "Critical path" },
    el("h3", {}, `Critical path · ${count(r.path.length)} calls${r.path_cut ? " and more" : ""}`),
    el("p", { class: "quiet" }, `${duration(whole)}, ${percent(busy / whole)} of it in calls${busy < whole ? ", the rest waiting" : ""}.`), list, more)];
}
