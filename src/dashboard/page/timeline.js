// The timeline: which part is seen, what is known of it, and what keys, wheel, fingers and mouse do to it.
//
// The view is a window of time. Whenever it has changed the server is asked for it and half as much on either side, so that
// the next step shows at once; what is there is drawn meanwhile. The server bounds an answer, so a window of a million calls
// costs as much as one of thousand.

import { $, api, announce, bytes, color, colors, context, count, duration, el, moment, names, notice, onTheme, short } from "./util.js";
import { AXIS, GUTTER, draw, layout } from "./draw.js";

const LIMIT = 6000;
const SHORTEST = 200;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

function typed(data) {
  const from = data.from;
  const absolute = (list) => Float64Array.from(list, (at) => at + from);
  const { boxes: b, dense: d, edges: e, marks: m, objects: o } = data;
  return {
    from, to: data.to, total: data.total, recorded: data.recorded, lost: data.lost, edgesLeftOut: data.edges_left_out,
    boxes: {
      length: b.id.length, id: b.id, lane: Uint32Array.from(b.lane), row: Uint8Array.from(b.row), fn: Uint32Array.from(b.function),
      start: absolute(b.start), end: absolute(b.end), reading: Float64Array.from(b.reading), storing: Float64Array.from(b.storing),
      outcome: Uint8Array.from(b.outcome), turn: Uint16Array.from(b.turn),
    },
    dense: {
      length: d.lane.length, lane: Uint32Array.from(d.lane), row: Uint8Array.from(d.row), fn: Uint32Array.from(d.function),
      start: absolute(d.start), end: absolute(d.end), count: Uint32Array.from(d.count), busy: Float64Array.from(d.busy), failed: Uint32Array.from(d.failed),
    },
    edges: typedEdges(e, from),
    marks: { length: m.lane.length, lane: Uint32Array.from(m.lane), row: Uint8Array.from(m.row), name: m.name, start: absolute(m.start), end: absolute(m.end), wait: m.wait, awaited: m.awaited },
    objects: { length: o.id.length, id: o.id, lane: Uint32Array.from(o.lane), origin: o.origin, at: absolute(o.at), bytes: o.bytes },
  };
}

function typedEdges(e, from) {
  const absolute = (list) => Float64Array.from(list, (at) => at + from);
  return {
    length: e.from.length, from: e.from, to: e.to, kind: Uint8Array.from(e.kind),
    fromLane: Uint32Array.from(e.from_lane), fromRow: Uint8Array.from(e.from_row), fromAt: absolute(e.from_at),
    toLane: Uint32Array.from(e.to_lane), toRow: Uint8Array.from(e.to_row), toAt: absolute(e.to_at),
  };
}

class Timeline {
  view = { from: 0, to: 1e9 };
  bounds = { begin: 0, last: 1e9, now: 1e9 };
  lanes = [];
  data = null;
  heat = null;
  selected = null;
  task = null;
  /** The ids that the chosen call has to do with; null while none is chosen. */
  lit = null;
  hovered = -1;
  filter = null;
  show = { data: true, submit: true };
  scroll = 0;
  following = false;
  place = { rowHeight: 20, total: 0 };
  on = { boxes: 0, dense: 0, edges: 0, phases: 0, labels: 0 };
  frames = 0;
  slowest = 0;
  requests = 0;
  failures = 0;
  #active = false;
  #begun = false;
  /** Until somebody has moved, all there is shows. */
  #touched = false;
  #dirty = false;
  #timer = 0;
  #abort = null;
  #moving = 0;
  #onSelect = () => {};

