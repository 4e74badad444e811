"use strict";
// Every few seconds the parts that change are taken from the page as it is now.
const log = () => document.getElementById("log");
const toEnd = () => { const it = log(); if (it) it.scrollTop = it.scrollHeight; };
async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.pathname, { credentials: "same-origin", cache: "no-store" });
    if (!answer.ok) { location.reload(); return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(old.id);
      // What is the same is left alone: a screen reader speaks of changes only.
      if (!now || now.innerHTML === old.innerHTML || old.contains(getSelection().anchorNode) && !getSelection().isCollapsed) continue;
      const atEnd = old.scrollHeight - old.scrollTop - old.clientHeight < 40;
      const open = [...old.querySelectorAll("details[open]")].map((it) => it.id);
      const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      old.className = now.className;
      old.replaceChildren(...now.childNodes);
      for (const id of open) document.getElementById(id)?.setAttribute("open", "");
      if (focused) old.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
      if (old.id === "log" && atEnd) toEnd();
    }
  } catch {
    const time = document.getElementById("time");
    if (time && !time.textContent.includes("no answer")) time.textContent += " (no answer since)";
  }
}
toEnd();
setInterval(refresh, 3000);
