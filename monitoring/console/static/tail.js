// The live tail: newest predictions, each with its label when it comes, and newest labels. It can be paused.
import { useRef, useState } from "./vendor/hooks.mjs";
import { Empty, Panel, Scroll, duration, eventTime, html } from "./ui.js";

const FIELDS = 5;

export function Tail({ tail, label, kind }) {
  const [paused, pause] = useState(false);
  const shown = useRef(tail);
  if (!paused) shown.current = tail;
  const { predicted = [], labelled = [] } = shown.current ?? {};
  const tools = html`<button aria-pressed=${paused} onClick=${() => pause(!paused)}>${paused ? "Resume" : "Pause"}</button>`;
  return html`
    <${Panel} area="tail" title="Live tail" note="a sample of the newest predictions" tools=${tools}>
      ${predicted.length ? html`<${Scroll} label="Newest predictions"><table>
        <caption class="unseen">Newest predictions, each with its label when it has come</caption>
        <thead><tr><th scope="col">event</th><th scope="col">prediction</th><th scope="col">by</th><th scope="col">label</th></tr></thead>
        <tbody>${predicted.map((row) => html`<tr key=${row.id}>
          <td><${Event} row=${row} /></td><td class="answer"><${Answer} row=${row} label=${label} kind=${kind} /></td>
          <td class="num">v${row.release}</td><td>${"label" in row ? html`<${Truth} row=${row} />` : html`<span class="soft">waiting</span>`}</td>
        </tr>`)}</tbody>
      </table><//>` : html`<${Empty}>No prediction yet.<//>`}
    <//>
    <${Panel} area="labels" title="Labels" note="newest first, with their predictions">
      ${labelled.length ? html`<${Scroll} label="Newest labels"><table>
        <caption class="unseen">Newest labels with their predictions</caption>
        <thead><tr><th scope="col">id</th><th scope="col">prediction</th><th scope="col">label</th><th scope="col">delay</th></tr></thead>
        <tbody>${labelled.map((row) => html`<tr key=${row.id}>
          <th scope="row" class="id">${row.id}</th><td class="num">${row.answer}</td>
          <td><${Truth} row=${row} /></td><td class="num">${duration(row.delay_s)}</td>
        </tr>`)}</tbody>
      </table><//>` : html`<${Empty}>No label yet.<//>`}
    <//>`;
}

function Event({ row }) {
  const fields = Object.entries(row.event ?? {}).filter(([, value]) => value != null && typeof value !== "object");
  return html`<div class="event"><span class="id">${row.id}</span> <span class="soft">${eventTime(row.time)}</span>
    <span class="fields">${fields.slice(0, FIELDS + 2).filter(([, v]) => v !== row.id && !looksLikeTime(v, row.time)).slice(0, FIELDS)
      .map(([name, value]) => html`<span><span class="soft">${name}</span> ${String(value)} </span>`)}</span></div>`;
}

const looksLikeTime = (value, time) => value === time || (typeof value === "string" && Math.abs(Date.parse(value) / 1000 - time) < 1);

function Answer({ row, label, kind }) {
  if (kind !== "binary") return html`<strong>${row.answer}</strong>`;
  return html`<span class="gauge" aria-hidden="true"><span style=${{ width: `${100 * row.scores[0]}%` }}></span></span>
    <strong>${row.answer}</strong> <span class="soft">${label}</span>`;
}

function Truth({ row }) {
  const sign = row.correct == null ? "" : row.correct ? "✓" : "✗";
  const words = row.correct == null ? "" : row.correct ? "as predicted" : "not as predicted";
  return html`<span class=${row.correct === false ? "wrong" : "correct"}>${JSON.stringify(row.label)}
    ${sign && html` <span aria-hidden="true">${sign}</span><span class="unseen">${words}</span>`}</span>`;
}
