// The pipeline as a strip: rates of its topics, and the lag of each role.
import { count, duration, html, perSecond } from "./ui.js";

export function Flow({ flow, releases, pause }) {
  const rates = flow?.rates ?? {}, totals = flow?.totals ?? {}, lags = flow?.lags ?? {};
  const swaps = releases?.swaps ?? 0;
  return html`<section class="flow" aria-label="Pipeline">
    <ol>
      <${Stream} name="events" rate=${rates.events} total=${totals.events} />
      <${Role} name="worker" lag=${lags.worker} of="events" />
      <${Stream} name="predictions" rate=${rates.predictions} total=${totals.predictions} />
      <${Stream} name="labels" rate=${rates.labels} total=${totals.labels} />
      <${Role} name="joiner" lag=${lags.joiner} of="records" />
      <${Stream} name="examples" rate=${rates.examples} total=${totals.examples} />
      <${Role} name="retrainer" lag=${lags.retrainer} of="examples" />
      <li class="stream">
        <span class="name">live</span>
        <strong id="serving">${releases?.serving == null ? "–" : `v${releases.serving}`}</strong>
        <span class="unit">${swaps === 1 ? "1 swap" : `${count(swaps)} swaps`}${pause ? `, ${duration(pause)} each` : ""}</span>
      </li>
    </ol>
  </section>`;
}

const Stream = ({ name, rate, total }) => html`<li class="stream">
  <span class="name">${name}</span>
  <strong>${perSecond(rate)}<small> /s</small></strong>
  <span class="unit">${count(total)} in total</span>
</li>`;

const Role = ({ name, lag, of }) => html`<li class=${`role ${lag > 20000 ? "late" : ""}`}>
  <span class="name">${name}</span>
  <strong>${count(lag)}</strong>
  <span class="unit">${of} behind</span>
</li>`;
