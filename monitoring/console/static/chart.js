// A chart over event time: curves, and marks of events. Colours come from the style sheet, so they follow the theme.
import { useEffect, useRef } from "./vendor/hooks.mjs";
import { html, timeLabels } from "./ui.js";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const HEIGHT = 240;

export function Chart({ at, curves, marks, label, unit }) {
  const box = useRef(null), plot = useRef(null), shown = useRef(null);
  shown.current = { at, curves, marks };
  const names = curves.map((curve) => curve.name).join();
  useEffect(() => {
    const build = () => {
      plot.current?.destroy();
      const { at, curves } = shown.current; // the newest data: a change of theme comes later than the first drawing
      plot.current = new uPlot(options(box.current, curves, shown, unit), data(at, curves), box.current);
    };
    build();
    const resize = new ResizeObserver(() =>
      plot.current.setSize({ width: Math.max(240, box.current.clientWidth), height: HEIGHT }));
    resize.observe(box.current);
    dark.addEventListener("change", build);
    return () => {
      resize.disconnect();
      dark.removeEventListener("change", build);
      plot.current.destroy();
      plot.current = null;
    };
  }, [names, unit]);
  useEffect(() => plot.current?.setData(data(at, curves)), [at, curves]);
  return html`<div class="chart" ref=${box} role="img" aria-label=${label}></div>`;
}

const data = (at, curves) => [at, ...curves.map((curve) => curve.values)];

function options(box, curves, shown, unit) {
  const style = getComputedStyle(box);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const font = `11px ${style.fontFamily}`;
  const grid = { stroke: colour("line"), width: 1 };
  const axis = { stroke: colour("muted"), font, grid, ticks: { show: false }, labelSize: 16, labelFont: font };
  return {
    width: Math.max(240, box.clientWidth),
    height: HEIGHT,
    tzDate: (seconds) => uPlot.tzDate(new Date(1000 * seconds), "Etc/UTC"),
    legend: { show: false },
    cursor: { y: false, points: { size: 6 } },
    padding: [10, 26, 0, 0],
    scales: { y: { range: (_, low, high) => padded(low, high) } },
    axes: [
      { ...axis, space: 60, size: 30, label: "event time, UTC", values: (_, ticks, axis, space, step) => timeLabels(ticks, step) },
      { ...axis, size: 52, label: unit },
    ],
    series: [
      {},
      ...curves.map((curve) => ({
        label: curve.label,
        stroke: colour(curve.name),
        width: curve.name === "live" ? 2 : 1.25,
        dash: { base: [2, 4], frozen: [6, 4] }[curve.name],
        points: { show: false },
        spanGaps: true,
      })),
    ],
    hooks: { drawClear: [(plot) => drawMarks(plot, shown.current.marks, colour)] },
  };
}

function padded(low, high) {
  if (low == null) return [0, 1];
  const room = Math.max(0.08 * (high - low), 0.004 * Math.abs(high), 1e-6);
  return [low - room, high + room];
}

function drawMarks(plot, marks, colour) {
  const { ctx, bbox } = plot;
  const size = 4 * devicePixelRatio;
  ctx.save();
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.at, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = ctx.fillStyle = colour(`mark-${mark.kind}`);
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.beginPath(); // a head for each kind: its shape tells the kind without its colour
    if (mark.kind === "drift") ctx.arc(x, bbox.top, size, 0, 7);
    else if (mark.kind === "operator") ctx.rect(x - size, bbox.top - size, 2 * size, 2 * size);
    else {
      ctx.moveTo(x - size, bbox.top - size);
      ctx.lineTo(x + size, bbox.top - size);
      ctx.lineTo(x, bbox.top + size);
    }
    ctx.fill();
  }
  ctx.restore();
}
