// How the timeline looks. Reads the view and the data, writes pixels, keeps nothing but measures of text.

import { color, colors, dark, duration, last, moment, short, names } from "./util.js";

export const AXIS = 26;
export const GUTTER = 132;
const PAD = 8;
/** The height of a node's name, where there are several. */
const HEAD = 22;
/** Arrows that are drawn together; beyond, those of one call are. */
const MANY = 500;

/** Places the lanes one under the other, those of a node together; gives the height of all. */
export function layout(lanes, height) {
  const nodes = Map.groupBy ? Map.groupBy(lanes, (lane) => lane.node) : grouped(lanes);
  const head = nodes.size > 1 ? HEAD : 0;
  const rows = lanes.reduce((n, lane) => n + lane.rows, 0) || 1;
  const room = (height - AXIS - lanes.length * PAD - nodes.size * head) / rows;
  const rowHeight = Math.max(17, Math.min(38, Math.floor(room)));
  let y = 0;
  for (const lane of [...nodes.values()].flat()) {
    lane.head = head && nodes.get(lane.node)[0] === lane ? head : 0;
    y += lane.head;
    lane.y = y;
    lane.height = lane.rows * rowHeight + PAD;
    y += lane.height;
  }
  return { rowHeight, total: y };
}

function grouped(lanes) {
  const groups = new Map();
  for (const lane of lanes) groups.set(lane.node, [...(groups.get(lane.node) ?? []), lane]);
  return groups;
}

const widths = new Map();
function fit(ctx, text, room) {
  const key = ctx.font + text;
  let width = widths.get(key);
  if (width === undefined) {
    if (widths.size > 4000) widths.clear();
    width = ctx.measureText(text).width;
    widths.set(key, width);
  }
  if (width <= room) return text;
  const keep = Math.floor((text.length * room) / width) - 1;
  return keep < 2 ? "" : text.slice(0, keep) + "…";
}

/** Steps of a scale: 1, 2 or 5 times a power of ten, so that labels have room. */
export function step(span, room, width = 96) {
  const least = (span * width) / Math.max(room, 1);
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return [1, 2, 5, 10].map((n) => n * power).find((s) => s >= least) || power * 10;
}

/** Draws everything. `t` is the timeline. Gives what was on screen. */
export function draw(t, ctx, width, height) {
  const c = colors();
  const { from, to } = t.view;
  const scale = (width - GUTTER) / (to - from);
  const x = (at) => GUTTER + (at - from) * scale;
  const rowH = t.place.rowHeight, boxH = rowH - 4;
  const y = (lane, row) => AXIS + t.lanes[lane].y - t.scroll + PAD / 2 + row * rowH + 2;
  ctx.font = "11px system-ui, sans-serif";
  ctx.textBaseline = "middle";
  const every = step(to - from, width - GUTTER);

  // Lanes and the scale's lines.
  ctx.strokeStyle = c.line;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (let at = Math.ceil(from / every) * every; at < to; at += every) {
    const px = Math.round(x(at)) + 0.5;
    ctx.moveTo(px, AXIS);
    ctx.lineTo(px, height);
  }
  for (const lane of t.lanes) {
    const py = Math.round(AXIS + lane.y + lane.height - t.scroll) + 0.5;
    if (py > AXIS && py < height + 1) { ctx.moveTo(0, py); ctx.lineTo(width, py); }
  }
  ctx.stroke();

  ctx.save();
  ctx.beginPath();
  ctx.rect(GUTTER, AXIS, width - GUTTER, height - AXIS);
  ctx.clip();
  const on = { boxes: 0, dense: 0, edges: 0, phases: 0, labels: 0 };
  ctx.fillStyle = c.hover;
  for (const lane of t.lanes) if (lane.head) ctx.fillRect(GUTTER, AXIS + lane.y - lane.head - t.scroll, width, lane.head);
  if (t.data) {
    dense(t, ctx, c, x, y, boxH, width, height, on);
    boxes(t, ctx, c, x, y, boxH, scale, width, height, on);
    marks(t, ctx, c, x, y, boxH, scale, width, height);
    objects(t, ctx, c, x, y, boxH, width, height);
  }
  now(t, ctx, c, x, height);
  if (t.data) edges(t, ctx, c, x, y, boxH, width, height, on);
  path(t, ctx, c, x, y, boxH, width, height);
  if (t.data) labels(t, ctx, c, x, y, boxH, width, height, on);
  ctx.restore();
  gutter(t, ctx, c, height);
  axis(ctx, c, x, from, to, every, width);
  return on;
}

