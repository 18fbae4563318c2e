"""The page: one question at a time. Everything that comes from the study is set as text, never as HTML."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Study</title>
<style>
body { font: 18px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 44rem; margin: 2rem auto; padding: 0 1rem; text-align: center; }
img { width: min(100%, 24rem); image-rendering: auto; }
button, input { font: inherit; padding: .5rem 1.2rem; margin: .3rem; }
#problem { color: #a00; }
[hidden] { display: none; }
</style>
</head>
<body>
<h1 id="title"></h1>
<form id="start" hidden>
  <p id="introduction"></p>
  <label>Your code: <input id="participant" required maxlength="64" autocomplete="off"></label>
  <button>Begin</button>
</form>
<main id="trial" hidden>
  <p id="progress"></p>
  <h2 id="question"></h2>
  <img id="image" alt="the picture">
  <div id="options"></div>
</main>
<p id="end" hidden>Thank you. All answers are recorded; you can close this page.</p>
<p id="problem" role="alert"></p>
<script>
"use strict";
const at = (id) => document.getElementById(id);
let participant = "", since = 0;

function show(id) {
  for (const each of ["start", "trial", "end"]) at(each).hidden = each !== id;
}

// Until the server has confirmed, the same request is sent again.
async function ask(path, body) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
    try {
      const reply = await fetch(path, body === undefined ? {} : {
        method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
      });
      const found = await reply.json();
      if (reply.ok) { at("problem").textContent = ""; return found; }
      if (reply.status < 500) { at("problem").textContent = found.error; throw new Error(found.error); }
    } catch (error) {
      if (!(error instanceof TypeError) && !(error instanceof SyntaxError)) throw error;
    }
    at("problem").textContent = "The server does not answer. Your answer is kept, and sent again.";
    await new Promise((done) => setTimeout(done, wait));
  }
}

// Until the picture is complete.
async function load(source) {
  for (;;) {
    at("image").src = source;
    try { await at("image").decode(); at("problem").textContent = ""; return; }
    catch { at("problem").textContent = "The server does not answer. The picture is asked for again."; }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function next() {
  const found = await ask("next", {participant});
  if (found.stimulus === null) { show("end"); return; }
  at("progress").textContent = `${found.done + 1} of ${found.total}`;
  at("question").textContent = found.question;
  at("options").replaceChildren(...found.options.map((option) => {
    const button = document.createElement("button");
    button.textContent = option;
    button.onclick = () => choose(found.stimulus, option);
    return button;
  }));
  await load(`stimulus/${found.stimulus}.png`);
  show("trial");
  since = performance.now();
}

async function choose(stimulus, answer) {
  const seconds = (performance.now() - since) / 1000;
  for (const button of at("options").children) button.disabled = true;
  await ask("answer", {participant, stimulus, answer, seconds});
  at("trial").hidden = true;
  await next();
}

at("start").onsubmit = (event) => {
  event.preventDefault();
  participant = at("participant").value.trim();
  if (participant) { next(); }
};

ask("study").then((found) => {
  document.title = found.title;
  at("title").textContent = found.title;
  at("introduction").textContent = found.introduction;
  show("start");
});
</script>
</body>
</html>
"""
