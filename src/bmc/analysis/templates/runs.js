"use strict";
// Training curves; runs can be hidden from tables and charts, and curves smoothed.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const WIDTH = 360, HEIGHT = 210, LEFT = 46, RIGHT = 74, TOP = 10, BOTTOM = 34;
  const MOST_DOTS = 40, MOST_LABELS = 6;
  const COLOURS = 7, DASHES = ["", "6 3", "2 3", "8 3 2 3", "12 4", "10 3 2 3 2 3"];
  const number = (value, digits) => String(Number(value.toPrecision(digits)));

  // Class and dashes of the n-th run: seven colours, then the same with other dashes, and then all of it thicker.
  function stroke(place) {
    const dash = DASHES[(place % COLOURS + Math.floor(place / COLOURS)) % DASHES.length];
    const thick = Math.floor(place / (COLOURS * DASHES.length)) % 2 ? " thick" : "";
    return { class: `c${place % COLOURS}${thick}`, ...(dash ? { "stroke-dasharray": dash } : {}) };
  }

  // Round numbers that span [low, high]: multiples of 1, 2 or 5 times a power of ten.
  function ticks(low, high) {
    if (high <= low) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
    const raw = (high - low) / 4, unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= raw * 0.999);
    const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
    return Array.from({ length: last - first + 1 }, (_, place) => Number(((first + place) * step).toPrecision(12)));
  }

  function chart({ title, lines }, runs) {
    const points = lines.flatMap(([, line]) => line);
    const heights = points.map(([, value]) => value), steps = points.map(([step]) => step);
    const rows = ticks(Math.min(...heights), Math.max(...heights));
    const first = Math.min(...steps), last = Math.max(...steps);
    const right = WIDTH - (lines.length <= MOST_LABELS ? RIGHT : 8);
    const x = (step) => LEFT + ((step - first) / (Math.max(last, first + 1) - first)) * (right - LEFT);
    const y = (value) => HEIGHT - BOTTOM - ((value - rows[0]) / (rows[rows.length - 1] - rows[0])) * (HEIGHT - BOTTOM - TOP);
    const ends = lines.map(([run, line]) => [run, line[line.length - 1]]);
    const label = ends.map(([run, [, value]]) => `${runs[run]} ${number(value, 3)}`).join(", ");
    const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} by step; at the end: ${label}` });
    for (const value of rows) {
      svg.append(element("line", { x1: LEFT, y1: y(value), x2: right, y2: y(value) }),
        element("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value, 6)));
    }
    for (const step of new Set(ticks(first, last).map(Math.round).filter((step) => step >= first && step <= last))) {
      svg.append(element("text", { x: x(step), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, step));
    }
    svg.append(element("text", { x: (LEFT + right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "step"));
    for (const [run, line] of lines) {
      const [step, value] = line[line.length - 1];
      const path = line.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
      const end = element("title", {}, `${runs[run]}: ${number(value, 4)} at step ${step}`);
      const group = element("g", { "data-run": runs[run] }, element("polyline", { points: path, ...stroke(run) }, end));
      for (const [step, value] of line.length <= MOST_DOTS ? line : []) {
        const title = element("title", {}, `${runs[run]}, step ${step}: ${number(value, 4)}`);
        group.append(element("circle", { class: `c${run % COLOURS}`, cx: x(step).toFixed(1), cy: y(value).toFixed(1), r: 2.5 }, title));
      }
      svg.append(group);
    }
    // the runs' names at the ends of their lines, moved apart where they would cover one another
    if (lines.length > MOST_LABELS) return svg;
    const sorted = ends.map(([run, [, value]]) => [run, y(value)]).sort((a, b) => a[1] - b[1]);
    const lowest = sorted.reduce((at, [, end]) => Math.max(end, at + 12), -Infinity);
    let at = -Infinity;
    for (const [run, end] of sorted) {
      at = Math.max(end - Math.max(0, lowest - (HEIGHT - BOTTOM)), at + 12);
      const name = runs[run].length > 11 ? runs[run].split("/").pop() : runs[run];
      const short = name.length <= 11 ? name : `${name.slice(0, 10)}…`;
      svg.append(element("text", { class: `t${run % COLOURS}`, x: right + 6, y: (at + 4).toFixed(1), "data-run": runs[run] }, short));
    }
    return svg;
  }

  const curves = document.getElementById("curves");
  if (curves) {
    const { runs, panels } = JSON.parse(curves.textContent);
    all(".plot").forEach((box, place) => box.replaceChildren(chart(panels[place], runs)));
    all("[data-sample]").forEach((svg) => {
      svg.append(element("line", { x1: 0, y1: 4, x2: 30, y2: 4, ...stroke(Number(svg.dataset.sample)) }));
    });
  }

  const boxes = all(".legend input");
  if (!boxes.length) return;
  const hidden = new Set();

  function apply() {
    for (const box of boxes) box.checked = !hidden.has(box.value);
    for (const one of all("[data-run]")) one.toggleAttribute("hidden", hidden.has(one.dataset.run));
  }

  function choose(box) {
    if (box.checked) hidden.delete(box.value);
    else hidden.add(box.value);
    apply();
  }

  // The others fade while the pointer or the focus is on a run's name.
  function point(run) {
    for (const one of all(".chart [data-run]")) one.classList.toggle("dim", run !== null && one.dataset.run !== run);
  }

  for (const one of all("[data-tools]")) one.hidden = false;
  for (const box of boxes) {
    const item = box.closest("li");
    box.addEventListener("change", () => choose(box));
    item.addEventListener("mouseenter", () => point(box.value));
    item.addEventListener("mouseleave", () => point(null));
    box.addEventListener("focus", () => point(box.value));
    box.addEventListener("blur", () => point(null));
  }
  for (const button of all("[data-show]")) {
    button.addEventListener("click", () => {
      hidden.clear();
      if (button.dataset.show === "none") for (const box of boxes) hidden.add(box.value);
      apply();
    });
  }

  // Exponential moving average, corrected for its start: Σ wᵏ y₋ₖ / Σ wᵏ. Charts are linear, so pixels will do.
  function smoothed(points, weight) {
    let sum = 0, count = 0;
    return points.map(([x, y]) => {
      sum = weight * sum + y;
      count = weight * count + 1;
      return [x, sum / count];
    });
  }

  const lines = all(".chart polyline").map((line) => {
    const points = line.getAttribute("points").split(" ").map((pair) => pair.split(",").map(Number));
    return { line, points, raw: null };
  });

  function smooth(weight) {
    for (const one of lines) {
      if (weight > 0 && !one.raw) {
        one.raw = one.line.cloneNode(true);
        one.raw.classList.add("raw");
        one.line.before(one.raw);
      }
      if (one.raw) one.raw.toggleAttribute("hidden", weight === 0);
      one.line.setAttribute("points", smoothed(one.points, weight).map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "));
    }
  }

  const slider = document.getElementById("smoothing");
  if (!slider) return;
  slider.addEventListener("input", () => {
    smooth(Number(slider.value));
    document.getElementById("smoothness").textContent = Number(slider.value) ? slider.value : "none";
  });
})();
