/** A headless Chromium, as an npm package brings it along, that opens a page and does what a user does, over its DevTools protocol. */
import { type ChildProcess, spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { brotliDecompressSync } from "node:zlib";
import { swiftShaderFlags } from "../../.ci/browser/chromium.ts";
import { withBundle } from "../../lib/gpu/bundle.ts";

/** An open page. */
export interface Page {
  /** Evaluates an expression in the page, which may be a promise; it throws what the page throws. */
  evaluate<T>(expression: string): Promise<T>;
  /** Waits until an expression is true. */
  until(expression: string): Promise<void>;
  /** Presses a key where the focus is, with Shift perhaps. */
  press(key: string, shift?: boolean): Promise<void>;
  /** Presses the mouse at a place, and moves it to another before it lets go, where there is one. */
  drag(from: readonly [x: number, y: number], to?: readonly [x: number, y: number]): Promise<void>;
  /** Moves the mouse to a place. */
  point(x: number, y: number): Promise<void>;
  /** The size of the window, in pixels of the page. */
  resize(width: number, height: number): Promise<void>;
  /** A picture of the window, or of the whole page, as PNG. */
  picture(whole?: boolean): Promise<Uint8Array>;
  /** What the console was told that is no information, and what nobody caught. */
  readonly complaints: readonly string[];
  /** What the page asked the network for. */
  readonly requests: readonly string[];
  close(): Promise<void>;
}

/** Opens an address; `withGpu` in a browser whose WebGPU computes, by the SwiftShader of its package. */
export async function openBrowser(address: string, width = 1280, height = 900, withGpu = false): Promise<Page> {
  const folder = mkdtempSync(join(tmpdir(), "twobp-browser-"));
  const child = await start(folder, withGpu);
  const socket = new WebSocket(await addressOf(child));
  await new Promise((resolve, reject) => [socket.onopen, socket.onerror] = [resolve, reject]);
  const waiting = new Map<number, { resolve(result: unknown): void; reject(error: Error): void }>();
  const complaints: string[] = [], requests: string[] = [];
  let last = 0, session = "";
  // deno-lint-ignore no-explicit-any -- the protocol is as wide as a browser
  const call = (method: string, params: object = {}): Promise<any> => {
    const id = ++last;
    socket.send(JSON.stringify({ id, method, params, ...session ? { sessionId: session } : {} }));
    return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
  };
  socket.onmessage = ({ data }) => {
    const { id, method, params, result, error } = JSON.parse(data);
    if (id !== undefined) {
      const { resolve, reject } = waiting.get(id)!;
      waiting.delete(id);
      error ? reject(new Error(error.message)) : resolve(result);
    } else if (method === "Runtime.exceptionThrown") {
      complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    } else if (method === "Runtime.consoleAPICalled" && params.type !== "log" && params.type !== "info") {
      complaints.push(`${params.type}: ${params.args.map((each: { value?: unknown }) => each.value).join(" ")}`);
    } else if (method === "Log.entryAdded" && ["error", "warning"].includes(params.entry.level)) {
      complaints.push(params.entry.text);
    } else if (method === "Network.requestWillBeSent") requests.push(params.request.url);
  };
  const { targetId } = await call("Target.createTarget", { url: "about:blank" });
  session = (await call("Target.attachToTarget", { targetId, flatten: true })).sessionId;
  for (const domain of ["Runtime", "Log", "Network", "Page"]) await call(`${domain}.enable`);

  const evaluate: Page["evaluate"] = async (expression) => {
    const how = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await call("Runtime.evaluate", how);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  /** A page that is just being left for another answers nothing, and is not there yet. */
  const isThere = async (expression: string) => {
    try {
      return await evaluate<boolean>(expression);
    } catch (error) {
      if (error instanceof Error && error.message === "Inspected target navigated or closed") return false;
      throw error;
    }
  };
  const until = async (expression: string) => {
    for (const started = Date.now(); !await isThere(expression);) {
      if (Date.now() - started > 60_000) throw new Error(`It never came that ${expression}`);
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  };
  const mouse = (type: string, [x, y]: readonly [number, number], buttons: number) =>
    call("Input.dispatchMouseEvent", {
      type,
      x,
      y,
      buttons,
      button: buttons || type === "mouseReleased" ? "left" : "none",
      clickCount: 1,
    });
  const page: Page = {
    ...{ evaluate, until, complaints, requests },
    async press(key, shift = false) {
      const text = key.length === 1 ? key : undefined;
      for (const type of ["keyDown", "keyUp"]) {
        await call("Input.dispatchKeyEvent", { type, key, text, modifiers: shift ? 8 : 0 });
      }
    },
    async drag(from, to) {
      await mouse("mouseMoved", from, 0);
      await mouse("mousePressed", from, 1);
      if (to) {
        await mouse("mouseMoved", [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2], 1);
        await mouse("mouseMoved", to, 1);
      }
      await mouse("mouseReleased", to ?? from, 0);
    },
    point: (x, y) => mouse("mouseMoved", [x, y], 0),
    resize: (width, height) =>
      call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 600 }),
    async picture(whole = false) {
      const { data } = await call("Page.captureScreenshot", { captureBeyondViewport: whole });
      return Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
    },
    async close() {
      socket.close();
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
  await page.resize(width, height);
  await call("Page.navigate", { url: address });
  await until("document.readyState === 'complete' && location.protocol !== 'about:'");
  return page;
}

/** Whether the package's browser runs on this machine. */
export const hasBrowser = process.platform === "linux" && process.arch === "x64";

/** Unpacks the browser into a folder and starts it, with the libraries and the font of its package: a bare machine has none. */
async function start(folder: string, withGpu: boolean): Promise<ChildProcess> {
  const archive = new URL("../bin/chromium.br", import.meta.resolve("@sparticuz/chromium"));
  const program = join(folder, "chromium");
  writeFileSync(program, brotliDecompressSync(readFileSync(archive)), { mode: 0o700 });
  const libraries = await withBundle("al2023", ({ folder }) => join(folder, "lib"));
  const fonts = await withBundle("fonts", ({ folder }) => folder);
  const fontsFile = join(folder, "fonts.conf"), cache = join(folder, "fonts");
  writeFileSync(fontsFile, `<fontconfig><dir>${fonts}</dir><cachedir>${cache}</cachedir></fontconfig>`);
  const env = {
    ...process.env,
    LD_LIBRARY_PATH: [libraries, process.env.LD_LIBRARY_PATH].filter(Boolean).join(":"),
    FONTCONFIG_FILE: fontsFile,
  };
  if (withGpu) await withBundle("swiftshader", (bundle) => cpSync(bundle.folder, folder, { recursive: true }));
  const flags = [
    ...["--headless=shell", "--no-sandbox", "--no-zygote", "--hide-scrollbars", "--no-first-run"],
    ...withGpu ? swiftShaderFlags : ["--disable-gpu"],
  ];
  const apart = [`--user-data-dir=${folder}`, "--remote-debugging-port=0", "about:blank"];
  return spawn(program, [...flags, ...apart], { env, stdio: ["ignore", "ignore", "pipe"] });
}

/** Where the browser says that it listens. */
function addressOf(child: ChildProcess): Promise<string> {
  let said = "";
  return new Promise((resolve, reject) => {
    child.once("error", reject).once("exit", (code) => reject(new Error(`The browser ended with ${code}: ${said}`)));
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      const [, address] = /DevTools listening on (ws:\S+)/.exec(said) ?? [];
      if (address) resolve(address);
    });
  });
}
