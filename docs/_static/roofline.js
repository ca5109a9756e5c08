// The roofline: what a GPU's memory and tensor cores allow one layer, in FP16 and in a format that the reader chooses.
// Rates, bits per weight and measured times are its data, which awqdoc wrote when the page was built.
(function () {
  "use strict";
  const { fields, html, svg, picture, panel, quantity, keep, widget } = window.awqdoc;

  const LARGEST_M = 4096;
  const SIDES = [64, 131072]; // of a layer: fewer or more is none that a language model has
  // The drawing: FLOP per byte across and TFLOP/s up, the same for every GPU, so that one can compare them.
  const X = { low: 0.5, high: 16384, from: 38, to: 344, ticks: [1, 4, 16, 64, 256, 1024, 4096, 16384] };
  const Y = { low: 0.1, high: 5000, from: 250, to: 20, ticks: [0.1, 1, 10, 100, 1000] };

  const scale = (axis) => (value) => {
    const share = Math.log(value / axis.low) / Math.log(axis.high / axis.low);
    return axis.from + Math.min(1, Math.max(0, share)) * (axis.to - axis.from);
  };
  const [across, up] = [scale(X), scale(Y)];
  const reason = {
    memory: "memory (reading takes longer than multiplying)",
    compute: "compute (multiplying takes longer than reading)",
  };
  // Three digits, or all of a whole number.
  const plain = (number) => (number < 999.5 ? number.toPrecision(3) : String(Math.round(number)));

  // What a product of M tokens needs in a format, and what a GPU's roofs allow it.
  function allowed(gpu, format, { m, n, k }) {
    const weight = (n * (k * format.bits + format.column_bits)) / 8;
    const token = 2 * (n + k); // bytes of a row of X and of Y
    const [bytes, flops] = [weight + m * token, 2 * m * n * k];
    const [memory, compute] = [bytes / gpu.bandwidth, flops / gpu.peak];
    const seconds = Math.max(memory, compute);
    const gain = (2 * n * k) / gpu.peak - token / gpu.bandwidth; // how much faster compute grows with each token
    return {
      bytes,
      flops,
      memory,
      compute,
      seconds,
      intensity: flops / bytes,
      rate: flops / seconds,
      bound: memory >= compute ? "memory" : "compute",
      turn: gain > 0 ? weight / gpu.bandwidth / gain : Infinity,
    };
  }

  widget("roofline", (place, data) => {
    const gpus = new Map(data.gpus.map((gpu) => [gpu.key, gpu]));
    const formats = new Map(data.formats.map((format) => [format.key, format]));
    const fp16 = data.formats.find((format) => format.width === 16);
    const layerName = ({ n, k }) => (data.layers.some((one) => one.n === n && one.k === k) ? `${n}x${k}` : "other");

    function sane(wanted) {
      const whole = (value, low, high) => Math.min(high, Math.max(low, Math.round(Number(value)) || low));
      return {
        gpu: gpus.has(wanted.gpu) ? wanted.gpu : data.start.gpu,
        m: whole(wanted.m, 1, LARGEST_M),
        format: formats.has(wanted.format) ? wanted.format : data.start.format,
        n: whole(wanted.n, ...SIDES),
        k: whole(wanted.k, ...SIDES),
      };
    }

    // The controls stay as they are while what they choose is drawn anew: a slider must not vanish below a finger.
    const inputs = {};
    const shown = html("div", {});
    const answer = html("p", { "aria-live": "polite", class: "awqdoc-answer" });
    place.querySelector(".awqdoc-widget-off").replaceWith(html("div", { class: "awqdoc-roofline" }, controls(), answer, shown));
    const change = keep(place, data.start, sane, draw);

    function controls() {
      const { choice, number, option } = fields(inputs, (part) => change(part));
      const kinds = [
        ["measured", "roofs measured"],
        ["modelled", "roofs of the data sheet, modelled"],
      ].map(([kind, label]) => {
        const found = data.gpus.filter((gpu) => gpu.kind === kind).map((gpu) => option(gpu.key, gpu.name));
        return found.length ? html("optgroup", { label }, ...found) : null;
      });
      const slider = html("input", {
        type: "range",
        min: 0,
        max: Math.log2(LARGEST_M),
        step: 1,
        "aria-label": "M in powers of two",
        oninput: (event) => change({ m: 2 ** Number(event.target.value) }),
      });
      inputs.slider = slider;
      slider.setAttribute("data-focus", "slider");
      const byName = (value) => {
        const layer = data.layers.find((one) => `${one.n}x${one.k}` === value);
        if (layer) change({ n: layer.n, k: layer.k });
        else inputs.n.focus();
      };
      return html(
        "div",
        { class: "awqdoc-controls" },
        choice("gpu", "GPU", (gpu) => change({ gpu }), ...kinds),
        choice("format", "format", (format) => change({ format }), ...data.formats.map((one) => option(one.key, one.title))),
        html("span", { role: "group", "aria-label": "batch size" }, number("m", "batch size M", 1, LARGEST_M), slider),
        choice(
          "layer",
          "layer",
          byName,
          ...data.layers.map((one) => option(`${one.n}x${one.k}`, `${one.title} (${one.n} × ${one.k})`)),
          option("other", "another: type N and K"),
        ),
        html("span", { role: "group", "aria-label": "layer" }, number("n", "N", ...SIDES), number("k", "K", ...SIDES)),
      );
    }

    function draw(state) {
      const [gpu, format] = [gpus.get(state.gpu), formats.get(state.format)];
      const [base, chosen] = [allowed(gpu, fp16, state), allowed(gpu, format, state)];
      const fits = format.group === null || format.group < 0 || state.k % format.group === 0;
      for (const name of ["gpu", "m", "format", "n", "k"]) inputs[name].value = state[name];
      inputs.layer.value = layerName(state);
      inputs.slider.value = Math.round(Math.log2(state.m));
      inputs.slider.setAttribute("aria-valuetext", `M = ${state.m}`);
      answer.textContent = sentence(gpu, format, base, chosen, state, fits);
      // FP16 belongs beside every format; of the INT4 kernels those that read what the reader chose.
      const points = gpu.points.filter(
        (one) => one.n === state.n && one.k === state.k && (one.bits === 16 || one.group === format.group),
      );
      shown.replaceChildren(
        html(
          "div",
          { class: "awqdoc-panels" },
          panel("What the roofs allow, and where the layer stands", plot(gpu, format, base, chosen, state, points)),
          html("div", {}, panel(`One product, M = ${state.m}`, table(format, base, chosen)), measured(gpu, state, points)),
        ),
        html("p", { class: "awqdoc-label" }, label(gpu)),
      );
    }

    function label(gpu) {
      const rates = `${quantity(gpu.bandwidth, "B/s")} and ${quantity(gpu.peak, "FLOP/s")}`;
      return gpu.kind === "measured"
        ? `Roofs (${rates}; memory by: ${gpu.by}) and points: ${gpu.label}. Times that the roofs allow: computed from them.`
        : `Roofs (${rates}): ${gpu.label}. Everything here is computed from them.`;
    }

    function sentence(gpu, format, base, chosen, state, fits) {
      const kind = gpu.kind === "measured" ? "measured roofs" : "data sheet";
      const start = `${gpu.name} (${kind}), ${state.n} × ${state.k}, M = ${state.m}: `;
      const one = (of) => `needs at least ${quantity(of.seconds, "s")}, bound by ${reason[of.bound]}`;
      if (format === fp16) return `${start}FP16 ${one(base)}.`;
      const gain = base.seconds / chosen.seconds;
      const verdict =
        gain >= 1.005
          ? `INT4 can be at most ${gain.toFixed(2)} times as fast.`
          : "INT4 cannot be faster: the same multiplications bind both.";
      const misfit = fits ? "" : ` But K is no multiple of ${format.group}: this format cannot hold the layer.`;
      return `${start}FP16 ${one(base)}; ${format.title}, ${one(chosen)}. ${verdict}${misfit}`;
    }

    function table(format, base, chosen) {
      const turn = (of) => (Number.isFinite(of.turn) ? String(Math.ceil(of.turn)) : "never");
      const rows = [
        ["bytes, at least", (of) => quantity(of.bytes, "B")],
        ["operations", (of) => quantity(of.flops, "FLOP")],
        ["FLOP per byte", (of) => plain(of.intensity)],
        ["time by memory", (of) => quantity(of.memory, "s")],
        ["time by compute", (of) => quantity(of.compute, "s")],
        ["what binds", (of) => of.bound],
        ["least time", (of) => quantity(of.seconds, "s")],
        ["speed-up allowed", (of) => (base.seconds / of.seconds).toFixed(2)],
        ["compute binds from M", turn],
      ];
      const columns = format === fp16 ? [["FP16", base]] : [["FP16", base], [format.title, chosen]];
      const head = html("tr", {}, html("td", {}), ...columns.map(([name]) => html("th", { scope: "col" }, name)));
      const body = rows.map(([name, text]) =>
        html(
          "tr",
          {},
          html("th", { scope: "row" }, name),
          ...columns.map(([, of]) => html("td", { class: "number" }, text(of))),
        ),
      );
      return scrolling("least", head, body);
    }

    function measured(gpu, state, points) {
      if (gpu.kind !== "measured") return html("p", {}, "A data sheet holds no measurement.");
      if (!points.length) return html("p", {}, "Nobody measured this layer on this GPU.");
      const now = points.filter((one) => one.m === state.m);
      const note = points.some((one) => one.bits === 4) ? "" : " Kernels of this format were not measured.";
      if (!now.length) {
        const batches = [...new Set(points.map((one) => one.m))].sort((a, b) => a - b);
        return html("p", {}, `Measured here: M = ${batches.join(", ")}.${note}`);
      }
      const head = ["measured", "time", "over the least"].map((name) => html("th", { scope: "col" }, name));
      const body = now.map((one) => {
        const least = allowed(gpu, formatOf(one), state).seconds;
        return html(
          "tr",
          {},
          html("th", { scope: "row" }, one.backend),
          html("td", { class: "number" }, quantity(one.seconds, "s")),
          html("td", { class: "number" }, (one.seconds / least).toFixed(2)),
        );
      });
      const drawn = panel(`Measured at M = ${state.m}`, scrolling("measured", html("tr", {}, ...head), body));
      if (note) drawn.append(html("p", {}, note.trim()));
      return drawn;
    }

    function formatOf(point) {
      const same = (one) => one.width === point.bits && one.group === point.group;
      return point.bits === 16 ? fp16 : data.formats.find(same);
    }

    function scrolling(name, head, body) {
      return html(
        "div",
        { class: "awqdoc-table-wrap" },
        html("table", { class: "awqdoc-table table", "data-table": name }, html("thead", {}, head), html("tbody", {}, ...body)),
      );
    }

    function plot(gpu, format, base, chosen, state, points) {
      const line = (kind, places) => svg("polyline", { class: kind, points: places.map((at) => at.join(",")).join(" ") });
      const text = (x, y, kind, words) => svg("text", { x, y, class: kind, "font-size": 11 }, words);
      const roof = (x) => up(Math.min(x * gpu.bandwidth, gpu.peak) / 1e12);
      const ridge = gpu.peak / gpu.bandwidth;
      const axes = [
        ...X.ticks.flatMap((tick) => [
          line("awqdoc-rule", [[across(tick), Y.from], [across(tick), Y.to]]),
          text(across(tick), Y.from + 12, "awqdoc-value", String(tick)),
        ]),
        ...Y.ticks.flatMap((tick) => [
          line("awqdoc-rule", [[X.from, up(tick)], [X.to, up(tick)]]),
          text(X.from - 5, up(tick), "awqdoc-value awqdoc-end", String(tick)),
        ]),
        text((X.from + X.to) / 2, Y.from + 28, "awqdoc-value", "FLOP per byte"),
        text(2, 8, "awqdoc-value awqdoc-start", "TFLOP/s"),
      ];
      const roofs = [
        line("awqdoc-roof", [X.low, ridge, X.high].map((x) => [across(x), roof(x)])),
        // Above the slope, where nothing else is drawn on any GPU.
        text(X.from + 6, Y.to + 12, "awqdoc-start", `roofs: ${quantity(gpu.bandwidth, "B/s")},`),
        text(X.from + 6, Y.to + 26, "awqdoc-start", quantity(gpu.peak, "FLOP/s")),
      ];
      const place = (of) => [across(of.intensity), up(of.rate / 1e12)];
      const mark = (of, kind, shape) => {
        const [x, y] = place(of);
        return [line(`awqdoc-drop ${kind}`, [[x, y], [x, Y.from]]), shape(x, y, kind)];
      };
      const circle = (x, y, kind) => svg("circle", { cx: x, cy: y, r: 6, class: `awqdoc-mark ${kind}` });
      const diamond = (x, y, kind) =>
        svg("path", { d: `M${x} ${y - 8}L${x + 8} ${y}L${x} ${y + 8}L${x - 8} ${y}Z`, class: `awqdoc-mark ${kind}` });
      const [fp16X, fp16Y] = place(base);
      const [x, y] = place(chosen);
      const marks = mark(base, "awqdoc-fp16", circle);
      marks.push(text(fp16X - 9, fp16Y - 9, "awqdoc-end awqdoc-strong", "FP16"));
      if (format !== fp16) {
        const words = x < X.to - 40 ? [x + 11, y + 10, "awqdoc-start awqdoc-strong"] : [x - 6, y + 16, "awqdoc-end awqdoc-strong"];
        marks.push(...mark(chosen, "awqdoc-int4", diamond), text(...words, "INT4"));
      }
      const drawn = picture(362, 286, ...axes, ...reached(gpu, state, points, line), ...roofs, ...marks);
      const told = (name, of) =>
        `${name} at ${plain(of.intensity)} FLOP per byte, ${quantity(of.rate, "FLOP/s")} allowed`;
      const title =
        `Roofline of ${gpu.name}: rising with ${quantity(gpu.bandwidth, "B/s")} to ${quantity(gpu.peak, "FLOP/s")}, ` +
        `which meet at ${ridge.toFixed(0)} FLOP per byte. ${told("FP16", base)}` +
        (format === fp16 ? "." : `; ${told(format.title, chosen)}.`) +
        (points.length ? ` With the measured points of ${[...new Set(points.map((one) => one.backend))].join(", ")}.` : "");
      drawn.setAttribute("role", "img");
      drawn.prepend(svg("title", {}, title));
      return html("div", {}, drawn, key(points));
    }

    // What each backend reached, joined along M; the chosen M is filled.
    function reached(gpu, state, points, line) {
      const lines = new Map();
      for (const one of points) {
        const { intensity, flops } = allowed(gpu, formatOf(one), { ...state, m: one.m });
        const at = [across(intensity), up(flops / one.seconds / 1e12)];
        if (!lines.has(one.hue)) lines.set(one.hue, []);
        lines.get(one.hue).push({ at, now: one.m === state.m });
      }
      return [...lines].flatMap(([hue, steps]) => [
        line(`awqdoc-reached awqdoc-${hue}`, steps.map((step) => step.at)),
        ...steps.map(({ at: [cx, cy], now }) =>
          svg("circle", { cx, cy, r: now ? 4.5 : 2.2, class: `awqdoc-step awqdoc-${hue} ${now ? "awqdoc-lit" : ""}` }),
        ),
      ]);
    }

    function key(points) {
      const backends = new Map(points.map((one) => [one.backend, one.hue]));
      if (!backends.size) return null;
      const entries = [...backends].map(([name, hue]) =>
        html("span", {}, html("i", { class: `awqdoc-swatch awqdoc-${hue}`, "aria-hidden": "true" }), name),
      );
      return html("p", { class: "awqdoc-key" }, "Measured, M from left to right: ", ...entries);
    }
  });
})();
