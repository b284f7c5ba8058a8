"use strict";
(() => {
  const data = JSON.parse(document.getElementById("timeline-data").textContent);
  const canvas = document.getElementById("timeline");
  const tip = document.getElementById("tip");
  const context = canvas.getContext("2d");
  const AXIS = 22;
  const n = data.lane.length;
  const start = new Float64Array(n);
  for (let i = 0, at = 0; i < n; i++) start[i] = at += data.start[i];
  const laneHeight = Math.max(5, Math.min(26, 480 / Math.max(1, data.n_lanes)));
  const height = AXIS + laneHeight * Math.max(1, data.n_lanes);
  const whole = [0, Math.max(1, data.span)];
  let [from, to] = whole;
  let dragged = null;

  const seconds = (units) => units * data.unit_us / 1e6;
  const timeText = (s) => s >= 5400 ? (s / 3600).toFixed(2) + " h" : s >= 90 ? (s / 60).toFixed(1) + " min"
    : s >= 1 ? s.toFixed(2) + " s" : s >= 1e-3 ? (s * 1e3).toFixed(1) + " ms" : Math.round(s * 1e6) + " us";
  const bytesText = (kib) => kib >= 1048576 ? (kib / 1048576).toFixed(1) + " GiB"
    : kib >= 1024 ? (kib / 1024).toFixed(1) + " MiB" : kib + " KiB";

  /** Returns a step of 1, 2 or 5 times a power of ten that gives about `count` ticks. */
  function tickStep(range, count) {
    const rough = range / count, power = 10 ** Math.floor(Math.log10(rough));
    return power * ([1, 2, 5].find((factor) => factor * power >= rough) || 10);
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue("--" + name).trim();
    const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    canvas.style.height = height + "px";
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const scale = width / (to - from);
    context.font = "11px system-ui, sans-serif";
    const step = tickStep(seconds(to - from), Math.max(2, width / 110));
    for (let t = Math.ceil(seconds(from) / step) * step; t <= seconds(to); t += step) {
      const x = (t * 1e6 / data.unit_us - from) * scale;
      context.fillStyle = color("grid");
      context.fillRect(x, 0, 1, height - AXIS + 5);
      context.fillStyle = color("quiet");
      context.textAlign = x < 20 ? "left" : x > width - 25 ? "right" : "center";
      context.fillText(t === 0 ? "0" : timeText(t), x, height - 5);
    }
    const bar = Math.max(3, laneHeight - (laneHeight > 8 ? 3 : 1));
    const colors = data.color.map((index) => color("c" + index)), bad = color("bad"), open = color("open");
    // Draw failed calls last, so that their neighbours do not hide them.
    for (const failed of [false, true]) {
      for (let i = 0; i < n; i++) {
        const state = data.state[i];
        if ((state === "1") !== failed || start[i] > to || start[i] + data.length[i] < from) continue;
        const x = (start[i] - from) * scale, w = data.length[i] * scale;
        context.fillStyle = failed ? bad : state === "2" ? open : colors[data.task[i]];
        context.fillRect(x, data.lane[i] * laneHeight, Math.max(failed ? 2 : 0.6, w > 3 ? w - 0.6 : w), bar);
      }
    }
    for (const [stopped, resumed] of data.gaps) {
      const x = (resumed - from) * scale, left = Math.max(0, (stopped - from) * scale);
      if (x < 0 || left > width) continue;
      context.fillStyle = color("wait");
      context.fillRect(left, 0, Math.min(x, width) - left, height - AXIS);
      if (x > width) continue;
      context.strokeStyle = context.fillStyle = color("ink");
      context.setLineDash([4, 3]);
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x, height - AXIS);
      context.stroke();
      context.setLineDash([]);
      const text = " resumed after " + timeText(seconds(resumed - stopped)) + " ";
      context.textAlign = x < width / 2 ? "left" : "right";
      context.fillText(text, x, height - AXIS - 3);
    }
    if (dragged) {
      context.fillStyle = color("quiet");
      context.globalAlpha = 0.25;
      context.fillRect(Math.min(...dragged), 0, Math.abs(dragged[1] - dragged[0]), height - AXIS);
      context.globalAlpha = 1;
    }
  }

  /** Returns the call at a point, or the nearest one within three pixels; -1 if there is none. */
  function callAt(x, y) {
    const lane = Math.floor(y / laneHeight), scale = (to - from) / canvas.clientWidth;
    const at = from + x * scale;
    let best = -1, nearest = 3 * scale;
    for (let i = 0; i < n; i++) {
      if (data.lane[i] !== lane) continue;
      const away = Math.max(start[i] - at, at - start[i] - data.length[i], 0);
      if (away <= nearest) { best = i; nearest = away; if (away === 0 && data.state[i] === "1") break; }
    }
    return best;
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    return [Math.max(0, Math.min(box.width, event.clientX - box.left)), event.clientY - box.top];
  }

  canvas.addEventListener("mousemove", (event) => {
    const [x, y] = point(event);
    if (dragged) { dragged[1] = x; draw(); }
    const i = callAt(x, y);
    tip.hidden = i < 0;
    if (i < 0) return;
    const lines = [data.tasks[data.task[i]]];
    if (data.names) lines.push(data.names[i]);
    const took = data.wall_us ? data.wall_us[i] / 1e6 : seconds(data.length[i]);
    lines.push([["done", "failed", "unfinished"][data.state[i]], timeText(took), "worker " + (data.lane[i] + 1),
      "at " + timeText(seconds(start[i]))].join(" \u00b7 "));
    if (data.memory_kib) lines.push("peak memory " + bytesText(data.memory_kib[i]));
    tip.textContent = lines.join("\n");
    tip.style.left = Math.min(x + 14, canvas.clientWidth - tip.offsetWidth) + "px";
    tip.style.top = y + 24 + "px";
  });
  canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
  canvas.addEventListener("mousedown", (event) => { const [x] = point(event); dragged = [x, x]; });
  window.addEventListener("mouseup", () => {
    if (!dragged) return;
    const [a, b] = [Math.min(...dragged), Math.max(...dragged)], scale = (to - from) / canvas.clientWidth;
    dragged = null;
    if (b - a > 4) [from, to] = [from + a * scale, Math.max(from + b * scale, from + a * scale + 1)];
    draw();
  });
  canvas.addEventListener("dblclick", () => { [from, to] = whole; draw(); });
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.addEventListener("beforeprint", () => {
    document.documentElement.classList.add("print");
    document.querySelectorAll("details").forEach((details) => { details.open = true; });
    draw();
  });
  window.addEventListener("afterprint", () => { document.documentElement.classList.remove("print"); draw(); });
  draw();
  document.documentElement.dataset.drawn = String(n);
})();
