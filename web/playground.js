// The chat playground: plain requests to /v1/chat/completions, streamed, with live figures.
"use strict";

const element = (id) => document.getElementById(id);
const conversation = element("conversation");
let turns = []; // of this conversation
let running = null; // the AbortController of the answer that is coming

function show_state(text, is_error) {
  element("state").textContent = text;
  element("state").classList.toggle("error", Boolean(is_error));
}

function headers() {
  const all = {"Content-Type": "application/json"};
  const key = element("key").value.trim();
  if (key) all.Authorization = "Bearer " + key;
  return all;
}

function error_text(status, body) {
  try {
    const error = JSON.parse(body).error;
    return error.message || String(error);
  } catch {
    return "the server answered with status " + status;
  }
}

async function load_models() {
  try {
    const response = await fetch("/v1/models", {headers: headers()});
    const body = await response.text();
    if (!response.ok) throw new Error(error_text(response.status, body));
    const chosen = element("model").value;
    element("model").replaceChildren(...JSON.parse(body).data.map((model) => {
      const option = document.createElement("option");
      option.value = option.textContent = model.id;
      option.selected = model.id === chosen;
      return option;
    }));
    show_state("ready");
  } catch (error) {
    show_state(error.message, true);
  }
}

function add_message(role, text) {
  element("welcome")?.remove();
  const message = document.createElement("div");
  message.className = "message " + role;
  message.textContent = text;
  conversation.append(message);
  conversation.scrollTop = conversation.scrollHeight;
  return message;
}

function request_body() {
  const system = element("system").value.trim();
  const body = {
    model: element("model").value,
    messages: system ? [{role: "system", content: system}, ...turns] : [...turns],
    stream: true,
    stream_options: {include_usage: true},
  };
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
    const value = element(name).value;
    if (value !== "") body[name] = Number(value);
  }
  return body;
}

// Yields the JSON objects of a stream of server-sent events.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  while (true) {
    const {done, value} = await reader.read();
    if (done) return;
    buffered += value;
    let end;
    while ((end = buffered.indexOf("\n\n")) >= 0) {
      const event = buffered.slice(0, end);
      buffered = buffered.slice(end + 2);
      if (!event.startsWith("data: ")) continue;
      const data = event.slice(6);
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

// What the reader sees of the speed while the answer comes.
class Figures {
  constructor() {
    this.sent = performance.now();
    this.first = 0;
    this.pieces = 0;
    for (const id of ["ttft", "rate", "prompt_tokens", "cached_tokens", "completion_tokens"]) {
      element(id).textContent = "\u2013";
    }
  }

  piece() {
    const now = performance.now();
    ++this.pieces;
    if (!this.first) {
      this.first = now;
      element("ttft").textContent = Math.round(now - this.sent) + " ms";
    }
    element("completion_tokens").textContent = this.pieces;
    this.show_rate(this.pieces, now);
  }

  usage(usage) {
    element("prompt_tokens").textContent = usage.prompt_tokens;
    element("cached_tokens").textContent = usage.prompt_tokens_details?.cached_tokens ?? 0;
    element("completion_tokens").textContent = usage.completion_tokens;
    this.show_rate(usage.completion_tokens, this.last || performance.now());
  }

  show_rate(tokens, now) {
    this.last = now;
    const seconds = (now - this.first) / 1000;
    if (tokens > 1 && seconds > 0) {
      element("rate").textContent = ((tokens - 1) / seconds).toFixed(1);
    }
  }
}

function append_delta(message, delta) {
  const thought = delta.reasoning_content ?? delta.reasoning;
  if (thought) {
    if (!message.reasoning) {
      message.reasoning = document.createElement("div");
      message.reasoning.className = "reasoning";
      message.before(message.reasoning);
    }
    message.reasoning.textContent += thought;
  }
  if (delta.content) message.textContent += delta.content;
  return Boolean(thought || delta.content);
}

async function answer(message) {
  const figures = new Figures();
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: headers(),
    body: JSON.stringify(request_body()),
    signal: running.signal,
  });
  if (!response.ok) throw new Error(error_text(response.status, await response.text()));
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const at_end =
        conversation.scrollHeight - conversation.scrollTop - conversation.clientHeight < 40;
    for (const choice of event.choices) {
      if (append_delta(message, choice.delta)) figures.piece();
    }
    if (event.usage) figures.usage(event.usage);
    if (at_end) conversation.scrollTop = conversation.scrollHeight;
  }
}

async function send() {
  const text = element("input").value.trim();
  if (!text || running) return;
  element("input").value = "";
  const conversation_turns = turns; // a new conversation may begin meanwhile
  turns.push({role: "user", content: text});
  add_message("user", text);
  const message = add_message("assistant", "");
  running = new AbortController();
  element("send").hidden = true;
  element("stop").hidden = false;
  show_state("answering");
  try {
    await answer(message);
    show_state("ready");
  } catch (error) {
    if (error.name === "AbortError") {
      show_state("stopped");
    } else {
      add_message("error", error.message);
      show_state("failed", true);
    }
  }
  if (message.textContent) {
    conversation_turns.push({role: "assistant", content: message.textContent});
  } else {
    conversation_turns.pop(); // the question that has no answer
  }
  running = null;
  element("send").hidden = false;
  element("stop").hidden = true;
  element("input").focus();
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
element("input").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
element("stop").addEventListener("click", () => running?.abort());
element("clear").addEventListener("click", () => {
  running?.abort();
  turns = [];
  conversation.replaceChildren();
});
element("key").addEventListener("change", load_models);
load_models();
