// The occupancy page: how many blocks of a kernel an SM holds, by each resource, and how a grid of them fills a GPU.
// The formula is that of awqdoc.gpu.occupancy; limits, GPUs and kernels are its data, written when the page was built.
(function () {
  "use strict";
  const { fields, html, svg, picture, panel, keep, widget } = window.awqdoc;

  const up = (value, unit) => Math.ceil(value / unit) * unit;
  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  const many = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;

  // What a launch makes of an SM; null if a block does not fit at all.
  function launched(data, { capability, threads, regs, smem, blocks, sms }) {
    const limits = data.limits[capability];
    const warps = Math.ceil(threads / data.warp);
    const registers = up(data.warp * regs, data.register_unit); // of a warp
    const shared = up(smem + limits.reserved, limits.unit);
    // The hardware checks as if a block's warps were dealt out to all partitions alike.
    if (registers * up(warps, data.partitions) > data.registers) return null;
    const fits = [["warps", Math.floor(limits.warps / warps), warps / limits.warps]];
    if (registers) {
      const inPartition = Math.floor(data.registers / data.partitions / registers);
      fits.push(["registers", Math.floor((data.partitions * inPartition) / warps), (warps * registers) / data.registers]);
    }
    if (shared) fits.push(["shared memory", Math.floor(limits.shared / shared), shared / limits.shared]);
    fits.push(["block slots", limits.blocks, 1 / limits.blocks]);
    if (limits.barriers) fits.push(["barriers", limits.barriers, 1 / limits.barriers]);
    const perSm = Math.min(...fits.map(([, count]) => count));
    const slots = perSm * sms;
    const waves = Math.ceil(blocks / slots);
    return {
      warps,
      registers: registers * warps,
      shared,
      fits,
      perSm,
      limiters: fits.filter(([, count]) => count === perSm).map(([name]) => name),
      resident: perSm * warps,
      occupancy: (perSm * warps) / limits.warps,
      withGrid: (Math.min(blocks, slots) * warps) / (sms * limits.warps),
      slots,
      waves,
      last: blocks - (waves - 1) * slots,
      lost: 1 - blocks / (waves * slots),
    };
  }

  // The most registers of a thread that a block of so many threads can have.
  function mostRegisters(data, threads) {
    const warps = up(Math.ceil(threads / data.warp), data.partitions);
    return Math.min(
      data.most_registers,
      (Math.floor(data.registers / warps / data.register_unit) * data.register_unit) / data.warp,
    );
  }

  widget("occupancy", (place, data) => {
    const gpuOf = (state) => data.gpus.find((one) => one.capability === state.capability && one.sms === state.sms);
    const sameKernel = (one, state) => ["threads", "regs", "smem", "blocks"].every((name) => one[name] === state[name]);
    const blockShared = (capability) => data.limits[capability].shared - data.limits[capability].reserved;

    function sane(wanted) {
      const whole = (name, low, high) => {
        const value = wanted[name] === "" ? NaN : Math.round(Number(wanted[name]));
        return Number.isNaN(value) ? data.start[name] : Math.min(high, Math.max(low, value));
      };
      const capability = wanted.capability in data.limits ? wanted.capability : data.start.capability;
      const named = data.gpus.find((one) => one.key === wanted.gpu && one.capability === capability);
      const state = {
        capability,
        sms: whole("sms", 1, 1000),
        threads: whole("threads", 1, data.most_threads),
        regs: whole("regs", 0, data.most_registers),
        smem: Math.min(whole("smem", 0, Infinity), blockShared(capability)),
        blocks: whole("blocks", 1, data.most_blocks),
      };
      // H100 and H200 have the same SMs: the name that was chosen is kept while it is true.
      const gpu = named && named.sms === state.sms ? named : gpuOf(state);
      return { gpu: gpu ? gpu.key : "other", ...state };
    }

    // The controls stay as they are while what they choose is drawn anew.
    const inputs = {};
    const shown = html("div", {});
    const answer = html("p", { "aria-live": "polite", class: "awqdoc-answer" });
    place.querySelector(".awqdoc-widget-off").replaceWith(html("div", { class: "awqdoc-occupancy" }, controls(), answer, shown));
    const change = keep(place, data.start, sane, draw);

    function controls() {
      const { choice, number, option } = fields(inputs, (part) => change(part));
      const pick = (list, focus) => (key) => {
        const { title, name, ...found } = list.find((one) => one.key === key) || {};
        if (!found.key) inputs[focus].focus();
        else change(list === data.gpus ? { ...found, gpu: key } : found);
      };
      return html(
        "div",
        { class: "awqdoc-controls" },
        choice("gpu", "GPU", pick(data.gpus, "capability"), ...data.gpus.map((one) => option(one.key, one.name)), option("other", "another")),
        html(
          "span",
          { role: "group", "aria-label": "GPU" },
          choice("capability", "compute capability", (capability) => change({ capability }), ...Object.keys(data.limits).sort(byNumber).map((one) => option(one, one))),
          number("sms", "SMs", 1, 1000),
        ),
        choice("kernel", "kernel", pick(data.kernels, "threads"), ...data.kernels.map((one) => option(one.key, one.title)), option("other", "another")),
        html(
          "span",
          { role: "group", "aria-label": "kernel" },
          number("threads", "threads of a block", 1, data.most_threads),
          number("regs", "registers of a thread", 0, data.most_registers),
          number("smem", "shared memory of a block, bytes", 0, null),
          number("blocks", "blocks", 1, data.most_blocks),
        ),
      );
    }

    function byNumber(one, other) {
      return Number(one) - Number(other);
    }

    function draw(state) {
      const found = launched(data, state);
      const kernel = data.kernels.find((one) => sameKernel(one, state));
      for (const name of ["gpu", "capability", "sms", "threads", "regs", "smem", "blocks"]) inputs[name].value = state[name];
      inputs.kernel.value = kernel ? kernel.key : "other";
      inputs.smem.max = blockShared(state.capability);
      answer.textContent = sentence(state, found);
      const curves = panel("Theoretical occupancy, if one number changes", stairs(state));
      const rest = found
        ? [panel("An SM, filled", bars(found)), panel("The launch", table(found))]
        : [html("p", {}, "There is nothing to draw: no block fits.")];
      shown.replaceChildren(
        html("div", { class: "awqdoc-panels" }, html("div", {}, rest[0], curves), ...rest.slice(1)),
        html("p", { class: "awqdoc-label" }, "modelled: computed from formulas or data sheets, not measured"),
      );
    }

    function sentence(state, found) {
      const gpu = data.gpus.find((one) => one.key === state.gpu);
      const on = `${gpu ? gpu.name : `Compute capability ${state.capability}`}, ${many(state.sms, "SM")}: `;
      if (!found) {
        const most = mostRegisters(data, state.threads);
        return `${on}a block of ${state.threads} threads can have at most ${most} registers for each; it cannot be launched with ${state.regs}.`;
      }
      const held = `an SM holds ${many(found.perSm, "block")}, limited by ${found.limiters.join(" and ")}: `;
      const warps = `${found.resident} of ${data.limits[state.capability].warps} warps, ${percent(found.occupancy)}. `;
      const waves = `The ${many(state.blocks, "block")} run in ${many(found.waves, "wave")}, with ${percent(found.lost)} of the places empty.`;
      return on + held + warps + waves;
    }

    function table(found) {
      const rows = [
        ["warps of a block", found.warps],
        ["registers of a block, rounded up", found.registers],
        ["shared bytes of a block, rounded up", found.shared],
        ...found.fits.map(([name, count]) => [`blocks by ${name}`, count]),
        ["blocks on an SM", found.perSm],
        ["warps on an SM", found.resident],
        ["theoretical occupancy", percent(found.occupancy)],
        ["with this grid, first wave", percent(found.withGrid)],
        ["blocks that the GPU holds", found.slots],
        ["waves", found.waves],
        ["blocks in the last", found.last],
        ["places empty, mean of all waves", percent(found.lost)],
      ].map(([name, value]) =>
        html("tr", {}, html("th", { scope: "row" }, name), html("td", { class: "number" }, String(value))),
      );
      return html(
        "div",
        { class: "awqdoc-table-wrap" },
        html("table", { class: "awqdoc-table table", "data-table": "launch" }, html("tbody", {}, ...rows)),
      );
    }

    // A bar for each resource: its whole length is what an SM has; each block that it holds takes a piece.
    function bars(found) {
      const [left, width, step] = [104, 206, 30];
      const drawn = found.fits.flatMap(([name, count, share], row) => {
        const y = 4 + row * step;
        const limits = found.limiters.includes(name);
        const pieces = Array.from({ length: found.perSm }, (_, i) =>
          svg("rect", { x: left + i * share * width, y, width: share * width, height: 18, class: "awqdoc-piece" }),
        );
        return [
          svg("text", { x: left - 6, y: y + 9, class: `awqdoc-end ${limits ? "awqdoc-strong" : ""}`, "font-size": 11 }, name),
          ...pieces,
          svg("rect", { x: left, y, width, height: 18, class: "awqdoc-whole" }),
          svg("text", { x: left + width + 6, y: y + 9, class: `awqdoc-start ${limits ? "awqdoc-strong" : ""}`, "font-size": 11 }, String(count)),
        ];
      });
      const told = found.fits.map(([name, count, share]) => `${name} ${percent(found.perSm * share)} taken, ${count} would fit`);
      return titled(`${many(found.perSm, "block")} on an SM: ${told.join("; ")}.`, picture(350, found.fits.length * step + 4, ...drawn));
    }

    function titled(title, drawing) {
      drawing.setAttribute("role", "img");
      drawing.prepend(svg("title", {}, title));
      return drawing;
    }

    // Three small charts: occupancy over threads, registers and bytes of shared memory.
    function stairs(state) {
      const axes = [
        ["threads", "threads of a block", data.warp, data.most_threads, data.warp],
        ["regs", "registers of a thread", 0, data.most_registers, 1],
        ["smem", "bytes of shared memory of a block", 0, blockShared(state.capability), 512],
      ];
      const drawn = axes.flatMap(([name, text, low, high, step], row) => chart(state, name, text, low, high, step, row * 108));
      const now = launched(data, state);
      const told = now ? `${percent(now.occupancy)} now` : "not possible now";
      return titled(
        `Theoretical occupancy over threads, registers and shared memory of a block, as stairs; ${told}.`,
        picture(350, 3 * 108, ...drawn),
      );
    }

    function chart(state, name, words, low, high, step, top) {
      const [from, to, floor, ceiling] = [34, 336, top + 76, top + 10];
      const across = (value) => from + ((value - low) / (high - low)) * (to - from);
      const share = (value) => (launched(data, { ...state, [name]: value }) || { occupancy: 0 }).occupancy;
      const upTo = (value) => floor - value * (floor - ceiling);
      const points = [];
      for (let value = low; value <= high; value += step) {
        // Flat up to a value, then a step: what is asked for between two of them counts as the higher.
        if (points.length) points.push(`${across(value - step)},${upTo(share(value))}`);
        points.push(`${across(value)},${upTo(share(value))}`);
      }
      const text = (x, y, kind, content) => svg("text", { x, y, class: kind, "font-size": 10 }, content);
      return [
        ...[0, 0.5, 1].flatMap((tick) => [
          svg("polyline", { class: "awqdoc-rule", points: `${from},${upTo(tick)} ${to},${upTo(tick)}` }),
          text(from - 4, upTo(tick), "awqdoc-value awqdoc-end", `${100 * tick}%`),
        ]),
        ...[low, high].map((tick) => text(across(tick), floor + 11, `awqdoc-value ${tick === low ? "" : "awqdoc-end"}`, String(tick))),
        text((from + to) / 2, floor + 11, "awqdoc-value", words),
        svg("polyline", { class: "awqdoc-stairs", points: points.join(" ") }),
        svg("circle", { class: "awqdoc-here", cx: across(Math.max(low, state[name])), cy: upTo(share(state[name])), r: 4.5 }),
      ];
    }
  });
})();