  start(onSelect) {
    this.#onSelect = onSelect;
    this.canvas = $("timeline");
    this.map = $("minimap");
    this.#input();
    this.#mapInput();
    new ResizeObserver(() => this.redraw()).observe($("stage"));
    onTheme(() => this.redraw());
    setInterval(() => this.#beat(), 500);
  }

  /** Whether the page shows it. */
  set active(on) {
    this.#active = on;
    if (on) { if (!this.#abort) this.#ask(0); this.redraw(); }
  }

  dim(fn) {
    return this.filter !== null && this.filter !== fn;
  }

  redraw() {
    if (this.#dirty) return;
    this.#dirty = true;
    requestAnimationFrame(() => {
      this.#dirty = false;
      if (this.#active) this.#paint();
    });
  }

  #paint() {
    const begin = performance.now();
    const sized = context(this.canvas);
    if (!sized) return;
    const { ctx, width, height } = sized;
    this.place = layout(this.lanes, height);
    this.scroll = Math.max(0, Math.min(this.scroll, this.place.total - (height - AXIS)));
    this.on = draw(this, ctx, width, height);
    this.#paintMap();
    $("timeline-empty").hidden = !this.data || this.data.recorded > 0;
    this.frames++;
    this.slowest = Math.max(this.slowest, performance.now() - begin);
  }

  #paintMap() {
    const sized = context(this.map);
    if (!sized) return;
    const { ctx, width, height } = sized;
    const c = colors();
    const span = Math.max(1, this.bounds.last - this.bounds.begin);
    if (this.heat) {
      const { sums, from, to } = this.heat;
      ctx.fillStyle = c["line-strong"];
      const left = ((from - this.bounds.begin) / span) * width, step = (((to - from) / span) * width) / sums.length;
      ctx.beginPath();
      ctx.moveTo(left, height);
      sums.forEach((sum, i) => { const y = height - 3 - sum * (height - 10); ctx.lineTo(left + i * step, y); ctx.lineTo(left + (i + 1) * step, y); });
      ctx.lineTo(left + sums.length * step, height);
      ctx.fill();
    }
    const x0 = Math.max(0, ((this.view.from - this.bounds.begin) / span) * width);
    const x1 = Math.min(width, ((this.view.to - this.bounds.begin) / span) * width);
    ctx.fillStyle = c.accent;
    ctx.globalAlpha = 0.12;
    ctx.fillRect(x0, 0, Math.max(2, x1 - x0), height);
    ctx.globalAlpha = 1;
    ctx.fillRect(Math.round(x0), 0, 2, height);
    ctx.fillRect(Math.max(Math.round(x0) + 2, Math.round(x1) - 2), 0, 2, height);
  }

  // --- the view -----------------------------------------------------------------------------------------------------

  set(from, to) {
    this.#touched = true;
    const whole = Math.max(1e3, this.bounds.now - this.bounds.begin);
    const span = Math.min(Math.max(to - from, SHORTEST), whole * 1.2);
    let begin = from + (to - from - span) / 2;
    begin = Math.max(this.bounds.begin - span * 0.5, Math.min(begin, this.bounds.now - span * 0.5));
    this.view = { from: begin, to: begin + span };
    this.follow(false);
    this.redraw();
    this.#ask(60);
  }

  /** Moves there in some frames, so that the eye can follow. */
  go(from, to) {
    this.follow(false);
    if (calm.matches || !this.#active) return this.set(from, to);
    const moving = ++this.#moving, start = performance.now(), old = { ...this.view };
    const tick = () => {
      if (moving !== this.#moving) return;
      const part = Math.min(1, (performance.now() - start) / 220), ease = 1 - (1 - part) ** 3;
      this.set(old.from + (from - old.from) * ease, old.to + (to - old.to) * ease);
      if (part < 1) requestAnimationFrame(tick);
    };
    tick();
  }

  #stop() { this.#moving++; }

  zoom(factor, at = (this.view.from + this.view.to) / 2) {
    this.#stop();
    const { from, to } = this.view;
    this.set(at - (at - from) * factor, at + (to - at) * factor);
  }

  pan(part) {
    this.#stop();
    const by = (this.view.to - this.view.from) * part;
    this.set(this.view.from + by, this.view.to + by);
  }

  fit() {
    const all = this.#all();
    this.go(all.from, all.to);
  }

  #all() {
    const pad = Math.max(1000, (this.bounds.last - this.bounds.begin) * 0.015);
    return { from: this.bounds.begin - pad, to: this.bounds.last + pad };
  }

  follow(on) {
    if (this.following === on) return;
    this.following = on;
    $("follow").setAttribute("aria-pressed", String(on));
    if (on) { this.#touched = true; this.#stop(); this.#ask(0); }
  }

  #beat() {
    if (!this.#active || document.hidden || this.#abort) return;
    const open = this.bounds.last <= this.view.to + (this.view.to - this.view.from) * 0.02;
    if (this.following || !this.#touched || open) this.#fetch();
  }

  // --- the data -----------------------------------------------------------------------------------------------------

  /** Asks soon. What is asked already is for a view that has gone. */
  #ask(wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fetch(), wait);
  }

  async #fetch() {
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    const span = this.view.to - this.view.from;
    try {
      if (!this.#begun || this.following || !this.#touched) {
        this.#bound(await api("/api/timeline?from=0&to=0&limit=1", abort.signal));
        if (this.following) this.view = { from: this.bounds.now - span * 0.96, to: this.bounds.now + span * 0.04 };
        else if (!this.#touched) this.view = this.#all();
        this.#begun = true;
      }
      const { from, to } = this.view, more = (to - from) / 2;
      const a = Math.max(0, Math.floor(from - more)), b = Math.max(0, Math.ceil(to + more));
      this.requests++;
      this.#take(await api(`/api/timeline?from=${a}&to=${b}&limit=${LIMIT}`, abort.signal));
      notice("timeline", null);
      if (!this.heat || this.bounds.last - this.heat.to > (this.heat.to - this.heat.from) / 100) await this.#askMap(abort.signal);
    } catch (e) {
      if (e.name !== "AbortError") { this.failures++; notice("timeline", `The timeline cannot be read: ${e.message}`); }
    } finally {
      if (this.#abort === abort) this.#abort = null;
    }
  }

  #bound(data) {
    this.bounds = { begin: data.begin, last: Math.max(data.last, data.begin + 1e5), now: Math.max(data.now, data.begin + 1e5) };
    this.lanes = data.lanes;
    // At once, and not with the next picture: a pointer may look for a box before.
    this.place = layout(this.lanes, this.canvas.clientHeight || 600);
    names.all = data.functions;
  }

  #take(data) {
    this.#bound(data);
    this.data = typed(data);
    this.hovered = -1;
    this.#summarise();
    this.redraw();
  }

  async #askMap(signal) {
    const width = 400;
    const heat = await api(`/api/heat?columns=${width}&from=${this.bounds.begin}&to=${this.bounds.last}`, signal);
    const sums = Array.from({ length: heat.columns }, (_, i) => heat.busy.reduce((n, lane) => n + lane[i], 0));
    const most = Math.max(1, ...sums);
    this.heat = { from: heat.from, to: heat.to, sums: sums.map((n) => n / most) };
    this.redraw();
  }

  #summarise() {
    const d = this.data;
    const lost = d.lost ? ` · ${count(d.lost)} older or fast events were not kept` : "";
    $("summary").textContent = `${count(d.recorded)} calls recorded${lost}`;
    $("summary").title = $("summary").textContent;
    // The same for those who do not see the picture; only while they are on it, and not at every step.
    const b = d.boxes, groups = d.dense.count.reduce((n, c) => n + c, 0);
    const failed = b.outcome.reduce((n, o) => n + (o === 3), 0) + d.dense.failed.reduce((n, f) => n + f, 0);
    const nodes = new Set(this.lanes.map((lane) => lane.node)).size;
    $("timeline-about").textContent = `From ${moment(this.view.from)} to ${moment(this.view.to)}: ${count(b.length + groups)} runs around it on ${count(this.lanes.length)} threads of ${count(nodes)} ${nodes === 1 ? "node" : "nodes"}, ${count(failed)} failed, ${count(d.edges.length)} arrows.`;
  }

  // --- the choice ---------------------------------------------------------------------------------------------------

  /** Shows one call and its arrows. With `jump`, also where it is. */
  async select(id, jump = false) {
    this.selected = id;
    this.task = this.lit = null;
    $("path-key").hidden = true;
    this.redraw();
    if (!id) return this.#onSelect(null);
    try {
      if (!this.#begun) this.#bound(await api("/api/timeline?from=0&to=0&limit=1"));
      const about = await api(`/api/task/${encodeURIComponent(id)}`);
      if (this.selected !== id) return;
      const recorded = about.recorded ?? (about.object && { ...about.object, path: [], runs: [], inputs: [], children: [] });
      this.task = recorded && { ...recorded, edges: typedEdges(recorded.edges, 0) };
      this.lit = recorded && new Set([id, ...recorded.path.map((s) => s.id), ...["inputs", "consumers", "children"].flatMap((list) => recorded[list].map((n) => n.id)), recorded.parent?.id]);
      $("path-key").hidden = !(recorded?.path.length > 1);
      this.#onSelect(about);
      if (jump) this.jump();
      const name = recorded?.function ?? about.now?.function ?? about.object?.origin ?? "";
      announce(`${name}, ${recorded?.outcome ?? about.now?.state ?? "an object"}, chosen`);
    } catch (e) {
      this.#onSelect({ failed: e.message, id });
    }
    this.redraw();
  }

  /** Goes to the chosen call. */
  jump() {
    const run = this.task?.runs[0];
    if (!run && this.task?.at) {
      const half = (this.view.to - this.view.from) / 2;
      return this.go(this.task.at - half, this.task.at + half);
    }
    if (!run) {
      // It has not run: where it was submitted, up to now.
      if (this.task?.submitted) this.go(this.task.submitted - (this.bounds.now - this.task.submitted) / 4, this.bounds.now);
      return;
    }
    const last = this.task.runs[this.task.runs.length - 1];
    const long = Math.max(last.end - run.start, 1000), middle = (run.start + last.end) / 2;
    this.go(middle - long * 4, middle + long * 4);
    const lane = this.lanes[run.lane];
    if (lane) {
      const top = lane.y + run.row * this.place.rowHeight, room = this.canvas.clientHeight - AXIS;
      if (top < this.scroll || top + 30 > this.scroll + room) this.scroll = top - room / 2;
    }
  }

  jumpTo(from, to) {
    const long = Math.max(to - from, 1000);
    this.go(from - long * 4, to + long * 4);
  }

  only(fn) {
    this.filter = fn;
    const chip = $("clear-filter");
    chip.hidden = fn === null;
    chip.textContent = fn === null ? "" : `${short(names.of(fn))}  ×`;
    chip.setAttribute("aria-label", fn === null ? "" : `Only ${names.of(fn)} is shown. Show all.`);
    this.redraw();
  }

  /** The next or previous call after the chosen one, in time, among those that show. */
  neighbour(direction) {
    const b = this.data?.boxes;
    if (!b?.length) return;
    const at = b.id.indexOf(this.selected);
    let best = -1;
    if (at < 0) {
      for (let i = 0; i < b.length && best < 0; i++) if (b.end[i] >= this.view.from && !this.dim(b.fn[i])) best = i;
    } else {
      best = at;
      do best += direction; while (b.id[best] !== undefined && this.dim(b.fn[best]));
      if (b.id[best] === undefined) return;
    }
    if (best < 0) return;
    this.select(b.id[best]);
    if (b.start[best] < this.view.from || b.end[best] > this.view.to) {
      const half = (this.view.to - this.view.from) / 2, middle = (b.start[best] + b.end[best]) / 2;
      this.go(middle - half, middle + half);
    }
  }

  /** A step on the critical path: back to what came before, or forth. */
  along(direction) {
    const path = this.task?.path;
    if (!path) return;
    if (direction < 0 && path[1]) this.select(path[1].id, true);
    const next = direction > 0 && this.task.consumers[0];
    if (next) this.select(next.id, true);
  }

  hit(px, py) {
    if (!this.data || px < GUTTER || py < AXIS) return -1;
    const at = this.#time(px), slack = (3 * (this.view.to - this.view.from)) / (this.canvas.clientWidth - GUTTER);
    const y = py - AXIS + this.scroll;
    const lane = this.lanes.findIndex((l) => y >= l.y && y < l.y + l.height);
    if (lane < 0) return -1;
    const row = Math.floor((y - this.lanes[lane].y - 4) / this.place.rowHeight);
    const b = this.data.boxes;
    let best = -1, near = Infinity;
    for (let i = 0; i < b.length; i++) {
      if (b.lane[i] !== lane || b.row[i] !== row || b.start[i] - slack > at || b.end[i] + slack < at) continue;
      const off = Math.max(b.start[i] - at, at - b.end[i], 0);
      if (off < near) { near = off; best = i; }
    }
    return best;
  }

  #hitDense(px, py) {
    if (!this.data || px < GUTTER || py < AXIS) return -1;
    const at = this.#time(px), y = py - AXIS + this.scroll, d = this.data.dense;
    for (let i = 0; i < d.length; i++) {
      const lane = this.lanes[d.lane[i]], top = lane.y + 4 + d.row[i] * this.place.rowHeight;
      if (y >= top && y < top + this.place.rowHeight && at >= d.start[i] && at <= d.end[i]) return i;
    }
    return -1;
  }

  /** The middle of a box on the page. */
  where(i) {
    const b = this.data.boxes, lane = this.lanes[b.lane[i]], rect = this.canvas.getBoundingClientRect();
    const part = ((b.start[i] + b.end[i]) / 2 - this.view.from) / (this.view.to - this.view.from);
    return [rect.left + GUTTER + part * (rect.width - GUTTER), rect.top + AXIS + lane.y - this.scroll + 4 + (b.row[i] + 0.5) * this.place.rowHeight];
  }

  /** The object under a point; the last one where several are as near. */
  #hitObject(px, py) {
    if (!this.data || px < GUTTER || py < AXIS) return -1;
    const o = this.data.objects, scale = (this.canvas.clientWidth - GUTTER) / (this.view.to - this.view.from);
    const y = py - AXIS + this.scroll;
    for (let i = o.length - 1; i >= 0; i--) {
      const lane = this.lanes[o.lane[i]];
      if (lane && Math.abs(lane.y + 4 + this.place.rowHeight / 2 - y) < 8 && Math.abs(GUTTER + (o.at[i] - this.view.from) * scale - px) < 7) return i;
    }
    return -1;
  }

  #time(px) {
    return this.view.from + ((px - GUTTER) / (this.canvas.clientWidth - GUTTER)) * (this.view.to - this.view.from);
  }

