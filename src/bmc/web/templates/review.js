"use strict";
// The review of a bridging run. Every text goes into the page as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const WAIT = 150; // milliseconds without a key before the edit is compared anew
  const STATES = { accept: "accepted", reject: "rejected", correct: "corrected" };
  let row = null; // the one that is shown
  let timer = 0;
  let round = 0; // of comparisons, so that an overtaken one isn't shown
  let busy = Promise.resolve(); // one request after another, in the order of the keys

  const make = (tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
  };

  async function ask(path, body) {
    const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    let answer;
    try {
      answer = await fetch(path, options);
    } catch {
      throw new Error("the server is gone; start the same command again and open the address that it prints");
    }
    const value = await answer.json();
    if (!answer.ok) throw new Error(value.error);
    return value;
  }

  // Do one thing after another; the page shows what goes wrong.
  function then(action) {
    busy = busy.then(async () => {
      $("message").textContent = "";
      try {
        await action();
      } catch (error) {
        $("message").textContent = error.message;
      }
    });
    return busy;
  }

  function showProgress(progress) {
    const made = Object.entries(STATES).map(([decision, word]) => `${progress[decision].toLocaleString("en")} ${word}`);
    $("progress").textContent = `${progress.reviewer}: ${progress.decided.toLocaleString("en")} of ${progress.rows.toLocaleString("en")} rows decided (${made.join(", ")})`
      + (progress.rationale ? `, ${progress.rationale.toLocaleString("en")} with the editor's rationale` : "");
    const kappa = (one) => (one.kappa === null ? "undefined" : one.kappa.toFixed(2));
    $("agreement").textContent = progress.agreement.map((one) => `${one.reviewers.join(" and ")}: Cohen's κ ${kappa(one)} (n = ${one.n})`).join("; ");
  }

  function showFacts(facts) {
    $("diff").replaceChildren(...facts.pieces.map(([tag, text]) =>
      tag === "equal" ? document.createTextNode(text) : make(tag, text.replaceAll("\n", "↵\n"))));
    const ratio = facts.edit_ratio === null ? "" : `edit ratio ${facts.edit_ratio.toFixed(2)}`;
    $("facts").textContent = ratio;
    $("findings").replaceChildren(...facts.findings.map((finding) => make("li", finding)));
  }

  function show(found) {
    row = found;
    $("row").hidden = false;
    stopEditing();
    $("id").textContent = row.id;
    $("state").textContent = row.decision ? STATES[row.decision] : `${row.state}, undecided`;
    $("prompt").textContent = row.prompt;
    $("names").textContent = `${row.base} → ${row.edit}`;
    $("other").textContent = row.other;
    $("beside-box").hidden = row.beside === null;
    $("beside").textContent = row.beside ?? "";
    const notes = ["rationale", "feedback", "answer"].filter((name) => name in row);
    $("notes").replaceChildren(...notes.flatMap((name) => {
      const label = make("p", name === "answer" ? "gold answer" : name), text = make("div", row[name]);
      label.className = "label";
      text.className = "text";
      text.id = `note-${name}`;
      return [label, text];
    }));
    showFacts(row);
    remember();
  }

  function filters() {
    const query = new URLSearchParams();
    if ($("decision").value) query.set("decision", $("decision").value);
    const reason = $("reason").selectedOptions[0].dataset.reason;
    if (reason !== undefined) query.set("reason", reason);
    for (const [id, all] of [["low", 0], ["high", 1]]) {
      if ($(id).value !== "" && Number($(id).value) !== all) query.set(id, $(id).value);
    }
    if ($("order").value) query.set("seed", $("seed").value || "0");
    return query;
  }

  // The address after # holds the filters and the row, so that a page that is loaded again shows them.
  function remember() {
    const query = filters();
    if (row) query.set("at", row.place);
    history.replaceState(null, "", `#${query}`);
  }

  function recall() {
    const query = new URLSearchParams(location.hash.slice(1));
    $("decision").value = query.get("decision") ?? "";
    const option = [...$("reason").options].find((one) => one.dataset.reason === (query.get("reason") ?? undefined));
    if (option) option.selected = true;
    $("low").value = query.get("low") ?? "0";
    $("high").value = query.get("high") ?? "1";
    $("order").value = query.has("seed") ? "random" : "";
    $("seed").value = query.get("seed") ?? "0";
    return query.get("at");
  }

  async function load(at, step) {
    const query = filters();
    if (at !== null) query.set("at", at);
    query.set("step", step);
    const found = await ask(`rows?${query}`);
    const total = found.total.toLocaleString("en");
    if (found.rows.length) {
      show(found.rows[0]);
      $("counter").textContent = `row ${found.rows[0].number.toLocaleString("en")} of ${total}`;
    } else if (step === 0 && at !== null) {
      await load(null, 0);
    } else if (found.total === 0 || step === 0) {
      row = step === 0 ? null : row;
      $("row").hidden = row === null;
      $("counter").textContent = `${total} rows`;
    } else {
      $("message").textContent = step > 0 ? "this was the last row" : "this was the first row";
    }
  }

  const go = (step) => then(() => load(row ? row.place : null, row ? step : 0));

  async function decided(answer) {
    showProgress(answer.progress);
    if (answer.row && row && answer.row.place === row.place) show({ ...row, ...answer.row });
    await load(row.place, 1);
  }

  const decide = (decision) => then(async () => {
    if (row) await decided(await ask("decide", { place: row.place, decision }));
  });

  const undo = () => then(async () => {
    const answer = await ask("undo", {});
    showProgress(answer.progress);
    if (answer.row) {
      show(answer.row);
      $("counter").textContent = "undone";
    } else {
      $("message").textContent = "there is nothing to undo";
    }
  });

  const isEditing = () => !$("editing").hidden;

  function edit() {
    if (!row) return;
    $("editing").hidden = false;
    $("text").value = row.text;
    $("text").focus();
  }

  function stopEditing() {
    clearTimeout(timer);
    round += 1;
    $("editing").hidden = true;
  }

  function compare() {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const mine = ++round;
      try {
        const facts = await ask("judge", { place: row.place, text: $("text").value });
        if (mine === round) showFacts(facts);
      } catch (error) {
        $("message").textContent = error.message;
      }
    }, WAIT);
  }

  const save = () => then(async () => {
    if (!isEditing()) return;
    const answer = await ask("decide", { place: row.place, decision: "correct", text: $("text").value });
    stopEditing();
    document.activeElement.blur();
    await decided(answer);
  });

  function cancel() {
    if (!isEditing()) return;
    stopEditing();
    document.activeElement.blur();
    showFacts(row);
  }

  const keys = { a: () => decide("accept"), r: () => decide("reject"), u: undo, e: edit, j: () => go(1), k: () => go(-1), ArrowRight: () => go(1), ArrowLeft: () => go(-1) };
  document.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (isEditing() && event.key === "Escape") return cancel();
    if (isEditing() && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      return save();
    }
    if (isEditing() || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    if (event.repeat && event.key.length === 1 && !"jk".includes(event.key)) return;
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  for (const [id, action] of Object.entries({ previous: () => go(-1), next: () => go(1), accept: keys.a, reject: keys.r, edit, undo, save, cancel })) {
    $(id).addEventListener("click", action);
  }
  for (const id of ["decision", "reason", "low", "high", "order", "seed"]) {
    $(id).addEventListener("change", () => then(() => load(null, 0)));
  }
  $("text").addEventListener("input", compare);
  then(async () => {
    showProgress(await ask("progress"));
    const at = recall();
    await load(at, 0);
  });
})();