function seen(py, boxH, height) {
  return py + boxH > AXIS && py < height;
}

function dense(t, ctx, c, x, y, boxH, width, height, on) {
  const d = t.data.dense;
  for (let i = 0; i < d.length; i++) {
    const x0 = x(d.start[i]), x1 = x(d.end[i]), py = y(d.lane[i], d.row[i]);
    if (x1 < GUTTER || x0 > width || !seen(py, boxH, height)) continue;
    const w = Math.max(1, x1 - x0);
    const share = Math.min(1, d.busy[i] / Math.max(1, d.end[i] - d.start[i]));
    ctx.globalAlpha = (0.25 + 0.7 * share) * (t.dim(d.fn[i]) ? 0.15 : t.lit ? 0.4 : 1);
    ctx.fillStyle = color(d.fn[i]);
    ctx.fillRect(x0, py, w, boxH);
    ctx.globalAlpha = 1;
    if (d.failed[i] && !t.dim(d.fn[i])) {
      ctx.fillStyle = c.bad;
      ctx.fillRect(x0, py + boxH - 3, Math.max(2, w), 3);
    }
    on.dense++;
  }
}

const WORD = { 1: "running", 3: "failed", 4: "cancelled", 5: "retried", 6: "suspended" };

function boxes(t, ctx, c, x, y, boxH, scale, width, height, on) {
  const b = t.data.boxes;
  for (let i = 0; i < b.length; i++) {
    const end = b.outcome[i] === 1 ? Math.max(b.end[i], t.bounds.now) : b.end[i];
    let x0 = x(b.start[i]);
    const x1 = x(end), py = y(b.lane[i], b.row[i]);
    if (x1 < GUTTER || x0 > width || !seen(py, boxH, height)) continue;
    let w = Math.max(1, x1 - x0);
    const dim = t.dim(b.fn[i]);
    // With a call chosen, what has nothing to do with it steps back.
    const back = t.lit && !t.lit.has(b.id[i]);
    ctx.globalAlpha = dim ? 0.13 : back ? 0.34 : 1;
    ctx.fillStyle = b.outcome[i] === 3 || b.outcome[i] === 5 ? c.bad : color(b.fn[i]);
    if (w > 5) {
      ctx.beginPath();
      ctx.roundRect(x0, py, w, boxH, Math.min(3, w / 3));
      ctx.fill();
    } else {
      ctx.fillRect(x0, py, w, boxH);
    }
    on.boxes++;
    if (w > 44 && !dim) on.phases += phases(ctx, c, b, i, x0, w, py, boxH, scale);
    if (b.outcome[i] === 1) {
      ctx.fillStyle = c.accent;
      ctx.fillRect(x1 - 2, py, 2, boxH);
    }
    ctx.globalAlpha = 1;
    if (t.selected === b.id[i] || t.hovered === i) {
      ctx.strokeStyle = t.selected === b.id[i] ? c.text : c.muted;
      ctx.lineWidth = t.selected === b.id[i] ? 2 : 1;
      ctx.beginPath();
      if (w < 6) { x0 -= (6 - w) / 2; w = 6; }
      ctx.roundRect(x0 - 0.5, py - 0.5, w + 1, boxH + 1, 3);
      ctx.stroke();
    }
  }
}

