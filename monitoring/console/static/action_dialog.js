// The dialog that confirms an action: the only way to change anything. The page keeps the token until it is closed.
import { useEffect, useRef, useState } from "./vendor/hooks.mjs";
import { html } from "./ui.js";

let token = "";

export function ActionDialog({ action, close }) {
  const dialog = useRef(null);
  const [problem, setProblem] = useState(null);
  const [result, setResult] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    setProblem(null);
    if (action && !dialog.current.open) dialog.current.showModal();
    if (!action && dialog.current.open) dialog.current.close();
  }, [action]);

  async function submit(event) {
    event.preventDefault();
    const form = new FormData(event.target);
    token = form.get("token") ?? token;
    const reason = form.get("reason");
    setBusy(true);
    const answer = await post(action.path, reason ? { ...action.body, reason } : action.body);
    setBusy(false);
    if (answer.error) return setProblem(answer.error);
    setResult(answer.done);
    close();
  }

  return html`
    <dialog ref=${dialog} onClose=${close} aria-labelledby="action-title">
      ${action && html`<form onSubmit=${submit}>
        <h2 id="action-title">${action.title}</h2>
        <p>${action.text}</p>
        ${!action.fixed && html`<label>Reason, stored with the change <input name="reason" defaultValue="by hand" maxlength="200" /></label>`}
        <label>Token <input name="token" type="password" autocomplete="off" defaultValue=${token} /></label>
        ${problem && html`<p class="problem" role="alert">${problem}</p>`}
        <div class="buttons">
          <button type="button" onClick=${close}>Cancel</button>
          <button type="submit" class="main" disabled=${busy}>${busy ? "Working…" : action.confirm}</button>
        </div>
      </form>`}
    </dialog>
    <p class=${result ? "result" : "unseen"} role="status" id="result">${result}</p>`;
}

async function post(path, body) {
  try {
    const answer = await fetch(`/api/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Tailrace-Token": token },
      body: JSON.stringify(body),
    });
    return await answer.json();
  } catch (error) {
    return { error: `the console did not answer: ${error.message}` };
  }
}
