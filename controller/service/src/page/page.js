// Draws what GET v1/status shows of each flag. Every text comes in as text, never as HTML.

const PHASES = ["Coexisting", "AwaitingPromotion", "ProvingRoutes", "Holding", "Committing", "Switching", "Settling",
  "Retaining", "Removing", "Stable"];
const FENCED = ["Holding", "Committing"];
const SHOWN_MS = 120_000; // of the charts
const SILENT_MS = 4_000; // without an event: whatever is in between holds them back
const SVG = "http://www.w3.org/2000/svg";

const at = (id) => document.getElementById(id);
const samples = new Map(); // by flag: what was seen in the last two minutes
let flags = [];
let seen = null; // when the controller said so last, by this machine's clock

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
  place.replaceChildren(...items.map((item) => {
    const one = element("li", undefined, { class: item.class ?? null, "aria-current": item.current ? "step" : null });
    if (item.time !== undefined) one.append(element("time", clock(item.time), { datetime: new Date(item.time).toISOString() }), " ");
    one.append(item.text);
    if (item.copy) one.append(" ", copyButton(item.text));
    return one;
  }));
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

function copyButton(text) {
  const button = element("button", "Copy", { type: "button", "aria-label": `Copy ${text}` });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // A browser may refuse it: then it is marked, to be copied by hand.
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling ?? button.parentElement);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
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

function chosen() {
  const name = decodeURIComponent(location.hash.slice(1));
  return flags.find((flag) => flag.name === name) ?? (flags.length === 1 ? flags[0] : undefined);
}

function draw() {
  const flag = chosen();
  const first = flag ?? flags.find((one) => one.status.blocked) ?? flags[0];
  says("why", first ? why(first) : "There is no flag here.");
  at("why").classList.toggle("blocked", Boolean(first?.status.blocked));
  table(flag);
  at("flag").hidden = !flag;
  if (flag) detail(flag);
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
    const name = element("td");
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
  const names = versions(flag);
  chart("rate", flag.name, names, "rate");
  chart("open", flag.name, names, "open");
  list("legend", names.map((name, index) => ({ class: `v${index % 3}`, text: `${["━━", "╍╍", "┅┅"][index % 3]} ${name}: ${requests(flag, name)}` })));
  list("versions", names.map((name) => ({ text: `${name}: ${state(flag, name)}` })));
  says("acked", `${fleet.acked} of ${fleet.expected} proxies have acked epoch ${status.record?.epoch ?? "unknown"}.`);
  const behind = [...fleet.laggards, ...fleet.configLaggards, ...fleet.routeLaggards, ...(fleet.reachLaggards ?? [])];
  const late = new Map(behind.map((one) => [one.proxy, one.why]));
  const shown = [...late].slice(0, 50).map(([proxy, reason]) => ({ class: "bad", text: `${proxy}: ${reason}` }));
  if (late.size > 50) shown.push({ text: `and ${late.size - 50} more` });
  (flag.refused ?? []).forEach((one) => shown.push({ class: "bad", text: `refused ${one.proxy}: ${one.why}` }));
  list("proxies", shown);
  list("callers", callers(flag));
  const checks = Object.entries(flag.checks ?? {});
  list("checks", checks.length ? checks.map(([name, one]) => ({ class: one.verdict === "Failed" ? "bad" : null, text: `${name}: ${one.verdict.toLowerCase()}, ${one.message}` })) : [{ text: "none" }]);
  const commands = ["status -w", "why", "history", ...(flag.advice ? [flag.advice] : [])];
  list("commands", commands.map((verb) => ({ copy: true, text: command(verb, flag) })));
  list("history", [...(status.history ?? [])].reverse().map((one) => ({ time: one.at, text: `${one.event}: ${one.message} (epoch ${one.epoch})` })));
}

// In a cluster a flag is NAMESPACE/NAME; on one machine it is asked for by the address of its controller.
function command(verb, flag) {
  const [namespace, name] = flag.name.split("/");
  if (name) return `kubectl versionflag ${verb} ${name} -n ${namespace}`;
  return `versionflag ${verb} ${flag.name} -f ${location.origin}`;
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
    text: index === now ? `${phase} for ${span(Math.floor((flag.now - status.phaseSince) / 1_000) * 1_000)}` : phase,
  })));
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
  return `${rate}, in flight ${told(traffic.known, `${flow?.open}`)}`;
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
  const old = status.switch && status.phase !== "Stable" ? fleet.old : undefined;
  const all = (fleet.strangers ?? []).map((one) => ({ class: "bad", text: `${one.from || "somebody"}, past the flag, seen by ${one.at}: ${one.perSecond || "an unknown number of"} requests/s` }));
  (fleet.senders ?? []).slice(0, 50).forEach((proxy) => all.push({ text: `${proxy} sends requests, or has some open` }));
  if (old === "unknown") all.push({ text: "It is unknown whether requests reach it." });
  return all.length ? all : [{ text: "nobody that is known" }];
}

function chart(id, flag, names, what) {
  const seenOf = samples.get(flag) ?? [];
  const end = seenOf.at(-1)?.at ?? 0;
  const values = seenOf.flatMap((one) => names.map((name) => one.versions[name]?.[what]).filter(Number.isFinite));
  const most = Math.max(1, ...values);
  const unit = what === "rate" ? `${most.toFixed(most < 10 ? 1 : 0)} requests/s` : `${most} in flight`;
  const x = (time) => 600 - ((end - time) / SHOWN_MS) * 600;
  const y = (value) => 150 - (value / most) * 125;
  const drawn = names.map((name, index) => {
    let path = "";
    let gap = true;
    for (const one of seenOf) {
      const value = one.versions[name]?.[what];
      // What is unknown is a gap.
      if (Number.isFinite(value)) path += `${gap ? "M" : "L"}${x(one.at).toFixed(1)} ${y(value).toFixed(1)}`;
      gap = !Number.isFinite(value);
    }
    return part("path", { d: path || "M0 0", class: `v${index % 3}`, "data-version": name, "data-points": String((path.match(/[ML]/g) ?? []).length) });
  });
  const label = part("text", { x: 4, y: 14 });
  label.textContent = `at most ${unit}`;
  at(id).replaceChildren(part("path", { d: "M0 150H600", class: "axis" }), label, ...drawn);
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
  flags.forEach(sample);
  [...samples.keys()].filter((name) => !flags.some((flag) => flag.name === name)).forEach((name) => samples.delete(name));
  says("shown", `As of ${clock(seen)}`);
  trouble("");
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

let heard = Date.now();
let polling = false;

function listen() {
  const events = new EventSource("v1/events");
  events.onmessage = (event) => {
    [heard, polling] = [Date.now(), false];
    take(event.data);
  };
  events.onerror = () => {
    // A browser gives up after an answer that is no stream.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, SILENT_MS);
  };
}

async function poll() {
  if (Date.now() - heard > SILENT_MS) polling = true;
  if (!polling) return;
  try {
    const answer = await fetch("v1/status", { cache: "no-store", signal: AbortSignal.timeout(SILENT_MS) });
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    take(await answer.text());
  } catch (error) {
    failed(`The controller does not answer: ${error.message}.`);
  }
}

addEventListener("hashchange", draw);
listen();
setInterval(poll, 1_000);
