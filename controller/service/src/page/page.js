// Draws what GET v1/status shows of each flag. Every text comes in as text, never as HTML.

const PHASES = ["Coexisting", "AwaitingPromotion", "ProvingRoutes", "Holding", "Committing", "Switching", "Settling",
  "Retaining", "Removing", "Stable"];
const FENCED = ["Holding", "Committing"];
const LEAVING = ["Holding", "Committing", "Switching", "Settling", "Retaining", "Removing"];
const VERDICTS = {
  passed: (name, message) => ({ text: `✔ ${name} passed: ${message}` }),
  failed: (name, message) => ({ class: "bad", text: `✘ ${name} failed: ${message}` }),
  inconclusive: (name, message) => ({ class: "unknown", text: `? ${name} is unknown: ${message}` }),
};
const SHOWN_MS = 120_000; // of the charts
const GAP_MS = 12_000; // between two samples: what was in between is unknown
const SILENT_MS = 4_000; // without a first event: whatever is in between holds them back
const LOST_MS = 12_000; // without a further one: a controller with nothing new says so every 5 s
const FAULTS = { TypeError: "no connection", TimeoutError: `nothing came within ${SILENT_MS / 1_000} s`, SyntaxError: "somebody else answers in its place" };
const SVG = "http://www.w3.org/2000/svg";

const at = (id) => document.getElementById(id);
const samples = new Map(); // by flag: what was seen in the last two minutes
let flags = [];
let seen = null; // when the controller said so last, by this machine's clock
let told = ""; // what a screen reader was told last

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  return made;
}

// Changes only what differs: a selection, and what a screen reader has read, stays.
function list(id, items) {
  const key = JSON.stringify(items);
  const place = at(id);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  place.replaceChildren(...items.map((item) => {
    const one = element("li", undefined, { class: item.class ?? null, "aria-current": item.current ? "step" : null });
    if (item.time !== undefined) one.append(element("time", clock(item.time), { datetime: new Date(item.time).toISOString() }), " ");
    one.append(item.copy ? element("code", item.text) : item.text);
    if (item.soft) one.append(" ", element("span", item.soft, { class: "soft" }));
    if (item.copy) one.append(" ", copyButton(item.text));
    return one;
  }));
  if (focused) [...place.querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === focused)?.focus();
}

