"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const charts = [document.querySelector("svg.timeline"), document.querySelector("svg.places")];
  const panel = document.getElementById("run");
  const hint = document.getElementById("hint");
  const count = data.first_step.length;
  let chosen = -1;

  const amount = (bytes) => {
    for (const [unit, name] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
      if (bytes >= unit) return `${(bytes / unit).toFixed(1)} ${name}`;
    }
    return `${bytes} B`;
  };

  // Text goes in as text: no markup is ever made from it.
  const add = (parent, tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };

  const place = (x, y) => {
    const box = hint.getBoundingClientRect();
    const left = x + 18 + box.width > innerWidth ? x - 18 - box.width : x + 18;
    hint.style.left = `${Math.max(6, left)}px`;
    hint.style.top = `${Math.max(6, Math.min(y + 14, innerHeight - box.height - 6))}px`;
    hint.classList.add("shown");
  };

  const hide = () => {
    chosen = -1;
    hint.classList.remove("shown");
    panel.classList.remove("hovering");
  };

  const work = (column) => {
    const kinds = ["forward", "recomputed", "backward"].filter((kind) => data[kind][column]);
    return kinds.join(", ");
  };

  const describe = (column) => {
    hint.replaceChildren();
    const step = data.step[column];
    const last = column === count - 1;
    const title = last ? "the results are there" : `step ${step.toLocaleString("en")} of ${(data.steps - 1).toLocaleString("en")}`;
    const head = add(hint, "div");
    add(head, "b", "", title);
    if (!last && work(column)) add(head, "span", "", ` · ${work(column)}`);
    const computes = data.computes[column];
    if (computes !== null) {
      add(hint, "div", "", `computes ${data.labels[computes][0]}`);
      if (data.labels[computes][1]) add(hint, "code", "", data.labels[computes][1]);
    }
    add(hint, "div", "", `live ${amount(data.live[column])}, with all results ${amount(data.allocated[column])}`);
    const rows = data.held.map((held, row) => [held[column], row]).filter(([held]) => held > 0);
    rows.sort((one, other) => other[0] - one[0]);
    for (const [held, row] of rows) {
      const line = add(hint, "div", "row");
      add(line, "span", `swatch s${row < data.names.length ? row : "others"}`);
      add(line, "span", "", row < data.names.length ? data.names[row] : "all other lines");
      add(line, "b", "", amount(held));
    }
  };

  const choose = (column, x, y) => {
    if (column !== chosen) {
      chosen = column;
      describe(column);
      const middle = data.left + (data.right - data.left) * (data.step[column] + 0.5) / data.steps;
      for (const chart of charts) {
        const cross = chart.querySelector(".cross");
        cross.setAttribute("x1", middle);
        cross.setAttribute("x2", middle);
      }
      panel.classList.add("hovering");
    }
    place(x, y);
  };

  // The column of a step: the last that begins no later.
  const columnOf = (step) => {
    let low = 0;
    let high = count - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (data.first_step[middle] <= step) low = middle;
      else high = middle - 1;
    }
    return low;
  };

  for (const chart of charts) {
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * 1000;
      const step = (x - data.left) / (data.right - data.left) * data.steps;
      if (step < 0 || step > data.steps) hide();
      else choose(columnOf(step), event.clientX, event.clientY);
    });
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("blur", hide);
    chart.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -count, End: count }[event.key];
      if (move === undefined) return;
      event.preventDefault();
      const column = Math.max(0, Math.min(count - 1, chosen + move));
      const box = chart.getBoundingClientRect();
      const x = data.left + (data.right - data.left) * data.step[column] / data.steps;
      choose(column, box.left + x / 1000 * box.width, box.top + box.height / 3);
    });
  }

  for (const entry of document.querySelectorAll(".legend li[data-row]")) {
    const marked = document.querySelectorAll(`[data-row="${entry.dataset.row}"]`);
    entry.addEventListener("pointerenter", () => {
      panel.classList.add("dim");
      marked.forEach((element) => element.classList.add("chosen"));
    });
    entry.addEventListener("pointerleave", () => {
      panel.classList.remove("dim");
      marked.forEach((element) => element.classList.remove("chosen"));
    });
  }

  for (const point of document.querySelectorAll("svg.frontier [data-text]")) {
    const title = point.querySelector("title");
    if (title) title.remove();
    point.addEventListener("pointermove", (event) => {
      hint.replaceChildren();
      add(hint, "div", "", point.dataset.text);
      place(event.clientX, event.clientY);
    });
    point.addEventListener("pointerleave", hide);
  }
})();
