"use strict";
// The browser of predictions. Every text goes into the page as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const root = $("predictions-browser");
  if (!root) return;

  const { runs, shown, ids, sources, verdicts } = JSON.parse($("predictions-index").textContent);
  const RIGHT = "1", WRONG = "0", ABSENT = "-";
  const SIGNS = { 1: "✓ right", 0: "✗ wrong", "?": "not scored", "-": "no such row" };
  const PAGE = 20;
  const texts = new Map(); // 0: prompts and gold answers, n: responses of the n-th run
  let packed = null;
  let matching = [];
  let first = 0; // place in `matching` of the first row that is listed
  let chosen = null; // row whose texts are shown
  let round = 0; // of updates, so that an overtaken one ends

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  // What would act on the page, or not be seen there, is written out.
  const visible = (text) => text
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (char) => String.fromCharCode(0x2400 + char.charCodeAt()))
    .replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (char) => `[U+${char.charCodeAt().toString(16).toUpperCase()}]`);
  const short = (text, most) => visible(text.length > most ? `${text.slice(0, most)}…` : text);

  async function unpack(place) {
    if (!texts.has(place)) {
      packed ??= $("predictions-texts").textContent.split("\n");
      const bytes = Uint8Array.from(atob(JSON.parse(packed[place])), (char) => char.charCodeAt());
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      texts.set(place, new Response(stream).text().then(JSON.parse));
    }
    return texts.get(place);
  }

  const option = (value, text) => make("option", { value }, text);
  const options = (id) => $(id).value;

  function passes(places, answers, row) {
    const found = places.map((place) => verdicts[place][row]).filter((verdict) => verdict !== ABSENT);
    const one = found[0], last = found[found.length - 1];
    switch (options("p-filter")) {
      case "differ": return found.includes(RIGHT) && found.includes(WRONG);
      case "answers": return new Set(answers(row)).size > 1;
      case "gained": return one === WRONG && last === RIGHT;
      case "lost": return one === RIGHT && last === WRONG;
      case "right": return found.length > 0 && found.every((verdict) => verdict === RIGHT);
      case "wrong": return found.length > 0 && found.every((verdict) => verdict === WRONG);
      case "unscored": return found.includes("?");
      default: return found.length > 0;
    }
  }

  function order(responses) {
    const right = (row) => verdicts.filter((line) => line[row] === RIGHT).length;
    const lengths = (row) => responses.map((lines) => lines[row]).filter((line) => line.length).map((line) => line[0].length);
    const keys = {
      hard: right,
      easy: (row) => -right(row),
      long: (row) => -Math.max(...lengths(row), 0),
      short: (row) => Math.min(...lengths(row), Infinity),
      apart: (row) => -(Math.max(...lengths(row), 0) - Math.min(...lengths(row), Infinity)),
    };
    const sort = options("p-sort");
    if (sort === "id") return (a, b) => ids[a].localeCompare(ids[b], "en", { numeric: true });
    if (!keys[sort]) return () => 0;
    const known = new Map();
    const key = (row) => known.get(row) ?? known.set(row, keys[sort](row)).get(row);
    return (a, b) => key(a) - key(b);
  }

  async function update() {
    const mine = ++round;
    const places = runs.map((_, place) => place).filter((place) => shown.includes(runs[place]));
    const [prompts, ...responses] = await Promise.all([0, ...places.map((place) => place + 1)].map(unpack));
    if (mine !== round) return;
    const wanted = $("p-search").value.trim().toLowerCase();
    const found = (row) => [ids[row], ...prompts[row], ...responses.map((lines) => lines[row][0] ?? "")]
      .some((text) => text.toLowerCase().includes(wanted));
    const answers = (row) => responses.map((lines) => lines[row]).filter((line) => line.length)
      .map((line) => (line[1] || line[0]).trim());
    const source = options("p-source");
    matching = ids.map((_, row) => row).filter((row) =>
      (!source || sources[row] === source) && passes(places, answers, row) && (!wanted || found(row)));
    matching.sort(order(responses));
    first = 0;
    if (!matching.includes(chosen)) chosen = matching[0] ?? null;
    list(places, prompts, responses);
  }

  function verdict(place, row) {
    const kind = { 1: "right", 0: "wrong" }[verdicts[place][row]] || "none";
    return make("span", { class: `verdict ${kind}` }, SIGNS[verdicts[place][row]]);
  }

  function list(places, prompts, responses) {
    const rows = matching.slice(first, first + PAGE);
    const head = ["row", "benchmark", "prompt", "gold", ...places.map((place) => runs[place])];
    $("p-head").replaceChildren(make("tr", {}, ...head.map((name) => make("th", { scope: "col", class: "words" }, name))));
    $("p-rows").replaceChildren(...rows.map((row) => {
      const button = make("button", { type: "button", "aria-pressed": String(row === chosen) }, short(ids[row], 40));
      button.addEventListener("click", () => {
        chosen = row;
        for (const other of root.querySelectorAll("#p-rows button")) other.setAttribute("aria-pressed", String(other === button));
        detail(places, prompts, responses);
        $("p-detail").scrollIntoView({ block: "nearest" });
      });
      const cells = [sources[row], short(prompts[row][0], 70), short(prompts[row][1], 40)];
      return make("tr", {}, make("th", { scope: "row" }, button),
        ...cells.map((text) => make("td", { class: "words" }, text)),
        ...places.map((place, column) => {
          const line = responses[column][row];
          const answer = line.length && line[1] ? make("small", {}, ` ${short(line[1], 40)}`) : "";
          return make("td", { class: "words" }, verdict(place, row), answer);
        }));
    }));
    const last = first + rows.length;
    const of = matching.length < ids.length ? `, of ${ids.length}` : "";
    $("p-counter").textContent = rows.length ? `rows ${first + 1} to ${last} of ${matching.length}${of}` : "no row matches";
    $("p-back").disabled = first === 0;
    $("p-on").disabled = last >= matching.length;
    const turn = (step) => () => {
      first = Math.max(0, first + step);
      list(places, prompts, responses);
    };
    $("p-back").onclick = turn(-PAGE);
    $("p-on").onclick = turn(PAGE);
    detail(places, prompts, responses);
  }

  const text = (label, content) => make("div", { class: "text", dir: "auto", tabindex: 0, role: "group", "aria-label": label },
    visible(content));

  function detail(places, prompts, responses) {
    $("p-detail").replaceChildren();
    if (chosen === null) return;
    const [prompt, gold] = prompts[chosen];
    const head = [make("h3", {}, `${sources[chosen]}: ${visible(ids[chosen])}`), make("p", { class: "label" }, "Prompt"), text("prompt", prompt)];
    if (gold) head.push(make("p", { class: "label" }, "Gold answer: ", make("span", { class: "answer" }, visible(gold))));
    const columns = places.map((place, column) => {
      const line = responses[column][chosen];
      const box = make("div", { class: "prediction" }, make("h4", {}, runs[place]), make("p", {}, verdict(place, chosen)));
      if (!line.length) return box;
      const [response, answer, own] = line;
      if (answer) box.lastChild.append(": ", make("span", { class: "answer" }, visible(answer)));
      box.lastChild.append(` (${response.length.toLocaleString("en")} characters)`);
      if (own !== undefined) box.append(make("p", { class: "label" }, "This run's own prompt"), text(`prompt of ${runs[place]}`, own));
      box.append(text(`response of ${runs[place]}`, response));
      return box;
    });
    $("p-detail").replaceChildren(...head, make("div", { class: "predictions" }, ...columns));
  }

  function choice(run) {
    const box = make("input", { type: "checkbox", value: run });
    box.checked = shown.includes(run);
    box.addEventListener("change", () => {
      if (box.checked) shown.push(run);
      else shown.splice(shown.indexOf(run), 1);
      update();
    });
    const place = runs.indexOf(run);
    const scored = [...verdicts[place]].filter((one) => one === RIGHT || one === WRONG);
    const right = scored.filter((one) => one === RIGHT).length;
    const count = scored.length ? ` ${right.toLocaleString("en")} of ${scored.length.toLocaleString("en")} right` : "";
    return make("li", {}, make("label", {}, box, make("span", {}, run, make("small", {}, count))));
  }

  $("p-runs").append(...runs.map(choice));
  const every = [...new Set(sources)];
  $("p-source").append(option("", every.length > 1 ? "all" : every[0]), ...(every.length > 1 ? every.map((name) => option(name, name)) : []));
  for (const id of ["p-source", "p-filter", "p-sort"]) $(id).addEventListener("change", update);
  let typing = 0;
  $("p-search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(update, 150);
  });
  root.addEventListener("keydown", (event) => event.stopPropagation()); // the token viewer's keys aren't meant
  root.hidden = false;
  if (!("DecompressionStream" in window)) {
    $("p-counter").textContent = "This browser can't unpack the texts; a newer one can.";
    return;
  }
  const near = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    near.disconnect();
    update();
  }, { rootMargin: "800px" });
  near.observe(root);
})();