/** Names, above the arrows so that they can be read. */
function labels(t, ctx, c, x, y, boxH, width, height, on) {
  const b = t.data.boxes;
  for (let i = 0; i < b.length; i++) {
    const end = b.outcome[i] === 1 ? Math.max(b.end[i], t.bounds.now) : b.end[i];
    const x0 = Math.max(x(b.start[i]), GUTTER), x1 = Math.min(x(end), width), w = x1 - x0, py = y(b.lane[i], b.row[i]);
    if (w < 26 || t.dim(b.fn[i]) || !seen(py, boxH, height)) continue;
    const full = names.of(b.fn[i]);
    const name = (w > 130 ? short(full) : last(full)) + (WORD[b.outcome[i]] ? ` · ${WORD[b.outcome[i]]}` : "") + (b.turn[i] > 1 ? ` · ${b.turn[i]}` : "");
    const text = fit(ctx, w > 170 ? `${name}   ${duration(end - b.start[i])}` : name, w - 10);
    if (!text) continue;
    // A seam in the box's colour keeps letters readable where an arrow passes under them.
    const back = t.lit && !t.lit.has(b.id[i]);
    ctx.globalAlpha = back ? 0.6 : 1;
    ctx.strokeStyle = b.outcome[i] === 3 || b.outcome[i] === 5 ? c.bad : back ? blend(color(b.fn[i]), c.surface) : color(b.fn[i]);
    ctx.lineWidth = 3.5;
    ctx.lineJoin = "round";
    if (on.edges && on.edges < MANY) ctx.strokeText(text, x0 + 6, py + boxH / 2 + 0.5);
    ctx.fillStyle = back && dark() ? c.text : b.outcome[i] === 3 || b.outcome[i] === 5 ? c.surface : "rgb(0 0 0 / 80%)";
    ctx.fillText(text, x0 + 6, py + boxH / 2 + 0.5);
    ctx.globalAlpha = 1;
    on.labels++;
  }
}

const blend = (front, behind) => `color-mix(in srgb, ${front} 34%, ${behind})`;

/** Reading arguments on the left, storing the result on the right: darker ends of the box. */
function phases(ctx, c, b, i, x0, w, py, boxH, scale) {
  let drawn = 0;
  ctx.fillStyle = "rgb(0 0 0 / 17%)";
  for (const [long, right] of [[b.reading[i], false], [b.storing[i], true]]) {
    const part = Math.min(w, long * scale);
    if (part < 1) continue;
    const left = right ? x0 + w - part : x0;
    ctx.beginPath();
    ctx.roundRect(left, py, part, boxH, right ? [0, 3, 3, 0] : [3, 0, 0, 3]);
    ctx.fill();
    drawn++;
  }
  return drawn;
}

function marks(t, ctx, c, x, y, boxH, scale, width, height) {
  const m = t.data.marks;
  for (let i = 0; i < m.length; i++) {
    const x0 = x(m.start[i]), x1 = x(m.end[i]), py = y(m.lane[i], m.row[i]), w = x1 - x0;
    if (x1 < GUTTER || x0 > width || w < 3 || !seen(py, boxH, height)) continue;
    if (m.wait[i]) {
      // Slanted lines: the thread sleeps here.
      ctx.save();
      ctx.beginPath();
      ctx.rect(Math.max(x0, GUTTER), py, Math.min(x1, width) - Math.max(x0, GUTTER), boxH);
      ctx.clip();
      ctx.strokeStyle = c.faint;
      ctx.globalAlpha = 0.5;
      ctx.lineWidth = 1;
      ctx.beginPath();
      for (let px = Math.max(x0, GUTTER) - boxH - (Math.max(x0, GUTTER) % 6); px < Math.min(x1, width); px += 6) {
        ctx.moveTo(px, py + boxH);
        ctx.lineTo(px + boxH, py);
      }
      ctx.stroke();
      ctx.restore();
    } else {
      ctx.fillStyle = c.text;
      ctx.globalAlpha = 0.6;
      ctx.fillRect(x0, py + boxH - 3, Math.max(1, w - 1), 2);
      ctx.globalAlpha = 1;
    }
  }
}

function objects(t, ctx, c, x, y, boxH, width, height) {
  const o = t.data.objects;
  // Where many were made one after the other, one mark stands for those it would hide.
  const drawn = [];
  for (let i = 0; i < o.length; i++) {
    if (x(o.at[i]) - (drawn[o.lane[i]] ?? -Infinity) < 8) continue;
    drawn[o.lane[i]] = x(o.at[i]);
    const px = x(o.at[i]), py = y(o.lane[i], 0) + boxH / 2;
    if (px < GUTTER - 5 || px > width + 5 || !seen(py - 5, 10, height)) continue;
    const chosen = t.selected === o.id[i];
    ctx.fillStyle = chosen ? c.accent : c.surface;
    ctx.strokeStyle = c.accent;
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.moveTo(px, py - 5); ctx.lineTo(px + 5, py); ctx.lineTo(px, py + 5); ctx.lineTo(px - 5, py);
    ctx.closePath();
    ctx.fill();
    ctx.stroke();
  }
}

