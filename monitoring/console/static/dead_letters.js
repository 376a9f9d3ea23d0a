// Dead letters: counts by topic and reason, and the newest ones. With the token they can be replayed.
import { Empty, Panel, bytes, count, eventTime, html } from "./ui.js";

export function DeadLetters({ deadLetters, act }) {
  const reasons = deadLetters?.reasons ?? [], rows = deadLetters?.rows ?? [];
  const note = deadLetters?.total ? `${count(deadLetters.total)} in total` : null;
  return html`<${Panel} area="dead-letters" title="Dead letters" note=${note}>
    ${reasons.length ? html`
      <table>
        <caption class="unseen">Dead letters by topic and reason</caption>
        <thead><tr><th scope="col">topic</th><th scope="col">reason</th><th scope="col">records</th>${act && html`<th scope="col"><span class="unseen">action</span></th>`}</tr></thead>
        <tbody>${reasons.map((row) => html`<tr key=${row.topic + row.reason}><th scope="row">${row.topic}</th><td>${row.reason}</td>
          <td class="num">${count(row.count)}</td>
          ${act && html`<td><button aria-label=${`Replay ${row.reason} of ${row.topic}`} onClick=${() => act(replay(row))}>Replay…</button></td>`}</tr>`)}</tbody>
      </table>
      <h3>Newest</h3>
      ${rows.map((row) => html`<details key=${row.name}>
        <summary><span class="id">${row.name}</span> ${row.reason} <span class="soft">${bytes(row.bytes)}</span></summary>
        <p class="note">from ${row.source}, written ${eventTime(row.at)}${row.detail ? `: ${row.detail}` : ""}</p>
        <pre tabindex="0" role="region" aria-label=${`Content of ${row.name}`}>${row.value}</pre>
      </details>`)}` : html`<${Empty}>None: every record could be used.<//>`}
  <//>`;
}

const replay = ({ topic, reason }) => ({
  title: "Replay dead letters", path: "replay", body: { topic, reason }, confirm: "Replay", fixed: true,
  text: `The dead letters of ${topic} with the reason ${reason} are sent again unchanged, except those that were replayed before.`,
});
