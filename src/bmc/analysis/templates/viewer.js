"use strict";
// The token viewer. Every text goes into the page as text, never as markup.
(() => {
  const lines = (id) => document.getElementById(id).textContent.split("\n");
  const $ = (id) => document.getElementById(id);
  if (!$("viewer")) return;

  const { runs, shown, unit, scale } = JSON.parse($("viewer").textContent);
  const pairs = lines("pairs");
  const numbers = runs.map((_, place) => lines(`run-${place}`));
  const SIDES = [["chosen", "ỹ_w"], ["rejected", "y_l"]];
  let matching = pairs.map((_, place) => place); // pairs that the search finds
  let at = 0; // place in `matching`
  let sides = []; // what stands on the page: {run, name, tokens, differs, values}
  let texts = null; // of all pairs, lower-cased; made by the first search

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value / unit).toFixed(3);
  const share = (value) => (value < 10 ? "< 0.001" : (value / unit).toFixed(3));
  const weight = (values, place) => ((values.weights ? values.weights[place] : unit) / unit).toFixed(2);

  // What would not be seen, or would act on the page: a sign before it, which isn't copied.
  const SIGNS = { "\n": "↵", "\t": "⇥", "\u00a0": "⍽" };
  const HIDDEN = /[\u0000-\u001f\u007f\u00a0\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/u;
  const code = (char) => char.charCodeAt().toString(16).toUpperCase().padStart(4, "0");
  const sign = (char) => SIGNS[char] || (char < " " ? String.fromCharCode(0x2400 + char.charCodeAt()) : `U+${code(char)}`);
  const quoted = (text) => JSON.stringify(text).replace(new RegExp(HIDDEN, "gu"), (char) => `\\u${code(char)}`);

  function token(text, place, side) {
    const element = make("span", { class: side.differs[place] === "1" ? "token differs" : "token", tabindex: -1 });
    element.dataset.place = place;
    const reward = side.values ? side.values.rewards[place] : 0;
    const strength = Math.round((100 * Math.min(Math.abs(reward), scale)) / scale);
    element.style.setProperty("--strength", `${strength}%`);
    element.classList.add(reward < 0 ? "down" : "up");
    let plain = "";
    for (const char of text) {
      if (!HIDDEN.test(char)) {
        plain += char;
        continue;
      }
      // a mark of direction, or a character that acts, is shown by its sign alone
      const acts = char !== "\n" && char !== "\t" && char !== "\u00a0";
      element.append(plain, make("span", { class: "sign", "data-sign": sign(char) }), acts ? "" : char);
      plain = "";
    }
    if (/^ +$/.test(text)) element.classList.add("blank");
    element.append(plain);
    return element;
  }

  function response(side, label) {
    const box = make("div", { class: "text tokens", dir: "auto", role: "group", "aria-label": `${label} by ${side.run}` });
    box.append(...side.tokens.map((text, place) => token(text, place, side)));
    if (box.firstChild) box.firstChild.tabIndex = 0;
    return box;
  }

  function show() {
    hide();
    const none = matching.length === 0;
    const filtered = matching.length < pairs.length || none;
    const found = filtered ? ` that match, of ${pairs.length}` : "";
    $("counter").textContent = none ? "no pair matches" : `pair ${at + 1} of ${matching.length}${found}`;
    $("previous").disabled = none || at === 0;
    $("next").disabled = none || at === matching.length - 1;
    $("prompt").hidden = none;
    $("runs").hidden = none;
    $("pair-id").textContent = "";
    if (none) return;
    const pair = JSON.parse(pairs[matching[at]]);
    $("pair-id").textContent = pair.id;
    $("prompt").textContent = pair.prompt;
    sides = [];
    const columns = shown.map((run, column) => runColumn(pair, run, column));
    $("runs").replaceChildren(...columns);
  }

  function runColumn(pair, run, column) {
    const made = JSON.parse(numbers[runs.indexOf(run)][matching[at]]);
    const choice = make("select", { "aria-label": `run on the ${column ? "right" : "left"}` });
    choice.append(...runs.map((name) => make("option", name === run ? { selected: "" } : {}, name)));
    choice.addEventListener("change", () => {
      shown[column] = choice.value;
      show();
      $("runs").querySelectorAll("select")[column].focus();
    });
    const element = make("div", { class: "run", role: "group", "aria-label": `${column ? "right" : "left"}: ${run}` }, choice);
    if (!made) {
      element.append(make("p", {}, "This run has no such pair."));
      return element;
    }
    const margin = made.chosen.reward - made.rejected.reward;
    const verdict = margin > 0 ? "ỹ_w preferred" : margin < 0 ? "y_l preferred" : "neither preferred";
    element.append(make("p", { class: "margin" }, `margin ${signed(margin)}, ${verdict}`));
    for (const [name, label] of SIDES) {
      const side = { run, name, ...(made.texts || pair)[name], values: made[name] };
      const box = response(side, label);
      box.dataset.side = sides.push(side) - 1;
      element.append(make("p", { class: "label" }, `${label} `, make("small", {}, `reward ${signed(made[name].reward)}`)), box);
    }
    return element;
  }

  // Everything that is known of a token, beside what the other run says of the same one.
  function tell(element) {
    hide();
    const place = Number(element.dataset.place);
    const box = element.closest(".tokens");
    const side = sides[box.dataset.side];
    const same = sides.filter((one) => one.name === side.name && one.tokens[place] === side.tokens[place]);
    const kind = side.differs[place] === "1" ? " differs" : " is common";
    const head = make("p", {}, make("b", {}, quoted(side.tokens[place])), kind);
    const rows = [["", ...same.map((one) => one.run)]];
    rows.push(["r", ...same.map((one) => signed(one.values.rewards[place]))]);
    rows.push(["λ", ...same.map((one) => weight(one.values, place))]);
    rows.push(["π", ...same.map((one) => share(one.values.probabilities[place]))]);
    const table = make("table", {}, ...rows.map(([name, ...cells]) =>
      make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell)))));
    const tip = $("tip");
    tip.replaceChildren(head, table);
    tip.hidden = false;
    element.setAttribute("aria-describedby", "tip");
    for (const other of document.querySelectorAll(".tokens")) {
      if (same.includes(sides[other.dataset.side])) other.children[place].classList.add("at");
    }
    const where = element.getClientRects()[0] || element.getBoundingClientRect();
    const left = Math.min(where.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const below = where.bottom + 6 + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? where.bottom + 6 : Math.max(8, where.top - tip.offsetHeight - 6)}px`;
  }

  function hide() {
    $("tip").hidden = true;
    for (const element of document.querySelectorAll(".token.at")) element.classList.remove("at");
    for (const element of document.querySelectorAll(".token[aria-describedby]")) element.removeAttribute("aria-describedby");
  }

  function go(step) {
    const next = Math.min(Math.max(at + step, 0), matching.length - 1);
    if (next === at || next < 0) return;
    at = next;
    show();
    remember();
  }

  function remember() {
    if (matching.length) history.replaceState(null, "", `#pair=${encodeURIComponent(JSON.parse(pairs[matching[at]]).id)}`);
  }

  function search(words) {
    const kept = matching[at];
    const wanted = words.trim().toLowerCase();
    texts ??= pairs.map((line) => {
      const { id, prompt, chosen, rejected } = JSON.parse(line);
      return [id, prompt, chosen.tokens.join(""), rejected.tokens.join("")].join("\n").toLowerCase();
    });
    matching = pairs.map((_, place) => place).filter((place) => texts[place].includes(wanted));
    at = Math.max(0, matching.indexOf(kept));
    show();
  }

  function fromHash() {
    const wanted = /^#pair=(.*)$/.exec(location.hash);
    if (!wanted) return false;
    let id;
    try {
      id = decodeURIComponent(wanted[1]);
    } catch {
      return false;
    }
    const place = pairs.findIndex((line) => JSON.parse(line).id === id);
    if (place < 0) return false;
    matching = pairs.map((_, each) => each);
    $("search").value = "";
    at = place;
    return true;
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inside = document.activeElement;
    if (inside && inside.matches("input, select, textarea")) {
      if (event.key === "Escape") inside.blur();
      return;
    }
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && inside && inside.matches(".token")) {
      const neighbour = step > 0 ? inside.nextElementSibling : inside.previousElementSibling;
      if (neighbour) neighbour.focus();
      event.preventDefault();
    } else if (step || event.key === "j" || event.key === "k") {
      go(step || (event.key === "j" ? 1 : -1));
      event.preventDefault();
    } else if (event.key === "/") {
      $("search").focus();
      event.preventDefault();
    } else if (event.key === "Escape") {
      hide();
      if (inside && inside.matches(".token")) inside.blur();
    }
  }

  const onToken = (act) => (event) => {
    const element = event.target.closest && event.target.closest(".token");
    if (element) act(element);
  };
  $("runs").addEventListener("mouseover", onToken(tell));
  $("runs").addEventListener("mouseleave", hide);
  $("runs").addEventListener("focusout", hide);
  $("runs").addEventListener("focusin", onToken((element) => {
    for (const one of element.parentElement.querySelectorAll('[tabindex="0"]')) one.tabIndex = -1;
    element.tabIndex = 0; // where Tab comes back to
    tell(element);
  }));
  $("runs").addEventListener("click", onToken((element) => element.focus()));
  // what has the focus keeps its tip where it goes, as the browser may scroll to it; the pointer's tip goes
  const moved = () => (document.activeElement.matches(".token") ? tell(document.activeElement) : hide());
  document.addEventListener("scroll", moved, { passive: true, capture: true });
  document.addEventListener("keydown", onKey);
  $("previous").addEventListener("click", () => go(-1));
  $("next").addEventListener("click", () => go(1));
  $("search").addEventListener("input", (event) => search(event.target.value));
  window.addEventListener("hashchange", () => fromHash() && show());

  $("lowest").textContent = `less likely, ${signed(-scale)}`;
  $("highest").textContent = `${signed(scale)}, more likely`;
  $("scale").setAttribute("aria-label", `colours from ${signed(-scale)} (purple) over 0 (none) to ${signed(scale)} (orange)`);
  $("token-viewer").hidden = false;
  if (fromHash()) $("token-viewer").scrollIntoView();
  show();
})();
