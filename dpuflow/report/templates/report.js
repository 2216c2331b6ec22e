"use strict";
// Sort a table by the column whose heading button is pressed; empty cells stay last.
function sortBy(button) {
  const heading = button.closest("th");
  const body = heading.closest("table").tBodies[0];
  const column = heading.cellIndex;
  const first = heading.dataset.first || "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  const key = (row) => {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    return text === "" || text === "–" ? null : isNaN(text) ? text : Number(text);
  };
  const rows = Array.from(body.rows, (row, index) => ({ row, index, key: key(row) }));
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.index - b.index;
    const difference = typeof a.key === "number" && typeof b.key === "number"
      ? a.key - b.key
      : String(a.key).localeCompare(String(b.key), "en", { numeric: true });
    return sign * difference || a.index - b.index;
  });
  body.append(...rows.map((entry) => entry.row));
  for (const cell of heading.parentElement.cells) cell.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
}
for (const button of document.querySelectorAll("th button")) {
  if (button.closest("table").tBodies[0].rows.length < 2) button.replaceWith(button.textContent);
  else button.addEventListener("click", () => sortBy(button));
}

// A link into a folded run opens it first.
function reveal() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  let opened = false;
  for (let node = target; node; node = node.parentElement) {
    if (node.tagName === "DETAILS" && !node.open) { node.open = true; opened = true; }
  }
  if (opened) target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();
addEventListener("beforeprint", () => {
  for (const node of document.querySelectorAll("details.run")) node.open = true;
});

// The navigation follows the reader.
const links = new Map();
for (const link of document.querySelectorAll(".nav ul a[href^='#']")) links.set(link.hash.slice(1), link);
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    const link = links.get(entry.target.id);
    link.setAttribute("aria-current", "true");
    const bar = link.closest(".nav > ul");
    if (bar.scrollWidth > bar.clientWidth) bar.scrollTo({ left: link.closest(".nav > ul > li").offsetLeft - 24 });
  }
}, { rootMargin: "-5% 0px -80% 0px" });
for (const id of links.keys()) {
  const section = document.getElementById(id);
  if (section) watcher.observe(section);
}

// A filter box hides the rows that lack any of its words.
for (const box of document.querySelectorAll("input[data-filter]")) {
  const rows = Array.from(document.getElementById(box.dataset.filter).tBodies[0].rows);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      shown += !row.hidden;
    }
    box.closest(".filter").querySelector("output").value = words.length ? `${shown} of ${rows.length} ${box.dataset.unit || "runs"}` : "";
  });
}

