// A change, confirmed: the only way to change anything. The token is kept by this page alone, until it is closed.
import { useEffect, useRef, useState } from "./vendor/hooks.mjs";
import { html } from "./ui.js";

let token = "";

export function Act({ action, close }) {
  const dialog = useRef(null);
  const [problem, setProblem] = useState(null);
  const [told, setTold] = useState("");
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
    const answer = await ask(action.path, reason ? { ...action.body, reason } : action.body);
    setBusy(false);
    if (answer.error) return setProblem(answer.error);
    setTold(answer.done);
    close();
  }

  return html`
    <dialog ref=${dialog} onClose=${close} aria-labelledby="act-title">
      ${action && html`<form onSubmit=${submit}>
        <h2 id="act-title">${action.title}</h2>
        <p>${action.text}</p>
        ${!action.fixed && html`<label>Reason, kept with the change <input name="reason" defaultValue="by hand" maxlength="200" /></label>`}
        <label>Token <input name="token" type="password" autocomplete="off" defaultValue=${token} /></label>
        ${problem && html`<p class="problem" role="alert">${problem}</p>`}
        <div class="buttons">
          <button type="button" onClick=${close}>Cancel</button>
          <button type="submit" class="main" disabled=${busy}>${busy ? "Working…" : action.confirm}</button>
        </div>
      </form>`}
    </dialog>
    <p class=${told ? "told" : "unseen"} role="status" id="told">${told}</p>`;
}

async function ask(path, body) {
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
