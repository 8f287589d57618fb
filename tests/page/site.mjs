// The example of manifests/envoy on free ports: controller, both versions, Envoy, and requests that go on.

import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "../..");
const PORTS = ["7070", "9001", "9002", "10000", "9901"];
const LIMIT_MS = 60_000;

function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(String(port)));
    });
  });
}

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: make test-page does so`);
  return path.resolve(value);
}

// Waits until this gives something.
export async function until(what, look, limit = LIMIT_MS) {
  const deadline = Date.now() + limit;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${limit} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export class Site {
  processes = [];
  answers = new Map();
  failed = [];

  static async start() {
    const site = new Site();
    try {
      await site.begin();
    } catch (error) {
      await site.stop();
      throw error;
    }
    return site;
  }

  async begin() {
    this.folder = mkdtempSync(path.join(tmpdir(), "versionflag-page-"));
    cpSync(path.join(ROOT, "manifests/envoy"), this.folder, { recursive: true });
    const free = new Map();
    for (const port of PORTS) free.set(port, await freePort());
    const wasm = setting("VERSIONFLAG_WASM");
    for (const name of ["reviews.yaml", "envoy.yaml"]) {
      const text = readFileSync(path.join(this.folder, name), "utf8");
      const here = text.replace(/\b(7070|9001|9002|10000|9901)\b/g, (port) => free.get(port));
      writeFileSync(path.join(this.folder, name), here.replace(/wasm: .*versionflag\.wasm/, `wasm: ${wasm}`));
    }
    [this.port, this.ingress] = [free.get("7070"), free.get("10000")];
    this.url = `http://127.0.0.1:${this.port}/`;
    this.controller = this.run(setting("VERSIONFLAG_BIN"), ["local", "-f", "reviews.yaml"]);
    const files = ["filter.json", "routes.json", "clusters.json"].map((name) => path.join(this.folder, name));
    await until("the controller's files", () => files.every(existsSync));
    this.run(setting("VERSIONFLAG_ENVOY"), ["-c", "envoy.yaml", "--concurrency", "2", "--log-level", "warning", "--disable-hot-restart"]);
    await until("an answer of v1", () => this.ask().then((text) => text.includes("v1"), () => false));
    await until("the ack", () => this.status().then((flags) => flags[0].fleet.acked === 1));
    [this.answers, this.failed] = [new Map(), []];
    this.asking = setInterval(() => this.ask().catch((error) => this.failed.push(error.message)), 20);
  }

  run(program, words) {
    const child = spawn(program, words, { cwd: this.folder, stdio: ["ignore", "ignore", "pipe"] });
    child.said = "";
    child.stderr.on("data", (text) => (child.said = (child.said + text).slice(-4_000)));
    child.ended = new Promise((resolve) => child.on("exit", resolve));
    this.processes.push(child);
    return child;
  }

  async status() {
    const answer = await fetch(`${this.url}v1/status`);
    return answer.json();
  }

  // One request to the service; the name of the version that has answered.
  ask() {
    return new Promise((resolve, reject) => {
      const options = { host: "127.0.0.1", port: this.ingress, headers: { host: "reviews.example" }, agent: false };
      const request = http.get(options, (answer) => {
        let text = "";
        answer.on("data", (more) => (text += more));
        answer.on("end", () => {
          if (answer.statusCode !== 200) return reject(new Error(`${answer.statusCode}: ${text}`));
          this.answers.set(text, (this.answers.get(text) ?? 0) + 1);
          resolve(text);
        });
      });
      request.on("error", reject);
    });
  }

  edit(from, to) {
    const file = path.join(this.folder, "reviews.yaml");
    const text = readFileSync(file, "utf8");
    if (!text.includes(from)) throw new Error(`${from} is not in ${file}`);
    writeFileSync(file, text.replace(from, to));
  }

  // What the controller has started goes on without it: it is stopped by its own command first.
  async stop() {
    this.processes.filter((child) => child.exitCode).forEach((child) => console.log(child.spawnfile, child.said));
    clearInterval(this.asking);
    for (const version of ["v1", "v2"]) {
      if (this.controller?.exitCode === null) {
        await this.run(setting("VERSIONFLAG_BIN"), ["stop", "-f", "reviews.yaml", "--version", version, "--force"]).ended;
      }
    }
    if (this.controller?.exitCode === null) {
      await until("both versions ended", () => this.status().then((flags) => Object.values(flags[0].versions).every((one) => !one.running), () => true));
    }
    for (const child of this.processes) {
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
      await child.ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
