// Training beside inference: compute, energy and cost of each, measured by the roles.
import { Panel, count, duration, html, number } from "./ui.js";

const PHASES = ["inference", "training"];
const none = html`<span class="soft">not measured</span>`;

export function Costs({ costs }) {
  const phase = (name) => costs?.phases?.[name] ?? {};
  const roles = costs?.roles?.length ? `measured by ${costs.roles.join(", ")}` : "no role serves metrics yet";
  const rows = [
    ["done", (p, name) => p.done == null ? none : html`${count(p.done)} <span class="soft">${name === "inference" ? "predictions" : "releases"}</span>`],
    ["processor time", (p) => (p.cpu_s == null ? none : duration(p.cpu_s))],
    ["GPU time", (p) => (p.gpu_s == null ? none : p.gpu_s ? duration(p.gpu_s) : "0 s")],
    ["energy", (p) => (p.joules == null ? none : energy(p.joules))],
    ["energy each", (p, name) => (p.joules_each == null ? none : `${energy(p.joules_each)} ${each(name)}`)],
    ["cost", (p) => (p.cost == null ? none : money(p.cost, p.currency))],
    ["cost each", (p, name) => (p.cost_each == null ? none : `${money(p.cost_each, p.currency)} ${each(name)}`)],
    ["energy by", (p) => (p.sources?.length ? p.sources.join(", ") : none)],
  ];
  return html`<${Panel} area="costs" title="Training beside inference" note=${roles}>
    <table>
      <caption class="unseen">Energy and cost of inference and training</caption>
      <thead><tr><td></td>${PHASES.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
      <tbody>${rows.map(([title, cell]) => html`<tr key=${title}><th scope="row">${title}</th>
        ${PHASES.map((name) => html`<td class="num">${cell(phase(name), name)}</td>`)}</tr>`)}</tbody>
    </table>
  <//>`;
}

const each = (name) => (name === "inference" ? "a million" : "each");
const energy = (joules) => (joules >= 3600 ? `${number(joules / 3600)} Wh` : `${number(joules)} J`);
const money = (value, currency) => `${number(value)} ${currency ?? ""}`;
