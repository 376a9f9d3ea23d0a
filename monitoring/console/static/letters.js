// What could not be used: how many and why, what they were; with the token, send them again.
import { Empty, Panel, bytes, count, eventTime, html } from "./ui.js";

export function Letters({ letters, act }) {
  const reasons = letters?.reasons ?? [], rows = letters?.rows ?? [];
  return html`<${Panel} area="letters" title="Dead letters" note=${letters?.total ? `${count(letters.total)} in all` : null}>
    ${reasons.length ? html`
      <table>
        <caption class="unseen">Dead letters by topic and reason</caption>
        <thead><tr><th scope="col">topic</th><th scope="col">reason</th><th scope="col">records</th>${act && html`<th scope="col"><span class="unseen">change</span></th>`}</tr></thead>
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
  text: `The dead letters of ${topic} with the reason ${reason} that were not replayed before are sent again, as they came.`,
});
