"use strict";
// Puts a fresh copy of the page's main part in place every few seconds, as long as somebody looks at it.
const EVERY_MS = 5000;

async function refresh() {
  if (document.hidden || String(getSelection())) return;
  try {
    const response = await fetch(location.href, { cache: "no-store" });
    if (!response.ok) throw new Error(response.statusText);
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale");
  }
}

setInterval(refresh, EVERY_MS);
document.addEventListener("visibilitychange", refresh);