// Any two runs side by side: which images changed, and how.
const holder = document.getElementById("answers");
if (holder) {
  const content = JSON.parse(holder.textContent);
  const unpack = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return Array.from({ length: bytes.length / 2 }, (_, i) => bytes[2 * i] | (bytes[2 * i + 1] << 8));
  };
  const most = 300;
  const [from, to] = ["compare-a", "compare-b"].map((id) => document.getElementById(id));
  const table = document.getElementById("compare-table");
  const fill = (select, runs) => {
    select.replaceChildren(...runs.map(([index, run]) => new Option(run.name, index)));
  };
  const all = content.runs.map((run, index) => [index, run]);
  fill(from, all.filter(([, run]) => all.filter(([, other]) => other.data === run.data).length > 1));
  const partners = () => {
    const before = to.value;
    fill(to, all.filter(([index, run]) => index !== Number(from.value) && run.data === content.runs[from.value].data));
    if ([...to.options].some((option) => option.value === before)) to.value = before;
    compare();
  };
  const cell = (text, kind) => {
    const made = document.createElement("td");
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const heads = (...words) => words.forEach((word, k) => { table.tHead.rows[0].cells[k + 1].textContent = word; });
  function compare() {
    const [a, b] = [content.runs[from.value], content.runs[to.value]];
    const data = content.data[a.data];
    if (data.task) {
      judge(a, b, data);
      return;
    }
    heads("True class", "Answer before", "Answer after");
    const [truth, before, after] = [data.labels, a.answers, b.answers].map(unpack);
    const count = Math.min(before.length, after.length);
    const kinds = { lost: 0, gained: 0, "another wrong answer": 0 };
    const changed = [];
    for (let i = 0; i < count; i += 1) {
      if (before[i] === after[i]) continue;
      const kind = before[i] === truth[i] ? "lost" : after[i] === truth[i] ? "gained" : "another wrong answer";
      kinds[kind] += 1;
      changed.push([i, kind]);
    }
    const number = (value) => value.toLocaleString("en");
    document.getElementById("compare-words").textContent = changed.length
      ? `${number(changed.length)} of ${number(count)} images of ${data.name} get another answer: ` +
        `${number(kinds.lost)} lost, ${number(kinds.gained)} gained, ${number(kinds["another wrong answer"])} wrong in another way.` +
        (changed.length > most ? ` The first ${most} are shown.` : "")
      : `All ${number(count)} images of ${data.name} get the same answer.`;
    if ("top5" in a && "top5" in b) {
      const percent = (value) => `${(100 * value).toFixed(2)} %`;
      document.getElementById("compare-words").textContent += ` Top-5: ${percent(a.top5)}, then ${percent(b.top5)}.`;
    }
    table.hidden = !changed.length;
    table.tBodies[0].replaceChildren(...changed.slice(0, most).map(([i, kind]) => {
      const row = document.createElement("tr");
      const name = (label) => data.classes[label];
      const tone = { lost: "drop", gained: "gain" }[kind] || "";
      row.append(cell(number(i), "num"), cell(name(truth[i])), cell(name(before[i])), cell(name(after[i])), cell(kind, tone));
      return row;
    }));
  }
  // Boxes and masks: the mistakes of each picture, most changed first.
  function judge(a, b, data) {
    const boxes = data.task === "detection";
    const wrong = (facts) => (boxes ? facts[0] + facts[1] : 100 * (1 - facts[0]));
    const words = (facts) => (boxes ? `${facts[0]} missed, ${facts[1]} of nothing` : `${(100 * facts[0]).toFixed(2)} % right`);
    const changed = a.facts.map((facts, i) => [i, wrong(b.facts[i]) - wrong(facts)])
      .filter(([i]) => a.facts[i].some((value, k) => value !== b.facts[i][k]))
      .sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]) || one[0] - other[0]);
    const number = (value) => value.toLocaleString("en");
    const worse = changed.filter(([, by]) => by > 0).length;
    const better = changed.filter(([, by]) => by < 0).length;
    const unit = boxes ? "other objects missed or boxes of nothing" : "another share of right pixels";
    document.getElementById("compare-words").textContent = changed.length
      ? `${number(changed.length)} of ${number(a.facts.length)} images of ${data.name} have ${unit}: ` +
        `${number(worse)} worse, ${number(better)} better.` + (changed.length > most ? ` The first ${most} are shown.` : "")
      : `None of the ${number(a.facts.length)} images of ${data.name} has ${unit}.`;
    heads("Change", "Before", "After");
    table.hidden = !changed.length;
    table.tBodies[0].replaceChildren(...changed.slice(0, most).map(([i, by]) => {
      const row = document.createElement("tr");
      const size = Math.abs(by);
      const how = by > 0 ? "worse" : by < 0 ? "better" : "other mistakes";
      const change = boxes ? (by > 0 ? `+${size}` : by < 0 ? `−${size}` : "±0") : `${by > 0 ? "−" : "+"}${size.toFixed(2)} pp`;
      row.append(cell(number(i), "num"), cell(change), cell(words(a.facts[i])), cell(words(b.facts[i])), cell(how, by > 0 ? "drop" : by < 0 ? "gain" : ""));
      return row;
    }));
  }
  from.addEventListener("change", partners);
  to.addEventListener("change", compare);
  partners();
}
