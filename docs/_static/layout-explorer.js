// The layout explorer: one weight of a tile, and where each format puts it. What it knows of formats is the bit fields
// in its data, which awqdoc wrote when the page was built.
(function () {
  "use strict";
  const { html, svg, parse, gather, scatter, grid, picture, panel, keep, redraw, widget } = window.awqdoc;

  const TILE = 16; // rows and columns of the window on the weight
  const WORDS = 4; // neighbouring words that are shown
  const LARGEST = 65535;

  widget("layout-explorer", (place, data) => {
    const formats = new Map(data.formats.map((format) => [format.name, format]));
    const drawing = html("div", { class: "awqdoc-explorer" });
    place.querySelector(".awqdoc-widget-off").replaceWith(drawing);
    let state;
    const change = keep(place, data.start, sane, (now) => {
      state = now;
      draw();
    });

    function sane(wanted) {
      const whole = (value) => Math.min(LARGEST, Math.max(0, Math.round(Number(value)) || 0));
      return {
        layout: formats.has(wanted.layout) ? wanted.layout : data.start.layout,
        k: whole(wanted.k),
        n: whole(wanted.n),
      };
    }

    function draw() {
      const format = formats.get(state.layout);
      const index = { k: state.k, n: state.n };
      const at = Object.fromEntries(["row", "word", "nibble"].map((name) => [name, gather(format[name], index)]));
      const lane = Object.fromEntries(Object.entries(format.lane).map(([name, field]) => [name, gather(field, index)]));
      const parts = [
        controls(format, at),
        sentence(format, at, lane),
        html(
          "div",
          { class: "awqdoc-panels" },
          panel("The weight, k down and n across", tile(format, at, lane)),
          html(
            "div",
            {},
            panel(`Memory: row ${at.row}, words ${at.word - (at.word % WORDS)} and on`, memory(format, at)),
            "lane" in lane ? panel("The 32 lanes of a warp", lanes(format, lane)) : null,
          ),
          panel("Which bit goes where", wires(format, index)),
        ),
      ];
      redraw(drawing, parts);
    }

    function controls(format, at) {
      const choice = html(
        "select",
        { "data-focus": "layout", onchange: (event) => change({ layout: event.target.value }) },
        ...data.formats.map((one) =>
          html("option", { value: one.name, selected: one.name === format.name ? "" : null }, one.name),
        ),
      );
      const number = (name, value, chosen) =>
        html(
          "label",
          {},
          `${name} `,
          html("input", {
            type: "number",
            min: 0,
            max: name === "nibble" ? format.nibbles - 1 : LARGEST,
            value,
            "data-focus": name,
            onchange: (event) => chosen(Number(event.target.value)),
          }),
        );
      const reverse = (name) => (value) => {
        const limit = name === "nibble" ? format.nibbles - 1 : LARGEST;
        change(weightAt(format, { ...at, [name]: Math.min(limit, Math.max(0, Math.round(value) || 0)) }));
      };
      return html(
        "div",
        { class: "awqdoc-controls" },
        html("label", {}, "format ", choice),
        html(
          "span",
          { role: "group", "aria-label": "weight" },
          number("k", state.k, (k) => change({ k })),
          number("n", state.n, (n) => change({ n })),
        ),
        html(
          "span",
          { role: "group", "aria-label": "place in memory" },
          ...["row", "word", "nibble"].map((name) => number(name, at[name], reverse(name))),
        ),
      );
    }

    // Row, word and nibble back to k and n.
    function weightAt(format, at) {
      return ["row", "word", "nibble"].reduce((index, name) => scatter(format[name], at[name], index), { k: 0, n: 0 });
    }

    function sentence(format, at, lane) {
      const owner =
        "lane" in lane ? `; lane ${lane.lane}, register ${lane.register}, half ${lane.half} of that lane` : "";
      return html(
        "p",
        { "aria-live": "polite", class: "awqdoc-answer" },
        `${format.title}. Weight k = ${state.k}, n = ${state.n}: row ${at.row}, word ${at.word}, ` +
          `nibble ${at.nibble} of ${format.wordtype}${owner}.`,
      );
    }

    function tile(format, at, lane) {
      const [k0, n0] = [state.k - (state.k % TILE), state.n - (state.n % TILE)];
      const size = 21;
      const drawn = grid({
        label: `weights k ${k0} to ${k0 + TILE - 1}, n ${n0} to ${n0 + TILE - 1}; arrow keys move`,
        rows: TILE,
        columns: TILE,
        width: size,
        height: size,
        left: 24,
        top: 14,
        size: 9,
        selected: [state.k - k0, state.n - n0],
        choose: (row, column) => change({ k: k0 + row, n: n0 + column }),
        cell: (row, column) => {
          const index = { k: k0 + row, n: n0 + column };
          const nibble = gather(format.nibble, index);
          const same = gather(format.row, index) === at.row && gather(format.word, index) === at.word;
          const mine = "lane" in lane && gather(format.lane.lane, index) === lane.lane;
          return {
            text: String(nibble),
            label: `k ${index.k}, n ${index.n}: nibble ${nibble}${same ? ", same word" : ""}`,
            kind: `${same ? "awqdoc-same" : ""} ${mine ? "awqdoc-mine" : ""}`,
          };
        },
      });
      drawn.setAttribute("data-focus", "tile");
      const numbers = [];
      for (let i = 0; i < TILE; i += 1) {
        numbers.push(
          svg("text", { x: 12, y: 14 + (i + 0.5) * size, class: "awqdoc-k", "font-size": 9 }, String(k0 + i)),
          svg("text", { x: 24 + (i + 0.5) * size, y: 7, class: "awqdoc-n", "font-size": 9 }, String(n0 + i)),
        );
      }
      return picture(24 + TILE * size, 14 + TILE * size, ...numbers, drawn);
    }

    function memory(format, at) {
      const first = at.word - (at.word % WORDS);
      const [width, height] = [320 / format.nibbles, 32];
      const nibbleOf = (column) => format.nibbles - 1 - column;
      const drawn = grid({
        label: `words ${first} to ${first + WORDS - 1} of row ${at.row}, the highest nibble first; arrow keys move`,
        rows: WORDS,
        columns: format.nibbles,
        width,
        height,
        left: 40,
        top: 14,
        size: 9,
        selected: [at.word - first, nibbleOf(at.nibble)],
        choose: (row, column) => {
          const bounded = Math.min(format.nibbles - 1, Math.max(0, nibbleOf(column)));
          change(weightAt(format, { row: at.row, word: Math.max(0, first + row), nibble: bounded }));
        },
        cell: (row, column) => {
          const index = weightAt(format, { row: at.row, word: first + row, nibble: nibbleOf(column) });
          return {
            text: [`k ${index.k}`, `n ${index.n}`],
            label: `word ${first + row}, nibble ${nibbleOf(column)}: k ${index.k}, n ${index.n}`,
            kind: first + row === at.word ? "awqdoc-same" : "",
          };
        },
      });
      drawn.setAttribute("data-focus", "memory");
      const names = [];
      for (let i = 0; i < WORDS; i += 1) {
        names.push(svg("text", { x: 18, y: 14 + (i + 0.5) * height, "font-size": 9 }, String(first + i)));
      }
      for (let i = 0; i < format.nibbles; i += 1) {
        names.push(svg("text", { x: 40 + (i + 0.5) * width, y: 7, "font-size": 9 }, String(nibbleOf(i))));
      }
      return picture(360, 14 + WORDS * height, ...names, drawn);
    }

    function lanes(format, lane) {
      const [width, height] = [40, 20];
      const drawn = grid({
        label: "lanes of the warp; arrow keys move",
        rows: 4,
        columns: 8,
        width,
        height,
        left: 40,
        size: 9,
        selected: [lane.lane >> 3, lane.lane & 7],
        choose: (row, column) =>
          change(scatter(format.lane.lane, (8 * row + column) & 31, { k: state.k, n: state.n })),
        cell: (row, column) => ({ text: String(8 * row + column), label: `lane ${8 * row + column}` }),
      });
      drawn.setAttribute("data-focus", "lanes");
      return picture(360, 4 * height, drawn);
    }

    // "nibble bit 2" is a bit of the nibble's number, not nibble 2.
    function bitName(name, number, rest = false) {
      return rest ? `${name} bits ${number}+` : `${name} bit ${number}`;
    }

    function wires(format, index) {
      const places = ["row", "word", "nibble"].flatMap((name) => {
        const bits = parse(format[name]);
        return bits.map((bit, i) => ({ bit, name: bit.rest && bits.length === 1 ? name : bitName(name, bits.length - 1 - i, bit.rest) }));
      });
      const start = places
        .map(({ bit }) => bit)
        .sort((a, b) => (a.axis === b.axis ? b.number - a.number : a.axis < b.axis ? -1 : 1));
      const owners = new Map();
      for (const [name, field] of Object.entries(format.lane)) {
        const bits = parse(field);
        bits.forEach((bit, i) => owners.set(bit.name, bits.length > 1 ? bitName(name, bits.length - 1 - i) : name));
      }
      const step = 21;
      const height = (i) => 10 + i * step;
      const valueOf = (bit) => (bit.rest ? index[bit.axis] >> bit.number : (index[bit.axis] >> bit.number) & 1);
      const drawn = places.flatMap(({ bit, name }, to) => {
        const from = start.indexOf(bit);
        const kind = `awqdoc-wire awqdoc-${bit.axis} ${valueOf(bit) ? "awqdoc-lit" : ""}`;
        return [
          svg("polyline", { class: kind, points: `56,${height(from)} 80,${height(from)} 152,${height(to)} 176,${height(to)}` }),
          svg("text", { class: `awqdoc-${bit.axis} awqdoc-end`, x: 30, y: height(from), "font-size": 11 }, bit.name),
          svg("text", { x: 44, y: height(from), "font-size": 11, class: "awqdoc-value" }, String(valueOf(bit))),
          svg("text", { class: "awqdoc-start", x: 200, y: height(to), "font-size": 11 }, name),
          svg("text", { class: "awqdoc-start awqdoc-value", x: 286, y: height(to), "font-size": 9 }, owners.get(bit.name) || ""),
          svg("text", { x: 188, y: height(to), "font-size": 11, class: "awqdoc-value" }, String(valueOf(bit))),
        ];
      });
      const told = places
        .map(({ bit, name }) => `${bit.name} to ${name}${owners.has(bit.name) ? ` (${owners.get(bit.name)})` : ""}`)
        .join(", ");
      const figure = picture(360, height(places.length), ...drawn);
      figure.setAttribute("role", "img");
      figure.setAttribute("aria-label", `Bits of the index and of the place in memory: ${told}`);
      return figure;
    }
  });
})();
