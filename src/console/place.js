// Where the page is: view, organisation and filter stand in the fragment, so that a link shows a
// colleague the same. No token is ever in it.

export function here() {
  const [view, params] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: view || "overview", params: new URLSearchParams(params) };
}

export function link(view, params = {}) {
  const some = Object.entries(params).filter(([, value]) => value);
  return `#/${view}${some.length ? `?${new URLSearchParams(some)}` : ""}`;
}

export function go(view, params) {
  location.hash = link(view, params);
}

/** Notes a parameter without a step in the history, as a filter changes with every key. */
export function note(name, value) {
  const { view, params } = here();
  if (value) params.set(name, value);
  else params.delete(name);
  history.replaceState(null, "", link(view, Object.fromEntries(params)));
}

let timers = [];

/** Does something again and again while the view is shown and the page is seen. */
export function every(milliseconds, action) {
  timers.push(setInterval(() => { if (!document.hidden) action(); }, milliseconds));
}

export function stopTimers() {
  timers.forEach(clearInterval);
  timers = [];
}