function says(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

function span(ms) {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60_000);
  return minutes < 60 ? `${minutes} min ${Math.floor((ms % 60_000) / 1_000)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// What goes on is shown in whole seconds.
const whole = (ms) => span(Math.floor(Math.max(0, ms) / 1_000) * 1_000).replace(".0 s", " s").replace(/^0 ms$/, "0 s");

function copyButton(text) {
  const button = element("button", "Copy", { type: "button", "aria-label": `Copy ${text}` });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      says("said", "Copied");
    } catch {
      // A browser may refuse it: then it is marked, to be copied by hand.
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling ?? button.parentElement);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
      says("said", "Selected: the browser does not let this page copy it");
    }
  });
  return button;
}

// The sentence of `versionflag why`.
function why(flag) {
  const { status } = flag;
  if (status.blocked) {
    const since = span(flag.now - status.blocked.since);
    return `${flag.name} is blocked in ${status.phase} by ${status.blocked.reason} for ${since}: ${status.blocked.message}`;
  }
  return `${flag.name} is ${status.phase}, waits for: ${flag.waiting}`;
}

function wanted() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return location.hash.slice(1);
  }
}

function chosen() {
  const name = wanted();
  return flags.find((flag) => flag.name === name) ?? (flags.length === 1 ? flags[0] : undefined);
}

function draw() {
  const flag = chosen();
  const first = flag ?? flags.find((one) => one.status.blocked) ?? flags[0];
  says("why", first ? why(first) : "There is no flag here.");
  at("why").classList.toggle("blocked", Boolean(first?.status.blocked));
  announce(first);
  table(flag);
  at("flag").hidden = !flag;
  if (flag) detail(flag);
}

// A screen reader is told of another phase or another blocker, and not of every number.
function announce(flag) {
  const news = flag ? `${flag.name} ${flag.status.phase} ${flag.status.blocked?.reason ?? ""}` : "";
  if (told && news && news !== told) says("said", why(flag));
  told = news || told;
}

function table(current) {
  const rows = flags.map((flag) => [flag.name, flag.status.phase, flag.status.activeVersion || "unknown", flag.specVersion,
    `${flag.fleet.acked} of ${flag.fleet.expected} acked`, flag.status.blocked?.reason ?? ""]);
  const key = JSON.stringify([rows, current?.name]);
  const place = at("flags");
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  // A link that has the focus keeps it.
  const focused = document.activeElement?.closest?.("#flags a")?.getAttribute("href");
  place.replaceChildren(...rows.map((row) => {
    const line = element("tr", undefined, { "aria-current": row[0] === current?.name ? "true" : null });
    const name = element("th", undefined, { scope: "row" });
    name.append(element("a", row[0], { href: `#${encodeURIComponent(row[0])}` }));
    line.append(name, ...row.slice(1).map((text, index) => element("td", text, { class: index === 4 && text ? "bad" : null })));
    return line;
  }));
  if (focused) [...place.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

function detail(flag) {
  const { status, fleet } = flag;
  const target = status.switch && status.targetVersion ? `${status.switch.from} to ${status.switch.to}` : status.activeVersion;
  says("flag-title", `${flag.name}: ${target}`);
  phases(flag);
  const soon = flag.next?.at && flag.next.at > flag.now && !status.blocked ? ` in at least ${span(flag.next.at - flag.now)}` : "";
  says("next", flag.next ? `Next: ${flag.next.what}${soon}.` : "");
  says("flipped", flipped(flag));
  const names = versions(flag);
  chart("rate", flag.name, names, "rate");
  chart("open", flag.name, names, "open");
  list("legend", names.map((name, index) => ({ class: `v${index % 3}`, text: `${["━━", "╍╍", "┅┅"][index % 3]} ${name}: ${requests(flag, name)}` })));
  list("versions", names.map((name) => ({ text: `${name}: ${state(flag, name)}` })));
  says("acked", fleet.expected ? `${fleet.acked} of ${fleet.expected} proxies have acked epoch ${status.record?.epoch ?? "unknown"}.` : "It is unknown which proxies have to ack.");
  const late = laggards(flag);
  const shown = [...late].slice(0, 50).map(([proxy, reason]) => ({ class: "bad", text: `${proxy}: ${reason}` }));
  // Of a large fleet not all names are sent.
  const more = Math.max(late.size, fleet.expected - fleet.acked) - Math.min(late.size, 50);
  if (late.size && more > 0) shown.push({ text: `and ${more} more` });
  (flag.refused ?? []).forEach((one) => shown.push({ class: "bad", text: `refused ${one.proxy}: ${one.why}` }));
  list("proxies", shown.length || !fleet.expected ? shown : [{ text: "None is late, and none is refused." }]);
  list("callers", callers(flag));
  const checks = Object.entries(flag.checks ?? {});
  list("checks", checks.length ? checks.map(([name, one]) => ({ ...(VERDICTS[one.verdict] ?? VERDICTS.inconclusive)(name, one.message), soft: `for ${whole(flag.now - one.since)}` })) : [{ text: "none is asked now" }]);
  const commands = ["status -w", "why", "history", ...(flag.advice ? [flag.advice] : [])];
  list("commands", commands.map((verb) => ({ copy: true, text: command(verb, flag) })));
  list("history", [...(status.history ?? [])].reverse().map((one) => ({ time: one.at, text: `${one.event}: ${one.message} (epoch ${one.epoch})` })));
}

// In a cluster a flag is NAMESPACE/NAME; on one machine it is asked for by the address of its controller.
function command(verb, flag) {
  const [namespace, name] = flag.name.split("/");
  if (name) return `kubectl versionflag ${verb} ${name} -n ${namespace}`;
  return `versionflag ${verb} ${flag.name} -f ${location.origin}${location.pathname.replace(/\/$/, "")}`;
}

function phases(flag) {
  const { status } = flag;
  const isFenced = Boolean(status.switch?.fence) || FENCED.includes(status.phase);
  const known = PHASES.filter((phase) => isFenced || !FENCED.includes(phase));
  const all = known.includes(status.phase) ? known : [status.phase, ...known];
  const now = all.indexOf(status.phase);
  const rests = status.phase === "Stable";
  list("phases", all.map((phase, index) => ({
    class: !rests && index < now ? "past" : null,
    current: index === now,
    text: phase,
    soft: index === now ? `for ${whole(flag.now - status.phaseSince)}` : index < now ? took(status.switch, phase) : "",
  })));
}

// How long a phase took that is over, as far as it was written down.
function took(change, phase) {
  if (!change) return "";
  const { fence = {}, flippedAt: flip } = change;
  const all = {
    Coexisting: [change.startedAt, change.readyAt],
    AwaitingPromotion: [change.readyAt, change.promotedAt],
    ProvingRoutes: [change.promotedAt, fence.heldAt ?? flip],
    Holding: [fence.heldAt, fence.committedAt],
    Committing: [fence.committedAt, fence.openedAt ?? flip],
    Switching: [fence.openedAt ?? flip, change.ackedAt],
    Settling: [change.ackedAt, change.settledAt],
    Retaining: [change.settledAt, change.removalIntentAt],
    Removing: [change.removalIntentAt, change.removedAt],
  };
  const [from, to] = all[phase] ?? [];
  if (from === undefined && to === undefined) return "skipped";
  return to >= from ? `took ${span(to - from)}` : "took unknown";
}

function flipped(flag) {
  const { switch: change, phase } = flag.status;
  if (!change?.flippedAt || change.removal || phase === "Stable") return "";
  const acked = change.ackedAt ? `all proxies acked after ${span(change.ackedAt - change.flippedAt)}` : "not all proxies have acked";
  const of = flag.fleet.overlap;
  const ms = change.overlapMs ?? (of?.from === change.from && of?.to === change.to ? of.ms : undefined);
  // Reports are no closer than that.
  const overlap = ms === undefined ? "unknown" : ms < 100 ? "less than 100 ms" : span(ms);
  const held = change.fence?.heldMs === undefined ? "" : ` Requests were held for ${span(change.fence.heldMs)}.`;
  return `Flipped ${whole(flag.now - change.flippedAt)} ago, ${acked}. Both versions got new requests for: ${overlap}.${held}`;
}

// Those that hold the phase up, each once: what others are behind with is not asked for yet.
function laggards(flag) {
  const { fleet, status: { phase } } = flag;
  const proves = ["Settling", "Retaining", "Removing"].includes(phase);
  const asked = proves || phase === "ProvingRoutes";
  const fence = FENCED.includes(phase) ? fleet.fence ?? {} : {};
  const all = [fleet.laggards, proves && fleet.configLaggards, asked && fleet.routeLaggards, asked && fleet.reachLaggards,
    fence.expired, fence.routeless, fence.notHolding, fence.open].flatMap((some) => some || []);
  const named = new Map();
  all.forEach((one) => named.has(one.proxy) || named.set(one.proxy, one.why));
  return named;
}

function versions(flag) {
  const { status } = flag;
  const of = [status.previousVersion, status.switch?.from, status.activeVersion, status.switch?.to];
  return [...new Set([...of.filter(Boolean), ...Object.keys(flag.versions), ...Object.keys(flag.traffic.versions ?? {})])].sort();
}

// What only some proxies say is a bound, and what none says is unknown: neither is zero.
function requests(flag, name) {
  const { traffic } = flag;
  const flow = traffic.versions?.[name] ?? (traffic.known ? { perSecond: 0, open: 0, rated: traffic.known } : undefined);
  const told = (by, text) => (!flow || by === 0 ? "unknown" : by < traffic.expected ? `at least ${text}` : text);
  const rate = told(flow?.rated ?? 0, `${flow?.perSecond.toFixed(flow.perSecond < 10 ? 1 : 0)} requests/s`);
  return `${rate}, ${told(traffic.known, `${flow?.open}`)} in flight`;
}

function state(flag, name) {
  const version = flag.versions[name];
  if (!version) return "unknown";
  const role = name === flag.status.activeVersion ? "serves" : name === flag.status.switch?.to ? "comes" : "does not serve";
  const runs = version.ready ? "ready" : version.running ? "runs, not ready" : "does not run";
  const notes = [version.lacks, version.exited, version.barred, ...(version.notes ?? [])].filter(Boolean);
  return [role, runs, ...notes].join("; ");
}

function callers(flag) {
  const { fleet, status } = flag;
  const from = status.switch?.from;
  if (!from || !LEAVING.includes(status.phase)) return [{ text: "No version is left now." }];
  const { old } = fleet;
  const reached = [];
  if (old?.busy) reached.push({ text: old.busy.open ? `${from} has ${old.busy.open} open ${old.busy.open === 1 ? "request" : "requests"}` : `requests were sent to ${from} lately` });
  // Before all have acked it counts for nothing.
  else if (old?.since !== undefined) reached.push({ text: `${from} has been quiet for ${whole(flag.now - Math.max(old.since, status.switch.ackedAt ?? 0))}` });
  else reached.push({ class: "unknown", text: `It is unknown whether requests reach ${from}.` });
  const all = (fleet.strangers ?? []).map((one) => ({ class: "bad", text: `${one.from || "somebody"}, past the flag, seen by ${one.at}: ${one.perSecond || "an unknown number of"} requests/s` }));
  (fleet.strays ?? []).forEach((one) => all.push({ class: "bad", text: `${one.proxy}: ${one.why}` }));
  (fleet.senders ?? []).forEach((proxy) => all.push({ text: `${proxy} sends requests, or has some open` }));
  (fleet.members ?? []).forEach((proxy) => all.push({ text: `${proxy} does, beside ${from}: it calls itself` }));
  (fleet.unplaced ?? []).forEach((one) => all.push({ text: `${one.proxy}: ${one.why}` }));
  if (all.length > 50) all.splice(50, all.length, { text: `and ${all.length - 50} more` });
  return [...reached, ...(all.length ? all : [{ text: "nobody that is known" }])];
}

function chart(id, flag, names, what) {
  const seenOf = samples.get(flag) ?? [];
  const end = seenOf.at(-1)?.at ?? 0;
  const values = seenOf.flatMap((one) => names.map((name) => one.versions[name]?.[what]).filter(Number.isFinite));
  const most = Math.max(1, ...values);
  const unit = what === "rate" ? `${most.toFixed(most < 10 ? 1 : 0)} requests/s` : `${most} in flight`;
  // As wide as it is drawn: its text keeps its size.
  const wide = at(id).clientWidth || 600;
  at(id).setAttribute("viewBox", `0 0 ${wide} 160`);
  const x = (time) => wide - 2 - ((end - time) / SHOWN_MS) * (wide - 2);
  const y = (value) => 138 - (value / most) * 114;
  const drawn = names.map((name, index) => {
    let path = "";
    let last = null;
    for (const one of seenOf) {
      const value = one.versions[name]?.[what];
      // What is unknown is a gap.
      const joined = last !== null && one.at - last < GAP_MS;
      if (Number.isFinite(value)) path += `${joined ? "L" : "M"}${x(one.at).toFixed(1)} ${y(value).toFixed(1)}`;
      last = Number.isFinite(value) ? one.at : null;
    }
    return part("path", { d: path || "M0 0", class: `v${index % 3}`, "data-version": name, "data-points": String((path.match(/[ML]/g) ?? []).length) });
  });
  const text = (x, y, anchor, words) => {
    const label = part("text", { x, y, "text-anchor": anchor });
    label.textContent = words;
    return label;
  };
  at(id).replaceChildren(part("path", { d: `M0 138H${wide}`, class: "axis" }), text(0, 14, "start", `at most ${unit}`),
    text(0, 156, "start", "2 min ago"), text(wide / 2, 156, "middle", "1 min ago"), text(wide, 156, "end", "now"), ...drawn);
}

function part(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function sample(flag) {
  const { traffic } = flag;
  const kept = (samples.get(flag.name) ?? []).filter((one) => flag.now - one.at < SHOWN_MS);
  const of = (name) => {
    const flow = traffic.versions?.[name];
    if (!traffic.known) return {};
    return { rate: flow && !flow.rated ? undefined : flow?.perSecond ?? 0, open: flow?.open ?? 0 };
  };
  kept.push({ at: flag.now, versions: Object.fromEntries(versions(flag).map((name) => [name, of(name)])) });
  samples.set(flag.name, kept);
}

function take(text) {
  flags = JSON.parse(text);
  seen = Date.now();
  flags.forEach((flag) => (flag.asOf = flag.now));
  flags.forEach(sample);
  [...samples.keys()].filter((name) => !flags.some((flag) => flag.name === name)).forEach((name) => samples.delete(name));
  says("shown", `As of ${clock(seen)}`);
  trouble("");
  draw();
}

// The controller's clock goes on between two answers, but not without end.
function goOn() {
  const since = Math.min(Date.now() - seen, LOST_MS);
  flags.forEach((flag) => (flag.now = flag.asOf + since));
  draw();
}

function trouble(text) {
  says("trouble", text);
  at("trouble").hidden = !text;
}

function failed(what) {
  const since = seen ? `What is shown is as of ${clock(seen)}. ` : "";
  trouble(`${what} ${since}Trying again.`);
}

let events = null;
let heard = Date.now();
let isFirst = true; // nothing came yet by these events
let polling = false;
let asking = false;

function listen() {
  [events, heard, isFirst] = [new EventSource("v1/events"), Date.now(), true];
  events.onmessage = (event) => {
    [heard, isFirst, polling] = [Date.now(), false, false];
    take(event.data);
  };
  events.onerror = () => {
    // The answer to a plain question says what is wrong.
    polling = true;
    poll();
    // A browser gives up after an answer that is no stream.
    if (events?.readyState === EventSource.CLOSED) setTimeout(() => events?.readyState === EventSource.CLOSED && listen(), SILENT_MS);
  };
}

function hush() {
  events?.close();
  events = null;
}

async function poll() {
  if (asking) return;
  asking = true;
  try {
    const answer = await fetch("v1/status", { cache: "no-store", signal: AbortSignal.timeout(SILENT_MS) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(reason(text) ?? `it answers ${answer.status}`);
    // Whatever came by events meanwhile is newer.
    if (polling) take(text);
  } catch (error) {
    if (polling) failed(`The controller does not answer: ${FAULTS[error.name] ?? error.message}.`);
  }
  asking = false;
}

function reason(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return undefined;
  }
}

function tick() {
  if (document.hidden) return;
  if (Date.now() - heard > (isFirst ? SILENT_MS : LOST_MS)) {
    polling = true;
    // The line is dead, and nothing says so.
    if (!isFirst) {
      hush();
      listen();
    }
  }
  if (polling) poll();
  else if (seen) goOn();
}

addEventListener("hashchange", draw);
addEventListener("resize", draw);
// Whoever is not looked at takes no place: a browser has few connections to one address.
document.addEventListener("visibilitychange", () => {
  hush();
  if (!document.hidden) listen();
});
if (!document.hidden) listen();
setInterval(tick, 1_000);
