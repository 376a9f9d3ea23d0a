// Training beside inference: compute, energy and cost of each, measured by the roles.
import { Panel, count, duration, html, number } from "./ui.js";

const PHASES = ["inference", "training"];
const UNITS = { inference: [[1, "million"], [1e3, "billion"]], training: [[1, "release"], [1e3, "1,000 releases"]] };
const none = html`<span class="soft">not measured</span>`;

export function Costs({ costs }) {
  const phase = (name) => costs?.phases?.[name] ?? {};
  const roles = costs?.roles?.length ? `measured by ${costs.roles.join(", ")}` : "no role serves metrics yet";
  const rows = [
    ["done", (p, name) => p.done == null ? none : html`${count(p.done)} <span class="soft">${name === "inference" ? "predictions" : "releases"}</span>`],
    ["CPU time", (p) => (p.cpu_s == null ? none : duration(p.cpu_s))],
    ["GPU time", (p) => (p.gpu_s == null ? none : p.gpu_s ? duration(p.gpu_s) : "0 s")],
    ["energy", (p) => (p.joules == null ? none : energy(p.joules))],
    ["energy each", (p, name) => (p.joules_each == null ? none : each(p.joules_each, name, energy))],
    ["cost", (p) => (p.cost == null ? none : money(p.cost, p.currency))],
    ["cost each", (p, name) => (p.cost_each == null ? none : each(p.cost_each, name, (value) => money(value, p.currency)))],
    ["energy source", (p) => (p.sources?.length ? p.sources.join(", ") : none)],
  ];
  return html`<${Panel} area="costs" title="Training beside inference" note=${roles}>
    <table>
      <caption class="unseen">Energy and cost of inference and training</caption>
      <thead><tr><td></td>${PHASES.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
      <tbody>${rows.map(([title, cell]) => html`<tr key=${title}><th scope="row">${title}</th>
        ${PHASES.map((name) => html`<td>${cell(phase(name), name)}</td>`)}</tr>`)}</tbody>
    </table>
  <//>`;
}

// An amount for one unit of work, or for a thousand units where one costs next to nothing.
function each(value, name, format) {
  const [factor, unit] = UNITS[name][value > 0 && value < 0.001 ? 1 : 0];
  return html`<span class="num">${format(factor * value)}</span> <span class="soft">per ${unit}</span>`;
}

const energy = (joules) => (joules >= 3600 ? `${number(joules / 3600)} Wh` : `${number(joules)} J`);
const money = (value, currency) => `${number(value)} ${currency ?? ""}`;
