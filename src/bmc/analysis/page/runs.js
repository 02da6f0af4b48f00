"use strict";
// Runs can be hidden from tables and charts, and curves smoothed.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const boxes = all(".legend input");
  if (!boxes.length) return;
  const hidden = new Set();

  function apply() {
    for (const box of boxes) box.checked = !hidden.has(box.value);
    for (const element of all("[data-run]")) element.toggleAttribute("hidden", hidden.has(element.dataset.run));
  }

  function choose(box) {
    if (box.checked) hidden.delete(box.value);
    else hidden.add(box.value);
    apply();
  }

  // The others fade while the pointer or the focus is on a run's name.
  function point(run) {
    for (const element of all(".chart [data-run]")) element.classList.toggle("dim", run !== null && element.dataset.run !== run);
  }

  for (const element of all("[data-tools]")) element.hidden = false;
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