  // --- hands --------------------------------------------------------------------------------------------------------

  #input() {
    const canvas = this.canvas;
    const fingers = new Map();
    let moved = 0, spread = 0;
    canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      this.#stop();
      const unit = e.deltaMode === 1 ? 16 : e.deltaMode === 2 ? 300 : 1;
      if (!e.ctrlKey && (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY))) {
        this.pan(((e.deltaX || e.deltaY) * unit) / (canvas.clientWidth - GUTTER));
      } else if (e.offsetX < GUTTER) {
        this.scroll += e.deltaY * unit;
        this.redraw();
      } else {
        this.zoom(Math.exp(Math.max(-1, Math.min(1, (e.deltaY * unit * (e.ctrlKey ? 8 : 1)) / 600))), this.#time(e.offsetX));
      }
    }, { passive: false });
    canvas.addEventListener("pointerdown", (e) => {
      if (e.button > 0) return;
      canvas.setPointerCapture(e.pointerId);
      fingers.set(e.pointerId, { x: e.offsetX, y: e.offsetY });
      moved = 0;
      this.#stop();
      spread = this.#spread(fingers);
    });
    canvas.addEventListener("pointermove", (e) => {
      const finger = fingers.get(e.pointerId);
      if (!finger) return this.#hover(e);
      const dx = e.offsetX - finger.x, dy = e.offsetY - finger.y;
      finger.x = e.offsetX;
      finger.y = e.offsetY;
      moved += Math.abs(dx) + Math.abs(dy);
      if (fingers.size === 2) {
        const now = this.#spread(fingers);
        const middle = [...fingers.values()].reduce((n, f) => n + f.x / 2, 0);
        if (spread > 0 && now > 0) this.zoom(spread / now, this.#time(middle));
        spread = now;
      } else if (moved > 3) {
        canvas.classList.add("dragging");
        this.scroll -= dy;
        this.pan(-dx / (canvas.clientWidth - GUTTER));
      }
    });
    const up = (e) => {
      const was = fingers.delete(e.pointerId);
      canvas.classList.remove("dragging");
      if (!was || moved > 3 || e.type === "pointercancel") return;
      const thing = this.#hitObject(e.offsetX, e.offsetY);
      if (thing >= 0) return this.select(this.data.objects.id[thing]);
      const at = this.hit(e.offsetX, e.offsetY);
      if (at >= 0) return this.select(this.data.boxes.id[at]);
      const group = this.#hitDense(e.offsetX, e.offsetY);
      if (group >= 0) return this.jumpTo(this.data.dense.start[group], this.data.dense.end[group]);
      if (this.selected) this.select(null);
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => { this.hovered = -1; $("tip").hidden = true; this.redraw(); });
    canvas.addEventListener("dblclick", () => this.jump());
    canvas.addEventListener("keydown", (e) => this.key(e));
  }

  #spread(fingers) {
    if (fingers.size !== 2) return 0;
    const [a, b] = fingers.values();
    return Math.hypot(a.x - b.x, a.y - b.y);
  }

  /** What a key does here; true if it did something. */
  key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey) return false;
    const far = e.shiftKey ? 0.8 : 0.15;
    const does = {
      ArrowLeft: () => this.pan(-far), ArrowRight: () => this.pan(far),
      ArrowUp: () => { this.scroll -= 60; this.redraw(); }, ArrowDown: () => { this.scroll += 60; this.redraw(); },
      "+": () => this.zoom(0.6), "=": () => this.zoom(0.6), "-": () => this.zoom(1 / 0.6),
      0: () => this.fit(), f: () => this.follow(!this.following), n: () => this.neighbour(1), p: () => this.neighbour(-1),
      "[": () => this.along(-1), "]": () => this.along(1), Enter: () => this.jump(), d: () => $("download").click(),
    }[e.key];
    if (!does) return false;
    e.preventDefault();
    e.stopPropagation();
    does();
    return true;
  }

  #hover(e) {
    const thing = this.#hitObject(e.offsetX, e.offsetY);
    const at = thing < 0 ? this.hit(e.offsetX, e.offsetY) : -1;
    const group = thing < 0 && at < 0 ? this.#hitDense(e.offsetX, e.offsetY) : -1;
    this.canvas.classList.toggle("over", at >= 0 || group >= 0 || thing >= 0);
    if (at !== this.hovered) { this.hovered = at; this.redraw(); }
    const tip = $("tip");
    tip.hidden = at < 0 && group < 0 && thing < 0;
    if (tip.hidden) return;
    const b = this.data.boxes, d = this.data.dense, o = this.data.objects;
    if (thing >= 0) {
      tip.replaceChildren(el("b", {}, names.of(o.origin[thing])), `${bytes(o.bytes[thing])}, an object`, el("br"), el("span", { class: "mono" }, `${o.id[thing]} at ${moment(o.at[thing])}`));
    } else if (at >= 0) {
      const words = ["waiting", "running", "done", "failed", "cancelled", "failed, tried again", "suspended"];
      tip.replaceChildren(el("b", {}, names.of(b.fn[at])), `${duration(b.end[at] - b.start[at])}, ${words[b.outcome[at]]}`, el("br"),
        el("span", { class: "mono" }, `${b.id[at]} at ${moment(b.start[at])}`));
    } else {
      tip.replaceChildren(el("b", {}, `${count(d.count[group])} calls in ${duration(d.end[group] - d.start[group])}`),
        `mostly ${short(names.of(d.fn[group]))}${d.failed[group] ? `, ${count(d.failed[group])} failed` : ""}`, el("br"), el("span", { class: "mono" }, "click to look closer"));
    }
    const right = e.offsetX > this.canvas.clientWidth - 300;
    tip.style.left = right ? "auto" : `${e.offsetX + 14}px`;
    tip.style.right = right ? `${this.canvas.clientWidth - e.offsetX + 14}px` : "auto";
    tip.style.top = `${Math.min(e.offsetY + 16, this.canvas.clientHeight - 90)}px`;
  }

  #mapInput() {
    const at = (e) => this.bounds.begin + (e.offsetX / this.map.clientWidth) * (this.bounds.last - this.bounds.begin);
    let start = null;
    this.map.addEventListener("pointerdown", (e) => {
      this.map.setPointerCapture(e.pointerId);
      start = { at: at(e), x: e.offsetX, inside: at(e) >= this.view.from && at(e) <= this.view.to && this.view.to - this.view.from < (this.bounds.last - this.bounds.begin) * 0.9, view: { ...this.view } };
    });
    this.map.addEventListener("pointermove", (e) => {
      if (!start || Math.abs(e.offsetX - start.x) < 3) return;
      if (start.inside) this.set(start.view.from + at(e) - start.at, start.view.to + at(e) - start.at);
      else this.set(Math.min(start.at, at(e)), Math.max(start.at, at(e)));
    });
    this.map.addEventListener("pointerup", (e) => {
      if (start && Math.abs(e.offsetX - start.x) < 3) {
        const half = (this.view.to - this.view.from) / 2;
        this.go(at(e) - half, at(e) + half);
      }
      start = null;
    });
  }
}

export const timeline = new Timeline();
export { color };