function now(t, ctx, c, x, height) {
  const px = x(t.bounds.now);
  if (px < GUTTER) return;
  ctx.fillStyle = c.bg;
  ctx.fillRect(px, AXIS, 1e5, height);
  ctx.strokeStyle = c["line-strong"];
  ctx.beginPath();
  ctx.moveTo(px + 0.5, AXIS); ctx.lineTo(px + 0.5, height);
  ctx.stroke();
}

/** Arrows. Without a choice all of them, faintly if many; with one, its own. */
function edges(t, ctx, c, x, y, boxH, width, height, on) {
  const chosen = t.task?.edges;
  const all = t.data.edges;
  if (!chosen) {
    if (all.length <= MANY) {
      const some = all.length > 160;
      arrows(t, ctx, c, x, y, boxH, width, height, all, some ? Math.max(0.12, 60 / all.length) : 0.55, some ? 1 : 1.25, on);
    } else if (t.hovered >= 0) {
      // So many say nothing together: those of the box under the pointer do.
      arrows(t, ctx, c, x, y, boxH, width, height, all, 0.8, 1.25, on, t.data.boxes.id[t.hovered]);
    }
  } else {
    arrows(t, ctx, c, x, y, boxH, width, height, chosen, 0.95, 1.6, on);
  }
}

function arrows(t, ctx, c, x, y, boxH, width, height, e, alpha, line, on, of = null) {
  ctx.lineWidth = line;
  ctx.globalAlpha = alpha;
  for (let i = 0; i < e.length; i++) {
    if (of !== null && e.from[i] !== of && e.to[i] !== of) continue;
    const submit = e.kind[i] === 0;
    if (submit ? !t.show.submit : !t.show.data) continue;
    if (e.fromLane[i] >= t.lanes.length || e.toLane[i] >= t.lanes.length) continue;
    const x0 = x(e.fromAt[i]), x1 = x(e.toAt[i]);
    if ((x0 < GUTTER - 40 && x1 < GUTTER - 40) || (x0 > width + 40 && x1 > width + 40)) continue;
    const y0 = y(e.fromLane[i], e.fromRow[i]) + boxH / 2, y1 = y(e.toLane[i], e.toRow[i]) + boxH / 2;
    if ((y0 < AXIS && y1 < AXIS) || (y0 > height && y1 > height)) continue;
    const tone = submit ? c.muted : c.accent;
    ctx.strokeStyle = tone;
    ctx.setLineDash(submit ? [4, 3] : []);
    const bend = Math.max(Math.min(14, Math.abs(x1 - x0) + 4), Math.min(90, Math.abs(x1 - x0) / 2));
    ctx.beginPath();
    ctx.moveTo(x0, y0);
    ctx.bezierCurveTo(x0 + bend, y0, x1 - bend, y1, x1, y1);
    ctx.stroke();
    if (on) on.edges++;
    // Between things this close a head would hide both.
    if (Math.abs(x1 - x0) < 9 && Math.abs(y1 - y0) < 40 && alpha < 0.9) continue;
    ctx.fillStyle = tone;
    ctx.beginPath();
    ctx.moveTo(x1 + 1, y1); ctx.lineTo(x1 - 6, y1 - 3.2); ctx.lineTo(x1 - 6, y1 + 3.2);
    ctx.closePath();
    ctx.fill();
  }
  ctx.setLineDash([]);
  ctx.globalAlpha = 1;
}

