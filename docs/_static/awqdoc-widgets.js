// What the site's interactive figures share: drawing, grids that the keyboard can walk, bit fields, quantities, state that
// stands in the address.
// A plain script, not a module: browsers refuse modules to pages that are opened as files.
window.awqdoc = (function () {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const builders = {};
  let count = 0;

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  // "n6+ n2 k1" -> [{axis: "n", number: 6, rest: true}, ...], the most significant bit first.
  function parse(field) {
    return field.split(" ").filter(Boolean).map((word) => ({
      axis: word[0],
      number: parseInt(word.slice(1), 10),
      rest: word.endsWith("+"),
      name: word,
    }));
  }

  // The value of a field for an index {k, n}.
  function gather(field, index) {
    return parse(field).reduce((value, bit) => {
      const part = index[bit.axis] >> bit.number;
      return bit.rest ? part : (value << 1) | (part & 1);
    }, 0);
  }

  // A copy of an index in which the bits of a field are those of a value.
  function scatter(field, value, index) {
    const result = { ...index };
    for (const bit of parse(field).reverse()) {
      const below = (1 << bit.number) - 1;
      const old = result[bit.axis] || 0;
      result[bit.axis] = bit.rest
        ? (value << bit.number) | (old & below)
        : (old & ~(1 << bit.number)) | ((value & 1) << bit.number);
      value >>= 1;
    }
    return result;
  }

  // A grid of cells with one stop for the Tab key; arrows move the selection, also beyond its edges.
  // cell(row, column) -> {text, label, kind}; kind is a class; selected [row, column]; choose(row, column).
  function grid({ label, rows, columns, width, height, size, left = 0, top = 0, cell, selected, choose }) {
    const id = `awqdoc-grid-${(count += 1)}`;
    const lines = [];
    for (let row = 0; row < rows; row += 1) {
      const cells = [];
      for (let column = 0; column < columns; column += 1) {
        const { text, label: name, kind } = cell(row, column);
        const here = selected && selected[0] === row && selected[1] === column;
        const [x, y] = [left + column * width, top + row * height];
        cells.push(
          svg(
            "g",
            {
              role: "gridcell",
              id: `${id}-${row}-${column}`,
              class: `awqdoc-cell ${kind || ""}${here ? " awqdoc-selected" : ""}`,
              "aria-label": name,
              "aria-selected": here ? "true" : "false",
              "data-row": row,
              "data-column": column,
              onclick: () => choose(row, column),
            },
            svg("rect", { x: x + 0.5, y: y + 0.5, width: width - 1, height: height - 1 }),
            ...[].concat(text).map((line, i, all) =>
              svg(
                "text",
                { x: x + width / 2, y: y + height / 2 + (i - (all.length - 1) / 2) * size * 1.1, "font-size": size },
                line,
              ),
            ),
          ),
        );
      }
      lines.push(svg("g", { role: "row" }, ...cells));
    }
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    return svg(
      "g",
      {
        role: "grid",
        tabindex: "0",
        "aria-label": label,
        "aria-activedescendant": selected ? `${id}-${selected[0]}-${selected[1]}` : null,
        class: "awqdoc-grid",
        onkeydown: (event) => {
          const move = moves[event.key];
          if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
          event.preventDefault();
          const [row, column] = selected || [0, 0];
          choose(row + move[0], column + move[1]);
        },
      },
      ...lines,
    );
  }

  const picture = (width, height, ...children) =>
    svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "awqdoc-drawing" }, ...children);
  const panel = (title, ...content) =>
    html("figure", { class: "awqdoc-panel" }, html("figcaption", {}, title), ...content);

  // 2.02e-5, "s" -> "20.2 µs": three digits and a prefix.
  function quantity(value, unit) {
    const prefixes = ["n", "µ", "m", "", "k", "M", "G", "T"];
    const rounded = Number(value.toPrecision(3));
    const step = rounded > 0 ? Math.min(4, Math.max(-3, Math.floor(Math.log10(rounded) / 3))) : 0;
    const scaled = rounded / 1000 ** step;
    return `${scaled < 1000 ? scaled.toPrecision(3) : scaled.toFixed(0)} ${prefixes[step + 3]}${unit}`;
  }

  // The part of the address behind #, as a flat object, and back; other widgets' keys are kept.
  const readState = () => Object.fromEntries(new URLSearchParams(window.location.hash.slice(1)));
  function writeState(state) {
    const all = new URLSearchParams({ ...readState(), ...state });
    window.history.replaceState(null, "", `#${all}`);
  }

  // Keep the state of a widget: start with it, make every change of it sane, and draw it. That of a linked widget stands
  // in the address. Returns change(wanted), which takes the parts that change.
  function keep(place, start, sane, draw) {
    const linked = place.dataset.linked === "yes";
    let state = sane({ ...start, ...(linked ? readState() : {}) });
    function change(wanted) {
      state = sane({ ...state, ...wanted });
      if (linked) writeState(state);
      draw(state);
    }
    if (linked) {
      window.addEventListener("hashchange", () => {
        state = sane({ ...state, ...readState() });
        draw(state);
      });
    }
    draw(state);
    return change;
  }

  // Draw again without losing the focus: the element with the same data-focus has it afterwards.
  function redraw(root, children) {
    const focused = root.contains(document.activeElement) && document.activeElement.closest("[data-focus]");
    const name = focused && focused.getAttribute("data-focus");
    root.replaceChildren(...children);
    const again = name && root.querySelector(`[data-focus="${name}"]`);
    if (again) (again.matches("[tabindex]") ? again : again.querySelector("[tabindex]") || again).focus();
  }

  // Controls with their labels. `inputs` gets each by its name; a number calls `change` with what it was changed to.
  function fields(inputs, change) {
    const labelled = (name, text, element) => {
      inputs[name] = element;
      element.setAttribute("data-focus", name);
      return html("label", {}, `${text} `, element);
    };
    const option = (value, text) => html("option", { value }, text);
    const choice = (name, text, chosen, ...options) =>
      labelled(name, text, html("select", { onchange: (event) => chosen(event.target.value) }, ...options));
    const number = (name, text, low, high) =>
      labelled(
        name,
        text,
        html("input", { type: "number", min: low, max: high, onchange: (event) => change({ [name]: event.target.value }) }),
      );
    return { labelled, option, choice, number };
  }

  function widget(name, build) {
    builders[name] = build;
  }
  document.addEventListener("DOMContentLoaded", () => {
    for (const place of document.querySelectorAll("[data-awqdoc-widget]")) {
      builders[place.dataset.awqdocWidget](place, JSON.parse(place.querySelector("script").textContent));
    }
  });

  return { html, svg, parse, gather, scatter, grid, picture, panel, quantity, keep, redraw, fields, widget };
})();
