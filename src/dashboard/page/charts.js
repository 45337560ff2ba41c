// Small charts: lines of the last minutes, histograms, the heat map.

import { color, colors, context, duration } from "./util.js";

/** A line with a soft area under it; the newest value is on the right. */
export function sparkline(canvas, values, least = 0) {
  const sized = context(canvas);
  if (!sized || !values.length) return;
  const { ctx, width, height } = sized;
  const c = colors();
  const most = Math.max(least, ...values) || 1;
  const last = values.slice(-120);
  const step = width / (Math.max(40, last.length) - 1);
  const x = (i) => width - (last.length - 1 - i) * step;
  const y = (v) => height - 2 - (v / most) * (height - 8);
  ctx.beginPath();
  last.forEach((v, i) => (i ? ctx.lineTo(x(i), y(v)) : ctx.moveTo(x(i), y(v))));
  ctx.strokeStyle = c.accent;
  ctx.lineWidth = 1.5;
  ctx.lineJoin = "round";
  ctx.stroke();
  ctx.lineTo(width, height);
  ctx.lineTo(x(0), height);
  ctx.closePath();
  ctx.globalAlpha = 0.1;
  ctx.fillStyle = c.accent;
  ctx.fill();
  ctx.globalAlpha = 1;
}

/** How long calls took: one bar per slot, the scale is logarithmic. `low` and `high` are the slots all share. */
export function histogram(canvas, slots, low, high, tone, floor, quantiles) {
  const sized = context(canvas);
  if (!sized) return;
  const { ctx, width, height } = sized;
  const c = colors();
  const n = Math.max(1, high - low), step = width / n;
  const most = Math.max(...slots, 1);
  ctx.strokeStyle = c.line;
  ctx.beginPath();
  ctx.moveTo(0, height - 11.5); ctx.lineTo(width, height - 11.5);
  ctx.stroke();
  ctx.fillStyle = tone;
  for (let i = low; i < high; i++) {
    if (!slots[i]) continue;
    const h = Math.max(1, Math.sqrt(slots[i] / most) * (height - 15));
    ctx.fillRect((i - low) * step + 0.5, height - 12 - h, Math.max(1, step - 1), h);
  }
  ctx.font = "10px system-ui, sans-serif";
  ctx.fillStyle = c.faint;
  ctx.textBaseline = "bottom";
  const place = (value) => {
    const i = floor.findIndex((f) => f > value) - 1;
    return i < low || i >= high ? null : (i - low + (value - floor[i]) / (floor[i + 1] - floor[i])) * step;
  };
  for (let decade = 100; decade < 1e13; decade *= 10) {
    const px = place(decade);
    if (px === null || px > width - 30) continue;
    ctx.fillRect(Math.round(px), height - 12, 1, 3);
    ctx.fillText(duration(decade).replace(/\.0+(?= )/, ""), px + 3, height + 0.5);
  }
  ctx.strokeStyle = c.text;
  ctx.globalAlpha = 0.55;
  for (const q of quantiles) {
    if (place(q) === null) continue;
    const px = Math.round(place(q)) + 0.5;
    ctx.beginPath();
    ctx.moveTo(px, 1); ctx.lineTo(px, height - 12);
    ctx.stroke();
  }
  ctx.globalAlpha = 1;
}

const NAME = 132, ROW = 18, FOOT = 18;
/** From so many nodes on, their threads are folded away at first. */
const MANY_NODES = 5;

/** The rows of a heat map: each node, and below it its threads unless it is folded. `open` says which were opened or folded by hand. */
export function heatRows(heat, open) {
  const nodes = new Map();
  heat.lanes.forEach((lane, i) => nodes.set(lane.node, [...(nodes.get(lane.node) ?? []), i]));
  return [...nodes].flatMap(([name, lanes]) => {
    // How busy a node is, is how busy the threads are that are there to run calls.
    const work = lanes.filter((i) => !heat.lanes[i].driver), of = work.length ? work : lanes;
    const busy = heat.busy[0].map((_, k) => of.reduce((n, i) => n + heat.busy[i][k], 0) / of.length);
    const shown = open.get(name) ?? nodes.size < MANY_NODES;
    const node = { node: name, name, busy, open: shown, threads: lanes.length };
    return [node, ...(shown ? lanes.map((i) => ({ name: heat.lanes[i].name, busy: heat.busy[i] })) : [])];
  });
}

export function heatHeight(rows) {
  return rows.length * ROW + FOOT;
}

/** The row under a point. */
export const heatRow = (rows, py) => rows[Math.floor(py / ROW)];

/** Nodes and threads downwards, time to the right, darker where busier. */
export function heatmap(canvas, heat, rows, at) {
  const sized = context(canvas);
  if (!sized) return;
  const { ctx, width, height } = sized;
  const c = colors();
  const step = (width - NAME) / heat.columns;
  ctx.textBaseline = "middle";
  rows.forEach((row, i) => {
    const y = i * ROW, inset = row.node ? 0 : 12;
    ctx.font = row.node ? "600 11px system-ui, sans-serif" : "11px system-ui, sans-serif";
    ctx.fillStyle = row.node ? c.text : c.muted;
    if (row.node) {
      // A small triangle: open or folded.
      ctx.beginPath();
      if (row.open) { ctx.moveTo(0, y + 7); ctx.lineTo(7, y + 7); ctx.lineTo(3.5, y + 12); } else { ctx.moveTo(1, y + 5.5); ctx.lineTo(1, y + 12.5); ctx.lineTo(6, y + 9); }
      ctx.fill();
    }
    const room = 17 - inset / 6, name = row.name.length > room ? row.name.slice(0, room - 1) + "…" : row.name;
    ctx.fillText(name, 12, y + ROW / 2 + 0.5);
    ctx.fillStyle = c.line;
    ctx.globalAlpha = 0.5;
    ctx.fillRect(NAME, y + 1, width - NAME, ROW - 2);
    ctx.fillStyle = c.accent;
    for (let k = 0; k < heat.columns; k++) {
      if (!row.busy[k]) continue;
      ctx.globalAlpha = 0.06 + 0.9 * (row.busy[k] / 100) ** 1.4;
      ctx.fillRect(NAME + k * step, y + 1, step + 0.3, ROW - 2);
    }
    ctx.globalAlpha = 1;
  });
  ctx.fillStyle = c.muted;
  ctx.font = "10px system-ui, sans-serif";
  for (let i = 0; i <= 4; i++) {
    ctx.textAlign = i === 4 ? "right" : i ? "center" : "left";
    ctx.fillText(at(heat.from + ((heat.to - heat.from) * i) / 4), NAME + ((width - NAME) * i) / 4, height - FOOT / 2 + 3);
  }
  ctx.textAlign = "left";
}

/** The time under a point of the heat map. */
export function heatTime(canvas, heat, px) {
  const part = (px - NAME) / (canvas.clientWidth - NAME);
  return part < 0 ? null : heat.from + part * (heat.to - heat.from);
}

export { color };
