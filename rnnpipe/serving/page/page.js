"use strict";

const at = (id) => document.getElementById(id);
const LIKELY = 10;
let running = null; // the AbortController of the text that comes, null if none does
let shown = 0; // characters of it that are on the page
let waiting = 0; // the timer of the prediction behind what is being typed
let latest = 0; // the number of the last prediction or text that was asked for; what comes later of others is void

function say(message, wrong = false) {
  at("status").textContent = message;
  at("status").classList.toggle("wrong", wrong);
}

function headers() {
  const key = at("key").value.trim();
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function failure(response) {
  const body = await response.json().catch(() => null);
  if (response.status === 401) at("key_label").hidden = false;
  return body?.error?.message ?? `the server answered ${response.status}`;
}

// What may follow: the likely tokens with their probabilities; the one that was drawn is marked.
function showNext(tokens, drawn, behind) {
  at("behind").textContent = behind;
  at("next").replaceChildren(
    ...tokens.map(([token, share]) => {
      const row = document.createElement("tr");
      row.classList.toggle("drawn", token === drawn);
      const bar = document.createElement("meter");
      bar.value = share;
      bar.title = `${(100 * share).toFixed(2)} %`;
      for (const content of [JSON.stringify(token), (100 * share).toFixed(1) + " %", bar]) {
        const cell = document.createElement("td");
        cell.append(content);
        row.append(cell);
      }
      return row;
    }),
  );
}

function showToken(button, likely, drawn) {
  document.querySelector("#text .shown")?.classList.remove("shown");
  button.classList.add("shown");
  showNext(likely, drawn, `where ${JSON.stringify(drawn)} was drawn`);
}

// Adds a token to the text; its button shows what else could have stood there.
function addToken(text, drawn, top) {
  const button = document.createElement("button");
  const likely = Object.entries(top).map(([token, score]) => [token, Math.exp(score)]);
  likely.sort((one, other) => other[1] - one[1]);
  button.type = "button";
  button.textContent = text;
  button.addEventListener("click", () => showToken(button, likely, drawn));
  at("text").append(button);
  showToken(button, likely, drawn);
}

function addPiece(choice) {
  const { tokens, top_logprobs, text_offset } = choice.logprobs;
  // Offsets count from the text's beginning, in code points.
  const characters = [...choice.text];
  tokens.forEach((token, k) => {
    const start = k ? text_offset[k] - shown : 0;
    const end = k + 1 < tokens.length ? text_offset[k + 1] - shown : characters.length;
    addToken(characters.slice(start, end).join(""), token, top_logprobs[k]);
  });
  shown += characters.length;
}

// Yields the JSON of server-sent events.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

async function predict() {
  const mine = ++latest;
  const body = JSON.stringify({ text: at("prompt").value, top: LIKELY });
  const response = await fetch("predict", { method: "POST", headers: headers(), body });
  const wrong = response.ok ? null : await failure(response);
  const { next, unknown } = response.ok ? await response.json() : {};
  if (mine !== latest) return;
  if (wrong) return say(wrong, true);
  showNext(next.map(({ token, probability }) => [token, probability]), null, "behind the prompt");
  say(unknown.length ? `unknown to this model: ${unknown.join(", ")}` : "");
}

async function go() {
  running?.abort();
  clearTimeout(waiting);
  latest++;
  const mine = (running = new AbortController());
  const prompt = at("prompt").value;
  const given = document.createElement("span");
  given.className = "given";
  given.textContent = prompt;
  at("text").replaceChildren(given);
  shown = 0;
  at("stop").disabled = false;
  say("…");
  const request = { prompt, stream: true, logprobs: LIKELY };
  for (const name of ["max_tokens", "temperature", "top_p", "seed"]) {
    if (at(name).value !== "") request[name] = Number(at(name).value);
  }
  try {
    const body = JSON.stringify(request);
    const response = await fetch("v1/completions", { method: "POST", headers: headers(), body, signal: mine.signal });
    if (!response.ok) throw new Error(await failure(response));
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      for (const choice of event.choices) {
        addPiece(choice);
        if (choice.finish_reason) say(`ended: ${choice.finish}; seed ${event.seed}`);
      }
    }
  } catch (error) {
    if (running === mine) say(error.name === "AbortError" ? "stopped" : error.message, error.name !== "AbortError");
  } finally {
    if (running === mine) {
      running = null;
      at("stop").disabled = true;
    }
  }
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  go();
});
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) go();
});
at("stop").addEventListener("click", () => running?.abort());
at("prompt").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => predict().catch((error) => say(error.message, true)), 150);
});

// A link may have the prompt and the options in it: /?prompt=Once&seed=3&go
const asked = new URLSearchParams(location.search);
for (const name of ["prompt", "max_tokens", "temperature", "top_p", "seed"]) {
  if (asked.has(name)) at(name).value = asked.get(name);
}
fetch("health").then(async (response) => (at("model").textContent = (await response.json()).model ?? "rnnpipe"));
if (asked.has("go")) go();
else predict().catch((error) => say(error.message, true));