/** The critical path of the chosen call: its boxes outlined, and one line from each to the one that it led to. */
function path(t, ctx, c, x, y, boxH, width, height) {
  const steps = t.task?.path;
  if (!steps || steps.length < 2) return;
  const known = steps.filter((s) => s.lane < t.lanes.length);
  const line = () => {
    ctx.beginPath();
    for (let i = 0; i + 1 < known.length; i++) {
      const to = known[i], from = known[i + 1];
      const x0 = x(from.end), x1 = x(to.start);
      if (x1 < GUTTER - 40 || x0 > width + 40) continue;
      const y0 = y(from.lane, from.row) + boxH / 2, y1 = y(to.lane, to.row) + boxH / 2;
      const bend = Math.max(6, Math.min(60, Math.abs(x1 - x0) / 2));
      ctx.moveTo(x0, y0);
      if (y0 === y1) ctx.lineTo(x1, y1); else ctx.bezierCurveTo(x0 + bend, y0, x1 - bend, y1, x1, y1);
    }
    ctx.stroke();
  };
  ctx.lineCap = "round";
  ctx.strokeStyle = c.surface;
  ctx.lineWidth = 6;
  line();
  ctx.strokeStyle = c.path;
  ctx.lineWidth = 3;
  line();
  ctx.lineCap = "butt";
  ctx.lineWidth = 2.5;
  for (const s of known) {
    const x0 = Math.max(x(s.start), GUTTER - 6), x1 = Math.min(x(s.end), width + 6), py = y(s.lane, s.row);
    if (x1 < GUTTER || x0 > width || !seen(py, boxH, height)) continue;
    ctx.beginPath();
    ctx.roundRect(x0 - 0.5, py - 0.5, Math.max(3, x1 - x0 + 1), boxH + 1, 3);
    ctx.stroke();
  }
}

function gutter(t, ctx, c, height) {
  ctx.fillStyle = c.surface;
  ctx.fillRect(0, AXIS, GUTTER, height);
  ctx.strokeStyle = c["line-strong"];
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.moveTo(GUTTER - 0.5, 0); ctx.lineTo(GUTTER - 0.5, height);
  ctx.stroke();
  ctx.save();
  ctx.beginPath();
  ctx.rect(0, AXIS, GUTTER, height - AXIS);
  ctx.clip();
  for (const lane of t.lanes) {
    const py = AXIS + lane.y - t.scroll;
    if (py + lane.height < AXIS || py - lane.head > height) continue;
    if (lane.head) {
      ctx.fillStyle = c.hover;
      ctx.fillRect(0, py - lane.head, GUTTER - 1, lane.head);
      ctx.fillStyle = c.text;
      ctx.font = "600 11px system-ui, sans-serif";
      ctx.fillText(fit(ctx, lane.node, GUTTER - 28), 16, py - lane.head / 2 + 0.5);
    }
    ctx.strokeStyle = c.line;
    ctx.beginPath();
    ctx.moveTo(0, Math.round(py + lane.height) + 0.5); ctx.lineTo(GUTTER, Math.round(py + lane.height) + 0.5);
    ctx.stroke();
    ctx.fillStyle = lane.driver ? c.accent : c.text;
    ctx.font = lane.driver ? "600 12px system-ui, sans-serif" : "12px system-ui, sans-serif";
    ctx.fillText(fit(ctx, lane.name, GUTTER - 28), 16, py + Math.min(lane.height / 2, 20) + 0.5);
  }
  ctx.restore();
}

function axis(ctx, c, x, from, to, every, width) {
  ctx.fillStyle = c.surface;
  ctx.fillRect(0, 0, width, AXIS);
  ctx.strokeStyle = c.line;
  ctx.beginPath();
  ctx.moveTo(0, AXIS - 0.5); ctx.lineTo(width, AXIS - 0.5);
  ctx.stroke();
  ctx.font = "11px system-ui, sans-serif";
  ctx.fillStyle = c.muted;
  ctx.textAlign = "left";
  ctx.save();
  ctx.beginPath();
  ctx.rect(GUTTER, 0, width - GUTTER, AXIS);
  ctx.clip();
  for (let at = Math.ceil(from / every) * every; at < to; at += every) {
    const text = moment(at, every);
    if (x(at) + 9 + ctx.measureText(text).width < width) ctx.fillText(text, x(at) + 5, AXIS / 2);
  }
  ctx.restore();
  ctx.fillText(duration(to - from), 16, AXIS / 2);
}
