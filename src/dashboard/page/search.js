// The search field: results as one types, arrow keys choose, Enter jumps.

import { $, api, color, count, duration, el, names, short } from "./util.js";

export function startSearch({ task, fn }) {
  const field = $("search"), list = $("results");
  let found = [], chosen = -1, timer = 0, asked = 0;

  const close = () => { list.hidden = true; field.setAttribute("aria-expanded", "false"); field.removeAttribute("aria-activedescendant"); };
  const choose = (i) => {
    chosen = i;
    [...list.children].forEach((li, n) => li.setAttribute("aria-selected", String(n === i)));
    const li = list.children[i];
    if (li) { field.setAttribute("aria-activedescendant", li.id); li.scrollIntoView({ block: "nearest" }); }
  };
  const go = (i) => {
    const f = found[i];
    if (!f) return;
    close();
    field.blur();
    if (f.what === "function") fn(f.name);
    else task(f.id);
  };
  const show = () => {
    list.replaceChildren(...found.map((f, i) => {
      const dot = el("span", { class: `what ${f.what}`, color: f.outcome === "failed" ? "var(--bad)" : color(names.number(f.name)) });
      const right = f.what === "function" ? `${count(f.count)} calls` : f.start !== null ? `${f.what === "object" ? "object" : duration(f.end - f.start)}` : f.outcome;
      const name = el("span", { class: "name", title: f.name }, f.what === "function" ? f.name : short(f.name), f.id ? el("span", { class: "id" }, f.id) : "");
      return el("li", { id: `result-${i}`, role: "option", "aria-selected": "false", onpointerdown: (e) => { e.preventDefault(); go(i); }, onpointermove: () => choose(i) }, dot, name, el("span", { class: "at" }, right));
    }));
    if (!found.length) list.replaceChildren(el("li", { class: "none", role: "option" }, "Nothing that is still recorded fits."));
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
    choose(found.length ? 0 : -1);
  };
  const ask = async () => {
    const text = field.value.trim(), mine = ++asked;
    if (!text) { found = []; return close(); }
    try {
      const answer = await api(`/api/search?q=${encodeURIComponent(text.slice(0, 200))}`);
      if (mine !== asked) return;
      found = answer;
      show();
    } catch (e) {
      list.replaceChildren(el("li", { class: "none", role: "option" }, e.message));
      list.hidden = false;
    }
  };
  field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 120); });
  field.addEventListener("focus", () => field.value && found.length && show());
  field.addEventListener("blur", close);
  field.addEventListener("keydown", async (e) => {
    if (e.key === "ArrowDown" || e.key === "ArrowUp") {
      e.preventDefault();
      if (found.length) choose((chosen + (e.key === "ArrowDown" ? 1 : -1) + found.length) % found.length);
    } else if (e.key === "Enter") {
      clearTimeout(timer);
      if (list.hidden) await ask();
      go(Math.max(0, chosen));
    } else if (e.key === "Escape") {
      e.stopPropagation();
      if (list.hidden) { field.value = ""; field.blur(); } else close();
    }
  });
  return { found: () => found.length };
}
